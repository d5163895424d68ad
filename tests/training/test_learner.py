import copy
import itertools
import math

import pytest
import torch

from dhn.base.distributed import World
from dhn.base.errors import DhnError
from dhn.data.dataset import Batch
from dhn.model import build_model
from dhn.training.config import load_config
from dhn.training.learner import Learner, foreground_weight, learning_rate
from dhn.training.settings import Loss
from tiny_runs import CPU, assert_same, settings


def make_learner(*overrides: str) -> Learner:
    torch.manual_seed(0)
    config = settings("unused", *overrides)
    return Learner(config, build_model(**config.network.model_dump(), num_joints=14), CPU)


def make_batch(images: int = 4, *, masked: bool = True, seed: int = 0) -> Batch:
    """Noise with zero to two people an image, the first image partly ignored."""
    g = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(images, 2, 14, 3, generator=g) * 64
    keypoints[..., 2] = (torch.rand(images, 2, 14, generator=g) > 0.3) * 2
    keypoints[1::3, 1] = 0
    keypoints[2::3] = 0
    mask = torch.ones(images, 64, 64, dtype=torch.uint8)
    mask[0, :30] = 0
    pixels = torch.randint(0, 256, (images, 3, 64, 64), dtype=torch.uint8, generator=g)
    names = [f"{k}.jpg" for k in range(images)]
    return Batch(pixels, keypoints, mask if masked else None, [], names)


def part(batch: Batch, rows: slice) -> Batch:
    mask = None if batch.mask is None else batch.mask[rows]
    return Batch(batch.image[rows], batch.keypoints[rows], mask, [], batch.names[rows])


def everything(learner: Learner) -> dict:
    parts = (learner.model.state_dict(), learner.averaged.state_dict(), learner.state_dict())
    return copy.deepcopy(dict(zip(("model", "averaged", "rest"), parts, strict=True)))


def gradients(learner: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in learner.model.parameters()])


def freeze_statistics(learner: Learner) -> None:
    """Batch norm that does not see its batch: only then is a batch the sum of its parts."""
    learner.model.eval()
    learner.model.train = lambda mode=True: learner.model


def test_an_update_moves_every_weight():
    learner = make_learner()
    before = everything(learner)["model"]
    update = learner.update([make_batch()], 4, 1e-3)
    assert update.applied
    assert update.images == 4
    assert update.loss.total.isfinite()
    after = learner.model.state_dict()
    # Not the biases of hidden units that no image reaches.
    assert sum(not torch.equal(after[name], before[name]) for name in before) > 0.9 * len(before)
    assert learner.averaged is learner.model


@pytest.mark.parametrize("foreground", [0, 10])
@pytest.mark.parametrize("cuts", [(1,), (1, 2, 3), (0, 4), (3,)])
def test_parts_give_the_gradient_of_the_whole(cuts, foreground):
    batch = make_batch()
    learners = [make_learner() for _ in range(2)]
    for learner in learners:
        freeze_statistics(learner)
    edges = (0, *cuts, 4)
    parts = [part(batch, slice(a, b)) for a, b in itertools.pairwise(edges)]
    whole, split = (
        learner.update(own, 4, 1e-3, foreground)
        for learner, own in zip(learners, ([batch], parts), strict=True)
    )
    assert split.images == 4
    for ours, theirs in zip(split.loss, whole.loss, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients(learners[1]), gradients(learners[0]), rtol=1e-4, atol=1e-5)


def test_an_image_that_cannot_be_read_adds_nothing():
    batch = part(make_batch(), slice(0, 2))
    two_of_two, two_of_four = make_learner(), make_learner()
    two_of_two.update([batch], 2, 1e-3)
    two_of_four.update([batch], 4, 1e-3)
    torch.testing.assert_close(gradients(two_of_four) * 2, gradients(two_of_two))


def test_a_batch_of_which_nothing_can_be_read_changes_nothing():
    learner = make_learner("train.ema=0.9")
    before = everything(learner)
    nothing = Batch(torch.empty(0), torch.empty(0), None, ["a.jpg: gone"], [])
    assert learner.update([nothing, nothing], 4, 1e-3) == (None, 0, True, False)
    assert_same(everything(learner), before, but=("lr",))


def poison_the_loss(learner):
    learner.model.fine_head_half.register_forward_hook(lambda *args: args[-1] * math.inf)


def poison_the_gradient(learner):
    # The loss itself stays finite.
    learner.model.fine_head_half.weight.register_hook(lambda grad: grad * math.nan)


@pytest.mark.parametrize("poison", [poison_the_loss, poison_the_gradient])
def test_an_update_that_is_not_finite_leaves_no_trace(poison):
    learner = make_learner("train.ema=0.9")
    learner.update([make_batch(seed=1)], 4, 1e-3)
    before = everything(learner)
    poison(learner)
    update = learner.update([make_batch()], 4, 1e-3)
    assert not update.applied
    assert_same(everything(learner), before, but=("lr",))


def test_gradients_are_clipped_where_asked():
    free, clipped = make_learner(), make_learner("train.clip_grad_norm=1e-3")
    for learner in (free, clipped):
        learner.update([make_batch()], 4, 1e-3)
    assert gradients(free).norm() > 0.01
    assert gradients(clipped).norm().item() == pytest.approx(1e-3, rel=0.01)


def test_the_average_follows_its_formula():
    """Weights and running statistics; few at first, `train.ema` in the long run."""
    learner = make_learner("train.ema=0.5")
    average = copy.deepcopy(learner.model.state_dict())
    assert_same(dict(learner.averaged.state_dict()), dict(average))
    for n in range(12):
        learner.update([make_batch(seed=n)], 4, 1e-2)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in learner.model.state_dict().items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value
            else:
                average[name] = value.clone()
    for name, value in learner.averaged.state_dict().items():
        torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6, msg=name)
    assert decay == 0.5
    assert not learner.averaged.training


def test_fp16_scales_the_loss_until_its_gradients_fit():
    learner = make_learner("train.amp=fp16")
    assert learner.amp == torch.float16
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**26})
    before = learner.model.coarse_head_half.weight.clone()
    applied = []
    while not any(applied):
        applied.append(learner.update([make_batch()], 4, 1e-3).applied)
    assert len(applied) > 1
    assert learner.scaler.get_scale() == 2.0 ** (26 - len(applied) + 1)
    assert not torch.equal(learner.model.coarse_head_half.weight, before)
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}
    plain = make_learner()
    plain.update([make_batch()], 4, 1e-3)
    # What is applied is the gradient, not its multiple.
    assert gradients(learner).norm().item() == pytest.approx(
        gradients(plain).norm().item(), rel=0.05
    )


def test_bf16_keeps_float32_weights():
    learner = make_learner("train.amp=bf16")
    update = learner.update([make_batch()], 4, 1e-3)
    assert update.applied
    assert update.loss.total.dtype == torch.float32
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}


def test_a_compiled_network_learns_the_same(monkeypatch):
    """Traced as for any backend, but run as it is: code generation takes minutes on a CPU."""
    compile = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compile(model, backend="eager"))
    plain, compiled = (
        make_learner("network.name=hrnet", f"train.compile={on}") for on in ("false", "true")
    )
    for learner in (plain, compiled):
        assert learner.update([make_batch(2)], 2, 1e-3).applied
    assert_same(everything(compiled), everything(plain))


def test_synchronised_statistics_are_refused_where_they_do_not_work():
    model = build_model("higherhrnet_w8", 14, modules=(1, 1, 1), blocks=1, stem=8)
    with pytest.raises(DhnError, match=r"train\.sync_bn: works between GPUs only"):
        Learner(settings("unused", "train.sync_bn=true"), model, CPU, World(0, 2))
    Learner(settings("unused", "train.sync_bn=true"), model, CPU)  # nothing to synchronise


def test_step_schedule():
    train = load_config(overrides=["train.milestones=[4,8]", "train.lr=2"]).train
    rates = [learning_rate(train, e / 10, e) for e in (0, 3.99, 4, 7.5, 8, 9.9)]
    assert rates == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])


def test_the_papers_schedule():
    train = load_config().train
    rates = [learning_rate(train, e / 300, e) for e in (0, 199.9, 200, 259.9, 260, 299)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_cosine_schedule_with_warmup():
    train = load_config(overrides=["train.schedule=cosine", "train.warmup=0.2", "train.lr=1"]).train
    shares = [k / 1000 for k in range(1000)]
    rates = [learning_rate(train, share, 300 * share) for share in shares]
    assert 0 < rates[0] < 0.01
    assert rates[100] == pytest.approx(0.5)
    assert max(rates) == rates[200] == pytest.approx(1)
    assert rates[600] == pytest.approx(0.5)
    assert rates[-1] < 1e-4
    assert rates[:201] == sorted(rates[:201])
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_foreground_weight_goes_from_start_to_end():
    loss = Loss(foreground=(10, 1))
    assert [foreground_weight(loss, share) for share in (0, 1 / 3, 1)] == [10, 7, 1]
