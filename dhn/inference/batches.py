"""Batches in which one bad image does not take the others with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dhn.inference.people import People
    from dhn.inference.predictor import Predictor


def people_or_errors(
    predictor: "Predictor", images: Sequence[npt.NDArray[np.uint8]]
) -> "list[People | Exception]":
    """The people of each image, or the error that it raises.

    Where a batch fails, its images are predicted one by one.

    Args:
        predictor: finds the people of a list of images.
        images: RGB uint8 [H, W, 3].
    """
    if not images:
        return []
    try:
        return [*predictor([*images])]
    except Exception as error:
        if len(images) == 1:
            return [error]
    return [result for image in images for result in people_or_errors(predictor, [image])]
