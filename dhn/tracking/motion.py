"""How joints move: a Kalman filter of constant velocity for each joint, for all tracks at once.

Both coordinates of a joint have the same noise, so they share one covariance. Lengths are in
pixels, times in seconds. What scales with a person is given in units of the person's size, which
is the square root of `AREA_OF_BOX` of the box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

_ACCELERATION = 8.0  # standard deviation in sizes per second squared, as of a swinging arm
_FIRST_SPEED = 2.0  # standard deviation in sizes per second of what was seen only once


@dataclass(frozen=True)
class Motion:
    """Where the J joints of N people are, and how fast they move.

    Attributes:
        xy: float64 [N, J, 2].
        velocity: float64 [N, J, 2].
        covariance: float64 [N, J, 3]: variance of place, covariance, variance of velocity.
        known: bool [N, J]: which joints have been seen at all.
    """

    xy: np.ndarray
    velocity: np.ndarray
    covariance: np.ndarray
    known: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Motion":
        return Motion(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def body_velocity(self) -> np.ndarray:
        """Each person's mean velocity, joints weighted by how well theirs is known, [N, 1, 2]."""
        weights = (self.known / np.maximum(self.covariance[..., 2], 1e-9))[..., None]
        total = np.maximum(weights.sum(1, keepdims=True), 1e-12)
        return (weights * self.velocity).sum(1, keepdims=True) / total


def at_rest(poses: np.ndarray, sizes: np.ndarray, sigmas: Sequence[float]) -> Motion:
    """The motion of people who were seen for the first time.

    Args:
        poses: [N, J, 3]: x, y, and a score above 0 where the joint was seen.
        sizes: [N].
        sigmas: J constants of OKS, the deviation of annotated joints in sizes.
    """
    place = _noise(sizes, sigmas)
    speed = np.broadcast_to((_FIRST_SPEED * sizes[:, None]) ** 2, place.shape)
    covariance = np.stack([place, np.zeros_like(place), speed], -1)
    xy = np.asarray(poses[..., :2], float)
    return Motion(xy, np.zeros_like(xy), covariance, poses[..., 2] > 0)


def predicted(motion: Motion, seconds: np.ndarray, sizes: np.ndarray) -> Motion:
    """The motion `seconds` [N] later, if velocities stay as they are."""
    dt = seconds[:, None]
    place, both, speed = np.moveaxis(motion.covariance, -1, 0)
    noise = (_ACCELERATION * sizes[:, None]) ** 2
    covariance = np.stack(
        [
            place + 2 * dt * both + dt**2 * speed + noise * dt**4 / 4,
            both + dt * speed + noise * dt**3 / 2,
            speed + noise * dt**2,
        ],
        -1,
    )
    xy = motion.xy + motion.velocity * dt[..., None]
    return Motion(xy, motion.velocity, covariance, motion.known)


def corrected(
    motion: Motion, poses: np.ndarray, sizes: np.ndarray, sigmas: Sequence[float]
) -> Motion:
    """The motion after each person was seen in a pose of `poses` [N, J, 3].

    Joints that were not seen move on with the body; those seen for the first time start with its
    velocity.
    """
    seen = poses[..., 2] > 0
    place, both, speed = np.moveaxis(motion.covariance, -1, 0)
    noise = _noise(sizes, sigmas)
    gain, gain_speed = place / (place + noise), both / (place + noise)
    innovation = poses[..., :2] - motion.xy
    update = (seen & motion.known)[..., None]
    xy = motion.xy + np.where(update, gain[..., None] * innovation, 0)
    velocity = motion.velocity + np.where(update, gain_speed[..., None] * innovation, 0)
    after = [(1 - gain) * place, (1 - gain) * both, speed - gain_speed * both]
    covariance = np.where(update, np.stack(after, -1), motion.covariance)
    body = Motion(xy, velocity, covariance, seen & motion.known).body_velocity()
    new = (seen & ~motion.known)[..., None]
    first = at_rest(poses, sizes, sigmas)
    return Motion(
        np.where(new, first.xy, xy),
        np.where(update, velocity, body),
        np.where(new, first.covariance, covariance),
        motion.known | seen,
    )


def _noise(sizes: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """The variance of a joint's place as it is seen, [N, J]."""
    return (sizes[:, None] * np.asarray(sigmas)) ** 2
