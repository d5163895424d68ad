"""Builds the CUDA kernels for the SIMT runner and calls them as operators `dhn_simt::*`.

As a program (test_simt.py starts it) it builds a library, or, under a preloaded sanitizer, runs one
case after another in forked children and prints what became of each as JSON.
"""

import ctypes
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CSRC = ROOT / "csrc"
sys.path.insert(0, str(HERE.parent))  # as a program

from simt.bug_table import BUGS  # noqa: E402
from simt.bugs import plant  # noqa: E402
from simt.cases import cases  # noqa: E402

ORDERS = {"forward": 0, "reverse": 1, "random": 2}
# The plain library is made of csrc as it stands, the sanitized ones of the copy with bugs in it.
FLAGS = {
    "plain": ["-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"],  # unroll is nvcc's
    "address": ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-w"],
    "thread": ["-O1", "-g1", "-fsanitize=thread", "-w"],
}
PRELOADS = {"address": "libasan.so", "thread": "libtsan.so"}


def build(flavour: str) -> Path:
    """Compiles library.cpp plain or with a sanitizer, or finds it in build/simt."""
    command = ["g++", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", *FLAGS[flavour]]
    command += [f"-I{HERE}", "-include", "builtins.h"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", str(HERE / "library.cpp")]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    command += ["-ltorch_cpu"]

    digest = hashlib.sha256(f"{torch.__version__} {command} {BUGS}".encode())
    for source in sorted([*CSRC.glob("c*/*"), CSRC / "checks.h", *HERE.glob("*.[hcp]*")]):
        if source.is_file():
            digest.update(source.read_bytes())
    library = ROOT / "build" / "simt" / f"{flavour}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        for stale in library.parent.glob(f"{flavour}-*.so"):
            stale.unlink()
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            sources = CSRC
            if flavour in PRELOADS:
                sources = Path(folder) / "csrc"
                plant(CSRC, sources, BUGS)
            made = f"{folder}/library.so"
            subprocess.run([*command, f"-I{sources}", "-o", made], check=True)
            os.replace(made, library)
    return library


def load(library: Path) -> SimpleNamespace:
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

    return SimpleNamespace(ops=torch.ops.dhn_simt, configure=configure, definitions=definitions)


def run_forked(case: str, sim, planted: int) -> dict:
    """Runs a case in a child; returns its exit status (0: nothing found) and what it printed.

    Of bugs that show in values the results are compared with those of the code without them.
    """
    compared = planted > 0 and BUGS[planted - 1].caught_by == "values"
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                run = cases(sim.ops)[case]
                for order, seed in [("forward", 1), ("random", 1), ("random", 2)]:
                    sim.configure(order, seed)
                    expected = run() if compared else None
                    sim.configure(order, seed, planted=planted)
                    results = run()
                    if compared and not same(results, expected):
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
    pairs = zip(tree_leaves(results), tree_leaves(expected), strict=True)
    return all(torch.equal(a.nan_to_num(nan=-7), b.nan_to_num(nan=-7)) for a, b in pairs)


def main() -> None:
    """harness.py build FLAVOUR | harness.py run LIBRARY CASE:BUG ... | harness.py gpu"""
    if sys.argv[1] == "build":
        print(build(sys.argv[2]))
    elif sys.argv[1] == "gpu":  # for compute-sanitizer
        import dhn.ops  # noqa: F401 registers torch.ops.dhn

        for run in cases(torch.ops.dhn, "cuda").values():
            run()
        torch.cuda.synchronize()
    else:
        sim = load(Path(sys.argv[2]))
        results = {}
        for name in sys.argv[3:]:
            case, planted = name.rsplit(":", 1)
            results[name] = run_forked(case, sim, int(planted))
        print(json.dumps(results))


if __name__ == "__main__":
    main()
