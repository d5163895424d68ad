"""Training samples: an image, augmented in one warp, with its keypoints and its mask.

Every random number of a sample comes from (seed, epoch, index), so a run can stop and go on
anywhere, with any number of workers, and see the same samples.
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
        translation: of the crop's centre, in 1/200 of the crop's side, either way.
        flip: probability of a mirrored sample.
        colour: strength of random brightness, contrast and saturation, 0 to 1 (0 in the paper).
    """

    rotation: float = 30.0
    scale: tuple[float, float] = (0.75, 1.5)
    translation: float = 40.0
    flip: float = 0.5
    colour: float = 0.0


class Sample(NamedTuple):
    """One training sample, S = input size.

    Attributes:
        image: uint8 [S, S, 3], RGB.
        keypoints: float32 [P, J, 3], (x, y) in input pixels and visibility.
        mask: uint8 [S, S] (1 = counted, 0 = ignored), or None where all of it counts.
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
        keypoints: float32 [B, P, J, 3]; rows beyond an image's people are zero.
        mask: uint8 [B, S, S], or None where all of it counts.
        failures: one line for each image that could not be read; B is smaller by them.
        names: paths of the B images, for messages.
    """

    image: Tensor
    keypoints: Tensor
    mask: Tensor | None
    failures: list[str]
    names: list[str]


class PoseDataset(Dataset):
    """Training samples of COCO, CrowdPose or any other annotations.

    Indexed by (epoch, image): the same pair always gives the same sample.

    Args:
        annotations: of the split; images without a labelled joint are left out by default.
        input_size: S, side of the square samples, in pixels.
        augmentation: how far samples move; None takes the whole image, centred, unchanged.
        max_people: people kept per image, the largest first.
        keep_empty: take images without a labelled joint too; they teach where nobody is.
        seed: of the augmentation.

    Attributes:
        left_out: people beyond `max_people`, of each image that shows so many.
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
        # Per image [P, J, 3], so that nothing is left to do per person when it is drawn.
        empty = np.zeros((0, len(self.joints), 3), np.float32)
        self._keypoints = [
            np.stack([p.keypoints for p in people[:max_people]]) if people else empty
            for _, people in kept
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample | DhnError:
        """Reads and augments one image.

        A missing or corrupt image is returned as its error, not raised: one bad file among
        a hundred thousand must not end a run (`collate` gathers them).
        """
        try:
            return self.sample(*key)
        except DhnError as error:
            return error

    def sample(self, epoch: int, index: int) -> Sample:
        """Like `self[epoch, index]`, but raises DhnError."""
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
        """Keypoints of an image in input pixels; joints that are not labelled become zero."""
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
    """People with a labelled joint, the largest first."""
    people = [p for p in image.people if not p.iscrowd and (p.keypoints[:, 2] > 0).any()]
    return sorted(people, key=lambda p: -p.area)


def _recolour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Random contrast, brightness and saturation as one affine map of RGB."""
    contrast, saturation = 1 + strength * rng.uniform(-0.5, 0.5, 2)
    brightness = 255 * strength * rng.uniform(-0.25, 0.25, 3)
    grey = np.full((3, 3), 1 / 3)
    matrix = contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    offset = 128 * (1 - contrast) + brightness
    # cv2.transform saturates to 0..255 by itself.
    return cv2.transform(image, np.column_stack([matrix, offset]).astype(np.float32))


def collate(items: Sequence[Sample | DhnError]) -> Batch:
    """Stacks samples; people are padded with zero rows to the most in the batch."""
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
    """The batches of a shuffled epoch, as lists of (epoch, index); set `epoch` and `start` before.

    The order depends on (seed, epoch) alone. Each of `processes` takes its share of every batch,
    in `parts` lists that go through the network one after another, so the same batches are
    learnt from however they are split. Lists may be empty, where a batch has too few images.

    Args:
        length: images.
        batch_size: images per batch, over all processes and parts; the last may have fewer.
        seed: of the order.
        parts: lists per batch and process.
        rank, processes: whose share this is.
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
        self.start = 0  # batches of this epoch that were already seen

    @property
    def batches(self) -> int:
        """Batches of a whole epoch."""
        return math.ceil(self.length / self.batch_size)

    def size(self, batch: int) -> int:
        """Images of a batch, over all processes and parts."""
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
