"""The settings of decode, from heatmaps and tag maps to people."""

from collections.abc import Sequence
from dataclasses import dataclass


class OnCuda:
    """The bounds of decode's CUDA kernels; csrc/cuda/{group_tags,topk_peaks}.cuh hold the same.

    Attributes:
        PEOPLE: candidates of a joint, and people that a candidate is matched with.
        JOINTS: joints.
        TAGS: tag dimensions.
        KERNEL: side of the window of non-maximum suppression.
    """

    PEOPLE = 128
    JOINTS = 256
    TAGS = 8
    KERNEL = 15

    @classmethod
    def takes(cls, J: int, T: int, config: "DecodeConfig") -> bool:
        """Whether maps of J joints and T tag dimensions are decoded there with these settings."""
        fits = J <= cls.JOINTS and T <= cls.TAGS and config.nms_kernel <= cls.KERNEL
        return fits and config.max_people <= cls.PEOPLE


@dataclass(frozen=True)
class DecodeConfig:
    """How maps become people; the defaults are the published ones.

    Raises:
        ValueError: a value lies outside its range.

    Attributes:
        nms_kernel: odd side of the window in which a peak is the maximum, in input pixels.
        max_people: how many candidates each joint has at most, and with how many people a
            candidate is matched.
        detection_threshold: only scores above it are candidates; in [0, 1].
        tag_threshold: a candidate joins a person if their tags are nearer than this.
        joint_order: the order in which joints are grouped, a permutation of 0..J-1; None is
            0..J-1 itself.
        refine: whether the maps are searched for the joints that a person lacks.
        subpixel: whether a second-order fit at map resolution (after DARK) replaces the published
            quarter offset; more accurate.
        munkres: whether the grouping is the one that the official code takes, among equally good
            ones (rounded tag distances make many); see `ops.group_tags`.
    """

    nms_kernel: int = 5
    max_people: int = 30
    detection_threshold: float = 0.1
    tag_threshold: float = 1.0
    joint_order: Sequence[int] | None = None
    refine: bool = True
    subpixel: bool = False
    munkres: bool = False

    def __post_init__(self) -> None:
        if self.nms_kernel < 1 or self.nms_kernel % 2 == 0:
            raise ValueError(f"nms_kernel must be odd and positive, got {self.nms_kernel}")
        if self.max_people < 1:
            raise ValueError(f"max_people must be positive, got {self.max_people}")
        if not 0 <= self.detection_threshold <= 1:
            raise ValueError(f"detection_threshold must be in [0, 1]: {self.detection_threshold}")
