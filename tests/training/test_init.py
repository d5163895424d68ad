"""What `train.init` starts from."""

import pytest
import torch

from dhn.base.errors import DhnError
from dhn.model import build_model
from dhn.training.learner import Learner
from tiny_runs import TINY, invoke


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "cache"))


def first_weights(crowds, run, monkeypatch, *arguments):
    """Runs the command up to its first update; the weights before it, and what was said."""
    seen = {}

    def stop(learner, *_):
        seen.update({k: v.clone() for k, v in learner.model.state_dict().items()})
        raise DhnError("enough")

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", stop)
        result = invoke("--output", run, *TINY, f"data.dataset={crowds}", *arguments)
    return seen, result


def test_a_file_to_start_from(crowds, tmp_path, monkeypatch):
    torch.manual_seed(5)
    other = build_model("higherhrnet_w4", 3, modules=(1, 1, 1), blocks=1, stem=4)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    init = f"train.init={tmp_path / 'other.pth'}"
    seen, result = first_weights(crowds, tmp_path / "run", monkeypatch, init)
    assert "enough" in result.stderr
    assert "loaded" in result.output
    for name, value in other.state_dict().items():
        assert not name.startswith("backbone.") or torch.equal(seen[name], value)


@pytest.mark.parametrize(
    ("init", "named"),
    [
        ("none.pth", "none.pth: cannot be read"),
        ("hrnet_w32_imagenett", "do you mean hrnet_w32_imagenet?"),
    ],
)
def test_weights_that_are_not_there_are_an_error(crowds, tmp_path, monkeypatch, init, named):
    seen, result = first_weights(crowds, tmp_path / "run", monkeypatch, f"train.init={init}")
    assert not seen
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert named in result.stderr


def test_published_weights_that_cannot_be_had_stop_the_run(crowds, tmp_path, monkeypatch, no_cache):
    arguments = ["--offline", "train.init=hrnet_w32_imagenet"]
    seen, result = first_weights(crowds, tmp_path / "run", monkeypatch, *arguments)
    assert not seen
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: hrnet_w32_imagenet: is not in the cache")
    assert line.endswith("train.init=null starts from scratch")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_width_say_what_to_set(crowds, tmp_path, monkeypatch):
    other = build_model("hrnet_w8", 3, modules=(1, 1, 1), blocks=1, stem=4)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    init = f"train.init={tmp_path / 'other.pth'}"
    seen, result = first_weights(crowds, tmp_path / "run", monkeypatch, init)
    assert not seen
    assert "its backbone is another one" in result.stderr
    assert "train.init=null starts from scratch" in result.stderr
