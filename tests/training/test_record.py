import sys

import numpy as np
import pytest
import torch

import dhn.training.record
from dhn.base.errors import DhnError
from dhn.commands.console import Bar, progress
from dhn.training.loop import train
from dhn.training.loss import PoseLoss
from dhn.training.record import Record
from dhn.training.validation import SHEETS
from dhn.weights.checkpoint import load_checkpoint
from tiny_runs import CPU, assert_same, lines_of, settings


class Clock:
    """Stands in for the clock; tests move it."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(dhn.training.record, "time", clock)
    return clock


def losses(value, heatmaps=4):
    """heatmaps 2 v, 3 v, ... in order; total v, flat 10 v, pull 20 v, push 30 v."""
    maps = [torch.tensor(value * (k + 2)) for k in range(heatmaps)]
    return PoseLoss(
        *map(torch.tensor, (value,)), maps, *map(torch.tensor, (10 * value, 20 * value, 30 * value))
    )


def run_epoch(record, clock, values, seconds=2.0, waited=0.5):
    for value in values:
        clock.now += seconds
        record.step(losses(value), 4, waited, 1e-3)


def test_a_line_has_means_of_the_losses_by_stage_and_level(tmp_path, clock):
    with Record(tmp_path, 2, 3) as record:
        record.start(0)
        run_epoch(record, clock, [1.0, 2.0, 6.0])
        record.epoch(1, {"AP": 0.25})
    (line,) = lines_of(tmp_path)
    memory = line.pop("memory_gb")
    assert 0.05 < memory < 100
    assert line == {
        "epoch": 1,
        "lr": 1e-3,
        "loss": 3.0,
        "skipped": 0,
        "AP": 0.25,
        "heatmap_coarse_quarter": 6.0,
        "heatmap_coarse_half": 9.0,
        "heatmap_fine_quarter": 12.0,
        "heatmap_fine_half": 15.0,
        "heatmap": 15.0,
        "flat": 30.0,
        "pull": 60.0,
        "push": 90.0,
        "images_per_second": 2.0,
        "data_wait": 0.25,
    }


@pytest.mark.parametrize(
    ("heatmaps", "names"),
    [(1, {"heatmap_fine_quarter"}), (2, {"heatmap_fine_quarter", "heatmap_fine_half"})],
)
def test_networks_of_one_stage(tmp_path, heatmaps, names):
    with Record(tmp_path, 1, 1) as record:
        record.start(0)
        record.step(losses(1.0, heatmaps), 1, 0.0, 1e-3)
        record.epoch(1, {})
    (line,) = lines_of(tmp_path)
    assert {key for key in line if key.startswith("heatmap_")} == names
    assert line["heatmap"] == heatmaps + 1


def test_an_evaluation_is_no_part_of_the_speed(tmp_path, clock):
    with Record(tmp_path, 2, 2) as record:
        record.start(0)
        for epoch in (1, 2):
            run_epoch(record, clock, [1.0, 1.0])
            clock.now += 1000
            record.epoch(epoch, {})
    assert [line["images_per_second"] for line in lines_of(tmp_path)] == [2.0, 2.0]


def test_skipped_updates_and_images_that_cannot_be_read(tmp_path, clock, capsys):
    with Record(tmp_path, 1, 3) as record:
        record.start(0)
        record.skip(["a.jpg", "b.jpg"])
        record.skip([])  # nobody's fault
        record.step(None, 0, 0.0, 1e-3)
        record.epoch(1, {})
    (line,) = lines_of(tmp_path)
    assert line["skipped"] == 2
    assert line["loss"] is line["heatmap"] is line["push"] is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a.jpg, b.jpg" in err


def test_losses_are_read_from_the_device_only_when_shown(tmp_path, monkeypatch):
    read = []
    means = Record._means
    monkeypatch.setattr(Record, "_means", lambda self: read.append(1) or means(self))
    for quiet in (True, False):  # not quiet: a plain line every ten seconds
        with Record(tmp_path, 1, 50, progress=progress(quiet)) as record:
            record.start(0)
            for _ in range(50):
                record.step(losses(1.0), 1, 0.0, 1e-3)
            assert read == []


def test_what_is_shown(tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setattr("dhn.commands.console.Bar._PLAIN_EVERY", 0)
    reported = []
    with Record(tmp_path, 300, 10, progress=Bar, report=reported.append) as record:
        record.start(20)
        run_epoch(record, clock, [0.5])
        record.epoch(3, {"AP": 0.501})
    out, err = capsys.readouterr()
    parts = (
        "loss 0.50000, heatmaps coarse 1.00000 1.50000, fine 2.00000 2.50000 "
        "(an all-zero map: 5.00000), pull 10.000, push 15.000"
    )
    assert out == ""
    assert "Training: 21/3000 after" in err
    assert parts in err
    assert "2.0 images/s, data wait 25.0%, memory" in err
    (line,) = reported
    assert line.startswith(f"epoch 3/300: {parts}, 2.0 images/s")
    assert line.endswith(" GB, AP 50.1")


def test_an_epoch_goes_on_where_its_checkpoint_was(tmp_path, clock):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    with Record(whole, 2, 4) as record:
        record.start(0)
        for epoch in (1, 2):
            run_epoch(record, clock, [1.0, 2.0, 3.0, 10.0])
            record.epoch(epoch, {})

    first = Record(parts, 2, 4)
    with first:
        first.start(0)
        run_epoch(first, clock, [1.0, 2.0, 3.0, 10.0])
        first.epoch(1, {})
        run_epoch(first, clock, [1.0, 2.0])
        state = first.state_dict()
        # Lost with the process: another update, the epoch's end, a line that was cut short.
        run_epoch(first, clock, [77.0, 77.0])
        first.epoch(2, {})
        with first.path.open("a") as log:
            log.write('{"epoch": 3, "lo')
    torch.save(state, tmp_path / "state.pt")  # as checkpoints do
    clock.now += 5000
    with Record(parts, 2, 4) as record:
        record.load_state_dict(torch.load(tmp_path / "state.pt"))
        record.start(6)
        run_epoch(record, clock, [3.0, 10.0])
        record.epoch(2, {})
    ours, theirs = [
        [line | {"memory_gb": 0} for line in lines_of(folder)] for folder in (whole, parts)
    ]
    assert ours == theirs


def test_other_processes_write_and_report_nothing(tmp_path, clock, capsys):
    reported = []
    with Record(
        tmp_path, 1, 1, main=False, tensorboard=True, progress=Bar, report=reported.append
    ) as record:
        record.start(0)
        run_epoch(record, clock, [1.0])
        record.epoch(1, {})
        record.sheets(1, iter([np.zeros((8, 8, 3), np.uint8)]))
    assert list(tmp_path.iterdir()) == []
    assert reported == []
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_is_one_line(tmp_path, full_disk):
    with Record(tmp_path, 1, 1) as record:
        record.start(0)
        record.step(losses(1.0), 1, 0.0, 1e-3)
        with full_disk(8), pytest.raises(DhnError, match=r"metrics\.jsonl: cannot be written"):
            record.epoch(1, {})


# --- TensorBoard --------------------------------------------------------------------------------


def events(folder):
    """What TensorBoard shows of a folder: steps and values by tag, steps of images by tag."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {
        tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags["scalars"]
    }
    return scalars, {tag: accumulator.Images(tag) for tag in tags["images"]}


def test_tensorboard_shows_the_lines_and_images(tmp_path, clock):
    image = np.zeros((8, 12, 3), np.uint8)
    with Record(tmp_path, 2, 1, tensorboard=True) as record:
        record.start(0)
        for epoch in (1, 2):
            run_epoch(record, clock, [float(epoch)])
            stats = {"AP": 0.5, "AP_easy": 0.75} if epoch == 2 else {}
            if stats:
                record.sheets(epoch, iter([image, image]))
            record.epoch(epoch, stats)
    scalars, images = events(tmp_path)
    assert scalars["loss/loss"] == [(1, 1.0), (2, 2.0)]
    assert scalars["heatmap/heatmap_coarse_half"] == [(1, 3.0), (2, 6.0)]
    assert scalars["score/AP_easy"] == [(2, 0.75)]
    written = {tag.partition("/")[2] for tag in scalars}
    assert written == set().union(*lines_of(tmp_path)) - {"epoch"}
    assert {tag: [e.step for e in shown] for tag, shown in images.items()} == {
        "images/0": [2],
        "images/1": [2],
    }
    assert (images["images/0"][0].width, images["images/0"][0].height) == (12, 8)


def test_tensorboard_forgets_what_a_resumed_run_repeats(tmp_path, clock):
    with Record(tmp_path, 3, 1, tensorboard=True) as record:
        record.start(0)
        for epoch in (1, 2, 3):
            run_epoch(record, clock, [77.0 if epoch > 1 else 1.0])
            record.epoch(epoch, {})
            if epoch == 1:
                state = record.state_dict()
    with Record(tmp_path, 3, 1, tensorboard=True) as record:
        record.load_state_dict(state)
        record.start(1)
        for epoch in (2, 3):
            run_epoch(record, clock, [float(epoch)])
            record.epoch(epoch, {})
    assert events(tmp_path)[0]["loss/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [line["loss"] for line in lines_of(tmp_path)] == [1.0, 2.0, 3.0]


def test_missing_tensorboard_is_reported_once(tmp_path, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    reported = []
    with Record(tmp_path, 2, 1, tensorboard=True, report=reported.append) as record:
        record.start(0)
        for epoch in (1, 2):
            run_epoch(record, clock, [1.0])
            record.sheets(epoch, iter([]))
            record.epoch(epoch, {})
    hint, *epochs = reported
    assert "pip install 'dhn[curves]'" in hint
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_tensorboard_no_image_is_drawn(tmp_path):
    def draw():
        raise AssertionError("drawn")
        yield

    with Record(tmp_path, 1, 1) as record:
        record.sheets(1, draw())


def test_training_writes_images_at_evaluations_and_stays_the_same(crowds, tmp_path):
    common = ["data.eval_split=val", "train.epochs=3", "train.eval_every=2", "train.batch_size=8"]
    for name in ("off", "auto"):
        config = settings(crowds, *common, f"train.tensorboard={name}")
        train(config, tmp_path / name, CPU)
    off, auto = (load_checkpoint(tmp_path / name / "last.pt") for name in ("off", "auto"))
    assert_same(off.weights, auto.weights)
    assert_same(off.progress["random"], auto.progress["random"])

    scalars, images = events(tmp_path / "auto")
    assert [step for step, _ in scalars["loss/loss"]] == [1, 2, 3]
    (validation,) = images  # there is one image
    assert len(images) == min(SHEETS, 1)
    assert [event.step for event in images[validation]] == [2, 3]
    assert images[validation][0].width == images[validation][0].height == 768
    assert not list((tmp_path / "off").glob("events*"))
