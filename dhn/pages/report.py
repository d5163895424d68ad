"""The report of `dhn eval --report`: what predictions get wrong, on one page and as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.files import write_json
from dhn.base.progress import Progress, silent
from dhn.evaluation.bootstrap import SAMPLES, Interval, image_weights, interval
from dhn.evaluation.breakdown import PCK_REACH, Bin, Breakdown, break_down
from dhn.evaluation.error_analysis import (
    AMONG,
    ERRORS,
    ErrorAnalysis,
    analyse_errors,
    number,
    precision_without,
)
from dhn.evaluation.evaluate import Evaluation
from dhn.evaluation.figures import Judged, figures
from dhn.evaluation.matching import OKS_THRESHOLDS
from dhn.evaluation.people import Bools, Floats
from dhn.evaluation.precision import RECALLS, image_precision
from dhn.pages.gallery import choose, draw
from dhn.pages.render import Line, now, versions, write_page

SEED = 0
PAGE, DATA = "index.html", "report.json"

MEANINGS = {
    "jitter": "near its place, but not on it",
    "inversion": "left on right of the same person",
    "swap": "on a joint of somebody else",
    "miss": "on no joint at all",
    "scoring": "a worse prediction of the person has a higher score",
    "background": "where nobody is",
    "duplicate": "one more of a person who has been found",
    "not_found": "a person without a prediction",
}


def write_report(
    evaluation: Evaluation,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    progress: Progress = silent,
) -> None:
    """Writes `index.html`, which holds all it needs, and `report.json` into a folder.

    Args:
        evaluation: the figures and the matched people.
        folder: is created where it is missing.
        settings: what the figures depend on; shown on the page.
        progress: shows how many parts are done.

    Raises:
        DhnError: a file cannot be written.
    """
    judged = evaluation.judged
    weights = image_weights(len(judged.truth.image_ids), SAMPLES, SEED)
    with progress("Report", len(ERRORS) + 5) as bar:
        ranges = _ranges(judged, weights)
        bar.advance()
        analysis = analyse_errors(judged.truth, judged.found)
        before = precision_without(analysis, None, weights)
        errors = {}
        for error in ERRORS:
            errors[error] = _error(analysis, error, weights, before)
            bar.advance()
        parts = break_down(judged, analysis, weights)
        bar.advance(2)
        ap = image_precision(judged.truth, judged.found, judged.matches)
        people = np.bincount(judged.truth.image, minlength=len(ap))
        chosen = choose(ap, people, _bars(analysis, parts, ap), SEED)
        images = draw(analysis, chosen, evaluation.paths, ap)
        bar.advance(2)
        data = _data(evaluation, settings, ranges, errors, parts, ap)
        write_json(folder / DATA, data, indent=1)
        page = {
            **data,
            "title": f"{Path(evaluation.predictions).name} on {evaluation.annotations}",
            "settings": {"predictions": evaluation.predictions, **data["settings"]},
            "parts": parts.parts,
            "joints": parts.joints,
            "meanings": MEANINGS,
            "curves": _curves(parts),
            "calibration_lines": _calibration_lines(parts),
            "images": images,
            "photos": sum(image.photo is not None for image in images),
            "pck_reach": PCK_REACH,
            "most_gain": max((e["gain_interval"] or (0, 0))[1] for e in errors.values()),
        }
        write_page(folder / PAGE, "report.html", page)


def _ranges(judged: Judged, weights: npt.NDArray[np.int32]) -> dict[str, Interval | None]:
    return {
        name: interval(np.where(values == -1, np.nan, values))
        for name, values in figures(judged, weights).items()
    }


def _error(
    analysis: ErrorAnalysis, error: str, weights: npt.NDArray[np.int32], before: Floats
) -> dict[str, Any]:
    """A row of the table of errors, with the intervals of its share and its cost."""
    once = np.ones_like(weights[:1])
    gain = precision_without(analysis, error) - precision_without(analysis, None)
    return {
        "among": AMONG[error],
        "cases": int(analysis.by_image[error][0].sum()),
        "share": number(analysis.shares(once)[error][0]),
        "share_interval": interval(analysis.shares(weights)[error]),
        "gain": number(gain[0]),
        "gain_interval": interval(precision_without(analysis, error, weights) - before),
    }


def _bars(analysis: ErrorAnalysis, parts: Breakdown, ap: Floats) -> dict[str, tuple[Bools, Floats]]:
    """What a click on a bar shows: images of the bin, or images with the error."""
    low_ap = 1 - np.nan_to_num(ap, nan=2.0)
    bars = {
        key: (found.images, low_ap)
        for p, bins in enumerate(parts.parts.values())
        for key, found in zip((f"part{p}-{k}" for k in range(len(bins))), bins, strict=True)
    }
    cases = {error: analysis.by_image[error][0] for error in ERRORS}
    return bars | {error: (n > 0, n.astype(np.float64)) for error, n in cases.items()}


def _data(
    evaluation: Evaluation,
    settings: Mapping[str, Any],
    ranges: Mapping[str, Interval | None],
    errors: Mapping[str, Any],
    parts: Breakdown,
    ap: Floats,
) -> dict[str, Any]:
    """What `report.json` holds: every figure of the page, unrounded, as plain values."""
    truth = evaluation.judged.truth
    return {
        "predictions": evaluation.predictions,
        "annotations": evaluation.annotations,
        "image_count": evaluation.images,
        "people": evaluation.people,
        "figures": evaluation.stats,
        "intervals": dict(ranges),
        "errors": dict(errors),
        "parts": {name: [_bin(b) for b in bins] for name, bins in parts.parts.items()},
        "joints": [joint._asdict() for joint in parts.joints],
        "calibration": [score._asdict() for score in parts.calibration],
        "precision": {
            f"{t:.2f}": row
            for t, row in zip(OKS_THRESHOLDS.tolist(), parts.precision.tolist(), strict=True)
        },
        "image_ap": {
            str(id): number(value) for id, value in zip(truth.image_ids.tolist(), ap, strict=True)
        },
        "time": evaluation.time and evaluation.time._asdict(),
        "failures": list(evaluation.failures),
        "settings": {key: str(value) for key, value in settings.items() if value is not None},
        "bootstrap": {"samples": SAMPLES, "seed": SEED},
        "versions": versions(),
        "written": now(),
    }


def _bin(found: Bin) -> dict[str, Any]:
    return {key: value for key, value in found._asdict().items() if key != "images"}


def _curves(parts: Breakdown) -> list[Line]:
    """Precision over recall at every second OKS threshold."""
    return [
        Line(f"{t:.2f}", list(zip(RECALLS.tolist(), np.maximum(row, 0).tolist(), strict=True)))
        for t, row in zip(OKS_THRESHOLDS.tolist()[::2], parts.precision[::2], strict=True)
    ]


def _calibration_lines(parts: Breakdown) -> list[Line]:
    """Mean OKS over score, in the range of the scores, and the diagonal."""
    top = max((part.mean_score for part in parts.calibration), default=1.0)
    scale = top if top > 1 else 1.0
    found = [(max(0.0, part.mean_score / scale), part.mean_oks) for part in parts.calibration]
    lines = [Line("predictions", found)]
    return lines if scale > 1 else [*lines, Line("score = OKS", [(0.0, 0.0), (1.0, 1.0)])]
