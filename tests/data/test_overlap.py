"""Copies are found whatever was done to them, and nothing else is."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.annotations import AnnotatedImage, load_annotations, read_ids
from dhn.data.overlap import find_overlap
from dhn.media.images import read_image, write_image
from dhn.synth.scene import CrowdConfig, make_scene

IMAGES = 8


@pytest.fixture(scope="module")
def photos():
    """Drawn crowds; the second half of them is never copied."""
    config = CrowdConfig(size=160)
    return [make_scene(np.random.default_rng([7, i]), config).image for i in range(2 * IMAGES)]


def cropped(image):
    h, w = image.shape[:2]
    return image[h // 5 : h - h // 10, w // 10 : w - w // 6]


def resized(image):
    return cv2.resize(image, None, fx=0.55, fy=0.55, interpolation=cv2.INTER_AREA)


CHANGES = {
    "same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "cropped": cropped,
    "resized": resized,
    "darker": lambda image: (image * 0.8).astype(np.uint8),
    "all": lambda image: resized(cropped(image))[:, ::-1],
}


def images(folder, pixels):
    folder.mkdir()
    found = []
    for i, image in enumerate(pixels, 1):
        path = folder / f"{i}.jpg"
        write_image(path, np.ascontiguousarray(image))
        found.append(AnnotatedImage(i, path, image.shape[1], image.shape[0], None, ()))
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_copies(tmp_path, photos, change):
    known = images(tmp_path / "known", photos[:IMAGES])
    copies = [CHANGES[change](image) for image in photos[:IMAGES]]
    shown = images(tmp_path / "shown", [*copies, *photos[IMAGES:]])
    found = find_overlap(shown, known)
    assert found.failures == []
    pairs = {(copy.first.id, copy.second.id, copy.mirrored) for copy in found.copies}
    assert pairs == {(i, i, change in ("mirrored", "all")) for i in range(1, IMAGES + 1)}
    assert all(0.9 <= copy.correlation <= 1 for copy in found.copies)


def test_even_and_unreadable_images(tmp_path, photos):
    known = images(tmp_path / "known", [np.full((90, 120, 3), 99, np.uint8), photos[0]])
    shown = images(tmp_path / "shown", [np.full((90, 120, 3), 99, np.uint8), photos[0], photos[1]])
    shown[2].path.write_bytes(b"")
    found = find_overlap(shown, known)
    assert [(copy.first.id, copy.second.id) for copy in found.copies] == [(2, 2)]
    (line,) = found.failures
    assert line.startswith(f"{shown[2].path}: is empty")
    with pytest.raises(DhnError, match="is empty"):
        find_overlap(shown[2:], known)


def test_command_and_what_eval_does_with_its_list(tmp_path, crowds):
    test = load_annotations(crowds, "test")
    train = load_annotations(crowds, "train")
    (tmp_path / "mine/images").mkdir(parents=True)
    raw = json.loads((crowds / "json/crowdpose_test.json").read_text())
    copied = {**raw["images"][0], "id": 77, "file_name": "copy.jpg"}
    raw["images"].append(copied)
    write_image(
        tmp_path / "mine/images/copy.jpg",
        np.ascontiguousarray(read_image(train.images[2].path)[:, ::-1]),
    )
    image = test.images[0].path
    write_image(tmp_path / "mine/images" / image.name, read_image(image))
    (tmp_path / "mine/json").mkdir()
    annotations = tmp_path / "mine/json/crowdpose_test.json"
    annotations.write_text(json.dumps(raw))
    ids = tmp_path / "ids.txt"
    args = ["data", "overlap", tmp_path / "mine", crowds, "--ids-output", ids]
    result = CliRunner().invoke(main, [*map(str, args), "--json-output", f"{tmp_path}/pairs.json"])
    assert result.exit_code == 0, result.output
    assert f"copy.jpg is {train.images[2].path.name}, mirrored" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 of 2 images of mine are in ")
    (pair,) = json.loads((tmp_path / "pairs.json").read_text())
    assert (pair["first_id"], pair["second_id"]) == (77, train.images[2].id)
    assert read_ids(ids) == {77}
    # Predictions of the image that is left out are no error, and it is counted no more.
    person = raw["annotations"][0]
    results = [{key: person[key] for key in ("image_id", "category_id", "keypoints")}]
    results = [results[0] | {"score": 0.5}, results[0] | {"score": 0.5, "image_id": 77}]
    (tmp_path / "p.json").write_text(json.dumps(results))
    args = ["eval", "--results", tmp_path / "p.json", "--annotations", annotations]
    args += ["--exclude", ids]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    assert "in 1 image), percent" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [("12\nx3\n", "line 2 must be the id"), ("5", "image 5, to be left out, is not there")],
)
def test_bad_lists(tmp_path, crowds, text, message):
    ids = tmp_path / "ids.txt"
    ids.write_text(text)
    (tmp_path / "p.json").write_text("[]")
    annotations = Path(crowds, "json/crowdpose_test.json")
    args = ["--results", tmp_path / "p.json", "--annotations", annotations, "--exclude", ids]
    result = CliRunner().invoke(main, ["eval", *map(str, args)])
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
