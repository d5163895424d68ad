"""Scores a network on a data set, or a file of predictions from any system."""

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.base.distributed import ALONE, World
from dhn.base.errors import DhnError, failure
from dhn.base.files import read_json, write_json
from dhn.base.pipeline import Pipeline
from dhn.base.progress import Progress, silent
from dhn.data.annotations import AnnotatedImage, Annotations, load_annotations
from dhn.data.coco_file import Scoring, check_coco
from dhn.data.joints import DEFAULT_SIGMA, JointSet
from dhn.evaluation.figures import Judged, judge, plain_figures
from dhn.evaluation.people import checked_results, found_of, people_of, truth_of
from dhn.evaluation.scoring import Evaluator, score
from dhn.inference.batches import predicted

if TYPE_CHECKING:
    from dhn.inference.predictor import Predictor


class TimePerImage(NamedTuple):
    """Mean seconds that an image took.

    Attributes:
        network: placing the image, the network with its flip test, aggregation.
        decode: from the aggregated maps to people.
    """

    network: float
    decode: float


@dataclass(frozen=True)
class Evaluation:
    """How predictions score on annotations.

    Attributes:
        predictions: where the predictions came from: weights or a file.
        annotations: where the annotations came from.
        images: how many images are annotated.
        people: how many people are annotated in them, crowds included.
        stats: what `dhn.evaluation.scoring.score` returns: AP and the like in [0, 1], unrounded.
        failures: one line for each image that could not be read. Such images were scored as if
            nobody had been found in them.
        judged: the matched people, from which intervals, errors and reports are computed.
        paths: the file of each image, by id; it need not exist.
        time: what a network needed; None where predictions were read from a file, or where no
            image could be read.
    """

    predictions: str
    annotations: str
    images: int
    people: int
    stats: dict[str, float]
    judged: Judged
    paths: dict[int, Path]
    failures: tuple[str, ...] = ()
    time: TimePerImage | None = None


def evaluate(
    predictor: "Predictor",
    annotations: Annotations,
    *,
    batch_size: int = 1,
    evaluator: Evaluator = "dhn",
    save_json: Path | None = None,
    progress: Progress = silent,
    world: World = ALONE,
) -> Evaluation | None:
    """Predicts every image and scores the people.

    Args:
        predictor: the network; its joints must be those of the annotations.
        annotations: the images and the people to find.
        batch_size: how many images are predicted at a time.
        evaluator: what matches people and computes AP, see `score`.
        save_json: file for the predictions, in COCO's format of results. It is written before
            the people are scored.
        progress: shows how many images are done.
        world: the processes that share the images; rank 0 scores and writes.

    Returns:
        The figures; None in all ranks but 0.

    Raises:
        DhnError: the network predicts other joints, none of the images exists, the evaluator is
            not installed, or the file cannot be written.
    """
    results, failures = predict_dataset(
        predictor, annotations, batch_size=batch_size, progress=progress, world=world
    )
    timing = predictor.timing
    predicted, network_seconds, decode_seconds = world.total(
        [timing.images, timing.network_seconds, timing.decode_seconds]
    )
    if not world.main:
        return None
    if save_json is not None:
        write_json(save_json, results)
    stats, judged = _scored(
        annotations.raw,
        results,
        annotations.scoring,
        scoring_sigmas(predictor.joints, annotations.joints),
        evaluator,
        names=(annotations.source, f"predictions of {predictor.source}"),
    )
    time = None
    if predicted:
        time = TimePerImage(network_seconds / predicted, decode_seconds / predicted)
    return Evaluation(
        predictions=predictor.source,
        annotations=annotations.source,
        images=len(annotations.images),
        people=_count_people(annotations),
        stats=stats,
        judged=judged,
        paths={image.id: image.path for image in annotations.images},
        failures=tuple(failures),
        time=time,
    )


def scoring_sigmas(predicted: JointSet, annotated: JointSet) -> tuple[float, ...]:
    """The data set's OKS constants; where it has none, those that the network was trained with."""
    given = set(annotated.sigmas) != {DEFAULT_SIGMA}
    return annotated.sigmas if given else predicted.sigmas


def score_file(
    results: Path,
    annotations: Path,
    *,
    scoring: Scoring | None = None,
    evaluator: Evaluator = "dhn",
    exclude: Set[int] = frozenset(),
) -> Evaluation:
    """Scores a file of COCO results by any system; needs no torch.

    Args:
        results: the predictions, as `score` takes them.
        annotations: a file in COCO's keypoint format.
        scoring: whose definition of AP applies; None takes the one that the annotations suggest.
        evaluator: what matches people and computes AP, see `score`.
        exclude: ids of images to leave out, with their predictions.

    Raises:
        DhnError: a file is missing or malformed, or the evaluator is not installed.
    """
    truth = load_annotations(annotations).without(exclude)
    stats, judged = _scored(
        truth.raw,
        _without(read_json(results), exclude),
        scoring or truth.scoring,
        None,
        evaluator,
        names=(annotations, results),
    )
    return Evaluation(
        predictions=str(results),
        annotations=truth.source,
        images=len(truth.images),
        people=_count_people(truth),
        stats=stats,
        judged=judged,
        paths={image.id: image.path for image in truth.images},
    )


def judge_files(
    results: Sequence[Path],
    annotations: Path,
    *,
    scoring: Scoring | None = None,
    exclude: Set[int] = frozenset(),
) -> list[Judged]:
    """Matches the people of several files of COCO results to the same annotations.

    Args and errors are those of `score_file`.
    """
    truth = load_annotations(annotations).without(exclude)
    kind = scoring or truth.scoring
    file = check_coco(truth.raw, annotations)
    people = truth_of(file, kind, None, annotations)
    found = [checked_results(_without(read_json(path), exclude), file, path) for path in results]
    return [judge(people, found_of(each, people)) for each in found]


def _without(predictions: Any, exclude: Set[int]) -> Any:
    """The predictions of all other images; what is malformed stays, for the checks that follow."""
    if not isinstance(predictions, list) or not exclude:
        return predictions
    return [p for p in predictions if not (isinstance(p, dict) and p.get("image_id") in exclude)]


def _scored(
    annotations: dict[str, Any],
    predictions: Any,
    kind: Scoring,
    sigmas: Sequence[float] | None,
    evaluator: Evaluator,
    *,
    names: tuple[object, object],
) -> tuple[dict[str, float], Judged]:
    """The figures by the evaluator, and the people as dhn matches them."""
    if evaluator != "dhn":
        stats = score(annotations, predictions, kind, sigmas, evaluator, names=names)
    judged = judge(*people_of(annotations, predictions, kind, sigmas, names=names))
    return (plain_figures(judged) if evaluator == "dhn" else stats), judged


def predict_dataset(
    predictor: "Predictor",
    annotations: Annotations,
    *,
    batch_size: int = 1,
    progress: Progress = silent,
    world: World = ALONE,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predicts the people of every image.

    The ranks of `world` share the batches. The batches are those that a single process would
    make, so the results are the same and in the same order.

    Returns:
        COCO results, which `score` takes (a person's score as predicted, a joint's score as every
        third number of `keypoints`), and one line for each image that could not be read. Both are
        empty in all ranks but 0.

    Raises:
        DhnError: the network predicts other joints, or none of the images exists.
    """
    joints, wanted = predictor.joints, annotations.joints
    if joints.names != wanted.names:
        raise DhnError(
            f"{predictor.source}: predicts the {len(joints)} joints of {joints.name}, but "
            f"{annotations.source} has the {len(wanted)} of {wanted.name}; take other weights"
        )
    images = annotations.images
    if images and not any(image.path.is_file() for image in images):
        raise DhnError(f"{images[0].path.parent}: none of the {len(images)} images is here")
    batches = [images[k : k + batch_size] for k in range(0, len(images), batch_size)]
    share = [image for batch in world.share(batches) for image in batch]
    done: list[list[dict[str, Any]] | str] = []  # the results of an image, or why there are none
    bar = (progress if world.main else silent)("Predicting", len(share))
    with bar, Pipeline() as pipeline:
        read = pipeline.stage("read", _read(share))
        for image, people in predicted(pipeline, predictor, read, batch_size):
            if isinstance(people, Exception):
                done.append(failure(image.path, people))
            else:
                done.append(people.to_coco(image.id, annotations.category_id))
            bar.advance()
    by_batch = [done[k : k + batch_size] for k in range(0, len(done), batch_size)]
    everything = itertools.chain(*world.collect(by_batch))
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    for outcome in everything:
        if isinstance(outcome, str):
            failures.append(outcome)
        else:
            results += outcome
    return results, failures


def _read(
    images: Sequence[AnnotatedImage],
) -> Iterator[tuple[AnnotatedImage, npt.NDArray[np.uint8] | Exception]]:
    """Each image with its pixels, or why there are none."""
    from dhn.media.images import read_image

    for image in images:
        try:
            # Annotations count stored pixels, whatever the EXIF orientation says.
            yield image, read_image(image.path, ignore_orientation=True)
        except Exception as error:
            yield image, error


def _count_people(annotations: Annotations) -> int:
    return sum(len(image.people) for image in annotations.images)
