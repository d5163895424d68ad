"""`dhn bench --pipeline` on a narrow network."""

import json

import pytest
from click.testing import CliRunner

from dhn.bench.pipeline import PipelineSettings, _predictor
from dhn.cli import main
from plain_images import scene


def bench(*arguments):
    return CliRunner().invoke(main, ["bench", "--device", "cpu", "-q", "--pipeline", *arguments])


def test_the_whole_is_timed_beside_its_network(tmp_path):
    out = tmp_path / "bench.json"
    small = ("--input-size", "64", "--images", "2", "-b", "2", "--threads", "1", "--no-flip")
    result = bench("--model", "higherhrnet_w8", *small, "--json-output", str(out))
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert (figures["settings"]["images"], figures["settings"]["batch_size"]) == (2, 2)
    assert [row["source"] for row in figures["rows"]] == ["JPEG 640x480", "H.264 1280x720"]
    for row in figures["rows"]:
        assert row["network"] == "higherhrnet_w8"
        assert [*row["stages"]] == ["read", "network", "decode", "draw", "write"]
        assert min(row["alone"].values()) > 0
        assert row["of_network"] == row["alone"]["seconds"] / row["whole"]["seconds"]
        for stage in row["stages"].values():
            assert 0 < stage["cpu_seconds"] <= row["whole"]["cpu_seconds"]
        assert f"{1 / row['whole']['seconds']:.1f}" in result.output


@pytest.mark.parametrize("flip", [False, True])
def test_its_people_are_there_whatever_the_network_says(flip):
    settings = PipelineSettings(input_size=128, flip=flip)
    people = _predictor("higherhrnet_w8", settings)(scene(96, 128))
    assert 4 <= len(people) <= 7  # of five, some stand in each other's way


def test_options_that_do_not_go_together():
    for option in ("--kernels", "--sweep", "--compile"):
        assert bench(option).exit_code == 2
    unknown = bench("--model", "resnet50")
    assert unknown.output.startswith("Error: --model resnet50: unknown network")
