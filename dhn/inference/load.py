"""`dhn.load`: a predictor from whatever names a network."""

import os
from collections.abc import Sequence
from pathlib import Path

from dhn.base.device import Precision, select_device
from dhn.base.errors import SettingError
from dhn.base.files import check_regular
from dhn.base.progress import Progress, silent
from dhn.inference.decode import DecodeConfig
from dhn.inference.exported import is_exported, load_exported
from dhn.inference.predictor import Predictor
from dhn.weights.choice import chosen
from dhn.weights.download import fetch
from dhn.weights.load import open_file


def load(
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    flip: bool = False,
    input_size: int | None = None,
    scales: Sequence[float] = (1.0,),
    fine_only: bool = False,
    precision: Precision = "auto",
    compile: bool = False,
    refine: bool = True,
    subpixel: bool = False,
    max_people: int = 30,
    parity: bool = False,
    nms_oks: float | None = None,
    min_seen: int = 1,
    offline: bool = False,
    trust: bool = False,
    progress: Progress = silent,
) -> Predictor:
    """Loads a network that finds people: `dhn.load("best.pt", flip=True)("photo.jpg")`.

    Args:
        checkpoint: a file of weights, or one that `dhn export` wrote; a published name, which
            `dhn models` lists; or an https:// address. Names and addresses are downloaded once,
            to the cache folder. `last` takes the newest run in `runs/`, a folder the run in it:
            its `best.pt`, else its `last.pt`. None takes the small network that dhn brings.
        device: where to compute: `auto` (CUDA, else MPS, else the CPU), `cpu`, `cuda`, `cuda:N`
            or `mps`.
        flip: average with the mirrored image: more accurate, half as fast.
        input_size: short side of the network input in pixels, a multiple of 64. None takes the
            one of the training, and 512 where the file does not say.
        scales: the image runs at each of these scales, and the heatmaps are averaged, as in
            `scales=(0.5, 1, 2)`. 1 must be among them: it gives the tags.
        fine_only: leave the coarse heatmaps out.
        precision: what the network computes in: `float32`, `bfloat16`, or `auto`, which is
            bfloat16 where the hardware multiplies it.
        compile: fuse by torch.compile, which takes a minute at the first image of each size.
        refine: search the maps for joints that a person lacks.
        subpixel: fit peaks below the pixel; see `DecodeConfig`.
        max_people: candidates per joint, and people a candidate is matched with.
        parity: give the official HigherHRNet code's results, its artefacts included.
        nms_oks: of two people whose poses have a higher OKS, only the better one stays. None is
            0.8, and 1 (everybody stays) under `parity`.
        min_seen: people of whom fewer joints were found before refinement are left out.
        offline: download nothing.
        trust: run a .pt2 file. Such a file is a program and can do anything on this machine, so
            none runs without `trust`. All other files are read as data.
        progress: shows how far a download is.

    Returns:
        the predictor: `predictor(image)` gives the `People` of an image.

    Raises:
        DhnError: there is no checkpoint, or none that can be used; there is no such device; or an
            exported network does not have these settings.
    """
    decode = DecodeConfig(max_people=max_people, refine=refine, subpixel=subpixel)
    path = fetch(chosen(checkpoint), offline=offline, progress=progress)
    check_regular(path)
    if is_exported(path):
        exported = load_exported(path, device, trust=trust)
        about = exported.description
        if flip and not about.flip:
            raise _fixed(path, "flip", flip)
        if fine_only and not about.fine_only:
            raise _fixed(path, "fine_only", fine_only)
        if precision == "bfloat16":
            raise _fixed(path, "precision", precision)
        if compile:
            raise _fixed(path, "compile", compile)
        return Predictor(
            exported,
            about.joints,
            input_size=input_size or about.input_size,
            scales=scales,
            decode=decode,
            parity=parity,
            nms_oks=nms_oks,
            min_seen=min_seen,
            source=str(path),
        )
    network = open_file(path)
    return Predictor(
        network.model,
        network.joints,
        device=select_device(device),
        input_size=input_size or network.input_size or 512,
        scales=scales,
        flip=flip,
        fine_only=fine_only,
        precision=precision,
        compile=compile,
        decode=decode,
        parity=parity,
        nms_oks=nms_oks,
        min_seen=min_seen,
        source=network.source,
    )


def _fixed(path: Path, setting: str, value: object) -> SettingError:
    return SettingError(
        setting,
        value,
        f"{path} was exported without it and cannot change; leave it out, or give the checkpoint",
    )
