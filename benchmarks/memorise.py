"""An overfitting check: a network that cannot memorise a few real images has a bug.

    python benchmarks/memorise.py data/coco_mini --run runs/memorise

Trains a small DoubleHigherNet from scratch on every labelled image of a small COCO folder, and
scores the very same images with the flip test. The AP says nothing about other images.

Writes benchmarks/results/memorise.json and memorise.png.
"""

import json
import subprocess
import sys
from pathlib import Path

import click

from dhn.base.environment import environment
from dhn.base.files import write_json
from dhn.data.annotations import load_annotations

RESULTS = Path(__file__).parent / "results"
CONFIG = Path(__file__).with_suffix(".yaml")


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/memorise"))
@click.argument("overrides", nargs=-1)
def main(data: Path, run: Path, overrides: tuple[str, ...]) -> None:
    """Train on DATA, or resume RUN if it exists, and score the same images."""
    if (run / "last.pt").exists():
        dhn("train", "--resume", run, *overrides)
    else:
        dhn("train", "--config", CONFIG, "--output", run, f"data.dataset={data}", *overrides)
    stats = run / "stats.json"
    evaluate = ["--dataset", data, "--split", "train", "--flip", "--output", stats]
    dhn("eval", "--checkpoint", run / "last.pt", *evaluate)
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    labelled = sum(
        any((person.keypoints[:, 2] > 0).any() and not person.iscrowd for person in image.people)
        for image in load_annotations(data, "train").images
    )
    result = {
        "commands": [f"python benchmarks/memorise.py {data}"],
        # Summed over the parts of a run that was stopped and resumed.
        "training_seconds": round(sum(labelled / line["images_per_second"] for line in epochs)),
        "stats": json.loads(stats.read_text()),
        "curve": [
            {k: line[k] for k in ("epoch", "loss", "heatmap", "flat", "AP") if k in line}
            for line in epochs
            if "AP" in line
        ],
        "environment": environment(),
    }
    write_json(RESULTS / "memorise.json", result, indent=1)
    plot(result["curve"])


def dhn(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "dhn", *map(str, arguments)], check=True)


def plot(curve: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    epochs = [point["epoch"] for point in curve]
    axis.plot(epochs, [point["AP"] for point in curve], color="tab:blue", label="AP (left)")
    axis.set(xlabel="epoch", ylabel="AP on the training images", ylim=(0, 1))
    losses = axis.twinx()
    losses.semilogy(epochs, [p["heatmap"] for p in curve], color="tab:orange", label="last heatmap")
    losses.semilogy(epochs, [p["flat"] for p in curve], color="grey", ls=":", label="flat map")
    losses.set_ylabel("heatmap loss")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(RESULTS / "memorise.png", dpi=110)


if __name__ == "__main__":
    main()
