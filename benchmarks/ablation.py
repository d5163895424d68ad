"""Repeats Table 2 of the paper on procedural crowds, and compares two readings of sigma and tau.

    python benchmarks/ablation.py --seeds 3

Trains every row from scratch with every seed, scores unseen crowds with the flip test and compares
rows seed by seed. All trainings draw from the same crowds; the seed decides initial weights and
the order of the samples. Precision is that of `dhn train` and `dhn eval` by default: bfloat16
where the processor multiplies it.

It can be stopped at any time, and the same command resumes it; more `--seeds` later add to what
there is. Writes benchmarks/results/ablation.json.
"""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from dhn.base.environment import environment
from dhn.base.files import write_json

CONFIG = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "ablation.json"


class Training(NamedTuple):
    """A network to train, by what its settings add to ablation.yaml."""

    name: str
    settings: tuple[str, ...]


class Row(NamedTuple):
    """A row of the table: a training and the options of `dhn eval` that score it."""

    name: str
    training: str
    options: tuple[str, ...]
    paper: float | None  # the paper's AP x 100 on CrowdPose test, where it has this row


TRAININGS = (
    Training("concat", ("network.fusion=concat", "loss.tau=[1.75,1.75]")),
    Training("attention", ("loss.tau=[1.75,1.75]",)),
    Training("coarse-to-fine", ()),
    Training("higherhrnet", ("network.name=higherhrnet",)),
    Training("input-pixels", ("loss.units=input",)),
)
ROWS = (
    Row("plain concatenation", "concat", ("--fine-only",), 64.0),
    Row("+ attention fusion", "attention", ("--fine-only",), 65.1),
    Row("+ coarse to fine", "coarse-to-fine", ("--fine-only",), 65.3),
    Row("+ aggregation", "coarse-to-fine", (), 65.5),
    Row("HigherHRNet", "higherhrnet", (), None),
    Row("all, sigma and tau in input pixels", "input-pixels", (), None),
)
COMPARED = (  # (before, after): the difference is after minus before
    ("plain concatenation", "+ attention fusion"),
    ("+ attention fusion", "+ coarse to fine"),
    ("+ coarse to fine", "+ aggregation"),
    ("HigherHRNet", "+ aggregation"),
    ("all, sigma and tau in input pixels", "+ aggregation"),
)
# The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@click.command()
@click.option("--seeds", type=click.IntRange(1, 10), default=3, show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/ablation"))
@click.option("--data", type=click.Path(path_type=Path), default=Path("data/demo"))
@click.argument("overrides", nargs=-1)
def main(seeds: int, runs: Path, data: Path, overrides: tuple[str, ...]) -> None:
    """Train and score what is missing, and write the figures."""
    for seed in range(seeds):
        for training in TRAININGS:
            _train(runs / f"{training.name}-{seed}", training, seed, data, overrides)
        for row in ROWS:
            _score(runs / f"{row.training}-{seed}", row, data)
        result = summary(runs, seed + 1) | {"overrides": overrides, "environment": environment()}
        write_json(RESULTS, result, indent=1)
    Console(width=110).print(table(result))


def _train(
    run: Path, training: Training, seed: int, data: Path, overrides: tuple[str, ...]
) -> None:
    if (run / "done").exists():
        return
    settings = (*training.settings, f"train.seed={seed}", f"data.dataset={data}", *overrides)
    if (run / "last.pt").exists():
        _dhn("train", "--resume", run)
    else:
        _dhn("train", "--config", CONFIG, "--output", run, *settings)
    (run / "done").touch()


def _stats(run: Path, row: Row) -> Path:
    return run / f"stats{''.join(row.options)}.json"


def _score(run: Path, row: Row, data: Path) -> None:
    stats = _stats(run, row)
    if not stats.exists():
        source = ("--checkpoint", run / "last.pt", "--dataset", data, "--split", "test")
        _dhn("eval", *source, "--flip", *row.options, "--output", stats)


def _dhn(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "dhn", *map(str, arguments)], check=True)


def summary(runs: Path, seeds: int) -> dict[str, Any]:
    """The AP of each row with its standard error, and the differences, paired by seed."""
    ap = {
        row.name: [
            json.loads(_stats(runs / f"{row.training}-{seed}", row).read_text())["AP"]
            for seed in range(seeds)
        ]
        for row in ROWS
    }
    rows = [
        {"row": row.name, "paper": row.paper, "AP": ap[row.name]} | _mean(ap[row.name])
        for row in ROWS
    ]
    return {"seeds": seeds, "rows": rows, "differences": [_difference(ap, *c) for c in COMPARED]}


def _mean(values: list[float]) -> dict[str, float | None]:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "standard_error": error}


def _difference(ap: dict[str, list[float]], before: str, after: str) -> dict[str, Any]:
    pairs = [b - a for a, b in zip(ap[before], ap[after], strict=True)]
    result: dict[str, Any] = {"from": before, "to": after} | _mean(pairs)
    if result["standard_error"] is None:
        return result | {"interval_95": None, "verdict": "undecided"}
    margin = T_QUANTILES[len(pairs) - 2] * result["standard_error"]
    low, high = result["mean"] - margin, result["mean"] + margin
    verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
    return result | {"interval_95": [low, high], "verdict": verdict}


def table(result: dict[str, Any]) -> Table:
    """AP x 100 of each row, and its difference from the row that it is compared with."""
    lines = Table(title=f"Procedural crowds, {result['seeds']} seeds: AP x 100, 95 % intervals")
    for name in ("row", "AP", "step", "interval", "verdict", "paper"):
        lines.add_column(name, justify="left" if name in ("row", "verdict") else "right")
    for row in result["rows"]:
        mean = f"{100 * row['mean']:.1f}"
        if row["standard_error"] is not None:
            mean += f" +- {100 * row['standard_error']:.1f}"
        paper = "" if row["paper"] is None else f"{row['paper']:.1f}"
        lines.add_row(row["row"], mean, *_step(row["row"], result["differences"]), paper)
    return lines


def _step(row: str, differences: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Difference, interval and verdict of a row; empty for the first row of the table.

    The rows of the paper's table are compared with the row before. The two rows that it lacks are
    what its last one, "+ aggregation", is compared with.
    """
    in_paper, others = differences[:3], differences[3:]
    for step in in_paper:
        if step["to"] == row:
            return _percent(step["mean"]), _interval(step), step["verdict"]
    for step in others:
        if step["from"] == row:
            verdict = f"{step['to']} is {step['verdict']}"
            return _percent(step["mean"]), _interval(step), verdict
    return "", "", ""


def _interval(step: dict[str, Any]) -> str:
    if not step["interval_95"]:
        return ""
    low, high = step["interval_95"]
    return f"{_percent(low)} .. {_percent(high)}"


def _percent(difference: float) -> str:
    return f"{100 * difference:+.1f}"


if __name__ == "__main__":
    main()
