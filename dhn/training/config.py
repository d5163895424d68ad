"""Settings of a training run: presets, YAML files and `a.b=value` overrides, all validated."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from dhn.base.errors import DhnError

DEFAULT_PRESET = "doublehighernet_w32_crowdpose"


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_Count = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(ge=0)]


class Network(_Section):
    """Arguments of `dhn.build_model`; the joints come from the data."""

    name: Literal["doublehighernet", "higherhrnet", "hrnet"] = "doublehighernet"
    width: int = Field(32, ge=4, le=256, multiple_of=4)
    fusion: Literal["attention", "concat"] = "attention"
    modules: tuple[_Count, _Count, _Count] = (1, 4, 3)
    blocks: int = Field(4, ge=1, le=8)
    stem: int = Field(64, ge=4, le=256)


class Data(_Section):
    """What is trained on, and how samples are made from it."""

    dataset: str = "crowdpose"  # crowdpose, coco, or a folder or JSON file
    split: Literal["train", "val", "test", "trainval"] = "trainval"
    # Held out, scored every `train.eval_every` epochs; none when `split` contains everything.
    eval_split: Literal["train", "val", "test"] | None = None
    synthetic: int = Field(0, ge=0)  # procedural crowds made at `dataset` where there is no folder
    input_size: int = Field(512, ge=64, le=2048, multiple_of=64)
    # Short side at inference; by default input_size, which fits crops of scale 1.
    eval_size: int | None = Field(None, ge=64, le=2048, multiple_of=64)
    max_people: int = Field(30, ge=1)  # per image, the largest; how many are left out is said
    # Images that cannot be read; more of them end the run. Runs of dhn 0.1 name pictures.
    max_bad_images: int = Field(
        100, ge=0, validation_alias=pydantic.AliasChoices("max_bad_images", "max_bad_pictures")
    )
    keep_empty: bool = False  # train on images without a labelled joint too
    workers: int = Field(4, ge=0)
    rotation: float = Field(30, ge=0, le=180)  # degrees either way
    scale: tuple[float, float] = (0.75, 1.5)  # of the short side
    translation: float = Field(40, ge=0, le=200)  # in 1/200 of the crop's side
    flip: float = Field(0.5, ge=0, le=1)
    colour: float = Field(0, ge=0, le=1)

    @pydantic.field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller one first")
        return value


class Loss(_Section):
    """Targets and the weights of the losses; lengths are in `units`."""

    sigma: float = Field(7, gt=0)
    tau: tuple[float, float] = (10, 7)  # coarse stage, fine stage
    units: Literal["input", "heatmap"] = "input"
    target: Literal["disc", "square"] = "disc"  # square: HigherHRNet's own
    # Adds this much times the target to a pixel's weight, at the start of the run and at its end,
    # linear in between; a crutch for small budgets, none in the paper. At first it keeps flat maps
    # from winning (training notes: the trap of MSE on sparse targets). Left high, it makes a second
    # peak on the wrong side of the body cheap, and the same person is found twice.
    foreground: tuple[_Weight, _Weight] = (0, 0)
    pull: float = Field(1e-3, ge=0)
    push: float = Field(1e-3, ge=0)

    @pydantic.field_validator("tau")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) <= 0:
            raise ValueError("must be two positive numbers")
        return value


class Train(_Section):
    """The optimisation."""

    epochs: int = Field(300, ge=1)
    # Images per update, over all processes and parts: how a batch is computed changes nothing
    # else of a recipe (but batch norm sees a process's part of it alone, without `sync_bn`).
    batch_size: int = Field(12, ge=1)
    accumulate: int = Field(1, ge=1)  # parts of a batch, one after the other: less memory
    # Weights to start from: a name (`dhn models`), an address or a file; null: none.
    init: str | None = None
    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0, ge=0)
    # step: times `gamma` at each of `milestones`; cosine: to zero at the end, which needs no
    # milestones to be found for a budget that is not the paper's.
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = (200, 260)
    gamma: float = Field(0.1, gt=0, le=1)
    # Share of the run in which lr rises from zero: Adam's second moments are rough at first, and
    # fresh heads send large gradients into a trained backbone.
    warmup: float = Field(0, ge=0, lt=1)
    # Longest gradient, 0: any. Tags of a crowd that are pulled apart give rare, long gradients.
    clip_grad_norm: float = Field(0, ge=0)
    # Decay per update of averaged weights, 0: none. The average is less noisy than the last step
    # and is what is evaluated, saved beside the weights and used by predict and eval.
    ema: float = Field(0, ge=0, lt=1)
    # Batch norm over all processes: parts of a few images give rough statistics. CUDA only.
    sync_bn: bool = False
    # auto: bf16 where the hardware multiplies it; fp16: with loss scaling, for older GPUs.
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    compile: bool = False  # torch.compile: minutes at the start for faster steps
    max_bad_steps: int = Field(20, ge=1)  # in a row, not finite and skipped; more end the run
    eval_every: int = Field(10, ge=1)  # epochs, where a split is held out
    keep_every: int = Field(0, ge=0)  # epochs whose checkpoint is kept for good; 0: none
    checkpoint_every: float = Field(10, ge=0)  # minutes; 0: after every update
    # auto: curves and images for TensorBoard in the run's folder, where that is installed.
    tensorboard: Literal["auto", "off"] = "auto"
    seed: int = Field(0, ge=0)

    @pydantic.field_validator("amp", "tensorboard", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare off as false


class Config(_Section):
    network: Network = Network()
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()

    @pydantic.model_validator(mode="after")
    def _held_out(self) -> "Config":
        held_out, split = self.data.eval_split, self.data.split
        if held_out is not None and held_out in (("train", "val") if split == "trainval" else ()):
            raise ValueError(
                f"data.eval_split: {held_out!r} is part of data.split 'trainval'; set it to null"
            )
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def presets() -> list[str]:
    """Names that `load_config` knows."""
    folder = resources.files("dhn.training") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir())


def load_config(source: str = DEFAULT_PRESET, overrides: Sequence[str] = ()) -> Config:
    """Reads a preset or a YAML file and applies overrides.

    Args:
        source: the name of a preset, or the path of a YAML file.
        overrides: `a.b=value`, the value in YAML.

    Raises:
        DhnError: no such preset or file, not YAML, an unknown key (the nearest right one is
            named) or a value out of range.
    """
    return override_config(_read(source), overrides, source)


def override_config(values: dict[str, Any], overrides: Sequence[str], source: str) -> Config:
    """Applies overrides to a dictionary of settings and validates it.

    Args:
        source: what error messages name.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise DhnError(f"{override!r}: overrides are written a.b=value, like train.epochs=10")
        _set(values, key.strip().split("."), _parse(text, override), override)
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        raise DhnError(f"{source}: {_explain(error)}") from error


def _read(source: str) -> dict[str, Any]:
    if source in presets():
        text = (resources.files("dhn.training") / "presets" / f"{source}.yaml").read_text(
            encoding="utf-8"
        )
    elif Path(source).suffix in (".yaml", ".yml"):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DhnError(f"{source}: cannot be read ({error})") from error
    else:
        near = difflib.get_close_matches(source, presets(), 1)
        hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(presets())}"
        raise DhnError(f"--config {source}: neither a preset nor a .yaml file; {hint}")
    values = _parse(text, source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DhnError(f"{source}: must hold sections like `train:` with settings in them")
    return values


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DhnError(f"{source}: is not YAML ({' '.join(str(error).split())})") from error


def _set(values: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise DhnError(f"{override!r}: {name} is a value, not a section")
    # YAML reads 1e-3 as text; pydantic turns it into a number where one is wanted.
    values[path[-1]] = value


def _explain(error: pydantic.ValidationError) -> str:
    """The first complaint, with the nearest right key where the key is unknown."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = _nearest(path)
        return f"unknown setting {path}" + (f"; did you mean {near}?" if near else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message}, not {first['input']!r}" if path else message


def _nearest(path: str) -> str | None:
    """The section or setting with the nearest name, from the same section if there is one."""
    section, _, name = path.rpartition(".")
    known = {name: name for name in Config.model_fields}
    for other, field in Config.model_fields.items():
        known |= {key: f"{other}.{key}" for key in field.annotation.model_fields}  # type: ignore[union-attr]
    own = [key for key, full in known.items() if section and full.startswith(f"{section}.")]
    near = difflib.get_close_matches(name, own, 1) or difflib.get_close_matches(name, known, 1)
    return known[near[0]] if near else None
