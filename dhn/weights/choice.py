"""Which network is meant: the one that the package brings, one of your own trainings, or another.

The package brings one small network, trained by this project on photographs. docs/model-card.md
describes it.
"""

import os
from pathlib import Path

from dhn.base.errors import DhnError, SettingError

BUNDLED_NAME = "people"
BUNDLED = Path(__file__).parent / "bundled" / f"{BUNDLED_NAME}.safetensors"
LAST = "last"


def chosen(
    checkpoint: str | os.PathLike[str] | None, runs: str | os.PathLike[str] = "runs"
) -> str | os.PathLike[str]:
    """Turns what a user names into a file, where it is not for `dhn.weights.download.fetch`.

    A file or folder of that name comes first. A `Path` is always a path.

    Args:
        checkpoint: None or `people` for the package's own network; `last` for the newest run in
            `runs`; the folder of a run, for its weights; anything else is returned as it is.
        runs: the folder of the runs.

    Raises:
        SettingError: there is no run.
        DhnError: the folder is none of a run.
    """
    if checkpoint is None:
        return BUNDLED
    if os.path.isdir(checkpoint):
        return _weights_of(Path(checkpoint))
    if not isinstance(checkpoint, str) or os.path.exists(checkpoint):
        return checkpoint
    if checkpoint == BUNDLED_NAME:
        return BUNDLED
    return newest_checkpoint(runs) if checkpoint == LAST else checkpoint


def newest_checkpoint(runs: str | os.PathLike[str] = "runs") -> Path:
    """The newest run's `best.pt`, else its `last.pt`.

    Raises:
        SettingError: there is no run.
    """
    last = sorted(Path(runs).glob("*/last.pt"), key=lambda path: path.stat().st_mtime)
    if not last:
        raise SettingError(
            "checkpoint",
            LAST,
            f"there is no checkpoint in {runs}/; train a network first (the preset `demo` needs no "
            f"data), or leave it out for the network that dhn brings",
        )
    return _weights_of(last[-1].parent)


def _weights_of(run: Path) -> Path:
    for name in ("best.pt", "last.pt"):
        if (run / name).exists():
            return run / name
    raise DhnError(f"{run}: the folder holds neither best.pt nor last.pt; give a file")
