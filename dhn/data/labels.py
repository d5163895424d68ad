"""What a training sample takes from an image's annotations."""

from collections.abc import Sequence

import numpy as np

from dhn.data.annotations import AnnotatedImage, Annotations, Person
from dhn.data.composites import Source

# Of a person's longer side: how far around the box its unknown joints may lie.
BOX_MARGIN = 0.1


def count_kept(annotations: Annotations, keep_empty: bool) -> int:
    """How many of the images a `PoseDataset` keeps."""
    return len(kept_images(annotations, keep_empty))


def kept_images(
    annotations: Annotations, keep_empty: bool
) -> list[tuple[AnnotatedImage, list[Person]]]:
    """The images that are learnt from, each with its people."""
    people = [(image, _people(image)) for image in annotations.images]
    return [(image, them) for image, them in people if keep_empty or any(map(_is_labelled, them))]


def _is_labelled(person: Person) -> bool:
    return bool((person.keypoints[:, 2] > 0).any())


def _people(image: AnnotatedImage) -> list[Person]:
    """The people with a joint that is labelled, or may be there, the largest first."""
    people = [
        person
        for person in image.people
        if not person.iscrowd and (_is_labelled(person) or person.unknown is not None)
    ]
    return sorted(people, key=lambda person: -person.area)


def with_unknown(person: Person) -> np.ndarray:
    """Keypoints [J, 3] of a person; v = -1 where a joint is unknown, else as annotated or 0."""
    keypoints = person.keypoints.copy()
    keypoints[:, 2].clip(min=0, out=keypoints[:, 2])
    if person.unknown is not None:
        keypoints[person.unknown] = (0, 0, -1)
    return keypoints


def corners(people: Sequence[Person]) -> np.ndarray | None:
    """The corners [P, 4, 2] of the people's boxes, enlarged by `BOX_MARGIN`; None if all is known.

    The boxes of labels are tight, and a heatmap's peak is wide.
    """
    if all(person.unknown is None for person in people):
        return None
    x, y, width, height = np.array([person.box for person in people]).T
    margin = BOX_MARGIN * np.maximum(width, height)
    x0, y0, x1, y1 = x - margin, y - margin, x + width + margin, y + height + margin
    return np.stack([x0, y0, x1, y0, x1, y1, x0, y1], -1).reshape(-1, 4, 2)


def composite_source(image: AnnotatedImage, people: Sequence[Person]) -> Source:
    """What a composite must know of an image before it takes people from it."""
    labelled = [np.count_nonzero(person.keypoints[:, 2] > 0) for person in people]
    boxes = np.array([person.box for person in people], np.float64).reshape(-1, 4)
    return Source((image.width, image.height), boxes, np.array(labelled, np.int64))
