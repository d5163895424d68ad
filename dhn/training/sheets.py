"""Sheets that show what a network makes of an image, to watch it learn."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from dhn import ops
from dhn.data.dataset import PoseDataset, Sample
from dhn.data.joints import JointSet
from dhn.inference.aggregate import PoseInference
from dhn.inference.predictor import Predictor
from dhn.media.draw import draw_poses
from dhn.model import PoseMaps
from dhn.model.normalise import normalise
from dhn.training.settings import Loss

_SIDE = 256  # pixels of a tile


def draw_sheets(
    predictor: Predictor, dataset: PoseDataset, count: int, settings: Loss
) -> Iterator[np.ndarray]:
    """Draws sheets of a data set's first images; each is drawn when it is asked for.

    Args:
        predictor: the network, with the data set's input size.
        dataset: the images, without augmentation.
        count: how many sheets to draw at most.
        settings: describe the targets; shown is that of the last heatmap.
    """
    for index in range(min(count, len(dataset))):
        sample = dataset[0, index]
        if not isinstance(sample, Sample):  # it cannot be read, of which the training has warned
            continue
        network = predictor.inference
        assert isinstance(
            network, PoseInference
        )  # and not an exported network, since training made it
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].to(predictor.device)
        with torch.inference_mode():
            maps: PoseMaps = network.network(normalise(image).to(network.dtype))
        h, w = maps.heatmaps[-1].shape[-2:]
        stride = len(sample.image) / w
        keypoints = torch.from_numpy(sample.keypoints)[None]
        (drawn,) = ops.render_heatmaps(
            keypoints,
            (h, w),
            stride,
            settings.sigma,
            settings.tau[-1],
            settings.units,
            settings.target,
        )
        (prediction,) = predictor([sample.image])
        yield draw_sheet(sample, drawn, maps, prediction.keypoints, predictor.joints)


def draw_sheet(
    sample: Sample, target: Tensor, maps: PoseMaps, poses: np.ndarray, joints: JointSet
) -> np.ndarray:
    """Draws labels, target, poses, and a row for each stage: its heatmaps and its tags.

    A heatmap is drawn as its maximum over joints, from black (0) through red to white (1). A tag
    map shows the tag of each pixel's likeliest joint, and fades where there is no joint. Grouping
    works where each person has a colour.

    Args:
        sample: the image and its labels.
        target: float [J, h, w], what the last heatmap should be.
        maps: the network's maps of this image alone (B = 1).
        poses: float [P, J, 3], x, y in input pixels and score, of the people found.
        joints: what the J joints of labels and poses are.

    Returns:
        RGB uint8 [rows * 256, 3 * 256, 3].
    """
    image = sample.image
    counted = image if sample.mask is None else np.where(sample.mask[..., None], image, image // 4)
    labels = sample.keypoints * (1, 1, 0.5)  # visible ones solid, hidden ones faint
    rows = [
        [
            _tile(draw_poses(counted, labels, joints), "labels"),
            _heat(image, target, "target"),
            _tile(draw_poses(image, poses, joints), "poses"),
        ]
    ]
    heatmaps = [heatmap[0].float().cpu() for heatmap in maps.heatmaps]
    stages = ("coarse", "fine")[-len(maps.tags) :]
    levels = len(heatmaps) // len(stages)
    for s, stage in enumerate(stages):
        own = heatmaps[s * levels : (s + 1) * levels]
        tiles = [_heat(image, heatmap, f"{stage} 1/{4 >> k}") for k, heatmap in enumerate(own)]
        tiles += [np.zeros_like(tiles[0])] * (2 - levels)  # of a network without 1/2 maps
        rows.append([*tiles, _tags(image, own[0], maps.tags[s][0].float().cpu(), f"{stage} tags")])
    return np.concatenate([np.concatenate(row, 1) for row in rows])


def _heat(image: np.ndarray, heatmap: Tensor, caption: str) -> np.ndarray:
    strength = heatmap.amax(0).clamp(0, 1).numpy()
    return _blend(image, strength, np.sqrt(strength), cv2.COLORMAP_HOT, caption)


def _tags(image: np.ndarray, heatmap: Tensor, tags: Tensor, caption: str) -> np.ndarray:
    strength, joint = heatmap.max(0)
    tag = tags.gather(0, joint[None])[0].numpy()
    there = tag[strength.numpy() > 0.1]
    low, high = np.quantile(there, (0.02, 0.98)) if there.size else (0, 1)
    shade = np.clip((tag - low) / max(high - low, 1e-6), 0, 1)
    return _blend(image, shade, (2 * strength).clamp(0, 1).numpy(), cv2.COLORMAP_TURBO, caption)


def _blend(
    image: np.ndarray, values: np.ndarray, alpha: np.ndarray, colours: int, caption: str
) -> np.ndarray:
    """Lays a map in false colours over the darkened image, both [h, w] in 0..1."""
    size = (_SIDE, _SIDE)
    shade = cv2.resize(np.rint(255 * values).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    colour = cv2.cvtColor(cv2.applyColorMap(shade, colours), cv2.COLOR_BGR2RGB)
    alpha = cv2.resize(alpha.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)[..., None]
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    return _tile((0.4 * grey[..., None] * (1 - alpha) + colour * alpha).astype(np.uint8), caption)


def _tile(image: np.ndarray, caption: str) -> np.ndarray:
    tile = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place = (6, _SIDE - 8)
        cv2.putText(
            tile, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA
        )
    return tile
