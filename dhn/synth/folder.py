"""Crowds written as a folder in CrowdPose's official layout, on which every command runs."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dhn.base.errors import DhnError
from dhn.base.files import write_json, written_whole
from dhn.base.progress import Progress, silent, tracked
from dhn.synth.annotate import CATEGORY, annotation
from dhn.synth.scene import CrowdConfig, make_scene

SPLITS = ("train", "val", "test")
_MARK = "synth.json"  # marks a folder of ours, which may be overwritten, unlike somebody's data
_JPEG_QUALITY = 92


def split_of(index: int) -> str:
    """The split of an image: of ten, eight are for training, one for validation, one for test."""
    return {1: "val", 2: "test"}.get(index % 10, "train")


def generate(
    out: str | os.PathLike[str],
    images: int,
    seed: int,
    *,
    config: CrowdConfig | None = None,
    processes: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Writes a CrowdPose folder: `images/*.jpg` and `json/crowdpose_{train,val,test}.json`.

    Image i depends only on the seed, the configuration and i, not on the number of images or
    processes. The annotations are written last, so a folder that has them is whole.

    Args:
        out: the folder to make.
        images: the number of images.
        seed: 0 or more; each seed gives other crowds.
        config: what the crowds are like.
        processes: the number of processes that draw.
        overwrite: replace an earlier folder of procedural crowds.
        progress: shows how many images are drawn.

    Returns:
        `out`.

    Raises:
        DhnError: `out` holds something else already, or cannot be written.
    """
    out, config = Path(out), config or CrowdConfig()
    _make_room(out, overwrite)
    write_json(out / _MARK, {"images": images, "seed": seed, "config": asdict(config)}, indent=1)
    (out / "images").mkdir(exist_ok=True)
    draw = partial(_write_image, out=out, seed=seed, config=config)
    splits: dict[str, dict[str, list]] = {
        name: {"images": [], "annotations": []} for name in SPLITS
    }
    count = 0
    with _Workers(processes) as workers:
        drawn = workers.imap(draw, range(images))
        for index, (image, people) in enumerate(
            tracked(drawn, progress, "Drawing crowds", total=images)
        ):
            split = splits[split_of(index)]
            split["images"].append(image)
            for person in people:
                count += 1
                split["annotations"].append({"id": count, "image_id": image["id"], **person})
    for name, split in splits.items():
        write_json(out / "json" / f"crowdpose_{name}.json", {**split, "categories": [CATEGORY]})
    return out


def is_unfinished(out: Path) -> bool:
    """Whether `out` holds crowds whose drawing was interrupted."""
    return (out / _MARK).is_file() and not (out / "json" / f"crowdpose_{SPLITS[-1]}.json").is_file()


def _make_room(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DhnError(f"{out}: is a file; give the folder to make")
    if out.is_dir() and any(out.iterdir()):
        ours = (out / _MARK).is_file()
        if not ours:
            raise DhnError(f"{out}: is not empty; choose a new folder")
        if not overwrite:
            raise DhnError(f"{out}: holds crowds already; choose a new folder, or overwrite them")
        for name in ("json", "images"):
            shutil.rmtree(out / name, ignore_errors=True)


def _write_image(
    index: int, *, out: Path, seed: int, config: CrowdConfig
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draws and writes image `index`; returns its record and those of its people."""
    scene = make_scene(np.random.default_rng([seed, index]), config)
    height, width = scene.image.shape[:2]
    image = {
        "id": index + 1,
        "file_name": f"{index + 1:06d}.jpg",
        "width": width,
        "height": height,
        "crowdIndex": round(scene.crowd_index, 4),
    }
    _, jpeg = cv2.imencode(
        ".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    with written_whole(out / "images" / image["file_name"]) as temporary:
        temporary.write_bytes(jpeg.tobytes())
    return image, [annotation(k, b) for k, b in zip(scene.keypoints, scene.boxes, strict=True)]


class _Workers:
    """A pool of processes, or this process where one is enough."""

    def __init__(self, processes: int) -> None:
        # Fresh interpreters, because a fork of a process with threads (torch, cv2) may hang.
        context = multiprocessing.get_context("spawn")
        self._pool = context.Pool(processes, _start_worker) if processes > 1 else None

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()

    def imap(self, function: Any, items: range) -> Any:
        return (
            self._pool.imap(function, items, 8) if self._pool is not None else map(function, items)
        )


def _start_worker() -> None:
    # The parent handles Ctrl-C and ends its workers. Each worker uses one core.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
