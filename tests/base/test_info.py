"""What `dhn info` prints, also where something is missing."""

import functools
import json
import re
import resource

import pytest
import torch
from click.testing import CliRunner

from dhn.base import environment, native
from dhn.base.cache import cache_folder
from dhn.cli import main
from dhn.model import build_model, cost

cost_once = functools.cache(cost.network_cost)


@pytest.fixture(autouse=True)
def _one_small_network(monkeypatch):
    """Its cost, which takes seconds, is computed once for all tests."""
    monkeypatch.setattr(cost, "NETWORKS", ("hrnet_w8",))
    monkeypatch.setattr(cost, "network_cost", cost_once)


def run(*options):
    result = CliRunner().invoke(main, ["info", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("option", ["--json", "-q"])
def test_machines_read_json(option, monkeypatch, tmp_path):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    shown = json.loads(run(option))
    assert shown == json.loads(json.dumps(environment.report()))
    assert shown["torch"] == torch.__version__
    assert shown["cache"] == str(cache_folder()) == str(tmp_path / "home")
    assert shown["threads"] == torch.get_num_threads()


def test_people_read_lines():
    lines = run().splitlines()
    shown = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if line)
    for key in environment.report():
        assert shown[key]
    model = build_model("hrnet_w8")
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert shown["hrnet_w8"].startswith(f"{millions:.2f} M")


def test_kernels_name_what_they_were_built_for():
    shown = environment.environment()
    assert shown["cpu_kernels"] in ("x86-64, AVX2, AVX512", "the compiler's baseline")
    if torch.version.cuda is None:
        assert shown["cuda_kernels"] == "torch has no CUDA"


def test_kernels_that_are_missing_or_stale_are_shown_not_raised(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "source_hash", lambda *_: "0" * 16)
    if (native.PACKAGE.parent / "csrc").is_dir():
        assert "is older than the sources in csrc" in environment.environment()["cpu_kernels"]
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    assert "the operators are not built" in run()
    assert "the operators are not built" in json.loads(run("--json"))["cpu_kernels"]


def test_gpus_without_kernels_say_what_they_do_and_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "PACKAGE", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(environment, "select_device", lambda: torch.device("cpu"))
    told = environment.environment()
    what = "network and aggregation run in plain PyTorch, and the CPU decodes"
    how = "install the CUDA toolkit 13.0 (nvcc), then: pip install --no-build-isolation -e ."
    assert told["cuda_kernels"] == f"not built: {what}; {how}"
    assert told["mps_kernels"] == f"none: {what}"


def test_cpu_features_are_those_of_the_machine():
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line.split() for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        pytest.skip("no flags in /proc/cpuinfo here")
    found = environment.environment()["cpu_features"]
    wanted = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512-BF16": "avx512_bf16", "AMX": "amx_tile"}
    for name, flag in wanted.items():
        assert name not in found or flag in flags  # the system may lock AMX
    assert ("AVX2" in found) == ("avx2" in flags)


def test_a_runs_record_names_no_folder_of_the_machine():
    assert str(cache_folder()) not in json.dumps(environment.environment())


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    assert environment.environment()["packages"]["no-such-package"] is None
    assert "no-such-package -" in run()


def test_the_processor_has_a_name():
    assert environment.cpu_name() == environment.cpu_name().strip() != ""


def test_peak_memory_counts_this_process_in_bytes():
    peak = environment.peak_memory()
    assert environment.peak_memory(torch.device("cpu")) >= peak
    try:
        with open("/proc/self/statm") as pages:
            resident = int(pages.read().split()[1]) * resource.getpagesize()
    except OSError:
        pytest.skip("no /proc/self/statm here")
    assert 0.9 * resident < peak < 500 * resident  # neither kilobytes nor pages
