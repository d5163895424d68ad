"""Object keypoint similarity (OKS) between poses."""

from collections.abc import Sequence

import numpy as np

from dhn.data.coco_file import AREA_OF_BOX


def pose_oks(
    first: np.ndarray,
    second: np.ndarray,
    sigmas: Sequence[float],
    *,
    first_boxes: np.ndarray,
    second_boxes: np.ndarray,
) -> np.ndarray:
    """The OKS of every pose of one list with every pose of another.

    A pair of joints counts exp(-d^2 / (2 area (2 sigma)^2)), as COCO has it, where d is their
    distance and the area is that of the larger person: `AREA_OF_BOX` of its box. The sum over the
    joints that both have is divided by the number of joints of the person who has fewer. So a
    fragment of a person is similar to the whole, but two halves are not.

    Args:
        first: [P, J, 3]: x, y, and a score that is above 0 where the joint was found.
        second: [Q, J, 3], likewise.
        sigmas: J constants; see `JointSet`.
        first_boxes, second_boxes: [P, 4] and [Q, 4]: left, top, width, height in the same unit.

    Returns:
        float64 [P, Q] in 0..1; 0 where the two have no joint in common, or no extent.
    """
    areas = (AREA_OF_BOX * boxes[:, 2] * boxes[:, 3] for boxes in (first_boxes, second_boxes))
    area = np.maximum(*np.ix_(*areas))  # [P, Q]
    has_first, has_second = first[..., 2] > 0, second[..., 2] > 0
    dx, dy = (first[:, None, :, k] - second[None, :, :, k] for k in (0, 1))
    distance2 = dx * dx + dy * dy  # [P, Q, J]
    spread = 2 * area[..., None] * (2 * np.asarray(sigmas)) ** 2
    similarity = np.exp(-distance2 / np.maximum(spread, 1e-9))
    shared = has_first[:, None] & has_second[None]
    fewer = np.minimum(*np.ix_(has_first.sum(-1), has_second.sum(-1)))
    return np.einsum("pqj,pqj->pq", similarity, shared) / np.maximum(fewer, 1)
