"""Builds the CUDA kernels for the SIMT runner and calls them as operators `dhn_simt::*`.

As a program, which test_simt.py starts, it runs a library under a preloaded sanitizer.
"""

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"
sys.path.insert(0, str(HERE.parent))  # as a program

from simt.bug_table import BUGS  # noqa: E402
from simt.bugs import plant  # noqa: E402
from simt.cases import cases  # noqa: E402

NEEDS = "the SIMT runner needs g++ on Linux x86-64"
RUNS_HERE = (
    platform.system() == "Linux" and platform.machine() == "x86_64" and bool(shutil.which("g++"))
)

ORDERS = {"forward": 0, "reverse": 1, "random": 2}
# The plain library is made of csrc as it stands, the sanitized ones of a copy with bugs in it.
FLAGS = {
    "plain": ["-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"],  # unroll is nvcc's
    "address": [
        *("-O0", "-g1", "-w", "-include", "builtins.h"),
        *("-fsanitize=address,undefined,bounds-strict", "-fno-sanitize-recover=all"),
    ],
    "thread": ["-O1", "-g1", "-w", "-include", "builtins.h", "-fsanitize=thread"],
    "traffic": ["-O1", "-w", "-DSIMT_TRAFFIC"],
}
# The thread sanitizer's calls at each access, without the thread sanitizer (traffic.cpp).
WATCHED = ["-fsanitize=thread", "-U__SANITIZE_THREAD__"]
PRELOADS = {"address": "libasan.so", "thread": "libtsan.so"}


def build(flavour: str) -> Path:
    """Compiles library.cpp plain, with a sanitizer or with counters, or finds it in build/simt.

    Of several processes that ask for it at once, one compiles it.
    """
    from filelock import FileLock
    from torch.utils.cpp_extension import include_paths, library_paths  # slow under a sanitizer

    command = ["g++", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", *FLAGS[flavour]]
    command += [f"-I{HERE}", *(f"-isystem{path}" for path in include_paths())]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    command += ["-ltorch_cpu"]

    digest = hashlib.sha256(f"{torch.__version__} {command} {WATCHED} {BUGS}".encode())
    sources = [CSRC / "checks.h", *CSRC.glob("common/*"), *CSRC.glob("cuda/*")]
    for source in sorted([*sources, *HERE.glob("*.h"), *HERE.glob("*.cpp"), HERE / "bugs.py"]):
        digest.update(source.read_bytes())
    library = ROOT / "build" / "simt" / f"{flavour}-{digest.hexdigest()[:16]}.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(library.parent / f".{flavour}.lock"):
        if not library.exists():
            for stale in library.parent.glob(f"{flavour}-*.so"):
                stale.unlink()
            _compile(flavour, command, library)
    return library


def _compile(flavour: str, command: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        copy, made = Path(folder) / "csrc", Path(folder) / "library.so"
        if flavour in PRELOADS:
            plant(CSRC, copy, BUGS)
        include = copy if flavour in PRELOADS else CSRC
        command = [*command, f"-I{include}"]
        sources = [str(HERE / "library.cpp")]
        if flavour == "traffic":  # the counters themselves are not watched
            watched = str(Path(folder) / "library.o")
            subprocess.run([*command, *WATCHED, "-c", *sources, "-o", watched], check=True)
            sources = [watched, str(HERE / "traffic.cpp")]
        # Sources come before the libraries that they need.
        subprocess.run([*command[:1], *sources, *command[1:], "-o", str(made)], check=True)
        made.replace(library)


def load(library: Path | str) -> SimpleNamespace:
    """Loads a built library once per process: `ops` are its operators, `configure` sets the runner.

    Schemas are read from csrc/ops.cpp, so that this needs no other part of dhn built.
    """
    definitions = torch.library.Library("dhn_simt", "DEF")
    for literals in re.findall(r'm\.def\(\s*((?:"[^"]*"\s*)+)\)', (CSRC / "ops.cpp").read_text()):
        definitions.define("".join(re.findall(r'"([^"]*)"', literals)))
    torch.ops.load_library(str(library))
    handle = ctypes.CDLL(str(library))

    def configure(order: str = "forward", seed: int = 1, poison: int = 0xFF, planted: int = 0):
        handle.simt_configure(ORDERS[order], ctypes.c_ulong(seed), poison, planted)

    def traffic() -> list[dict[str, int]]:
        """What each launch since the last call asked of memory; of the library with counters."""
        handle.simt_traffic.restype = ctypes.c_char_p
        return json.loads(handle.simt_traffic())

    return SimpleNamespace(
        ops=torch.ops.dhn_simt, configure=configure, traffic=traffic, definitions=definitions
    )


# In which order threads and blocks take turns, and the seed of a random one.
TURNS = [("forward", 1), ("random", 1), ("random", 2)]


def run_clean(sim: SimpleNamespace) -> None:
    """Runs every case in this process, which a sanitizer ends where it finds something."""
    for name, run in cases(sim.ops).items():
        print(name, file=sys.stderr, flush=True)
        for order, seed in TURNS:
            sim.configure(order, seed)
            run()


def run_bug(sim: SimpleNamespace, n: int) -> dict:
    """Runs bug n's case in a child; returns its exit status (0: nothing found) and its last words.

    The results of a bug that shows in values are compared with those of the code without it.
    """
    bug = BUGS[n - 1]
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                run = cases(sim.ops)[bug.case]
                for order, seed in TURNS:
                    sim.configure(order, seed)
                    expected = run() if bug.caught_by == "values" else None
                    sim.configure(order, seed, planted=n)
                    results = run()
                    if expected is not None and not same(results, expected):
                        raise RuntimeError("other values")
                status = 0
            except RuntimeError as error:
                os.write(2, str(error).encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        return {"status": status, "log": log.read().decode(errors="replace")[:4000]}


def same(results, expected) -> bool:
    """Whether all tensors are equal, NaN being equal to NaN."""
    pairs = zip(tree_leaves(results), tree_leaves(expected), strict=True)
    return all(torch.equal(a.nan_to_num(nan=-7), b.nan_to_num(nan=-7)) for a, b in pairs)


def main() -> None:
    """harness.py run LIBRARY BUG ... | harness.py gpu"""
    command, *arguments = sys.argv[1:]
    if command == "run":  # the bugs first: a process that has run fibers cannot be forked
        sim = load(arguments[0])
        print(json.dumps({n: run_bug(sim, int(n)) for n in arguments[1:]}), flush=True)
        run_clean(sim)
    else:  # for compute-sanitizer
        import dhn.ops  # noqa: F401 registers torch.ops.dhn

        for run in cases(torch.ops.dhn, "cuda").values():
            run()
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
