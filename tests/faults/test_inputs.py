"""Strange inputs: one line that names the file, and the rest of a batch goes on."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import dhn.inference.predictor
from dhn.base.limits import MAX_SIDE, VARIABLE
from dhn.cli import main
from dhn.media.video import VideoReader, VideoWriter

NETWORK = ("--checkpoint", "best.pt", "--device", "cpu")
TRUTH = "crowds/json/crowdpose_val.json"
NUMBERS = [
    ("predict", "photo.png", "--conf", "nan"),
    ("predict", "photo.png", "--conf", "1e999"),
    ("predict", "photo.png", "--conf", "-0.1"),
    ("predict", "photo.png", "-b", "1e20"),
    ("predict", "photo.png", "-b", "100000000000000000000"),
    ("predict", "photo.png", "--max-people", "1317624576693539402"),
    ("predict", "photo.png", "--input-size", "99999999999"),
    ("predict", "photo.png", "--vid-stride", "99999999999999999999"),
    ("bench", "--seconds", "inf"),
    ("bench", "--seconds", "nan"),
    ("bench", "--threads", "1000000"),
    ("eval", "--limit", "99999999999999999999"),
    ("data", "synth", "out", "--images", "99999999999999999999"),
    ("data", "synth", "out", "--seed", "99999999999999999999"),
]


@pytest.mark.parametrize("arguments", NUMBERS, ids=lambda value: " ".join(value[-2:]))
def test_numbers_out_of_range_are_bad_usage(refused, arguments):
    refused(2, arguments[-2].split("/")[0])(*arguments)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def empty(path: Path) -> None:
    path.touch()


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


KINDS = [fifo, device, folder, broken_link, empty, noise]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.png", ("predict", "x.png", *NETWORK)),
        ("x.mp4", ("predict", "x.mp4", *NETWORK)),
        ("x.pt", ("predict", "photo.png", "--checkpoint", "x.pt")),
        ("x.safetensors", ("predict", "photo.png", "--checkpoint", "x.safetensors")),
        ("x.onnx", ("predict", "photo.png", "--checkpoint", "x.onnx")),
        (
            "x.json",
            ("eval", "--results", "x.json", "--annotations", TRUTH),
        ),
        ("x.json", ("eval", "--results", "results.json", "--annotations", "x.json")),
        ("x.yaml", ("train", "--config", "x.yaml", "--show-config")),
        ("x.json", ("bench", "--annotations", "x.json", "--seconds", "0")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_is_no_such_file(world, refused, name, command, make):
    make(world / name)
    if make in (fifo, device):
        os.rename(world / name, Path(name))
    if (name == "x.png" and make is folder) or (name == "x.mp4" and make is folder):
        refused(1, name, "no images or videos")(*command)
    elif make is folder and command[0] == "bench":
        refused(2, name, "is a directory")(*command)
    elif make is empty and name == "x.yaml":
        pytest.skip("an empty YAML file asks for the defaults")
    else:
        refused(1, name)(*command)


def predict(*arguments: str):
    return CliRunner().invoke(main, ["predict", *arguments, *NETWORK, "--json-output", "out"])


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 8), (8, MAX_SIDE + 1)])
def test_images_with_too_long_sides_are_left_out(world, size):
    cv2.imwrite("photos/long.png", np.zeros((*size, 3), np.uint8))
    result = predict("photos")
    assert result.exit_code == 1
    assert "photos/long.png: has more than" in result.stderr
    assert "1 of 4 sources failed" in result.stderr
    assert len(list(Path("out").iterdir())) == 3


def test_images_of_too_many_pixels_are_left_out(world, monkeypatch):
    monkeypatch.setenv(VARIABLE, "5000")
    cv2.imwrite("photos/large.png", np.zeros((100, 51, 3), np.uint8))
    result = predict("photos")
    assert result.exit_code == 1
    assert "photos/large.png: has more than 5000 pixels" in result.stderr
    assert len(list(Path("out").iterdir())) == 3


@pytest.mark.parametrize("value", ["0", "-1", "many", "99999999999999999999", ""])
def test_a_limit_that_is_none(refused, monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    refused(1, f"{VARIABLE}={value}: must be a number")("predict", "photo.png", *NETWORK)


def test_names_that_are_no_utf8(world):
    name = os.fsdecode(b"photos/m\xff.png")
    os.rename("photos/a.png", name)
    result = CliRunner().invoke(
        main, ["predict", "photos", *NETWORK, "--csv-output", "t.csv", "--json-output", "t.jsonl"]
    )
    assert result.exit_code == 0, result.output
    assert b"m\xff.png" in Path("t.csv").read_bytes()
    _, *found = (json.loads(line) for line in Path("t.jsonl").read_text().splitlines())
    files = [line["source"] for line in found]
    assert name in files


@pytest.mark.parametrize("command", ["predict", "eval"])
@pytest.mark.parametrize("batch", ["1", "3"])
def test_what_nobody_foresaw_in_one_image_ends_no_batch(world, monkeypatch, command, batch):
    marked = np.zeros((64, 64, 3), np.uint8)
    cv2.imwrite("photos/b.png", marked)
    if command == "eval":
        images = sorted(Path("crowds/images").iterdir())
        raw = json.loads(Path("crowds/json/crowdpose_train.json").read_text())
        first = raw["images"][0]
        black = np.zeros((first["height"], first["width"], 3), np.uint8)
        cv2.imwrite(f"crowds/images/{first['file_name']}", black)
        assert images
    infer = dhn.inference.predictor.Predictor._infer

    def fail(self, images, *arguments):
        if not all(image.any() for image in images):
            raise ZeroDivisionError("a bug")
        return infer(self, images, *arguments)

    monkeypatch.setattr(dhn.inference.predictor.Predictor, "_infer", fail)
    if command == "predict":
        result = predict("photos", "-b", batch)
        assert "photos/b.png: unexpected ZeroDivisionError (a bug)" in result.stderr
        assert "1 of 3 sources failed" in result.stderr
        assert sorted(path.name[0] for path in Path("out").iterdir()) == ["a", "c"]
    else:
        options = ("--dataset", "crowds", "--split", "train", "-b", batch, "--output", "s.json")
        result = CliRunner().invoke(main, ["eval", *NETWORK, *options])
        assert f"{first['file_name']}: unexpected ZeroDivisionError (a bug)" in result.stderr
        assert "1 of 8 images" in result.stderr
        assert Path("s.json").exists()
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    monkeypatch.chdir(world)
    again = CliRunner().invoke(main, ["predict", "photos/b.png", *NETWORK, "--debug"])
    assert "Traceback" in again.stderr


def test_weights_that_are_nan_name_themselves_and_the_image(world):
    import torch

    content = torch.load("best.pt", weights_only=True)
    for value in content["weights"].values():
        if value.is_floating_point():
            value.fill_(torch.nan)
    torch.save(content, "nan.pt")
    options = ["--checkpoint", "nan.pt", "--device", "cpu"]
    result = CliRunner().invoke(main, ["predict", "photo.png", *options])
    assert result.exit_code == 1
    assert "nan.pt" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_video_whose_title_is_no_utf8(world, tmp_path):
    import av

    with av.open("title.mkv", "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.metadata["title"] = "placeholder"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    content = Path("title.mkv").read_bytes()
    assert content.count(b"placeholder") == 1
    Path("title.mkv").write_bytes(content.replace(b"placeholder", b"\xff\xfe\xfdceholder"))
    with VideoReader("title.mkv") as video:
        assert len(list(video)) == 1


def test_an_early_ctrl_c_leaves_an_earlier_video(world):
    from fractions import Fraction

    image = np.zeros((64, 64, 3), np.uint8)
    writer = VideoWriter("good.mp4", Fraction(5), (64, 64))
    writer.write(image, Fraction(0))
    writer.close()
    before = Path("good.mp4").read_bytes()
    VideoWriter("good.mp4", Fraction(5), (64, 64)).close()  # interrupted before the first frame
    assert Path("good.mp4").read_bytes() == before
    assert not [path for path in world.iterdir() if path.name.startswith(".")]
