"""Gives people in videos identities, by their poses."""

from dhn.tracking.smoothing import LiveSmoother, SmoothingConfig, smooth_stream, smooth_video
from dhn.tracking.tracker import Tracker, TrackerConfig

__all__ = [
    "LiveSmoother",
    "SmoothingConfig",
    "Tracker",
    "TrackerConfig",
    "smooth_stream",
    "smooth_video",
]
