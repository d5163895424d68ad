"""`train.batch_size=auto`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dhn.base.distributed import World
from dhn.base.environment import free_memory, reset_peak_memory
from dhn.base.errors import DhnError
from dhn.training import batch_size
from dhn.training.config import load_config
from tiny_runs import CPU, TINY, assert_same_run, invoke, settings

AUTO = "train.batch_size=auto"
needs_linux = pytest.mark.skipif(
    not (reset_peak_memory() and free_memory()), reason="needs Linux, which tells peaks of memory"
)


@given(st.integers(0, 300), st.integers(1, 300))
def test_the_largest_that_fits(most, limit):
    tried = []

    def fits(images):
        tried.append(images)
        return images <= most

    assert batch_size.largest(fits, limit) == min(most, limit)
    assert max(tried) <= limit
    assert len(tried) <= 2 + 2 * np.log2(1 + most)


@needs_linux
@pytest.mark.parametrize(("each", "fixed"), [(20e6, 0), (20e6, 40e6)])
def test_memory_grows_with_images(each, fixed, monkeypatch):
    monkeypatch.setattr(batch_size, "_GROWTH", 32e6)

    def step(images):
        np.ones(int(fixed + each * images), np.uint8)

    part, why = batch_size._by_measurement(step, 10_000, fixed + 10.5 * each)
    assert part == 10
    assert f"and {each / 1e9:.2f} GB for each" in why
    assert batch_size._by_measurement(step, 3, fixed + 10.5 * each)[0] == 3


@pytest.mark.parametrize("limit", [20, 500])
def test_trials_on_a_gpu(monkeypatch, limit):
    fractions = []
    for name, stand_in in {
        "mem_get_info": lambda device: (50, 100),
        "memory_reserved": lambda device: 10,
        "set_per_process_memory_fraction": lambda share, device: fractions.append(share),
        "synchronize": lambda device: None,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)

    def step(images):
        if images > 37:
            raise torch.OutOfMemoryError

    part, why = batch_size._by_trial(step, limit, torch.device("cuda"))
    assert part == min(37, limit)
    assert why.startswith("all" if limit == 20 else "more do not fit")
    assert fractions == [pytest.approx(0.5), 1]  # what it has, .8 of what is free; then all again


@needs_linux
def test_a_run_is_that_of_the_batch_that_was_found(crowds, tmp_path):
    tiny = [*TINY, f"data.dataset={crowds}", "train.epochs=1", "data.eval_split=null"]
    result = invoke("--output", tmp_path / "auto", *tiny, AUTO)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("batch: "))
    found = load_config(str(tmp_path / "auto/config.yaml")).train.batch_size
    assert line.startswith(f"batch: {found} images; all that there are")
    assert f"training: {found} images" in result.stdout
    result = invoke("-q", "--output", tmp_path / "same", *tiny, f"train.batch_size={found}")
    assert result.exit_code == 0, result.output
    assert_same_run(tmp_path / "auto", tmp_path / "same")
    # Whatever is free now, a resumed run goes on with the same batch, even if it is asked anew.
    result = invoke("--resume", tmp_path / "auto", "train.epochs=2", AUTO)
    assert result.exit_code == 0, result.output
    assert f"batch: {found} images, as this run has had so far" in result.stdout
    assert load_config(str(tmp_path / "auto/config.yaml")).train.batch_size == found


class _Two(World):
    """The first of two processes; in the other one, three images fit."""

    def gather(self, value):
        return [value, 3]

    def broadcast(self, value):
        return value

    def barrier(self):
        pass


@needs_linux
@pytest.mark.parametrize(("samples", "size"), [(1000, 12), (9, 9)])
def test_the_process_with_the_least_memory_decides(crowds, tmp_path, monkeypatch, samples, size):
    monkeypatch.setattr(batch_size, "_by_measurement", lambda *_: (5, "why"))
    lines = []
    config = settings(crowds, AUTO, "train.accumulate=2")
    network = config.network.arguments() | {"num_joints": 14}
    monkeypatch.setattr(batch_size, "_trial", lambda *_: None)
    world = _Two(rank=0, size=2)
    found = batch_size.fitting_batch(config, network, samples, tmp_path, CPU, world, lines.append)
    assert found == size
    assert lines == [f"batch: {found} images, 3 at a time; why"]


@needs_linux
def test_nothing_fits(crowds, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "_by_measurement", lambda *_: (0, "why"))
    tiny = [*TINY, f"data.dataset={crowds}", "train.epochs=1"]
    result = invoke("--output", tmp_path / "run", *tiny, AUTO)
    assert result.exit_code == 1
    assert "not even one image of data.input_size=64 fits in memory" in result.stderr
    assert result.stderr.count("\n") == 1


def test_elsewhere_a_number_is_asked_for(crowds, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "reset_peak_memory", lambda: False)
    tiny = [*TINY, f"data.dataset={crowds}", "train.epochs=1"]
    result = invoke("--output", tmp_path / "run", *tiny, AUTO)
    assert result.exit_code == 1
    assert "train.batch_size: auto works on CUDA" in result.stderr


@pytest.mark.parametrize("value", ["true", "0", "most", "1.5"])
def test_other_values_are_refused(value):
    with pytest.raises(DhnError, match=r"train\.batch_size"):
        load_config(overrides=[f"train.batch_size={value}"])
