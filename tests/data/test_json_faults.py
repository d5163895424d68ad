"""Annotation files with every kind of fault: they load, or one line names the file and record."""

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import PAW, make_set, write_images
from dhn.base.errors import DhnError
from dhn.base.limits import MAX_SIDE
from dhn.cli import main
from dhn.data.annotations import load_annotations
from dhn.data.check import check_dataset
from dhn.data.coco_file import check_coco
from dhn.data.dataset import PoseDataset
from dhn.data.masks import ignore_mask


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def with_masks():
    raw = make_set(3, joints=PAW, crowd_index=True)
    raw["categories"][0] |= {"skeleton": [[1, 2], [1, 3]], "sigmas": [0.1] * 4}
    polygon = [[1, 1, 40, 1, 40, 30, 1, 30]]
    raw["annotations"][0] |= {"segmentation": polygon, "iscrowd": 1}
    runs = {"size": [120, 160], "counts": [0, 19200]}
    raw["annotations"][1] |= {"segmentation": runs, "iscrowd": 1}
    return raw


def placed(raw, where, value):
    """The dictionary with `value` at the place `where`; the whole is replaced at the place ()."""
    if not where:
        return value
    parent = raw
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    return raw


def places(value, path=()):
    """Every place of a JSON value, down to where a sound file ends."""
    yield path
    if isinstance(value, dict | list) and len(path) < 6:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in list(children):
            yield from places(child, (*path, key))


def refused(raw) -> str:
    with pytest.raises(DhnError, match=r"^x\.json: ") as error:
        check_coco(raw, "x.json")
    message = str(error.value)
    assert message.isprintable()
    return message


def loaded_or_one_line(load, file):
    """What `load` returns; None where it refuses `file` in one line."""
    try:
        return load()
    except DhnError as error:
        message = str(error)
    assert message.startswith(f"{file}: ")
    assert message.isprintable()
    return None


BAD_NAMES = [
    "a\0b.png",
    "\ud800.png",
    "a\nb.png",
    "a\u2028b.png",
    "../../etc/passwd",
    "a/../../b.png",
    "..\\b.png",
    "/etc/passwd",
    "\\\\host\\b.png",
    "C:\\b.png",
    "x" * 256,
    "/".join(["x" * 200] * 30),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_file_names_that_leave_the_folder_or_cannot_be(name):
    raw = placed(with_masks(), ("images", 1, "file_name"), name)
    assert "x.json: image 2: file_name " in refused(raw)


@pytest.mark.parametrize(
    "name", ["a b.png", "dir/a.png", "..a.png", "ü.png", "図.png", "a\u202f1.png"]
)
def test_file_names_that_can_be(name):
    check_coco(placed(with_masks(), ("images", 1, "file_name"), name), "x.json")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("categories", 0, "name"), "a\0", "category 1: name must be a text"),
        (("categories", 0, "name"), "\ud800", "category 1: name must be a text"),
        (("categories", 0, "name"), ["cat"], "category 1: name must be a text"),
        (("categories", 0, "keypoints", 0), "\ud800", "different names"),
        (("categories", 0, "keypoints", 0), "a\nb", "different names"),
        (("categories", 0, "sigmas", 0), 10**400, "sigmas must be 4 positive numbers"),
        (("categories", 0, "id"), 1.0, "whole number as id"),
        (("images",), {"1": {}}, "with lists of images"),
        (("annotations",), "many", "with lists of images"),
        (("images", 0, "id"), "1", "image number 0"),
        (("images", 0, "id"), 10**400, "image number 0"),
        (("images", 0, "id"), True, "image number 0"),
        (("images", 0, "width"), "160", "image 1: width"),
        (("images", 0, "width"), 160.5, "image 1: width"),
        (("images", 0, "height"), MAX_SIDE + 1, "image 1: height"),
        (("images", 0, "crowdIndex"), float("nan"), "image 1: crowdIndex"),
        (("annotations", 0, "id"), 2**60, "annotation number 0"),
        (("annotations", 0, "bbox", 2), "5", "annotation 1: bbox must be 4"),
        (("annotations", 0, "bbox", 2), float("inf"), "annotation 1: bbox must be 4"),
        (("annotations", 0, "bbox", 2), 1e300, "annotation 1: bbox must be 4"),
        (("annotations", 0, "area"), float("nan"), "annotation 1: area"),
        (("annotations", 0, "iscrowd"), "0", "annotation 1: iscrowd must be 0 or 1"),
        (("annotations", 0, "iscrowd"), 5, "annotation 1: iscrowd must be 0 or 1"),
        (("annotations", 0, "num_keypoints"), 10**400, "annotation 1: has no num_keypoints"),
        (("annotations", 0, "num_keypoints"), "3", "annotation 1: has no num_keypoints"),
        (("annotations", 0, "keypoints", 0), nested(80), "annotation 1: keypoints must be 12"),
        (("annotations", 0, "keypoints"), [0] * 11, "annotation 1: keypoints must be 12"),
    ],
)
def test_values_that_cannot_be(where, value, message):
    assert message in refused(placed(with_masks(), where, value))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[float("inf")] * 6],
        [[10**400] * 6],
        [["1", "1", "40", "x", "40", "30"]],
        [[[1, 1], [2, 2], [3, 3]] * 2],
        [[nested(80)] * 6],
        {"size": "120\n160", "counts": "x"},
        {"size": [160, 120], "counts": [19200]},
        {"size": [120, 160], "counts": [10**400]},
        {"size": [120, 160], "counts": [-1, 19201]},
        {"size": [120, 160], "counts": ["19200"]},
        {"size": [120, 160], "counts": "\ud800"},
        {"size": [120, 160], "counts": "\0"},
        {"size": [120, 160], "counts": "~~~~~~~~"},
        {"size": nested(900), "counts": "x"},
        {"size": [120, 160]},
        "polygon",
        7,
    ],
)
def test_segmentations_that_cannot_be_are_one_finding(tmp_path, segmentation):
    raw = placed(with_masks(), ("annotations", 0, "segmentation"), segmentation)
    (tmp_path / "x.json").write_text(json.dumps(raw))
    write_images(tmp_path, raw)
    report = check_dataset(tmp_path / "x.json")
    (finding,) = [finding for finding in report.findings if finding.level == "error"]
    (case,) = finding.cases
    assert "1.png" in case
    assert "segmentation of annotation 1 is malformed" in case
    assert case.isprintable()


NASTY = st.one_of(
    st.sampled_from(
        [
            *BAD_NAMES,
            *(float("nan"), float("inf"), -float("inf"), 1e308, -1e38, 1e30, 5e-324, 10**400),
            *(-1, 0, 1, 2**31, 2**53, 2**63, 2**64, True, False, None, "", "1", "nan", [], {}),
            *([[]], {"id": 1}, [None], nested(80), nested(900), [0] * 12, ["0"] * 12, [1e38] * 4),
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=5),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_images(folder, with_masks())
    return folder


@settings(max_examples=150)
@given(data=st.data())
def test_up_to_three_faults_are_one_line_or_load(images, data):
    raw = with_masks()
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(list(places(raw))))
        value = copy.copy(data.draw(NASTY))
        if where and data.draw(st.booleans()) and data.draw(st.booleans()):
            parent = raw
            for key in where[:-1]:
                parent = parent[key]
            del parent[where[-1]]
        else:
            raw = placed(raw, where, value)
        if not isinstance(raw, dict | list):
            break
    path = images / "x.json"
    path.write_text(json.dumps(raw))
    annotations = loaded_or_one_line(lambda: load_annotations(path), path)
    if annotations is None:
        return
    dataset = PoseDataset(annotations, input_size=64, augmentation=None)
    for image in annotations.images:
        assert image.path.is_relative_to(images)
        assert all(np.isfinite(person.keypoints).all() for person in image.people)
        loaded_or_one_line(lambda image=image: ignore_mask(image), image.path)
    for index, image in enumerate(dataset.images):
        sample = loaded_or_one_line(lambda index=index: dataset.sample(0, index), image.path)
        assert sample is None or np.isfinite(sample.keypoints).all()
    json.dumps(check_dataset(path).as_json(), allow_nan=False).encode()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("images", 1, "file_name"), "../../etc/passwd"),
        (("images", 1, "file_name"), "\ud800"),
        (("categories", 0, "name"), "\0"),
        (("annotations", 0, "keypoints", 0), "5"),
        (("annotations",), nested(900)),
    ],
)
def test_the_command_ends_in_one_line(tmp_path, where, value):
    (tmp_path / "x.json").write_text(json.dumps(placed(with_masks(), where, value)))
    result = CliRunner().invoke(main, ["data", "check", str(tmp_path / "x.json")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "annotations cannot be used" in " ".join(result.output.split())
    assert "1 error to fix before training" in result.output


def test_images_larger_than_the_limit_are_errors(tmp_path, monkeypatch):
    raw = with_masks()
    (tmp_path / "x.json").write_text(json.dumps(raw))
    write_images(tmp_path, raw)
    assert not [f for f in check_dataset(tmp_path / "x.json").findings if f.level == "error"]
    monkeypatch.setattr("dhn.media.images.MAX_SIDE", 159)
    report = check_dataset(tmp_path / "x.json")
    (finding,) = [finding for finding in report.findings if finding.level == "error"]
    assert len(finding.cases) == 3
    assert all("pixels or a side of more than 159" in case for case in finding.cases)
