"""Times `dhn predict` as a whole beside its network alone, and says where the time goes."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dhn.base.errors import SettingError
from dhn.base.pipeline import Pipeline
from dhn.base.progress import Progress, silent
from dhn.bench.scenes import crowd, scene_from_keypoints
from dhn.bench.timing import machine
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.media.images import write_image
from dhn.media.sources import list_sources
from dhn.media.video import VideoWriter
from dhn.model import build_model
from dhn.prediction.outputs import Outputs
from dhn.prediction.run import Summary, predict
from dhn.synth.video import VideoConfig, draw_video
from dhn.weights.choice import BUNDLED
from dhn.weights.load import open_file

PEOPLE = "people"  # the network that dhn brings
DEFAULT_NETWORKS = ("doublehighernet_w32", PEOPLE)
_CROWD = 5  # people in each image


@dataclass(frozen=True)
class PipelineSettings:
    """What the pipeline is timed on.

    Attributes:
        images: how many images, and how many frames of a video.
        input_size: short side of the network's input, in pixels; the network's own for `PEOPLE`.
        flip: whether the flip test is part of it.
        batch_size: images at a time.
        device: where to compute.
        threads: CPU threads of the network.
        repeats: how often network and pipeline are timed, in turns; medians count.
    """

    images: int = 40
    input_size: int = 512
    flip: bool = False
    batch_size: int = 1
    device: str = "cpu"
    threads: int = 1
    repeats: int = 3


class Spent(NamedTuple):
    """Seconds that an image took: of the clock, and of all processor cores together."""

    seconds: float
    cpu_seconds: float


def time_pipeline(
    names: Sequence[str], settings: PipelineSettings, *, progress: Progress = silent
) -> dict[str, Any]:
    """Times `dhn.prediction.run.predict` with overlays and JSON.

    Each network gets a folder of JPEG files of 640 x 480 pixels and an H.264 video of 1280 x 720,
    in which drawn people walk. Networks without training find nobody, so the maps that are decoded
    are made for five people; those of the network are computed and thrown away.

    Args:
        names: networks as `build_model` takes them, or `PEOPLE`.
        settings: what they are timed on.
        progress: shows how many rows are done.

    Returns:
        `machine`, `settings`, and `rows`: for each `network` and `source`, `alone` (the network on
        one image in memory) and `whole` as `Spent` per image, `of_network` (the share of the
        network's images per second that the whole reaches), and `stages`: `Spent` per image,
        without waiting for other stages, and without processor time of threads that they start.

    Raises:
        SettingError: there is no such network.
    """
    torch.set_num_threads(settings.threads)
    predictors = {name: crowd_predictor(name, settings) for name in names}
    rows = []
    steps = len(names) * 2 * (1 + settings.repeats)
    with tempfile.TemporaryDirectory() as folder, progress("Pipeline", steps) as bar:
        images, video = Path(folder, "images"), Path(folder, "video.mp4")
        _draw(images, video, settings.images)
        for name, predictor in predictors.items():
            for source, size in ((images, (640, 480)), (video, (1280, 720))):
                row = _time_source(predictor, source, size, settings, bar.advance)
                kind = f"{'JPEG' if source.is_dir() else 'H.264'} {size[0]}x{size[1]}"
                rows.append({"network": name, "source": kind, **row})
    return {
        "machine": machine(torch.device(settings.device)),
        "settings": asdict(settings),
        "rows": rows,
    }


def _draw(images: Path, video: Path, count: int) -> None:
    for k, frame in enumerate(draw_video(0, VideoConfig((640, 480), count, _CROWD))):
        write_image(images / f"{k:06}.jpg", frame.image)
    writer = VideoWriter(video, Fraction(25), (1280, 720))
    for k, frame in enumerate(draw_video(1, VideoConfig((1280, 720), count, _CROWD))):
        writer.write(frame.image, Fraction(k, 25))
    writer.close()


class _CrowdPredictor(Predictor):
    """Runs its network, then decodes the maps of a crowd."""

    def maps(self, images: Tensor) -> tuple[Any, ...]:
        super().maps(images)
        B, _, H, W = images.shape
        heatmaps, tags = self._crowds[H, W]
        return heatmaps.repeat(B, 1, 1, 1), tags.repeat(B, 1, 1, 1, 1)

    @cached_property
    def _crowds(self) -> "_Crowds":
        return _Crowds(len(self.joints), 2 if self.flip else 1, self.device)


class _Crowds(dict[tuple[int, int], tuple[Tensor, Tensor]]):
    """Heatmaps and tags by the network's input size (H, W)."""

    def __init__(self, joints: int, tags: int, device: torch.device) -> None:
        self._joints, self._tags, self._device = joints, tags, device

    def __missing__(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        people = crowd(_CROWD, size)
        some = people[:, :, torch.arange(self._joints) % people.shape[2]]
        scene = scene_from_keypoints(some, size)
        maps = scene.heatmaps.to(self._device), scene.tags[:, :, : self._tags].to(self._device)
        self[size] = maps
        return maps


def crowd_predictor(name: str, settings: PipelineSettings) -> Predictor:
    """Runs the named network on every image, and finds the same five drawn people in each.

    Raises:
        SettingError: there is no such network.
    """
    device = torch.device(settings.device)
    if name == PEOPLE:
        file = open_file(BUNDLED)
        model, joints, size = file.model, file.joints, file.input_size or settings.input_size
    else:
        joints, size = CROWDPOSE, settings.input_size
        try:
            model = build_model(name, len(joints))
        except ValueError as error:
            raise SettingError("model", name, str(error)) from error
    return _CrowdPredictor(
        model, joints, device=device, input_size=size, flip=settings.flip, source=name
    )


def _time_source(
    predictor: Predictor,
    source: Path,
    size: tuple[int, int],
    settings: PipelineSettings,
    advance: Callable[[], None],
) -> dict[str, Any]:
    sources = list_sources([str(source)])
    W, H = predictor._place(size).size
    batch = torch.randint(0, 256, (settings.batch_size, 3, H, W), dtype=torch.uint8)
    batch = batch.to(predictor.device)
    alone, whole, summaries = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        outputs = Outputs(images=Path(folder), json=Path(folder))

        def everything() -> None:
            summaries.append(predict(predictor, sources, outputs, batch_size=settings.batch_size))

        for _ in range(1 + settings.repeats):  # the first time warms up
            alone.append(_spent(lambda: _run_network(predictor, batch, settings), settings))
            whole.append(_spent(everything, settings))
            advance()
    network, predicted = _medians(alone[1:]), _medians(whole[1:])
    return {
        "alone": network._asdict(),
        "whole": predicted._asdict(),
        "of_network": network.seconds / predicted.seconds,
        "stages": {
            name: _stage(name, summaries[1:], settings) for name in summaries[0].stage_seconds
        },
    }


def _stage(name: str, runs: list[Summary], settings: PipelineSettings) -> dict[str, float]:
    spent = [Spent(run.stage_seconds[name], run.stage_cpu_seconds[name]) for run in runs]
    return Spent(*(seconds / settings.images for seconds in _medians(spent)))._asdict()


def _run_network(predictor: Predictor, batch: Tensor, settings: PipelineSettings) -> None:
    """As often as the images need it, in a thread with threads of its own, as in the pipeline."""

    def runs() -> Iterator[None]:
        for _ in range(-(-settings.images // settings.batch_size)):
            predictor.maps(batch)
            yield

    with Pipeline() as pipeline:
        for _ in pipeline.stage("network", runs()):
            pass


def _spent(call: Callable[[], None], settings: PipelineSettings) -> Spent:
    started, cpu = time.perf_counter(), time.process_time()
    call()
    spent = time.perf_counter() - started, time.process_time() - cpu
    return Spent(*(seconds / settings.images for seconds in spent))


def _medians(runs: list[Spent]) -> Spent:
    return Spent(*(statistics.median(column) for column in zip(*runs, strict=True)))
