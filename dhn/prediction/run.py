"""Predicts images and videos: sources are read, their frames predicted, the results written."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError, failure
from dhn.base.progress import Progress, silent, tracked
from dhn.data.joints import JointSet
from dhn.inference.batches import people_or_errors
from dhn.inference.people import People
from dhn.media.frames import Excerpt, VideoFrame
from dhn.media.sources import Source
from dhn.prediction.outputs import Outputs, closed_by
from dhn.prediction.sinks import Frame, Run
from dhn.tracking import Corrections, LiveSmoother, Tracker, smooth_video

if TYPE_CHECKING:
    from dhn.inference.predictor import Predictor

_ALL_FRAMES = Excerpt()
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Summary:
    """What was done, in all processes together.

    Attributes:
        images: how many images and video frames were predicted.
        people: how many people were found in them.
        failures: one line for each source that failed.
        network_seconds, decode_seconds: the time that was spent, summed over the images.
    """

    images: int
    people: int
    failures: list[str]
    network_seconds: float
    decode_seconds: float


@dataclass
class _Outcome:
    """What became of one source. `results`, without pixels, holds those that are written later."""

    images: int = 0
    people: int = 0
    failure: str | None = None
    results: list[tuple[Frame, People]] = field(default_factory=list)

    def fail(self, source: Source, error: Exception) -> None:
        """Notes what went wrong first; the other sources go on."""
        self.failure = self.failure or failure(source.label, error)


def predict(
    predictor: "Predictor",
    sources: Sequence[Source],
    outputs: Outputs,
    *,
    batch_size: int = 1,
    conf: float = 0.0,
    joint_conf: float = 0.0,
    excerpt: Excerpt = _ALL_FRAMES,
    track: bool = False,
    smooth: bool = False,
    ids: Corrections | None = None,
    person: int | None = None,
    progress: Progress = silent,
    world: World = ALONE,
) -> Summary:
    """Finds the people in all sources and writes what `outputs` asks for.

    A source that cannot be read, or that breaks off, is noted in the summary. What it gave until
    then is kept, and the other sources follow. Ctrl-C leaves what has been written in files that
    can be opened.

    Several processes share the sources; a video is the work of one. Each process writes the files
    of its own sources. What goes to one file for all sources is kept in memory until rank 0
    writes it in order.

    Args:
        predictor: finds the people of each image of a list.
        sources: the images and videos, from `dhn.media.sources.list_sources`.
        outputs: what to write, and where.
        batch_size: how many images or frames the predictor gets at a time.
        conf: people who score less are left out.
        joint_conf: joints that score less count as missing.
        excerpt: which frames of videos are taken.
        track: gives the people of videos ids, by `dhn.tracking.Tracker`. Weak people, who are left
            out afterwards, help it.
        smooth: steadies the joints in videos; needs `track`. A video is then read twice, because
            what comes later has a say.
        ids: corrects the ids that the tracker gave, before joints are steadied.
        person: only the people with this id are kept.
        progress: shows how many images and frames are done.
        world: the processes that share the work.

    Returns:
        what all processes did, in rank 0; in the others, an empty summary.

    Raises:
        DhnError: an output cannot be written.
    """
    outputs.check(sources)
    outputs.check_joints(predictor.joints)
    choices = {
        "conf": conf,
        "joint_conf": joint_conf,
        "vid_stride": excerpt.stride,
        "start": excerpt.start,
        "end": excerpt.end,
        "track": track,
        "smooth": smooth,
        "ids": None if ids is None else str(ids.path),
        "person": person,
    }
    if ids is not None:
        ids.check([source.path for source in sources if source.is_video])
    run = Run(predictor.source, predictor.settings | choices, predictor.joints, sources)
    outcomes = {source: _Outcome() for source in world.share(sources)}
    frames = tracked(
        _frames(outcomes, excerpt),
        progress if world.main else silent,
        "Predicting",
        total=_frame_count(list(outcomes), excerpt),
    )
    results = _results(predictor, frames, batch_size, outcomes)
    with contextlib.ExitStack() as whole_run:
        shared = closed_by(whole_run, outputs.shared_sinks(run))
        at_once = shared if world.size == 1 else ()  # else rank 0 writes to them at the end
        group: Results
        for source, group in itertools.groupby(results, key=lambda result: result[0].source):
            outcome = outcomes[source]
            if source.is_video and track:
                group = _tracked(group, predictor.joints, ids)
                if smooth and source.is_live:
                    group = _steadied(group)
                elif smooth:
                    group = _smoothed(group, excerpt, pixels=outputs.need_pixels)
            with contextlib.ExitStack() as one_source:
                own = closed_by(one_source, outputs.source_sinks(source, run))
                for frame, everybody in group:
                    people = everybody[everybody.scores >= conf].without_weak_joints(joint_conf)
                    if person is not None:
                        people = people.with_id(person)
                    outcome.images += 1
                    outcome.people += len(people)
                    try:
                        for sink in (*own, *at_once):
                            sink.write(frame, people)
                    except DhnError:
                        raise  # nothing more can be written there
                    except Exception as error:
                        outcome.fail(source, error)
                    if shared and not at_once:
                        outcome.results.append(_without_pixels(frame, people))
        everything = world.collect(list(outcomes.values()))
        for frame, people in itertools.chain(*(outcome.results for outcome in everything)):
            for sink in shared:
                sink.write(frame, people)
    spent = predictor.timing
    network_seconds, decode_seconds = world.total([spent.network_seconds, spent.decode_seconds])
    return Summary(
        images=sum(outcome.images for outcome in everything),
        people=sum(outcome.people for outcome in everything),
        failures=[outcome.failure for outcome in everything if outcome.failure is not None],
        network_seconds=network_seconds,
        decode_seconds=decode_seconds,
    )


Results: TypeAlias = Iterator[tuple[Frame, People]]


def _tracked(results: Results, joints: JointSet, ids: Corrections | None) -> Results:
    """The results of one video, whose people have ids."""
    tracker = Tracker(joints)
    for frame, people in results:
        people = tracker(people, float(frame.time))
        if ids is not None and frame.index is not None:
            people = ids.corrected(people, frame.index, frame.source.path)
        yield frame, people


def _steadied(results: Results) -> Results:
    """The results of a camera with steady joints, each at once."""
    smoother = LiveSmoother()
    for frame, people in results:
        yield frame, smoother(people, float(frame.time))


def _smoothed(results: Results, excerpt: Excerpt, *, pixels: bool) -> Results:
    """The results of one video with steady joints, once all of them are there.

    Ctrl-C, too, has to wait until what was found so far is written.
    """
    kept: list[tuple[Frame, People]] = []
    interrupt: KeyboardInterrupt | None = None
    try:
        for frame, people in results:
            kept.append(_without_pixels(frame, people))
    except KeyboardInterrupt as error:
        interrupt = error
    if kept:
        frames = [frame for frame, _ in kept]
        images: Iterable[np.ndarray] = itertools.repeat(_NO_PIXELS)
        with contextlib.ExitStack() as stack:
            if pixels:
                video: Iterable[VideoFrame] = stack.enter_context(
                    frames[0].source.open_video(excerpt)
                )
                images = (again.image for again in video)
            for frame, image, people in zip(
                frames, images, smooth_video([people for _, people in kept]), strict=False
            ):
                yield replace(frame, image=image), people
    if interrupt is not None:
        raise interrupt


def _without_pixels(frame: Frame, people: People) -> tuple[Frame, People]:
    """A result that may stay in memory, however many frames a video has."""
    return replace(frame, image=_NO_PIXELS), replace(people, image=None)


def _frames(outcomes: Mapping[Source, _Outcome], excerpt: Excerpt) -> Iterator[Frame]:
    """The images and frames of all sources; failures go to the outcome of their source."""
    for source, outcome in outcomes.items():
        try:
            if not source.is_video:
                image = source.read_image()
                yield Frame(source, image, size=_size(image))
                continue
            with source.open_video(excerpt) as video:
                for frame in video:
                    size = _size(frame.image)
                    yield Frame(source, frame.image, frame.index, frame.time, video.fps, size)
        except Exception as error:
            outcome.fail(source, error)


def _size(image: np.ndarray) -> tuple[int, int]:
    height, width = image.shape[:2]
    return width, height


def _frame_count(sources: Sequence[Source], excerpt: Excerpt) -> int | None:
    """How many frames will come, for the progress bar; None if a video does not state it."""
    total = sum(not source.is_video for source in sources)
    for source in sources:
        if source.is_live:
            return None
        if source.is_video:
            try:
                with source.open_video(excerpt) as video:
                    if video.frame_count is None:
                        return None
                    total += video.frame_count
            except Exception:
                pass  # `_frames` reports it when its turn comes
    return total


def _results(
    predictor: "Predictor",
    frames: Iterator[Frame],
    batch_size: int,
    outcomes: Mapping[Source, _Outcome],
) -> Iterator[tuple[Frame, People]]:
    """Each frame with its people; `batch_size` frames are predicted at a time."""
    while batch := list(itertools.islice(frames, batch_size)):
        found = people_or_errors(predictor, [frame.image for frame in batch])
        for frame, people in zip(batch, found, strict=True):
            if isinstance(people, Exception):
                outcomes[frame.source].fail(frame.source, people)
            else:
                yield frame, people
