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
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[2] / "csrc"
ORDERS = {"forward": 0, "reverse": 1, "random": 2}
FLAGS = {
    "plain": ["-O1"],
    "address": ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-g1", "-fsanitize=thread", "-Wno-tsan"],
}
PRELOADS = {"address": "libasan.so", "thread": "libtsan.so"}


def build(flavour: str) -> Path:
    """Compiles library.cpp plain or with a sanitizer, or finds it in build/simt."""
    command = ["g++", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra"]
    # #pragma unroll is nvcc's.
    command += ["-Wno-unknown-pragmas", "-Werror", *FLAGS[flavour], f"-I{HERE}"]
    command += [f"-isystem{path}" for path in include_paths()]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", str(HERE / "library.cpp")]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    command += ["-ltorch_cpu"]

    sources = [*CSRC.glob("c*/*"), *HERE.glob("*.h"), HERE / "library.cpp"]
    digest = hashlib.sha256(f"{torch.__version__} {command}".encode())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    library = HERE.parents[2] / "build" / "simt" / f"{flavour}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        for stale in library.parent.glob(f"{flavour}-*.so"):
            stale.unlink()
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            subprocess.run([*command, "-o", f"{folder}/library.so"], check=True)
            os.replace(f"{folder}/library.so", library)
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


def small_cases(ops, device: str = "cpu") -> dict:
    """One call of each operator, small enough for the race detector, with several blocks."""
    generator = torch.Generator().manual_seed(5)

    def uniform(*shape: int, scale: float = 1.0):
        return (torch.rand(*shape, generator=generator) * scale).to(device)

    def people(P: int):
        return torch.cat([uniform(2, P, 2, 2, scale=150), uniform(2, P, 2, 1) + 0.1], -1)

    few, crowd = people(5), people(260)
    maps, tag_maps = uniform(2, 2, 19, 71), uniform(2, 2, 2, 19, 71, scale=3)
    grad, mask = uniform(2), uniform(2, 19, 71)
    target = (2.0, 7.0, 10.0, False)
    indices = torch.arange(28, device=device).view(2, 2, 7) * 191
    scores, xy, tags = uniform(2, 2, 40), uniform(2, 2, 40, 2), uniform(2, 2, 40, 2, scale=50)
    found, counts = uniform(2, 40, 2, 5), torch.tensor([3, 40], device=device)
    found[:, ::2, 1] = 0
    quarter, half = [uniform(1, 2, 9, 35)] * 2, [uniform(1, 2, 18, 70)] * 2
    return {
        "render_heatmaps": lambda: ops.render_heatmaps(
            few, [37, 19], [71, 36], [2.0, 4.0], [7.0, 7.0], [10.0, 7.0], False
        ),
        "heatmap_mse": lambda: ops.heatmap_mse(maps, crowd, mask, *target),
        "heatmap_mse_backward": lambda: ops.heatmap_mse_backward(grad, maps, few, mask, *target),
        "topk_peaks": lambda: ops.topk_peaks(maps, 30, 5, 38, 142, 0.1),
        "read_peaks": lambda: ops.read_peaks(maps, tag_maps, indices, 38, 142, False),
        "group_tags": lambda: ops.group_tags(scores, xy, tags, [1, 0], 50, 1.0, 0.1),
        "refine_people": lambda: ops.refine_people(maps, tag_maps, found, counts, 38, 142, False),
        "aggregate_heatmaps": lambda: ops.aggregate_heatmaps(quarter, half, quarter, half, [1, 0]),
    }


def run_forked(run, sim, planted: int) -> dict:
    """Runs a case in a child; returns its exit status (0: nothing found) and what it printed."""
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 2)
            status = 1
            try:
                for order, seed in [("forward", 1), ("random", 1), ("random", 2)]:
                    sim.configure(order, seed, planted=planted)
                    run()
                status = 0
            except RuntimeError as error:
                os.write(2, str(error).encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        return {"status": status, "log": log.read().decode(errors="replace")[:4000]}


def main() -> None:
    """harness.py build FLAVOUR | harness.py run LIBRARY CASE:PLANTED ... | harness.py gpu"""
    if sys.argv[1] == "build":
        print(build(sys.argv[2]))
    elif sys.argv[1] == "gpu":  # for compute-sanitizer
        import dhn.ops  # noqa: F401 registers torch.ops.dhn

        for run in small_cases(torch.ops.dhn, "cuda").values():
            run()
        torch.cuda.synchronize()
    else:
        sim = load(Path(sys.argv[2]))
        results = {}
        for name in sys.argv[3:]:
            case, planted = name.split(":")
            results[name] = run_forked(small_cases(sim.ops)[case], sim, int(planted))
        print(json.dumps(results))


if __name__ == "__main__":
    main()
