"""`dhn bench --model` on a narrow network."""

import json

import pytest
import torch
from click.testing import CliRunner

from dhn.bench import networks as bench_network
from dhn.cli import main
from dhn.model.cost import network_cost


def bench(*arguments):
    return CliRunner().invoke(main, ["bench", "--device", "cpu", "-q", *arguments])


def test_networks_are_timed(tmp_path, monkeypatch):
    """The real command, in a process of its own."""
    monkeypatch.setattr(bench_network, "multiplies_bfloat16", lambda _: False)
    out = tmp_path / "bench.json"
    small = ["--input-size", "64", "-b", "2", "--seconds", "0", "--threads", "1"]
    result = bench("--model", "higherhrnet_w8", *small, "--json-output", str(out))
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["machine"]["torch"] == torch.__version__
    (row,) = figures["rows"]
    assert row["precision"] == "float32"
    latency = row["latency"]
    assert 0 < latency["low"] <= latency["median"] <= latency["high"]
    assert row["images_per_s"] == pytest.approx(2 / latency["median"])
    assert (row["parameters"], row["gflops"]) == network_cost("higherhrnet_w8", 14, 64)
    assert row["peak_bytes"] > 4 * row["parameters"]
    assert f"{row['images_per_s']:.2f}" in result.output
    assert "higherhrnet_w8" in result.output
    assert "Operators" not in result.output


def test_default_networks_and_compilation(monkeypatch):
    """Which rows there are; what a compiled one computes is tests/test_accelerate.py's."""
    timed = []

    class Here:
        """A process pool that is this process."""

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, _, setting):
            timed.append(setting)
            return self

        def result(self):
            return bench_network.Timing(1.0, 0.5, 2.0, 3), 1 << 20

    monkeypatch.setattr(bench_network, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench_network, "multiplies_bfloat16", lambda _: True)
    result = bench("--model", "--compile", "--no-flip")
    assert result.exit_code == 0, result.output
    assert len(timed) == 9
    assert {s.network for s in timed} == {"doublehighernet_w32", "higherhrnet_w32", "hrnet_w32"}
    modes = [("float32", False), ("bfloat16", False), ("bfloat16", True)]
    assert [(s.precision, s.compile) for s in timed[:3]] == modes
    assert not any(s.flip for s in timed)
    assert "bfloat16, compiled" in result.output
    assert "28.67 M" in result.output


def test_bad_options():
    unknown = bench("--model", "resnet50")
    assert (unknown.exit_code, unknown.output.count("\n")) == (1, 1)
    assert "unknown network 'resnet50'" in unknown.output
    assert bench("--model", "higherhrnet_w8", "--sweep").exit_code == 2
    assert bench("--model", "higherhrnet_w8", "--input-size", "100").exit_code == 2
