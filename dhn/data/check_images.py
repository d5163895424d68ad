"""Checks of image files: missing, damaged, of another size, or there twice."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from dhn.base.errors import DhnError
from dhn.base.progress import Progress, tracked
from dhn.data.annotations import AnnotatedImage
from dhn.data.findings import Finding, name_of
from dhn.data.masks import ignore_mask
from dhn.media.images import decode_image


class _Look(NamedTuple):
    """What was seen of one image.

    Attributes:
        identity: equal for two images that are the same one: a hash of the bytes, or the path
            where the file was not read.
        problem: what is wrong with it, or nothing.
        detail: appended to the image's name.
    """

    identity: object
    problem: str = ""
    detail: str = ""


def check_images(
    images: list[tuple[str, AnnotatedImage]], *, decode: bool, progress: Progress
) -> list[Finding]:
    """Checks the files of images, and finds images that are there twice.

    Args:
        images: each with the name of its split.
        decode: read every image; otherwise only see whether its file exists.
        progress: shows how many images are checked.
    """
    problems: dict[tuple[str, str], list[str]] = defaultdict(list)
    same: dict[object, list[tuple[str, AnnotatedImage]]] = defaultdict(list)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(_read if decode else _exists, [image for _, image in images])
        shown = tracked(looks, progress, "Checking images", total=len(images))
        for (split, image), look in zip(images, shown, strict=True):
            same[look.identity].append((split, image))
            if look.problem:
                problems[split, look.problem].append(f"{name_of(image)}{look.detail}")
    findings = [Finding("error", what, split, cases) for (split, what), cases in problems.items()]
    return findings + _doubled(same.values())


def _doubled(groups: Iterable[list[tuple[str, AnnotatedImage]]]) -> list[Finding]:
    """Findings for groups of more than one image, which are equal."""
    leaks: dict[str, list[str]] = defaultdict(list)
    twice: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        if len(group) > 1:
            splits = list(dict.fromkeys(split for split, _ in group))
            case = " = ".join(name_of(image) for _, image in group)
            (leaks if len(splits) > 1 else twice)[" and ".join(splits)].append(case)
    return [
        *(Finding("error", "same image in two splits", *found) for found in leaks.items()),
        *(Finding("warning", "same image twice", *found) for found in twice.items()),
    ]


def _exists(image: AnnotatedImage) -> _Look:
    return _Look(image.path, "" if image.path.is_file() else "image is not there")


def _read(image: AnnotatedImage) -> _Look:
    look = _exists(image)
    if look.problem:
        return look
    try:
        data = image.path.read_bytes()
        look = _Look(hashlib.blake2b(data, digest_size=16).digest())
        height, width, _ = decode_image(data, str(image.path), ignore_orientation=True).shape
        if (width, height) != (image.width, image.height):
            detail = f": {width} x {height}, not {image.width} x {image.height}"
            return look._replace(problem="image is of another size than its labels", detail=detail)
        ignore_mask(image)
    except OSError as error:
        return look._replace(problem="image cannot be read", detail=f": {error.strerror}")
    except DhnError as error:
        detail = str(error).removeprefix(str(image.path))
        return look._replace(problem="image or mask unreadable", detail=detail)
    return look
