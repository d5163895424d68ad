"""Installs the torch of constraints.txt into the Python that runs this file.

python tools/install_torch.py [INDEX]

INDEX, make's TORCH_INDEX, is the package index to take torch from. Without it, this program decides
and says what it chose:

1. With a working NVIDIA driver, PyTorch's index of CUDA builds; without one, that of CPU builds.
2. Where that index cannot be reached, whatever pip is configured to find. Only a CUDA build, which
   has several GB, is never installed without a GPU.
3. Where pip finds nothing suitable, it stops and asks for TORCH_INDEX.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"


@dataclass(frozen=True)
class Build:
    """A build of torch that pip would install."""

    version: str  # like 2.13.0+cpu
    cuda: bool
    folder: str  # where its wheel lies, an address
    index: str | None  # what pip was asked to look in; None: what it is configured to look in

    def __str__(self) -> str:
        return f"torch {self.version} ({'CUDA' if self.cuda else 'CPU'} build, {self.folder})"


def main() -> None:
    run_pip("install", "pip>=23.3")  # in older ones even a dry run downloads the several GB
    build, reason = choose(sys.argv[1] if len(sys.argv) > 1 else None)
    print(f"dhn: installing {build}, because {reason}", flush=True)
    requirement = f"torch=={build.version}"
    extra_index = []
    if build.index:
        # PyTorch's indexes hold torch, but not all pinned versions of the packages that it needs.
        run_pip("install", "--no-deps", "--index-url", build.index, requirement)
        extra_index = ["--extra-index-url", build.index]
    run_pip("install", "--constraint", str(CONSTRAINTS), *extra_index, requirement)


def choose(index: str | None) -> tuple[Build, str]:
    """The build to install, from `index` if one is given, and the reason for it in words.

    Raises:
        SystemExit: there is none to be had.
    """
    if index:
        if build := offer(index):
            return build, "TORCH_INDEX says so"
        raise SystemExit(f"dhn: pip finds no {pinned_torch()} at TORCH_INDEX={index}")

    gpus = nvidia_gpus()
    reason = f"this machine has an {gpus[0]}" if gpus else "no NVIDIA driver works here"
    preferred = CUDA_INDEX if gpus else CPU_INDEX
    build = offer(preferred)
    if build and build.cuda == bool(gpus):
        return build, f"{reason} (TORCH_INDEX=URL overrides this)"
    build = offer(None)
    if build and (gpus or not build.cuda):
        return build, f"{reason} and {preferred} cannot be reached"
    found = f"pip has only {build}, several GB" if build else f"pip finds no {pinned_torch()}"
    raise SystemExit(
        f"dhn: {reason}, {preferred} cannot be reached, and {found}. "
        "Say where torch is to come from: make test TORCH_INDEX=URL"
    )


def offer(index: str | None) -> Build | None:
    """The build that pip would install from `index`, or None if it finds none there.

    An index that does not answer is given up after seconds.
    """
    where = ["--no-deps", "--index-url", index] if index else ["--constraint", str(CONSTRAINTS)]
    report = ["--dry-run", "--ignore-installed", "--report", "-"]
    patience = ["--timeout", "10", "--retries", "1"]
    command = [*report, *patience, *where, pinned_torch()]
    run = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *command],
        capture_output=True,
        text=True,
    )
    if run.returncode != 0:
        return None
    packages = json.loads(run.stdout)["install"]
    names = [package["metadata"]["name"] for package in packages]
    torch = packages[names.index("torch")]
    version = torch["metadata"]["version"]
    if sys.platform == "linux":  # on other systems these requirements do not apply
        names += torch["metadata"].get("requires_dist", [])
    cuda = "+cu" in version or any(name.startswith("nvidia-") for name in names)
    folder = torch["download_info"]["url"].rpartition("/")[0]
    if index and index.startswith("http") and folder.startswith("file:"):
        index = None  # pip is configured to look in this folder, too, and the index may be down
    return Build(version, cuda, folder, index)


def nvidia_gpus() -> list[str]:
    """The names of the GPUs that a working NVIDIA driver lists, such as `NVIDIA H100`."""
    try:
        run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if run.returncode != 0:
        return []
    lines = [line for line in run.stdout.splitlines() if line.startswith("GPU ")]
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines]


def pinned_torch() -> str:
    """The requirement in constraints.txt, such as `torch==2.13.0`."""
    lines = CONSTRAINTS.read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def run_pip(*arguments: str) -> None:
    """Runs pip, which says itself what goes wrong."""
    if subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet"]).returncode != 0:
        raise SystemExit(f"dhn: `pip {' '.join(arguments)}` failed")


if __name__ == "__main__":
    main()
