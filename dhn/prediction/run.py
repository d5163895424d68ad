"""From sources over frames and a predictor to files."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError, failure
from dhn.base.progress import Progress, silent, tracked
from dhn.inference.batches import people_or_errors
from dhn.inference.people import People
from dhn.media.sources import Source
from dhn.media.video import VideoReader
from dhn.prediction.outputs import Frame, Outputs, closed_by, shared_sinks, source_sinks

if TYPE_CHECKING:
    from dhn.inference.predictor import Predictor

_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Summary:
    """What a run did, in all processes.

    Attributes:
        images: images and video frames.
        people: found in them.
        failures: a line for each source that failed.
        network_seconds, decode_seconds: summed over images.
    """

    images: int
    people: int
    failures: list[str]
    network_seconds: float
    decode_seconds: float


@dataclass
class _Outcome:
    """What became of one source; `results`, without pixels, only while they have to be kept."""

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
    vid_stride: int = 1,
    progress: Progress = silent,
    world: World = ALONE,
) -> Summary:
    """Finds the people in all sources and writes what `outputs` asks for.

    A source that cannot be read, or breaks off, is noted in the summary; what it gave is kept
    and the rest goes on. Ctrl-C keeps what has been written, in files that are whole.

    Several processes share the sources, a video as a whole. Each writes the files of its own
    sources; what goes to one file for all is kept in memory until rank 0 writes it, in order.

    Args:
        predictor: finds the people of each image of a list.
        sources: from `media.list_sources`.
        outputs: what to write.
        batch_size: images or frames given to the predictor at once.
        conf: people who score less are left out.
        vid_stride: take every n-th frame of videos.
        progress: shows how many images and frames are done.
        world: the processes that share the work.

    Returns:
        what was done; rank 0 knows of all processes, the others of none.

    Raises:
        DhnError: an output cannot be written.
    """
    outputs.check(sources)
    outcomes = {source: _Outcome() for source in world.share(sources)}
    frames = tracked(
        _frames(outcomes, vid_stride),
        progress if world.main else silent,
        "predict",
        total=_frame_count(list(outcomes), vid_stride),
    )
    results = _results(predictor, frames, batch_size, conf, outcomes)
    with contextlib.ExitStack() as whole_run:
        shared = closed_by(whole_run, shared_sinks(outputs, sources))
        at_once = shared if world.size == 1 else ()  # else rank 0 writes them, in order
        for source, group in itertools.groupby(results, key=lambda result: result[0].source):
            outcome = outcomes[source]
            with contextlib.ExitStack() as one_source:
                own = closed_by(one_source, source_sinks(outputs, source))
                for frame, people in group:
                    outcome.images += 1
                    outcome.people += len(people.scores)
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
    timing = predictor.timing
    return Summary(
        sum(outcome.images for outcome in everything),
        sum(outcome.people for outcome in everything),
        [outcome.failure for outcome in everything if outcome.failure is not None],
        *world.total([timing.network_seconds, timing.decode_seconds]),
    )


def _without_pixels(frame: Frame, people: People) -> tuple[Frame, People]:
    """What can be kept in memory for all frames of a video."""
    return replace(frame, image=_NO_PIXELS), replace(people, image=None)


def _frames(outcomes: Mapping[Source, _Outcome], stride: int) -> Iterator[Frame]:
    for source, outcome in outcomes.items():
        try:
            if not source.is_video:
                yield Frame(source, source.read_image())
                continue
            with VideoReader(source.path, stride) as video:
                for frame in video:
                    yield Frame(source, frame.image, frame.index, frame.time, video.fps)
        except Exception as error:
            outcome.fail(source, error)


def _frame_count(sources: Sequence[Source], stride: int) -> int | None:
    """How many frames will come, for the progress bar; None if a video does not say."""
    total = sum(not source.is_video for source in sources)
    for source in sources:
        if source.is_video:
            try:
                with VideoReader(source.path, stride) as video:
                    if video.frame_count is None:
                        return None
                    total += video.frame_count
            except Exception:
                pass  # reported when its turn comes
    return total


def _results(
    predictor: "Predictor",
    frames: Iterator[Frame],
    batch_size: int,
    conf: float,
    outcomes: Mapping[Source, _Outcome],
) -> Iterator[tuple[Frame, People]]:
    while batch := list(itertools.islice(frames, batch_size)):
        found = people_or_errors(predictor, [frame.image for frame in batch])
        for frame, people in zip(batch, found, strict=True):
            if isinstance(people, Exception):
                outcomes[frame.source].fail(frame.source, people)
            else:
                yield frame, people[people.scores >= conf]
