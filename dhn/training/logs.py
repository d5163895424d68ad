"""Curves of training runs, side by side: read from `metrics.jsonl`, summarised, drawn."""

import csv
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dhn.base.errors import DhnError
from dhn.base.files import written_whole

_log = logging.getLogger(__name__)

# The panels, drawn if any run has their numbers: key, title, whether the axis is logarithmic.
_PANELS = (
    ("loss", "loss", True),
    ("AP", "AP", False),
    ("lr", "learning rate", False),
    ("images_per_second", "images/s", False),
    ("heatmap_coarse_quarter", "heatmap loss, coarse 1/4", True),
    ("heatmap_coarse_half", "heatmap loss, coarse 1/2", True),
    ("heatmap_fine_quarter", "heatmap loss, fine 1/4", True),
    ("heatmap_fine_half", "heatmap loss, fine 1/2", True),
    ("heatmap", "last heatmap's loss (dotted: all-zero map)", True),
    ("pull", "pull", True),
    ("push", "push", True),
    ("data_wait", "data wait, share of the time", False),
)
# Okabe and Ito's colours, which everybody can tell apart; their yellow is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")  # for run 8, 15 and 22


class Run(NamedTuple):
    """One training run: the line of each epoch, in order.

    A line has numbers by name; None stands for the mean of nothing.
    """

    name: str
    epochs: list[dict[str, Any]]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """The epochs that have a value of `key`, and these values."""
        there = [line for line in self.epochs if line.get(key) is not None]
        return [line["epoch"] for line in there], [line[key] for line in there]


def read_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Reads several runs.

    Returns:
        the runs that can be read, by the shortest names that differ; and one line for each of the
        others.
    """
    runs, failures = [], []
    for folder, name in zip(folders, _names(folders), strict=True):
        try:
            runs.append(Run(name, read_metrics(folder)))
        except DhnError as error:
            failures.append(str(error))
    return runs, failures


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; `run` is its folder or the file itself.

    A last line that is cut short, because its writer was killed or is writing it now, is left out
    with a warning.

    Raises:
        DhnError: there is no such file, or a line is not one of ours; names the file and the line.
    """
    path = run if run.is_file() else run / "metrics.jsonl"
    if not path.is_file():
        raise DhnError(f"{path}: no such file; give the folder of a run with a finished epoch")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DhnError(f"{path}: cannot be read ({error})") from error
    epochs: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = _parse(line)
        except ValueError as error:
            if number == len(lines):  # the last line has no line feed, so it is not whole
                _log.warning(f"{path}: line {number} is cut short, left out")
                break
            raise DhnError(
                f"{path}: line {number}: {error}; remove the line, or the file if there are more"
            ) from error
        epochs[values["epoch"]] = values
    if not epochs:
        raise DhnError(f"{path}: is empty; wait for the first epoch to end")
    return [epochs[epoch] for epoch in sorted(epochs)]


def _parse(line: str) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict) or type(values.get("epoch")) is not int:
        raise ValueError("is not an object with an epoch")
    for key, value in values.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{key} is not a number")
    finite = (value is None or math.isfinite(value) for value in values.values())
    return {k: v if ok else None for (k, v), ok in zip(values.items(), finite, strict=True)}


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as it takes to tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise DhnError("the same run is named twice")
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return ["/".join(part[-length:]) for part in parts]


def summary(run: Run) -> dict[str, Any]:
    """A run in one row: its last line, its best AP, and medians of what varies with the load."""
    last = run.epochs[-1]
    row: dict[str, Any] = {"run": run.name, "epoch": last["epoch"]}
    for key in ("loss", "heatmap", "flat", "pull", "push"):
        row[key] = last.get(key)
    epochs, scores = run.curve("AP")
    row["best_AP"] = max(scores, default=None)
    row["best_epoch"] = epochs[scores.index(max(scores))] if scores else None
    for key in ("images_per_second", "data_wait"):
        values = sorted(run.curve(key)[1])
        row[key] = values[len(values) // 2] if values else None
    row["skipped"] = sum(run.curve("skipped")[1])
    return row


def write_csv(runs: Sequence[Run], path: Path) -> None:
    """Writes a row for each run and epoch, with a column for each number."""
    keys = dict.fromkeys(key for run in runs for line in run.epochs for key in line)
    with written_whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["run", *keys], restval="")
        writer.writeheader()
        for run in runs:
            writer.writerows({"run": run.name, **line} for line in run.epochs)


def plot(runs: Sequence[Run], path: Path) -> None:
    """Draws the curves of runs into an image (PNG, SVG, PDF: by the suffix of `path`).

    Raises:
        DhnError: matplotlib is not installed, or knows no such format.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DhnError(
            "curves are drawn by matplotlib, which is missing: pip install 'dhn[curves]'"
        ) from error
    panels = [panel for panel in _PANELS if any(run.curve(panel[0])[1] for run in runs)]
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    legend = 0.35 * math.ceil(len(runs) / 3)  # inches
    figure = Figure((3.1 * columns, 2.3 * rows + legend), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (key, title, logarithmic) in zip(axes, panels, strict=False):
        _draw(axis, runs, key, title, logarithmic)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    with written_whole(path) as temporary:
        try:
            figure.savefig(temporary, dpi=150)
        except ValueError as error:
            raise DhnError(f"{path}: {error}") from error


def _draw(axis: Any, runs: Sequence[Run], key: str, title: str, logarithmic: bool) -> None:
    for number, run in enumerate(runs):
        epochs, values = run.curve(key)
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        # Few points (AP is scored now and then, a run has just begun) would be hard to see.
        marker = "o" if len(epochs) < 20 else None
        axis.plot(epochs, values, dash, color=colour, lw=1.2, marker=marker, ms=2.5, label=run.name)
        if key == "heatmap":
            axis.plot(*run.curve("flat"), ":", color=colour, lw=0.8)
    if logarithmic and any(value > 0 for run in runs for value in run.curve(key)[1]):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
        axis.yaxis.get_offset_text().set_fontsize(7)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel("epoch", fontsize=7, color="0.3")
    axis.tick_params(labelsize=7, colors="0.3", which="both")
    axis.grid(color="0.9", lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_axisbelow(True)
