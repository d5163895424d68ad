import json
import re
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from coco_sets import make_set, write_images
from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.check import check_dataset
from dhn.data.joints import COCO, joints_of_category
from dhn.synth import CrowdConfig, generate

HANDS = joints_of_category({"keypoints": ["head", "hand1", "hand2"]}, "x")


def clean_set(first_id=1, seed=0):
    raw = make_set(joints=COCO, crowd_index=False, seed=seed)
    for record in raw["images"] + raw["annotations"]:
        key = "image_id" if "image_id" in record else "id"
        record[key] += first_id - 1
    for image in raw["images"]:
        image["file_name"] = f"{image['id']}.png"
    return raw


def write_labels(folder, **splits):
    (folder / "annotations").mkdir(exist_ok=True)
    for split, raw in splits.items():
        path = folder / "annotations" / f"person_keypoints_{split}2017.json"
        path.write_text(json.dumps(raw))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Two splits of six images, nothing wrong with them."""
    folder = tmp_path_factory.mktemp("data") / "clean"
    folder.mkdir()
    splits = {"train": clean_set(), "val": clean_set(first_id=101, seed=1)}
    for raw in splits.values():
        write_images(folder, raw)
    write_labels(folder, **splits)
    return folder


@pytest.fixture
def folder(clean, tmp_path):
    """A copy in which a test may plant a fault."""
    return shutil.copytree(clean, tmp_path / "planted")


def check(*arguments):
    return CliRunner().invoke(main, ["data", "check", *map(str, arguments)])


def serious(report):
    """The findings but the hints, which random data may have."""
    return [finding for finding in report.findings if finding.level != "hint"]


def test_nothing_is_found_in_a_clean_set(clean):
    result = check(clean)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"{clean}: no errors, 0 warnings"
    assert serious(check_dataset(clean)) == []


def test_procedural_crowds_are_clean(tmp_path):
    """Their own crowdIndex, num_keypoints and boxes included."""
    out = generate(tmp_path / "crowds", 10, 0, config=CrowdConfig(size=96))
    report = check_dataset(out)
    assert serious(report) == []
    assert report.splits.keys() == {"train", "val", "test"}
    for figures in report.splits.values():
        assert figures["crowd_index"] == figures["crowd_index_of_labels"]


def test_figures_of_a_split(clean):
    figures = check_dataset(clean).splits["train"]
    raw = clean_set()
    flags = np.array([person["keypoints"] for person in raw["annotations"]])[:, 2::3]
    people = [person["image_id"] for person in raw["annotations"]]
    counts = [people.count(image["id"]) for image in raw["images"]]
    assert figures["images"] == len(raw["images"])
    assert figures["people"] == len(people)
    assert figures["keypoints"] == [(flags == 2).sum(), (flags == 1).sum()]
    assert figures["people_per_image"] == [counts.count(n) for n in range(max(counts) + 1)]


def set_keypoint(joint, x, y, v):
    def plant(raw):
        raw["annotations"][0]["keypoints"][3 * joint : 3 * joint + 3] = [x, y, v]

    return plant


def set_person(**fields):
    return lambda raw: raw["annotations"][0].update(fields)


@pytest.mark.parametrize(
    ("level", "what", "plant"),
    [
        ("error", "visibility is not 0, 1 or 2", set_keypoint(0, 50, 50, 3)),
        ("error", "annotation id not above 0", set_person(id=-4)),
        ("warning", "keypoint outside the image", set_keypoint(0, 50, 120.5, 1)),
        ("warning", "keypoint outside the image", set_keypoint(0, -0.5, 50, 2)),
        ("warning", "keypoint labelled at (0, 0)", set_keypoint(0, 0, 0, 2)),
        ("warning", "box without an area", set_person(bbox=[20, 20, 0, 30])),
        ("warning", "box beyond the image's border", set_person(bbox=[20, 20, 30, 102])),
        ("warning", "num_keypoints is not the number", set_person(num_keypoints=18)),
    ],
)
def test_one_planted_fault_is_found(folder, level, what, plant):
    raw = clean_set()
    plant(raw)
    write_labels(folder, train=raw)
    (finding,) = serious(check_dataset(folder, decode=False))
    assert (finding.level, finding.split, len(finding.cases)) == (level, "train", 1)
    assert finding.what.startswith(what)
    wanted = str(raw["annotations"][0]["id"])
    assert finding.cases[0] == wanted or f"1.png (id 1): person {wanted}" in finding.cases[0]
    assert check(folder, "--quick").exit_code == (level == "error")


def test_a_place_without_a_flag(folder):
    raw = clean_set()
    person = raw["annotations"][0]
    person["num_keypoints"] -= 1
    person["keypoints"][2] = 0
    write_labels(folder, train=raw)
    (finding,) = serious(check_dataset(folder, decode=False))
    assert finding.what == "keypoint with a place but v = 0 (not used)"
    assert "person 1, nose at" in finding.cases[0]


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def replace(path):
    path.write_text("not an image")


def shrink(path):
    cv2.imwrite(str(path), cv2.imread(str(path))[:-1])


@pytest.mark.parametrize(
    ("harm", "what", "detail"),
    [
        (remove, "image is not there", ""),
        (empty, "image or mask unreadable", "is empty; replace or remove the file"),
        (cut, "image or mask unreadable", "cut short"),
        (replace, "image or mask unreadable", "not an image"),
        (shrink, "image is of another size than its labels", ": 160 x 119, not 160 x 120"),
    ],
)
def test_a_harmed_image_is_found(folder, harm, what, detail):
    path = folder / "images" / "103.png"
    harm(path)
    (finding,) = serious(check_dataset(folder))
    assert finding[:3] == ("error", what, "val")
    (case,) = finding.cases
    assert case.startswith(f"{path} (id 103)")
    assert detail in case
    assert case.count(str(path)) == 1
    assert check(folder, "-q").exit_code == 1
    # Without reading, only its absence is seen.
    assert check(folder, "--quick").exit_code == (harm is remove)


def test_a_malformed_mask_is_found(folder):
    raw = clean_set()
    raw["annotations"][0] |= {"iscrowd": 1, "segmentation": {"size": [3, 3], "counts": [9]}}
    write_labels(folder, train=raw)
    (finding,) = serious(check_dataset(folder))
    assert finding.what == "image or mask unreadable"
    assert "1.png (id 1): segmentation of annotation 1 is malformed" in finding.cases[0]


@pytest.mark.parametrize(
    ("copied", "level", "what"),
    [
        ("102.png", "error", "same image in two splits"),
        ("2.png", "warning", "same image twice"),
    ],
)
def test_the_same_image_under_another_name(folder, copied, level, what):
    shutil.copy(folder / "images" / copied, folder / "images" / "1.png")
    (finding,) = serious(check_dataset(folder))
    assert (finding.level, finding.what) == (level, what)
    (case,) = finding.cases
    assert "1.png (id 1) = " in case
    assert f"{copied} (id {copied[:-4]})" in case


def test_the_same_file_in_two_splits_is_seen_without_reading(folder):
    raw = clean_set(first_id=101, seed=1)
    raw["images"][0]["file_name"] = "4.png"
    write_labels(folder, val=raw)
    (finding,) = serious(check_dataset(folder, decode=False))
    assert finding[:3] == ("error", "same image in two splits", "train and val")


def test_trainval_is_no_leak_of_train(folder):
    write_labels(folder, trainval=clean_set())
    assert check_dataset(folder).splits.keys() == {"train", "val"}
    report = check_dataset(folder, ["train", "trainval"])
    assert serious(report)[0].what == "same image in two splits"


def test_trainval_where_there_is_no_train(folder):
    write_labels(folder, trainval=clean_set(), test=clean_set(first_id=201))
    (folder / "annotations" / "person_keypoints_train2017.json").unlink()
    report = check_dataset(folder, decode=False)
    assert report.splits.keys() == {"trainval", "test"}


def test_a_malformed_split_leaves_the_others(folder):
    raw = clean_set()
    raw["images"][1]["id"] = 1
    write_labels(folder, train=raw)
    report = check_dataset(folder)
    (finding,) = serious(report)
    assert finding[:3] == ("error", "annotations cannot be used", "train")
    assert "image 1: appears twice" in finding.cases[0]
    assert report.splits.keys() == {"val"}


def test_people_beyond_the_limit_and_images_without_any(folder):
    raw = clean_set()
    first = [person for person in raw["annotations"] if person["image_id"] == 1]
    raw["annotations"] = first
    write_labels(folder, train=raw)
    report = check_dataset(folder, ["train"], decode=False, max_people=len(first) - 1)
    hints = {finding.what: finding.cases for finding in report.findings}
    (case,) = hints[f"more than {len(first) - 1} people (the largest are kept)"]
    assert case.endswith(f"1.png (id 1): {len(first)}")
    assert len(hints["image without a labelled person (not trained on)"]) == 5
    report = check_dataset(folder, ["train"], decode=False, max_people=len(first))
    assert not any("the largest" in finding.what for finding in report.findings)


def test_a_split_without_labels_is_an_error(folder):
    write_labels(folder, train=clean_set() | {"annotations": []})
    report = check_dataset(folder, decode=False)
    assert [f.what for f in serious(report)] == ["no image with a labelled person"]
    write_labels(folder, train=clean_set() | {"annotations": [], "images": []})
    result = check(folder)
    assert result.exit_code == 1
    assert "no image with a labelled person" in result.output


@given(st.integers(0, 2**32 - 1))
def test_keypoint_checks_equal_plain_loops(seed):
    rng = np.random.default_rng(seed)
    raw = clean_set(seed=int(rng.integers(100)))
    for person in raw["annotations"]:
        person["keypoints"] = [
            int(value)
            for _ in range(17)
            for value in (rng.integers(-5, 165), rng.choice([-1, 0, 60, 120, 121]), rng.integers(4))
        ]
        person["num_keypoints"] = int(rng.integers(8, 15))
    wanted = {"outside the image": 0, "is not 0, 1 or 2": 0, "a place but v = 0": 0}
    wanted["num_keypoints"] = 0
    for person in raw["annotations"]:
        triples = np.reshape(person["keypoints"], (17, 3))
        for x, y, v in triples:
            inside = 0 <= x <= 160 and 0 <= y <= 120
            wanted["outside the image"] += v > 0 and not inside
            wanted["is not 0, 1 or 2"] += v == 3
            wanted["a place but v = 0"] += v == 0 and (x, y) != (0, 0)
        wanted["num_keypoints"] += person["num_keypoints"] != sum(triples[:, 2] > 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.json"
        path.write_text(json.dumps(raw))
        report = check_dataset(path, decode=False)
    counts = {key: sum(len(f.cases) for f in report.findings if key in f.what) for key in wanted}
    assert counts == wanted


def test_the_json_has_every_case_and_the_table_the_first(folder, tmp_path):
    for id in range(1, 6):
        (folder / "images" / f"{id}.png").unlink()
    output = tmp_path / "report.json"
    result = check(folder, "--split", "train", "--json-output", output)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {folder}: 5 errors to fix before training"
    report = json.loads(output.read_text())
    assert report["splits"].keys() == {"train"}
    missing = next(f for f in report["findings"] if f["level"] == "error")
    assert missing["count"] == len(missing["cases"]) == 5
    errors = result.stdout.partition("hint")[0]
    shown = [case for case in missing["cases"] if case in errors]
    assert shown == missing["cases"][:3]


def test_bad_data_sets_are_one_line(tmp_path):
    for arguments, code in (([tmp_path / "no"], 1), ([tmp_path], 1), ([], 2)):
        result = check(*arguments)
        assert result.exit_code == code
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    with pytest.raises(DhnError, match="no such folder"):
        check_dataset(tmp_path / "no")


def test_markup_in_file_names_is_shown_as_it_is(folder):
    raw = clean_set()
    raw["images"][0]["file_name"] = "[red]1.png"
    write_labels(folder, train=raw)
    assert "[red]1.png" in check(folder, "--quick").stdout


def test_official_annotations_show_what_is_known_of_them(shared):
    path = shared / "data" / "crowdpose" / "json" / "crowdpose_val.json"
    report = check_dataset(path, decode=False)
    counts = {finding.what: len(finding.cases) for finding in report.findings}
    assert counts.pop("image is not there") == 2000
    assert counts == {
        "keypoint outside the image": 8,
        "left and right swapped in a person, perhaps": 33,  # of 8527
    }
    figures = report.splits["crowdpose_val.json"]
    assert figures["crowd_index_moved"] == pytest.approx(0.076)


def test_official_images_are_clean(shared):
    report = check_dataset(shared / "data" / "coco_mini")
    assert serious(report) == []
    assert report.splits["train"]["images"] == 44


# Joints


def test_joints_are_shown(clean, tmp_path):
    report = tmp_path / "report.json"
    lines = check(clean, "--quick", "--json-output", report).output.splitlines()
    assert any("17 joints of train and val" in line for line in lines)
    rows = [[cell.strip() for cell in re.split("[│┃|]", line)[1:-1]] for line in lines]
    (cells,) = (cells for cells in rows if cells[:2] == ["7", "left_elbow"])
    assert cells == ["7", "left_elbow", "right_elbow", "0.072", "left_shoulder, left_wrist"]
    assert ["0", "nose", "itself"] in [cells[:3] for cells in rows]
    joints = json.loads(report.read_text())["joints"]
    assert joints.keys() == {"train", "val"}
    assert joints["train"]["flip"] == list(COCO.flip)


def test_joints_that_pair_with_nobody(folder):
    raw = make_set(joints=HANDS, crowd_index=False)
    write_labels(folder, train=raw)
    result = check(folder, "--quick", "--split", "train")
    assert "left and right cannot be told" in " ".join(result.output.split())
    assert "hand1, hand2 differ only by a number" in " ".join(result.output.split())
    assert result.output.splitlines()[-1] == f"{folder}: no errors, 1 warning"
