"""dhn: bottom-up multi-person pose estimation with DoubleHigherNet.

import dhn

predictor = dhn.load("best.pt", flip=True)
people = predictor("photo.jpg")
people.keypoints, people.scores, people.boxes, people.joint_names
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dhn.base.version import __version__

__all__ = ["People", "__version__", "build_model", "load", "load_weights"]

if TYPE_CHECKING:
    from dhn.inference.load import load
    from dhn.inference.people import People
    from dhn.model import build_model
    from dhn.weights.load import load_weights

_HOMES = {
    "People": "dhn.inference.people",
    "build_model": "dhn.model",
    "load": "dhn.inference.load",
    "load_weights": "dhn.weights.load",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `dhn --help` does not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'dhn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
