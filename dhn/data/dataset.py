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
from dhn.data.annotations import AnnotatedImage, Annotations, Person
from dhn.data.geometry import Affine, crop_transform
from dhn.data.masks import ignore_mask
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
    """

    rotation: float = 30.0
    scale: tuple[float, float] = (0.75, 1.5)
    translation: float = 40.0
    flip: float = 0.5
    colour: float = 0.0


class Sample(NamedTuple):
    """One training sample, where S is the input size.

    Attributes:
        image: uint8 [S, S, 3], RGB.
        keypoints: float32 [P, J, 3], (x, y) in input pixels and visibility.
        mask: uint8 [S, S], 1 where a pixel counts and 0 where it is ignored; None where all
            pixels count.
        name: path of the image, for messages.
    """

    image: np.ndarray
    keypoints: np.ndarray
    mask: np.ndarray | None
    name: str = ""


class Batch(NamedTuple):
    """B samples.

    Attributes:
        image: uint8 [B, 3, S, S], RGB, channels last in memory.
        keypoints: float32 [B, P, J, 3]; the rows after an image's people are zero.
        mask: uint8 [B, S, S], or None where all pixels count.
        failures: one line for each image that could not be read, which is not among the B images.
        names: paths of the B images, for messages.
    """

    image: Tensor
    keypoints: Tensor
    mask: Tensor | None
    failures: list[str]
    names: list[str]


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
        labelled = [(p, _labelled_people(p)) for p in annotations.images]
        kept = [(p, people) for p, people in labelled if people or keep_empty]
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
            np.stack([p.keypoints for p in people[:max_people]]) if people else empty
            for _, people in kept
        ]

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
        image = read_image(self.images[index].path, ignore_orientation=True)
        return self.augment(image, epoch, index)

    def augment(self, image: np.ndarray, epoch: int, index: int) -> Sample:
        """Makes the sample (epoch, index) of its decoded image, RGB uint8 [height, width, 3]."""
        annotated = self.images[index]
        size = (image.shape[1], image.shape[0])
        rng = np.random.default_rng([self.seed, epoch, index])
        affine, flipped = self._draw(size, rng)
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
        if self.augmentation is not None and self.augmentation.colour:
            image = _recolour(image, self.augmentation.colour, rng)
        return Sample(image, self._move(index, affine, flipped), mask, str(annotated.path))

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
        """The keypoints of an image in input pixels; joints that are not labelled become zero."""
        before = self._keypoints[index]  # [P, J, 3]
        visibility = before[..., 2:]
        moved = np.concatenate([affine.apply(before[..., :2]), visibility], -1)
        moved = np.where(visibility > 0, moved, 0).astype(np.float32)
        return moved[:, self._flip] if flipped else moved

    def _warp(self, image: np.ndarray, affine: Affine, interpolation: int, border: int):
        size = (self.input_size, self.input_size)
        matrix = affine.cv2_matrix()
        return cv2.warpAffine(image, matrix, size, flags=interpolation, borderValue=(border,) * 3)


def _labelled_people(image: AnnotatedImage) -> list[Person]:
    """The people with a labelled joint, the largest first."""
    people = [p for p in image.people if not p.iscrowd and (p.keypoints[:, 2] > 0).any()]
    return sorted(people, key=lambda p: -p.area)


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
        parts: the number of lists for each batch and process.
        rank, processes: which process this is, and of how many.

    Attributes:
        epoch: the epoch whose batches come next; to be set before iterating.
        start: how many batches of this epoch were already seen; they are skipped.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        *,
        parts: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
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
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist()
        for batch in range(self.start, self.batches):
            first = batch * self.batch_size
            share = order[first : first + self.batch_size][self.rank :: self.processes]
            for part in range(self.parts):
                yield [(self.epoch, index) for index in share[part :: self.parts]]

    def __len__(self) -> int:
        return self.parts * max(0, self.batches - self.start)
