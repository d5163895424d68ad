"""Bugs that the SIMT harness must catch: each barrier and each bound of the kernels, left out.

The kernels hold none of this. `plant` writes a copy of csrc in which every bug is there behind a
switch, `simt::config.planted == n`, so that one library holds them all and 0 is the code as it is.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

BARRIER = re.compile(r"__sync(?:threads|warp)\w*\(")


@dataclass(frozen=True)
class Bug:
    """A small patch.

    Attributes:
        name: what goes wrong.
        file: below csrc.
        text: occurs there exactly once; what stands between its two backticks (which the file does
            not have) is replaced. A statement, with its semicolon, or an expression.
        instead: what replaces it; nothing takes a statement away.
        case: the call in which the bug must be seen (cases.py).
        caught_by: `address` or `thread`: by that sanitizer. `divergence`: by the SIMT runner, to
            which threads of a block come that wait at different barriers. `values`: the results
            differ from those without the bug.
    """

    name: str
    file: str
    text: str
    instead: str
    case: str
    caught_by: str

    @property
    def flavour(self) -> str:
        """The library in which the bug runs."""
        return "address" if self.caught_by == "address" else "thread"

    def span(self, source: str) -> tuple[int, int]:
        """Where in its file's text the replaced part lies."""
        before, replaced, after = self.text.split("`")
        found = [m.start() for m in re.finditer(re.escape(before + replaced + after), source)]
        if len(found) != 1:
            raise ValueError(f"{self.name}: {self.file} has {self.text!r} {len(found)} times")
        return found[0] + len(before), found[0] + len(before) + len(replaced)


def plant(csrc: Path, folder: Path, bugs: list[Bug]) -> None:
    """Writes what the kernels need of csrc to `folder`, with bug n of `bugs` (from 1) behind n."""
    for part in ("common", "cuda"):
        shutil.copytree(csrc / part, folder / part)
    shutil.copy(csrc / "checks.h", folder)
    for file in {bug.file for bug in bugs}:
        source = (csrc / file).read_text()
        numbered = [(n, bug) for n, bug in enumerate(bugs, 1) if bug.file == file]
        spans = sorted((*bug.span(source), n, bug.instead) for n, bug in numbered)
        end = len(source)
        for begin, until, n, instead in reversed(spans):
            if until > end:
                raise ValueError(f"bug {n} overlaps with another one in {file}")
            source = source[:begin] + switch(n, source[begin:until], instead) + source[until:]
            end = begin
        (folder / file).write_text(source)


def switch(n: int, text: str, instead: str) -> str:
    """Both pieces of code, of which the runner's configuration picks one."""
    live = f"simt::config.planted == {n}"
    if not text.endswith(";"):
        return f"({live} ? ({instead}) : ({text}))"
    return f"if ({live}) {{ {instead} }} else {{ {text} }}"
