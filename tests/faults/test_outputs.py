"""No command overwrites what it reads, or a run's own files: it refuses before anything runs."""

import os
from pathlib import Path

import pytest

PREDICT = ("predict", "photo.png", "--checkpoint", "best.pt", "--device", "cpu")
EVAL = ("eval", "--checkpoint", "best.pt", "--dataset", "crowds", "--split", "val")
TRUTH = "crowds/json/crowdpose_val.json"
RESULTS = ("eval", "--results", "results.json", "--annotations", TRUTH)
INPUT = "is an input and would be overwritten"
RUN = "belongs to the training run there"

CASES = [
    ((*EVAL, "--output", "best.pt"), "best.pt", INPUT),
    ((*EVAL, "--save-json", "best.pt"), "best.pt", INPUT),
    ((*EVAL, "--save-json", TRUTH), "crowdpose_val.json", INPUT),
    ((*EVAL, "--output", f"./crowds/../{TRUTH}"), "crowdpose_val.json", INPUT),
    ((*EVAL, "--output", "x.json", "--save-json", "x.json"), "x.json", "two outputs"),
    ((*EVAL, "--output", "photos"), "photos", "is a folder"),
    ((*EVAL, "--output", "photo.png/x.json"), "x.json", "is a file"),
    ((*RESULTS, "--output", "results.json"), "results.json", INPUT),
    ((*RESULTS, "--output", TRUTH), "crowdpose_val.json", INPUT),
    ((*RESULTS, "--output", "run/metrics.jsonl"), "metrics.jsonl", RUN),
    ((*PREDICT, "--csv-output", "best.pt"), "best.pt", INPUT),
    ((*PREDICT, "--csv-output", "photo.png"), "photo.png", INPUT),
    ((*PREDICT, "--csv-output", "run/last.pt"), "last.pt", RUN),
    ((*PREDICT, "--csv-output", "run/epoch3.pt"), "epoch3.pt", RUN),
    ((*PREDICT, "--csv-output", "a.json", "--json-output", "a.json"), "a.json", "two outputs"),
    (("predict", "--checkpoint", "best.pt", "photos", "-o", "photos"), "a.png.predictions", INPUT),
    (("logs", "run", "--json-output", "run/metrics.jsonl"), "metrics.jsonl", INPUT),
    (("logs", "run", "--csv-output", "run/metrics.jsonl"), "metrics.jsonl", INPUT),
    (("logs", "run", "--csv-output", "run/best.pt"), "best.pt", RUN),
    (("data", "check", "crowds", "--json-output", TRUTH), "crowdpose_val.json", INPUT),
    (("data", "check", TRUTH, "--json-output", TRUTH), "crowdpose_val.json", INPUT),
    (("bench", "--annotations", TRUTH, "--json-output", TRUTH), "crowdpose_val.json", INPUT),
    (("export", "--checkpoint", "best.pt", "-o", "link.onnx"), "link.onnx", INPUT),
    (("data", "check", "crowds", "--json-output", "crowds/images/of_train.jpg"), "of_train", INPUT),
    ((*EVAL, "--output", "crowds/images/of_train.jpg"), "of_train", INPUT),
    ((*EVAL, "--save-json", "crowds/images/of_train.jpg"), "of_train", INPUT),
    ((*PREDICT, "--csv-output", "circle"), "circle", "too many levels of symbolic links"),
    ((*RESULTS, "--output", "circle"), "circle", "too many levels of symbolic links"),
]


@pytest.mark.parametrize(("arguments", "name", "reason"), CASES, ids=lambda value: str(value)[-48:])
def test_a_file_would_be_lost(world, refused, arguments, name, reason):
    (world / "link.onnx").symlink_to("best.pt")
    (world / "circle").symlink_to("circle")
    (world / "crowds" / "images" / "of_train.jpg").write_bytes(b"an image of another split")
    if arguments[-1] == "photos" and arguments[0] == "predict":
        # An overlay of an earlier run: an input of this one, and its output.
        (world / "photos" / "a.png.predictions.jpg").write_bytes(b"earlier")
    refused(1, name, reason)(*arguments)


def test_a_training_takes_no_folder_that_holds_other_things(world, refused):
    refused(2, "holds other things")("train", "--config", "demo", "--output", "photos")
    refused(2, "photo.png", "is a file")("train", "--config", "demo", "--output", "photo.png")


@pytest.mark.skipif(os.getuid() == 0 and not Path("/proc").exists(), reason="needs /proc")
def test_a_place_where_nothing_can_be_written(world, refused):
    refused(1, "/proc/none/x.json", "cannot be written")(*RESULTS, "--output", "/proc/none/x.json")
