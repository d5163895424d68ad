"""What a training begins with: its data, and the weights that it starts from."""

import dataclasses
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from dhn.base.distributed import World
from dhn.base.errors import DhnError, SettingError
from dhn.base.progress import Progress
from dhn.data.annotations import Annotations, load_annotations, read_ids
from dhn.data.augmentation import Appearance
from dhn.data.dataset import Augmentation, Batch, EpochSampler, PoseDataset, collate
from dhn.data.joints import JointSet, doubts_about_sides, with_pairs, with_sigmas
from dhn.data.labels import count_kept
from dhn.data.mixture import JOINT_SETS, Mixture, joined, with_joints
from dhn.model import PoseNetwork
from dhn.synth import generate, is_unfinished
from dhn.training.data_settings import Data, Source
from dhn.training.learner import Learner
from dhn.training.settings import Config
from dhn.weights.choice import chosen
from dhn.weights.download import fetch
from dhn.weights.load import warm_start

_log = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """What is trained on.

    Attributes:
        annotations: of the split to train on.
        excluded: how many of its images `data.exclude` leaves out.
        held_out: of the split to score, if there is one.
        dataset: the samples.
        sampler: which samples make a batch.
        parts: how many parts a process's share of a batch has.
        loader: reads the parts.
    """

    annotations: Annotations
    excluded: int
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
            try:
                batch = list(itertools.islice(every, self.parts))
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise DhnError(
                    "a process that makes samples was killed (out of memory?); resume the run with "
                    f"fewer of them: data.workers={self.loader.num_workers // 2}"
                ) from error
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
    excluded = [_excluded(source) for source in data.sources]
    parts, held_out = _parts(data, excluded, settings.seed)
    annotations = joined(parts)
    if data.held_out is not None:
        held_out = _held_out(data, *data.held_out, annotations)
    doubts = doubts_about_sides(annotations.joints)
    if doubts and data.flip_pairs is None and data.flip and world.main:
        _log.warning(
            f"left and right cannot be told: {doubts}; data.flip_pairs names the pairs, or [] if "
            "there are none"
        )
    dataset = _dataset(data, annotations, settings.seed)
    mixture = _mixture(data, parts)
    if dataset.left_out and world.main:
        _log.warning(
            f"{len(dataset.left_out)} images show more than data.max_people={data.max_people} "
            f"people; their {sum(dataset.left_out)} smallest are not learnt"
        )
    sampler = EpochSampler(
        len(dataset) if mixture is None else mixture.samples,
        1 if settings.batch_size == "auto" else settings.batch_size,  # `loop.py` will find one
        settings.seed,
        mixture=mixture,
        parts=settings.accumulate,
        rank=world.rank,
        processes=world.size,
    )
    loader = _loader(dataset, sampler, data.workers)
    count = sum(map(len, excluded))
    return TrainingData(annotations, count, held_out, dataset, sampler, settings.accumulate, loader)


def plan(config: Config, data: TrainingData, learner: Learner) -> Iterator[str]:
    """Lines that say what a training is going to do."""
    network, images = config.network, data.dataset.images
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    precision = str(learner.amp or torch.float32).removeprefix("torch.")
    processes = f", {learner.world.size} processes" if learner.world.size > 1 else ""
    yield f"device: {learner.device}{processes}, in {precision}"
    yield f"network: {network.name}, width {network.width}, {parameters / 1e6:.2f} M parameters"
    labelled = sum(
        not person.iscrowd and bool((person.keypoints[:, 2] > 0).any())
        for image in images
        for person in image.people
    )
    people = labelled - sum(data.dataset.left_out)
    line = f"training: {len(images)} images, {people} people, {len(data.dataset.joints)} joints"
    if data.excluded:
        line += f"; left out: {data.excluded} images by data.exclude"
    if empty := len(data.annotations.images) - len(images):
        line += f"; left out: {empty} images without a labelled joint"
    if beyond := sum(data.dataset.left_out):
        line += f"; {beyond} people beyond data.max_people"
    yield line
    if data.held_out is None:
        yield "validation: none; data.eval_split or data.hold_out score held-out images"
    else:
        share = f"data.hold_out={config.data.hold_out:g}"
        source = share if config.data.hold_out else f"split {config.data.eval_split}"
        yield (
            f"validation: {len(data.held_out.images)} images of {source}, "
            f"every {config.train.eval_every} epochs"
        )


def _draw_crowds(data: Data, progress: Progress) -> None:
    """Draws the procedural crowds that the settings ask for, unless there is a data set already."""
    if not data.synthetic or not isinstance(data.dataset, str):
        return
    folder = Path(data.dataset)
    elsewhere = data.dataset in ("crowdpose", "coco") or folder.suffix in (".json", ".yaml", ".yml")
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


def _excluded(source: Source) -> set[int]:
    """The ids of the images of a data set that are not to be learnt."""
    return set() if source.exclude is None else read_ids(Path(source.exclude))


def _parts(
    data: Data, excluded: Sequence[set[int]], seed: int
) -> tuple[list[Annotations], Annotations | None]:
    """The data sets to train on, one after the other, all with the joints to learn.

    Also what `data.hold_out` takes from the first one.
    """
    parts: list[Annotations] = []
    held_out = None
    for source, ids in zip(data.sources, excluded, strict=True):
        part = _annotations(source.path, source.split or data.split, "data.split").without(ids)
        if ids and not part.images:
            raise DhnError(f"{source.exclude}: leaves out all images of {part.source}")
        if data.hold_out and not parts:
            part, held_out = _hold_out(part, data.hold_out, seed)
        if parts:
            joints = parts[0].joints
        else:
            joints = _described(JOINT_SETS.get(data.joints) or part.joints, data)
        try:
            parts.append(with_joints(part, joints, source.joints))
        except ValueError as error:
            raise DhnError(f"data.joints: {error}") from error
    if held_out is not None:
        held_out = with_joints(held_out, _described(held_out.joints, data))
        _check_scored("data.hold_out", held_out, parts[0])
    return parts, held_out


def _check_scored(setting: str, held_out: Annotations, learnt: Annotations) -> None:
    if held_out.joints != learnt.joints:
        raise DhnError(
            f"{setting}: {held_out.source} has the joints of {held_out.joints.name}, not those of "
            f"{learnt.joints.name}, and cannot be scored; score nothing, or put a data set with "
            "these joints first"
        )


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


def _described(joints: JointSet, data: Data) -> JointSet:
    """The joints with the flip pairs and sigmas that the settings give them."""
    try:
        if data.flip_pairs is not None:
            joints = with_pairs(joints, data.flip_pairs)
        if data.sigmas is not None:
            joints = with_sigmas(joints, data.sigmas)
    except SettingError as error:
        raise DhnError(error.line(f"data.{error.setting}")) from error
    return joints


def _held_out(data: Data, dataset: str, split: str, annotations: Annotations) -> Annotations:
    """The split that is scored; none of its images may be trained on."""
    held_out = _annotations(dataset, split, "data.eval_split")
    held_out = with_joints(held_out, _described(held_out.joints, data))
    setting = f"data.eval_split {data.eval_split}"
    _check_scored(setting, held_out, annotations)
    trained = {os.path.abspath(image.path) for image in annotations.images}
    both = [image.path for image in held_out.images if os.path.abspath(image.path) in trained]
    if both:
        raise DhnError(
            f"{setting}: {len(both)} of its {len(held_out.images)} images are "
            f"trained on, too, like {both[0]}; name other images, or set data.eval_split=null "
            "data.hold_out=0.1 to hold some out"
        )
    return held_out


def _hold_out(annotations: Annotations, share: float, seed: int) -> tuple[Annotations, Annotations]:
    """Parts images at random into those to train on and `share` of them to score."""
    count = len(annotations.images)
    held = max(1, round(share * count))
    if held >= count:
        raise DhnError(f"{annotations.source}: has {count} images, too few for data.hold_out")
    order = np.random.default_rng([seed, count]).permutation(count)
    chosen = {annotations.images[index].id for index in order[:held]}
    return _only(annotations, chosen, False), _only(annotations, chosen, True)


def _only(annotations: Annotations, chosen: set[int], inside: bool) -> Annotations:
    """The images that are among the chosen ones, or those that are not."""
    raw = annotations.raw
    images = [image for image in raw["images"] if (image["id"] in chosen) is inside]
    people = [one for one in raw["annotations"] if (one["image_id"] in chosen) is inside]
    return dataclasses.replace(
        annotations,
        images=[image for image in annotations.images if (image.id in chosen) is inside],
        raw={**raw, "images": images, "annotations": people},
    )


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
    """Loads the weights that fit.

    Raises:
        DhnError: the weights cannot be had or do not fit; the message says how to do without.
    """
    try:
        path = fetch(chosen(init), offline=offline, progress=progress)
        report(warm_start(model, path))
    except DhnError as error:
        raise DhnError(f"{error}; train.init=null starts from scratch") from error
