"""An articulated body: a pose is a set of joint angles, a posed body is points and frames in space.

Space is measured in metres as seen from the camera: x to the right of the image, y up, z towards
the viewer. A body of yaw 0 faces the viewer, so its left side is on the right of the image. All
bodies are 1.72 m tall when they stand; a smaller person is the same body, drawn smaller.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dhn.data.joints import CROWDPOSE

STATURE = 1.72
_THIGH, _SHIN, _FOOT = 0.43, 0.41, 0.19
_UPPER_ARM, _FOREARM, _HAND = 0.28, 0.25, 0.11
_HIP, _SHOULDER = 0.095, 0.175  # half the distance between left and right
_SPINE, _NECK = 0.51, 0.18  # hips to neck, neck to the middle of the head
_SOLE = 0.07  # height of the ankle above the ground

Legs = Literal[
    "stand", "walk", "run", "sit", "crouch", "jump", "lunge", "bend", "kick", "kneel", "lie"
]

# Ranges of angles in degrees. A leg is (hip flexion, spread, knee flexion). Where a pose has two
# different legs, chance decides which of them is the left one.
_LEGS: dict[Legs, tuple[tuple[tuple[float, float], ...], ...]] = {
    "stand": (((-6, 10), (1, 9), (0, 12)),),
    "walk": (((15, 35), (0, 6), (3, 20)), ((-25, -8), (0, 6), (10, 45))),
    "run": (((40, 80), (0, 8), (50, 100)), ((-30, -5), (0, 8), (20, 90))),
    "sit": (((72, 95), (3, 22), (60, 105)),),
    "crouch": (((95, 125), (5, 25), (105, 140)),),
    "jump": (((-5, 60), (2, 28), (15, 95)),),
    "lunge": (((50, 80), (2, 15), (50, 90)), ((-25, 0), (2, 15), (10, 50))),
    "bend": (((0, 15), (3, 14), (0, 25)),),
    "kick": (((40, 85), (0, 20), (0, 45)), ((-8, 8), (1, 8), (0, 15))),
    "kneel": (((70, 95), (2, 15), (80, 100)), ((-10, 8), (2, 12), (85, 105))),
    "lie": (((-5, 50), (1, 25), (0, 80)),),
}
_LEAN: dict[Legs, tuple[float, float]] = {
    "walk": (0, 10),
    "run": (5, 25),
    "sit": (-12, 25),
    "crouch": (15, 50),
    "jump": (-15, 15),
    "lunge": (0, 30),
    "bend": (30, 75),
    "kick": (-20, 5),
    "kneel": (-5, 20),
    "lie": (-5, 15),
}
_LEGS_ODDS: dict[Legs, float] = {
    "stand": 0.34,
    "walk": 0.2,
    "run": 0.06,
    "sit": 0.12,
    "crouch": 0.05,
    "jump": 0.05,
    "lunge": 0.04,
    "bend": 0.04,
    "kick": 0.04,
    "kneel": 0.04,
    "lie": 0.02,
}

# An arm is (flexion, spread, inward twist, elbow flexion).
_ARMS: dict[str, tuple[tuple[float, float], ...]] = {
    "hang": ((-14, 18), (4, 18), (-20, 30), (4, 35)),
    "bent": ((0, 40), (5, 25), (-30, 50), (60, 130)),
    "raised": ((135, 178), (-30, 5), (-30, 30), (0, 70)),
    "side": ((-10, 20), (55, 100), (-90, 30), (0, 90)),
    "wave": ((-10, 20), (100, 150), (-60, 60), (0, 75)),
    "reach": ((55, 100), (-5, 25), (-30, 30), (0, 50)),
    "akimbo": ((-25, -5), (32, 50), (60, 85), (80, 110)),
}
_ARMS_ODDS = (0.34, 0.2, 0.12, 0.08, 0.08, 0.1, 0.08)


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees. Index 0 of a pair is the left side.

    Attributes:
        legs: the name of the pose of the legs.
        leg: float [2, 3], hip flexion, spread and knee flexion.
        arm: float [2, 4], flexion, spread, inward twist and elbow flexion.
        spine: lean forward, bend sideways, twist.
        head: turn, nod.
        yaw: turn of the whole body about the vertical; 0 faces the viewer, 90 the right of the
            image.
    """

    legs: Legs
    leg: np.ndarray
    arm: np.ndarray
    spine: tuple[float, float, float] = (0.0, 0.0, 0.0)
    head: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0


@dataclass(frozen=True)
class Body:
    """A posed body. The origin is the point on the ground under the pelvis.

    Attributes:
        joints: float [14, 3], in the order of dhn.data.joints.CROWDPOSE.
        hands, heels, toes: float [2, 3], the ends of the hands and feet, left first.
        head: float [3], the middle of the head.
        torso_frame, pelvis_frame, head_frame: float [3, 3]; the columns are the part's left, up
            and forward directions as unit vectors.
        ground: float [3], the middle of what touches the ground, for the shadow.
        pose: the pose that the body was made from.
    """

    joints: np.ndarray
    hands: np.ndarray
    heels: np.ndarray
    toes: np.ndarray
    head: np.ndarray
    torso_frame: np.ndarray
    pelvis_frame: np.ndarray
    head_frame: np.ndarray
    ground: np.ndarray
    pose: Pose = field(repr=False)

    def joint(self, name: str) -> np.ndarray:
        """The place of a joint, float [3]."""
        return self.joints[CROWDPOSE.names.index(name)]


def random_pose(rng: np.random.Generator, *, facing: float = 0.0) -> Pose:
    """Draws a pose.

    Args:
        rng: where all chance comes from.
        facing: the chance that the body is turned roughly to the camera; otherwise it is turned
            in any direction.
    """
    names = tuple(_LEGS_ODDS)
    legs = names[rng.choice(len(names), p=np.array(list(_LEGS_ODDS.values())))]
    sides = [_LEGS[legs][0], _LEGS[legs][-1]]
    if rng.random() < 0.5:
        sides.reverse()
    gestures = list(_ARMS.values())
    first, second = rng.choice(len(gestures), size=2, p=_ARMS_ODDS)
    if rng.random() < 0.55:
        second = first
    lean = rng.uniform(*_LEAN.get(legs, (-3, 8)))
    return Pose(
        legs=legs,
        leg=np.array([_draw(rng, side) for side in sides]),
        arm=np.array([_draw(rng, gestures[g]) for g in (first, second)]),
        spine=(lean, rng.normal(0, 5), rng.normal(0, 9)),
        head=(rng.normal(0, 20), rng.uniform(-10, 18) - 0.4 * lean),
        yaw=float(rng.normal(0, 35) if rng.random() < facing else rng.uniform(-180, 180)),
    )


def _draw(rng: np.random.Generator, ranges: tuple[tuple[float, float], ...]) -> np.ndarray:
    low, high = np.array(ranges).T
    return rng.uniform(low, high)


def pose_body(pose: Pose, *, pitch: float = 0.0, lift: float = 0.0) -> Body:
    """Places every joint by forward kinematics.

    Args:
        pose: joint angles.
        pitch: the degrees by which the camera looks down.
        lift: metres between the ground and the body's lowest point, in a jump.
    """
    pelvis = _about_y(pose.yaw)
    if pose.legs == "lie":
        # On the back or on the belly, in any direction on the floor.
        pelvis = pelvis @ _about_x(-88 if pose.leg[0, 0] > pose.leg[1, 0] else 88)
    lean, bend, twist = pose.spine
    torso = pelvis @ _about_x(lean) @ _about_z(bend) @ _about_y(twist)
    head_frame = torso @ _about_y(pose.head[0]) @ _about_x(pose.head[1])

    neck = torso @ (0, _SPINE, 0)
    head = neck + 0.06 * torso[:, 1] + (_NECK - 0.06) * head_frame[:, 1] + 0.02 * head_frame[:, 2]
    crown = head + 0.115 * head_frame[:, 1]
    arms = [_arm(torso, side, angles) for side, angles in zip((1, -1), pose.arm, strict=True)]
    legs = [_leg(pelvis, side, angles) for side, angles in zip((1, -1), pose.leg, strict=True)]

    # Rows follow CrowdPose: shoulders, elbows, wrists, hips, knees, ankles, head, neck.
    chain = [point for part in (arms, legs) for k in range(3) for point in (part[0][k], part[1][k])]
    points = np.array(
        [*chain, crown, neck, head, *(a[3] for a in arms), *(g[k] for k in (3, 4) for g in legs)]
    )
    lowest = min(points[:, 1].min(), points[6:12, 1].min() - 0.06, -0.09) - lift
    points[:, 1] -= lowest
    camera = _about_x(pitch)
    feet = points[points[:, 1] < lift + 0.16]
    ground = np.array([feet[:, 0].mean(), 0, feet[:, 2].mean()]) if len(feet) else np.zeros(3)
    points, ground = points @ camera.T, camera @ ground
    return Body(
        joints=points[:14],
        head=points[14],
        hands=points[15:17],
        heels=points[17:19],
        toes=points[19:21],
        torso_frame=camera @ torso,
        pelvis_frame=camera @ pelvis,
        head_frame=camera @ head_frame,
        ground=ground,
        pose=pose,
    )


def _arm(torso: np.ndarray, side: int, angles: np.ndarray) -> list[np.ndarray]:
    """Shoulder, elbow, wrist and end of the hand; `side` is 1 (left) or -1 (right)."""
    flexion, spread, twist, bend = angles
    upper = torso @ _about_z(side * spread) @ _about_x(-flexion) @ _about_y(-side * twist)
    fore = upper @ _about_x(-bend)
    shoulder = torso @ (side * _SHOULDER, _SPINE - 0.055, 0)
    elbow = shoulder - _UPPER_ARM * upper[:, 1]
    wrist = elbow - _FOREARM * fore[:, 1]
    return [shoulder, elbow, wrist, wrist - _HAND * fore[:, 1]]


def _leg(pelvis: np.ndarray, side: int, angles: np.ndarray) -> list[np.ndarray]:
    """Hip, knee, ankle, heel and tip of the toes."""
    flexion, spread, bend = angles
    thigh = pelvis @ _about_z(side * spread) @ _about_x(-flexion) @ _about_y(side * 6)
    shin = thigh @ _about_x(bend)
    hip = pelvis @ (side * _HIP, 0, 0)
    knee = hip - _THIGH * thigh[:, 1]
    ankle = knee - _SHIN * shin[:, 1]
    # The foot stays nearly flat under a bent leg, as it does on a floor.
    sole = shin @ _about_x(float(np.clip(flexion - bend, -30, 30)))
    heel = ankle - _SOLE * sole[:, 1] - 0.04 * sole[:, 2]
    return [hip, knee, ankle, heel, heel + _FOOT * sole[:, 2] + 0.04 * side * sole[:, 0]]


def _about_x(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
