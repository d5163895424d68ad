"""Builds the operators in csrc into dhn/_C and dhn/_C_cuda; metadata is in pyproject.toml.

pip install --no-build-isolation -e .      installs
python setup.py build_ext --inplace        rebuilds what changed
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    sys.exit(
        "dhn is compiled against the torch you have: pip install 'torch>=2.10' first, "
        "then pip install --no-build-isolation ."
    )

ROOT = Path(__file__).resolve().parent
os.chdir(ROOT)
# torch looks for ninja on PATH, where that of an environment that is not activated is missing.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
sys.path.insert(0, str(ROOT))  # pip does not put the project there
from dhn.base.native import CPU_PARTS, CUDA_PARTS, source_hash  # noqa: E402

CSRC = Path("csrc")
GENERATED = Path("build/generated")
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # one library for every torch >= 2.10
CXX = [
    *(STABLE_ABI, "-O3", "-g0", "-Wall", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math"),  # nobody looks at errno or traps
    "-ffp-contract=off",  # else ties between mirrored pixels depend on the machine
    "-fno-wrapv",  # Python's own -fwrapv keeps loops from becoming vector code
]


def write_hash(name: str, macro: str, *parts: str) -> None:
    """Rewrites the header only if it changes: what includes it is compiled again only then."""
    text = f'#define {macro} "{source_hash(CSRC, *parts)}"\n'
    path = GENERATED / name
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def extensions() -> list[Extension]:
    include_dirs = [str(ROOT / CSRC), str(ROOT / GENERATED)]
    write_hash("source_hash.h", "DHN_SOURCE_HASH", *CPU_PARTS)
    found = [
        cpp_extension.CppExtension(
            "dhn._C",
            [str(CSRC / "ops.cpp"), *map(str, sorted(CSRC.glob("cpu/*.cpp")))],
            include_dirs=include_dirs,
            extra_compile_args={"cxx": [*CXX, "-std=c++20"]},
            py_limited_api=True,
        )
    ]
    # Builders have no GPU: what counts is a CUDA torch and a toolkit, not cuda.is_available().
    if torch.version.cuda and cpp_extension.CUDA_HOME:
        write_hash("cuda_source_hash.h", "DHN_CUDA_SOURCE_HASH", *CUDA_PARTS)
        found.append(
            cpp_extension.CUDAExtension(
                "dhn._C_cuda",
                [*map(str, sorted(CSRC.glob("cuda/*.cu"))), str(CSRC / "cuda" / "source_hash.cpp")],
                include_dirs=include_dirs,
                extra_compile_args={
                    "cxx": [*CXX, "-std=c++17", "-DUSE_CUDA"],
                    "nvcc": [STABLE_ABI, "-DUSE_CUDA", "-O3", "-std=c++17", "--fmad=false"],
                },
                py_limited_api=True,
            )
        )
    return found


class BuildOperators(cpp_extension.BuildExtension):
    """Keeps objects in one folder, so that no command compiles what another has compiled.

    Left alone, an editable installation keeps them in a temporary one.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.build_temp = "build/objects"


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildOperators.with_options(no_python_abi_suffix=True)},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
