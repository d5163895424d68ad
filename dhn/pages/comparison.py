"""The page of `dhn compare --report`: systems side by side, and where one of them wins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhn.base.files import write_json
from dhn.evaluation.compare import Comparison
from dhn.pages.render import now, versions, write_page

PAGE, DATA = "index.html", "comparison.json"
_SHOWN = 12  # images with the greatest gains, and with the greatest losses


def comparison_data(
    comparisons: Sequence[Comparison], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures as plain values, unrounded, in 0..1."""
    return {
        "settings": dict(settings),
        "comparisons": [comparison.as_json() for comparison in comparisons],
        "versions": versions(),
        "written": now(),
    }


def write_comparison(
    comparisons: Sequence[Comparison], folder: Path, *, settings: Mapping[str, Any]
) -> None:
    """Writes `index.html`, which holds all it needs, and `comparison.json` into a folder.

    Args:
        comparisons: of every two systems.
        folder: is created where it is missing.
        settings: plain values that the figures depend on: `annotations`, `samples`, `seed`.

    Raises:
        DhnError: a file cannot be written.
    """
    data = comparison_data(comparisons, settings)
    write_json(folder / DATA, data, indent=1)
    parts = {
        "Figures, more is better": "figures",
        "Errors, the share of what could be wrong": "shares",
        "AP lost to each error": "losses",
    }
    write_page(
        folder / PAGE,
        "comparison.html",
        {**data, "comparisons": comparisons, "parts": parts, "shown": _SHOWN},
    )
