"""Labels of YOLO-pose: Ultralytics' data.yaml, and what tools make of it."""

import copy

import cv2
import numpy as np
import pytest
import yaml

from coco_sets import PAW, make_set
from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.joints import COCO
from dhn.data.layouts import find_splits
from layout_sets import check, paws, write_noise


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
