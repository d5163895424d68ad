"""What the pages promise their readers: length, width, links that lead somewhere, plain words."""

import re
import shlex
from pathlib import Path

import click
import pytest

from dhn.cli import main
from doc_pages import PAGES, PROSE, ROOT, name, prose

# Words that stood here in place of those that everybody uses.
UNUSUAL = (
    r"whence|thereof|mend(?:s|ed|ing)?|by heart|founds a person|(?:picture|image) of the house"
)


@pytest.mark.parametrize(("page", "most"), [("README.md", 900), ("docs/architecture.md", 899)])
def test_length(page, most):
    assert len((ROOT / page).read_text(encoding="utf-8").split()) <= most


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_lines_fit(page):
    long = [
        number
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 100 and not line.lstrip().startswith("|") and "://" not in line
    ]
    assert not long, f"{name(page)}: longer than 100 columns: lines {long}"


def test_tables_of_the_readme_fit():
    rows = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if len(row) > 100] == []


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.is_file(), f"{name(page)}: {target}"
        if page.parent.name == "docs":  # the site has nothing from outside of docs/
            assert file.resolve().is_relative_to(page.parent), f"{name(page)}: {target}"
        assert not anchor or anchor in anchors(file), f"{name(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """What headings are called in links, on code-hosting sites and by mkdocs."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_words_are_common(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    found = re.findall(rf"\b(?:{UNUSUAL})\b", text, re.IGNORECASE)
    assert not found, f"{name(page)}: {found}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page):
    """Blocks run (test_readme.py); this is for `dhn ...` and `python ...` between them."""
    for code in re.findall(r"`((?:dhn|python) [^`]+)`", " ".join(prose(page).split())):
        program, *arguments = shlex.split(code)
        if program == "dhn":
            check_options(arguments, code)
        elif arguments[0].endswith(".py"):
            assert (ROOT / arguments[0]).is_file(), code


def check_options(arguments: list[str], code: str) -> None:
    command: click.Command = main
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, code
        command = command.commands[arguments.pop(0)]
    known = {"--help", "-h"}.union(*(option.opts for option in command.params))
    known |= {opt for option in command.params for opt in option.secondary_opts}
    options = {argument.partition("=")[0] for argument in arguments if argument[0] == "-"}
    assert options <= known, f"{code}: {options - known}"
