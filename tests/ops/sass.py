"""What ptxas made of the CUDA kernels for Hopper (sm_90), read from its machine code.

    python tests/ops/sass.py            prints the table of docs/kernels.md
    python tests/ops/sass.py --write    puts it there

It needs nvcc, and cuobjdump and nvdisasm: `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`,
where the CUDA toolkit does not bring them. No GPU is needed.
"""

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import doc_table

CSRC = Path(__file__).resolve().parents[2] / "csrc"
FLAGS = ["-cubin", "-arch=sm_90", "-std=c++17", "-O3", "--fmad=false", "-DUSE_CUDA"]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
COLUMNS = [
    *("kernel", "threads", "registers", "shared memory", "blocks per SM"),
    *("loads 16 / 8 / 4 / 2 bytes", "stores 16 / 8 / 4 / 2 bytes"),
]

# A multiprocessor of sm_90 (CUDA Programming Guide, "Compute Capabilities").
REGISTERS, REGISTERS_AT_A_TIME = 64 * 1024, 256  # the latter per warp
PARTITIONS = 4  # the warps of a block are dealt to these, and so are the registers
SHARED, SHARED_AT_A_TIME = 228 * 1024, 128
WARPS, BLOCKS = 64, 32


@dataclass
class Kernel:
    """One kernel in machine code.

    Attributes:
        threads: of a block, by its launch bounds.
        registers: per thread.
        shared: bytes of shared memory per block, with the 1024 that the system takes.
        local: bytes of local memory per thread: stack frame and spills.
        instructions: how often each memory instruction stands in the code, like "LDG.128". They
            are those of the code as it is written, not of a run.
    """

    threads: int = 0
    registers: int = 0
    shared: int = 0
    local: int = 0
    instructions: Counter[str] = field(default_factory=Counter)

    @property
    def blocks_per_sm(self) -> int:
        """How many blocks a multiprocessor holds at once, by registers, shared memory, threads."""
        warps = _up(self.threads, 32) // 32
        registers_per_warp = _up(self.registers * 32, REGISTERS_AT_A_TIME)
        fitting = REGISTERS // PARTITIONS // registers_per_warp * PARTITIONS
        by_shared = SHARED // max(_up(self.shared, SHARED_AT_A_TIME), 1)
        return min(min(fitting, WARPS) // warps, by_shared, BLOCKS)

    def accesses(self, kind: str) -> list[int]:
        """Instructions of kind "LDG" or "STG" that move 16, 8, 4 and 2 bytes a thread."""
        return [self.instructions[f"{kind}.{bits}"] for bits in (128, 64, 32, 16)]


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def tools() -> dict[str, str]:
    """Paths of nvcc, cuobjdump and nvdisasm, as far as they are found on PATH or in packages."""
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    path = os.pathsep.join([os.environ["PATH"], *map(str, packages.glob("*/bin"))])
    names = ("nvcc", "cuobjdump", "nvdisasm")
    return {name: found for name in names if (found := shutil.which(name, path=path))}


def nvcc_version() -> str:
    """Like "13.0.88"."""
    run = subprocess.run([tools()["nvcc"], "--version"], capture_output=True, text=True, check=True)
    return re.findall(r"V([\d.]+)", run.stdout)[0]


def disassemble() -> dict[str, Kernel]:
    """Compiles csrc/cuda and returns its kernels by name, like "find_peaks_kernel<float>"."""
    from torch.utils.cpp_extension import include_paths

    found = tools()
    environment = os.environ | {"NVDISASM_PATH": str(Path(found["nvdisasm"]).parent)}
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder) / "all.cu", Path(folder) / "all.cubin"
        sources = sorted(CSRC.glob("cuda/*.cu"))
        source.write_text("".join(f'#include "{path}"\n' for path in sources))
        headers = [part for path in include_paths() for part in ("-isystem", path)]
        command = [found["nvcc"], *FLAGS, f"-I{CSRC}", *headers, str(source), "-o", str(cubin)]
        subprocess.run(command, check=True)

        def dump(what: str) -> str:
            command = [found["cuobjdump"], what, str(cubin)]
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            return run.stdout

        kernels = parse(dump("-res-usage"), dump("-elf"), dump("-sass"))
    names = subprocess.run(
        ["c++filt", "-p"], input="\n".join(kernels), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    short = [re.sub(r"dhn::cuda::|c10::", "", name) for name in names]
    return dict(sorted(zip(short, kernels.values(), strict=True)))


def parse(resources: str, elf: str, sass: str) -> dict[str, Kernel]:
    """Reads what cuobjdump says with -res-usage, -elf and -sass; names are still mangled."""
    kernels: dict[str, Kernel] = {}
    usage = re.compile(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
    for name, registers, stack, shared, local in usage.findall(resources):
        kernels[name] = Kernel(
            registers=int(registers), shared=int(shared), local=int(stack) + int(local)
        )
    threads = re.compile(r"EIATTR_MAX_THREADS\s+Format:\s+\w+\s+Value:\s+(\w+) (\w+) (\w+)")
    for section in re.split(r"^\.nv\.info\.", elf, flags=re.M)[1:]:
        x, y, z = (int(size, 16) for size in threads.findall(section)[0])
        kernels[section.split(maxsplit=1)[0]].threads = x * y * z
    # Like "/*0a30*/  @!P0 LDG.E.128.CONSTANT R4, [R2.64] ;"
    instruction = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?((?:LD|ST)[GLS]?)\b([.\w]*)")
    for section in re.split(r"^\s+Function : ", sass, flags=re.M)[1:]:
        counts = kernels[section.split(maxsplit=1)[0]].instructions
        for kind, modifiers in instruction.findall(section):
            bits = re.search(r"\.[SU]?(128|64|16|8)\b", modifiers)
            counts[f"{kind}.{bits[1] if bits else 32}"] += 1
    return kernels


def table(kernels: dict[str, Kernel]) -> list[list[str]]:
    """The rows of docs/kernels.md."""
    rows = []
    for name, kernel in kernels.items():
        numbers = (kernel.threads, kernel.registers, kernel.shared, kernel.blocks_per_sm)
        moves = (" / ".join(map(str, kernel.accesses(kind))) for kind in ("LDG", "STG"))
        rows.append([f"`{name}`", *map(str, numbers), *moves])
    return rows


if __name__ == "__main__":
    doc_table.main(COLUMNS, table(disassemble()))
