"""How far figures might lie elsewhere, had other images been taken: bootstrap over images.

Each sample draws as many images as there are, with replacement. Predictions are matched once; a
sample only counts its images as often as it drew them (Efron and Tibshirani 1993, the percentile
interval).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.base.progress import Progress, silent
from dhn.evaluation.figures import Judged, figures
from dhn.evaluation.people import Floats

SAMPLES = 1000
_BATCH = 100  # samples between two steps of the progress


class Interval(NamedTuple):
    """The middle 95 % of bootstrap samples."""

    low: float
    high: float


def image_weights(images: int, samples: int, seed: int) -> npt.NDArray[np.int32]:
    """int32 [S, N], how often each sample draws each image; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(images, np.full(images, 1 / max(images, 1)), size=samples)
    return weights.astype(np.int32)


def interval(samples: Floats) -> Interval | None:
    """The interval of float64 [S], without those that are NaN; None if all are."""
    valid = samples[~np.isnan(samples)]
    if not len(valid):
        return None
    low, high = np.quantile(valid, (0.025, 0.975))
    return Interval(float(low), float(high))


def figure_samples(
    judged: Judged, weights: npt.NDArray[np.int32], progress: Progress = silent
) -> dict[str, Floats]:
    """Every figure in every sample, float64 [S]; NaN where a sample has nobody to be found."""
    parts: dict[str, list[Floats]] = {}
    with progress("Bootstrap", len(weights)) as bar:
        for batch in batches(weights):
            for name, values in figures(judged, batch).items():
                parts.setdefault(name, []).append(np.where(values < 0, np.nan, values))
            bar.advance(len(batch))
    return {name: np.concatenate(values) for name, values in parts.items()}


def batches(weights: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.int32]]:
    """The samples in parts."""
    for start in range(0, len(weights), _BATCH):
        yield weights[start : start + _BATCH]


def intervals(
    judged: Judged, *, samples: int = SAMPLES, seed: int = 0, progress: Progress = silent
) -> dict[str, Interval | None]:
    """The interval of every figure; None where nobody is to be found."""
    weights = image_weights(len(judged.truth.image_ids), samples, seed)
    return {name: interval(s) for name, s in figure_samples(judged, weights, progress).items()}
