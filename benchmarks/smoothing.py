"""What smoothing does to the joints of walking people: jitter, error and delay.

    python benchmarks/smoothing.py

Joints of procedural videos get noise as large as the deviation of annotators (OKS sigmas), then
`smooth_video` or `LiveSmoother` steadies them. Jitter is the deviation of second differences in
time of what differs from the truth; the error is the mean distance to the truth, both in pixels.
`standing` are people while they do not walk, `walking` the others. The delay is that of the
horizontal place of walking people, in milliseconds.
"""

from pathlib import Path

import click
import numpy as np

from dhn.base.files import write_json
from dhn.data.coco_file import AREA_OF_BOX
from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People, boxes_of
from dhn.synth.video import FPS, VideoConfig, VideoFrame, draw_video
from dhn.tracking import LiveSmoother, smooth_video


def found_people(frame: VideoFrame, rng: np.random.Generator) -> People:
    """The people of a frame with noise on every joint inside the image, and their true ids."""
    boxes = boxes_of(frame.keypoints)
    sizes = np.sqrt(AREA_OF_BOX * boxes[:, 2] * boxes[:, 3])[:, None]
    there = frame.keypoints[..., 2] > 0
    noise = rng.normal(size=(*there.shape, 2)) * (sizes * np.array(CROWDPOSE.sigmas))[..., None]
    keypoints = np.dstack([frame.keypoints[..., :2] + noise, 0.8 * there]) * there[..., None]
    scores = np.full(len(keypoints), 0.8, np.float32)
    return People(keypoints.astype(np.float32), scores, CROWDPOSE, ids=frame.ids)


def tracks(frames: list[np.ndarray], ids: list[np.ndarray], most: int) -> np.ndarray:
    """Places by frame and person, [F, most, J, 2]; NaN where somebody or a joint is not there."""
    out = np.full((len(frames), most, len(CROWDPOSE), 2), np.nan)
    for number, (poses, who) in enumerate(zip(frames, ids, strict=True)):
        out[number, who - 1] = np.where(poses[..., 2:] > 0, poses[..., :2], np.nan)
    return out


def measures(truth: np.ndarray, places: np.ndarray, walks: np.ndarray) -> dict[str, float]:
    """Jitter, error and delay; `walks` [F, P] says who moves when."""
    error = places - truth
    second = np.diff(error, 2, axis=0)
    inner = walks[1:-1, :, None] & np.isfinite(second).all(-1)
    here = walks[..., None] & np.isfinite(error).all(-1)
    speed = np.gradient(truth[..., 0], axis=0) * float(FPS)
    moves = here & (np.abs(speed) > 20)
    # The delay for which place = truth - speed * delay fits best.
    delay = -(error[..., 0] * speed)[moves].sum() / (speed[moves] ** 2).sum() if moves.any() else 0
    return {
        "jitter": float(second[inner].std()),
        "error": float(np.linalg.norm(error[here], axis=-1).mean()),
        "delay_ms": 1000 * float(delay),
    }


@click.command()
@click.option("--videos", type=click.IntRange(1), default=6, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results/smoothing.json"),
    show_default=True,
)
def main(videos: int, output: Path) -> None:
    """Measure what smoothing does to joints in procedural videos."""
    config = VideoConfig(frames=150, people=4, pan=0)
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in range(videos):
        rng = np.random.default_rng(seed)
        drawn = list(draw_video(seed, config))
        found = [found_people(frame, rng) for frame in drawn]
        live = LiveSmoother()
        ids = [frame.ids for frame in drawn]
        truth = tracks([frame.keypoints for frame in drawn], ids, config.people)
        step = np.linalg.norm(np.diff(truth[:, :, 13], axis=0, prepend=np.nan), axis=-1)  # the neck
        ways = {
            "found": found,
            "smooth_video": smooth_video(found),
            "LiveSmoother": [live(p, float(k / FPS)) for k, p in enumerate(found)],
        }
        for name, people in ways.items():
            whose = [p.ids for p in people if p.ids is not None]
            places = tracks([p.keypoints for p in people], whose, config.people)
            for kind, walks in (("standing", step < 0.05), ("walking", step >= 0.05)):
                if walks.any():
                    row = measures(truth, places, walks)
                    if kind == "standing":
                        del row["delay_ms"]
                    rows.setdefault(kind, {}).setdefault(name, []).append(row)
    means = {
        kind: {
            name: {key: float(np.nanmean([row[key] for row in some])) for key in some[0]}
            for name, some in by_name.items()
        }
        for kind, by_name in rows.items()
    }
    for kind, by_name in means.items():
        for name, row in by_name.items():
            values = ", ".join(f"{key} {value:.2f}" for key, value in row.items())
            click.echo(f"{kind}, {name}: {values}")
    write_json(output, {"videos": videos} | means, indent=1)


if __name__ == "__main__":
    main()
