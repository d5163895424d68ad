"""Tables of docs/kernels.md that scripts measure: read for tests, rewritten by `--write`."""

import sys
from collections.abc import Sequence
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(columns: Sequence[str]) -> str:
    """The table with this head as it stands in the document."""
    begin, end = _place(DOC.read_text(), columns)
    return DOC.read_text()[begin:end]


def write(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Puts the table in the place of the one that has the same head."""
    text = DOC.read_text()
    begin, end = _place(text, columns)
    DOC.write_text(text[:begin] + markdown(columns, rows) + text[end:])


def main(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the table, or with `--write` puts it into the document."""
    if sys.argv[1:] == ["--write"]:
        write(columns, rows)
    else:
        print(markdown(columns, rows))


def _place(text: str, columns: Sequence[str]) -> tuple[int, int]:
    begin = text.index(markdown(columns, []))
    end = text.find("\n\n", begin)
    return begin, len(text.rstrip("\n")) if end < 0 else end
