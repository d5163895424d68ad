import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import coco as pycoco
from pycocotools import mask as masks

from coco_sets import PAW, make_set
from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.joints import COCO, CROWDPOSE
from dhn.data.masks import _runs, ignore_mask


def write(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def renumbered(raw, images: int, annotations: int):
    """Other ids, as another split has them."""
    raw = copy.deepcopy(raw)
    for image in raw["images"]:
        image["id"] += images
    for annotation in raw["annotations"]:
        annotation["image_id"] += images
        annotation["id"] += annotations
    return raw


def test_crowdpose_layout(tmp_path):
    raw = make_set()
    write(tmp_path / "json/crowdpose_val.json", raw)
    annotations = load_annotations(tmp_path, "val")
    assert annotations.joints is CROWDPOSE
    assert annotations.scoring == "crowdpose"
    assert annotations.source == tmp_path.name
    assert [p.path for p in annotations.images] == [
        tmp_path / "images" / f"{i}.png" for i in range(1, 7)
    ]
    people = {person.id: person for p in annotations.images for person in p.people}
    assert len(people) == len(raw["annotations"])
    for wanted in raw["annotations"]:
        person = people[wanted["id"]]
        assert person.keypoints.dtype == np.float32
        np.testing.assert_array_equal(
            person.keypoints, np.float32(wanted["keypoints"]).reshape(14, 3)
        )
        assert person.box == tuple(wanted["bbox"])
        assert person.iscrowd == bool(wanted["iscrowd"])
        assert (person.area, person.num_keypoints) == (wanted["area"], wanted["num_keypoints"])


@pytest.mark.parametrize("folder", ["images/val2017", "val2017", "images"])
def test_coco_layout(tmp_path, folder):
    raw = make_set(joints=COCO, crowd_index=False)
    write(tmp_path / "annotations/person_keypoints_val2017.json", raw)
    write(tmp_path / "annotations/captions_val2017.json", {})
    (tmp_path / folder).mkdir(parents=True)
    for dataset in (tmp_path, tmp_path / "annotations/person_keypoints_val2017.json"):
        annotations = load_annotations(dataset, "val")
        assert annotations.joints is COCO
        assert annotations.scoring == "coco"
        assert annotations.images[0].path == tmp_path / folder / "1.png"


def test_default_folders_are_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data/crowdpose/json/crowdpose_test.json", make_set())
    assert load_annotations("crowdpose").source == "crowdpose"


def test_any_folder_and_any_file(tmp_path):
    write(tmp_path / "annotations/cats-train.json", make_set(joints=PAW, crowd_index=False))
    write(tmp_path / "annotations/cats-trainval.json", make_set(2))
    annotations = load_annotations(tmp_path, "train")
    assert annotations.joints.names == PAW.names
    assert len(load_annotations(tmp_path, "trainval").images) == 2
    loose = write(tmp_path / "loose/x.json", make_set())
    (tmp_path / "loose/1.png").touch()
    assert load_annotations(loose).images[0].path == tmp_path / "loose/1.png"
    write(tmp_path / "annotations/dogs-train.json", {})
    with pytest.raises(DhnError, match=r"several files.*cats-train\.json, dogs-train\.json"):
        load_annotations(tmp_path, "train")


@pytest.mark.parametrize("offset", [0, 1000])
def test_trainval_is_merged(tmp_path, offset):
    train = make_set(4, seed=1)
    val = renumbered(make_set(3, seed=2), 100, offset)
    write(tmp_path / "json/crowdpose_train.json", train)
    write(tmp_path / "json/crowdpose_val.json", val)
    merged = load_annotations(tmp_path, "trainval")
    assert [p.id for p in merged.images] == [1, 2, 3, 4, 101, 102, 103]
    records = merged.raw["annotations"]
    assert len({r["id"] for r in records}) == len(records) > 0
    assert min(r["id"] for r in records) > 0
    by_id = {r["id"]: r for r in records}
    for image in merged.images:
        for person in image.people:
            np.testing.assert_array_equal(
                person.keypoints.ravel(), np.float32(by_id[person.id]["keypoints"])
            )
            assert by_id[person.id]["image_id"] == image.id


def test_trainval_of_the_same_images_is_refused(tmp_path):
    write(tmp_path / "json/crowdpose_train.json", make_set())
    write(tmp_path / "json/crowdpose_val.json", renumbered(make_set(), 0, 1000))
    with pytest.raises(
        DhnError, match=r"crowdpose_val\.json: image 1: is also in .*crowdpose_train"
    ):
        load_annotations(tmp_path, "trainval")


def test_trainval_of_different_joints_is_refused(tmp_path):
    write(tmp_path / "annotations/a_train.json", make_set())
    write(tmp_path / "annotations/a_val.json", renumbered(make_set(joints=COCO), 50, 1000))
    with pytest.raises(DhnError, match=r"a_val\.json: its categories differ"):
        load_annotations(tmp_path, "trainval")


def test_first_images(tmp_path):
    annotations = load_annotations(write(tmp_path / "x.json", make_set())).first(2)
    assert [p.id for p in annotations.images] == [1, 2]
    assert [image["id"] for image in annotations.raw["images"]] == [1, 2]
    assert {a["image_id"] for a in annotations.raw["annotations"]} <= {1, 2}
    people = sum(len(p.people) for p in annotations.images)
    assert len(annotations.raw["annotations"]) == people > 0


def test_real_files(shared):
    data = shared / "data"
    mini = load_annotations(data / "coco_mini", "train")
    assert mini.joints is COCO
    assert mini.scoring == "coco"
    assert (len(mini.images), sum(len(p.people) for p in mini.images)) == (44, 172)
    assert all(p.path.is_file() for p in mini.images)
    crowd = load_annotations(data / "crowdpose", "val")
    assert crowd.joints is CROWDPOSE
    assert crowd.scoring == "crowdpose"
    assert (len(crowd.images), sum(len(p.people) for p in crowd.images)) == (2000, 8527)
    assert crowd.images[0].crowd_index == 0.76
    for sample in ("crowdpose_sample", "coco_sample"):
        assert all(p.path.is_file() for p in load_annotations(data / sample, "test").images)


# Masks


def masked_set(tmp_path, *segmentations, iscrowd=0, labelled=False):
    """One image of 7 x 5 pixels with one person per segmentation."""
    raw = make_set(1, COCO, crowd_index=False)
    raw["images"][0] |= {"width": 7, "height": 5}
    template = raw["annotations"][0]
    raw["annotations"] = [
        template
        | {"id": i, "segmentation": segmentation, "iscrowd": iscrowd}
        | ({} if labelled else {"keypoints": [0] * 51, "num_keypoints": 0})
        for i, segmentation in enumerate(segmentations, 1)
    ]
    return load_annotations(write(tmp_path / "x.json", raw)).images[0]


RECTANGLE = [[1, 1, 4, 1, 4, 3, 1, 3]]


def test_mask_of_polygons_and_runs(tmp_path):
    crowd = np.zeros((5, 7), np.uint8)
    crowd[2:, 5:] = 1
    runs = {"size": [5, 7], "counts": [27, 3, 2, 3]}  # column by column
    string = masks.encode(np.asfortranarray(crowd))
    string["counts"] = string["counts"].decode()
    expected = np.ones((5, 7), np.uint8)
    expected[1:3, 1:4] = 0
    expected[2:, 5:] = 0
    for segmentation in (runs, string):
        mask = ignore_mask(masked_set(tmp_path, RECTANGLE, segmentation))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected)


def test_mask_only_of_crowds_and_unlabelled_people(tmp_path):
    assert ignore_mask(masked_set(tmp_path, RECTANGLE, labelled=True)) is None
    assert ignore_mask(masked_set(tmp_path, None, [])) is None
    assert ignore_mask(masked_set(tmp_path, RECTANGLE, labelled=True, iscrowd=1)).sum() == 35 - 6


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 400), st.floats(0, 1))
def test_runs_in_a_string_equal_the_official_decoder(seed, height, width, share):
    noise = np.random.default_rng(seed).random((height, width)) < share
    string = masks.encode(np.asfortranarray(noise, np.uint8))["counts"].decode()
    runs = _runs(string)
    assert sum(runs) == height * width
    flat = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    np.testing.assert_array_equal(flat, noise)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [5, 7], "counts": [27, 3]},
        {"size": [7, 5], "counts": [35]},
        {"size": [5, 7], "counts": [-5, 40]},
        {"size": [5], "counts": [35]},
        {"counts": [35]},
        {"size": [5, 7], "counts": None},
        [["a", 1, 2, 3, 4, 5]],
        [[1, 1, 4, 1, 1e9, 3]],
        [[1, 1, 4, 1, float("nan"), 3]],
        [5],
        "abc",
    ],
)
def test_malformed_segmentation(tmp_path, segmentation):
    with pytest.raises(DhnError, match=r"1\.png: segmentation of annotation 1 ") as error:
        ignore_mask(masked_set(tmp_path, segmentation))
    assert "\n" not in str(error.value)


def test_masks_of_real_images_equal_the_official_decoder(shared):
    folder = shared / "data/coco_mini"
    official = pycoco.COCO(folder / "annotations/person_keypoints_train2017.json")
    masked = 0
    for image in load_annotations(folder, "train").images:
        expected = np.zeros((image.height, image.width), bool)
        for annotation in official.imgToAnns[image.id]:
            if annotation["iscrowd"] or not any(annotation["keypoints"][2::3]):
                expected |= official.annToMask(annotation) > 0
        mask = ignore_mask(image)
        masked += mask is not None
        np.testing.assert_array_equal(expected, 0 if mask is None else mask == 0)
    assert masked == 20


# Refusals


def refused(path: Path, split: str = "test") -> str:
    with pytest.raises(DhnError) as error:
        load_annotations(path, split)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("dataset", "address"),
    [("crowdpose", "https://github.com/jeffffffli/CrowdPose"), ("coco", "https://cocodataset.org")],
)
def test_missing_data_says_where_it_comes_from(tmp_path, monkeypatch, dataset, address):
    monkeypatch.chdir(tmp_path)
    message = refused(dataset)
    assert address in message
    assert "the preset `demo` needs no data" in message
    assert f"data/{dataset}" in message


def test_missing_folder_and_split(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "no annotations of split val" in refused(tmp_path, "val")
    write(tmp_path / "json/crowdpose_val.json", make_set())
    problem = f"{tmp_path} has no such split; it has val"
    assert refused(tmp_path) == f"split test: {problem}"
    assert refused(tmp_path, "trainval") == f"split trainval: {problem}"
    assert refused(tmp_path, "tset").startswith("split tset: must be one of train, ")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def slots(value, path=()):
    """Every place of a JSON value."""
    yield path
    if isinstance(value, dict):
        children = list(value.items())
    else:
        children = list(enumerate(value)) if isinstance(value, list) else []
    for key, child in children:
        yield from slots(child, (*path, key))


@settings(max_examples=200)
@given(data=st.data(), junk=JUNK, remove=st.booleans())
def test_junk_anywhere_is_one_line_or_loads(tmp_path_factory, data, junk, remove):
    raw = make_set(2)
    raw["annotations"][0] |= {"segmentation": copy.deepcopy(RECTANGLE), "iscrowd": 1}
    raw["annotations"][1] |= {"segmentation": {"size": [120, 160], "counts": [19200]}, "iscrowd": 1}
    where = data.draw(st.sampled_from(list(slots(raw))))
    if where:
        parent = raw
        for key in where[:-1]:
            parent = parent[key]
        if remove:
            del parent[where[-1]]
        else:
            parent[where[-1]] = junk
    else:
        raw = junk
    path = write(tmp_path_factory.getbasetemp() / "junk.json", raw)
    try:
        annotations = load_annotations(path)
        for image in annotations.images:
            ignore_mask(image)
            assert all(np.isfinite(person.keypoints).all() for person in image.people)
    except DhnError as error:
        message = str(error)
        assert "\n" not in message
