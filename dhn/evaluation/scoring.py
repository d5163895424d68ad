"""AP of predicted people, by the official definitions of CrowdPose and COCO.

CrowdPose's own package (crowdposetools) is pycocotools with other constants, a person's area
computed from the box, and three subsets of images by crowdIndex. pycocotools with these settings
gives exactly the same numbers, and so does the vectorised code of this package (`matching.py`,
`precision.py`), which is the default because it is the fastest.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError, SettingError
from dhn.base.files import write_json
from dhn.data.coco_file import AREA_OF_BOX, CocoFile, Scoring, check_coco
from dhn.data.joints import CROWDPOSE
from dhn.evaluation.figures import AREAS, judge, level_images, plain_figures
from dhn.evaluation.people import MAX_PEOPLE, checked_results, found_of, truth_of

Evaluator = Literal["dhn", "pycocotools", "faster-coco-eval", "crowdposetools"]

_HOW_TO_INSTALL_CROWDPOSETOOLS = (
    "pip install cython matplotlib setuptools wheel && pip install --no-build-isolation "
    "'git+https://github.com/jeffffffli/CrowdPose#subdirectory=crowdpose-api/PythonAPI'"
)


def score(
    annotations: dict[str, Any],
    predictions: list[dict[str, Any]],
    kind: Scoring,
    sigmas: Sequence[float] | None = None,
    evaluator: Evaluator = "dhn",
    *,
    names: tuple[object, object] = ("annotations", "predictions"),
) -> dict[str, float]:
    """Scores predictions against annotations.

    Args:
        annotations: a COCO dictionary (`Annotations.raw`, or a file's JSON). It is not changed.
        predictions: COCO results: `image_id`, `category_id`, `keypoints` (3 J numbers, of which
            every third is ignored) and `score` of each person. If the first result has a `bbox`,
            all must have one: as in pycocotools, unmatched predictions then count as medium or
            large by their boxes. Results of other categories are left out with a warning.
        kind: `crowdpose` takes `AREA_OF_BOX` of the box as a person's area and also scores easy,
            medium and hard images; `coco` takes `area` and also scores medium and large people.
        sigmas: J OKS constants; None takes those of the joint set.
        evaluator: what matches people and computes AP. `dhn`, `pycocotools` and
            `faster-coco-eval` agree to 1e-9. `crowdposetools` is the official CrowdPose package,
            which rounds easy, medium and hard to four decimals.
        names: what messages call the annotations and the predictions, usually file names.

    Returns:
        AP, AP50, AP75, AR, AR50, AR75, then AP_easy, AP_medium, AP_hard (`crowdpose`) or AP_medium,
        AP_large, AR_medium, AR_large (`coco`), each in [0, 1] and unrounded; -1 where no annotated
        person counts.

    Raises:
        DhnError: the input is malformed (NaN, wrong lengths, unknown ids).
        SettingError: the evaluator is not installed.
    """
    file = check_coco(annotations, names[0])
    results = checked_results(predictions, file, names[1])
    truth = truth_of(file, kind, sigmas, names[0])
    if evaluator == "dhn":
        return plain_figures(judge(truth, found_of(results, truth)))
    if evaluator == "crowdposetools":
        return _score_with_crowdposetools(file, results, kind, sigmas, names[0])

    if kind == "crowdpose":
        for person in file.raw["annotations"]:
            person["area"] = person["bbox"][3] * person["bbox"][2] * AREA_OF_BOX
    tool = _Tool(evaluator, file, results, truth.sigmas)
    everyone = truth.image_ids.tolist()
    if kind == "coco":
        return _coco_numbers(*tool.run(everyone, list(AREAS.values())))
    stats = _main_numbers(*tool.run(everyone, [AREAS["all"]]))
    for level, images in level_images(truth).items():
        subset = truth.image_ids[images].tolist()
        stats[f"AP_{level}"] = _mean(tool.run(subset, [AREAS["all"]])[0])
    return stats


class _Tool:
    """pycocotools, or faster-coco-eval, which has the same interface."""

    def __init__(
        self,
        evaluator: Evaluator,
        truth: CocoFile,
        results: list[dict[str, Any]],
        sigmas: npt.NDArray[np.float64],
    ) -> None:
        if evaluator == "faster-coco-eval":
            try:
                from faster_coco_eval import COCO
                from faster_coco_eval import COCOeval_faster as COCOeval
            except ImportError as error:
                raise SettingError(
                    "evaluator", evaluator, "is not installed; pip install faster-coco-eval"
                ) from error
        else:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        with _silence():
            ground_truth = COCO()
            ground_truth.dataset = {"info": {}, **truth.raw}
            ground_truth.createIndex()
            detections = ground_truth.loadRes(results) if results else _nothing(COCO, truth)
            self._eval = COCOeval(ground_truth, detections, "keypoints")
        self._sigmas = sigmas
        self._peopled = {person["image_id"] for person in truth.raw["annotations"]}

    def run(
        self, image_ids: Sequence[int], areas: Sequence[tuple[float, float]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores some of the images.

        Returns:
            precision [10, 101, A] and recall [10, A] at OKS .50, .55 ... .95 for A areas; -1
            where no annotated person counts.
        """
        if self._peopled.isdisjoint(image_ids):  # faster-coco-eval would give empty arrays
            return np.full((10, 101, len(areas)), -1.0), np.full((10, len(areas)), -1.0)
        params = self._eval.params
        params.imgIds = list(image_ids)
        params.kpt_oks_sigmas = self._sigmas
        params.maxDets = [MAX_PEOPLE]
        params.areaRng = [list(area) for area in areas]
        params.areaRngLbl = list(AREAS)[: len(areas)]
        with _silence():
            self._eval.evaluate()
            self._eval.accumulate()
        found = self._eval.eval
        return found["precision"][:, :, 0, :, 0], found["recall"][:, 0, :, 0]


def _main_numbers(
    precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]
) -> dict[str, float]:
    """The figures over people of all sizes (area 0). OKS .50 has index 0, OKS .75 index 5."""
    return {
        "AP": _mean(precision[:, :, 0]),
        "AP50": _mean(precision[0, :, 0]),
        "AP75": _mean(precision[5, :, 0]),
        "AR": _mean(recall[:, 0]),
        "AR50": _mean(recall[0, 0]),
        "AR75": _mean(recall[5, 0]),
    }


def _coco_numbers(
    precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]
) -> dict[str, float]:
    stats = _main_numbers(precision, recall)
    for what, values in (("AP", precision), ("AR", recall)):
        for a, size in enumerate(AREAS):
            if size != "all":
                stats[f"{what}_{size}"] = _mean(values[..., a])
    return stats


def _mean(values: npt.NDArray[np.float64]) -> float:
    # With a single category, either all entries are -1 (there is nobody to find) or none is.
    return float(np.mean(values))


def _nothing(COCO: Any, truth: CocoFile) -> Any:
    """Detections of nobody, for which the COCO tools' own `loadRes([])` raises."""
    detections = COCO()
    detections.dataset = {"info": {}, **truth.raw, "annotations": []}
    detections.createIndex()
    return detections


def _score_with_crowdposetools(
    truth: CocoFile,
    results: list[dict[str, Any]],
    kind: Scoring,
    sigmas: Sequence[float] | None,
    where: object,
) -> dict[str, float]:
    """Scores by the official package, which reads files and has its sigmas and splits built in."""
    if kind != "crowdpose" or truth.joints != CROWDPOSE or sigmas not in (None, CROWDPOSE.sigmas):
        raise DhnError(f"{where}: crowdposetools scores CrowdPose's joints only; use pycocotools")
    if any(image.get("crowdIndex") is None for image in truth.raw["images"]):
        raise DhnError(f"{where}: crowdposetools needs a crowdIndex in every image")
    try:
        from crowdposetools.coco import COCO
        from crowdposetools.cocoeval import COCOeval
    except ImportError as error:
        raise SettingError(
            "evaluator",
            "crowdposetools",
            f"is not installed ({error}); {_HOW_TO_INSTALL_CROWDPOSETOOLS}",
        ) from error
    with tempfile.TemporaryDirectory() as folder, _silence(), _numpy_float():
        annotation_file = Path(folder, "annotations.json")
        result_file = Path(folder, "results.json")
        write_json(annotation_file, truth.raw)
        write_json(result_file, results)
        ground_truth = COCO(str(annotation_file))
        detections = ground_truth.loadRes(str(result_file)) if results else _nothing(COCO, truth)
        evaluation = COCOeval(ground_truth, detections, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        # Only once: after summarize() the object holds the hard images as if they were all.
        evaluation.summarize()
    found = [float(value) for value in evaluation.stats]  # 3 and 4 are not used here
    stats = {"AP": found[0], "AP50": found[1], "AP75": found[2]}
    stats |= {"AR": found[5], "AR50": found[6], "AR75": found[7]}
    return stats | {"AP_easy": found[8], "AP_medium": found[9], "AP_hard": found[10]}


@contextlib.contextmanager
def _numpy_float() -> Iterator[None]:
    """Gives numpy back its `float`, removed in 1.24, for as long as crowdposetools needs it."""
    if hasattr(np, "float"):
        yield
        return
    np.float = float  # type: ignore[attr-defined] # noqa: NPY001
    try:
        yield
    finally:
        del np.float  # type: ignore[attr-defined] # noqa: NPY001


def _silence() -> contextlib.AbstractContextManager[Any]:
    """Keeps what the COCO tools print off standard output, which is for results."""
    return contextlib.redirect_stdout(io.StringIO())
