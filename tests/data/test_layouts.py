"""Layouts in which data sets come from elsewhere, each with files made here."""

import numpy as np
import pytest

from coco_sets import make_set, results_of
from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.joints import COCO
from dhn.data.layouts import find_splits, is_one_split
from dhn.evaluation.scoring import score
from layout_sets import assert_holds, check, paws, write


def test_roboflow(tmp_path):
    """Each split numbers its images and people from 0, in a category beside one without joints."""
    splits = {"train": paws(1, 0), "valid": paws(2, 0), "test": paws(3, 0)}
    for folder, raw in splits.items():
        raw["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
        write(tmp_path / folder / "_annotations.coco.json", tmp_path / folder, raw)
    assert find_splits(tmp_path) == ["train", "val", "test"]
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        annotations = load_annotations(tmp_path, split)
        assert_holds(annotations, splits[folder], tmp_path / folder)
        assert min(person["id"] for person in annotations.raw["annotations"]) == 1
    both = load_annotations(tmp_path, "trainval")
    ids = [image.id for image in both.images]
    assert len(set(ids)) == len(ids) == 10
    assert all(image.path.is_file() for image in both.images)
    people = {person["id"]: person for person in both.raw["annotations"]}
    for image in both.images:
        for person in image.people:
            assert people[person.id]["image_id"] == image.id
            wanted = np.float32(people[person.id]["keypoints"]).reshape(-1, 3)
            np.testing.assert_array_equal(person.keypoints, wanted)
    check(tmp_path)


@pytest.mark.parametrize("name", ["", "_annotations.coco.json"])
def test_one_split_of_roboflow(tmp_path, name):
    raw = paws()
    write(tmp_path / "train/_annotations.coco.json", tmp_path / "train", raw)
    dataset = tmp_path / "train" / name
    assert_holds(load_annotations(dataset, "train"), raw, tmp_path / "train")
    check(dataset)


@pytest.mark.parametrize("valid", ["val", "valid"])
@pytest.mark.parametrize("images", ["", "images"])
def test_a_file_beside_the_folder_of_its_images(tmp_path, valid, images):
    splits = {"train": paws(1), valid: paws(2, 101)}
    for word, raw in splits.items():
        write(tmp_path / f"keypoints_{word}.json", tmp_path / images / word, raw)
    assert find_splits(tmp_path) == ["train", "val"]
    for split, word in (("train", "train"), ("val", valid)):
        for dataset in (tmp_path, tmp_path / f"keypoints_{word}.json"):
            folder = tmp_path / images / word
            assert_holds(load_annotations(dataset, split), splits[word], folder)
    check(tmp_path)


@pytest.mark.parametrize("folder", ["", "images"])
def test_one_file_beside_its_images(tmp_path, folder):
    raw = paws()
    write(tmp_path / "labels.json", tmp_path / folder, raw)
    for dataset in (tmp_path, tmp_path / "labels.json"):
        assert find_splits(dataset) == ["train"]
        assert_holds(load_annotations(dataset, "train"), raw, tmp_path / folder)
        check(dataset)
    with pytest.raises(DhnError, match=r"split val: .* has no such split; it has train"):
        load_annotations(tmp_path, "val")


def test_files_that_are_not_named_for_a_split_do_not_count_beside_one_that_is(tmp_path):
    write(tmp_path / "annotations/my_val.json", tmp_path / "images", paws())
    (tmp_path / "results.json").write_text("[]")
    assert find_splits(tmp_path) == ["val"]


def test_what_is_one_split(tmp_path):
    write(tmp_path / "labels.json", tmp_path, paws())
    (tmp_path / "data.yaml").write_text("kpt_shape: [1, 2]")
    assert is_one_split(tmp_path / "labels.json")
    assert not is_one_split(tmp_path)
    assert not is_one_split(tmp_path / "data.yaml")
    assert not is_one_split("crowdpose")


def ochuman(raw):
    """People as OCHuman's API writes them: the box is the area, and masks are compressed RLE."""
    for person in raw["annotations"]:
        person["area"] = person["bbox"][2] * person["bbox"][3]
        person["iscrowd"] = 0
        person["segmentation"] = {"size": [120, 160], "counts": "PPX31V3"}
    return raw


@pytest.mark.parametrize("home", ["annotations", "."])
def test_ochuman(tmp_path, home):
    whole, hard = ochuman(make_set(5, COCO, crowd_index=False)), ochuman(make_set(2, COCO))
    name = "ochuman_coco_format_{}_range_{}.json"
    files = {
        name.format("val", "0.00_1.00"): whole,
        name.format("val", "0.75_1.00"): hard,
        name.format("test", "0.00_1.00"): ochuman(make_set(3, COCO, seed=1)),
    }
    for file, raw in files.items():
        write(tmp_path / home / file, tmp_path / "images", raw)
    assert find_splits(tmp_path) == ["val", "test"]
    annotations = load_annotations(tmp_path, "val")
    assert annotations.joints == COCO
    assert annotations.scoring == "coco"
    assert_holds(annotations, whole, tmp_path / "images")
    # The other ranges are files of their own, with other numbers for the same images.
    annotations = load_annotations(tmp_path / home / name.format("val", "0.75_1.00"))
    assert_holds(annotations, hard, tmp_path / "images")


def test_ochuman_is_scored_as_by_the_coco_tools(tmp_path):
    raw = ochuman(make_set(6, COCO, crowd_index=False))
    results = results_of(raw, noise=3)
    found = [score(raw, results, "coco", evaluator=tool) for tool in ("dhn", "pycocotools")]
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    assert 0 < found[0]["AP"] < 1
