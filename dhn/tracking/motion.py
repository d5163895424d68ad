"""How joints move: a Kalman filter of constant velocity for each joint, for all tracks at once.

Both coordinates of a joint have the same noise, so they share one covariance. Lengths are in
pixels, times in seconds. What scales with a person is given in units of the person's size, which
is the square root of `AREA_OF_BOX` of the box.
"""

from typing import NamedTuple

import numpy as np

_ACCELERATION = 8.0  # standard deviation in sizes per second squared, as of a swinging arm
_FIRST_SPEED = 2.0  # standard deviation in sizes per second of what was seen only once


class Motion(NamedTuple):
    """Where the J joints of N people are, and how fast they move.

    Attributes:
        xy, velocity: float64 [N, J, 2].
        place, both, speed: float64 [N, J]: the variance of the place, its covariance with the
            velocity, and the variance of the velocity, of each coordinate.
        known: bool [N, J]: which joints have been seen at all.
    """

    xy: np.ndarray
    velocity: np.ndarray
    place: np.ndarray
    both: np.ndarray
    speed: np.ndarray
    known: np.ndarray

    def of(self, chosen: np.ndarray) -> "Motion":
        """The motion of some people, chosen as NumPy chooses."""
        return Motion(*(values[chosen] for values in self))

    def body_velocity(self) -> np.ndarray:
        """Each person's mean velocity, joints weighted by how well theirs is known, [N, 1, 2]."""
        weights = self.known / np.maximum(self.speed, 1e-9)
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-12)
        return np.einsum("nj,njk->nk", weights, self.velocity)[:, None]


def at_rest(poses: np.ndarray, sizes: np.ndarray, sigmas: np.ndarray) -> Motion:
    """The motion of people who were seen for the first time.

    Args:
        poses: [N, J, 3]: x, y, and a score above 0 where the joint was seen.
        sizes: [N].
        sigmas: J constants of OKS, the deviation of annotated joints in sizes.
    """
    place = (sizes[:, None] * sigmas) ** 2
    speed = np.broadcast_to((_FIRST_SPEED * sizes[:, None]) ** 2, place.shape)
    xy = np.asarray(poses[..., :2], float)
    return Motion(
        xy, np.zeros_like(xy), place, np.zeros_like(place), speed.copy(), poses[..., 2] > 0
    )


def predicted(motion: Motion, seconds: np.ndarray, sizes: np.ndarray) -> Motion:
    """The motion `seconds` [N] later, if velocities stay as they are."""
    dt = seconds[:, None]
    noise = (_ACCELERATION * sizes[:, None] * dt) ** 2  # of the velocity
    return Motion(
        motion.xy + motion.velocity * dt[..., None],
        motion.velocity,
        motion.place + dt * (2 * motion.both + dt * motion.speed) + noise * dt**2 / 4,
        motion.both + dt * motion.speed + noise * dt / 2,
        motion.speed + noise,
        motion.known,
    )


def corrected(motion: Motion, poses: np.ndarray, sizes: np.ndarray, sigmas: np.ndarray) -> Motion:
    """The motion after each person was seen in a pose of `poses` [N, J, 3].

    Joints that were not seen move on with the body; those seen for the first time start with its
    velocity.
    """
    seen = poses[..., 2] > 0
    update = seen & motion.known
    total = motion.place + (sizes[:, None] * sigmas) ** 2
    gain, gain_speed = update * motion.place / total, update * motion.both / total
    innovation = poses[..., :2] - motion.xy
    after = Motion(
        motion.xy + gain[..., None] * innovation,
        motion.velocity + gain_speed[..., None] * innovation,
        (1 - gain) * motion.place,
        (1 - gain) * motion.both,
        motion.speed - gain_speed * motion.both,
        motion.known | seen,
    )
    if update.all():
        return after
    body = after._replace(known=update).body_velocity()
    after = after._replace(velocity=np.where(update[..., None], after.velocity, body))
    new = seen & ~motion.known
    if not new.any():
        return after
    first = at_rest(poses, sizes, sigmas)
    return after._replace(
        xy=np.where(new[..., None], first.xy, after.xy),
        place=np.where(new, first.place, after.place),
        both=np.where(new, first.both, after.both),
        speed=np.where(new, first.speed, after.speed),
    )
