"""Several data sets as one."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coco_sets import PAW, make_set, write_images
from dhn.data.annotations import load_annotations
from dhn.data.dataset import Augmentation, EpochSampler, PoseDataset
from dhn.data.joints import COCO, CROWDPOSE
from dhn.data.labels import count_kept
from dhn.data.mixture import COMMON, JOINT_SETS, Mixture, joined, with_joints


@pytest.fixture
def sets(tmp_path):
    """sets(joints, ...): annotations of a made set in a folder of its own."""

    def make(joints, **how):
        folder = tmp_path / f"{joints.name}-{how.get('seed', 0)}"
        folder.mkdir()
        raw = make_set(joints=joints, crowd_index=False, **how)
        if joints == COCO:
            raw["annotations"][0]["partial"] = True
        (folder / "annotations").mkdir()
        (folder / "annotations" / "train.json").write_text(json.dumps(raw))
        write_images(folder, raw)
        return load_annotations(folder, "train")

    return make


def test_the_common_joints_are_those_of_either_set():
    assert set(COMMON.names) == set(COCO.names) | set(CROWDPOSE.names)
    for j, name in enumerate(COMMON.names):
        mirrored = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert COMMON.names[COMMON.flip[j]] == mirrored
        known = CROWDPOSE if name in ("head", "neck") else COCO
        assert COMMON.sigmas[j] == known.sigmas[known.names.index(name)]
    limbs = {frozenset((COMMON.names[a], COMMON.names[b])) for a, b in COMMON.skeleton}
    assert {frozenset((COCO.names[a], COCO.names[b])) for a, b in COCO.skeleton} < limbs
    assert frozenset(("head", "neck")) in limbs
    assert sorted(COMMON.grouping_order) == list(range(19))


@pytest.mark.parametrize("target", JOINT_SETS)
@pytest.mark.parametrize("own", [COCO, CROWDPOSE], ids=["coco", "crowdpose"])
def test_joints_go_by_name_and_missing_ones_are_unknown(sets, own, target):
    annotations, joints = sets(own), JOINT_SETS[target]
    mapped = with_joints(annotations, joints)
    assert mapped.joints == joints
    if own == joints:
        assert mapped is annotations
    for before, after in zip(annotations.images, mapped.images, strict=True):
        assert after.path == before.path
        for theirs, ours in zip(before.people, after.people, strict=True):
            for j, name in enumerate(joints.names):
                labelled = (theirs.keypoints[:, 2] > 0).any() and not theirs.iscrowd
                if name not in own.names:
                    assert not ours.keypoints[j].any()
                    assert (ours.unknown is not None and ours.unknown[j]) == labelled
                    continue
                was = own.names.index(name)
                assert np.array_equal(ours.keypoints[j], theirs.keypoints[was])
                before_unknown = theirs.unknown is not None and bool(theirs.unknown[was])
                now = ours.unknown is not None and bool(ours.unknown[j])
                assert now == before_unknown


def test_joints_of_other_names_are_said(sets):
    paws = sets(PAW)
    mapped = with_joints(paws, COCO, {"l_ear": "left_ear", "r_ear": "right_ear"})
    (person, *_), (before, *_) = mapped.images[0].people, paws.images[0].people
    assert np.array_equal(person.keypoints[3], before.keypoints[1])
    assert np.array_equal(person.keypoints[4], before.keypoints[2])
    assert np.array_equal(person.keypoints[0], before.keypoints[0])  # the nose, by its name
    assert person.unknown.tolist() == [False, True, True, False, False] + [True] * 12


@pytest.mark.parametrize(
    ("renamed", "complaint"),
    [
        ({"horn": "nose"}, "has no joint 'horn'; it has nose, l_ear, r_ear, tail"),
        ({"tail": "horn"}, "there is no joint 'horn'; use nose, left_eye"),
    ],
)
def test_unknown_names_are_refused(sets, renamed, complaint):
    with pytest.raises(ValueError, match=complaint):
        with_joints(sets(PAW), COCO, renamed)


def test_sets_without_a_common_joint_are_refused(sets):
    with pytest.raises(ValueError, match="none of its joints is one of crowdpose"):
        with_joints(sets(PAW), CROWDPOSE)


def test_somebody_without_a_joint_of_the_new_set_is_not_background(sets):
    """Head and neck are unknown where only a face was labelled; nothing is learnt from it alone."""
    annotations = sets(COCO, images=3)
    for image in annotations.images:
        for person in image.people:
            person.keypoints[5:] = 0  # a face alone
    mapped = with_joints(annotations, CROWDPOSE)
    assert count_kept(mapped, keep_empty=False) == 0
    with_everybody = PoseDataset(mapped, input_size=64, keep_empty=True, augmentation=None)
    sample = with_everybody.sample(0, 0)
    assert len(sample.keypoints) == sum(not person.iscrowd for person in mapped.images[0].people)
    assert (sample.keypoints[:, -2:, 2] == -1).all()
    assert (sample.keypoints[..., 2] <= 0).all()
    assert np.all(sample.boxes[:, 2:] > sample.boxes[:, :2])


def test_joined_sets_follow_each_other(sets):
    parts = [sets(COCO), sets(COCO, seed=1), with_joints(sets(CROWDPOSE), COCO)]
    whole = joined(parts)
    assert whole.images == [image for part in parts for image in part.images]
    dataset = PoseDataset(whole, input_size=64, augmentation=Augmentation())
    assert len(dataset) == sum(count_kept(part, keep_empty=False) for part in parts)
    sample = dataset.sample(0, len(dataset) - 1)
    assert (sample.keypoints[:, :5, 2] == -1).all()  # CrowdPose has no face
    assert joined(parts[:1]) is parts[0]


mixtures = st.lists(st.tuples(st.integers(0, 20), st.floats(0.05, 3.5)), min_size=1, max_size=4)


@given(parts=mixtures, seed=st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_an_epoch_shows_images_by_their_weight(parts, seed):
    sizes, weights = zip(*parts, strict=True)
    mixture = Mixture(sizes, weights)
    drawn = mixture.draw(np.random.default_rng(seed)).tolist()
    assert len(drawn) == mixture.samples
    assert len(set(drawn)) == len(drawn)  # the same image is another sample
    total = sum(sizes)
    shown = Counter(sample % total for sample in drawn) if total else Counter()
    repeats = {}
    for sample in drawn:
        repeats.setdefault(sample % total, set()).add(sample // total)
    assert all(kinds == set(range(len(kinds))) for kinds in repeats.values())
    offset = 0
    for size, weight in parts:
        counts = [shown[offset + j] for j in range(size)]
        assert sum(counts) == round(size * weight)
        assert not counts or max(counts) - min(counts) <= 1
        offset += size


def test_epochs_are_drawn_anew_and_can_be_drawn_again():
    mixture = Mixture((10, 6), (0.5, 2.0))
    sampler = EpochSampler(mixture.samples, 4, seed=3, mixture=mixture)

    def epoch(number, start=0):
        sampler.epoch, sampler.start = number, start
        return list(sampler)

    first, second = epoch(0), epoch(1)
    assert first == epoch(0)
    assert first[2:] == epoch(0, start=2)
    samples = [sorted(itertools.chain(*batches)) for batches in (first, second)]
    assert [i for _, i in samples[0]] != [i for _, i in samples[1]]
    assert len(samples[0]) == 17
    shares = [
        EpochSampler(17, 4, seed=3, mixture=mixture, rank=rank, processes=2) for rank in (0, 1)
    ]
    dealt = [sorted(a + b) for a, b in zip(*shares, strict=True)]
    assert dealt == [sorted(batch) for batch in first]


def test_the_same_image_becomes_different_samples_in_an_epoch(sets):
    dataset = PoseDataset(sets(COCO), input_size=64, augmentation=Augmentation(colour=0.5))
    n = len(dataset)
    once, again, later = (dataset.sample(0, 1 + k * n) for k in range(3))
    assert once.name == again.name == later.name
    assert not np.array_equal(once.image, again.image)
    assert not np.array_equal(again.image, later.image)
    assert np.array_equal(again.image, dataset[0, 1 + n].image)
