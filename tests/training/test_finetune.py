"""Frozen layers, learning rates by depth, and patience."""

import itertools

import pytest
import torch
from torch import nn

from dhn.base.errors import DhnError
from dhn.data.dataset import Batch
from dhn.model import build_model
from dhn.training import loop
from dhn.training.finetune import freeze, parameter_groups
from dhn.training.learner import Learner
from dhn.weights.checkpoint import load_checkpoint
from tiny_runs import CPU, invoke, lines_of, settings

SHAPES = {
    "doublehighernet": {"width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8},
    "doublehighernet_lite": {"width": 8, "backbone": "efficientnet"},
}


def network(name="doublehighernet"):
    torch.manual_seed(0)
    return build_model(name, 14, **SHAPES[name])


def batch():
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=g)
    keypoints = torch.rand(3, 2, 14, 3, generator=g) * 64
    return Batch(image, keypoints, None, [], ["a", "b", "c"])


@pytest.mark.parametrize("name", SHAPES)
def test_groups_hold_every_weight_once_and_go_from_image_to_heads(name):
    model = network(name)
    groups = parameter_groups(model, 0.5)
    held = list(itertools.chain(*(weights for _, weights in groups)))
    # In the network's order, so that a run's moments stay its own if the decay changes.
    assert all(ours is theirs for ours, theirs in zip(held, model.parameters(), strict=True))
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    factors = [factor for factor, _ in groups]
    assert factors == [0.5 ** (len(groups) - 1 - k) for k in range(len(groups))]
    level = {id(p): k for k, (_, weights) in enumerate(groups) for p in weights}
    of = {key: level[id(p)] for key, p in model.named_parameters()}
    assert {of[key] for key in of if not key.startswith("backbone.")} == {len(groups) - 1}
    assert max(of[key] for key in of if key.startswith("backbone.")) == len(groups) - 2
    if name == "doublehighernet":
        assert of["backbone.conv1.weight"] == of["backbone.bn1.bias"] == 0
        assert of["backbone.stage2.0.branches.0.0.conv1.weight"] < min(
            of[key] for key in of if key.startswith("backbone.stage3.")
        )
    else:
        assert of["backbone.stem.0.weight"] == of["backbone.stem.1.weight"] == 0
        blocks = [of[f"backbone.blocks.{k}.layers.0.weight"] for k in range(15)]
        assert blocks == list(range(1, 16))


def test_one_group_where_depth_does_not_matter():
    model = network()
    ((factor, weights),) = parameter_groups(model, 1)
    assert factor == 1
    assert all(ours is theirs for ours, theirs in zip(weights, model.parameters(), strict=True))


def test_layers_learn_at_their_rate(tmp_path):
    """Adam's first step is lr in every coordinate that has a gradient."""
    config = settings(tmp_path, "train.layer_decay=0.5")
    model = network()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    learner = Learner(config, model, CPU)
    learner.update([batch()], 3, 1e-3)
    steps = {key: (p - before[key]).abs().max().item() for key, p in model.named_parameters()}
    for factor, weights in parameter_groups(model, 0.5):
        ids = {id(p) for p in weights}
        for key, p in model.named_parameters():
            if id(p) in ids and steps[key]:
                # In float32, next to weights of up to a few units.
                assert steps[key] == pytest.approx(1e-3 * factor, rel=0.1, abs=3e-7)


def test_frozen_layers_stay_as_they_are(tmp_path):
    config = settings(tmp_path, "train.freeze=[backbone.stage2, backbone.layer1]", "train.ema=0.9")
    model = network()
    learner = Learner(config, model, CPU)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(2):
        assert learner.update([batch()], 3, 1e-3).applied
    for state in (model.state_dict(), learner.averaged.state_dict()):
        for key, value in state.items():
            if key.startswith(("backbone.stage2.", "backbone.layer1.")):
                assert torch.equal(value, before[key]), key
    assert not torch.equal(
        model.state_dict()["backbone.conv1.weight"], before["backbone.conv1.weight"]
    )
    running = "backbone.bn1.running_mean"
    assert not torch.equal(model.state_dict()[running], before[running])
    assert len(learner.optimiser.param_groups[0]["params"]) < len(list(model.parameters()))


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        (["stage2"], "no layer 'stage2'; there are backbone, coarse_head_quarter"),
        (["backbone.stage9"], "no layer 'backbone.stage9'; there are backbone.conv1"),
        ([""], "no layer ''"),
    ],
)
def test_layers_that_are_not_there_are_named(layers, complaint):
    with pytest.raises(DhnError, match=complaint):
        freeze(network(), layers)


def test_something_must_learn():
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(DhnError, match="no layer is left to learn"):
        freeze(model, ["0"])


def test_a_frozen_run_resumes_and_cannot_thaw(crowds, tmp_path):
    run = tmp_path / "run"
    arguments = ["train.epochs=1", "train.freeze=[backbone]", "train.layer_decay=0.9"]
    config = settings(crowds, *arguments)
    loop.train(config, run, CPU)
    weights = load_checkpoint(run / "last.pt").progress["weights"]
    result = invoke("-q", "--resume", run, "train.epochs=2")
    assert result.exit_code == 0, result.stderr
    after = load_checkpoint(run / "last.pt").progress["weights"]
    assert all(torch.equal(after[k], weights[k]) for k in weights if k.startswith("backbone."))
    assert not torch.equal(after["fine_head_half.weight"], weights["fine_head_half.weight"])
    result = invoke("-q", "--resume", run, "train.epochs=3", "train.freeze=[]")
    assert result.exit_code == 1
    assert "train.freeze cannot change" in result.stderr


def test_patience_ends_a_run_that_gets_no_better(crowds, tmp_path, monkeypatch):
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    monkeypatch.setattr(loop, "score_held_out", lambda *_: {"AP": next(scores)})
    more = ["data.eval_split=val", "train.eval_every=1", "train.epochs=6", "train.patience=3"]
    run = tmp_path / "run"
    config = settings(crowds, *more)
    assert loop.train(config, run, CPU) == run / "best.pt"
    assert [line["epoch"] for line in lines_of(run)] == [1, 2, 3, 4, 5]
    assert load_checkpoint(run / "best.pt").progress["epoch"] == 2
    # To go on with it takes more patience.
    loop.train(config, run, CPU)
    assert len(lines_of(run)) == 5
    loop.train(settings(crowds, *more[:-1], "train.patience=4"), run, CPU)
    assert len(lines_of(run)) == 6
    assert load_checkpoint(run / "best.pt").progress["best_ap"] == 0.9


def test_finetuning_starts_from_a_run(crowds, tmp_path):
    """The real commands: a run, then another from its weights that says what it took."""
    first = tmp_path / "first"
    network = ["network.width=8", "data.input_size=64", "train.amp=off", "train.epochs=1"]
    start = ["--config", "people", *network, f"data.dataset={crowds}", "data.eval_size=64"]
    result = invoke("--output", first, *start, "train.tensorboard=off")
    assert result.exit_code == 0, result.stderr
    second = tmp_path / "second"
    result = invoke(
        *("--output", second, "--config", "finetune", *network, f"data.dataset={crowds}"),
        *(f"train.init={first / 'last.pt'}", "train.freeze=[backbone.stem]", "train.eval_every=1"),
        "train.tensorboard=off",
    )
    assert result.exit_code == 0, result.stderr
    (taken,) = [line for line in result.output.splitlines() if line.startswith("loaded")]
    loaded, of = map(int, [word for word in taken.split() if word.isdigit()][:2])
    assert loaded == of
    weights = [load_checkpoint(run / "last.pt").weights for run in (first, second)]
    assert torch.equal(*(w["backbone.stem.0.weight"] for w in weights))
    assert not torch.equal(*(w["fine_head_half.weight"] for w in weights))
