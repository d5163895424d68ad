"""A figure: a posed body, dressed, at a place in the image; and how it is drawn."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dhn.synth.body import Body
from dhn.synth.look import Look, cloth_paint, face_paint, shirt_paint
from dhn.synth.render import NOBODY, Brush, Paint, View, draw_ellipsoid, draw_strip

_SKULL = (0.078, 0.115, 0.092)  # half axes in metres: left, up, forward
_FINE = 50.0  # pixels per metre; above it, noses and ears are larger than half a pixel
# Hair covers the points of the skull where up > hairline + slope * forward.
_HAIRLINES = {"short": (0.12, 0.5), "bun": (0.08, 0.55), "bob": (-0.7, 1.45), "long": (-0.7, 1.45)}


@dataclass(frozen=True)
class Figure:
    """A drawn person: a body with a look, seen in an image."""

    body: Body
    look: Look
    view: View

    @property
    def keypoints(self) -> np.ndarray:
        """The joints, float64 [14, 3]: (x, y) in pixels and depth in metres."""
        return self.view.project(self.body.joints)


def draw_figure(brush: Brush, figure: Figure) -> None:
    """Draws a figure; the depth buffer sorts the parts of its body."""
    body, look = figure.body, figure.look
    if body.pose.legs == "sit":
        _draw_stool(replace(brush, owner=NOBODY), body, look)
    for side, name in enumerate(("left", "right")):
        _draw_leg(brush, body, look, side, name)
        _draw_arm(brush, body, look, side, name)
    _draw_trunk(brush, body, look)
    _draw_head(brush, body, look)


def _draw_stool(brush: Brush, body: Body, look: Look) -> None:
    hips, up = (body.joint("left_hip") + body.joint("right_hip")) / 2, body.pelvis_frame[:, 1]
    seat = hips - 0.13 * up
    draw_strip(
        brush, np.array([(0, 0, 0), seat]), (0.17, 0.05, 0.05), look.seat * 0.7, caps=(0.03, 0.03)
    )
    cushion = np.array([seat - 0.04 * up, seat + 0.01 * up])
    frame = body.pelvis_frame
    draw_strip(
        brush, cushion, (0.21, 0.21), look.seat, frame=frame, flatness=0.95, caps=(0.02, 0.02)
    )


def _limb(
    brush: Brush,
    look: Look,
    start: np.ndarray,
    end: np.ndarray,
    widths: tuple[float, ...],
    paint: Paint,
    *,
    cover: float = 1.0,
    hem: float | None = None,
) -> None:
    """Draws a strip over the first `cover` (0..1) of the way between two joints.

    The strip ends round, or nearly flat where it has a `hem`.
    """
    ends = np.array([start, start + min(cover, 1.0) * (end - start)])
    draw_strip(brush, ends, [w * look.girth for w in widths], paint, caps=(None, hem))


def _draw_arm(brush: Brush, body: Body, look: Look, side: int, name: str) -> None:
    shoulder, elbow, wrist = (body.joint(f"{name}_{j}") for j in ("shoulder", "elbow", "wrist"))
    limb, sleeve = partial(_limb, brush, look), cloth_paint(look.top)
    if look.sleeve < 1:
        limb(shoulder, elbow, (0.052, 0.05, 0.042), look.skin)
    if look.sleeve < 2:
        limb(elbow, wrist, (0.042, 0.042, 0.028), look.skin)
    limb(wrist, body.hands[side], (0.028, 0.04, 0.036, 0.022), look.skin)
    if look.sleeve > 0:
        hem = None if look.sleeve >= 1 else 0.025
        limb(shoulder, elbow, (0.062, 0.06, 0.054), sleeve, cover=look.sleeve, hem=hem)
    if look.sleeve > 1:
        limb(elbow, wrist, (0.054, 0.05, 0.04), sleeve, cover=0.96 * (look.sleeve - 1))


def _draw_leg(brush: Brush, body: Body, look: Look, side: int, name: str) -> None:
    hip, knee, ankle = (body.joint(f"{name}_{j}") for j in ("hip", "knee", "ankle"))
    heel, toes = body.heels[side], body.toes[side]
    limb, cloth = partial(_limb, brush, look), cloth_paint(look.bottom)
    if look.leg < 1 or look.skirt:
        limb(hip, knee, (0.08, 0.078, 0.056), look.skin)
    if look.leg < 2:
        limb(knee, ankle, (0.054, 0.056, 0.044, 0.036), look.skin)
    if look.skirt:
        limb(hip, knee, (0.095, 0.105, 0.118), cloth, cover=look.leg, hem=0.02)
    else:
        hem = None if look.leg >= 1 else 0.02
        limb(hip, knee, (0.092, 0.09, 0.07), cloth, cover=look.leg, hem=hem)
    if look.leg > 1:
        limb(knee, ankle, (0.07, 0.066, 0.058), cloth, cover=0.95 * (look.leg - 1), hem=0.03)
    limb(ankle, 0.7 * heel + 0.3 * toes, (0.042, 0.04), look.shoe)
    limb(heel, toes, (0.036, 0.042, 0.046, 0.036), look.shoe * 0.9)


def _draw_trunk(brush: Brush, body: Body, look: Look) -> None:
    hips = (body.joint("left_hip") + body.joint("right_hip")) / 2
    neck, girth = body.joint("neck"), look.girth
    up, pelvis_up = body.torso_frame[:, 1], body.pelvis_frame[:, 1]
    cloth = cloth_paint(look.bottom)
    if look.skirt:
        gap = body.joint("left_knee") - body.joint("right_knee")
        hem = hips + look.leg * (body.joint("left_knee") - gap / 2 - hips)
        half = 0.11 + look.leg * abs(float(gap @ body.pelvis_frame[:, 0])) / 2
        widths = [girth * w for w in (0.16, 0.172, 0.18, max(half, 0.19))]
        ends = np.array([hips, hem])
        draw_strip(
            brush, ends, widths, cloth, frame=body.pelvis_frame, flatness=0.7, caps=(0.02, 0.02)
        )
    ends = np.array([hips - 0.05 * pelvis_up, hips + 0.1 * up])
    widths = [girth * w for w in (0.145, 0.162, 0.15)]
    draw_strip(
        brush, ends, widths, cloth, frame=body.pelvis_frame, flatness=0.66, caps=(0.04, 0.04)
    )
    ends = np.array([neck - 0.05 * up, body.head])
    draw_strip(brush, ends, [girth * w for w in (0.06, 0.05, 0.05)], look.skin)
    # Hem, hip, waist, chest, shoulders and the slope to the neck.
    profile = (0.168, 0.164, 0.152, 0.152, 0.163, 0.175, 0.18, 0.178, 0.15, 0.07)
    draw_strip(
        brush,
        np.array([hips - 0.02 * up, neck]),
        [girth * w for w in profile],
        shirt_paint(look.top, look.skin),
        frame=body.torso_frame,
        flatness=0.66,
        caps=(0.03, 0.03),
    )


def _draw_head(brush: Brush, body: Body, look: Look) -> None:
    frame, centre = body.head_frame, body.head

    def blob(place: tuple[float, ...], sizes: tuple[float, ...], paint: Paint, **how: Any) -> None:
        draw_ellipsoid(brush, centre + frame @ place, frame, sizes, paint, **how)

    def cut(margin: np.ndarray) -> np.ndarray:
        return np.clip(margin * brush.view.scale * 0.09 + 0.5, 0, 1)

    blob((0, 0, 0), _SKULL, face_paint(look))
    if brush.view.scale > _FINE:
        blob((0, -0.012, 0.094), (0.013, 0.022, 0.017), look.skin * 0.93)
    if brush.view.scale > _FINE and look.hair_style in ("short", "bun", "bald"):
        for side in (1, -1):
            blob((side * 0.078, -0.01, -0.005), (0.014, 0.028, 0.02), look.skin * 0.9)
    if look.hair_style == "cap":
        blob((0, 0.01, 0), (0.088, 0.118, 0.102), look.top.second, keep=lambda n: cut(n[1] - 0.3))
        blob((0, 0.055, 0.09), (0.07, 0.012, 0.075), look.top.second)
    if look.hair_style in _HAIRLINES:
        line, slope = _HAIRLINES[look.hair_style]
        sizes = (0.088, 0.122, 0.1)
        blob((0, 0.006, -0.008), sizes, look.hair, keep=lambda n: cut(n[1] - line - slope * n[2]))
    if look.hair_style == "bun":
        blob((0, 0.07, -0.1), (0.042, 0.042, 0.042), look.hair)
    if look.hair_style == "long":
        start = centre - 0.035 * frame[:, 2]
        fall = 0.24 * (0.35 * body.torso_frame[:, 1] + 0.65 * frame[:, 1]) + 0.03 * frame[:, 2]
        ends, widths = np.array([start, start - fall]), (0.08, 0.095, 0.085, 0.05)
        draw_strip(brush, ends, widths, look.hair, frame=frame, flatness=0.5, caps=(0.03, 0.03))
