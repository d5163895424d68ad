"""Where the heatmap loss of an image counts: not on crowds and people without labels."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dhn.base.errors import DhnError
from dhn.data.annotations import AnnotatedImage, Person
from dhn.data.coco_file import MAX_SIDE


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
            raise ValueError(f"of size {region['size']} in an image of {shape}")
        if isinstance(region["counts"], list):
            if sum(region["counts"]) != math.prod(shape):
                raise ValueError("its runs do not add up to the size of the image")
            return masks.frPyObjects(region, *shape)
        masks.decode(region)  # raises where the string is malformed
        return region
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DhnError(
            f"{image.path}: segmentation of annotation {person.id} is malformed ({error})"
        ) from error
