"""Predicts images and videos: sources are read, their frames predicted, the results written.

Each of these is a stage that works beside the others, see `dhn.base.pipeline`. What a stage cannot
do with a frame goes on as an exception in place of its people, and the last one notes it.
"""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError, failure
from dhn.base.pipeline import Pipeline
from dhn.base.progress import Progress, silent
from dhn.data.joints import JointSet
from dhn.inference.batches import predicted
from dhn.inference.people import People
from dhn.media.frames import Excerpt, VideoFrame
from dhn.media.sources import Source
from dhn.prediction.outputs import Outputs, closed_by
from dhn.prediction.sinks import NO_PIXELS, Frame, Painter, Run, Sink
from dhn.tracking import Corrections, LiveSmoother, Tracker, smooth_stream

if TYPE_CHECKING:
    from dhn.inference.predictor import Predictor

_ALL_FRAMES = Excerpt()

Results: TypeAlias = Iterator[tuple[Frame, People | Exception]]
Show: TypeAlias = Callable[[np.ndarray, bool], bool]
_Change: TypeAlias = Callable[[Frame, People], tuple[Frame, People]]


@dataclass(frozen=True)
class Summary:
    """What was done, in all processes together.

    Attributes:
        images: how many images and video frames were predicted.
        people: how many people were found in them.
        failures: one line for each source that failed.
        network_seconds, decode_seconds: the time that was spent, summed over the images.
        stage_seconds: how long each stage of this process worked, without waiting for others.
        stage_cpu_seconds: the processor time of each stage's thread.
    """

    images: int
    people: int
    failures: list[str]
    network_seconds: float
    decode_seconds: float
    stage_seconds: dict[str, float]
    stage_cpu_seconds: dict[str, float]


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
    show: Show | None = None,
    progress: Progress = silent,
    world: World = ALONE,
) -> Summary:
    """Finds the people in all sources and writes what `outputs` asks for.

    A source that cannot be read, or that breaks off, is noted in the summary. What it gave until
    then is kept, and the other sources follow. After Ctrl-C no image enters the network any more;
    what is under way is still written, in files that can be opened.

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
        smooth: steadies the joints in videos; needs `track`. A video of which overlays are made
            is then read twice, because what comes later has a say.
        ids: corrects the ids that the tracker gave, before joints are steadied.
        person: only the people with this id are kept.
        show: gets each overlay, RGB uint8 [H, W, 3], and whether it is a frame of a video, in the
            calling thread; `outputs.show` must be true. False, which it returns, ends the run.
        progress: shows how many images and frames are done.
        world: the processes that share the work.

    Returns:
        what all processes did, in rank 0; in the others, an empty summary.

    Raises:
        DhnError: an output cannot be written.
    """
    outputs.check(sources)
    outputs.check_joints(predictor.joints)
    if ids is not None:
        ids.check([source.path for source in sources if source.is_video])
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
    run = Run(predictor.source, predictor.settings | choices, predictor.joints, sources)
    outcomes = {source: _Outcome() for source in world.share(sources)}
    stop = threading.Event()
    bar = (progress if world.main else silent)("Predicting", _frame_count(list(outcomes), excerpt))
    with contextlib.ExitStack() as whole_run:
        shared = closed_by(whole_run, outputs.shared_sinks(run))
        at_once = shared if world.size == 1 else ()  # else rank 0 writes to them at the end
        with bar, Pipeline() as pipeline:
            # A camera gives its newest frame when the network asks for one, and none before.
            ahead = 1 if any(source.is_live for source in outcomes) else None
            frames = pipeline.stage("read", _frames(list(outcomes), excerpt, stop), most=ahead)
            results = predicted(pipeline, predictor, frames, batch_size, stopped=stop.is_set)
            if track:
                results = pipeline.stage("track", _tracked(results, predictor.joints, ids))
            if smooth:
                steady = _smoothed(results, excerpt, pixels=outputs.need_pixels)
                results = pipeline.stage("smooth", steady)
            results = _chosen(results, conf, joint_conf, person)
            if outputs.need_pixels:
                results = pipeline.stage("draw", _drawn(results, outputs))
            written = pipeline.stage("write", _written(results, outputs, run, at_once))
            keep = bool(shared) and not at_once
            _noted(written, outcomes, bar.advance, show, stop, keep=keep)
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
        stage_seconds=pipeline.seconds,
        stage_cpu_seconds=pipeline.cpu_seconds,
    )


def _noted(
    written: Results,
    outcomes: Mapping[Source, _Outcome],
    advance: Callable[[], None],
    show: Show | None,
    stop: threading.Event,
    *,
    keep: bool,
) -> None:
    """Notes what became of each frame, and shows it.

    After Ctrl-C, it waits until what is under way is written.
    """
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            for frame, people in written:
                overlay = None if stop.is_set() else frame.overlay
                if show and overlay is not None and not show(overlay, frame.index is not None):
                    stop.set()
                outcome = outcomes[frame.source]
                if isinstance(people, Exception):
                    outcome.fail(frame.source, people)
                else:
                    outcome.images += 1
                    outcome.people += len(people)
                    if keep:
                        outcome.results.append((_without_pixels(frame), people))
                advance()
            break
        except KeyboardInterrupt as error:
            if interrupt is not None:
                raise  # somebody is in a hurry
            interrupt = error
            stop.set()
    if interrupt is not None:
        raise interrupt


def _frames(
    sources: Sequence[Source], excerpt: Excerpt, stop: threading.Event
) -> Iterator[tuple[Frame, np.ndarray | Exception]]:
    """The images and frames of all sources, and why there are none or no others."""
    for source in sources:
        try:
            if not source.is_video:
                image = source.read_image()
                yield Frame(source, image, size=_size(image)), image
                continue
            with source.open_video(excerpt, stop) as video:
                for frame in video:
                    image, size = frame.image, _size(frame.image)
                    yield Frame(source, image, frame.index, frame.time, video.fps, size), image
                    if stop.is_set():
                        return
        except Exception as error:
            yield Frame(source, NO_PIXELS), error
        if stop.is_set():
            return


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


def _by_source(results: Results) -> Iterator[tuple[Source, Results]]:
    return itertools.groupby(results, key=lambda result: result[0].source)


def _changed(results: Results, change: _Change) -> Results:
    """The results after `change`, or with what it raises."""
    for frame, people in results:
        if not isinstance(people, Exception):
            try:
                frame, people = change(frame, people)
            except Exception as error:
                people = error
        yield frame, people


def _tracked(results: Results, joints: JointSet, ids: Corrections | None) -> Results:
    """The people of videos get ids."""
    for source, group in _by_source(results):
        yield from _changed(group, _follower(joints, ids)) if source.is_video else group


def _follower(joints: JointSet, ids: Corrections | None) -> _Change:
    tracker = Tracker(joints)

    def follow(frame: Frame, people: People) -> tuple[Frame, People]:
        people = tracker(people, float(frame.time))
        if ids is not None and frame.index is not None:
            people = ids.corrected(people, frame.index, frame.source.path)
        return frame, people

    return follow


def _smoothed(results: Results, excerpt: Excerpt, *, pixels: bool) -> Results:
    """The joints in videos are steadied: those of cameras at once, others when more is known."""
    for source, group in _by_source(results):
        if source.is_live:
            yield from _changed(group, _steadier())
        elif source.is_video:
            yield from _smoothed_file(source, group, excerpt, pixels=pixels)
        else:
            yield from group


def _steadier() -> _Change:
    smoother = LiveSmoother()
    return lambda frame, people: (frame, smoother(people, float(frame.time)))


def _smoothed_file(source: Source, results: Results, excerpt: Excerpt, *, pixels: bool) -> Results:
    """The results of one video, which is read again where its pixels are wanted.

    Smoothing holds hundreds of frames back, whose people stay in memory, but not their pixels.
    """
    waiting: deque[Frame] = deque()
    failed: list[tuple[Frame, People | Exception]] = []

    def found() -> Iterator[People]:
        for frame, people in results:
            if isinstance(people, Exception):
                failed.append((frame, people))
            else:
                waiting.append(_without_pixels(frame))
                yield replace(people, image=None)

    steady = smooth_stream(found())
    try:
        with contextlib.ExitStack() as stack:
            again: Iterator[VideoFrame] = iter(())
            if pixels:
                again = iter(stack.enter_context(source.open_video(excerpt)))
            for people in steady:
                frame = waiting.popleft()
                if pixels:  # frames that failed are passed over
                    image = next(other.image for other in again if other.index == frame.index)
                    frame = replace(frame, image=image)
                yield frame, people
    except Exception as error:
        failed.append((Frame(source, NO_PIXELS), error))
        for _ in steady:
            pass
    yield from failed


def _chosen(results: Results, conf: float, joint_conf: float, person: int | None) -> Results:
    """Leaves weak people and joints out, and everybody but one person if one is followed."""
    for frame, people in results:
        if not isinstance(people, Exception):
            people = people[people.scores >= conf].without_weak_joints(joint_conf)
            if person is not None:
                people = people.with_id(person)
        yield frame, people


def _drawn(results: Results, outputs: Outputs) -> Results:
    """Frames get the overlays that will be written."""
    for source, group in _by_source(results):
        yield from _changed(group, Painter(outputs.style)) if outputs.draws(source) else group


def _written(results: Results, outputs: Outputs, run: Run, shared: Sequence[Sink]) -> Results:
    """Writes the files; returns what there was, without pixels."""
    for source, group in _by_source(results):
        with contextlib.ExitStack() as one_source:
            own = closed_by(one_source, outputs.source_sinks(source, run))
            for frame, people in group:
                result = people
                if not isinstance(people, Exception):
                    try:
                        for sink in (*own, *shared):
                            sink.write(frame, people)
                        result = replace(people, image=None)
                    except DhnError:
                        raise  # nothing more can be written there
                    except Exception as error:
                        result = error
                overlay = frame.overlay if outputs.show else None
                yield replace(frame, image=NO_PIXELS, overlay=overlay), result


def _without_pixels(frame: Frame) -> Frame:
    """A frame that may stay in memory, however many a video has."""
    return replace(frame, image=NO_PIXELS, overlay=None)
