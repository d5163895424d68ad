"""Training samples: an image, augmented in one warp, with its keypoints and its mask.

All random numbers of a sample come from (seed, epoch, index). So a run sees the same samples with
any number of workers, and wherever it was interrupted and resumed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from dhn.base.errors import DhnError
from dhn.data.annotations import Annotations
from dhn.data.augmentation import Appearance, Draws, hide
from dhn.data.composites import Composer, Layer, Source
from dhn.data.geometry import Affine, crop_transform
from dhn.data.labels import composite_source, corners, kept_images, with_unknown
from dhn.data.masks import ignore_mask
from dhn.data.mixture import Mixture
from dhn.media.images import read_image


@dataclass(frozen=True)
class Augmentation:
    """How far a training sample may move from its image; the defaults are the paper's.

    Attributes:
        rotation: degrees either way.
        scale: side of the crop in units of the image's short side, drawn from this range.
        translation: movement of the crop's centre in 1/200 of the crop's side, either way.
        flip: probability of a mirrored sample.
        colour: strength of random brightness, contrast and saturation, 0 to 1 (0 in the paper).
        appearance: how often samples are spoilt and stretched; None (as in the paper): never.
        composites: share of the samples that get people of other images laid over (0 in the paper).
    """

    rotation: float = 30.0
    scale: tuple[float, float] = (0.75, 1.5)
    translation: float = 40.0
    flip: float = 0.5
    colour: float = 0.0
    appearance: Appearance | None = None
    composites: float = 0.0


class Sample(NamedTuple):
    """One training sample, where S is the input size.

    Attributes:
        image: uint8 [S, S, 3], RGB.
        keypoints: float32 [P, J, 3], (x, y) in input pixels and visibility, which is -1 where
            nobody knows whether the joint is there.
        mask: uint8 [S, S], 1 where a pixel counts and 0 where it is ignored; None where all
            pixels count.
        name: path of the image, for messages.
        boxes: float32 [P, 4], x0, y0, x1, y1 in input pixels: where each person's unknown joints
            may be. None where no joint is unknown.
    """

    image: np.ndarray
    keypoints: np.ndarray
    mask: np.ndarray | None
    name: str = ""
    boxes: np.ndarray | None = None


class Batch(NamedTuple):
    """B samples.

    Attributes:
        image: uint8 [B, 3, S, S], RGB, channels last in memory.
        keypoints: float32 [B, P, J, 3]; the rows after an image's people are zero.
        mask: uint8 [B, S, S], or None where all pixels count.
        failures: one line for each image that could not be read, which is not among the B images.
        names: paths of the B images, for messages.
        boxes: float32 [B, P, 4] as in `Sample`, or None where no joint is unknown.
    """

    image: Tensor
    keypoints: Tensor
    mask: Tensor | None
    failures: list[str]
    names: list[str]
    boxes: Tensor | None = None


class PoseDataset(Dataset):
    """Training samples of COCO, CrowdPose or any other annotations.

    It is indexed by (epoch, image), and the same pair always gives the same sample.

    Args:
        annotations: the split.
        input_size: S, the side of the square samples, in pixels.
        augmentation: how far samples may move; None takes the whole image, centred and unchanged.
        max_people: how many people of an image are kept, the largest first.
        keep_empty: whether images without a labelled joint are kept; they teach where nobody is.
        seed: for the augmentation.

    Attributes:
        images: the images that are kept.
        left_out: for each image with more than `max_people` people, how many were left out.
    """

    def __init__(
        self,
        annotations: Annotations,
        *,
        input_size: int = 512,
        augmentation: Augmentation | None = Augmentation(),
        max_people: int = 30,
        keep_empty: bool = False,
        seed: int = 0,
    ) -> None:
        kept = kept_images(annotations, keep_empty)
        self.images = [image for image, _ in kept]
        self.left_out = [len(people) - max_people for _, people in kept if len(people) > max_people]
        self.joints = annotations.joints
        self.input_size = input_size
        self.augmentation = augmentation
        self.max_people = max_people
        self.seed = seed
        self._flip = np.array(annotations.joints.flip)
        # [P, J, 3] for each image, so that a sample needs no work for single people.
        empty = np.zeros((0, len(self.joints), 3), np.float32)
        self._keypoints = [
            np.stack([with_unknown(p) for p in people[:max_people]]) if people else empty
            for _, people in kept
        ]
        self._boxes = [corners(people[:max_people]) for _, people in kept]
        self._composer = None
        self._sources: list[Source] = []
        if augmentation is not None and augmentation.composites:
            self._composer = Composer(augmentation.composites, self.joints, input_size, seed)
            self._sources = [composite_source(image, people[:max_people]) for image, people in kept]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample | DhnError:
        """Reads and augments one image.

        The error of a missing or corrupt image is returned, not raised, because one bad file
        among a hundred thousand must not end a run. `collate` gathers the errors.
        """
        try:
            return self.sample(*key)
        except DhnError as error:
            return error

    def sample(self, epoch: int, index: int) -> Sample:
        """The same as `self[epoch, index]`, but it raises DhnError."""
        image = read_image(self.images[index % len(self)].path, ignore_orientation=True)
        return self.augment(image, epoch, index)

    def augment(self, image: np.ndarray, epoch: int, index: int) -> Sample:
        """Makes the sample (epoch, index) of its decoded image, RGB uint8 [height, width, 3].

        An index may be larger by a multiple of the number of images: then it is the same image,
        but another sample. A composite reads the images of the people that it lays over.
        """
        number, index = index, index % len(self)
        how = self.augmentation
        size = (image.shape[1], image.shape[0])
        rng = np.random.default_rng([self.seed, epoch, number])
        affine, flipped = self._draw(size, rng)
        draws = None
        if how is not None and how.appearance is not None:
            draws = Draws(how.appearance, self.seed, epoch, number)
            stretch = draws.stretched(size)
            affine = affine if stretch is None else stretch.then(affine)
        layer = self._layer(image, index, affine, flipped)
        if self._composer is not None:
            layer = self._composer.compose(layer, epoch, number, self._sources, self._read_layer)
        image, keypoints = layer.image, layer.keypoints
        if how is not None and how.colour:
            image = _recolour(image, how.colour, rng)
        if draws is not None:
            image, patches = draws.spoilt(image)
            keypoints = hide(keypoints, patches)
        return Sample(image, keypoints, layer.mask, str(self.images[index].path), layer.boxes)

    def _layer(self, image: np.ndarray, index: int, affine: Affine, flipped: bool) -> Layer:
        """An image and its labels as `affine` places them in the network's input."""
        annotated = self.images[index]
        size = (image.shape[1], image.shape[0])
        mask = ignore_mask(annotated)
        if mask is not None:
            if mask.shape != (size[1], size[0]):
                raise DhnError(
                    f"{annotated.path}: is {size[0]} x {size[1]} pixels, its annotations are for "
                    f"{annotated.width} x {annotated.height}"
                )
            mask = self._warp(mask, affine, cv2.INTER_NEAREST, border=1)
        # OpenCV warps four channels in half the time of three, the copies included.
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        image = self._warp(image, affine, cv2.INTER_LINEAR, border=0)
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)
        keypoints = self._move(index, affine, flipped)
        return Layer(image, keypoints, self._moved_boxes(index, affine), mask)

    def _read_layer(self, index: int, affine: Affine, flipped: bool) -> Layer:
        image = read_image(self.images[index].path, ignore_orientation=True)
        return self._layer(image, index, affine, flipped)

    def _draw(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[Affine, bool]:
        how = self.augmentation
        if how is None:
            return crop_transform(size, self.input_size, scale=max(size) / min(size)), False
        flipped = bool(rng.random() < how.flip)
        shift = rng.uniform(-1, 1, 2) * how.translation / 200
        affine = crop_transform(
            size,
            self.input_size,
            rotation=rng.uniform(-how.rotation, how.rotation),
            scale=rng.uniform(*how.scale),
            shift=(shift[0], shift[1]),
            flip=flipped,
        )
        return affine, flipped

    def _move(self, index: int, affine: Affine, flipped: bool) -> np.ndarray:
        """The keypoints of an image in input pixels; joints that are not labelled lie at zero."""
        before = self._keypoints[index]  # [P, J, 3]
        visibility = before[..., 2:]
        moved = np.where(visibility > 0, affine.apply(before[..., :2]), 0)
        moved = np.concatenate([moved, visibility], -1).astype(np.float32)
        return moved[:, self._flip] if flipped else moved

    def _moved_boxes(self, index: int, affine: Affine) -> np.ndarray | None:
        """Boxes [P, 4] in input pixels around the people's turned boxes; None if all is known."""
        corners = self._boxes[index]  # [P, 4, 2]
        if corners is None:
            return None
        moved = affine.apply(corners)
        return np.concatenate([moved.min(1), moved.max(1)], -1).astype(np.float32)

    def _warp(self, image: np.ndarray, affine: Affine, interpolation: int, border: int):
        size = (self.input_size, self.input_size)
        matrix = affine.cv2_matrix()
        return cv2.warpAffine(image, matrix, size, flags=interpolation, borderValue=(border,) * 3)


def _recolour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes contrast, brightness and saturation at random, by one affine map of RGB."""
    contrast, saturation = 1 + strength * rng.uniform(-0.5, 0.5, 2)
    brightness = 255 * strength * rng.uniform(-0.25, 0.25, 3)
    grey = np.full((3, 3), 1 / 3)
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    offset = 128 * (1 - contrast) + brightness
    # cv2.transform saturates to 0..255 by itself.
    return cv2.transform(image, np.column_stack([matrix, offset]).astype(np.float32))


def collate(items: Sequence[Sample | DhnError]) -> Batch:
    """Stacks samples. Zero rows pad the people of each to the largest number in the batch."""
    samples = [item for item in items if isinstance(item, Sample)]
    failures = [str(item) for item in items if isinstance(item, DhnError)]
    if not samples:
        return Batch(torch.empty(0), torch.empty(0), None, failures, [])
    people = max(len(s.keypoints) for s in samples)
    keypoints = np.zeros((len(samples), people, *samples[0].keypoints.shape[1:]), np.float32)
    for row, sample in zip(keypoints, samples, strict=True):
        row[: len(sample.keypoints)] = sample.keypoints
    boxes = None
    if any(s.boxes is not None for s in samples):
        boxes = np.zeros((len(samples), people, 4), np.float32)
        for row, sample in zip(boxes, samples, strict=True):
            if sample.boxes is not None:
                row[: len(sample.boxes)] = sample.boxes
    mask = None
    if any(s.mask is not None for s in samples):
        all_of_it = np.ones(samples[0].image.shape[:2], np.uint8)
        mask = np.stack([all_of_it if s.mask is None else s.mask for s in samples])
    return Batch(
        torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2),
        torch.from_numpy(keypoints),
        None if mask is None else torch.from_numpy(mask),
        failures,
        [s.name for s in samples],
        None if boxes is None else torch.from_numpy(boxes),
    )


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """The batches of a shuffled epoch, as lists of (epoch, index).

    The order depends on (seed, epoch) alone. Each process takes its share of every batch, in
    `parts` lists that pass through the network one after another. So the network learns from the
    same batches, however they are split. A list is empty where a batch has too few images.

    Args:
        length: the number of images.
        batch_size: images in a batch, over all processes and parts; the last may have fewer.
        seed: for the order.
        mixture: which samples an epoch has, as many as `length`; None takes every image once.
        parts: the number of lists for each batch and process.
        rank, processes: which process this is, and of how many.

    Attributes:
        batch_size: may be set, too, before the first iteration.
        epoch: the epoch whose batches come next; to be set before iterating.
        start: how many batches of this epoch were already seen; they are skipped.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        *,
        mixture: Mixture | None = None,
        parts: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.mixture = mixture
        self.parts = parts
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.start = 0

    @property
    def batches(self) -> int:
        """The number of batches in a whole epoch."""
        return math.ceil(self.length / self.batch_size)

    def size(self, batch: int) -> int:
        """The number of images in a batch, over all processes and parts."""
        return min(self.batch_size, self.length - batch * self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        samples = self.length if self.mixture is None else self.mixture.draw(rng)
        order = rng.permutation(samples).tolist()
        for batch in range(self.start, self.batches):
            first = batch * self.batch_size
            share = order[first : first + self.batch_size][self.rank :: self.processes]
            for part in range(self.parts):
                yield [(self.epoch, index) for index in share[part :: self.parts]]

    def __len__(self) -> int:
        return self.parts * max(0, self.batches - self.start)
