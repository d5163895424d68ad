"""What a training begins with: its data, and the weights that it starts from."""

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch.utils.data import DataLoader

from dhn.base.distributed import World
from dhn.base.errors import DhnError, SettingError
from dhn.base.progress import Progress
from dhn.data.annotations import Annotations, load_annotations
from dhn.data.augmentation import Appearance
from dhn.data.dataset import (
    Augmentation,
    Batch,
    EpochSampler,
    PoseDataset,
    collate,
)
from dhn.data.joints import JointSet
from dhn.data.labels import count_kept
from dhn.data.mixture import JOINT_SETS, Mixture, joined, with_joints
from dhn.model import PoseNetwork
from dhn.synth import generate, is_unfinished
from dhn.training.data_settings import Data
from dhn.training.settings import Config
from dhn.weights.download import fetch
from dhn.weights.load import warm_start
from dhn.weights.zoo import PUBLISHED

_log = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """What is trained on.

    Attributes:
        annotations: of the split to train on.
        held_out: of the split to score, if there is one.
        dataset: the samples.
        sampler: which samples make a batch.
        parts: how many parts a process's share of a batch has.
        loader: reads the parts.
    """

    annotations: Annotations
    held_out: Annotations | None
    dataset: PoseDataset
    sampler: EpochSampler
    parts: int
    loader: DataLoader

    def batches(self, epoch: int, start: int) -> Iterator[tuple[list[Batch], float]]:
        """This process's share of each batch of an epoch, from batch number `start` on.

        Yields:
            its parts, and for how many seconds they were waited for.
        """
        self.sampler.epoch, self.sampler.start = epoch, start
        every = iter(self.loader)
        while True:
            started = time.monotonic()
            batch = list(itertools.islice(every, self.parts))
            if not batch:
                return
            yield batch, time.monotonic() - started


def open_data(config: Config, world: World, progress: Progress) -> TrainingData:
    """Opens the data set; rank 0 draws it first, if the settings ask for procedural crowds.

    Raises:
        DhnError: there is no such data set or split, or nothing in it to learn from.
    """
    if world.main:
        _draw_crowds(config.data, progress)
    world.barrier()
    data, settings = config.data, config.train
    parts = _parts(data)
    annotations = joined(parts)
    held_out = _held_out(data, annotations.joints)
    dataset = _dataset(data, annotations, settings.seed)
    mixture = _mixture(data, parts)
    if dataset.left_out and world.main:
        _log.warning(
            f"{len(dataset.left_out)} images show more than data.max_people={data.max_people} "
            f"people; their {sum(dataset.left_out)} smallest are not learnt"
        )
    sampler = EpochSampler(
        len(dataset) if mixture is None else mixture.samples,
        settings.batch_size,
        settings.seed,
        mixture=mixture,
        parts=settings.accumulate,
        rank=world.rank,
        processes=world.size,
    )
    loader = _loader(dataset, sampler, data.workers)
    return TrainingData(annotations, held_out, dataset, sampler, settings.accumulate, loader)


def _draw_crowds(data: Data, progress: Progress) -> None:
    """Draws the procedural crowds that the settings ask for, unless there is a data set already."""
    if not data.synthetic or not isinstance(data.dataset, str):
        return
    folder = Path(data.dataset)
    elsewhere = data.dataset in ("crowdpose", "coco") or folder.suffix == ".json"
    if elsewhere or (folder.exists() and not is_unfinished(folder)):
        return
    generate(
        folder,
        data.synthetic,
        seed=0,
        processes=os.cpu_count() or 1,
        overwrite=True,
        progress=progress,
    )


def _parts(data: Data) -> list[Annotations]:
    """The data sets to train on, one after the other, all with the joints to learn."""
    parts: list[Annotations] = []
    for source in data.sources:
        part = _annotations(source.path, source.split or data.split, "data.split")
        joints = JOINT_SETS.get(data.joints) or (parts[0].joints if parts else part.joints)
        try:
            parts.append(with_joints(part, joints, source.joints))
        except ValueError as error:
            raise DhnError(f"data.joints: {error}") from error
    return parts


def _held_out(data: Data, joints: JointSet) -> Annotations | None:
    """The held-out split of the first data set, whose joints must be those that are learnt."""
    if data.eval_split is None:
        return None
    held_out = _annotations(data.sources[0].path, data.eval_split, "data.eval_split")
    if held_out.joints != joints:
        raise DhnError(
            f"data.eval_split: {data.sources[0].path} has the joints of {held_out.joints.name}, "
            f"not those of {joints.name}, and cannot be scored; set it to null, or put a data set "
            "with these joints first"
        )
    return held_out


def _mixture(data: Data, parts: Sequence[Annotations]) -> Mixture | None:
    """How often each image is shown, or None for once."""
    weights = tuple(source.weight for source in data.sources)
    if set(weights) == {1}:
        return None
    return Mixture(tuple(count_kept(part, data.keep_empty) for part in parts), weights)


def _annotations(dataset: str, split: str, setting: str) -> Annotations:
    """The annotations of a split, some of whose images are there."""
    try:
        annotations = load_annotations(dataset, split)
    except SettingError as error:
        raise DhnError(error.line(setting)) from error
    images = annotations.images
    if images and not any(image.path.is_file() for image in images):
        raise DhnError(
            f"{images[0].path.parent}: none of the {len(images)} images of split {split} "
            "is there; put them there"
        )
    return annotations


def _dataset(data: Data, annotations: Annotations, seed: int) -> PoseDataset:
    dataset = PoseDataset(
        annotations,
        input_size=data.input_size,
        augmentation=Augmentation(
            rotation=data.rotation,
            scale=data.scale,
            translation=data.translation,
            flip=data.flip,
            colour=data.colour,
            appearance=_appearance(data),
            composites=data.composites,
        ),
        max_people=data.max_people,
        keep_empty=data.keep_empty,
        seed=seed,
    )
    if not len(dataset):
        raise DhnError(f"{annotations.source}: no image of split {data.split} has a labelled joint")
    return dataset


def _appearance(data: Data) -> Appearance | None:
    how = Appearance(
        blur=data.blur,
        noise=data.noise,
        jpeg=data.jpeg,
        low_resolution=data.low_resolution,
        cutout=data.cutout,
        grey=data.grey,
        aspect=data.aspect,
    )
    return how.or_none()


def _loader(dataset: PoseDataset, sampler: EpochSampler, workers: int) -> DataLoader:
    # Where the platform forks by default, workers are forked. A fork of a process with threads may
    # hang only in what uses those threads, and `_start_worker` keeps workers from all of them. It
    # is worth the care: with 16,197 images and two workers, the first batch of an epoch came after
    # 0.3 s, from a fork server after 13 s and from fresh interpreters after 33 s, since both have
    # to import torch and to unpickle the annotations in each worker.
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
        # A generator of its own: the loader draws a number whenever an epoch begins, also after a
        # resume, and the global one must not depend on that.
        generator=torch.Generator(),
    )


def _start_worker(_: int) -> None:
    # Signals may reach the whole group; the parent alone answers them, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # 0, not 1: it leaves OpenCV's pool of threads alone, which a fork does not copy. 1 would try to
    # end these threads, and the worker would hang or crash.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def start_from(
    model: PoseNetwork,
    init: str,
    *,
    offline: bool,
    progress: Progress,
    report: Callable[[str], None],
) -> None:
    """Loads the weights that fit; the training does without published ones that cannot be had."""
    try:
        path = fetch(init, offline=offline, progress=progress)
    except DhnError as error:
        if init not in PUBLISHED:
            raise
        _log.warning(f"{error}; training starts from scratch (train.init=null says so at once)")
        return
    try:
        report(warm_start(model, path))
    except DhnError as error:
        raise DhnError(f"{error}; train.init=null starts from scratch") from error
