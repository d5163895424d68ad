"""The settings of the data that a training learns from; see `dhn.training.settings`."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

_Joint = Annotated[int, Field(ge=0)] | str


class Section(pydantic.BaseModel):
    """Settings that belong together."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation in (int, float):
            raise ValueError("must be a number; YAML reads yes, no, on and off as true and false")
        return value


class Source(Section):
    """One of several data sets that are learnt together."""

    path: str
    split: Literal["train", "val", "test", "trainval"] | None = None
    weight: float = Field(1, gt=0, le=100)
    joints: dict[str, str] = {}
    exclude: str | None = None


def _is_path(eval_split: str) -> bool:
    return eval_split.endswith((".json", ".yaml", ".yml")) or "/" in eval_split


class Data(Section):
    """What the network is trained on, and how samples are made of it."""

    dataset: str | tuple[Source, ...] = Field(
        "crowdpose",
        description="`crowdpose` (in data/crowdpose), `coco` (in data/coco), or the path of a "
        "folder or JSON file with annotations in COCO's keypoint format, or of Ultralytics' "
        "data.yaml for poses. Or several of them, each as `{path: PATH, split: train, weight: 1, "
        "joints: {their_name: our_name}, exclude: IDS.txt}`, where all but the path may be left "
        "out. An epoch shows an image of weight 2 twice, and half of the images of weight 0.5. The "
        "held-out split is that of the first one.",
    )
    joints: Literal["own", "coco", "crowdpose", "common"] = Field(
        "own",
        description="The joints to learn: those of the (first) data set, COCO's 17, CrowdPose's "
        "14, or the 19 that are in either. Joints of the same name are the same; those that a data "
        "set does not have are unknown in its images, and neither taught nor denied there.",
    )
    split: Literal["train", "val", "test", "trainval"] = Field(
        "trainval", description="The split to train on."
    )
    exclude: str | None = Field(
        None,
        description="A file of image ids, one a line, that are not trained on: those that "
        "`dhn data overlap` finds in the images that the network is to be scored on. Of several "
        "data sets, each has its own.",
    )
    eval_split: str | None = Field(
        None,
        description="The split that is held out and scored every `train.eval_every` epochs: "
        "`train`, `val` or `test`; or a data set of its own: a JSON file, or the split `val` of a "
        "`data.yaml` or of a folder, which is written with a slash (`./other_set`). Its images "
        "must not be trained on. Null scores nothing.",
    )
    hold_out: float = Field(
        0,
        ge=0,
        le=0.5,
        description="Share of the images, drawn by `train.seed`, that is held out of `split` and "
        "scored, for a data set without a split for it. Of several data sets, the first one's.",
    )
    flip_pairs: tuple[tuple[_Joint, _Joint], ...] | None = Field(
        None,
        description="Which of the joints to learn are left and right of each other, as in "
        "`[[hand1, hand2]]`, by name or by index from 0; all others stay themselves in a mirrored "
        "image. null pairs names like `left_x` and `right_x`, and [] pairs nobody. "
        "`dhn data check` shows the pairs.",
    )
    sigmas: tuple[float, ...] | None = Field(
        None,
        description="The joints' OKS constants, by which the held-out split is scored, one for "
        "each joint in order; null takes the data set's own, 0.05 where it has none.",
    )
    synthetic: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="How many procedural crowds are drawn into the folder `dataset` before the "
        "training, if there is no such folder; 0 draws none.",
    )
    input_size: int = Field(
        512,
        ge=64,
        le=2048,
        multiple_of=64,
        description="Side of the square training samples, in pixels.",
    )
    eval_size: int | None = Field(
        None,
        ge=64,
        le=2048,
        multiple_of=64,
        description="Short side of the images when the held-out split is scored, and later in "
        "eval and predict, in pixels; null takes `input_size`, which suits samples of scale 1.",
    )
    max_people: int = Field(
        30,
        ge=1,
        le=10_000,
        description="How many people of an image are learnt at most, the largest first. A warning "
        "counts those that are left out.",
    )
    # Runs of dhn 0.1 call it max_bad_pictures.
    max_bad_images: int = Field(
        100,
        ge=0,
        validation_alias=pydantic.AliasChoices("max_bad_images", "max_bad_pictures"),
        description="The training ends if more images than this cannot be read.",
    )
    keep_empty: bool = Field(
        False, description="Whether to train on images without a labelled joint, too."
    )
    workers: int = Field(
        4,
        ge=0,
        le=1000,
        description="Processes that make samples, for each process that trains; 0 makes them in "
        "the training process itself.",
    )
    rotation: float = Field(
        30, ge=0, le=180, description="Samples are rotated by up to this angle, in degrees."
    )
    scale: tuple[float, float] = Field(
        (0.75, 1.5),
        description="Range of a sample's side, in units of the image's short side: two positive "
        "numbers, the smaller one first.",
    )
    translation: float = Field(
        40,
        ge=0,
        le=200,
        description="How far a sample's centre moves at most in x and in y, in 1/200 of its side.",
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability that a sample is mirrored.")
    colour: float = Field(
        0,
        ge=0,
        le=1,
        description="Strength of random changes of brightness, contrast and saturation.",
    )
    grey: float = Field(0, ge=0, le=1, description="Probability that a sample has no colours.")
    blur: float = Field(0, ge=0, le=1, description="Probability that a sample is blurred.")
    noise: float = Field(0, ge=0, le=1, description="Probability that a sample is noisy.")
    jpeg: float = Field(
        0, ge=0, le=1, description="Probability that a sample is spoilt by strong compression."
    )
    low_resolution: float = Field(
        0, ge=0, le=1, description="Probability that a sample was once 2 to 5 times smaller."
    )
    cutout: float = Field(
        0,
        ge=0,
        le=1,
        description="Probability that one to three patches of one colour hide parts of a sample. "
        "Joints underneath are learnt all the same.",
    )
    aspect: tuple[float, float] = Field(
        (1, 1),
        description="Range of the factor by which an image's width is stretched against its "
        "height: two positive numbers, the smaller one first.",
    )
    composites: float = Field(
        0,
        ge=0,
        le=1,
        description="Share of the samples over which people of one to seven other images are laid, "
        "so that grouping is learnt from images that show one person each. Each takes an image "
        "more to decode.",
    )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data sets, each with its split."""
        if isinstance(self.dataset, str):
            return (Source(path=self.dataset, split=self.split, exclude=self.exclude),)
        return tuple(
            source.model_copy(update={"split": source.split or self.split})
            for source in self.dataset
        )

    @property
    def held_out(self) -> tuple[str, str] | None:
        """The data set that is scored and its split, if `eval_split` names one."""
        if self.eval_split is None:
            return None
        if _is_path(self.eval_split):
            return self.eval_split, "val"
        return self.sources[0].path, self.eval_split

    @pydantic.field_validator("eval_split")
    @classmethod
    def _split_or_file(cls, value: str | None) -> str | None:
        if value in ("train", "val", "test", None) or _is_path(value):
            return value
        raise ValueError("must be train, val, test, a .json or .yaml file, or a folder with a /")

    @pydantic.field_validator("dataset")
    @classmethod
    def _not_empty(cls, value: str | tuple[Source, ...]) -> str | tuple[Source, ...]:
        if not value:
            raise ValueError("must name at least one data set")
        return value

    @pydantic.model_validator(mode="after")
    def _whose_ids(self) -> "Data":
        if self.exclude is not None and not isinstance(self.dataset, str):
            raise ValueError(
                "exclude: ids belong to one data set; write {path: PATH, exclude: IDS.txt} in "
                "data.dataset"
            )
        return self

    @pydantic.field_validator("scale", "aspect")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be two positive numbers, the smaller one first")
        return value
