"""Composites against the rules of `dhn.data.composites`, written out joint by joint."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import make_set, write_images
from dhn.data.annotations import load_annotations
from dhn.data.composites import Composer, Layer, Source, overlaid
from dhn.data.dataset import Augmentation, PoseDataset
from dhn.data.joints import COCO, CROWDPOSE

S, J = 24, 4


def layer(rng, *, people, boxes, mask):
    """A random one; some joints lie outside the image, some are unknown where there are boxes."""
    keypoints = np.zeros((people, J, 3), np.float32)
    keypoints[..., 2] = rng.integers(-1 if boxes else 0, 3, (people, J))
    keypoints[..., :2] = rng.uniform(-0.3 * S, 1.3 * S, (people, J, 2))
    keypoints[keypoints[..., 2] <= 0, :2] = 0
    # Every person of a data set has a labelled joint.
    keypoints[:, 0] = np.column_stack([rng.uniform(0, S, (people, 2)), np.full(people, 2)])
    corners = np.sort(rng.uniform(-4, S + 4, (people, 2, 2)), 1).reshape(people, 4)
    return Layer(
        rng.integers(0, 256, (S, S, 3), np.uint8),
        keypoints,
        corners.astype(np.float32) if boxes else None,
        rng.integers(0, 2, (S, S), np.uint8) if mask else None,
    )


def shape(rng):
    """A soft mask: a random ellipse, a slope, all or nothing."""
    rows, columns = np.indices((S, S)) + 0.5
    x, y, a, b = rng.uniform(1, S, 4)
    slope = np.clip((columns - x) / rng.uniform(0.5, 8) + 0.5, 0, 1)
    ellipse = np.clip(3 - 3 * (((columns - x) / a) ** 2 + ((rows - y) / b) ** 2), 0, 1)
    kinds = [slope, ellipse, np.ones((S, S)), np.zeros((S, S))]
    return kinds[rng.integers(0, 4)].astype(np.float32)


def inside(x, y):
    return 0 <= x < S and 0 <= y < S


def below(person, covered):
    """What becomes of somebody over whom something is laid: [J, 3]."""
    joints = [tuple(map(float, joint)) for joint in person]
    there = [j for j, (x, y, v) in enumerate(joints) if v > 0 and inside(x, y)]
    under = [j for j in there if covered[int(joints[j][1]), int(joints[j][0])]]
    unknown = any(v < 0 for _, _, v in joints)
    if under and len(under) == len(there) and not unknown:
        return [(0, 0, 0)] * len(joints)
    mostly = 2 * (len(there) - len(under)) >= len(there)
    for j in under:
        joints[j] = (*joints[j][:2], 1) if mostly else (0, 0, -1)
    return joints


def above(person, box, covered):
    """What comes through the mask of somebody who is laid over: [J, 3] and their box."""
    rows, columns = np.nonzero(covered)
    window = (0, 0, 0, 0)
    if len(rows):
        window = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    clipped = [max(box[0], window[0]), max(box[1], window[1])]
    clipped += [min(box[2], window[2]), min(box[3], window[3])]
    empty = clipped[0] >= clipped[2] or clipped[1] >= clipped[3]
    joints = []
    for x, y, v in person.tolist():
        lost = v < 0 and empty
        if v > 0:
            lost = not (inside(x, y) and covered[int(y), int(x)])
        joints.append((0, 0, 0) if lost else (x, y, v))
    return joints, [0] * 4 if empty else clipped


def around(person):
    """The box of somebody who has none."""
    xy = np.array([(x, y) for x, y, v in person.tolist() if v > 0])
    margin = 0.1 * max(np.ptp(xy[:, 0]), np.ptp(xy[:, 1])) + 1
    return [*(xy.min(0) - margin), *(xy.max(0) + margin)]


@given(
    seed=st.integers(0, 10**6),
    people=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    boxes=st.tuples(st.booleans(), st.booleans()),
    mask=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=200, deadline=None)
def test_labels_follow_the_rules(seed, people, boxes, mask):
    rng = np.random.default_rng(seed)
    base, over = (
        layer(rng, people=n, boxes=b, mask=m) for n, b, m in zip(people, boxes, mask, strict=True)
    )
    alpha = shape(rng)
    covered = alpha > 0.5
    before = [array.copy() for one in (base, over) for array in one if array is not None]
    got = overlaid(base, over, alpha)
    after = [array for one in (base, over) for array in one if array is not None]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    expected, expected_boxes = [], []
    for p, person in enumerate(base.keypoints):
        expected.append(below(person, covered))
        expected_boxes.append(around(person) if base.boxes is None else base.boxes[p].tolist())
    for p, person in enumerate(over.keypoints):
        box = around(person) if over.boxes is None else over.boxes[p].tolist()
        joints, box = above(person, box, covered)
        expected.append(joints)
        expected_boxes.append(box)
    there = [p for p, joints in enumerate(expected) if any(v != 0 for _, _, v in joints)]
    wanted = np.array([expected[p] for p in there], np.float32).reshape(-1, J, 3)
    np.testing.assert_allclose(got.keypoints, wanted, rtol=1e-6)
    if (wanted[..., 2] < 0).any():
        np.testing.assert_allclose(
            got.boxes, np.array([expected_boxes[p] for p in there]), rtol=1e-5, atol=1e-5
        )
    else:
        assert got.boxes is None

    weight = alpha[..., None].astype(float)
    blend = weight * over.image + (1 - weight) * base.image
    assert np.abs(got.image - blend).max() <= 1
    assert np.array_equal(got.image[alpha == 0], base.image[alpha == 0])
    assert np.array_equal(got.image[alpha == 1], over.image[alpha == 1])
    if base.mask is None and over.mask is None:
        assert got.mask is None
    else:
        below_mask, above_mask = (1 if one.mask is None else one.mask for one in (base, over))
        assert np.array_equal(got.mask, np.where(covered, above_mask, below_mask))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowd")
    raw = make_set(images=8, joints=COCO, seed=5, crowd_index=False)
    raw["categories"][0]["skeleton"] = [[a + 1, b + 1] for a, b in COCO.skeleton]
    for person in raw["annotations"]:
        person["partial"] = True
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.json").write_text(json.dumps(raw))
    write_images(folder, raw)
    return load_annotations(folder, "train")


def dataset(annotations, composites, **arguments):
    how = Augmentation(colour=0.3, composites=composites)
    return PoseDataset(annotations, input_size=96, augmentation=how, seed=3, **arguments)


def test_samples_that_are_no_composites_stay_as_they_are(crowd):
    plain, some = dataset(crowd, 0.0), dataset(crowd, 0.4)
    same = changed = 0
    for epoch in range(5):
        for index in range(len(plain)):
            before, after = plain.sample(epoch, index), some.sample(epoch, index)
            if np.array_equal(before.image, after.image):
                assert np.array_equal(before.keypoints, after.keypoints)
                assert np.array_equal(before.boxes, after.boxes)
                same += 1
            else:
                changed += 1
    assert 0.2 < changed / (same + changed) < 0.6


def test_a_composite_depends_on_seed_epoch_and_index_alone(crowd):
    ours, theirs = dataset(crowd, 1.0), dataset(crowd, 1.0)
    keys = [(epoch, index) for epoch in range(3) for index in range(len(ours))]
    samples = {key: ours.sample(*key) for key in keys}
    for key in reversed(keys):
        for a, b in zip(samples[key], theirs.sample(*key), strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(samples[0, 0].image, samples[1, 0].image)


def test_crowds_grow(crowd):
    plain, crowds = dataset(crowd, 0.0), dataset(crowd, 1.0)
    keys = [(epoch, index) for epoch in range(6) for index in range(len(plain))]
    people = [len(plain.sample(*key).keypoints) for key in keys]
    more = [len(crowds.sample(*key).keypoints) for key in keys]
    assert np.mean(more) > np.mean(people) + 0.7
    hidden = [int((crowds.sample(*key).keypoints[..., 2] == 1).sum()) for key in keys[: len(plain)]]
    assert max(hidden) > 0


@pytest.mark.parametrize("flipped", [False, True])
def test_the_pasted_person_is_where_the_sample_says(crowd, flipped):
    """A white square on a joint of the source is found under that joint of the layer."""
    ours = dataset(crowd, 1.0)
    index = 0
    person = ours._keypoints[index][0]
    joint = int(np.flatnonzero(person[:, 2] > 0)[0])
    x, y = person[joint, :2]
    image = np.zeros((ours.images[index].height, ours.images[index].width, 3), np.uint8)
    image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 255
    composer = Composer(1.0, COCO, 96, 0)
    rng = np.random.default_rng(0)
    base = Layer(np.zeros((96, 96, 3), np.uint8), np.zeros((0, 17, 3), np.float32), None, None)
    found = 0
    for _ in range(20):
        affine = composer._pasted(base, ours._sources[index].boxes[0], flipped, rng)
        moved = ours._layer(image, index, affine, flipped)
        where = COCO.flip[joint] if flipped else joint
        weight = moved.image[..., 0].astype(float)
        if weight[[0, -1]].any() or weight[:, [0, -1]].any() or not weight.any():
            continue
        rows, columns = np.indices(weight.shape) + 0.5
        centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        near = math.dist(centre, moved.keypoints[0, where, :2])
        assert near < 1 + affine.scale
        found += 1
    assert found > 3


@pytest.mark.parametrize("joints", [COCO, CROWDPOSE])
def test_shapes_cover_most_of_the_body_and_are_soft(joints):
    """A standing person's visible joints lie inside the mask; its edge has values in between."""
    composer = Composer(1.0, joints, 96, 0)
    rng = np.random.default_rng(2)
    names = list(joints.names)
    person = np.zeros((len(joints), 3), np.float32)
    heights = {"shoulder": 30, "elbow": 42, "wrist": 52, "hip": 52, "knee": 66, "ankle": 80}
    for j, name in enumerate(names):
        part = next((part for part in heights if part in name), None)
        x = 48 + (0 if part is None else 7 if "left" in name else -7)
        person[j] = (x, heights.get(part, 20), 2)
    box = np.array([36.0, 14, 24, 70])
    from dhn.data.geometry import Affine

    same = Affine(np.array([[1.0, 0, 0], [0, 1, 0]]))
    kinds = set()
    for _ in range(12):
        alpha = composer._shape(person, box, same, rng)
        assert alpha.shape == (96, 96)
        assert alpha.dtype == np.float32
        assert alpha.min() == 0
        assert alpha.max() <= 1
        assert ((alpha > 0.1) & (alpha < 0.9)).any()
        pixels = np.floor(person[:, :2]).astype(int)
        assert (alpha[pixels[:, 1], pixels[:, 0]] > 0.5).all()
        outside = np.ones((96, 96), bool)
        outside[8:90, 28:68] = False
        assert alpha[outside].max() < 0.5
        kinds.add(bool((alpha > 0.5).sum() > 0.8 * 24 * 70))
    assert kinds == {True, False}  # patches and bodies


def test_sources_without_people_are_passed_over(crowd):
    composer = Composer(1.0, COCO, 96, 0)
    base = Layer(np.zeros((96, 96, 3), np.uint8), np.zeros((0, 17, 3), np.float32), None, None)
    nobody = Source((10, 10), np.zeros((0, 4)), np.zeros(0, np.int64))

    def read(*_):
        raise AssertionError("read")

    assert composer.compose(base, 0, 0, [nobody] * 3, read) is base
