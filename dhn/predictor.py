"""From pictures to poses: the one inference path of predict, eval and validation in training."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dhn import ops
from dhn.checkpoint import load_checkpoint, newest_checkpoint
from dhn.data import normalise
from dhn.decode import DecodeConfig, decode_poses
from dhn.device import select_device
from dhn.geometry import Affine, input_transform
from dhn.joints import JointSet
from dhn.model import PoseMaps, PoseNetwork, channels_last


class Prediction(NamedTuple):
    """The people of one picture.

    Attributes:
        keypoints: float32 [P, J, 3]: x, y in picture pixels and score; zeros where not found.
        scores: float32 [P], the mean joint score over all J.
    """

    keypoints: np.ndarray
    scores: np.ndarray


@dataclass
class Timing:
    """Where the time went, summed over pictures."""

    pictures: int = 0
    network_seconds: float = 0.0  # warp, network, flip test, aggregation
    decode_seconds: float = 0.0


class Predictor:
    """Finds the people of RGB pictures.

    Args:
        model: the network; it is put into eval mode.
        joints: what its heatmaps mean.
        device: where to compute.
        input_size: short side of the network input, in pixels, a multiple of 64.
        flip: average with the mirrored picture, whose tags become a second tag dimension.
        fine_only: aggregate the fine maps alone (paper, Table 2 without "Aggregation").
        half: run the network in bfloat16.
        decode: settings of `decode_poses`; a `joint_order` of None takes that of `joints`.
        source: where the weights came from, for messages.
    """

    def __init__(
        self,
        model: PoseNetwork,
        joints: JointSet,
        *,
        device: torch.device | None = None,
        input_size: int = 512,
        flip: bool = False,
        fine_only: bool = False,
        half: bool = False,
        decode: DecodeConfig | None = None,
        source: str = "network",
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = channels_last(model.eval().to(self.device))
        self.joints = joints
        self.input_size = input_size
        self.flip = flip
        self.fine_only = fine_only
        self.half = half
        decode = decode or DecodeConfig()
        if decode.joint_order is None and joints.grouping_order is not None:
            decode = replace(decode, joint_order=joints.grouping_order)
        self.decode = decode
        self.source = source
        self.timing = Timing()

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Prediction]:
        """Predicts RGB uint8 [H, W, 3] pictures; those of like shape go as one batch.

        Raises:
            DhnError: the network gave maps that are not finite.
        """
        placed = [input_transform((p.shape[1], p.shape[0]), self.input_size) for p in pictures]
        groups = defaultdict(list)  # network input's (W, H) -> indices of pictures
        for index, (_, size) in enumerate(placed):
            groups[size].append(index)
        predictions: dict[int, Prediction] = {}
        for size, members in groups.items():
            affines = [placed[index][0] for index in members]
            batch = self._predict([pictures[index] for index in members], affines, size)
            predictions.update(zip(members, batch, strict=True))
        return [predictions[index] for index in range(len(pictures))]

    def _predict(
        self, pictures: list[np.ndarray], affines: list[Affine], size: tuple[int, int]
    ) -> list[Prediction]:
        started = time.perf_counter()
        warped = [
            cv2.warpAffine(picture, affine.cv2_matrix(), size, flags=cv2.INTER_LINEAR)
            for picture, affine in zip(pictures, affines, strict=True)
        ]
        images = torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2).to(self.device)
        heatmaps, tags = self.maps(normalise(images))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        inferred = time.perf_counter()
        people = decode_poses(heatmaps, tags, (size[1], size[0]), self.decode)
        predictions = []
        for poses, affine in zip(people, affines, strict=True):
            keypoints = poses.keypoints.cpu().numpy()
            found = keypoints[..., 2] > 0
            keypoints[found, :2] = affine.inverse().apply(keypoints[found, :2])
            predictions.append(Prediction(keypoints, poses.scores.cpu().numpy()))
        self.timing.pictures += len(pictures)
        self.timing.network_seconds += inferred - started
        self.timing.decode_seconds += time.perf_counter() - inferred
        return predictions

    @torch.inference_mode()
    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the network (plain and mirrored as one batch) and aggregates its maps.

        Args:
            images: float32 [B, 3, H, W], normalised.

        Returns:
            heatmaps float32 [B, J, h, w] and tags float32 [B, J, T, h, w] for `decode_poses`;
            T = 2 with the flip test, and h = H / 2 for networks that have 1/2 maps, else H / 4.
        """
        B = len(images)
        both = torch.cat([images, images.flip(3)]) if self.flip else images
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            maps = self.model(both.contiguous(memory_format=torch.channels_last))
        plain = PoseMaps([h[:B] for h in maps.heatmaps], [t[:B] for t in maps.tags])
        mirrored = PoseMaps([h[B:] for h in maps.heatmaps], [t[B:] for t in maps.tags])
        return aggregate(
            plain, mirrored if self.flip else None, self.joints.flip, fine_only=self.fine_only
        )


def aggregate(
    plain: PoseMaps,
    mirrored: PoseMaps | None,
    flip: Sequence[int],
    *,
    fine_only: bool = False,
) -> tuple[Tensor, Tensor]:
    """Aggregates the maps of all stages, levels and both passes (paper section 3.5).

    Coarse and fine heatmaps are averaged at 1/4 and at 1/2; the 1/4 mean is upsampled to 1/2
    and averaged in; plain and mirrored passes are averaged. The last stage's tags are upsampled
    to 1/2 and not averaged: each pass is a tag dimension.

    Args:
        plain: maps of the pictures.
        mirrored: maps of the mirrored pictures, or None.
        flip: the joint whose mirror image each joint is.
        fine_only: leave the coarse heatmaps out.

    Returns:
        heatmaps float32 [B, J, h, w], tags float32 [B, J, T, h, w].
    """
    quarter, half = _levels(plain, fine_only)
    quarter_flipped, half_flipped = _levels(mirrored, fine_only) if mirrored else ([], [])
    tags = [plain.tags[-1]]
    if mirrored is not None:
        tags.append(mirrored.tags[-1].flip(3)[:, list(flip)])
    if half:
        heatmaps = ops.aggregate_heatmaps(quarter, half, quarter_flipped, half_flipped, flip)
        size = half[0].shape[2:]
        tags = [F.interpolate(t.float(), size=size, mode="bilinear") for t in tags]
    else:  # bottom-up HRNet has 1/4 maps only
        heatmaps = quarter[0].float()
        if mirrored is not None:
            heatmaps = (heatmaps + quarter_flipped[0].float().flip(3)[:, list(flip)]) / 2
        tags = [t.float() for t in tags]
    return heatmaps, torch.stack(tags, dim=2)


def _levels(maps: PoseMaps, fine_only: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Heatmaps at 1/4 and at 1/2, coarse before fine."""
    heatmaps = maps.heatmaps[-2:] if fine_only else maps.heatmaps
    return list(heatmaps[0::2]), list(heatmaps[1::2])


def load_predictor(
    checkpoint: str | None = None,
    *,
    device: str = "auto",
    flip: bool = False,
    input_size: int | None = None,
    fine_only: bool = False,
    half: bool = False,
    refine: bool = True,
    subpixel: bool = False,
    max_people: int = 30,
) -> Predictor:
    """A predictor from a checkpoint.

    Args:
        checkpoint: a dhn checkpoint; None takes the newest run's best, else its last.
        device: `auto`, `cpu`, `cuda:N` or `mps`.
        input_size: short side of the network input; None takes that of the training.
        flip, fine_only, half: see `Predictor`.
        refine, subpixel, max_people: see `DecodeConfig`.

    Raises:
        DhnError: no checkpoint, one that cannot be used, or no such device.
    """
    path = checkpoint if checkpoint is not None else str(newest_checkpoint())
    loaded = load_checkpoint(path)
    trained = loaded.config.get("data", {})
    return Predictor(
        loaded.build(),
        loaded.joints,
        device=select_device(device),
        input_size=input_size or trained.get("eval_size") or trained.get("input_size", 512),
        flip=flip,
        fine_only=fine_only,
        half=half,
        decode=DecodeConfig(max_people=max_people, refine=refine, subpixel=subpixel),
        source=path,
    )
