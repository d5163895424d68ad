"""The page of decisions quotes the paper exactly, and names settings as they are."""

import re

import pytest

from dhn.training.config import load_config, presets
from doc_pages import ROOT

PAGE = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_quotes_are_the_papers_words(shared):
    path = shared / "paper.md"
    if not path.is_file():
        pytest.skip("needs the paper's text")
    # Superscripts and formulas are text of their own in the paper's Markdown.
    paper = plain(re.sub(r"[$^{}\\]|circ", "", path.read_text(encoding="utf-8")))
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("|")]
    quotes = [quote for row in rows if len(row) == 6 for quote in re.findall(r'"([^"]+)"', row[2])]
    assert len(quotes) == 11
    for quote in [*quotes, *re.findall(r'"(flip test[^"]+)"', PAGE)]:
        assert quote in paper, quote


def test_settings_are_the_recipes():
    config = load_config()
    given = re.findall(r"`(\w+)\.(\w+)(?:=([^`]*))?`", PAGE)
    assert len(given) >= 7
    for section, key, value in given:
        setting = getattr(getattr(config, section), key)
        assert value in ("", str(setting), str(setting).lower()), (section, key)
    assert set(re.findall(r"--config (\w+)`", PAGE)) <= set(presets())


def test_what_is_said_of_the_network():
    text = (ROOT / "dhn/model/networks.py").read_text(encoding="utf-8")
    for words in (
        "bottlenecks: Sequence[int] = (4, 2)",
        "channels // 4",
        "C + 2 * J",
        "_upsampling",
    ):
        assert words in text
