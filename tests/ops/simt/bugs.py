"""Bugs that the SIMT harness must catch: each barrier and each bound of the kernels, left out.

The kernels hold none of this. `plant` writes a copy of csrc in which every bug is there behind a
switch, `simt::config.planted == n`, so that one library holds them all and 0 is the code as it is.
"""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

BARRIER = re.compile(r"__sync(?:threads|warp)\w*\(")


@dataclass(frozen=True)
class Bug:
    """A small patch.

    Attributes:
        file: below csrc.
        text: occurs there exactly once. What stands between its two backticks is replaced: a
            statement with its semicolon, or an expression.
        instead: what replaces it; nothing takes a statement away.
        case: the call in which the bug must be seen (cases.py).
        caught_by: `address` or `thread`: by that sanitizer. `divergence`: by the SIMT runner, when
            threads of a block wait at different barriers. `values`: the results differ from those
            without the bug.
    """

    file: str
    text: str
    instead: str
    case: str
    caught_by: str

    @property
    def flavour(self) -> str:
        """The sanitizer of the library in which the bug runs; values show under either."""
        return "address" if self.caught_by in ("address", "values") else "thread"

    def span(self, source: str) -> tuple[int, int]:
        """Where the replaced part lies in its file's text."""
        before, replaced, after = self.text.split("`")
        found = [m.start() for m in re.finditer(re.escape(before + replaced + after), source)]
        if len(found) != 1:
            raise ValueError(f"{self.file} has {self.text!r} {len(found)} times, not once")
        return found[0] + len(before), found[0] + len(before) + len(replaced)


def plant(csrc: Path, folder: Path, bugs: list[Bug]) -> None:
    """Writes what the kernels need of csrc to `folder`, with bug n of `bugs` (from 1) behind n."""
    for part in ("common", "cuda"):
        shutil.copytree(csrc / part, folder / part)
    shutil.copy(csrc / "checks.h", folder)
    for file in {bug.file for bug in bugs}:
        source = (csrc / file).read_text()
        choices: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
        for n, bug in enumerate(bugs, 1):
            if bug.file == file:
                choices[bug.span(source)][n] = bug.instead
        rest = len(source)
        for begin, end in sorted(choices, reverse=True):
            if end > rest:
                raise ValueError(f"{file}: two bugs overlap at {source[begin:end]!r}")
            source = source[:begin] + switch(source[begin:end], choices[begin, end]) + source[end:]
            rest = begin
        (folder / file).write_text(source)


def switch(text: str, instead: dict[int, str]) -> str:
    """The code as it stands, or what bug n puts in its place while the runner plants n."""
    statement = text.endswith(";")
    code = f"{{ {text} }}" if statement else f"({text})"
    for n, bug in instead.items():
        live = f"(simt::config.planted == {n})"
        code = f"if {live} {{ {bug} }} else {code}" if statement else f"({live} ? ({bug}) : {code})"
    return code
