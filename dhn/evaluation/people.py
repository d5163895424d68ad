"""Annotated and predicted people of a data set as arrays, checked and in the order of scoring."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.data.coco_file import AREA_OF_BOX, CocoFile, Scoring, check_coco, is_number, numbers
from dhn.data.joints import JointSet

_log = logging.getLogger(__name__)

MAX_PEOPLE = 20  # per image, only the predictions with the highest scores count

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Truth:
    """The G annotated people of N images, image by image.

    Attributes:
        kind: the official definition of AP that applies.
        joints: what the J keypoints mean.
        sigmas: float64 [J], the OKS constants.
        image_ids: int64 [N], ascending.
        file_names: N names.
        crowd_index: float64 [N], NaN where the file has none.
        image: int64 [G], the index of each person's image, ascending.
        ids: int64 [G], the annotations' ids.
        keypoints: float64 [G, J, 3], x, y in image pixels, and v, above 0 where labelled.
        boxes: float64 [G, 4], x, y, width, height.
        areas: float64 [G], in square pixels, as the definition takes them.
        crowd: bool [G], annotations that stand for a group.
        ignored: bool [G], people who need not be found: crowds, and those without a joint.
        heads: float64 [G], sizes of heads in pixels, NaN where unknown: .6 of the diagonal of
            `bbox_head`, as in MPII and PoseTrack, else the distance from the neck to the head.
    """

    kind: Scoring
    joints: JointSet
    sigmas: Floats
    image_ids: Ints
    file_names: tuple[str, ...]
    crowd_index: Floats
    image: Ints
    ids: Ints
    keypoints: Floats
    boxes: Floats
    areas: Floats
    crowd: Bools
    ignored: Bools
    heads: Floats

    @property
    def labelled(self) -> Bools:
        """bool [G, J], the joints that have a place."""
        return self.keypoints[:, :, 2] > 0


@dataclass(frozen=True, eq=False)
class Found:
    """The D predicted people that count: of each image at most `MAX_PEOPLE`, the best first.

    Attributes:
        image: int64 [D], the index of each person's image, ascending.
        keypoints: float64 [D, J, 2], x, y in image pixels.
        scores: float64 [D], descending within an image.
        areas: float64 [D], by which those that match nobody are medium or large.
        confidence: float64 [D, J], every third number of `keypoints`, whatever it means.
    """

    image: Ints
    keypoints: Floats
    scores: Floats
    areas: Floats
    confidence: Floats

    def where(self, kept: Bools) -> "Found":
        """Those of the people that `kept`, bool [D], says."""
        return self._in_order(np.flatnonzero(kept), self.scores)

    def rescored(self, scores: Floats) -> "Found":
        """The same people with other scores, float64 [D], in the order that these demand."""
        order = np.lexsort((-scores, self.image))
        return self._in_order(order, scores)

    def _in_order(self, order: Ints, scores: Floats) -> "Found":
        return Found(
            self.image[order],
            self.keypoints[order],
            scores[order],
            self.areas[order],
            self.confidence[order],
        )


def truth_of(file: CocoFile, kind: Scoring, sigmas: Sequence[float] | None, where: object) -> Truth:
    """The arrays of a checked annotation file.

    Args:
        file: what `check_coco` returns.
        kind: `crowdpose` takes `AREA_OF_BOX` of the box as a person's area, `coco` takes `area`.
        sigmas: J OKS constants; None takes those of the joint set.
        where: what messages call the annotations.

    Raises:
        DhnError: an id cannot be scored, or there is another number of sigmas.
    """
    people, images = file.raw["annotations"], file.raw["images"]
    first_id = min((person["id"] for person in people), default=1)
    if first_id <= 0:
        raise DhnError(
            f"{where}: annotation {first_id}: ids must be above 0 to be scored (0 means "
            "unmatched to the COCO tools)"
        )
    if sigmas is not None and len(sigmas) != len(file.joints):
        raise DhnError(f"{len(sigmas)} sigmas for {len(file.joints)} joints")
    images = sorted(images, key=lambda image: image["id"])
    image_ids = np.array([image["id"] for image in images], np.int64)
    image = np.searchsorted(image_ids, np.array([p["image_id"] for p in people], np.int64))
    order = np.argsort(image, kind="stable")
    boxes = file.boxes[order]
    areas = np.array([person["area"] for person in people], np.float64)[order]
    crowd = np.array([person["iscrowd"] for person in people], np.bool_)[order]
    counted = np.array([person["num_keypoints"] for person in people], np.int64)[order]
    J = len(file.joints)
    # In the precision of the file: file.keypoints are float32.
    keypoints = numbers(people, "keypoints", 3 * J, "annotation", where).reshape(-1, J, 3)
    return Truth(
        kind=kind,
        joints=file.joints,
        sigmas=np.array(file.joints.sigmas if sigmas is None else sigmas, np.float64),
        image_ids=image_ids,
        file_names=tuple(image["file_name"] for image in images),
        crowd_index=np.array([_or_nan(image.get("crowdIndex")) for image in images], np.float64),
        image=image[order],
        ids=np.array([person["id"] for person in people], np.int64)[order],
        keypoints=keypoints[order],
        boxes=boxes,
        areas=boxes[:, 3] * boxes[:, 2] * AREA_OF_BOX if kind == "crowdpose" else areas,
        crowd=crowd,
        ignored=crowd | (counted == 0),
        heads=_head_sizes(people, keypoints, file.joints, where)[order],
    )


def _head_sizes(
    people: list[dict[str, Any]], keypoints: Floats, joints: JointSet, where: object
) -> Floats:
    """`heads` of a `Truth`, in the order of the file."""
    sizes = np.full(len(people), np.nan)
    names = {name: j for j, name in enumerate(joints.names)}
    head = names.get("head", names.get("head_top"))
    neck = names.get("neck", names.get("upper_neck"))
    if head is not None and neck is not None:
        sizes = np.hypot(*(keypoints[:, head, :2] - keypoints[:, neck, :2]).T)
        sizes[(keypoints[:, [head, neck], 2] <= 0).any(axis=1)] = np.nan
    boxed = [k for k, person in enumerate(people) if person.get("bbox_head")]
    boxes = numbers([people[k] for k in boxed], "bbox_head", 4, "annotation", where)
    sizes[boxed] = 0.6 * np.hypot(boxes[:, 2], boxes[:, 3])
    return np.where(sizes > 0, sizes, np.nan)


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def found_of(results: list[dict[str, Any]], truth: Truth) -> Found:
    """The arrays of results that `checked_results` has checked."""
    ids = np.array([result["image_id"] for result in results], np.int64)
    image = np.searchsorted(truth.image_ids, ids)
    scores = np.array([result["score"] for result in results], np.float64)
    J = len(truth.joints)
    rows = [result["keypoints"] for result in results]
    numbers = np.array(rows, np.float64).reshape(-1, J, 3)
    keypoints, confidence = numbers[:, :, :2], numbers[:, :, 2]
    if results and "bbox" in results[0]:
        boxes = np.array([result["bbox"] for result in results], np.float64)
        areas = boxes[:, 2] * boxes[:, 3]
    else:  # as pycocotools has it: of the box around all joints, also those that were not found
        areas = np.prod(np.ptp(keypoints, axis=1), axis=1)
    order = np.lexsort((-scores, image))
    image = image[order]
    kept = order[_rank(image) < MAX_PEOPLE]
    image = image[_rank(image) < MAX_PEOPLE]
    return Found(image, keypoints[kept], scores[kept], areas[kept], confidence[kept])


def _rank(groups: Ints) -> Ints:
    """The place of each element within its group, from 0; `groups` is ascending."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def checked_results(predictions: Any, truth: CocoFile, where: object) -> list[dict[str, Any]]:
    """Checks COCO results of any system.

    Args:
        predictions: what a file of results holds.
        truth: the annotations that they belong to.
        where: what messages call the predictions.

    Returns:
        Copies with `image_id`, `category_id`, `keypoints`, `score` and, where the first result has
        one, `bbox`. The COCO tools write into them. Results of other categories are left out with
        a warning.

    Raises:
        DhnError: they are malformed (NaN, wrong lengths, unknown ids).
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


def people_of(
    annotations: dict[str, Any],
    predictions: Any,
    kind: Scoring,
    sigmas: Sequence[float] | None = None,
    *,
    names: tuple[object, object] = ("annotations", "predictions"),
) -> tuple[Truth, Found]:
    """Checks annotations and predictions and turns them into arrays.

    Args and errors are those of `dhn.evaluation.scoring.score`.
    """
    file = check_coco(annotations, names[0])
    truth = truth_of(file, kind, sigmas, names[0])
    return truth, found_of(checked_results(predictions, file, names[1]), truth)
