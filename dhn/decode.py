"""An alias for `dhn.inference.decode`, where decoding now lives."""

from dhn.inference.decode import DecodeConfig, Peaks, Poses, decode_poses, find_peaks

__all__ = ["DecodeConfig", "Peaks", "Poses", "decode_poses", "find_peaks"]
