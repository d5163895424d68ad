import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dhn
from dhn.model import KINDS, HRNet, build_model
from dhn.model.hrnet import ExchangeModule
from dhn.model.networks import AttentionFusion, Concatenation, DoubleHigherNet

SMALL = {"num_joints": 3, "width": 8, "modules": (1, 1, 1), "blocks": 1, "stem": 8}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def meta():
    """Networks without memory: only shapes and names are looked at."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("name", "num_joints", "expected"),
    [
        ("doublehighernet_w32", 14, 28_671_162),
        ("higherhrnet_w32", 14, 28_641_962),
        ("higherhrnet_w32", 17, 28_645_331),
        ("higherhrnet_w48", 14, 63_822_090),
    ],
)
def test_parameter_counts(meta, name, num_joints, expected):
    assert parameters(build_model(name, num_joints=num_joints)) == expected


def test_doublehighernet_is_as_large_as_the_paper_says(meta):
    assert parameters(build_model("doublehighernet_w32")) == pytest.approx(28.6e6, rel=0.05)


def official_higherhrnet_keys() -> set[str]:
    """Names in the official code, from shared/notes/checkpoints.md, stage by stage."""
    keys: set[str] = set()

    def conv(name: str) -> None:
        keys.add(f"{name}.weight")

    def bn(name: str) -> None:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        keys.update(f"{name}.{part}" for part in parts)

    def conv_bn(name: str) -> None:
        conv(f"{name}.0")
        bn(f"{name}.1")

    def block(name: str, convs: int) -> None:
        for k in range(1, convs + 1):
            conv(f"{name}.conv{k}")
            bn(f"{name}.bn{k}")

    block("", 2)
    keys.update({key.removeprefix(".") for key in keys})
    keys.difference_update({key for key in keys if key.startswith(".")})
    for k in range(4):
        block(f"layer1.{k}", 3)
    conv_bn("layer1.0.downsample")
    conv_bn("transition1.0")
    for new in ("transition1.1.0", "transition2.2.0", "transition3.3.0"):
        conv_bn(new)
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for m in range(modules):
            name = f"stage{stage}.{m}"
            for b in range(stage):
                for k in range(4):
                    block(f"{name}.branches.{b}.{k}", 2)
            for i in range(1 if (stage, m) == (4, 2) else stage):
                for j in range(i + 1, stage):
                    conv_bn(f"{name}.fuse_layers.{i}.{j}")
                for j in range(i):
                    for k in range(i - j):
                        conv_bn(f"{name}.fuse_layers.{i}.{j}.{k}")
    for k in range(2):
        keys.update({f"final_layers.{k}.weight", f"final_layers.{k}.bias"})
    conv_bn("deconv_layers.0.0")
    for k in range(1, 5):
        block(f"deconv_layers.0.{k}.0", 2)
    return keys


@pytest.mark.parametrize("name", ["higherhrnet_w32", "higherhrnet_w48"])
def test_higherhrnet_has_the_official_keys(meta, name):
    ours = {key.removeprefix("backbone.") for key in build_model(name).state_dict()}
    assert ours == official_higherhrnet_keys()
    assert len(ours) == 1810


def test_higherhrnet_heads_have_the_official_shapes(meta):
    weights = build_model("higherhrnet_w32").state_dict()
    assert weights["final_layers.0.weight"].shape == (28, 32, 1, 1)
    assert weights["final_layers.1.weight"].shape == (14, 32, 1, 1)
    assert weights["deconv_layers.0.0.0.weight"].shape == (32 + 28, 32, 4, 4)


@pytest.mark.parametrize(
    ("name", "heatmap_strides", "tag_maps"),
    [("doublehighernet", (4, 2, 4, 2), 2), ("higherhrnet", (4, 2), 1), ("hrnet", (4,), 1)],
)
@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_output_shapes_coarse_before_fine(name, heatmap_strides, tag_maps, size):
    H, W = size
    maps = build_model(name, **SMALL).eval()(torch.randn(2, 3, H, W))
    assert [h.shape for h in maps.heatmaps] == [(2, 3, H // s, W // s) for s in heatmap_strides]
    assert [t.shape for t in maps.tags] == [(2, 3, H // 4, W // 4)] * tag_maps


def test_stages_come_in_order():
    """What each head puts out lands where PoseMaps says: biases mark the heads."""
    model = build_model("doublehighernet", **SMALL).eval()
    heads = ("coarse_head_quarter", "coarse_head_half", "fine_head_quarter", "fine_head_half")
    for number, name in enumerate(heads, 1):
        head = getattr(model, name)
        nn.init.zeros_(head.weight)
        head.bias.data = 10.0 * number + torch.arange(len(head.bias))
    maps = model(torch.randn(1, 3, 64, 64))
    J = SMALL["num_joints"]
    assert [h[0, 0].unique().tolist() for h in maps.heatmaps] == [[10], [20], [30], [40]]
    assert [t[0, 0].unique().tolist() for t in maps.tags] == [[10 + J], [30 + J]]
    assert maps.heatmaps[0][0, 2].unique().tolist() == [12]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_gradients_reach_every_parameter(name, fusion):
    torch.manual_seed(0)
    # Enough channels that no attention is born with all its hidden units dead.
    model = build_model(name, **SMALL | {"width": 16, "num_joints": 14}, fusion=fusion)
    maps = model(torch.randn(2, 3, 64, 64))
    # Squares of shifted maps: a sum alone has no gradient before a batch norm.
    sum((m - 1).square().mean() for m in (*maps.heatmaps, *maps.tags)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_tags_of_the_coarse_stage_are_independent_of_the_fine_stage():
    model = build_model("doublehighernet", **SMALL).eval()
    image = torch.randn(1, 3, 64, 64)
    before = model(image)
    for name, p in model.named_parameters():
        if name.startswith(("fine_", "transition_", "final_")):
            nn.init.normal_(p)
    after = model(image)
    assert torch.equal(before.tags[0], after.tags[0])
    assert all(map(torch.equal, before.heatmaps[:2], after.heatmaps[:2]))
    assert not torch.equal(before.heatmaps[3], after.heatmaps[3])


def test_attention_fusion_is_its_formula():
    torch.manual_seed(0)
    fusion = AttentionFusion(10).double()
    a, b = torch.randn(2, 4, 5, 7).double(), torch.randn(2, 6, 5, 7).double()
    got = fusion(a, b)
    assert fusion.fc1.weight.shape == (2, 10)  # hidden = max(1, 10 // 4)
    for i in range(2):
        z = torch.cat([a[i], b[i]])
        hidden = fusion.fc1.weight @ z.mean((1, 2)) + fusion.fc1.bias
        out = fusion.fc2.weight @ hidden.clamp(min=0) + fusion.fc2.bias
        expected = z / (1 + torch.exp(-out))[:, None, None]
        torch.testing.assert_close(got[i], expected)


def test_attention_fusion_of_few_channels_keeps_a_hidden_unit():
    assert AttentionFusion(3).fc1.weight.shape == (1, 3)


def test_concat_is_the_papers_row_without_attention(meta):
    plain = build_model("doublehighernet_w32", fusion="concat")
    with_attention = build_model("doublehighernet_w32")
    fusions = [m for m in plain.modules() if isinstance(m, Concatenation)]
    attentions = [m for m in with_attention.modules() if isinstance(m, AttentionFusion)]
    assert len(fusions) == len(attentions) == 3
    extra = sum(parameters(m) for m in attentions)
    assert parameters(with_attention) - parameters(plain) == extra
    a, b = torch.empty(1, 2, 4, 4), torch.empty(1, 3, 4, 4)
    assert Concatenation()(a, b).shape == (1, 5, 4, 4)


def test_transition_has_four_and_two_bottlenecks(meta):
    model = build_model("doublehighernet_w32")
    assert (len(model.transition_quarter), len(model.transition_half)) == (4, 2)
    assert model.transition_quarter[0].conv2.out_channels == 8  # inner planes C / 4


def test_bottlenecks_can_be_chosen():
    backbone = HRNet(8, modules=(1, 1, 1), blocks=1, stem=8)
    model = DoubleHigherNet(backbone, 3, bottlenecks=(1, 0))
    assert (len(model.transition_quarter), len(model.transition_half)) == (1, 0)
    assert model(torch.randn(2, 3, 32, 32)).heatmaps[3].shape == (2, 3, 16, 16)


def test_exchange_module_adds_every_branch_to_every_other():
    module = ExchangeModule([4, 8, 16], blocks=1, outputs=3).eval()
    maps = [torch.randn(1, 4, 16, 16), torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]
    got = module(maps)
    branches = [branch(x) for branch, x in zip(module.branches, maps, strict=True)]
    for i, layers in enumerate(module.fuse_layers):
        expected = sum(
            F.interpolate(layer(x), size=maps[i].shape[2:], mode="nearest")
            for layer, x in zip(layers, branches, strict=True)
        )
        torch.testing.assert_close(got[i], F.relu(expected))
        assert got[i].shape == maps[i].shape


def test_bottom_up_hrnet_brings_four_branches_to_a_quarter():
    model = build_model("hrnet", **SMALL).eval()
    assert model.head.in_channels == 8 + 16 + 32 + 64
    image = torch.randn(1, 3, 64, 64)
    branches = model.backbone(image)
    assert [b.shape[1:] for b in branches] == [
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
        (64, 2, 2),
    ]
    up = [F.interpolate(b, size=(16, 16), mode="bilinear") for b in branches]
    expected = model.head(torch.cat(up, 1))
    torch.testing.assert_close(model(image).heatmaps[0], expected[:, :3])
    torch.testing.assert_close(model(image).tags[0], expected[:, 3:])


@pytest.mark.parametrize("name", KINDS)
def test_heads_begin_small_and_flat(name):
    model = build_model(name, num_joints=14, width=32, modules=(1, 1, 1), blocks=1)
    heads = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert len(heads) == {"higherhrnet": 2, "hrnet": 1}.get(name, 4)
    for head in heads:
        assert head.weight.std().item() == pytest.approx(1e-3, rel=0.2)
        assert not head.bias.any()


def test_convolutions_before_batch_norm_keep_the_variance():
    model = build_model("higherhrnet", **SMALL | {"width": 32})
    weight = model.backbone.stage4[0].branches[0][0].conv1.weight  # [32, 32, 3, 3]
    assert weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.1)


def test_width_argument_wins_and_any_width_works():
    assert build_model("higherhrnet_w32", **SMALL).backbone.channels == [8]
    assert build_model("doublehighernet_w12", 3, modules=(1, 1, 1), blocks=1).backbone.channels == [
        12
    ]
    assert dhn.build_model is build_model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "doublehighrnet_w32"}, "unknown network 'doublehighrnet_w32'"),
        ({"name": "doublehighernet-w32"}, "unknown network"),
        ({"name": ""}, "unknown network"),
        ({"name": "higherhrnet"}, "width must be a positive multiple of 4"),
        ({"name": "higherhrnet_w30"}, "multiple of 4, not 30"),
        ({"name": "hrnet", "width": 0}, "multiple of 4, not 0"),
        ({"name": "doublehighernet", "width": -8}, "multiple of 4, not -8"),
        ({"name": "doublehighernet_w8", "fusion": "sum"}, "'attention' or 'concat', not 'sum'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**SMALL | {"width": None} | arguments)


def test_branches_must_be_one_or_four():
    with pytest.raises(ValueError, match="branches must be 1 or 4, not 2"):
        HRNet(8, branches=2)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 3, 63, 64), (1, 3, 64, 48), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_inputs_are_named(name, shape):
    with pytest.raises(ValueError, match="multiples of 32, not "):
        build_model(name, **SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("name", KINDS)
def test_channels_last_and_bfloat16_give_the_same_maps(name):
    torch.manual_seed(0)
    model = build_model(name, **SMALL).eval()
    image = torch.randn(2, 3, 64, 64)
    expected = model(image)
    model = model.to(memory_format=torch.channels_last)
    got = model(image.to(memory_format=torch.channels_last))
    for ours, theirs in zip(
        got.heatmaps + got.tags, expected.heatmaps + expected.tags, strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(image)
    for ours, theirs in zip(rough.heatmaps, expected.heatmaps, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - theirs).abs().max() < 0.05 * theirs.abs().max() + 1e-3
