"""Gives people in videos identities, by their poses."""

from dhn.tracking.corrections import Corrections, read_corrections
from dhn.tracking.smoothing import LiveSmoother, SmoothingConfig, smooth_stream, smooth_video
from dhn.tracking.tracker import Tracker, TrackerConfig

__all__ = [
    "Corrections",
    "LiveSmoother",
    "SmoothingConfig",
    "Tracker",
    "TrackerConfig",
    "read_corrections",
    "smooth_stream",
    "smooth_video",
]
