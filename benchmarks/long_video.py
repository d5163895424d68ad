"""Memory and open files of `dhn predict` over a long video, which should stay as they are.

    python benchmarks/long_video.py --minutes 60

A procedural clip with people, sound and small frames is repeated until it is long enough. A small
network with random weights predicts it, with `--track` and `--smooth`; overlays, JSON lines, CSV
and MOT text are written. In a hundred places of the video, resident memory and open files are
counted (from /proc, so this needs Linux).
"""

import os
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np
import torch

from dhn.base.files import write_json
from dhn.bench.pipeline import PipelineSettings, crowd_predictor
from dhn.bench.timing import machine
from dhn.media.sources import list_sources
from dhn.prediction.outputs import Outputs
from dhn.prediction.run import predict
from dhn.synth.video import FPS, VideoConfig, draw_video

CLIP = 250  # frames, drawn once
NETWORK = "doublehighernet_lite_w8"
PAGE = os.sysconf("SC_PAGE_SIZE")
SOUND = 16_000  # samples per second


def write_clip(path: Path, frames: int, size: tuple[int, int]) -> None:
    """The clip over and over, with a tone."""
    images = [frame.image for frame in draw_video(0, VideoConfig(size, CLIP, 4))]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND, layout="mono")
        samples = int(SOUND / FPS)
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(images[k % CLIP], "rgb24")
            frame.pts, frame.time_base = k, 1 / FPS
            container.mux(video.encode(frame))
            wave = 8000 * np.sin(np.arange(k * samples, (k + 1) * samples) / 5)
            tone = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            tone.sample_rate, tone.pts, tone.time_base = SOUND, k * samples, Fraction(1, SOUND)
            container.mux(sound.encode(tone))
        for stream in (video, sound):
            container.mux(stream.encode(None))


class Watch:
    """Takes the place of a progress bar, and counts on the way."""

    def __init__(self, frames: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._every, self._done = max(1, frames // 100), 0

    def __call__(self, description: str, total: int | None) -> "Watch":
        return self

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_at(self, steps: int) -> None:
        pass

    def advance(self, steps: int = 1, note: object = "") -> None:
        self._done += steps
        if self._done % self._every == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
            files = len(os.listdir("/proc/self/fd"))
            self.rows.append({"frame": self._done, "resident_mb": resident / 1e6, "files": files})


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=60, show_default=True, help="How long it is.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "results/long_video.json",
)
def main(minutes: float, output: Path) -> None:
    frames, size = int(minutes * 60 * FPS), (96, 72)
    predictor = crowd_predictor(NETWORK, PipelineSettings(input_size=64))
    watch = Watch(frames)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "long.mp4")
        write_clip(clip, frames, size)
        out = Path(folder, "out")
        outputs = Outputs(images=out, json=out, csv=out / "all.csv", mot=out)
        started = time.perf_counter()
        sources = list_sources([str(clip)])
        summary = predict(predictor, sources, outputs, track=True, smooth=True, progress=watch)
        seconds = time.perf_counter() - started
    rows = watch.rows[len(watch.rows) // 10 :]  # after everything has been allocated once
    memory = np.array([row["resident_mb"] for row in rows])
    files = [row["files"] for row in rows]
    slope = np.polyfit([row["frame"] for row in rows], memory, 1)[0]
    result = {
        "machine": machine(torch.device("cpu")),
        "network": NETWORK,
        "minutes": minutes,
        "images": summary.images,
        "people": summary.people,
        "size": size,
        "seconds": seconds,
        "resident_mb": {"low": memory.min(), "high": memory.max()},
        "growth_mb_per_1000_frames": 1000 * slope,
        "files": {"low": min(files), "high": max(files)},
        "rows": watch.rows,
    }
    click.echo(
        f"{summary.images} frames in {seconds:.0f} s; resident memory {memory.min():.0f} to "
        f"{memory.max():.0f} MB, {1000 * slope:+.2f} MB per 1,000 frames; open files "
        f"{min(files)} to {max(files)}"
    )
    write_json(output, result, indent=1)


if __name__ == "__main__":
    main()
