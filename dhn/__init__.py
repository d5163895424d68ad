"""dhn: bottom-up multi-person pose estimation with DoubleHigherNet."""

from typing import TYPE_CHECKING, Any

from dhn.base.version import __version__

__all__ = ["__version__", "build_model", "load_weights"]

if TYPE_CHECKING:
    from dhn.model import build_model
    from dhn.weights.load import load_weights


def __getattr__(name: str) -> Any:
    # Lazy, so that `dhn --help` does not wait for torch.
    if name == "build_model":
        from dhn.model import build_model

        return build_model
    if name == "load_weights":
        from dhn.weights.load import load_weights

        return load_weights
    raise AttributeError(f"module 'dhn' has no attribute {name!r}")
