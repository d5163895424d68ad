"""`dhn predict` with a predictor that needs no network."""

import csv
import json
import os
import threading

import numpy as np
import pytest

from blue_people import POSE, image, images, lines, make_video, names
from dhn.data.joints import CROWDPOSE
from dhn.media.images import read_image, write_image
from dhn.media.video import VideoReader


def test_without_output_options_everything_goes_to_predictions(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    make_video(tmp_path / "clip.mp4", [1, 0, 2])
    result = run("two.png", "clip.mp4")
    assert names("predictions") == [
        "clip.mp4.predictions.jsonl",
        "clip.mp4.predictions.mp4",
        "two.png.predictions.jpg",
        "two.png.predictions.json",
    ]
    assert "4 images, 5 people -> predictions" in result.stdout
    assert "network 100.0 ms, decode 10.0 ms" in result.stdout
    assert "Weights: people, the small network that dhn brings (" in result.stdout
    result = run("two.png", "--checkpoint", "runs/test/best.pt")
    assert "Weights: runs/test/best.pt\n" in result.stdout


def test_people_in_json_are_as_openpifpaf_writes_them(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    run("two.png", "--json-output", "out.json")
    (entry,) = images(tmp_path / "out.json")
    people = entry["predictions"]
    assert [person["score"] for person in people] == pytest.approx([0.9, 0.8])
    for number, person in enumerate(people):
        assert list(person) == ["keypoints", "states", "bbox", "score", "category_id"]
        assert person["category_id"] == 1
        expected = POSE + np.array([3 * number, 0, 0])
        expected[3] = 0
        np.testing.assert_allclose(np.reshape(person["keypoints"], (14, 3)), expected, atol=1e-3)
        assert person["bbox"] == pytest.approx([10 + 3 * number, 5, 40, 35])
    assert names(tmp_path) == ["out.json", "two.png"]  # no overlay was asked for


def test_an_image_without_people(run, tmp_path):
    write_image(tmp_path / "none.png", image(0))
    run("none.png", "--json-output", "out.json", "-o", "overlays", "--csv-output", "out.csv")
    assert [entry["predictions"] for entry in images(tmp_path / "out.json")] == [[]]
    overlay = read_image(tmp_path / "overlays" / "none.png.predictions.jpg")
    assert np.abs(overlay.astype(int) - image(0)).max() < 5
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


def test_conf_leaves_people_out(run, tmp_path):
    write_image(tmp_path / "many.png", image(6))
    run("many.png", "--conf", "0.65", "--json-output", "out.json")
    (entry,) = images(tmp_path / "out.json")
    scores = [person["score"] for person in entry["predictions"]]
    assert scores == pytest.approx([0.9, 0.8, 0.7])


def test_weak_joints_are_left_out(run, tmp_path, monkeypatch):
    write_image(tmp_path / "one.png", image(1))
    weaker = POSE.copy()
    weaker[4:6, 2] = 0.3, 0.4
    monkeypatch.setattr("blue_people.POSE", weaker)
    run("one.png", "--joint-conf", "0.35", "--json-output", "out.json")
    (person,) = images(tmp_path / "out.json")[0]["predictions"]
    assert [j for j, state in enumerate(person["states"]) if state == "missing"] == [3, 4]


def test_batches_cross_files(run, tmp_path, predictor):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", image(i))
    run(".", "-b", "2", "--json-output", "out.jsonl")
    assert predictor.batches == [2, 2, 1]
    assert [len(line["predictions"]) for line in lines(tmp_path / "out.jsonl")] == [0, 1, 2, 3, 4]


def test_same_names_do_not_overwrite_each_other(run, tmp_path):
    for folder, people in (("a", 1), ("b", 2)):
        write_image(tmp_path / folder / "photo.png", image(people))
    run("a/photo.png", "b/photo.png")
    assert names("predictions") == [
        f"photo{n}.png.predictions.{suffix}" for n in ("-2", "") for suffix in ("jpg", "json")
    ]
    for name, people in (("photo.png", 1), ("photo-2.png", 2)):
        (entry,) = images(tmp_path / "predictions" / f"{name}.predictions.json")
        assert len(entry["predictions"]) == people


def test_table(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    make_video(tmp_path / "clip.mp4", [0, 1])
    run("two.png", "clip.mp4", "--csv-output", "out.csv")
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["frame"], row["person"]) for row in rows] == [
        ("two.png", "", "0"),
        ("two.png", "", "1"),
        ("clip.mp4", "1", "0"),
    ]
    assert [row["time"] for row in rows] == ["", "", "0.04"]
    assert [row["id"] for row in rows] == [""] * 3
    box = [float(rows[1][f"box_{side}"]) for side in ("left", "top", "width", "height")]
    assert box == pytest.approx([13, 5, 40, 35])
    for number, row in enumerate(rows[:2]):
        for pose, joint in zip(POSE, CROWDPOSE.names, strict=True):
            cells = [row[f"{joint}_{value}"] for value in ("x", "y", "score")]
            assert row[f"{joint}_state"] == ("seen" if pose[2] else "missing")
            if pose[2] == 0:
                assert cells == ["", "", ""]
            else:
                expected = pose + np.array([3 * number, 0, 0])
                np.testing.assert_allclose(np.array(cells, float), expected, atol=1e-3)


def test_an_image_on_standard_input(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    run("-", "-o", "out", input=(tmp_path / "two.png").read_bytes())
    assert names("out") == ["stdin.predictions.jpg"]
    result = run("-", "-o", "out", input=b"", code=1)
    assert "Error: standard input: is empty" in result.stderr


def test_bad_images_are_listed_and_the_rest_goes_on(run, tmp_path):
    write_image(tmp_path / "photo.jpg", image(1, 300, 400))
    data = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.txt").write_text("not an image")
    result = run(
        "cut.jpg", "missing.jpg", "photo.jpg", "empty.png", "text.txt", "-o", "out", code=1
    )
    assert names("out") == ["photo.jpg.predictions.jpg"]
    assert "1 image, 1 person -> out" in result.stdout
    complaints = result.stderr.splitlines()
    for complaint, name in zip(
        complaints, ("cut.jpg", "missing.jpg", "empty.png", "text.txt"), strict=False
    ):
        assert complaint.startswith(f"Failed: {name}: ")
    assert complaints[4:] == ["Error: 4 of 5 sources failed; they are listed above"]


@pytest.mark.parametrize("name", ["missing.jpg", "missing.mp4", "folder", "*.jpg"])
def test_nothing_to_read_is_one_line(run, tmp_path, name):
    (tmp_path / "folder").mkdir()
    result = run(name, code=1)
    assert result.stderr.startswith(f"Error: {name}: ")
    assert len(result.stderr.splitlines()) == 1
    assert names(tmp_path) == ["folder"]


def test_ctrl_c_keeps_whole_files(run, tmp_path, predictor):
    write_image(tmp_path / "a.png", image(1))
    make_video(tmp_path / "clip.mp4", [1] * 200)
    predictor.interrupt_after = 6
    run("a.png", "clip.mp4", "-o", "out", "--json-output", "out", "--csv-output", "t.csv", code=1)
    frames = len(lines(tmp_path / "out" / "clip.mp4.predictions.jsonl"))
    assert 6 <= frames < 200  # those under way are written, too
    assert len(list(VideoReader("out/clip.mp4.predictions.mp4"))) == frames
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + 1 + frames
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dhn ")]
    assert names("out") == [
        "a.png.predictions.jpg",
        "a.png.predictions.json",
        "clip.mp4.predictions.jsonl",
        "clip.mp4.predictions.mp4",
    ]


@pytest.mark.parametrize("option", ["-o", "--json-output", "--csv-output"])
def test_an_output_that_cannot_be_written_is_one_line(run, tmp_path, option):
    write_image(tmp_path / "a.png", image(1))
    (tmp_path / "file").write_text("in the way")
    result = run("a.png", option, "file/out", code=1)
    assert "Error: file/out" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert names(tmp_path) == ["a.png", "file"]


@pytest.mark.parametrize("option", ["-o", "--json-output", "--csv-output", "--video-output"])
def test_a_full_disk_is_one_line_and_leaves_nothing(run, tmp_path, full_disk, option):
    make_video(tmp_path / "clip.mp4", [6] * 40)
    with full_disk(1500):
        result = run("clip.mp4", option, "out", code=1)
    assert result.stderr.startswith("Error: out")
    assert "cannot be written (File too large)" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    left = [name for _, _, files in os.walk(tmp_path) for name in files]
    assert left == ["clip.mp4"]


def test_inputs_are_not_overwritten(run, tmp_path):
    make_video(tmp_path / "a.mp4", [1])
    make_video(tmp_path / "b.mp4", [1])
    data = (tmp_path / "a.mp4").read_bytes()
    for arguments, reason in (
        (("a.mp4", "--video-output", tmp_path / "a.mp4"), "overwritten"),
        (("a.mp4", "b.mp4", "--video-output", "out.mp4"), "name a folder"),
        (("a.mp4", "--video-output", "out.avi"), "name an .mp4 file"),
        (("a.png", "--video-output", "out.mp4"), "no video"),
    ):
        assert reason in run(*arguments, code=1).stderr
    assert (tmp_path / "a.mp4").read_bytes() == data


def test_usage_errors_exit_with_2(run):
    for arguments in ((), ("a.jpg", "-b", "0"), ("a.jpg", "--conf", "2"), ("a.jpg", "--nonsense")):
        run(*arguments, code=2)


def test_quiet_prints_results_only(run, tmp_path):
    write_image(tmp_path / "a.png", image(1))
    assert run("a.png", "-q").output == "1 image, 1 person -> predictions\n"


def test_results_on_standard_output_stand_alone(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    result = run("two.png", "--json-output", "-")
    header, entry = (json.loads(line) for line in result.stdout.splitlines())
    assert header["weights"] == "runs/test/best.pt"
    expected = {"flip": True, "conf": 0.1, "joint_conf": 0.0, "vid_stride": 1, "track": False}
    assert header["settings"].items() >= expected.items()
    assert len(entry["predictions"]) == 2
    assert "1 image, 2 people -> standard output" in result.stderr
    assert names(tmp_path) == ["two.png"]


def test_formats_of_other_tools(run, tmp_path):
    write_image(tmp_path / "two.png", image(2))
    make_video(tmp_path / "clip.mp4", [1, 2])
    run(
        *("two.png", "clip.mp4", "--save-txt", "--coco-output", "coco.json"),
        *("--openpose-output", "openpose", "--mot-output", "mot.txt"),
    )
    labels = ["clip_000000.txt", "clip_000001.txt", "two.txt"]
    assert names("predictions/labels") == labels
    assert len(names("openpose")) == 3
    assert len(json.loads((tmp_path / "coco.json").read_text())) == 5
    assert len((tmp_path / "mot.txt").read_text().splitlines()) == 3


def test_outputs_of_a_folder_mirror_its_sub_folders(run, tmp_path):
    write_image(tmp_path / "photos" / "a.png", image(1))
    write_image(tmp_path / "photos" / "monday" / "a.png", image(2))
    (tmp_path / "photos" / "notes.txt").write_text("")
    result = run("photos", "--json-output", "out")
    assert "2 skipped: 1 in sub-folders, 1 TXT; --recursive takes those" in result.stderr
    assert names("out") == ["a.png.predictions.json"]
    run("--source", "photos", "--recursive", "-o", "out", "--save-txt")
    assert names("out/monday") == ["a.png.predictions.jpg"]
    assert names("predictions/labels/monday") == ["a.txt"]


def test_a_half_done_folder_goes_on(run, tmp_path, predictor):
    for name in "abc":
        write_image(tmp_path / "photos" / f"{name}.png", image(1))
    make_video(tmp_path / "photos" / "clip.mp4", [1, 1])
    options = ("--json-output", "out", "--yolo-output", "labels", "--skip-existing")
    run("photos", *options)
    assert predictor.timing.images == 5
    os.remove(tmp_path / "out" / "b.png.predictions.json")
    result = run("photos", *options)
    assert "3 sources skipped: the results are there" in result.stderr
    assert predictor.timing.images == 6
    assert "4 sources skipped" in run("photos", *options).stderr
    result = run("photos", "--csv-output", "t.csv", "--skip-existing", code=1)
    assert "--skip-existing: t.csv is one file for all sources" in result.stderr


def test_habits_of_fingers(run, tmp_path, monkeypatch, predictor):
    """Options by the names that other tools have for them."""
    write_image(tmp_path / "a.png", image(1))
    asked = {}

    def load(checkpoint, **options):
        asked.update(options)
        return predictor

    monkeypatch.setattr("dhn.load", load)
    run("--source", "a.png", "--imgsz", "256", "--half", "--max-det", "7", "--json-output", "out")
    expected = {"input_size": 256, "precision": "bfloat16", "max_people": 7}
    assert asked.items() >= expected.items()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_overlays_of_images_have_the_format_that_is_asked_for(run, tmp_path, suffix):
    write_image(tmp_path / "two.png", image(2))
    run("two.png", "-o", "out", "--image-format", suffix)
    path = tmp_path / "out" / f"two.png.predictions.{suffix}"
    start = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG", "webp": b"RIFF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_overlays_follow_the_options(run, tmp_path):
    write_image(tmp_path / "two.png", image(2, 200, 200))
    plain = ("two.png", "--image-format", "png", "-o")
    pictures = {}
    for name, options in {
        "plain": (),
        "none": ("--labels", "none"),  # images have no ids
        "score": ("--labels", "score"),
        "wide": ("--line-width", "9"),
        "boxes": ("--boxes",),
    }.items():
        run(*plain, name, *options)
        pictures[name] = read_image(tmp_path / name / "two.png.predictions.png")
    np.testing.assert_array_equal(pictures["plain"], pictures["none"])
    inked = {name: (p != image(2, 200, 200)).any(-1).sum() for name, p in pictures.items()}
    assert inked["plain"] < min(inked["score"], inked["wide"], inked["boxes"])


class Watcher:
    """Takes the place of a window, and has seen enough after some images."""

    def __init__(self, enough):
        self.enough = enough
        self.shown = []

    def __call__(self):
        return self

    def show(self, image, moves):
        self.shown.append((image, moves))
        return len(self.shown) < self.enough

    def close(self):
        self.shown.append("closed")


def test_overlays_are_shown_in_order(run, tmp_path, monkeypatch):
    watcher = Watcher(enough=9)
    monkeypatch.setattr("dhn.media.window.Window", watcher)
    write_image(tmp_path / "two.png", image(2))
    make_video(tmp_path / "clip.mp4", [1, 0, 2])
    result = run("two.png", "clip.mp4", "--show")
    assert "4 images, 5 people -> a window" in result.output
    assert names(tmp_path) == ["clip.mp4", "two.png"]  # nothing is written
    *shown, last = watcher.shown
    assert last == "closed"
    assert [moves for _, moves in shown] == [False, True, True, True]
    assert (shown[0][0] != image(2)).any()
    assert np.abs(shown[2][0].astype(int) - image(0)).max() < 8  # nobody is drawn


def test_who_has_seen_enough_ends_the_run(run, tmp_path, monkeypatch):
    watcher = Watcher(enough=2)
    monkeypatch.setattr("dhn.media.window.Window", watcher)
    make_video(tmp_path / "clip.mp4", [1] * 300)
    run("clip.mp4", "--show", "--json-output", "out.jsonl")
    assert len(watcher.shown) == 3  # two frames, and the end
    assert 2 <= len(lines(tmp_path / "out.jsonl")) < 300


def test_what_a_folder_holds_and_is_passed_over_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dhn.media.sources.reads_heif", lambda: False)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        write_image(tmp_path / "in" / name, image(1))
    (tmp_path / "in" / "c.heic").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_bytes(b"")
    result = run("in", "--json-output", "out.json")
    assert (
        "3 skipped: 1 in sub-folders, 1 HEIC, 1 TXT; --recursive takes those in sub-folders; "
        "pip install pillow-heif to read HEIC"
    ) in result.stderr
