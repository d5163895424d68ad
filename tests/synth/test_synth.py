"""Procedural crowds: what is drawn is annotated, and the same seed draws the same crowd."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.data.coco_file import read_coco
from dhn.data.crowding import crowd_index
from dhn.data.joints import CROWDPOSE
from dhn.synth import CrowdConfig, Scene, generate, make_scene
from dhn.synth.annotate import body_box, seen_keypoints
from dhn.synth.body import Pose, pose_body, random_pose
from dhn.synth.figure import Figure
from dhn.synth.look import Look, random_look
from dhn.synth.render import Brush, Canvas, Light, View, draw_ellipsoid, draw_strip
from dhn.synth.scene import draw_crowd

SMALL = CrowdConfig(size=96)
FRONTAL = Light(np.array([0.0, 0.0, 1.0]))
LEFT = [j for j, name in enumerate(CROWDPOSE.names) if name.startswith("left")]
RIGHT = [CROWDPOSE.flip[j] for j in LEFT]


def standing(yaw: float = 0.0) -> Pose:
    """Arms a little away from the body, the same on both sides."""
    leg, arm = np.tile([0.0, 5.0, 4.0], (2, 1)), np.tile([0.0, 20.0, 0.0, 10.0], (2, 1))
    return Pose(legs="stand", leg=leg, arm=arm, yaw=yaw)


def figure(pose: Pose, look: Look | None = None, *, depth: float = 0.0, x: float = 100.0) -> Figure:
    """A figure whose feet are at row 190, of 100 pixels per metre."""
    look = look or random_look(np.random.default_rng(0))
    return Figure(pose_body(pose), look, View(100.0, (x, 190.0), depth))


def draw(*figures: Figure) -> tuple[Canvas, np.ndarray]:
    """The figures on a grey image of 200 x 200, and their keypoints [P, 14, 3]."""
    canvas = draw_crowd(np.full((200, 200, 3), 128.0), list(figures), FRONTAL)
    return canvas, np.array([seen_keypoints(canvas, f, k) for k, f in enumerate(figures)])


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(np.random.default_rng([1, i]), SMALL) for i in range(60)]


# Bodies


@given(seed=st.integers(0, 2**32 - 1), pitch=st.floats(-20, 30))
@settings(max_examples=60)
def test_bones_keep_their_lengths(seed: int, pitch: float) -> None:
    body = pose_body(random_pose(np.random.default_rng(seed)), pitch=pitch)
    straight = pose_body(standing())
    bones = [(a, b) for a, b in CROWDPOSE.skeleton if (a, b) not in ((12, 13), (0, 6), (1, 7))]
    for a, b in bones:  # all but the spine and the neck, which bend
        length = np.linalg.norm(body.joints[a] - body.joints[b])
        assert length == pytest.approx(np.linalg.norm(straight.joints[a] - straight.joints[b]))


@pytest.mark.parametrize(("yaw", "side"), [(0, 1), (25, 1), (180, -1), (-150, -1)])
def test_left_is_on_the_right_of_the_image_for_who_faces_us(yaw: float, side: int) -> None:
    joints = pose_body(standing(yaw)).joints
    assert (side * (joints[LEFT, 0] - joints[RIGHT, 0]) > 0.05).all()


def test_elbows_and_knees_bend_as_people_do() -> None:
    """Seen by somebody who faces us: the wrist comes forward, the ankle goes back."""
    bent = Pose("stand", np.tile([0.0, 5.0, 60.0], (2, 1)), np.tile([0.0, 10.0, 0.0, 60.0], (2, 1)))
    body = pose_body(bent)
    for side in ("left", "right"):
        assert body.joint(f"{side}_wrist")[2] > body.joint(f"{side}_elbow")[2] + 0.1
        assert body.joint(f"{side}_ankle")[2] < body.joint(f"{side}_knee")[2] - 0.1


@pytest.mark.parametrize("seed", range(8))
def test_the_lowest_point_stands_on_the_ground(seed: int) -> None:
    pose = random_pose(np.random.default_rng(seed))
    for lift in (0.0, 0.3):
        body = pose_body(pose, lift=lift)
        lowest = np.concatenate([body.joints, body.heels, body.toes, body.hands])[:, 1].min()
        assert lift <= lowest + 1e-9 <= lift + 0.12


# Solids


class Even(Light):
    """Shows every surface in its own colour, so that sums of pixels are areas."""

    def shade(self, facing: np.ndarray, towards_viewer: np.ndarray) -> np.ndarray:
        return np.ones_like(facing)


def brush(x: float = 32.0, y: float = 32.0) -> Brush:
    """Draws on 64 x 64 black pixels, one per metre."""
    return Brush(Canvas(np.zeros((64, 64, 3))), View(1.0, (x, y), 0.0), Even(FRONTAL.direction))


@pytest.mark.parametrize("radius", [3.0, 7.3, 20.0])
def test_round_things_cover_their_area_wherever_they_are(radius: float) -> None:
    edge = 0.03 * 2 * np.pi * radius  # 0.03 pixels along the outline
    for x, y in ((32.0, 32.0), (31.7, 32.4), (30.5, 30.1)):
        ball, strip = brush(x, y), brush(x, y)
        draw_ellipsoid(ball, np.zeros(3), np.eye(3), (radius,) * 3, np.ones(3))
        ends = np.array([(0, 0, 0), (0, 8, 0)])
        draw_strip(strip, ends, (radius, radius), np.ones(3))
        assert ball.canvas.rgb[..., 0].sum() == pytest.approx(np.pi * radius**2, abs=edge)
        capsule = np.pi * radius**2 + 2 * radius * 8
        assert strip.canvas.rgb[..., 0].sum() == pytest.approx(capsule, abs=edge)


def test_a_bone_that_points_at_us_is_a_disc() -> None:
    strip = brush()
    draw_strip(strip, np.array([(0, 0, 0), (0, 0, 5)]), (10.0, 10.0), np.ones(3))
    assert strip.canvas.rgb[..., 0].sum() == pytest.approx(np.pi * 100, rel=0.01)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_an_ellipsoid_is_seen_as_its_projection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    sizes = rng.uniform(5, 25, 3)
    tool = brush()
    draw_ellipsoid(tool, np.zeros(3), frame, sizes.tolist(), np.ones(3))
    sphere = rng.normal(size=(20000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    outline = cv2.convexHull(((sphere * sizes) @ frame.T)[:, :2].astype(np.float32))
    assert tool.canvas.rgb[..., 0].sum() == pytest.approx(cv2.contourArea(outline), rel=0.02)


def test_what_is_nearer_hides_what_is_farther_in_any_order() -> None:
    near, far = np.array((0.0, 0, 30)), np.zeros(3)
    images = []
    for order in ((near, far), (far, near)):
        tool = brush()
        for centre in order:
            colour = np.array((1.0, 0, 0)) if centre is near else np.array((0, 1.0, 0))
            draw_ellipsoid(tool, centre, np.eye(3), (9.0, 9.0, 9.0), colour)
        images.append(tool.canvas.rgb[28:36, 28:36])
    for image in images:
        assert (image == (1, 0, 0)).all()


# Looks


@pytest.mark.parametrize("yaw", [0, 180])
@pytest.mark.parametrize("seed", range(12))
def test_left_and_right_look_alike(seed: int, yaw: float) -> None:
    """Somebody symmetric, lit from the camera, is drawn as a symmetric image."""
    canvas, _ = draw(figure(standing(yaw), random_look(np.random.default_rng(seed))))
    difference = np.abs(canvas.rgb - canvas.rgb[:, ::-1]).max(-1)
    assert (difference > 2).mean() < 0.002  # ties of the depth buffer where two parts meet


@pytest.mark.parametrize("seed", range(6))
def test_front_and_back_look_different(seed: int) -> None:
    look = random_look(np.random.default_rng(seed))
    front, back = (draw(figure(standing(yaw), look))[0].rgb for yaw in (0, 180))
    assert (np.abs(front - back).max(-1) > 30).sum() > 40


# Annotations


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_keypoints_lie_on_the_drawn_body(seed: int) -> None:
    rng = np.random.default_rng(seed)
    canvas, keypoints = draw(figure(random_pose(rng), random_look(rng)))
    # The crown of the head lies on the outline: within two pixels will do.
    body = cv2.dilate((canvas.owner == 0).astype(np.uint8), np.ones((5, 5)))
    stool = canvas.depth > -np.inf
    for x, y, v in keypoints[0]:
        if v:
            assert body[int(y), int(x)] or stool[int(y), int(x)]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_the_box_holds_the_drawn_body_and_little_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    body = pose_body(pose)
    if pose.legs == "sit":  # without the stool, which may hide the feet
        body = replace(body, pose=replace(pose, legs="stand"))
    somebody = replace(figure(pose, random_look(rng)), body=body)
    canvas, _ = draw(somebody)
    rows, columns = np.nonzero(canvas.owner == 0)
    x, y, w, h = body_box(somebody, (200, 200))
    drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(drawn - (x, y, x + w, y + h)).max() < 10  # of a person 172 pixels tall


def test_who_stands_alone_and_faces_us_is_seen_whole() -> None:
    _, keypoints = draw(figure(standing()))
    assert (keypoints[0, :, 2] == 2).all()


def test_somebody_in_front_hides_joints() -> None:
    behind, before = figure(standing(), depth=0.0), figure(standing(), depth=1.0, x=104.0)
    _, keypoints = draw(behind, before)
    assert (keypoints[1, :, 2] == 2).all()
    assert (keypoints[0, :, 2] == 1).sum() >= 10
    np.testing.assert_array_equal(keypoints[0, :, :2], draw(behind)[1][0, :, :2])


def test_a_bar_before_the_legs_hides_the_knees_only() -> None:
    canvas, _ = draw(figure(standing()))
    knee = figure(standing()).keypoints[8]
    bar = Brush(canvas, View(100.0, (100.0, knee[1]), 10.0), FRONTAL)
    draw_strip(bar, np.array([(-0.9, 0, 0), (0.9, 0, 0)]), (0.06, 0.06), np.full(3, 90.0))
    visibility = seen_keypoints(canvas, figure(standing()), 0)[:, 2]
    hidden = [CROWDPOSE.names[j] for j in np.flatnonzero(visibility == 1)]
    assert hidden == ["left_knee", "right_knee"]


def test_the_far_side_of_a_profile_is_hidden() -> None:
    """Somebody who faces the image's right shows the right side and hides the left one."""
    _, keypoints = draw(figure(standing(90)))
    for name in ("shoulder", "elbow", "knee"):
        assert keypoints[0, CROWDPOSE.names.index(f"right_{name}"), 2] == 2
        assert keypoints[0, CROWDPOSE.names.index(f"left_{name}"), 2] == 1


def test_joints_outside_the_image_are_not_labelled() -> None:
    _, keypoints = draw(figure(standing(), x=0.0))
    outside = keypoints[0, RIGHT]  # faces us, so the right side lies beyond the left border
    assert (outside == 0).all()
    assert (keypoints[0, LEFT, 2] == 2).all()


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_crowd_index_equals_its_definition(people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = np.concatenate(
        [rng.integers(0, 20, (people, 14, 2)), rng.integers(0, 3, (people, 14, 1))], axis=2
    )
    boxes = rng.integers(0, 12, (people, 4))
    ratios = []
    for p, (x, y, w, h) in enumerate(boxes):
        own = others = 0
        for q in range(people):
            for a, b, v in keypoints[q]:
                if v > 0 and x <= a <= x + w and y <= b <= y + h:
                    own, others = own + (p == q), others + (p != q)
        ratios.append(others / max(own, 1))
    expected = sum(ratios) / people if people else 0.0
    assert crowd_index(keypoints, boxes) == pytest.approx(expected)


def test_scenes_are_well_annotated(scenes: list[Scene]) -> None:
    for scene in scenes:
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert min(height, width) == SMALL.size
        xy, v = scene.keypoints[..., :2], scene.keypoints[..., 2]
        assert np.isin(v, (0, 1, 2)).all()
        assert ((v == 2).sum(1) >= 4).all()
        assert (xy[v == 0] == 0).all()
        assert ((xy >= 0) & (xy <= (width, height))).all()
        low, high = scene.boxes[:, :2], scene.boxes[:, :2] + scene.boxes[:, 2:]
        assert ((low >= 0) & (high <= (width + 0.01, height + 0.01))).all()
        inside = (xy >= low[:, None] - 0.01) & (xy <= high[:, None] + 0.01)
        assert inside.all(-1)[v > 0].all()


def test_scenes_span_the_levels_of_crowding(scenes: list[Scene]) -> None:
    crowding = np.array([scene.crowd_index for scene in scenes])
    for low, high in ((0, 0.2), (0.2, 0.8), (0.8, np.inf)):
        assert ((crowding >= low) & (crowding < high)).sum() >= 6
    people = [len(scene.boxes) for scene in scenes]
    assert min(people) == 1
    assert max(people) >= 8
    # Ten times as many joints seen as outside: an image holds its people.
    v = np.concatenate([scene.keypoints[..., 2].ravel() for scene in scenes])
    assert (v == 2).sum() > 10 * (v == 0).sum()


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return generate(tmp_path / "crowds", 12, 5, config=SMALL)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", 12, 5, config=SMALL, processes=2)
    assert contents(again) == contents(folder)
    other = contents(generate(tmp_path / "other", 12, 6, config=SMALL))
    assert all(other[name] != data for name, data in contents(folder).items())


def test_an_image_does_not_depend_on_how_many_there_are(folder: Path, tmp_path: Path) -> None:
    fewer = contents(generate(tmp_path / "fewer", 5, 5, config=SMALL))
    whole = contents(folder)
    images = [name for name in fewer if name.endswith(".jpg")]
    assert len(images) == 5
    assert all(fewer[name] == whole[name] for name in images)


def test_the_folder_is_a_crowdpose_folder(folder: Path) -> None:
    images, annotations = [], []
    for split, size in (("train", 9), ("val", 2), ("test", 1)):
        file = read_coco(folder / "json" / f"crowdpose_{split}.json")  # checks every record
        assert file.joints == CROWDPOSE
        assert file.scoring == "crowdpose"
        assert len(file.raw["images"]) == size
        images += file.raw["images"]
        annotations += file.raw["annotations"]
    assert sorted(a["id"] for a in annotations) == list(range(1, len(annotations) + 1))
    assert len({image["id"] for image in images}) == 12
    for image in images:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        people = [a for a in annotations if a["image_id"] == image["id"]]
        keypoints = np.array([a["keypoints"] for a in people]).reshape(-1, 14, 3)
        boxes = np.array([a["bbox"] for a in people])
        assert image["crowdIndex"] == pytest.approx(crowd_index(keypoints, boxes), abs=1e-4)
        counted = (keypoints[:, :12, 2] > 0).sum(1)
        assert [a["num_keypoints"] for a in people] == counted.tolist()


def test_an_interrupted_run_never_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Scene:
        raise KeyboardInterrupt

    monkeypatch.setattr("dhn.synth.folder.make_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "crowds", 3, 0, config=SMALL)
    assert not list(tmp_path.rglob("crowdpose_*.json"))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, _: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DhnError, match=r"000001\.jpg: cannot be written \(No space left"):
        generate(tmp_path / "crowds", 3, 0, config=SMALL)


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "crowds"
    command = ["data", "synth", str(out), "--images", "3", "--size", "96", "--processes", "1"]
    first = CliRunner().invoke(main, command)
    assert (first.exit_code, first.stdout) == (0, f"{out}: 3 images\n")
    train = json.loads((out / "json" / "crowdpose_train.json").read_text())
    assert [image["id"] for image in train["images"]] == [1]

    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert f"{out}: holds crowds already" in refused.output
    again = CliRunner().invoke(main, [*command, "--overwrite", "--seed", "1", "--images", "2"])
    assert again.exit_code == 0
    assert len(list((out / "images").iterdir())) == 2


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_the_command_spares_other_folders(tmp_path: Path, overwrite: list[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"mine")
    result = CliRunner().invoke(main, ["data", "synth", str(tmp_path), "--images", "1", *overwrite])
    assert result.exit_code == 1
    assert f"{tmp_path}: is not empty" in result.output
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize("option", ["--images=0", "--size=20", "--seed=-1", "--processes=0"])
def test_bad_options_are_usage_errors(tmp_path: Path, option: str) -> None:
    assert CliRunner().invoke(main, ["data", "synth", str(tmp_path / "x"), option]).exit_code == 2
