"""The pages of the documentation, and the fenced blocks in them."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]

_BLOCK = re.compile(r"^( *)```(\S*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; `title` is the file that it shows, as in ```python title="train.py"."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match[3])
        line = text[: match.start()].count("\n") + 1
        body = textwrap.dedent(match[4])
        found.append(Block(page, line, match[2], title[1] if title else None, body))
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{page}: odd fences"
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks; their lines stay, empty."""
    text = page.read_text(encoding="utf-8")
    return _BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)
