"""Corrects the ids of people by hand: what a table says of swapped, merged and split tracks."""

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from dhn.base.errors import DhnError
from dhn.base.files import read_bytes
from dhn.inference.people import People

_log = logging.getLogger(__name__)

_NEEDED = ("action", "id", "other")
COLUMNS = (*_NEEDED, "first", "last", "source")
_HEADER = f"the first line must name columns: {', '.join(COLUMNS)} (the last three may lack)"


@dataclass(frozen=True)
class Correction:
    """One line of a table.

    Attributes:
        line: its number in the file, for messages.
        action: `swap` exchanges `id` and `other`. `merge` makes `other` of `id`, who is the same
            person. `split` does so, too, from or up to a frame: from there on `id` is somebody
            else, whom `other` gives a new number.
        id, other: from 1.
        first, last: the numbers of the first and of the last frame where this holds; None is the
            beginning or the end of the video.
        source: the path or file name of the video, or its end; "" stands for all videos.
    """

    line: int
    action: str
    id: int
    other: int
    first: int | None = None
    last: int | None = None
    source: str = ""

    def concerns(self, source: str) -> bool:
        """Whether it is about this video."""
        parts = PurePath(self.source).parts
        return not parts or PurePath(source).parts[-len(parts) :] == parts

    def holds(self, frame: int) -> bool:
        """Whether it is about this frame."""
        return (self.first or 0) <= frame and (self.last is None or frame <= self.last)


@dataclass(frozen=True)
class Corrections:
    """Corrections of ids in the order in which they are made, each upon the result of the last.

    Attributes:
        path: the table, for messages.
        lines: what it says.
    """

    path: Path
    lines: tuple[Correction, ...]
    _told: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    def check(self, sources: Sequence[str]) -> None:
        """Raises DhnError if a line is about none of these videos."""
        for line in self.lines:
            if not any(map(line.concerns, sources)):
                raise DhnError(f"{self.path}, line {line.line}: there is no video {line.source}")

    def corrected(self, people: People, frame: int, source: str) -> People:
        """The people of one frame with other ids.

        A person keeps its id where somebody else in the frame has the one that it should get; the
        log says so once for each line of the table.

        Args:
            people: their `ids` are corrected, if they have any.
            frame: its number in the video, from 0.
            source: the video's path.
        """
        if people.ids is None:
            return people
        ids = people.ids.copy()
        for line in self.lines:
            if not (line.holds(frame) and line.concerns(source)):
                continue
            mine, others = ids == line.id, ids == line.other
            if line.action == "swap":
                ids[mine], ids[others] = line.other, line.id
            elif not others.any():
                ids[mine] = line.other
            elif mine.any() and line.line not in self._told:
                self._told.add(line.line)
                _log.warning(
                    f"{self.path}, line {line.line}: frame {frame} has both {line.id} and "
                    f"{line.other}, so {line.id} stays {line.id} there, as in all such frames"
                )
        return replace(people, ids=ids)


def read_corrections(path: Path) -> Corrections:
    """Reads a CSV table of corrections, a line for each; docs/videos.md describes it.

    Raises:
        DhnError: it cannot be read, or a line is not understood.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DhnError(f"{path}: is no text in UTF-8; save it as CSV in UTF-8") from error
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or []]
    if not {*_NEEDED} <= {*names} <= {*COLUMNS}:
        raise DhnError(f"{path}: {_HEADER}")
    rows.fieldnames = names
    return Corrections(path, tuple(_correction(path, rows.line_num, row) for row in rows))


def _correction(path: Path, number: int, row: dict[str, str | None]) -> Correction:
    where = f"{path}, line {number}"
    if None in row:
        raise DhnError(f"{where}: has more cells than the first line names")
    cells = {name: (cell or "").strip() for name, cell in row.items()}
    if cells["action"] not in ("swap", "merge", "split"):
        raise DhnError(f"{where}: action must be swap, merge or split, not {cells['action']!r}")
    values: dict[str, int | None] = {}
    for name in ("id", "other", "first", "last"):
        cell = cells.get(name, "")
        least = 1 if name in _NEEDED else 0
        if not cell and name not in _NEEDED:
            values[name] = None
        elif cell.isdecimal() and least <= int(cell) < 2**31:
            values[name] = int(cell)
        else:
            raise DhnError(f"{where}: {name} must be a whole number from {least}, not {cell!r}")
    id, other, first, last = values.values()
    assert id is not None
    assert other is not None
    if id == other:
        raise DhnError(f"{where}: id and other are both {id}")
    if last is not None and last < (first or 0):
        raise DhnError(f"{where}: last, {last}, is before first, {first}")
    if cells["action"] == "split" and first is None and last is None:
        raise DhnError(f"{where}: split needs first or last, the frame where somebody else begins")
    return Correction(number, cells["action"], id, other, first, last, cells.get("source", ""))
