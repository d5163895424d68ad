"""The figures of the AP table, for the data set as it is or for bootstrap samples of its images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dhn.data.crowding import CROWD_LEVELS
from dhn.evaluation.matching import Matches, Similarity, match, oks
from dhn.evaluation.people import Bools, Floats, Found, Truth
from dhn.evaluation.precision import precision_and_recall

# In square pixels. COCO annotates no keypoints of small people.
AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True, eq=False)
class Judged:
    """Predicted people, matched once for everything that is computed of them.

    Attributes:
        truth, found: the people.
        by_size: matches of people of `all` sizes and, where COCO's definition applies, of `medium`
            and `large` ones.
    """

    truth: Truth
    found: Found
    by_size: dict[str, Matches]

    @property
    def matches(self) -> Matches:
        """The matches of people of all sizes."""
        return self.by_size["all"]


def judge(truth: Truth, found: Found, similarity: Similarity = oks) -> Judged:
    """Matches the people as the annotations' definition of AP wants it."""
    sizes = AREAS if truth.kind == "coco" else {"all": AREAS["all"]}
    by_size = {
        size: match(truth, found, area=area, similarity=similarity) for size, area in sizes.items()
    }
    return Judged(truth, found, by_size)


def level_images(truth: Truth) -> dict[str, Bools]:
    """bool [N] for each crowd level, its images. Those without a crowdIndex are in none."""
    index = truth.crowd_index
    return {level: (low <= index) & (index < high) for level, (low, high) in CROWD_LEVELS.items()}


def figures(judged: Judged, weights: npt.NDArray[np.int32] | None = None) -> dict[str, Floats]:
    """Every figure of the table, in the order of `dhn.evaluation.scoring.score`.

    Args:
        judged: the matched people.
        weights: int32 [S, N], how often each image counts in each sample; None is once (S = 1).

    Returns:
        float64 [S] in 0..1 for each figure; -1 where no annotated person counts.
    """
    truth, found = judged.truth, judged.found
    precision, recall = precision_and_recall(truth, found, judged.matches, weights)
    table = {
        "AP": precision.mean(axis=(1, 2)),
        "AP50": precision[:, 0].mean(axis=1),
        "AP75": precision[:, 5].mean(axis=1),
        "AR": recall.mean(axis=1),
        "AR50": recall[:, 0],
        "AR75": recall[:, 5],
    }
    if truth.kind == "crowdpose":
        for level, images in level_images(truth).items():
            precision, _ = precision_and_recall(truth, found, judged.matches, weights, images)
            table[f"AP_{level}"] = precision.mean(axis=(1, 2))
        return table
    sizes = [size for size in judged.by_size if size != "all"]
    each = {
        size: precision_and_recall(truth, found, judged.by_size[size], weights) for size in sizes
    }
    table |= {f"AP_{size}": each[size][0].mean(axis=(1, 2)) for size in sizes}
    return table | {f"AR_{size}": each[size][1].mean(axis=1) for size in sizes}


def plain_figures(judged: Judged) -> dict[str, float]:
    """The figures of the data set as it is."""
    return {name: float(value[0]) for name, value in figures(judged).items()}
