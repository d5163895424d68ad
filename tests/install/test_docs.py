"""The documentation builds as a site, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
LOADED = re.compile(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(\S*?)"')


def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    pages = list(tmp_path.glob("**/index.html"))
    assert len(pages) == len(list(ROOT.glob("docs/*.md")))
    for page in pages:
        loaded = LOADED.findall(page.read_text())
        assert loaded
        assert not [address for address in loaded if re.match("(https?:)?//", address)]


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_pages_outside_of_the_site_link_to_files_that_exist(page):
    links = LINK.findall(page.read_text())
    files = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert not [file for file in files if not (ROOT / file).exists()]
