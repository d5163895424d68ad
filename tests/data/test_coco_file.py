import json

import numpy as np
import pytest

from coco_sets import PAW, make_set
from dhn.base.errors import DhnError
from dhn.data.coco_file import check_coco, read_coco
from dhn.data.joints import COCO, CROWDPOSE, JointSet, flip_from_names


def test_joints_of_a_custom_category(caplog):
    raw = make_set(joints=PAW, crowd_index=False)
    raw["categories"][0] |= {"skeleton": [[1, 2], [1, 3], [4, 9], [0, 1]], "sigmas": [0.1] * 4}
    file = check_coco(raw, "x.json")
    assert file.scoring == "coco"
    assert file.joints == JointSet(
        "person", PAW.names, ((0, 1), (0, 2)), flip_from_names(PAW.names), (0.1,) * 4
    )
    (warning,) = caplog.messages
    assert warning.startswith("x.json: 2 of 4 limbs dropped")

    del raw["categories"][0]["sigmas"]
    assert check_coco(raw, "x.json").joints.sigmas == PAW.sigmas


def test_crowdpose_skeleton_is_ours_without_a_warning(caplog):
    raw = make_set()
    raw["categories"][0]["skeleton"] = [[16, 14], [17, 15], [6, 8]]
    assert check_coco(raw, "x.json").joints is CROWDPOSE
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("joints", "crowd_index", "scoring"),
    [
        (CROWDPOSE, True, "crowdpose"),
        (CROWDPOSE, False, "crowdpose"),
        (COCO, True, "crowdpose"),
        (COCO, False, "coco"),
    ],
)
def test_whose_scoring(joints, crowd_index, scoring):
    assert check_coco(make_set(joints=joints, crowd_index=crowd_index), "x").scoring == scoring


def test_arrays_are_those_of_the_annotations():
    raw = make_set()
    file = check_coco(raw, "x.json")
    assert file.keypoints.dtype == np.float32
    for annotation, keypoints, box in zip(
        raw["annotations"], file.keypoints, file.boxes, strict=True
    ):
        np.testing.assert_array_equal(keypoints.ravel(), np.float32(annotation["keypoints"]))
        assert box.tolist() == annotation["bbox"]


def test_gaps_are_filled_in_copies():
    raw = make_set(joints=COCO, crowd_index=False)
    for annotation in raw["annotations"]:
        for key in ("area", "num_keypoints", "iscrowd"):
            del annotation[key]
    filled = check_coco(raw, "x.json").raw["annotations"]
    assert "area" not in raw["annotations"][0]
    for annotation in filled:
        _, _, width, height = annotation["bbox"]
        assert annotation["num_keypoints"] == np.count_nonzero(annotation["keypoints"][2::3])
        assert annotation["area"] == pytest.approx(0.53 * width * height)
        assert annotation["iscrowd"] == 0


def test_other_categories_do_not_matter():
    raw = make_set()
    raw["categories"].append({"id": 7, "name": "bag"})
    raw["annotations"].append({"id": 1, "category_id": 7, "image_id": 1})
    file = check_coco(raw, "x.json")
    assert len(file.raw["annotations"]) == len(raw["annotations"]) - 1
    assert [category["id"] for category in file.raw["categories"]] == [1]


def test_no_people_and_no_images():
    file = check_coco(make_set() | {"annotations": [], "images": []}, "x.json")
    assert file.keypoints.shape == (0, 14, 3)
    assert file.boxes.shape == (0, 4)


def refused(raw) -> str:
    with pytest.raises(DhnError, match=r"^x\.json: ") as error:
        check_coco(raw, "x.json")
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("images",), None, "is not a COCO annotation file"),
        (("annotations",), {}, "is not a COCO annotation file"),
        (("categories",), [], "exactly one category"),
        (("categories", 0, "keypoints"), [], "exactly one category"),
        (("categories", 0, "keypoints"), ["a", "a"], "different names"),
        (("categories", 0, "keypoints"), "nose", "different names"),
        (("categories", 0, "id"), 2, "annotation 1: category_id"),
        (("categories", 0, "id"), None, "whole number as id"),
        (("images", 0), 3, "image number 0"),
        (("images", 0, "width"), None, "image 1: width must be"),
        (("images", 0, "height"), 0, "image 1: height must be"),
        (("images", 0, "file_name"), "", "image 1: has no file_name"),
        (("images", 0, "id"), 2, "image 2: appears twice"),
        (("images", 0, "crowdIndex"), "high", "image 1: crowdIndex"),
        (("annotations", 0), None, "annotation number 0"),
        (("annotations", 0, "id"), 2, "annotation 2: appears twice"),
        (("annotations", 0, "image_id"), 99, "annotation 1: image_id"),
        (("annotations", 0, "image_id"), "1", "annotation 1: image_id"),
        (("annotations", 0, "keypoints"), None, "annotation 1: keypoints must be 42"),
        (("annotations", 0, "keypoints"), [1, 2, 2], "annotation 1: keypoints must be 42"),
        (("annotations", 0, "keypoints", 4), float("nan"), "keypoints must be 42 finite"),
        (("annotations", 0, "keypoints", 4), 1e39, "keypoints must be 42 finite"),
        (("annotations", 0, "keypoints", 4), 10**400, "keypoints must be 42 finite"),
        (("annotations", 0, "keypoints", 4), "5", "keypoints must be 42 finite"),
        (("annotations", 0, "keypoints", 4), [5], "keypoints must be 42 finite"),
        (("annotations", 0, "bbox"), None, "annotation 1: bbox must be 4"),
        (("annotations", 0, "bbox"), [0, 0, -1, 5], "annotation 1: bbox has a negative size"),
        (("annotations", 0, "area"), "big", "annotation 1: area"),
        (("annotations", 0, "num_keypoints"), None, "annotation 1: has no num_keypoints"),
    ],
)
def test_malformed_files(where, value, message):
    raw = parent = make_set()
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    assert message in refused(raw)


@pytest.mark.parametrize("raw", [[], {}, None, 5, "text"])
def test_other_json(raw):
    assert "is not a COCO annotation file" in refused(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("skeleton", [[1, 2, 3]]),
        ("skeleton", 5),
        ("skeleton", [["a", "b"]]),
        ("sigmas", [0.1]),
        ("sigmas", [0.1, 0.1, 0.1, 0]),
        ("sigmas", "many"),
    ],
)
def test_malformed_categories(key, value):
    raw = make_set(joints=PAW)
    raw["categories"][0][key] = value
    assert f"the category's {key}" in refused(raw)


def test_file_without_keypoints():
    raw = make_set()
    del raw["categories"][0]["keypoints"]
    assert "exactly one category must have `keypoints`" in refused(raw)


def test_two_categories_with_keypoints():
    raw = make_set()
    raw["categories"].append({"id": 2, "name": "dog", "keypoints": ["tail"]})
    assert "exactly one category must have `keypoints`, not 2" in refused(raw)


@pytest.mark.parametrize("text", ["", "{", "[1,", "\0", "[" * 100_000, "1" * 5000])
def test_not_json(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DhnError, match=r"x\.json: is not JSON") as error:
        read_coco(path)
    assert "\n" not in str(error.value)


def test_read(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(make_set()))
    assert read_coco(tmp_path / "x.json").raw == check_coco(make_set(), "x").raw
    with pytest.raises(DhnError, match=r"y\.json: cannot be read"):
        read_coco(tmp_path / "y.json")
