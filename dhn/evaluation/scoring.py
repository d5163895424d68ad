"""AP of predicted people, by the official definitions of CrowdPose and COCO.

CrowdPose's own package (crowdposetools) is pycocotools with other constants, a person's area
computed from the box, and three subsets of images by crowdIndex. pycocotools with these settings
gives exactly the same numbers.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError, SettingError
from dhn.base.files import write_json
from dhn.data.coco_file import AREA_OF_BOX, CocoFile, Scoring, check_coco, is_number, numbers
from dhn.data.crowding import CROWD_LEVELS
from dhn.data.joints import CROWDPOSE

_log = logging.getLogger(__name__)

Evaluator = Literal["pycocotools", "faster-coco-eval", "crowdposetools"]

MAX_PEOPLE = 20  # per image, only the predictions with the highest scores count

# In square pixels. COCO annotates no keypoints of small people.
_AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}

_HOW_TO_INSTALL_CROWDPOSETOOLS = (
    "pip install cython matplotlib setuptools wheel && pip install --no-build-isolation "
    "'git+https://github.com/jeffffffli/CrowdPose#subdirectory=crowdpose-api/PythonAPI'"
)


def score(
    annotations: dict[str, Any],
    predictions: list[dict[str, Any]],
    kind: Scoring,
    sigmas: Sequence[float] | None = None,
    evaluator: Evaluator = "pycocotools",
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
        evaluator: the package that matches people and computes AP. `pycocotools` and
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
    truth = check_coco(annotations, names[0])
    first_id = min((person["id"] for person in truth.raw["annotations"]), default=1)
    if first_id <= 0:
        raise DhnError(
            f"{names[0]}: annotation {first_id}: ids must be above 0 to be scored (0 means "
            "unmatched to the COCO tools)"
        )
    results = _checked_results(predictions, truth, names[1])
    if sigmas is not None and len(sigmas) != len(truth.joints):
        raise DhnError(f"{len(sigmas)} sigmas for {len(truth.joints)} joints")
    if evaluator == "crowdposetools":
        return _score_with_crowdposetools(truth, results, kind, sigmas, names[0])

    if kind == "crowdpose":
        for person in truth.raw["annotations"]:
            person["area"] = person["bbox"][3] * person["bbox"][2] * AREA_OF_BOX
    tool = _Tool(evaluator, truth, results, truth.joints.sigmas if sigmas is None else sigmas)
    everyone = sorted(image["id"] for image in truth.raw["images"])
    if kind == "coco":
        return _coco_numbers(*tool.run(everyone, list(_AREAS.values())))
    stats = _main_numbers(*tool.run(everyone, [_AREAS["all"]]))
    crowd = {image["id"]: image.get("crowdIndex") for image in truth.raw["images"]}
    for level, (low, high) in CROWD_LEVELS.items():
        subset = [id for id in everyone if crowd[id] is not None and low <= crowd[id] < high]
        stats[f"AP_{level}"] = _mean(tool.run(subset, [_AREAS["all"]])[0])
    return stats


def _checked_results(
    predictions: list[dict[str, Any]], truth: CocoFile, where: object
) -> list[dict[str, Any]]:
    """Copies of the results, because the COCO tools write into them.

    Each copy gets the `id` that the tools would give it.
    """
    if not isinstance(predictions, list):
        raise DhnError(
            f"{where}: must be a list of results (image_id, category_id, keypoints, score)"
        )
    image_ids = {image["id"] for image in truth.raw["images"]}
    results = []
    for id, prediction in enumerate(predictions, 1):
        if not isinstance(prediction, dict):
            raise DhnError(f"{where}: result {id}: must be an object")
        if type(prediction.get("image_id")) is not int or prediction["image_id"] not in image_ids:
            raise DhnError(f"{where}: result {id}: image_id is not one of the annotations' images")
        if not is_number(prediction.get("score")):
            raise DhnError(f"{where}: result {id}: score must be a finite number")
        results.append({**prediction, "id": id})
    # NaN would count as a match.
    numbers(results, "keypoints", 3 * len(truth.joints), "result", where)
    keys = ["image_id", "category_id", "keypoints", "score"]
    if results and results[0].get("bbox"):
        numbers(results, "bbox", 4, "result", where)
        keys.append("bbox")
    return [{key: result[key] for key in keys} for result in _of_category(results, truth, where)]


def _of_category(
    results: list[dict[str, Any]], truth: CocoFile, where: object
) -> list[dict[str, Any]]:
    """The results of the annotated category.

    The COCO tools leave out all others silently, even if none remains.
    """
    category = truth.raw["categories"][0]["id"]
    kept = [
        result
        for result in results
        if type(result.get("category_id")) is int and result["category_id"] == category
    ]
    if results and not kept:
        raise DhnError(f"{where}: no result has the annotations' category_id {category}")
    if len(kept) < len(results):
        others = len(results) - len(kept)
        _log.warning(
            f"{where}: {others} of {len(results)} results left out, category_id is not {category}"
        )
    return kept


class _Tool:
    """pycocotools, or faster-coco-eval, which has the same interface."""

    def __init__(
        self,
        evaluator: Evaluator,
        truth: CocoFile,
        results: list[dict[str, Any]],
        sigmas: Sequence[float],
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
        self._sigmas = np.array(sigmas)
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
        params.areaRngLbl = list(_AREAS)[: len(areas)]
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
        for a, size in enumerate(_AREAS):
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
