"""From images to people: the one inference path of predict, eval and validation in training."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dhn.base.device import Precision, inference_dtype, repeatable
from dhn.base.errors import DhnError, SettingError
from dhn.base.native import WITHOUT_KERNELS, has_kernels, how_to_get_kernels
from dhn.data.joints import JointSet, official_order
from dhn.inference.accelerate import accelerated
from dhn.inference.aggregate import PoseInference
from dhn.inference.decode import DecodeConfig, decode_poses
from dhn.inference.duplicates import without_duplicates, without_guesses
from dhn.inference.exported import ExportedNetwork
from dhn.inference.people import People
from dhn.inference.scales import Placement, checked_scales, merge_scales, place, place_as_official
from dhn.media.convert import as_rgb
from dhn.model import channels_last
from dhn.model.fold import folded

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)

NMS_OKS = 0.8  # of two people with a higher OKS, one is a duplicate

AnyImage: TypeAlias = "str | os.PathLike[str] | np.ndarray | Tensor | Image.Image"


@dataclass
class TimeSpent:
    """The time that a predictor spent, summed over images."""

    images: int = 0
    network_seconds: float = 0.0  # placing the image, network, flip test, aggregation
    decode_seconds: float = 0.0


class InferredBatch(NamedTuple):
    """Images that entered the network as one batch.

    Attributes:
        members: their indices among all images.
        maps: heatmaps, tags and perhaps peaks, as `Predictor.maps` returns them.
        placed: where each image lies in the network's input.
    """

    members: Sequence[int]
    maps: tuple[Any, ...]
    placed: Sequence[Placement]


class Inferred(NamedTuple):
    """What the network made of images, in as many batches as there were input sizes."""

    images: Sequence[np.ndarray]
    batches: list[InferredBatch]


class Predictor:
    """Finds the people of images; `dhn.load` makes one from a checkpoint.

        people = predictor("photo.jpg")
        first, second = predictor(["photo.jpg", array])

    Args:
        model: the network. It is left as it is: a copy runs, with its batch norms folded. An
            exported one runs as it is and has a device, flip test, aggregation and precision of
            its own, so those arguments do nothing.
        joints: what its heatmaps mean.
        device: where to compute; the CPU by default.
        input_size: short side of the network input, in pixels, a multiple of 64.
        scales: the image runs at each of these scales, and the heatmaps are averaged; see
            `dhn.inference.scales`. 1 must be among them.
        flip: average with the mirrored image, whose tags become a second tag dimension.
        fine_only: aggregate the fine maps alone (paper, Table 2 without "Aggregation").
        precision: what the network computes in; `auto` is bfloat16 where the hardware multiplies
            it, else float32, which never is TF32 (see `repeatable`). Its maps are aggregated and
            decoded in float32.
        compile: fuse by torch.compile; see `accelerated`.
        decode: settings of `decode_poses`; a `joint_order` of None takes that of `joints`.
        parity: reproduce the official HigherHRNet code with its artefacts: how it places images
            (`official_transform`), in which order it groups CrowdPose's joints, and which of
            equally good groupings it takes; in float32 unless `precision` is bfloat16.
        nms_oks: of two people with a higher OKS, only the better one stays; see
            `without_duplicates`. None is `NMS_OKS`, and 1 (everybody stays) under `parity`.
        min_seen: people of whom fewer joints were found before refinement are left out.
        source: where the weights came from, for messages.

    Attributes:
        settings: what the people depend on besides the weights.
        timing: how many images were predicted so far, and how long that took.

    Raises:
        SettingError: `input_size` is not a multiple of 64, or `scales` are not what
            `checked_scales` takes.
    """

    def __init__(
        self,
        model: nn.Module | ExportedNetwork,
        joints: JointSet,
        *,
        device: torch.device | None = None,
        input_size: int = 512,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        fine_only: bool = False,
        precision: Precision = "auto",
        compile: bool = False,
        decode: DecodeConfig | None = None,
        parity: bool = False,
        nms_oks: float | None = None,
        min_seen: int = 1,
        source: str = "network",
    ) -> None:
        if input_size < 64 or input_size % 64 != 0:
            near = max(64, round(input_size / 64) * 64)
            raise SettingError("input_size", input_size, f"must be a multiple of 64; take {near}")
        self.inference: PoseInference | ExportedNetwork
        if isinstance(model, ExportedNetwork):
            self.device = model.device
            flip, fine_only = model.description.flip, model.description.fine_only
            precision = "float32"
            self.inference = model
        else:
            self.device = device or torch.device("cpu")
            if parity and precision == "auto":
                precision = "float32"
            dtype = inference_dtype(precision, self.device)
            precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
            network = channels_last(folded(model).to(self.device, dtype))
            self.inference = PoseInference(
                network, joints.flip if flip else None, fine_only=fine_only, dtype=dtype
            )
        self.flip = flip
        self.fine_only = fine_only
        self.precision = precision
        self.compile = compile
        self.joints = joints
        self.input_size = input_size
        self.scales = checked_scales(scales)
        decode = decode or DecodeConfig()
        if decode.joint_order is None:
            order = official_order(joints) if parity else joints.grouping_order
            decode = replace(decode, joint_order=order)
        self.decode = replace(decode, munkres=True) if parity else decode
        self.parity = parity
        self.nms_oks = nms_oks if nms_oks is not None else 1.0 if parity else NMS_OKS
        self.min_seen = min_seen
        if self.device.type == "cuda" and not has_kernels("cuda") and how_to_get_kernels():
            _log.warning("no CUDA kernels: %s; %s", WITHOUT_KERNELS, how_to_get_kernels())
        self.source = source
        self.timing = TimeSpent()

    @property
    def settings(self) -> dict[str, Any]:
        """What the people depend on besides weights and image: plain values, as of `dhn.load`."""
        return {
            "input_size": self.input_size,
            "scales": list(self.scales),
            "flip": self.flip,
            "fine_only": self.fine_only,
            "precision": self.precision,
            "parity": self.parity,
            "refine": self.decode.refine,
            "subpixel": self.decode.subpixel,
            "max_people": self.decode.max_people,
            "nms_oks": self.nms_oks,
            "min_seen": self.min_seen,
        }

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[People]: ...
    @overload
    def __call__(self, images: AnyImage) -> People: ...
    def __call__(self, images: Any) -> People | list[People]:
        """Finds the people of one image, or of each image of a list.

        Args:
            images: a path, a NumPy array, a torch tensor or a PIL image; or a list or tuple of
                these, of any sizes. `dhn.media.convert.as_rgb` says which arrays are understood.
                Images of a list that enter the network at the same size run as one batch, so a
                list should be no longer than the memory allows.

        Returns:
            the image's `People`, with keypoints in its pixels; for a list, a list of them.

        Raises:
            DhnError: an image cannot be read or is refused (in a list, `images[2]` is the
                third), or the network's output is not finite.
        """
        if isinstance(images, list | tuple):
            return self._predict_all([as_rgb(x, f"images[{k}]") for k, x in enumerate(images)])
        return self._predict_all([as_rgb(images)])[0]

    def _predict_all(self, images: Sequence[np.ndarray]) -> list[People]:
        return self.decoded(self.infer(images))

    def infer(self, images: Sequence[np.ndarray]) -> Inferred:
        """The first half of a prediction: what the network makes of the images.

        Args:
            images: RGB uint8 [H, W, 3], of any sizes. Those that enter the network at the same
                size run as one batch.
        """
        placed = [self._place((image.shape[1], image.shape[0])) for image in images]
        batches = defaultdict(list)  # (W, H) of the network's inputs -> indices of images
        for index, placement in enumerate(placed):
            batches[placement.sizes].append(index)
        inferred = Inferred(images, [])
        for members in batches.values():
            alike = [placed[index] for index in members]
            maps = self._infer([images[index] for index in members], alike)
            inferred.batches.append(InferredBatch(members, maps, alike))
        return inferred

    def decoded(self, inferred: Inferred) -> list[People]:
        """The second half: the people in what `infer` returned, for each of its images.

        It may run in another thread, beside `infer` of the next images.

        Raises:
            DhnError: the network's output is not finite.
        """
        people: dict[int, People] = {}
        for batch in inferred.batches:
            images = [inferred.images[index] for index in batch.members]
            people.update(zip(batch.members, self._decoded(images, batch), strict=True))
        return [people[index] for index in range(len(inferred.images))]

    def _place(self, size: tuple[int, int]) -> Placement:
        """Where an image of this (W, H) lies in the network's input, at each scale."""
        return (place_as_official if self.parity else place)(size, self.input_size, self.scales)

    def _infer(self, images: Sequence[np.ndarray], placed: Sequence[Placement]) -> tuple[Any, ...]:
        """The maps of images that enter the network at the same sizes, a batch for each scale."""
        started = time.perf_counter()
        scales = []
        for scale, size in enumerate(placed[0].sizes):
            warped = [
                cv2.warpAffine(
                    image, where.sampling[scale].cv2_matrix(), size, flags=cv2.INTER_LINEAR
                )
                for image, where in zip(images, placed, strict=True)
            ]
            batch = torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2).to(self.device)
            scales.append(self.maps(batch))
        maps = scales[0]
        if len(scales) > 1:  # what an exported network took for peaks holds for one scale only
            maps = merge_scales([found[:2] for found in scales], self.scales, placed[0].size)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.timing.images += len(images)
        self.timing.network_seconds += time.perf_counter() - started
        return maps

    def _decoded(self, images: Sequence[np.ndarray], batch: InferredBatch) -> list[People]:
        """The people of images that were one batch."""
        started = time.perf_counter()
        heatmaps, tags, *peaks = batch.maps
        W, H = batch.placed[0].size
        try:
            found = decode_poses(heatmaps, tags, (H, W), self.decode, *peaks)
        except DhnError as error:
            raise DhnError(f"{self.source}: {error}") from error
        people = []
        for image, poses, placement in zip(images, found, batch.placed, strict=True):
            keypoints = poses.keypoints.numpy()
            there = keypoints[..., 2] > 0
            keypoints[there, :2] = placement.back.apply(keypoints[there, :2])
            refined = there & ~poses.grouped.numpy()
            scores = poses.scores.numpy()
            everybody = People(keypoints, scores, self.joints, image, refined)
            likely = without_guesses(everybody, self.min_seen)
            people.append(without_duplicates(likely, self.nms_oks))
        self.timing.decode_seconds += time.perf_counter() - started
        return people

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Any, ...]:
        """Heatmaps and tags of uint8 [B, 3, H, W] images, and peaks if the network finds them.

        See `PoseInference` and `ExportedNetwork`.
        """
        with repeatable(self.device):
            return self._run(images)

    @cached_property
    def _run(self) -> Callable[[Tensor], tuple[Any, ...]]:
        """`inference` in its fastest form, made when the first image comes."""
        if isinstance(self.inference, ExportedNetwork):
            return self.inference
        return accelerated(self.inference, self.device, compile=self.compile)
