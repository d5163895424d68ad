"""What a bug report needs, also where something is missing."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from dhn.base import environment as info
from dhn.base import native as _native
from dhn.base.cache import cache_folder
from dhn.cli import main
from dhn.model import build_model, cost


@pytest.fixture(autouse=True)
def _one_small_network(monkeypatch):
    monkeypatch.setattr(cost, "NETWORKS", ("hrnet_w8",))


def run(*options):
    result = CliRunner().invoke(main, ["info", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("option", ["--json", "-q"])
def test_machines_read_json(option, monkeypatch, tmp_path):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    told = json.loads(run(option))
    assert told == json.loads(json.dumps(info.report()))
    assert told["torch"] == torch.__version__
    assert told["cache"] == str(cache_folder()) == str(tmp_path / "home")
    assert told["threads"] == torch.get_num_threads()


def test_people_read_lines():
    lines = run().splitlines()
    told = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if line)
    for key in info.report():
        assert told[key]
    model = build_model("hrnet_w8")
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert told["hrnet_w8"].startswith(f"{millions:.2f} M")


def test_kernels_say_what_they_were_built_for():
    told = info.environment()
    assert told["cpu_kernels"] in ("x86-64, AVX2, AVX512", "the compiler's baseline")
    if torch.version.cuda is None:
        assert told["cuda_kernels"] == "torch has no CUDA"


def test_kernels_that_are_missing_or_stale_are_said_not_raised(monkeypatch, tmp_path):
    monkeypatch.setattr(_native, "source_hash", lambda *_: "0" * 16)
    if (_native.PACKAGE.parent / "csrc").is_dir():
        assert "is older than the sources in csrc" in info.environment()["cpu_kernels"]
    monkeypatch.setattr(_native, "PACKAGE", tmp_path)
    assert "the operators are not built" in run()
    assert "the operators are not built" in json.loads(run("--json"))["cpu_kernels"]
    # Where torch has CUDA, a build without nvcc is said, too.
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "_C_cuda.so: the operators are not built" in info.environment()["cuda_kernels"]


def test_cpu_features_are_those_of_the_machine():
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line.split() for line in lines if line.startswith("flags"))
    except (OSError, StopIteration):
        pytest.skip("no flags in /proc/cpuinfo here")
    said = info.environment()["cpu_features"]
    wanted = {"AVX2": "avx2", "AVX512": "avx512f", "AVX512-BF16": "avx512_bf16", "AMX": "amx_tile"}
    for name, flag in wanted.items():
        assert name not in said or flag in flags  # torch asks the system, too: AMX may be locked
    assert ("AVX2" in said) == ("avx2" in flags)


def test_a_runs_record_names_no_folder_of_the_machine():
    assert str(cache_folder()) not in json.dumps(info.environment())


def test_packages_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(info, "_PACKAGES", ("numpy", "no-such-package"))
    assert info.environment()["packages"]["no-such-package"] is None
    assert "no-such-package -" in run()
