"""People whose labels are partial: from the file to the batch."""

import json

import numpy as np
import pytest

from coco_sets import CrowdFolder, make_set
from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.coco_file import check_coco
from dhn.data.dataset import Augmentation, PoseDataset, collate
from dhn.data.joints import CROWDPOSE
from dhn.data.labels import BOX_MARGIN

S = 128
LEFT, RIGHT = (CROWDPOSE.names.index(f"{side}_knee") for side in ("left", "right"))


@pytest.fixture
def folder(tmp_path):
    """One person with a box of 40 x 60 at (30, 20), of whom the left knee is labelled."""
    box = {"bbox": [30, 20, 40, 60], "partial": True}
    return CrowdFolder(tmp_path).image().person({"left_knee": (40.0, 50.0, 2)}, **box)


def samples(folder, augmentation=None, **arguments):
    annotations = load_annotations(folder.write(), "train")
    return PoseDataset(annotations, input_size=S, augmentation=augmentation, **arguments)


def test_a_partial_persons_unlabelled_joints_are_unknown(folder):
    folder.person({"left_knee": (90.0, 50.0, 2)}, bbox=[80, 20, 20, 60], partial=False)
    folder.person({}, partial=True, segmentation=[[0, 0, 9, 0, 9, 9]])
    (image,) = load_annotations(folder.write(), "train").images
    partial, full, nobody = image.people
    expected = np.ones(14, bool)
    expected[LEFT] = False
    assert np.array_equal(partial.unknown, expected)
    assert full.unknown is None
    assert nobody.unknown is None  # its whole region is ignored


@pytest.mark.parametrize("wrong", [1, "yes", None, []])
def test_partial_must_be_true_or_false(wrong):
    raw = make_set(images=2)
    raw["annotations"][0]["partial"] = wrong
    with pytest.raises(DhnError, match="annotation 1: partial must be true or false"):
        check_coco(raw, "a.json")


def test_unknown_joints_and_their_box_reach_the_sample(folder):
    folder.person({"left_knee": (90.0, 50.0, 1)}, bbox=[80, 20, 10, 50])
    sample = samples(folder).sample(0, 0)
    partial, full = sample.keypoints
    assert partial[LEFT, 2] == 2
    assert set(partial[np.arange(14) != LEFT, 2]) == {-1}
    assert not partial[np.arange(14) != LEFT, :2].any()
    assert full[LEFT, 2] == 1
    assert not full[np.arange(14) != LEFT].any()
    # The image of 180 x 130 is placed whole and centred.
    zoom = S / 180
    margin = BOX_MARGIN * 60
    expected = np.array([30 - margin, 20 - margin, 70 + margin, 80 + margin])
    expected = expected * zoom + np.array([0, (S - 130 * zoom) / 2] * 2)
    np.testing.assert_allclose(sample.boxes[0], expected, rtol=1e-5)


def test_boxes_follow_every_turn_and_hold_the_turned_person(folder):
    everything = Augmentation(rotation=180, scale=(0.7, 1.5), translation=30, flip=0.5)
    dataset = samples(folder, everything)
    corners = np.array([[x, y] for x in (30.0, 70.0) for y in (20.0, 80.0)])
    flips = set()
    for epoch in range(30):
        (person,), (box,) = (dataset.sample(epoch, 0)[i] for i in (1, 4))
        affine, flipped = dataset._draw((180, 130), np.random.default_rng([0, epoch, 0]))
        knee = RIGHT if flipped else LEFT
        assert person[knee, 2] == 2
        assert (np.delete(person[:, 2], knee) == -1).all()
        turned = affine.apply(corners)
        assert (turned >= box[:2]).all()
        assert (turned <= box[2:]).all()
        flips.add(flipped)
    assert flips == {True, False}


def test_batches_pad_boxes_and_have_none_where_all_is_known(tmp_path, folder):
    (tmp_path / "known").mkdir()
    known = CrowdFolder(tmp_path / "known").image()
    for x in (40.0, 60.0, 80.0):
        known.person({"left_knee": (x, 50.0, 2)})
    partial, full = samples(folder).sample(0, 0), samples(known).sample(0, 0)
    assert full.boxes is None
    assert collate([full, full]).boxes is None
    batch = collate([full, partial])
    assert batch.boxes.shape == (2, 3, 4)
    assert not batch.boxes[0].any()
    assert np.array_equal(batch.boxes[1, 0], partial.boxes[0])
    assert not batch.boxes[1, 1:].any()
    assert batch.keypoints[1, 0, RIGHT, 2] == -1


def test_partial_survives_being_written_and_read(tmp_path):
    """The field is COCO's file's own, so tools that copy annotations keep it."""
    raw = make_set(images=3)
    for person in raw["annotations"]:
        person["partial"] = True
    path = tmp_path / "a.json"
    path.write_text(json.dumps(raw))
    annotations = load_annotations(path)
    assert all(person["partial"] for person in annotations.raw["annotations"])
