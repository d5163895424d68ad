import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from coco_sets import CrowdFolder
from dhn.base.errors import DhnError
from dhn.data.annotations import load_annotations
from dhn.data.dataset import Augmentation, EpochSampler, PoseDataset, Sample, collate
from dhn.data.joints import CROWDPOSE
from dhn.data.masks import ignore_mask
from dhn.media.images import write_image
from dhn.model.normalise import MEAN, STD, normalise

W, H, S = 180, 130, 192
RED, GREEN, BLUE = np.eye(3, dtype=int) * 255
STILL = Augmentation(rotation=0, scale=(1.2, 1.2), translation=0, flip=0)


class Folder(CrowdFolder):
    def dataset(self, augmentation=STILL, **arguments):
        annotations = load_annotations(self.write(), "train")
        return PoseDataset(annotations, input_size=S, augmentation=augmentation, **arguments)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def dot(rgb, x, y, colour, radius=4):
    """Draws a disc around the point (x, y), anti-aliased by 16 x 16 samples in each pixel."""
    fine = (np.arange(16 * 16) + 0.5) / 16  # of a 16 x 16 window
    left, top = int(x) - 8, int(y) - 8
    inside = (fine + left - x) ** 2 + (fine[:, None] + top - y) ** 2 <= radius**2
    share = inside.reshape(16, 16, 16, 16).mean((1, 3))
    window = rgb[top : top + 16, left : left + 16]
    np.maximum(window, (share[..., None] * colour).astype(np.uint8), out=window)


def centre(channel):
    """The centre of gravity in continuous coordinates, or None if the dot is not all visible."""
    rows, columns = np.indices(channel.shape) + 0.5
    weight = channel.astype(float)
    border = weight[[0, -1]].any() or weight[:, [0, -1]].any()
    if border or not weight.any():
        return None
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


LEFT, RIGHT, HEAD = (60.3, 50.8), (118.6, 43.2), (88.5, 92.25)
ALL = Augmentation(rotation=180, scale=(0.6, 2.5), translation=40, flip=0.5)


@pytest.fixture
def dots(folder):
    """Left shoulder red, right shoulder green, head blue."""
    rgb = np.zeros((H, W, 3), np.uint8)
    for point, colour in ((LEFT, RED), (RIGHT, GREEN), (HEAD, BLUE)):
        dot(rgb, *point, colour)
    joints = {
        "left_shoulder": (*LEFT, 2),
        "right_shoulder": (*RIGHT, 1),
        "head": (*HEAD, 2),
    }
    return folder.image(rgb).person(joints)


@pytest.mark.parametrize(
    "augmentation",
    [
        None,
        STILL,
        Augmentation(rotation=180, scale=(1.3, 1.3), translation=0, flip=0),
        Augmentation(rotation=0, scale=(0.7, 3), translation=0, flip=0),
        Augmentation(rotation=0, scale=(1.3, 1.3), translation=60, flip=0),
        Augmentation(rotation=0, scale=(1.2, 1.2), translation=0, flip=1),
        Augmentation(),
        ALL,
    ],
    ids=["none", "still", "rotation", "scale", "translation", "flip", "paper", "all"],
)
def test_keypoints_stay_on_their_pixels(dots, augmentation):
    dataset = dots.dataset(augmentation)
    seen = 0
    for epoch in range(25):
        image, (person,), mask, *_ = dataset.sample(epoch, 0)
        assert image.shape == (S, S, 3)
        assert mask is None
        red, green, blue = map(centre, cv2.split(image))
        joints = dict(zip(CROWDPOSE.names, person, strict=True))
        left, right = joints["left_shoulder"], joints["right_shoulder"]
        mirrored = left[2] == 1  # the right shoulder is the one with v = 1
        assert {left[2], right[2], joints["head"][2]} == {1, 2}
        for where, keypoint in (
            (green if mirrored else red, left),
            (red if mirrored else green, right),
            (blue, joints["head"]),
        ):
            if where is not None:
                seen += 1
                np.testing.assert_allclose(keypoint[:2], where, atol=0.3)
        assert np.count_nonzero(person) == 9  # unlabelled joints stay zero
    assert seen >= 25  # enough dots were all visible


def test_a_flipped_sample_is_the_mirror_image(dots):
    plain = dots.dataset(STILL).sample(0, 0)
    flipped = dots.dataset(Augmentation(0, (1.2, 1.2), 0, flip=1)).sample(0, 0)
    assert np.abs(flipped.image[:, ::-1].astype(int) - plain.image).max() <= 2
    left, right = CROWDPOSE.names.index("left_shoulder"), CROWDPOSE.names.index("right_shoulder")
    np.testing.assert_allclose(flipped.keypoints[0, left, 0], S - plain.keypoints[0, right, 0])
    np.testing.assert_allclose(flipped.keypoints[0, left, 1:], plain.keypoints[0, right, 1:])


def measured(dataset, epochs):
    """For each epoch: zoom, angle in degrees, shift of the image's centre in input pixels."""
    names = CROWDPOSE.names
    before = complex(*HEAD) - complex(*LEFT)
    for epoch in range(epochs):
        (person,) = dataset.sample(epoch, 0).keypoints.astype(float)
        points = {name: complex(*person[j, :2]) for j, name in enumerate(names)}
        turn = (points["head"] - points["left_shoulder"]) / before
        middle = points["head"] + turn * (complex(W / 2, H / 2) - complex(*HEAD))
        yield abs(turn), math.degrees(np.angle(turn)), (middle.real - S / 2, middle.imag - S / 2)


def test_augmentation_draws_from_the_papers_ranges(dots):
    zooms, angles, shifts = zip(
        *measured(dots.dataset(Augmentation(rotation=30, flip=0)), 300), strict=True
    )
    side = S / np.array(zooms) / H  # of the crop, in units of the short side
    assert 0.75 <= side.min() < 0.79
    assert 1.46 < side.max() <= 1.5001
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30.001
    # 40 / 200 of the crop's side each way, before the turn.
    turns = np.exp(-1j * np.radians(angles))
    moves = (np.array([complex(*s) for s in shifts]) * turns) / S
    for part in (moves.real, moves.imag):
        assert 0.18 < np.abs(part).max() <= 0.2001
        assert abs(part.mean()) < 0.02


def test_flip_probability(dots):
    dataset = dots.dataset(Augmentation(0, (1, 1), 0, flip=0.25))
    left = CROWDPOSE.names.index("left_shoulder")
    flips = sum(dataset.sample(epoch, 0).keypoints[0, left, 2] == 1 for epoch in range(300))
    assert 50 <= flips <= 100


def test_without_augmentation_the_whole_image_is_centred(dots):
    image, (person,), *_ = dots.dataset(None).sample(0, 0)
    zoom = S / max(W, H)
    head = person[CROWDPOSE.names.index("head")]
    expected = np.array(HEAD) * zoom + [0, (S - H * zoom) / 2]
    np.testing.assert_allclose(head[:2], expected, atol=1e-4)
    assert not image[0].any()
    assert not image[-1].any()  # black above and below


POLYGON = [(70, 30), (150, 45), (140, 110), (90, 95)]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_masks_warp_with_their_image(folder, flip):
    """The ignored pixels are painted white in the image, and those that are white stay ignored."""
    flat = [float(v) for corner in POLYGON for v in corner]
    folder.image().person({"head": (20, 20, 2)}).person(
        {"neck": (100, 60, 2)}, iscrowd=1, segmentation=[flat]
    )
    augmentation = Augmentation(rotation=40, scale=(0.8, 1.6), translation=40, flip=flip)
    dataset = folder.dataset(augmentation)
    painted = 255 * (1 - ignore_mask(dataset.images[0]))
    write_image(dataset.images[0].path, np.repeat(painted[..., None], 3, 2))
    for epoch in range(10):
        image, keypoints, mask, *_ = dataset.sample(epoch, 0)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        assert len(keypoints) == 1  # a crowd is nobody
        white = (image[..., 0] > 127).astype(np.uint8)
        ignored = 1 - mask
        thick = np.ones((3, 3), np.uint8)  # the outline may lie a pixel off
        assert not (cv2.erode(ignored, thick) & ~white & 1).any()
        assert not (cv2.erode(white, thick) & mask).any()
        assert ignored.any()


def test_people_without_joints_are_ignored_and_padding_counts(folder):
    box = [0.0, 0.0, float(W), 0.0, float(W), float(H), 0.0, float(H)]
    folder.image().person({"head": (20, 20, 2)}).person({}, segmentation=[box])
    _, keypoints, mask, *_ = folder.dataset(None).sample(0, 0)
    assert len(keypoints) == 1
    top = (S - H * S / W) / 2
    assert mask[: int(top) - 1].all()  # padding is counted
    assert not mask[int(top) + 2 : S - int(top) - 2].any()


def test_a_mask_of_another_size_than_its_image_is_named(folder):
    square = [[0.0, 0.0, 50.0, 0.0, 50.0, 50.0]]
    folder.image(width=W + 1).person({"head": (20, 20, 2)}).person({}, segmentation=square)
    with pytest.raises(DhnError, match=rf"1.png: is {W} x {H} pixels, .* for {W + 1} x {H}"):
        folder.dataset().sample(0, 0)


def test_the_largest_people_are_kept(folder):
    folder.image()
    for x, area in ((30, 100), (60, 900), (90, 50), (120, 400)):
        folder.person({"head": (x, 20, 2)}, bbox=[0, 0, 10, area / 10], area=area)
    head = CROWDPOSE.names.index("head")
    dataset = folder.dataset(None, max_people=2)
    kept = dataset.sample(0, 0).keypoints[:, head, 0] * W / S
    np.testing.assert_allclose(kept, [60, 120], atol=1e-3)
    assert dataset.left_out == [2]
    assert len(folder.dataset(None).sample(0, 0).keypoints) == 4
    assert folder.dataset(None).left_out == []


def test_images_without_labelled_joints(folder):
    folder.image().image().person({}).image().person({"head": (1, 2, 1)})
    folder.image().person({"head": (1, 2, 2)}, iscrowd=1)
    assert [p.id for p in folder.dataset().images] == [3]
    everything = folder.dataset(Augmentation(flip=1), keep_empty=True)
    assert len(everything) == 4
    assert everything.sample(0, 0).keypoints.shape == (0, 14, 3)


def test_a_sample_depends_on_seed_epoch_and_index_alone(dots):
    dots.image(np.full((H, W, 3), 90, np.uint8)).person({"head": (50, 50, 2)})

    def draw(epoch, index, seed=3):
        dataset = dots.dataset(Augmentation(colour=0.5), seed=seed)
        sample = dataset[epoch, index]
        return sample.image.tobytes() + sample.keypoints.tobytes()

    expected = draw(2, 0)
    np.random.seed(0)  # noqa: NPY002  the global state must not matter
    dataset = dots.dataset(Augmentation(colour=0.5), seed=3)
    for key in ((0, 0), (1, 1), (2, 1)):
        dataset[key]
    sample = dataset[2, 0]
    assert sample.image.tobytes() + sample.keypoints.tobytes() == expected
    assert draw(3, 0) != expected
    assert draw(2, 1) != expected
    assert draw(2, 0, seed=4) != expected


def test_reading_a_sample_leaves_the_annotations_alone(dots):
    dataset = dots.dataset(Augmentation())
    before = dataset.images[0].people[0].keypoints.copy()
    dataset.sample(0, 0)
    np.testing.assert_array_equal(dataset.images[0].people[0].keypoints, before)


def test_colour_moves_pixels_but_not_keypoints(dots):
    plain = dots.dataset(Augmentation(colour=0)).sample(5, 0)
    recoloured = dots.dataset(Augmentation(colour=1)).sample(5, 0)
    np.testing.assert_array_equal(plain.keypoints, recoloured.keypoints)
    assert recoloured.image.dtype == np.uint8
    assert (plain.image != recoloured.image).any()


def test_bad_images_are_gathered_not_raised(folder):
    for _ in range(4):
        folder.image().person({"head": (50, 50, 2)})
    images = folder.root / "images"
    (images / "2.png").unlink()
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:100])
    dataset = folder.dataset()
    batch = collate([dataset[0, index] for index in range(4)])
    assert batch.image.shape == (2, 3, S, S)
    assert len(batch.failures) == 2
    assert all("\n" not in line for line in batch.failures)
    assert "2.png: cannot be read" in batch.failures[0]
    assert "3.png: the image is cut short" in batch.failures[1]
    nothing = collate([dataset[0, 1], dataset[0, 2]])
    assert len(nothing.image) == 0
    assert len(nothing.failures) == 2


def test_collate_pads_people_with_zeros_and_masks_with_ones():
    def sample(people, mask):
        image = np.full((4, 4, 3), people, np.uint8)
        return Sample(image, np.full((people, 14, 3), people, np.float32), mask)

    batch = collate([sample(1, None), sample(3, np.zeros((4, 4), np.uint8)), sample(0, None)])
    assert batch.image.dtype == torch.uint8
    assert batch.image.shape == (3, 3, 4, 4)
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.keypoints.shape == (3, 3, 14, 3)
    assert batch.keypoints[0, 0].eq(1).all()
    assert not batch.keypoints[0, 1:].any()
    assert batch.keypoints[1].eq(3).all()
    assert not batch.keypoints[2].any()
    assert batch.mask.flatten(1).float().mean(1).tolist() == [1, 0, 1]
    assert collate([sample(1, None), sample(2, None)]).mask is None
    assert collate([sample(0, None)]).keypoints.shape == (1, 0, 14, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(folder, workers):
    for n in range(5):
        folder.image(np.full((H, W, 3), 40 * n, np.uint8))
        for _ in range(n % 3 + 1):
            folder.person({"head": (50, 50 + n, 2), "neck": (70, 60, 1)})
    dataset = folder.dataset(Augmentation(colour=0.3))
    sampler = EpochSampler(len(dataset), 2, seed=1)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
    for epoch in range(2):
        sampler.epoch = epoch
        assert len(loader) == 3
        for keys, batch in zip(sampler, loader, strict=True):
            by_hand = collate([dataset[key] for key in keys])
            assert torch.equal(batch.image, by_hand.image)
            assert torch.equal(batch.keypoints, by_hand.keypoints)
            names = [str(dataset.images[index].path) for _, index in keys]
            assert batch.names == by_hand.names == names


def test_an_epoch_covers_every_image_once_in_an_order_of_its_own():
    sampler = EpochSampler(20, 6, seed=5)
    orders = []
    for epoch in range(3):
        sampler.epoch = epoch
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [6, 6, 6, 2]
        assert [sampler.size(k) for k in range(sampler.batches)] == [6, 6, 6, 2]
        assert {e for batch in batches for e, _ in batch} == {epoch}
        orders.append([index for batch in batches for _, index in batch])
        assert sorted(orders[-1]) == list(range(20))
        assert batches == list(sampler)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])
    other = EpochSampler(20, 6, seed=6)
    assert [index for batch in other for _, index in batch] != orders[0]


def test_an_epoch_goes_on_where_it_was_left():
    sampler = EpochSampler(10, 4, seed=0, parts=2)
    whole = list(sampler)
    sampler.start = 2
    assert list(sampler) == whole[4:]
    assert len(sampler) == 2
    sampler.start = 3
    assert list(sampler) == []


@settings(max_examples=50)
@given(
    length=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    parts=st.integers(1, 4),
    processes=st.integers(1, 5),
)
def test_processes_and_parts_share_the_batches_of_one_process(length, batch_size, parts, processes):
    alone = list(EpochSampler(length, batch_size, 3))
    shares = [
        EpochSampler(length, batch_size, 3, parts=parts, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    lists = [list(share) for share in shares]
    assert {len(each) for each in lists} == {len(shares[0])} == {parts * len(alone)}
    for k, batch in enumerate(alone):
        split = [part for each in lists for part in each[k * parts : (k + 1) * parts]]
        assert sorted(key for part in split for key in part) == sorted(batch)
        # A process's share, and a part of it, differ by one image at most.
        share = [sum(map(len, each[k * parts : (k + 1) * parts])) for each in lists]
        assert max(share) - min(share) <= 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalise_is_imagenets(layout):
    image = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8).to(memory_format=layout)
    before = image.clone()
    got = normalise(image)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    for c in range(3):
        expected = (image[:, c].double() / 255 - MEAN[c]) / STD[c]
        torch.testing.assert_close(got[:, c].double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(image, before)
