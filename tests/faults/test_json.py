"""Annotations and results that are not what they should be: one line that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_runs import TINY

TRUTH = "crowds/json/crowdpose_train.json"
Change = Callable[[dict[str, Any]], Any]


def first(kind: str, **values: Any) -> Change:
    """Sets values of the first image, annotation or category."""
    return lambda truth: truth[kind][0].update(values)


def replaced(key: str, value: Any) -> Change:
    return lambda truth: truth.update({key: value})


TRUTHS: dict[str, Change] = {
    "no images": lambda truth: truth.pop("images"),
    "no categories": lambda truth: truth.pop("categories"),
    "images as a number": replaced("images", 3),
    "images as text": replaced("images", "abc"),
    "images of numbers": replaced("images", [1, 2]),
    "annotations as a dict": replaced("annotations", {"a": 1}),
    "annotations of null": replaced("annotations", [None]),
    "categories as null": replaced("categories", None),
    "two of an image": lambda truth: truth["images"].append(truth["images"][0]),
    "an id as text": first("images", id="one"),
    "an id as a list": first("images", id=[1]),
    "no id": lambda truth: truth["images"][0].pop("id"),
    "a size as text": first("images", width="wide"),
    "a negative size": first("images", height=-5),
    "an endless size": first("images", height=1e999),
    "a name as a number": first("images", file_name=3),
    "a name outside": first("images", file_name="../../etc/passwd"),
    "an absolute name": first("images", file_name="/etc/passwd"),
    "a name with NUL": first("images", file_name="a\0.jpg"),
    "keypoints as text": first("annotations", keypoints="abc"),
    "too few keypoints": first("annotations", keypoints=[1, 2, 2]),
    "keypoints of text": first("annotations", keypoints=["a"] * 42),
    "nested keypoints": first("annotations", keypoints=[[1, 2, 2]] * 14),
    "keypoints that are NaN": first("annotations", keypoints=[float("nan")] * 42),
    "a huge keypoint": first("annotations", keypoints=[1e300] * 42),
    "an image of null": first("annotations", image_id=None),
    "joints as a number": first("categories", keypoints=14),
    "joints of numbers": first("categories", keypoints=[1] * 14),
    "joints of one name": first("categories", keypoints=["head"] * 14),
    "no joints": first("categories", keypoints=[]),
}
USES = [
    ("data", "check", TRUTH),
    ("bench", "--annotations", TRUTH, "--seconds", "0", "--device", "cpu"),
    ("eval", "--results", "results.json", "--annotations", TRUTH),
    ("compare", "results.json", "results.json", "--annotations", TRUTH),
    ("train", "--output", "new", *TINY, f"data.dataset={TRUTH}", "data.hold_out=0.3"),
]


@pytest.mark.parametrize("name", TRUTHS)
def test_annotations(world: Path, refused, name: str) -> None:
    whole = Path(TRUTH).read_text()
    truth = json.loads(whole)
    TRUTHS[name](truth)
    Path(TRUTH).write_text(json.dumps(truth))
    for command in USES:
        refused(1, "crowdpose_train.json")(*command)


FOUND = {"image_id": 1, "category_id": 1, "score": 0.5, "keypoints": [1.0, 1.0, 1.0] * 14}
RESULTS: dict[str, Any] = {
    "a dict": {"a": 1},
    "a number": 3,
    "null": None,
    "numbers": [1, 2],
    "lists": [[1, 2]],
    "no image": [{key: value for key, value in FOUND.items() if key != "image_id"}],
    "no keypoints": [{key: value for key, value in FOUND.items() if key != "keypoints"}],
    "no score": [{key: value for key, value in FOUND.items() if key != "score"}],
    "an image as text": [FOUND | {"image_id": "one"}],
    "an image that is not there": [FOUND | {"image_id": 10**9}],
    "a score as text": [FOUND | {"score": "high"}],
    "a score that is NaN": [FOUND | {"score": float("nan")}],
    "a score without end": [FOUND | {"score": float("inf")}],
    "keypoints as text": [FOUND | {"keypoints": "abc"}],
    "too few keypoints": [FOUND | {"keypoints": [1, 2, 3]}],
    "too many keypoints": [FOUND | {"keypoints": [1, 2, 3] * 17}],
    "keypoints that are NaN": [FOUND | {"keypoints": [float("nan")] * 42}],
    "keypoints of null": [FOUND | {"keypoints": [None] * 42}],
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(world: Path, refused, name: str) -> None:
    Path("other.json").write_text(json.dumps(RESULTS[name]))
    refused(1, "other.json")("eval", "--results", "other.json", "--annotations", TRUTH)
    files = ("results.json", "other.json")
    refused(1, "other.json")("compare", *files, "--annotations", TRUTH)
