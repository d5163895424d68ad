"""The settings of a training run, with their defaults, ranges and meanings.

The descriptions of the fields are the only place where settings are explained: the command's
`--show-config` and docs/settings.md repeat them (`dhn.training.describe`).
"""

from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from dhn.training.data_settings import Data, Section

_Modules = Annotated[int, Field(ge=1, le=16)]
_Epoch = Annotated[int, Field(ge=0, le=1_000_000)]
_Weight = Annotated[float, Field(ge=0)]
_BatchSize = Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"]


class Network(Section):
    """The network; how many joints it has comes from the data."""

    name: Literal["doublehighernet", "doublehighernet_lite", "higherhrnet", "hrnet"] = Field(
        "doublehighernet", description="The architecture."
    )
    width: int = Field(
        32,
        ge=4,
        le=256,
        multiple_of=4,
        description="Channels of the backbone's map at 1/4 resolution; its maps at 1/8, 1/16 and "
        "1/32 have 2, 4 and 8 times as many.",
    )
    fusion: Literal["attention", "concat"] = Field(
        "attention",
        description="How DoubleHigherNet joins features and predictions: by channel attention, or "
        "by plain concatenation.",
    )
    modules: tuple[_Modules, _Modules, _Modules] = Field(
        (1, 4, 3), description="Exchange modules in the backbone's stages 2, 3 and 4."
    )
    blocks: int = Field(4, ge=1, le=8, description="Residual blocks in a branch of each module.")
    stem: int = Field(
        64, ge=4, le=256, description="Channels of the two convolutions at the network's input."
    )
    backbone: Literal["hrnet", "efficientnet"] = Field(
        "hrnet",
        description="What `doublehighernet_lite` stands on: a thin HRNet, or EfficientNet-Lite0, "
        "which has no use for `modules`, `blocks`, `stem` and `branches`. Other networks have no "
        "use for this and the next three settings.",
    )
    branches: Literal[2, 3, 4] = Field(
        4, description="How many resolutions the thin HRNet has, from 1/4 down."
    )
    kernel: Literal[3, 5, 7, 9] = Field(
        3, description="Kernel of its blocks; those above 3 are depthwise, as in LitePose."
    )
    half: int = Field(16, ge=4, le=256, description="Channels of its maps at 1/2 resolution.")

    def arguments(self) -> dict[str, Any]:
        """The keywords of `build_model`, without those that the network has no use for."""
        lite = {"backbone", "branches", "kernel", "half"}
        return self.model_dump(exclude=set() if self.name == "doublehighernet_lite" else lite)


class Loss(Section):
    """The heatmaps to learn, and the weights of the losses."""

    sigma: float = Field(
        7,
        gt=0,
        description="Width of the Gaussian around a joint, in `units`: exp(-d^2 / sigma^2) in a "
        "disc, exp(-d^2 / (2 sigma^2)) in a square, at the distance d.",
    )
    tau: tuple[float, float] = Field(
        (10, 7),
        description="Radius of the disc, in `units`, of the coarse and of the fine stage. Networks "
        "with one stage use the fine one, and squares use none.",
    )
    units: Literal["input", "heatmap"] = Field(
        "input", description="Whether `sigma` and `tau` count pixels of the input or of a heatmap."
    )
    target: Literal["disc", "square"] = Field(
        "disc",
        description="Where the Gaussian is cut off: at a disc around the joint's exact place, or, "
        "as in HigherHRNet, at a square around its pixel.",
    )
    foreground: tuple[_Weight, _Weight] = Field(
        (0, 0),
        description="A heatmap pixel weighs 1 + f * target, where f goes from the first number to "
        "the second over the run; 0 is the paper's plain mean. A high f at first keeps maps that "
        "are 0 everywhere from winning, which helps small budgets. A high f at the end makes a "
        "second peak on the wrong side of the body cheap, and people are found twice.",
    )
    pull: float = Field(
        1e-3, ge=0, description="Weight of the loss that draws a person's tags together."
    )
    push: float = Field(
        1e-3, ge=0, description="Weight of the loss that drives the tags of two people apart."
    )

    @pydantic.field_validator("tau")
    @classmethod
    def _positive(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(value) <= 0:
            raise ValueError("must be two positive numbers")
        return value


class Train(Section):
    """The optimisation."""

    epochs: int = Field(
        300, ge=1, le=1_000_000, description="How many times the network sees every image."
    )
    batch_size: _BatchSize = Field(
        12,
        description="Images of an update, over all processes and parts. How a batch is shared out "
        "changes nothing else in a recipe, except that batch norm sees only its own part. `auto` "
        "takes the largest batch that fits in memory: on CUDA by trial, on processors (Linux only) "
        "from the memory that two trials took. The run keeps that number. Another batch wants "
        "another learning rate.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Parts of a process's share of the batch that are computed one after another, "
        "which takes less memory.",
    )
    init: str | None = Field(
        None,
        description="Weights to start from, as far as they fit: a name that `dhn models` lists, an "
        "address, a file, the folder of a run, or `last` for the newest run; null starts from "
        "scratch.",
    )
    freeze: tuple[str, ...] = Field(
        (),
        description="Layers that keep the weights they start with, and their batch norms' "
        "statistics: names like `backbone` or `backbone.stage2`.",
    )
    optimiser: Literal["adam", "adamw"] = Field(
        "adam", description="`adamw` keeps weight decay apart from the gradient."
    )
    lr: float = Field(1e-3, gt=0, description="The learning rate.")
    layer_decay: float = Field(
        1,
        gt=0,
        le=1,
        description="What the learning rate is multiplied by from one layer to the next lower one, "
        "from the heads down to the image: below 1, layers that were trained before change less "
        "the more general they are.",
    )
    weight_decay: float = Field(0, ge=0, description="The optimiser's weight decay.")
    schedule: Literal["step", "cosine"] = Field(
        "step",
        description="How the learning rate falls: `step` multiplies it by `gamma` at each of "
        "`milestones`; `cosine` goes to zero at the end, and needs no milestones for a new budget.",
    )
    milestones: tuple[_Epoch, ...] = Field(
        (200, 260), description="Epochs after which `step` lowers the learning rate."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="What `step` multiplies it by.")
    warmup: float = Field(
        0,
        ge=0,
        lt=1,
        description="Share of the run in which the learning rate rises from zero. At the start "
        "Adam's second moments are rough, and fresh heads send large gradients into a trained "
        "backbone.",
    )
    clip_grad_norm: float = Field(
        0,
        ge=0,
        description="Longer gradients are shortened to this norm; 0 keeps them. Crowds whose tags "
        "are driven apart give rare, long gradients.",
    )
    ema: float = Field(
        0,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, for each update; 0 "
        "averages nothing. The average is less noisy than the latest weights. It is what is "
        "scored, and what eval and predict use.",
    )
    sync_bn: bool = Field(
        False,
        description="Whether batch norm sees the shares of all processes: a share of a few images "
        "gives rough statistics. CUDA only.",
    )
    amp: Literal["auto", "bf16", "fp16", "off"] = Field(
        "auto",
        description="Mixed precision: `auto` is bf16 where the hardware multiplies it, else off; "
        "fp16, with a scaled loss, is for older GPUs.",
    )
    compile: bool = Field(
        False,
        description="Whether torch.compile prepares the network: faster updates after minutes at "
        "the start.",
    )
    max_bad_steps: int = Field(
        20,
        ge=1,
        description="Updates whose loss or gradient is not finite are skipped; the training ends "
        "after this many in a row.",
    )
    eval_every: int = Field(
        10, ge=1, description="Epochs from one scoring of the held-out split to the next."
    )
    patience: int = Field(
        0,
        ge=0,
        description="The training ends after this many scorings in a row without a better AP; 0 "
        "goes on to the last epoch.",
    )
    keep_every: int = Field(
        0,
        ge=0,
        description="Epochs from one checkpoint that is kept for good to the next; 0 keeps none.",
    )
    checkpoint_every: float = Field(
        10,
        ge=0,
        description="Minutes from one `last.pt` to the next; 0 writes it after every update.",
    )
    tensorboard: Literal["auto", "off"] = Field(
        "auto",
        description="`auto` writes curves and images for TensorBoard into the run's folder, if "
        "TensorBoard is installed.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=10**18,
        description="Seed of the fresh weights, of the order and of the augmentation.",
    )

    @pydantic.field_validator("batch_size", mode="before")
    @classmethod
    def _no_flag(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be a number or auto; YAML reads yes, no, on and off as flags")
        return value

    @pydantic.field_validator("amp", "tensorboard", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare off as false


class Config(Section):
    """All settings of a training run."""

    network: Network = Network()
    data: Data = Data()
    loss: Loss = Loss()
    train: Train = Train()

    @pydantic.model_validator(mode="after")
    def _held_out(self) -> "Config":
        held_out = self.data.eval_split
        if held_out is not None and self.data.hold_out:
            raise ValueError("data.hold_out: data.eval_split is held out already; set one of them")
        if self.data.split == "trainval" and held_out in ("train", "val"):
            raise ValueError(
                f"data.eval_split: {held_out!r} is part of data.split 'trainval'; set it to null"
            )
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


SECTIONS: dict[str, type[Section]] = {
    "network": Network,
    "data": Data,
    "loss": Loss,
    "train": Train,
}
