"""The official code of HigherHRNet, which other scripts here compare ours with.

It is no part of this repository, and neither are the packages that it needs besides ours:

    git clone https://github.com/HRNet/HigherHRNet-Human-Pose-Estimation ../higherhrnet
    pip install --no-deps --target ../higherhrnet_packages \
        munkres==1.1.4 yacs json_tricks torchvision==0.28.0
    export PYTHONPATH=../higherhrnet_packages
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from dhn.data.joints import JointSet
from dhn.model import HigherHRNet
from dhn.model.normalise import MEAN, STD


class Official:
    """The functions of the official code, unchanged, called as its tools/valid.py calls them.

    A process can make only one such object, because the code is imported and patched globally.

    Attributes:
        group, inference, transforms: modules of the official code.
    """

    def __init__(self, repository: Path) -> None:
        # The code imports CrowdPose's scorer, which is not used here. It needs only functions of
        # torchvision that are written in Python. The operators of torchvision's CUDA build do not
        # load on a CPU, and importing it then fails unless the operators are declared here.
        for module in ("crowdposetools", "crowdposetools.coco", "crowdposetools.cocoeval"):
            sys.modules[module] = mock.MagicMock()
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
        sys.path.insert(0, str(repository / "lib"))
        self._experiments = repository / "experiments"
        self._settings = import_module("config").cfg
        self._networks = import_module("models.pose_higher_hrnet")
        self.group = import_module("core.group")
        self.inference = import_module("core.inference")
        self.transforms = import_module("utils.transforms")

    def settings(
        self, joints: JointSet, *, width: int = 32, input_size: int = 512, stages: int = 1
    ) -> Any:
        """The published settings, for any width and for networks of one or two stages."""
        folder = {"coco": "coco", "crowdpose": "crowd_pose"}[joints.name]
        settings = self._settings.clone()
        settings.merge_from_file(
            str(self._experiments / folder / "higher_hrnet" / "w32_512_adam_lr1e-3.yaml")
        )
        settings.DATASET.INPUT_SIZE = input_size
        settings.DATASET.OUTPUT_SIZE = [input_size // 4, input_size // 2]
        extra = settings.MODEL.EXTRA
        for branches, stage in ((2, extra.STAGE2), (3, extra.STAGE3), (4, extra.STAGE4)):
            stage.NUM_CHANNELS = [width * 2**i for i in range(branches)]
        extra.DECONV.NUM_CHANNELS = [width]
        settings.LOSS.WITH_HEATMAPS_LOSS = settings.TEST.WITH_HEATMAPS = [True, True] * stages
        settings.LOSS.WITH_AE_LOSS = [True, False] * stages
        settings.TEST.WITH_AE = [False, False] * (stages - 1) + [True, False]
        return settings

    def network(self, settings: Any, ours: HigherHRNet | None = None) -> nn.Module:
        """The official network: for inference with the weights of `ours`, or fresh, to train."""
        if ours is None:
            return self._networks.get_pose_net(settings, True)
        network = self._networks.get_pose_net(settings, is_train=False)
        weights = {k.removeprefix("backbone."): v for k, v in ours.state_dict().items()}
        network.load_state_dict(weights)
        return network.eval()

    def place(
        self, image: np.ndarray, input_size: int, scale: float = 1.0, smallest: float = 1.0
    ) -> tuple[np.ndarray, Any, Any]:
        """Scales an image: the network input, uint8 [H, W, 3], and the centre and scale of it."""
        return self.transforms.resize_align_multi_scale(image, input_size, scale, smallest)

    def maps(
        self, settings: Any, network: Callable[..., Any], image: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """Heatmaps [1, J, H, W] and tags [1, J, H, W, 2] at the resolution of the input."""
        return self.maps_of_scales(settings, network, {1.0: image})

    @torch.no_grad()
    def maps_of_scales(
        self, settings: Any, network: Callable[..., Any], images: Mapping[float, np.ndarray]
    ) -> tuple[Tensor, Tensor]:
        """The same, averaged over scales: of each, the network input that `place` gives."""
        settings = settings.clone()
        settings.TEST.SCALE_FACTOR = list(images)
        height, width = images[1.0].shape[:2]
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))
        heatmaps: Any = None
        tags: list[Tensor] = []
        for scale in sorted(images, reverse=True):
            # This is what torchvision's ToTensor and Normalize do.
            pixels = torch.from_numpy(images[scale]).permute(2, 0, 1).contiguous().float().div(255)
            _, found, found_tags = self.inference.get_multi_stage_outputs(
                settings, network, pixels.sub_(mean).div_(std)[None], True, True, (width, height)
            )
            heatmaps, tags = self.inference.aggregate_results(
                settings, scale, heatmaps, tags, found, found_tags
            )
        return heatmaps / float(len(images)), torch.cat(tags, dim=4)

    def parse(self, settings: Any, heatmaps: Tensor, tags: Tensor) -> tuple[Any, Any]:
        """The people in maps that `maps` returned, with refinement, and their scores."""
        return self.group.HeatmapParser(settings).parse(heatmaps, tags, True, True)

    def people(self, settings: Any, heatmaps: Tensor, tags: Tensor) -> tuple[Any, np.ndarray]:
        """Keypoints [P, J, 3] in input pixels, missing ones as zeros, and scores [P]."""
        grouped, scores = self.parse(settings, heatmaps, tags)
        people = np.array(grouped[0], np.float32).reshape(len(scores), heatmaps.shape[1], 3 + 2)
        return people[..., :3], scores

    def predict(
        self,
        settings: Any,
        network: Callable[..., Any],
        image: np.ndarray,
        input_size: int,
        scales: Sequence[float] = (1.0,),
    ) -> np.ndarray:
        """Keypoints [P, J, 3] in image pixels, missing ones as zeros."""
        # The last of them, the smallest, gives the centre and scale of the way back.
        smallest = min(scales)
        inputs = {s: self.place(image, input_size, s, smallest) for s in sorted(scales)[::-1]}
        _, centre, scale = inputs[smallest]
        images = {s: placed for s, (placed, _, _) in inputs.items()}
        people, _ = self.people(settings, *self.maps_of_scales(settings, network, images))
        if not len(people):
            return people
        size = [images[1.0].shape[1], images[1.0].shape[0]]
        placed = self.transforms.get_final_preds([people], centre, scale, size)
        placed = np.array(placed, np.float32).reshape(people.shape)
        return np.where(people[..., 2:] > 0, placed, 0)
