"""Tracks people in procedural videos with known ids: HOTA, IDF1, identity switches, time per frame.

    pip install motmetrics && pip install --no-deps trackers pydeprecate
    python benchmarks/tracking.py

Every tracker gets the same poses, frame by frame: ours as they are, ByteTrack and OC-SORT of
roboflow's `trackers` as boxes. By default the poses are made from the annotations, with the
mistakes of a bottom-up network: joints jitter, hidden ones are guessed or missing, people who are
mostly hidden are not found, and there are false ones. --checkpoint takes a network instead.
Boxes around the joints of tracks are compared with those of the annotations: by motmetrics at an
IoU of .3, and by HOTA of `trackers`, the mean over IoUs of .05 to .95.
Trackers are paired by video; intervals are bootstrapped over videos.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from dhn.base.files import write_json
from dhn.data.coco_file import AREA_OF_BOX
from dhn.data.joints import CROWDPOSE
from dhn.inference.people import People, boxes_of
from dhn.synth.video import FPS, VideoConfig, VideoFrame, draw_video
from dhn.tracking import Tracker, TrackerConfig

Boxes = tuple[np.ndarray, np.ndarray]  # ids [P], boxes [P, 4] as left, top, width, height
Track = Callable[[list[People]], tuple[list[Boxes], float]]


def noisy_people(frame: VideoFrame, rng: np.random.Generator) -> People:
    """The people of a frame as a network might find them."""
    found = frame.keypoints[frame.keypoints[..., 2].max(1) > 0]
    P, J = found.shape[:2]
    boxes = boxes_of(found)
    sizes = np.sqrt(AREA_OF_BOX * boxes[:, 2] * boxes[:, 3])[:, None]
    seen = (found[..., 2] == 2) & (rng.random((P, J)) < 0.93)
    guessed = (found[..., 2] == 1) & (rng.random((P, J)) < 0.5)
    spread = np.where(seen, 1.0, 4.0) * np.array(CROWDPOSE.sigmas) * sizes
    keypoints = np.zeros((P, J, 3), np.float32)
    keypoints[..., :2] = found[..., :2] + rng.normal(size=(P, J, 2)) * spread[..., None]
    keypoints[..., 2] = np.where(seen, rng.uniform(0.5, 0.95, (P, J)), rng.uniform(0, 0.3, (P, J)))
    keypoints[~(seen | guessed)] = 0
    scores = ((keypoints[..., 2] * seen).sum(1) / J).astype(np.float32)
    kept = (seen.sum(1) >= 3) & (rng.random(P) < 0.97)
    people = People(keypoints, scores, CROWDPOSE, refined=guessed)[kept]
    if P and rng.random() < 0.05:  # a false one, somewhere, of somebody's shape
        ghost = keypoints[:1] + np.array([*rng.uniform(-100, 100, 2), 0]) * (
            keypoints[:1, :, 2:] > 0
        )
        people = People(
            np.concatenate([people.keypoints, ghost.astype(np.float32)]),
            np.append(people.scores, np.float32(0.2)),
            CROWDPOSE,
            refined=np.concatenate([people.refined, np.zeros((1, J), bool)]),
        )
    return people


def our_tracks(video: list[People]) -> tuple[list[Boxes], float]:
    """Tracks of the poses, and the seconds of CPU time that it took."""
    tracker, tracks = Tracker(CROWDPOSE), []
    started = time.process_time()
    for number, people in enumerate(video):
        found = tracker(people, float(number / FPS))
        assert found.ids is not None
        tracks.append((found.ids[found.ids > 0], found.boxes[found.ids > 0]))
    return tracks, time.process_time() - started


def box_tracks(make: Callable[[], Any]) -> Track:
    """The same by a tracker of boxes from roboflow's `trackers`."""

    def track(video: list[People]) -> tuple[list[Boxes], float]:
        import supervision as sv

        tracker, tracks = make(), []
        started = time.process_time()
        for people in video:
            detections = sv.Detections(
                _corners(people.boxes),
                confidence=people.scores,
                class_id=np.zeros(len(people), int),
            )
            out = tracker.update(detections)
            ids = np.zeros(0, int) if out.tracker_id is None else out.tracker_id
            corners = out.xyxy[ids >= 0]
            boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
            tracks.append((ids[ids >= 0], boxes))
        return tracks, time.process_time() - started

    return track


def accumulate(truth: list[Boxes], tracks: list[Boxes]):
    """motmetrics' account of one video."""
    import motmetrics

    account = motmetrics.MOTAccumulator(auto_id=True)
    for (true_ids, _), (ids, _), iou in zip(truth, tracks, overlaps(truth, tracks), strict=True):
        distances = np.where(iou >= 0.3, 1 - iou, np.nan)
        account.update(true_ids.tolist(), ids.tolist(), distances)
    return account


def overlaps(truth: list[Boxes], tracks: list[Boxes]) -> Iterator[np.ndarray]:
    """The IoU of each true box with each box of a track, frame by frame."""
    import supervision as sv

    for (_, true_boxes), (_, boxes) in zip(truth, tracks, strict=True):
        if len(true_boxes) and len(boxes):
            yield sv.box_iou_batch(_corners(true_boxes), _corners(boxes))
        else:
            yield np.zeros((len(true_boxes), len(boxes)))


def hota(truth: list[Boxes], tracks: list[Boxes]) -> dict[str, float]:
    """HOTA, and the accuracies of detection and association that it is made of, of one video."""
    from trackers.eval.hota import compute_hota_metrics

    true_ids, ids = ([ids for ids, _ in boxes] for boxes in (truth, tracks))
    found = compute_hota_metrics(true_ids, ids, list(overlaps(truth, tracks)))
    return {name.lower(): float(found[name]) for name in ("HOTA", "DetA", "AssA")}


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def videos(count: int, people: int, frames: int) -> Iterator[tuple[list[VideoFrame], int]]:
    for seed in range(count):
        yield list(draw_video(seed, VideoConfig(people=people, frames=frames))), seed


def network_people(checkpoint: str, frames: list[VideoFrame]) -> list[People]:
    import dhn

    predictor = dhn.load(checkpoint)
    return [predictor(frame.image) for frame in frames]


def time_of_20_people(frames: int = 250) -> float:
    """Milliseconds of CPU time per frame of our tracker, median, with 20 people who walk about."""
    rng = np.random.default_rng(0)
    body = rng.uniform(0, 100, (20, len(CROWDPOSE), 2)) + rng.uniform(0, 2000, (20, 1, 2))
    speed = rng.normal(0, 3, (20, 1, 2))
    tracker, spent = Tracker(CROWDPOSE), []
    for number in range(frames):
        keypoints = np.ones((20, len(CROWDPOSE), 3), np.float32)
        keypoints[..., :2] = body + speed * number + rng.normal(0, 1, body.shape)
        people = People(keypoints, np.full(20, 0.8, np.float32), CROWDPOSE)
        people = people[rng.random(20) < 0.95]
        started = time.process_time()
        tracker(people)
        spent.append(time.process_time() - started)
    return 1000 * float(np.median(spent[10:]))


@click.command()
@click.option("--videos", "count", type=click.IntRange(1), default=12, show_default=True)
@click.option("--people", type=click.IntRange(1), default=6, show_default=True)
@click.option("--frames", type=click.IntRange(1), default=200, show_default=True)
@click.option("--checkpoint", help="Find people with this network.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/results/tracking.json"),
    show_default=True,
)
def main(count: int, people: int, frames: int, checkpoint: str | None, output: Path) -> None:
    """Track people in procedural videos with known ids."""
    import motmetrics

    methods: dict[str, Track] = {"ours": our_tracks}
    try:
        from trackers import ByteTrackTracker, OCSORTTracker

        ours = TrackerConfig()
        # The same patience and thresholds; scores of poses are lower than those of boxes.
        same: dict[str, Any] = {
            "frame_rate": float(FPS),
            "lost_track_buffer": round(30 * ours.patience),
            "high_conf_det_threshold": ours.strong,
            "minimum_consecutive_frames": ours.hits,
        }
        methods["ByteTrack"] = box_tracks(
            lambda: ByteTrackTracker(track_activation_threshold=ours.strong, **same)
        )
        methods["OC-SORT"] = box_tracks(lambda: OCSORTTracker(**same))
    except ImportError:
        print("ByteTrack and OC-SORT are left out: pip install --no-deps trackers pydeprecate")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for video, seed in videos(count, people, frames):
        rng = np.random.default_rng(seed)
        truth = [
            (f.ids[v], boxes_of(f.keypoints[v]))
            for f in video
            for v in [(f.keypoints[..., 2] == 2).sum(1) >= 3]
        ]
        if checkpoint:
            found = network_people(checkpoint, video)
        else:
            found = [noisy_people(frame, rng) for frame in video]
        for name, method in methods.items():
            tracks, seconds = method(found)
            account = accumulate(truth, tracks)
            summary = motmetrics.metrics.create().compute(
                account, metrics=["idf1", "num_switches", "mota"]
            )
            row = {key: float(value) for key, value in summary.iloc[0].items()}
            if len(methods) > 1:  # else `trackers` is not installed
                row |= hota(truth, tracks)
            rows[name].append(row | {"ms_per_frame": 1000 * seconds / len(video)})
    report = {
        "videos": count,
        "people": people,
        "frames": frames,
        "poses": checkpoint or "annotations with noise",
        "ms_per_frame_of_20_people": time_of_20_people(),
        "trackers": {name: _means(values, rows["ours"]) for name, values in rows.items()},
    }
    click.echo(json.dumps(report["trackers"], indent=1))
    write_json(output, report, indent=1)


def _means(rows: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, object]:
    """Means over videos, and how far ours is ahead in IDF1, with a 95 % interval."""
    ahead = np.array([a["idf1"] - b["idf1"] for a, b in zip(ours, rows, strict=True)])
    picks = np.random.default_rng(0).integers(0, len(ahead), (2000, len(ahead)))
    low, high = np.percentile(ahead[picks].mean(1), [2.5, 97.5])
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {
        "idf1_ours_minus_this": [float(ahead.mean()), float(low), float(high)]
    }


if __name__ == "__main__":
    main()
