"""Procedural crowds: seeded images of people with CrowdPose annotations, as many as wanted."""

from dhn.synth.folder import generate, is_unfinished
from dhn.synth.scene import CrowdConfig, Scene, make_scene

__all__ = ["CrowdConfig", "Scene", "generate", "is_unfinished", "make_scene"]
