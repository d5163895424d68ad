from importlib import resources
from typing import Any

import pytest
import torch
import yaml

from assertions import complaint
from dhn.base.errors import DhnError
from dhn.model import build_model
from dhn.training.config import DEFAULT_PRESET, load_config, override_config, presets
from dhn.training.settings import Config
from dhn.weights.choice import BUNDLED_NAME
from dhn.weights.zoo import PUBLISHED


def complaint_about(overrides, source=DEFAULT_PRESET) -> str:
    return complaint(load_config, str(source), overrides)


@pytest.mark.parametrize("name", presets())
def test_presets_are_short_and_valid_and_their_networks_can_be_built(name):
    config = load_config(name)
    with torch.device("meta"):
        build_model(**config.network.arguments(), num_joints=14)
    text = (resources.files("dhn.training") / "presets" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) < 20


def test_the_default_is_the_papers_recipe():
    config = load_config()
    assert config.network.arguments() == {
        "name": "doublehighernet",
        "width": 32,
        "fusion": "attention",
        "modules": (1, 4, 3),
        "blocks": 4,
        "stem": 64,
    }
    assert (config.data.dataset, config.data.split) == ("crowdpose", "trainval")
    assert config.data.eval_split is None
    assert (config.data.input_size, config.data.rotation, config.data.scale) == (
        512,
        30,
        (0.75, 1.5),
    )
    assert (config.data.translation, config.data.flip, config.data.colour) == (40, 0.5, 0)
    assert (config.loss.sigma, config.loss.tau, config.loss.units) == (7, (10, 7), "input")
    assert (config.loss.target, config.loss.foreground) == ("disc", (0, 0))
    assert (config.loss.pull, config.loss.push) == (1e-3, 1e-3)
    train = config.train
    assert (train.optimiser, train.lr, train.epochs) == ("adam", 1e-3, 300)
    assert (train.schedule, train.milestones, train.gamma) == ("step", (200, 260), 0.1)
    assert train.init == "hrnet_w32_imagenet"
    # What the paper does not have is off.
    beyond = (train.warmup, train.clip_grad_norm, train.weight_decay, train.ema)
    assert beyond == (0, 0, 0, 0)
    assert (train.accumulate, train.sync_bn, train.compile) == (1, False, False)


def difference(name: str, base: str = DEFAULT_PRESET) -> dict[str, Any]:
    """The settings of a preset that differ from those of another, as a.b: value."""
    ours, theirs = (load_config(preset).model_dump() for preset in (name, base))
    return {
        f"{section}.{key}": value
        for section in ours
        for key, value in ours[section].items()
        if value != theirs[section][key]
    }


WIDE = {"network.width": 48, "train.init": "hrnet_w48_imagenet"}
COCO = {"data.dataset": "coco", "data.split": "train", "data.eval_split": "val"}
BASELINE = {"loss.sigma": 2, "loss.units": "heatmap", "loss.target": "square"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("doublehighernet_w48_crowdpose", WIDE),
        ("doublehighernet_w32_coco", COCO),
        ("doublehighernet_w48_coco", WIDE | COCO),
        ("higherhrnet_w32_crowdpose", {"network.name": "higherhrnet"} | BASELINE),
        ("higherhrnet_w32_coco", {"network.name": "higherhrnet"} | BASELINE | COCO),
        ("hrnet_w32_crowdpose", {"network.name": "hrnet"} | BASELINE),
        ("hrnet_w32_coco", {"network.name": "hrnet"} | BASELINE | COCO),
        ("table2_row1_concat", {"network.fusion": "concat", "loss.tau": (7, 7)}),
        ("table2_row2_attention", {"loss.tau": (7, 7)}),
        ("table2_row3_coarse_to_fine", {}),  # row 4 is this training, scored another way
    ],
)
def test_recipes_differ_from_the_papers_in_nothing_else(name, settings):
    assert difference(name) == settings


def test_every_recipe_starts_from_published_weights():
    for name in presets():
        init = load_config(name).train.init
        assert (init is None) == (name in ("demo", "people"))
        assert init in {None, BUNDLED_NAME, *PUBLISHED}


def test_to_yaml_goes_round(tmp_path):
    config = load_config("demo", ["train.milestones=[1,2]", "loss.tau=[3,4.5]", "train.lr=1e-5"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(str(tmp_path / "config.yaml")) == config


def test_overrides_are_yaml_values():
    config = load_config(
        overrides=[
            "train.lr=1e-4",  # text for YAML, a number for us
            "data.scale=[1, 2]",
            "data.eval_split=null",
            "data.dataset=a=b.json",
            "network.name=higherhrnet",
            "train.epochs=7",
            "train.epochs=8",
        ]
    )
    assert config.train.lr == 1e-4
    assert config.data.scale == (1, 2)
    assert config.data.eval_split is None
    assert config.data.dataset == "a=b.json"
    assert config.network.name == "higherhrnet"
    assert config.train.epochs == 8  # the last one counts


def test_amp_can_be_switched_off(tmp_path):
    """YAML reads a bare off as false."""
    assert load_config(overrides=["train.amp=off"]).train.amp == "off"
    path = tmp_path / "mine.yaml"
    path.write_text("train: {amp: off}\n")
    assert load_config(str(path)).train.amp == "off"
    path.write_text(load_config(str(path)).to_yaml())
    assert load_config(str(path)).train.amp == "off"
    assert "train.amp: Input should be" in complaint_about(["train.amp=on"])


def test_overrides_fill_sections_that_a_file_leaves_out(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("train: {epochs: 3}\n")
    assert load_config(str(path), ["data.workers=0"]).data.workers == 0
    path.write_text("")
    assert load_config(str(path)) == Config()


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.epoch=1", "train.epochs"),
        ("epochs=1", "train.epochs"),
        ("trian.epochs=1", "train"),
        ("data.epochs=1", "train.epochs"),
        ("train.optimizer=adam", "train.optimiser"),
        ("train.batch=2", "train.batch_size"),
        ("network.widht=8", "network.width"),
        ("loss.sigmas=3", "loss.sigma"),
        ("lr=1", "train.lr"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest_right_one(override, meant):
    unknown = override.partition("=")[0]
    assert unknown.split(".")[0] in complaint_about([override])
    assert complaint_about([override]).endswith(f"; did you mean {meant}?")


def test_a_setting_like_no_other_is_named_alone():
    assert complaint_about(["train.xyzzy=1"]).endswith("unknown setting train.xyzzy")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.lr=0", "train.lr: Input should be greater than 0, not 0"),
        ("train.lr=.nan", "train.lr: Input should be a finite number"),
        ("train.lr=.inf", "train.lr: Input should be a finite number"),
        ("train.lr=fast", "train.lr: Input should be a valid number"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1"),
        ("train.epochs=2.5", "train.epochs: Input should be a valid integer"),
        ("train.warmup=1", "train.warmup: Input should be less than 1"),
        ("train.ema=1", "train.ema: Input should be less than 1"),
        ("train.accumulate=0", "train.accumulate: Input should be greater than or equal to 1"),
        ("train.amp=fp8", "train.amp: Input should be 'auto', 'bf16', 'fp16' or 'off'"),
        ("data.input_size=100", "data.input_size: Input should be a multiple of 64"),
        ("data.scale=[2, 1]", "data.scale: must be two positive numbers, the smaller one first"),
        ("data.scale=[0, 1]", "data.scale: must be two positive numbers"),
        ("data.scale=1", "data.scale: Input should be a valid tuple"),
        ("data.flip=1.5", "data.flip: Input should be less than or equal to 1"),
        ("loss.tau=[10, 0]", "loss.tau: must be two positive numbers"),
        ("loss.tau=[.nan, 1]", "loss.tau.0: Input should be a finite number"),
        ("network.width=30", "network.width: Input should be a multiple of 4"),
        ("network.modules=[1, 0, 1]", "network.modules.1: Input should be greater than or equal"),
        ("network.name=resnet", "network.name: Input should be 'doublehighernet'"),
        ("train=3", "train: Input should be"),
        ("data.eval_split=val", "data.eval_split: 'val' is part of data.split 'trainval'"),
        ("data.eval_split=train", "data.eval_split: 'train' is part of data.split 'trainval'"),
    ],
)
def test_a_wrong_value_is_named(override, named):
    assert named in complaint_about([override])


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epochs", "overrides are written a.b=value"),
        ("train.lr.x=1", "lr is a value, not a section"),
        ("train.lr=[1", "train.lr=[1: is not YAML"),
    ],
)
def test_overrides_that_are_none(override, named):
    source = "train: {lr: 1}"
    with pytest.raises(DhnError) as caught:
        override_config(yaml.safe_load(source), [override], "mine.yaml")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_outside_trainval_may_be_held_out():
    assert load_config(overrides=["data.eval_split=test"]).data.eval_split == "test"
    config = load_config(overrides=["data.split=train", "data.eval_split=val"])
    assert config.data.eval_split == "val"


@pytest.mark.parametrize("path", ["other/test.json", "set/data.yaml", "set.yml", "./set", "a/b"])
def test_another_data_set_may_be_held_out(path):
    config = load_config(overrides=["data.dataset=mine", f"data.eval_split={path}"])
    assert config.data.held_out == (path, "val")
    own = load_config(overrides=["data.dataset=mine", "data.eval_split=test"])
    assert own.data.held_out == ("mine", "test")


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    assert f"{path}: cannot be read" in complaint_about([], path)
    path.write_text("train: [1, 2\n")
    assert f"{path}: is not YAML" in complaint_about([], path)
    path.write_text("- 1\n")
    assert f"{path}: must hold sections" in complaint_about([], path)
    path.write_text("train: {epoch: 3}\n")
    assert (
        complaint_about([], path)
        == f"{path}: unknown setting train.epoch; did you mean train.epochs?"
    )
    path.write_bytes(b"\xff\xfe\x00")
    assert f"{path}: cannot be read" in complaint_about([], path)
    path.write_text("train: !!python/object/apply:os.system ['false']\n")
    assert f"{path}: is not YAML" in complaint_about([], path)


def test_an_unknown_preset_is_named_with_the_nearest():
    assert "did you mean demo?" in complaint_about([], "demmo")
    assert "presets: demo, doublehighernet_w32_coco, " in complaint_about([], "something")


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load_config().train.lr = 1.0
