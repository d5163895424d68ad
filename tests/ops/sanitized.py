"""Builds the CPU operators with AddressSanitizer and UBSan, once for all tests that want them."""

import hashlib
import subprocess
import sys
from pathlib import Path

from locks import built_once

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
FLAGS = ["-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off"]
FLAGS += ["-fsanitize=address,undefined,bounds-strict,float-cast-overflow"]
FLAGS += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
FLAGS += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
# Python's own leaks are not ours; an allocation that is too large ends in an error, as without.
OPTIONS = "detect_leaks=0:allocator_may_return_null=1"


def runtime() -> str | None:
    """What has to be loaded before Python: GCC's AddressSanitizer and the exceptions it watches."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        ask = [["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
        found = [subprocess.run(one, capture_output=True, text=True).stdout.strip() for one in ask]
    except FileNotFoundError:
        return None
    return " ".join(found) if all(Path(path).is_absolute() for path in found) else None


def build() -> Path:
    """Compiles the operators in one translation unit, or finds them in build/sanitized."""
    from torch.utils.cpp_extension import include_paths, library_paths

    from dhn.base.native import CPU_PARTS, source_hash

    sources = [CSRC / "ops.cpp", *sorted(CSRC.glob("cpu/*.cpp"))]
    content = source_hash(CSRC, *CPU_PARTS)
    name = hashlib.sha256(f"{FLAGS} {include_paths()} {content}".encode()).hexdigest()[:16]

    def compile_to(library: Path) -> None:
        folder = library.parent
        (folder / "source_hash.h").write_text(f'#define DHN_SOURCE_HASH "{content}"\n')
        everything = folder / "everything.cpp"
        everything.write_text("".join(f'#include "{path}"\n' for path in sources))
        command = ["g++", *FLAGS, f"-I{CSRC}", f"-I{folder}", str(everything), "-o", str(library)]
        command += [f"-isystem{path}" for path in include_paths()]
        for path in library_paths():
            command += [f"-L{path}", f"-Wl,-rpath,{path}"]
        subprocess.run([*command, "-ltorch_cpu"], check=True)

    return built_once(ROOT / "build" / "sanitized" / f"{name}.so", compile_to)
