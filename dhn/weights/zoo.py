"""Weights that others trained and published, by name."""

from typing import NamedTuple


class Published(NamedTuple):
    """One published file.

    Attributes:
        address: where it is downloaded from. The file's name ends in eight hexadecimal digits, the
            first of its SHA-256. Whether that holds for backbones is not documented.
        parameters: of the network in the file, in millions; each takes 4 bytes of the file.
        data: what the network was trained on.
        input_size: short side of the images that the AP was measured with, in pixels; None for a
            backbone.
        ap: published AP in percent, with flip test at one scale, on CrowdPose test or COCO
            val2017; None for a backbone.
    """

    address: str
    parameters: float
    data: str
    input_size: int | None = None
    ap: float | None = None

    @property
    def file(self) -> str:
        """The file's name."""
        return self.address.rpartition("/")[2]

    @property
    def is_backbone(self) -> bool:
        """Whether it finds no poses, and trainings start from it."""
        return self.ap is None


_MMPOSE = "https://download.openmmlab.com/mmpose/"
_HIGHERHRNET = _MMPOSE + "bottom_up/higher_hrnet"
_HRNET = _MMPOSE + "bottom_up/hrnet"
_IMAGENET = _MMPOSE + "pretrain_models/hrnet"

# Addresses and AP are those of MMPose's model zoo (configs/.../associative_embedding, branch 0.x),
# the parameters of the ImageNet classifiers those of HRNet's own README.
PUBLISHED = {
    "higherhrnet_w32_crowdpose": Published(
        f"{_HIGHERHRNET}32_crowdpose_512x512-1aa4a132_20201017.pth", 28.6, "CrowdPose", 512, 65.5
    ),
    "higherhrnet_w32_coco": Published(
        f"{_HIGHERHRNET}32_coco_512x512-8ae85183_20200713.pth", 28.6, "COCO", 512, 67.7
    ),
    "higherhrnet_w32_coco_640": Published(
        f"{_HIGHERHRNET}32_coco_640x640-a22fe938_20200712.pth", 28.6, "COCO", 640, 68.6
    ),
    "higherhrnet_w48_coco": Published(
        f"{_HIGHERHRNET}48_coco_512x512-60fedcbc_20200712.pth", 63.8, "COCO", 512, 68.6
    ),
    "hrnet_w32_coco": Published(
        f"{_HRNET}_w32_coco_512x512-bcb8c247_20200816.pth", 28.5, "COCO", 512, 65.4
    ),
    "hrnet_w48_coco": Published(
        f"{_HRNET}_w48_coco_512x512-cf72fcdf_20200816.pth", 63.6, "COCO", 512, 66.5
    ),
    "hrnet_w32_imagenet": Published(f"{_IMAGENET}_w32-36af842e.pth", 41.2, "ImageNet"),
    "hrnet_w48_imagenet": Published(f"{_IMAGENET}_w48-8ef0771d.pth", 77.5, "ImageNet"),
}
