"""Images that two data sets share: also mirrored, resized, cropped or compressed copies.

Published sets draw on each other (CrowdPose on COCO, MPII and AI Challenger), so a network may have
learnt what it is scored on. Copies are found by local features (ORB, Rublee et al. 2011), which
cropping and scaling keep, and confirmed pixel by pixel. Images without any feature, like an even
area, are not found.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from dhn.base.errors import DhnError, failure
from dhn.base.progress import Progress, silent
from dhn.data.annotations import AnnotatedImage
from dhn.media.images import read_image

SIDE = 400  # longer side in pixels at which images are compared
_FEATURES = 300  # per image
_CLOSE = 64  # most bits of 256 in which descriptors of the same place differ
_CANDIDATES, _VOTES = 6, 4  # images to look at closely, and the votes that one needs
_INLIERS, _OVERLAP, _CORRELATION = 6, 0.1, 0.9


class Copy(NamedTuple):
    """An image of the first set that is in the second one, too.

    Attributes:
        first, second: the images.
        mirrored: whether left and right are exchanged.
        correlation: of the pixels that both images have, in -1..1; copies are near 1.
    """

    first: AnnotatedImage
    second: AnnotatedImage
    mirrored: bool
    correlation: float

    def as_json(self) -> dict[str, Any]:
        """Plain values: ids and file names."""
        return {
            "first_id": self.first.id,
            "first": self.first.path.name,
            "second_id": self.second.id,
            "second": self.second.path.name,
            "mirrored": self.mirrored,
            "correlation": self.correlation,
        }


class Overlap(NamedTuple):
    """What two data sets share; `failures` has a line for each image that could not be read."""

    copies: list[Copy]
    failures: list[str]


class _Features(NamedTuple):
    """A grey image [h, w] uint8 with its features: points [F, 2] and descriptors [F, 32]."""

    grey: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


def find_overlap(
    first: Sequence[AnnotatedImage],
    second: Sequence[AnnotatedImage],
    *,
    progress: Progress = silent,
) -> Overlap:
    """Finds the images of `first` that are copies of one of `second`.

    Args:
        first, second: the images; their files are read.
        progress: shows how many images are done.

    Raises:
        DhnError: no image of one of the sets can be read.
    """
    failures: list[str] = []
    known: list[tuple[AnnotatedImage, _Features]] = []
    with progress("Reading the second set", len(second)) as bar:
        for image in second:
            features = _read(image, failures)
            if features is not None and len(features.descriptors):
                known.append((image, features))
            bar.advance()
    if second and len(failures) == len(second):
        raise DhnError(failures[0])
    matcher = _matcher([features.descriptors for _, features in known])
    copies = []
    before = len(failures)
    with progress("Comparing the first set", len(first)) as bar:
        for image in first:
            straight = _read(image, failures)
            found = _find(image, straight, known, matcher) if straight and known else None
            if found is not None:
                copies.append(found)
            bar.advance()
    if first and len(failures) - before == len(first):
        raise DhnError(failures[before])
    return Overlap(copies, failures)


def _matcher(descriptors: Sequence[np.ndarray]) -> cv2.FlannBasedMatcher:
    """Finds the nearest of all descriptors by locality-sensitive hashing (Lv et al. 2007)."""
    # Larger keys keep buckets small, and so the search fast, in large sets.
    bits = int(np.log2(max(1, sum(map(len, descriptors))))) - 4
    lsh: dict[str, bool | int | float | str] = {"algorithm": 6, "table_number": 6}
    lsh |= {"key_size": min(max(bits, 12), 20), "multi_probe_level": 1}
    matcher = cv2.FlannBasedMatcher(lsh, {})
    if descriptors:
        matcher.add(list(descriptors))
        matcher.train()
    return matcher


def _read(image: AnnotatedImage, failures: list[str]) -> _Features | None:
    try:
        pixels = read_image(image.path, ignore_orientation=True)
    except Exception as error:
        failures.append(failure(image.path, error))
        return None
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return _features(cv2.resize(grey, size, interpolation=how))


def _features(grey: np.ndarray) -> _Features:
    """Features of an image at several scales; an even image has few or none."""
    orb = cv2.ORB.create(
        nfeatures=_FEATURES, scaleFactor=1.2, nlevels=8, edgeThreshold=12, fastThreshold=5
    )
    points, descriptors = orb.detectAndCompute(grey, None)
    if descriptors is None:
        return _Features(grey, np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    return _Features(grey, np.array([point.pt for point in points], np.float32), descriptors)


def _find(
    image: AnnotatedImage,
    straight: _Features,
    known: Sequence[tuple[AnnotatedImage, _Features]],
    matcher: cv2.FlannBasedMatcher,
) -> Copy | None:
    """The best copy of an image, if there is one."""
    best = None
    for mirrored in (False, True):
        features = _features(np.ascontiguousarray(straight.grey[:, ::-1])) if mirrored else straight
        if not len(features.descriptors):
            continue
        near = [m for m in matcher.match(features.descriptors) if m.distance <= _CLOSE]
        votes = Counter(match.imgIdx for match in near)
        for index, count in votes.most_common(_CANDIDATES):
            if count < _VOTES:
                break
            other, its_features = known[index]
            correlation = _agreement(features, its_features)
            if correlation >= _CORRELATION and (best is None or correlation > best.correlation):
                best = Copy(image, other, mirrored, correlation)
    return best


def _agreement(a: _Features, b: _Features) -> float:
    """How well the pixels of two images correlate where one lies on the other; 0 if it does not."""
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(a.descriptors, b.descriptors)
    matches = [match for match in matches if match.distance <= _CLOSE]
    if len(matches) < _INLIERS:
        return 0.0
    from_, to = (
        np.array([a.points[m.queryIdx] for m in matches]),
        np.array([b.points[m.trainIdx] for m in matches]),
    )
    placed, inliers = cv2.estimateAffinePartial2D(from_, to, ransacReprojThreshold=3.0)
    if placed is None or inliers.sum() < _INLIERS:
        return 0.0
    height, width = b.grey.shape
    warped = cv2.warpAffine(a.grey, placed, (width, height))
    inside = cv2.warpAffine(np.full_like(a.grey, 255), placed, (width, height)) == 255
    if inside.mean() < _OVERLAP:
        return 0.0
    # Blurred: copies differ by a fraction of a pixel and by compression.
    one, two = (cv2.blur(grey, (5, 5))[inside].astype(np.float64) for grey in (warped, b.grey))
    if one.std() < 1 or two.std() < 1:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])
