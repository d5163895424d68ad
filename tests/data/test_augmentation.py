"""What spoils a sample, and that it changes nothing where it is off."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, write_images
from dhn.data.annotations import load_annotations
from dhn.data.augmentation import Appearance, Draws, Patch, hide
from dhn.data.dataset import Augmentation, PoseDataset
from dhn.data.geometry import crop_transform
from dhn.media.images import read_image

S = 96
STEPS = ("blur", "noise", "jpeg", "low_resolution", "cutout", "grey")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Annotations of images that are smooth, as photographs are."""
    import json

    folder = tmp_path_factory.mktemp("photographs")
    raw = make_set(images=5, seed=2)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.json").write_text(json.dumps(raw))
    write_images(folder, raw)
    for path in (folder / "images").iterdir():
        cv2.imwrite(str(path), cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), 3))
    return load_annotations(folder, "train")


def dataset(annotations, appearance, **how):
    augmentation = Augmentation(**{"colour": 0.5} | how, appearance=appearance)
    return PoseDataset(annotations, input_size=S, augmentation=augmentation, seed=7)


def old_sample(dataset, epoch, index):
    """A sample as it was made before there was `Appearance`: the draws written out in order."""
    annotated = dataset.images[index]
    image = read_image(annotated.path, ignore_orientation=True)
    how = dataset.augmentation
    rng = np.random.default_rng([dataset.seed, epoch, index])
    flipped = bool(rng.random() < how.flip)
    shift = rng.uniform(-1, 1, 2) * how.translation / 200
    affine = crop_transform(
        (image.shape[1], image.shape[0]),
        S,
        rotation=rng.uniform(-how.rotation, how.rotation),
        scale=rng.uniform(*how.scale),
        shift=tuple(shift),
        flip=flipped,
    )
    rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    warped = cv2.warpAffine(rgba, affine.cv2_matrix(), (S, S), flags=cv2.INTER_LINEAR)
    warped = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    contrast, saturation = 1 + how.colour * rng.uniform(-0.5, 0.5, 2)
    brightness = 255 * how.colour * rng.uniform(-0.25, 0.25, 3)
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) * np.full((3, 3), 1 / 3))
    offset = 128 * (1 - contrast) + brightness
    warped = cv2.transform(warped, np.column_stack([mix, offset]).astype(np.float32))

    people = [p for p in annotated.people if not p.iscrowd and (p.keypoints[:, 2] > 0).any()]
    people.sort(key=lambda person: -person.area)
    rows = []
    for person in people:
        row = np.zeros_like(person.keypoints)
        for j in range(len(row)):
            x, y, v = person.keypoints[dataset.joints.flip[j] if flipped else j]
            if v > 0:
                row[j] = (*affine.apply([float(x), float(y)]), v)
        rows.append(row)
    return warped, np.stack(rows)


@pytest.mark.parametrize("appearance", [None, Appearance().or_none()])
def test_samples_are_what_they_were_where_everything_is_off(photographs, appearance):
    ours = dataset(photographs, appearance)
    for epoch in range(4):
        for index in range(len(ours)):
            image, keypoints = old_sample(ours, epoch, index)
            sample = ours.sample(epoch, index)
            assert np.array_equal(sample.image, image)
            assert np.array_equal(sample.keypoints, keypoints)
            assert sample.boxes is None


def test_switching_a_step_on_changes_no_other_choice(photographs):
    plain = dataset(photographs, None)
    spoilt = dataset(photographs, Appearance(**dict.fromkeys(STEPS, 1.0)))
    for epoch in range(3):
        for index in range(len(plain)):
            before, after = plain.sample(epoch, index), spoilt.sample(epoch, index)
            assert not np.array_equal(before.image, after.image)
            assert np.array_equal(before.keypoints[..., :2], after.keypoints[..., :2])
            assert np.array_equal(before.keypoints[..., 2] > 0, after.keypoints[..., 2] > 0)


def test_a_sample_depends_on_seed_epoch_and_index_alone(photographs):
    appearance = Appearance(**dict.fromkeys(STEPS, 0.5), aspect=(0.7, 1.4))
    ours, theirs = (dataset(photographs, appearance) for _ in range(2))
    keys = [(epoch, index) for epoch in range(4) for index in range(len(ours))]
    samples = {key: ours.sample(*key) for key in keys}
    for key in reversed(keys):
        again = theirs.sample(*key)
        assert np.array_equal(samples[key].image, again.image)
        assert np.array_equal(samples[key].keypoints, again.keypoints)
    images = [samples[epoch, 0].image for epoch in range(4)]
    assert all(not np.array_equal(images[0], other) for other in images[1:])


def photograph(size=S, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.0)


def spoilt(step, image, epoch=0):
    before = image.copy()
    got, patches = Draws(Appearance(**{step: 1.0}), 0, epoch, 0).spoilt(image)
    assert np.array_equal(image, before)  # the input is left as it is
    assert got.dtype == np.uint8
    assert got.shape == image.shape
    return got, patches


def roughness(image):
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())


@pytest.mark.parametrize("epoch", range(5))
def test_each_step_does_what_its_name_says(epoch):
    image = photograph(192)
    assert roughness(spoilt("blur", image, epoch)[0]) < 0.95 * roughness(image)
    assert roughness(spoilt("low_resolution", image, epoch)[0]) < 0.8 * roughness(image)
    grey, _ = spoilt("grey", image, epoch)
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    flat = np.full((192, 192, 3), 128, np.uint8)
    noise = spoilt("noise", flat, epoch)[0].astype(float) - 128
    assert abs(noise.mean()) < 1
    assert 3.5 < noise.std() < 16.5
    compressed = spoilt("jpeg", image, epoch)[0].astype(float)
    assert 0 < np.abs(compressed - image).mean() < 15
    red = np.zeros((S, S, 3), np.uint8)
    red[..., 0] = 200
    assert np.abs(spoilt("jpeg", red, epoch)[0].astype(int) - red).max() < 20  # still red


@given(epoch=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_patches_are_plain_and_the_rest_is_untouched(epoch, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    got, patches = Draws(Appearance(cutout=1.0), 0, epoch, 0).spoilt(image)
    assert 1 <= len(patches) <= 3
    outside = np.ones((height, width), bool)
    for x0, y0, x1, y1 in patches:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        outside[y0:y1, x0:x1] = False
    assert np.array_equal(got[outside], image[outside])
    x0, y0, x1, y1 = patches[-1]  # the last one lies on top
    assert (got[y0:y1, x0:x1] == got[y0, x0]).all()


def test_joints_under_a_patch_are_hidden_ones():
    row = [(2, 2, 2), (5, 5, 2), (5, 5, 1), (0, 0, 0), (0, 0, -1), (8, 5, 2), (3, 3, 2)]
    keypoints = np.array([row], np.float32)
    patches = [Patch(3, 3, 8, 8), Patch(0, 0, 2, 2)]
    hidden = hide(keypoints.copy(), patches)
    assert hidden[0, :, 2].tolist() == [2, 1, 1, 0, -1, 2, 1]
    assert np.array_equal(hidden[..., :2], keypoints[..., :2])


@given(
    size=st.tuples(st.integers(10, 2000), st.integers(10, 2000)),
    low=st.floats(0.3, 1),
    high=st.floats(1, 3),
    epoch=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_stretching_keeps_area_and_centre(size, low, high, epoch):
    stretch = Draws(Appearance(aspect=(low, high)), 1, epoch, 2).stretched(size)
    if low == high == 1:
        assert stretch is None
        return
    (a, zero, _), (nought, d, _) = stretch.matrix
    assert zero == nought == 0
    assert math.isclose(a * d, 1, rel_tol=1e-9)
    assert low * (1 - 1e-9) <= a / d <= high * (1 + 1e-9)
    centre = np.array(size) / 2
    np.testing.assert_allclose(stretch.apply(centre), centre, atol=1e-9 * max(size))


def test_stretched_samples_move_joints_with_their_pixels(photographs):
    """White discs of the joints of one person are found again where the sample has the joints."""
    how = {"colour": 0, "rotation": 30, "scale": (0.9, 1.3), "translation": 10}
    ours = dataset(photographs, Appearance(aspect=(0.5, 2.0)), **how)
    annotated = ours.images[0]
    black = np.zeros((annotated.height, annotated.width, 3), np.uint8)
    joint = next(j for j in range(14) if ours._keypoints[0][0, j, 2] > 0)
    x, y = ours._keypoints[0][0, joint, :2]
    fine = (np.arange(16) + 0.5) / 16
    for row in range(black.shape[0]):
        for column in range(black.shape[1]):
            near = (fine + column - x) ** 2 + (fine[:, None] + row - y) ** 2 <= 36
            black[row, column] = round(255 * near.mean()) if near.any() else 0
    seen = 0
    for epoch in range(20):
        sample = ours.augment(black, epoch, 0)
        weight = sample.image[..., 0].astype(float)
        if weight[[0, -1]].any() or weight[:, [0, -1]].any() or not weight.any():
            continue
        rows, columns = np.indices(weight.shape) + 0.5
        found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        nearest = np.abs(sample.keypoints[0, :, :2] - found).max(1).min()
        assert nearest < 0.4
        seen += 1
    assert seen >= 5
