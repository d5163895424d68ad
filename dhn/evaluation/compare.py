"""Which of two systems is better, in what, and whether that can be said at all.

A paired bootstrap: each sample draws images, and both systems are scored on the same ones. What
makes images hard for both then cancels, and differences are known far better than the figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.base.progress import Bar, Progress, silent
from dhn.evaluation.bootstrap import SAMPLES, Interval, image_weights, interval
from dhn.evaluation.error_analysis import ERRORS, analyse_errors, precision_without
from dhn.evaluation.figures import Judged, figures
from dhn.evaluation.people import Floats
from dhn.evaluation.precision import image_precision

Verdict = Literal["better", "worse", "undecided"]


class Difference(NamedTuple):
    """How a figure of the second system differs from that of the first.

    Attributes:
        first, second: the figures, as they are on all images.
        change: second - first.
        interval: of the change, the middle 95 % of bootstrap samples.
        verdict: what the second system is; `undecided` where the interval holds 0.
    """

    first: float
    second: float
    change: float
    interval: Interval
    verdict: Verdict


class ImageResult(NamedTuple):
    """AP of one image by itself; 1 is best."""

    image_id: int
    file_name: str
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """The second of two systems against the first.

    Attributes:
        first, second: their names.
        figures: the differences of the AP table; None where nobody is to be found.
        shares: of each error in `error_analysis.ERRORS`, its share of what could be wrong; fewer
            are better.
        losses: how much AP each error costs; less is better.
        images: those with people to be found, the second system's greatest gains first.
    """

    first: str
    second: str
    figures: dict[str, Difference | None]
    shares: dict[str, Difference | None]
    losses: dict[str, Difference | None]
    images: list[ImageResult]

    @property
    def wins(self) -> int:
        """In how many images the second system has the higher AP."""
        return sum(image.second > image.first + 1e-9 for image in self.images)

    @property
    def defeats(self) -> int:
        """In how many images the first system has the higher AP."""
        return sum(image.first > image.second + 1e-9 for image in self.images)

    def as_json(self) -> dict[str, Any]:
        """Plain values, in 0..1."""
        parts = {"figures": self.figures, "shares": self.shares, "losses": self.losses}
        return {
            "first": self.first,
            "second": self.second,
            **{
                part: {name: row and row._asdict() for name, row in rows.items()}
                for part, rows in parts.items()
            },
            "wins": self.wins,
            "defeats": self.defeats,
            "ties": len(self.images) - self.wins - self.defeats,
            "images": [image._asdict() for image in self.images],
        }


class _Sampled(NamedTuple):
    """A system's values, float64 [1 + S]: on all images, then on every sample; NaN: nobody."""

    figures: dict[str, Floats]
    shares: dict[str, Floats]
    losses: dict[str, Floats]
    images: Floats


def compare(
    systems: Mapping[str, Judged],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Comparison]:
    """Compares every two of the systems.

    Args:
        systems: names and matched people, of the same annotations.
        samples: how many bootstrap samples are drawn.
        seed: the same seed draws the same samples.
        progress: shows how many samples are done.

    Raises:
        DhnError: there are no two systems, or their annotations have other images.
    """
    if len(systems) < 2:
        raise DhnError("two systems or more are needed for a comparison")
    truth = next(iter(systems.values())).truth
    if any(
        not np.array_equal(judged.truth.image_ids, truth.image_ids) for judged in systems.values()
    ):
        raise DhnError("systems can be compared only on the same images")
    weights = image_weights(len(truth.image_ids), samples, seed)
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    with progress("Bootstrap", len(systems) * (2 + len(ERRORS))) as bar:
        sampled = {name: _sample(judged, weights, bar) for name, judged in systems.items()}
    return [
        _comparison(truth.image_ids.tolist(), truth.file_names, (a, sampled[a]), (b, sampled[b]))
        for a, b in combinations(systems, 2)
    ]


def _sample(judged: Judged, weights: npt.NDArray[np.int32], bar: Bar) -> _Sampled:
    table = {
        name: np.where(values == -1, np.nan, values)
        for name, values in figures(judged, weights).items()
    }
    bar.advance()
    analysis = analyse_errors(judged.truth, judged.found)
    before = precision_without(analysis, None, weights)
    bar.advance()
    losses = {}
    for error in ERRORS:
        losses[error] = precision_without(analysis, error, weights) - before
        bar.advance()
    images = image_precision(judged.truth, judged.found, judged.matches)
    return _Sampled(table, analysis.shares(weights), losses, images)


def _comparison(
    image_ids: Sequence[int],
    file_names: Sequence[str],
    first: tuple[str, _Sampled],
    second: tuple[str, _Sampled],
) -> Comparison:
    (a_name, a), (b_name, b) = first, second

    def differences(part: str, sign: int) -> dict[str, Difference | None]:
        of_a, of_b = getattr(a, part), getattr(b, part)
        return {name: _difference(of_a[name], of_b[name], sign) for name in of_a}

    images = [
        ImageResult(image_ids[i], file_names[i], float(a.images[i]), float(b.images[i]))
        for i in np.argsort(a.images - b.images, kind="stable").tolist()
        if not np.isnan(a.images[i])
    ]
    return Comparison(
        first=a_name,
        second=b_name,
        figures=differences("figures", 1),
        shares=differences("shares", -1),
        losses=differences("losses", -1),
        images=images,
    )


def _difference(first: Floats, second: Floats, sign: int) -> Difference | None:
    """The difference of a figure in [1 + S] values; `sign` is 1 where more is better, else -1."""
    change = second - first
    found = interval(change[1:])
    if found is None or np.isnan(change[0]):
        return None
    verdict: Verdict = "undecided"
    if found.low > 0 or found.high < 0:
        verdict = "better" if sign * found.low > 0 else "worse"
    return Difference(float(first[0]), float(second[0]), float(change[0]), found, verdict)
