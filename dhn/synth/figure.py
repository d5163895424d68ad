"""A dressed person: what somebody wears and looks like, and how it is drawn on a posed body.

Both sleeves, trouser legs and shoes of a person look alike. Left and right can be told apart by
understanding only: face, hair, collar and buttons, toes and the way elbows and knees bend.
"""

from dataclasses import dataclass

import numpy as np

from dhn.synth.body import Body
from dhn.synth.render import Canvas, Light, Paint, Surface, View, draw_ellipsoid, draw_strip

_SKIN = (
    (245, 212, 186),
    (232, 190, 158),
    (214, 164, 126),
    (180, 126, 88),
    (136, 92, 62),
    (94, 62, 44),
)
_HAIR = (
    (28, 22, 20),
    (58, 40, 28),
    (96, 62, 36),
    (150, 104, 58),
    (206, 170, 106),
    (150, 146, 142),
    (142, 64, 36),
)


@dataclass(frozen=True)
class Cloth:
    """Colour and pattern of a garment.

    Attributes:
        colour, second: RGB, 0..255; `second` is the pattern's.
        pattern: plain, hoops (around), stripes (along) or checks.
        period: metres between two stripes.
        front: what the front has: none, placket (buttons), zip or badge.
    """

    colour: np.ndarray
    second: np.ndarray
    pattern: str = "plain"
    period: float = 0.1
    front: str = "none"


@dataclass(frozen=True)
class Look:
    """Everything about a person but the pose.

    Attributes:
        skin, hair: RGB, 0..255.
        hair_style: bald, short, bob, long, bun or cap.
        top, bottom: shirt and trousers or skirt.
        sleeve: covered share of the upper arm (0..1) and the forearm (1..2).
        leg: covered share of the thigh (0..1) and the shin (1..2).
        skirt: the bottom is a skirt of that length in metres; 0 for none.
        shoe: RGB.
        girth: factor on all widths.
    """

    skin: np.ndarray
    hair: np.ndarray
    hair_style: str
    top: Cloth
    bottom: Cloth
    sleeve: float
    leg: float
    skirt: float
    shoe: np.ndarray
    girth: float


def random_look(rng: np.random.Generator) -> Look:
    """Draws a look; clothes may have any colour, skin and hair have people's."""
    skin = np.array(_SKIN[rng.integers(len(_SKIN))]) * rng.uniform(0.92, 1.05)
    skirt = rng.choice([0.0, 0.35, 0.55], p=[0.8, 0.12, 0.08])
    return Look(
        skin=skin,
        hair=np.array(_HAIR[rng.integers(len(_HAIR))]) * rng.uniform(0.85, 1.15),
        hair_style=str(
            rng.choice(
                ["short", "bob", "long", "bun", "cap", "bald"], p=[0.42, 0.14, 0.18, 0.1, 0.1, 0.06]
            )
        ),
        top=_random_cloth(rng, front=True),
        bottom=_random_cloth(rng, front=False),
        sleeve=float(rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.1, 0.38, 0.06, 0.46])),
        leg=0.0 if skirt else float(rng.choice([0.6, 0.9, 2.0], p=[0.18, 0.12, 0.7])),
        skirt=float(skirt),
        shoe=np.array([rng.uniform(20, 235)] * 3) * rng.uniform(0.8, 1.0, 3),
        girth=float(np.clip(rng.normal(1.0, 0.09), 0.84, 1.25)),
    )


def _random_cloth(rng: np.random.Generator, *, front: bool) -> Cloth:
    colour = _random_colour(rng)
    patterned = rng.random() < (0.42 if front else 0.12)
    return Cloth(
        colour=colour,
        second=_random_colour(rng),
        pattern=str(rng.choice(["hoops", "stripes", "checks"])) if patterned else "plain",
        period=float(rng.uniform(0.05, 0.13)),
        front=str(rng.choice(["none", "placket", "zip", "badge"], p=[0.3, 0.35, 0.15, 0.2]))
        if front
        else "none",
    )


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of middle saturation, greys, navy and black among them."""
    value = rng.uniform(35, 235)
    tint = rng.uniform(0, 1, 3)
    tint = (tint - tint.min()) / max(float(np.ptp(tint)), 1e-6)
    saturation = rng.beta(1.4, 1.6)
    return value * (1 - saturation * (1 - tint))


def _cloth_paint(cloth: Cloth, *, front: bool = False, skin: np.ndarray | None = None) -> Paint:
    def paint(surface: Surface) -> np.ndarray:
        soft = surface.detail * cloth.period / 4
        mix: np.ndarray | float = 0.0
        if cloth.pattern in ("hoops", "checks"):
            mix = mix + _square_wave(surface.along / cloth.period, soft)
        if cloth.pattern in ("stripes", "checks"):
            mix = mix + _square_wave(surface.local[0] * 0.17 / cloth.period, soft)
        if cloth.pattern == "checks":
            mix = mix * 0.5
        colour = (
            _mixed(cloth.colour, cloth.second, mix)
            if cloth.pattern != "plain"
            else np.broadcast_to(cloth.colour, (len(surface.t), 3))
        )
        if front:
            colour = _painted_front(colour, cloth, surface, skin)
        return colour

    return paint


def _painted_front(
    colour: np.ndarray, cloth: Cloth, surface: Surface, skin: np.ndarray | None
) -> np.ndarray:
    """The collar's opening, buttons and badges: what tells a chest from a back."""
    left, _, forward = surface.local
    ahead = forward > 0
    edge = surface.detail * 0.17
    if cloth.front in ("placket", "zip"):
        width = 0.13 if cloth.front == "placket" else 0.07
        line = np.clip((width - np.abs(left)) * edge + 0.5, 0, 1) * ahead
        colour = _mixed(
            colour, cloth.colour * (0.62 if cloth.colour.mean() > 90 else 1.6), line * 0.8
        )
    elif cloth.front == "badge":
        inside = np.maximum(np.abs(left) / 0.42, np.abs(surface.t - 0.66) / 0.12)
        colour = _mixed(
            colour, cloth.second, np.clip((1 - inside) * edge * 0.5 + 0.5, 0, 1) * ahead
        )
    if skin is not None:
        opening = (surface.t - 0.86) * 3.2 - np.abs(left)
        colour = _mixed(colour, skin, np.clip(opening * edge + 0.5, 0, 1) * ahead)
    return colour


def _square_wave(phase: np.ndarray, softness: float) -> np.ndarray:
    """0..1 with edges that fade where the stripes get as thin as pixels."""
    triangle = np.abs((phase % 1.0) * 4 - 2) - 1
    return np.clip(0.5 + triangle * min(max(softness, 0.25), 12.0), 0, 1)


def _mixed(first: np.ndarray, second: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    weight = np.asarray(weight, np.float32)[:, None]
    return first + weight * (second - first)


def _plain(colour: np.ndarray) -> Paint:
    return lambda _: colour


def draw_person(
    canvas: Canvas, view: View, body: Body, look: Look, light: Light, owner: int
) -> None:
    """Draws a person; parts of one body are ordered by the depth buffer."""
    for strip in _strips(body, look):
        ends, widths, paint, options = strip
        draw_strip(canvas, view, ends, widths * look.girth, paint, light, owner=owner, **options)
    _draw_head(canvas, view, body, look, light, owner)


def _strips(body: Body, look: Look) -> list[tuple[np.ndarray, np.ndarray, Paint, dict]]:
    """(bone, widths, paint, options of draw_strip) of every part but the head."""
    skin = _plain(look.skin)
    top, bottom = _cloth_paint(look.top), _cloth_paint(look.bottom)
    joint = body.joint
    hips = (joint("left_hip") + joint("right_hip")) / 2
    up, pelvis_up = body.torso_frame[:, 1], body.pelvis_frame[:, 1]
    parts: list[tuple[np.ndarray, np.ndarray, Paint, dict]] = []

    def add(
        start: np.ndarray, end: np.ndarray, widths: tuple[float, ...], paint: Paint, **options
    ) -> None:
        parts.append((np.array([start, end]), np.array(widths), paint, options))

    add(joint("neck") - 0.05 * up, body.head, (0.06, 0.05, 0.05), skin)
    for side, name in enumerate(("left", "right")):
        shoulder, elbow, wrist = (
            joint(f"{name}_{part}") for part in ("shoulder", "elbow", "wrist")
        )
        add(shoulder, elbow, (0.052, 0.05, 0.042), skin)
        add(elbow, wrist, (0.042, 0.04, 0.028), skin)
        add(wrist, body.hands[side], (0.028, 0.04, 0.036, 0.022), skin)
        if look.sleeve:
            share = min(1.0, look.sleeve)
            add(
                shoulder,
                shoulder + share * (elbow - shoulder),
                (0.062, 0.06, 0.055),
                top,
                cap=None if share == 1 else 0.03,
            )
        if look.sleeve > 1:
            add(
                elbow,
                elbow + (look.sleeve - 1) * 0.96 * (wrist - elbow),
                (0.053, 0.05, 0.04),
                top,
                cap=0.03,
            )
        hip, knee, ankle = (joint(f"{name}_{part}") for part in ("hip", "knee", "ankle"))
        add(hip, knee, (0.08, 0.078, 0.056), skin)
        add(knee, ankle, (0.054, 0.056, 0.044, 0.036), skin)
        if look.leg:
            share = min(1.0, look.leg)
            add(
                hip,
                hip + share * (knee - hip),
                (0.092, 0.09, 0.07),
                bottom,
                cap=None if share == 1 else 0.02,
            )
        if look.leg > 1:
            add(
                knee,
                knee + (look.leg - 1) * 0.95 * (ankle - knee),
                (0.069, 0.066, 0.058),
                bottom,
                cap=0.03,
            )
        add(ankle, 0.7 * body.heels[side] + 0.3 * body.toes[side], (0.042, 0.04), _plain(look.shoe))
        add(
            body.heels[side] + 0.02 * (ankle - body.heels[side]),
            body.toes[side],
            (0.036, 0.042, 0.046, 0.036),
            _plain(look.shoe * 0.9),
        )
    add(
        hips - 0.05 * pelvis_up,
        hips + 0.14 * up,
        (0.15, 0.165, 0.15),
        bottom,
        frame=body.pelvis_frame,
        flatness=0.66,
        cap=0.04,
    )
    if look.skirt:
        knees = (joint("left_knee") + joint("right_knee")) / 2
        reach = look.skirt / 0.43
        hem = hips + min(reach, 1.0) * (knees - hips)
        half = 0.1 + np.linalg.norm(joint("left_knee") - joint("right_knee")) / 2
        add(
            hips,
            hem,
            (0.165, 0.175, 0.19, max(0.2, min(reach, 1) * half)),
            bottom,
            frame=body.pelvis_frame,
            flatness=0.75,
            cap=0.02,
        )
    add(
        hips + 0.02 * up,
        joint("neck"),
        (0.165, 0.15, 0.152, 0.165, 0.178, 0.18, 0.175, 0.15, 0.07),
        _cloth_paint(look.top, front=True, skin=look.skin),
        frame=body.torso_frame,
        flatness=0.64,
        cap=0.025,
    )
    return parts


def _draw_head(
    canvas: Canvas, view: View, body: Body, look: Look, light: Light, owner: int
) -> None:
    frame, centre = body.head_frame, body.head
    up, forward = frame[:, 1], frame[:, 2]
    skull = (0.078, 0.115, 0.092)
    hair = _plain(look.hair)
    for side in (1, -1):
        ear = centre + side * 0.078 * frame[:, 0] - 0.01 * up - 0.005 * forward
        draw_ellipsoid(
            canvas,
            view,
            ear,
            frame,
            (0.014, 0.028, 0.02),
            _plain(look.skin * 0.9),
            light,
            owner=owner,
        )
    draw_ellipsoid(canvas, view, centre, frame, skull, _face_paint(look), light, owner=owner)
    nose = centre + 0.094 * forward - 0.012 * up
    draw_ellipsoid(
        canvas,
        view,
        nose,
        frame,
        (0.013, 0.022, 0.017),
        _plain(look.skin * 0.93),
        light,
        owner=owner,
    )
    style = look.hair_style
    if style == "bald":
        return
    if style == "cap":
        cap = _plain(look.top.second)
        draw_ellipsoid(
            canvas,
            view,
            centre + 0.01 * up,
            frame,
            (0.088, 0.118, 0.102),
            cap,
            light,
            owner=owner,
            keep=lambda n: _soft(n[1] - 0.3, view.scale),
        )
        draw_ellipsoid(
            canvas,
            view,
            centre + 0.055 * up + 0.09 * forward,
            frame,
            (0.07, 0.012, 0.075),
            cap,
            light,
            owner=owner,
        )
        return
    hairline, slope = {"short": (0.12, 0.5), "bun": (0.08, 0.55)}.get(style, (-0.7, 1.45))
    draw_ellipsoid(
        canvas,
        view,
        centre + 0.006 * up - 0.008 * forward,
        frame,
        (0.088, 0.122, 0.1),
        hair,
        light,
        owner=owner,
        keep=lambda n: _soft(n[1] - hairline - slope * n[2], view.scale),
    )
    if style == "bun":
        draw_ellipsoid(
            canvas,
            view,
            centre + 0.07 * up - 0.1 * forward,
            frame,
            (0.042, 0.042, 0.042),
            hair,
            light,
            owner=owner,
        )
    if style == "long":
        fall = 0.35 * body.torso_frame[:, 1] + 0.65 * up
        start = centre - 0.035 * forward
        draw_strip(
            canvas,
            view,
            np.array([start, start - 0.24 * fall - 0.03 * forward]),
            np.array([0.08, 0.095, 0.085, 0.05]),
            hair,
            light,
            owner=owner,
            frame=frame,
            flatness=0.5,
            cap=0.03,
        )


def _soft(margin: np.ndarray, scale: float) -> np.ndarray:
    """A step at 0 that is as soft as a pixel on a head."""
    return np.clip(margin * scale * 0.09 + 0.5, 0, 1)


def _face_paint(look: Look) -> Paint:
    def paint(surface: Surface) -> np.ndarray:
        left, up, forward = surface.local
        scale = surface.detail
        ahead = forward > 0.2
        colour = np.broadcast_to(look.skin, (len(left), 3))
        side = np.abs(left)
        white = _soft(1 - np.hypot((side - 0.36) / 0.17, (up - 0.08) / 0.1), scale * 0.15)
        colour = _mixed(colour, np.array((240.0, 238.0, 232.0)), white * ahead)
        pupil = _soft(1 - np.hypot((side - 0.35) / 0.1, (up - 0.08) / 0.11), scale * 0.15)
        colour = _mixed(colour, np.array((38.0, 28.0, 26.0)), pupil * ahead)
        brow = _soft(1 - np.hypot((side - 0.37) / 0.22, (up - 0.27) / 0.05), scale * 0.12)
        colour = _mixed(colour, look.hair * 0.8, brow * ahead * 0.8)
        mouth = _soft(
            1 - np.hypot(left / 0.26, (up + 0.5 - 0.3 * left * left) / 0.06), scale * 0.12
        )
        return _mixed(colour, np.array((150.0, 62.0, 58.0)), mouth * ahead * 0.85)

    return paint
