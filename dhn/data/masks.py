"""Where the heatmap loss of an image counts: not on crowds and people without labels."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.base.limits import MAX_SIDE
from dhn.data.annotations import AnnotatedImage, Person


def ignore_mask(image: AnnotatedImage) -> npt.NDArray[np.uint8] | None:
    """The pixels of an image that the heatmap loss counts.

    Returns:
        uint8 [height, width]: 1 where a pixel counts, 0 inside the segmentation of a crowd or of a
        person without any labelled joint. None where nothing is ignored.

    Raises:
        DhnError: a segmentation is malformed.
    """
    from pycocotools import mask as masks

    regions = [_encode(person, image) for person in image.people if person.segmentation]
    return 1 - masks.decode(masks.merge(regions)) if regions else None


def _encode(person: Person, image: AnnotatedImage) -> dict[str, Any]:
    """A person's segmentation as compressed RLE.

    The file may have polygons, or RLE with its counts as a list or a string.
    """
    from pycocotools import mask as masks

    shape = [image.height, image.width]
    region = person.segmentation
    # pycocotools does not check its input: wrong sizes or corners cost it gigabytes.
    try:
        if isinstance(region, list):
            # It reads four numbers as a box; fewer than six enclose nothing anyway.
            polygons = [polygon for polygon in region if len(polygon) >= 6]
            for polygon in polygons:
                if not np.all(np.abs(np.array(polygon, np.float64)) < MAX_SIDE):
                    raise ValueError("a corner far outside the image")
            # Without a polygon, an empty one has nothing inside.
            return masks.merge(masks.frPyObjects(polygons or [[0] * 6], *shape))
        if region["size"] != shape:
            raise ValueError(f"it must be of the image's size, {shape}")
        counts = region["counts"]
        runs = _runs(counts) if isinstance(counts, str) else list(counts)
        if sum(runs) != math.prod(shape) or min(runs) < 0:
            raise ValueError("its runs do not add up to the size of the image")
        return masks.frPyObjects({"size": shape, "counts": runs}, *shape)
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DhnError(
            f"{image.path}: segmentation of annotation {person.id} is malformed ({error})"
        ) from error


def _runs(text: str) -> list[int]:
    """The lengths of runs in COCO's compressed string; pycocotools reads beyond broken ones.

    A run is written in characters of five bits from 0 to 63 after "0", the lowest first; all but
    the last have 32 added, and 16 in the last one is the sign. From the fourth run on, the
    difference to the run before the last is written.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - ord("0")
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its string of runs has another character")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its string of runs is cut short")
    return runs
