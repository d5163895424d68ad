"""The version of dhn. It stands alone so that everything may import it."""

__version__ = "0.1.0"
