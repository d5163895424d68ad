"""Images through a predictor in batches, network and decode beside each other, order kept.

One bad image does not take the others of its batch with it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from dhn.base.pipeline import Pipeline

if TYPE_CHECKING:
    from dhn.inference.people import People
    from dhn.inference.predictor import Inferred, Predictor

Key = TypeVar("Key")
Image: TypeAlias = npt.NDArray[np.uint8]
_Batch: TypeAlias = "list[tuple[Key, Image | Exception]]"
_Half: TypeAlias = "tuple[Sequence[Image], Inferred | Exception]"  # an exception is of one image


def predicted(
    pipeline: Pipeline,
    predictor: "Predictor",
    images: "Iterator[tuple[Key, Image | Exception]]",
    batch_size: int = 1,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> "Iterator[tuple[Key, People | Exception]]":
    """The people of each image, or what went wrong.

    Args:
        pipeline: gets the stages `network` and `decode`.
        predictor: finds the people. Where it fails on a batch, it gets the images one by one.
        images: what names the image for the caller, and RGB uint8 [H, W, 3], or why it could not
            be read, which is handed on.
        batch_size: how many of `images` make a batch.
        stopped: says whether no other batch shall be begun.
    """
    halves = pipeline.stage("network", _inferred(predictor, images, batch_size, stopped))
    return pipeline.stage("decode", _decoded(predictor, halves))


def _inferred(
    predictor: "Predictor",
    images: "Iterator[tuple[Key, Image | Exception]]",
    batch_size: int,
    stopped: Callable[[], bool],
) -> "Iterator[tuple[_Batch[Key], list[_Half]]]":
    while (batch := list(itertools.islice(images, batch_size))) and not stopped():
        readable = [image for _, image in batch if not isinstance(image, Exception)]
        yield batch, _first_half(predictor, readable)


def _decoded(
    predictor: "Predictor", halves: "Iterator[tuple[_Batch[Key], list[_Half]]]"
) -> "Iterator[tuple[Key, People | Exception]]":
    for batch, parts in halves:
        found = (people for half in parts for people in _second_half(predictor, *half))
        for key, image in batch:
            yield key, (image if isinstance(image, Exception) else next(found))


def _first_half(predictor: "Predictor", images: Sequence[Image]) -> "list[_Half]":
    if not images:
        return []
    try:
        return [(images, predictor.infer(images))]
    except Exception as error:
        if len(images) == 1:
            return [(images, error)]
    return [half for image in images for half in _first_half(predictor, [image])]


def _second_half(
    predictor: "Predictor", images: Sequence[Image], inferred: "Inferred | Exception"
) -> "list[People | Exception]":
    if isinstance(inferred, Exception):
        return [inferred]
    try:
        return [*predictor.decoded(inferred)]
    except Exception as error:
        if len(images) == 1:
            return [error]
    again = (half for image in images for half in _first_half(predictor, [image]))
    return [people for half in again for people in _second_half(predictor, *half)]
