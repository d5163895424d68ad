"""`dhn bench --model` on narrow networks."""

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from dhn.base.environment import peak_memory
from dhn.base.errors import DhnError
from dhn.bench import networks
from dhn.bench.networks import DEFAULT_NETWORKS, Mode, NetworkSettings, modes, time_networks
from dhn.cli import main
from dhn.commands.bench_tables import network_table
from dhn.model.cost import network_cost

CPU = torch.device("cpu")


def bench(*arguments):
    return CliRunner().invoke(main, ["bench", "--device", "cpu", "-q", *arguments])


def test_networks_are_timed(tmp_path, monkeypatch):
    """The real command, whose network runs in a process of its own."""
    monkeypatch.setattr(networks, "multiplies_bfloat16", lambda _: False)
    out = tmp_path / "bench.json"
    small = ["--input-size", "64", "-b", "2", "--seconds", "0", "--threads", "1", "--no-flip"]
    result = bench("--model", "higherhrnet_w8", *small, "--json-output", str(out))
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["machine"]["torch"] == torch.__version__
    (row,) = figures["rows"]
    assert (row["network"], row["precision"], row["compile"]) == (
        "higherhrnet_w8",
        "float32",
        False,
    )
    settings = NetworkSettings(False, 2, 64, "cpu", 1, 0.0)
    assert NetworkSettings(**{key: row[key] for key in vars(settings)}) == settings
    latency = row["latency"]
    assert 0 < latency["low"] <= latency["median"] <= latency["high"]
    assert row["images_per_s"] == pytest.approx(2 / latency["median"])
    assert (row["parameters"], row["gflops"]) == network_cost("higherhrnet_w8", 14, 64)
    assert row["peak_bytes"] > 4 * row["parameters"]
    assert f"{row['images_per_s']:.2f}" in result.output
    assert "higherhrnet_w8" in result.output
    assert "Operators" not in result.output


@pytest.mark.parametrize("native", [False, True])
def test_modes(monkeypatch, native):
    """Which rows there are; tests/inference/test_accelerate.py has what a compiled one computes."""
    monkeypatch.setattr(networks, "multiplies_bfloat16", lambda _: native)
    expected = [Mode("float32", False)] + [Mode("bfloat16", False)] * native
    assert modes(CPU, compile=False) == expected
    compiled = Mode("bfloat16" if native else "float32", True)
    assert modes(CPU, compile=True) == [*expected, compiled]


def test_without_a_name_those_of_width_32_are_timed(monkeypatch):
    timed = []

    def time_networks(names, settings, **_):
        timed.extend(names)
        raise DhnError("enough")

    monkeypatch.setattr(networks, "time_networks", time_networks)
    assert bench("--model").exit_code == 1
    assert timed == ["doublehighernet_w32", "higherhrnet_w32", "hrnet_w32"]
    assert timed == list(DEFAULT_NETWORKS)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the parent's peak is not inherited")
def test_peak_memory_is_that_of_the_process_itself():
    held = b"1" * (600 << 20)  # a child would inherit this peak
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        of_the_child = process.submit(peak_memory).result()
    assert 0 < of_the_child < peak_memory() - len(held) // 2


def test_table():
    latency = {"median": 0.5, "low": 0.4, "high": 0.625, "runs": 3}
    row = {"network": "hrnet_w32", "precision": "bfloat16", "compile": True, "flip": True}
    row |= {"batch_size": 2, "input_size": 512, "threads": 4, "latency": latency}
    row |= {"parameters": 28_670_000, "gflops": 95.5, "images_per_s": 4.0, "peak_bytes": 10**9}
    console = Console(width=140)
    with console.capture() as capture:
        console.print(network_table({"rows": [row]}))
    text = capture.get()
    assert "Networks: 2 x 512 x 512, plain and mirrored, 4 threads" in text
    cells = [cell.strip() for cell in text.splitlines()[4].strip("│").split("│")]
    assert cells == ["hrnet_w32", "bfloat16, compiled", "28.67 M", "95.5", "500 (400-625)",
                     "4.00", "1000"]  # fmt: skip


def test_unknown_networks_are_refused():
    with pytest.raises(DhnError, match=r"^model resnet50: unknown network"):
        time_networks(["resnet50"], NetworkSettings(input_size=64))
    unknown = bench("--model", "resnet50")
    assert (unknown.exit_code, unknown.output.count("\n")) == (1, 1)
    assert unknown.output.startswith("Error: --model resnet50: unknown network")


def test_options_that_do_not_go_together():
    assert bench("--model", "higherhrnet_w8", "--sweep").exit_code == 2
    assert bench("--model", "higherhrnet_w8", "--input-size", "100").exit_code == 2
