"""Layouts in which data sets come from elsewhere, each with files made here."""

import copy
import json

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from coco_sets import PAW, make_set, results_of
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.annotations import load_annotations
from dhn.data.dataset import PoseDataset
from dhn.data.joints import COCO
from dhn.data.layouts import find_splits, is_one_split
from dhn.evaluation.scoring import score


def write_noise(path, width=160, height=120):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path).encode())
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def paws(seed=0, start=1):
    """Five images with a joint set of its own. Ids begin with `start`."""
    raw = make_set(5, joints=PAW, crowd_index=False, seed=seed)
    for image in raw["images"]:
        image["file_name"] = f"{seed}_{image['file_name']}"
        image["id"] += start - 1
    for person in raw["annotations"]:
        person["id"] += start - 1
        person["image_id"] += start - 1
    return raw


def write(json_file, images, raw):
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(raw))
    for image in raw["images"]:
        write_noise(images / image["file_name"])


def check(dataset):
    """`dhn data check` finds no error; what it prints."""
    result = CliRunner().invoke(main, ["data", "check", str(dataset), "--quiet"])
    assert result.exit_code == 0, result.output
    assert f"{dataset}: no errors" in result.output
    return result.output


def assert_holds(annotations, raw, folder):
    """Images and keypoints are those of the dictionary, and all images can be trained on."""
    assert [image.path for image in annotations.images] == [
        folder / image["file_name"] for image in raw["images"]
    ]
    assert all(image.path.is_file() for image in annotations.images)
    ours = [p.keypoints.ravel().tolist() for image in annotations.images for p in image.people]
    theirs = [np.float32(person["keypoints"]).tolist() for person in raw["annotations"]]
    assert sorted(ours) == sorted(theirs)
    dataset = PoseDataset(annotations, input_size=64, augmentation=None)
    assert dataset.sample(0, 0).image.shape == (64, 64, 3)


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


# Ultralytics' data.yaml


def yolo_line(person, width, height, values):
    """A person of a COCO dictionary as a line of a label file."""
    x, y, w, h = person["bbox"]
    row = [0, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    for x, y, v in np.reshape(person["keypoints"], (-1, 3)).tolist():
        row += [x / width, y / height, int(v)][:values]
    return " ".join(map(str, row))


def write_yolo(root, raw, values, images="images/train", labels="labels/train", suffix=".png"):
    (root / labels).mkdir(parents=True, exist_ok=True)
    for image in raw["images"]:
        width, height = image["width"], image["height"]
        image["file_name"] = image["file_name"].replace(".png", suffix)
        write_noise(root / images / image["file_name"], width, height)
        people = [person for person in raw["annotations"] if person["image_id"] == image["id"]]
        lines = [yolo_line(person, width, height, values) for person in people]
        if lines:
            name = image["file_name"].replace(suffix, ".txt")
            (root / labels / name).write_text("\n".join(lines) + "\n")


def describe(root, **fields):
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "names": {0: "cat"}} | fields))
    return path


def different_sizes(raw):
    for image in raw["images"]:
        image["width"] += image["id"]
        image["height"] += 2 * image["id"]
    return raw


@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_yolo(tmp_path, values, suffix):
    raw = different_sizes(paws())
    write_yolo(tmp_path, raw, values, suffix=suffix)
    path = describe(tmp_path, kpt_shape=[4, values], flip_idx=[0, 2, 1, 3])
    for dataset in (tmp_path, path):
        assert find_splits(dataset) == ["train"]
        annotations = load_annotations(dataset, "train")
        assert annotations.joints.names == ("joint_0", "joint_1", "joint_2", "joint_3")
        assert annotations.joints.flip == (0, 2, 1, 3)
        assert annotations.joints.name == "cat"
        assert [(p.width, p.height) for p in annotations.images] == [
            (image["width"], image["height"]) for image in raw["images"]
        ]
        ours = [person for image in annotations.images for person in image.people]
        assert len(ours) == len(raw["annotations"]) > 0
        for person, wanted in zip(ours, raw["annotations"], strict=True):
            keypoints = np.reshape(wanted["keypoints"], (-1, 3))
            if values == 2:
                keypoints[:, 2] = 2 * (keypoints[:, 2] > 0)
            np.testing.assert_allclose(person.keypoints, keypoints, atol=1e-4)
            np.testing.assert_allclose(person.box, wanted["bbox"], atol=1e-4)
        assert "joint_2" in check(dataset)


def test_yolo_as_roboflow_exports_it(tmp_path):
    """The paths say ../, but mean folders beside data.yaml."""
    splits = {"train": paws(1), "valid": paws(2)}
    for word, raw in splits.items():
        write_yolo(tmp_path, raw, 3, f"{word}/images", f"{word}/labels")
    describe(
        tmp_path,
        train="../train/images",
        val="../valid/images",
        test="",
        kpt_shape=[4, 3],
        flip_idx=[0, 2, 1, 3],
    )
    assert find_splits(tmp_path) == ["train", "val"]
    both = load_annotations(tmp_path, "trainval")
    assert len({image.id for image in both.images}) == len(both.images) == 10
    assert both.joints.flip == (0, 2, 1, 3)
    assert sum(len(image.people) for image in both.images) == sum(
        len(raw["annotations"]) for raw in splits.values()
    )
    check(tmp_path)


def test_yolo_with_lists_paths_and_names(tmp_path):
    raw = paws()
    write_yolo(tmp_path / "set", raw, 3)
    names = [image["file_name"] for image in raw["images"]]
    lines = [f"./images/train/{names[0]}", f"images/train/{names[1]}", ""]
    (tmp_path / "set/some.txt").write_text("\n".join(lines))
    own_names = {0: list(PAW.names)}
    describe(tmp_path, path="set", train="some.txt", kpt_shape=[4, 3], kpt_names=own_names)
    annotations = load_annotations(tmp_path, "train")
    assert [image.path.name for image in annotations.images] == names[:2]
    assert annotations.joints.names == PAW.names
    assert annotations.joints.flip == PAW.flip  # from the names, as flip_idx is not there
    folders = ["set/images/train", "set/images/train"]
    describe(tmp_path, path="elsewhere", train=folders[:1], kpt_shape=[4, 3])
    assert len(load_annotations(tmp_path, "train").images) == 5


def test_yolo_with_the_joints_of_coco(tmp_path):
    write_yolo(tmp_path, make_set(3, COCO, crowd_index=False), 3)
    describe(tmp_path, kpt_shape=[17, 3], flip_idx=list(COCO.flip))
    assert load_annotations(tmp_path, "train").joints == COCO


def test_yolo_without_pairs_is_doubted(tmp_path):
    write_yolo(tmp_path, paws(), 3)
    describe(tmp_path, kpt_shape=[4, 3])
    assert "joint_0, joint_1" in " ".join(check(tmp_path).split())


def test_images_that_exif_turns_are_left_out(tmp_path, caplog):
    raw = paws()
    write_yolo(tmp_path, raw, 3, suffix=".jpg")
    describe(tmp_path, kpt_shape=[4, 3])
    turned = tmp_path / "images/train" / raw["images"][1]["file_name"]
    data = turned.read_bytes()
    # An EXIF segment with one entry: orientation (0x0112), one short, 6.
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    marker = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big")
    turned.write_bytes(data[:2] + marker + segment + data[2:])
    upright, as_stored = cv2.imread(str(turned)), cv2.imread(str(turned), 128 | 1)
    assert upright.shape[:2] == as_stored.shape[1::-1], "OpenCV turns it, too"
    annotations = load_annotations(tmp_path, "train")
    assert turned not in [image.path for image in annotations.images]
    assert len(annotations.images) == 4
    (warning,) = caplog.messages
    assert "1 images are left out" in warning
    assert str(turned) in warning


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kpt_shape": None}, "kpt_shape must be"),
        ({"kpt_shape": [4]}, "kpt_shape must be"),
        ({"kpt_shape": [4, 4]}, "kpt_shape must be"),
        ({"kpt_shape": [10**9, 3]}, "kpt_shape must be"),
        ({"kpt_shape": ["4", "3"]}, "kpt_shape must be"),
        ({"flip_idx": [0, 2, 1]}, "flip_idx must"),
        ({"flip_idx": [1, 2, 3, 0]}, "flip_idx must"),
        ({"flip_idx": [0, 1, 2, 4]}, "flip_idx must"),
        ({"flip_idx": "0123"}, "flip_idx must"),
        ({"train": 5}, "train must be a path"),
        ({"train": "a\0b"}, "train must be a path"),
        ({"train": "nowhere"}, "nowhere: no such folder or list of images"),
        ({"train": "labels/train"}, "train: has no images"),
        ({"names": 5}, "names must be"),
        ({"kpt_names": ["a"]}, "kpt_names must be 4 names"),
        ({"kpt_names": ["a", "a", "b", "c"]}, "list of different names"),
    ],
)
def test_yolo_files_that_are_malformed(tmp_path, fields, problem):
    write_yolo(tmp_path, paws(), 3)
    path = describe(tmp_path, **{"kpt_shape": [4, 3]} | fields)
    with pytest.raises(DhnError, match=problem) as error:
        load_annotations(tmp_path, "train")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "- 1", "kpt: 3", "{", "a: [" * 3000, "\0", "!!python/object:os.system {}"]
)
def test_other_yaml(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    for dataset in (path, tmp_path):
        with pytest.raises(DhnError) as error:
            load_annotations(dataset, "train")
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


GOOD = [0, 0.5, 0.5, 0.2, 0.2, *([0.5, 0.5, 2] * 4)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (GOOD[:-1], "must be 17 numbers"),
        (GOOD[:5], "must be 17 numbers"),
        ([*GOOD, 1], "must be 17 numbers"),
        (["cat", *GOOD[1:]], "must be 17 numbers"),
        ([0, "nan", *GOOD[2:]], "must be 17 numbers"),
        ([0, "1e999", *GOOD[2:]], "must be 17 numbers"),
        ([1, *GOOD[1:]], "the class must be one of 0 to 0"),
        ([0.5, *GOOD[1:]], "the class must be one of 0 to 0"),
        ([0, 80, 60, *GOOD[3:]], "shares of the image's width and height"),
        ([*GOOD[:-2], 60, 2], "shares of the image's width and height"),
        (["\0"], "is not text"),
        (["\udcff"], "is not text in UTF-8"),
    ],
)
def test_yolo_labels_that_are_malformed(tmp_path, line, problem):
    raw = paws()
    write_yolo(tmp_path, raw, 3)
    describe(tmp_path, kpt_shape=[4, 3])
    label = tmp_path / "labels/train" / raw["images"][0]["file_name"].replace(".png", ".txt")
    text = "\n".join([" ".join(map(str, GOOD)), "", " ".join(map(str, line))])
    label.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DhnError, match=problem) as error:
        load_annotations(tmp_path, "train")
    assert str(error.value).startswith(f"{label}: ")
    if "text" not in problem:
        assert ": line 2: " in str(error.value)


def test_yolo_without_labels_or_with_a_bad_image(tmp_path):
    raw = paws()
    write_yolo(tmp_path, copy.deepcopy(raw) | {"annotations": []}, 3)
    describe(tmp_path, kpt_shape=[4, 3])
    with pytest.raises(DhnError, match=r"none of its images has labels, such as .*labels/train"):
        load_annotations(tmp_path, "train")
    write_yolo(tmp_path, raw, 3)
    broken = tmp_path / "images/train/broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DhnError, match=r"broken\.jpg: "):
        load_annotations(tmp_path, "train")


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
