"""What `dhn data check` doubts in the labels themselves: left and right, and crowd index."""

import json

import numpy as np
import pytest

from coco_sets import standing_set
from dhn.data.check import check_dataset
from dhn.data.joints import CROWDPOSE


def findings_of(tmp_path, raw):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(raw))
    report = check_dataset(path, decode=False)
    return {f.what: f for f in report.findings if f.what != "image is not there"}


@pytest.mark.parametrize("swap", [(0,), (6,), (0, 2, 4), (6, 8, 10)])
def test_swapped_sides_of_one_person(tmp_path, swap):
    raw = standing_set(20, swap=swap)
    (finding,) = findings_of(tmp_path, raw).values()
    assert (finding.level, finding.what) == ("hint", "left and right swapped in a person, perhaps")
    assert all("1.png (id 1): person 1:" in case for case in finding.cases)


@pytest.mark.parametrize("swap", [(), (4,), (10,), range(0, 12, 2)])
def test_crossed_arms_and_legs_and_people_from_behind_are_no_swap(tmp_path, swap):
    assert findings_of(tmp_path, standing_set(20, swap=swap)) == {}


def test_sides_exchanged_throughout(tmp_path):
    raw = standing_set(60)
    assert findings_of(tmp_path, raw) == {}
    for person in raw["annotations"]:
        keypoints = np.reshape(person["keypoints"], (14, 3))
        person["keypoints"] = keypoints[list(CROWDPOSE.flip)].ravel().tolist()
    (finding,) = findings_of(tmp_path, raw).values()
    assert (finding.level, finding.what) == (
        "warning",
        "left and right exchanged throughout, perhaps",
    )


def test_crowd_index_against_the_labels(tmp_path):
    raw = standing_set(8)
    for image in raw["images"]:
        image["crowdIndex"] = 0.0
    assert findings_of(tmp_path, raw) == {}  # one person an image: no crowd
    for image in raw["images"][:3]:
        image["crowdIndex"] = 0.9
    raw["images"][7].pop("crowdIndex")
    found = findings_of(tmp_path, raw)
    assert found["crowdIndex of another level than the labels give"].cases == ["43% of the images"]
    assert len(found["no crowdIndex (in none of AP easy, medium, hard)"].cases) == 1
