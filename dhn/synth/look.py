"""What people wear and look like, and the paints that put it on a body.

Both sleeves, trouser legs and shoes of a person look alike. So left and right can only be told
apart by understanding the body: its face, hair, collar, buttons and toes, and the way in which
elbows and knees bend.
"""

from dataclasses import dataclass

import numpy as np

from dhn.synth.render import Paint, Surface

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
_HAIR_STYLES = {"short": 0.42, "bob": 0.14, "long": 0.18, "bun": 0.1, "cap": 0.1, "bald": 0.06}
_FRONTS = {"none": 0.3, "placket": 0.35, "zip": 0.15, "badge": 0.2}


@dataclass(frozen=True)
class Cloth:
    """A garment's colours and pattern.

    Attributes:
        colour, second: RGB, 0..255; `second` is the colour of the pattern.
        pattern: plain, hoops (around), stripes (along) or checks.
        period: metres from one stripe to the next.
        front: what the chest has and the back does not: none, placket, zip or badge.
    """

    colour: np.ndarray
    second: np.ndarray
    pattern: str
    period: float
    front: str


@dataclass(frozen=True)
class Look:
    """Everything about a person but the pose.

    Attributes:
        skin, hair, shoe: RGB, 0..255.
        seat: RGB of the stool of a person who sits.
        hair_style: short, bob, long, bun, cap or bald.
        top, bottom: shirt, and trousers or skirt.
        sleeve: how much of the arm it covers: 0 nothing, 1 to the elbow, 2 to the wrist.
        leg: how much of the leg the bottom covers: 1 to the knee, 2 to the ankle.
        skirt: whether the bottom is a skirt, which never covers the knee.
        girth: a factor on all widths.
    """

    skin: np.ndarray
    hair: np.ndarray
    shoe: np.ndarray
    seat: np.ndarray
    hair_style: str
    top: Cloth
    bottom: Cloth
    sleeve: float
    leg: float
    skirt: bool
    girth: float


def random_look(rng: np.random.Generator) -> Look:
    """Draws a look. Clothes may have any colour; skin and hair have those of people."""
    skirt = bool(rng.random() < 0.18)
    top = _random_cloth(rng, patterned=0.42, front=_pick(rng, _FRONTS))
    bottom = _random_cloth(rng, patterned=0.12, front="none")
    return Look(
        skin=np.array(_SKIN[rng.integers(len(_SKIN))]) * rng.uniform(0.92, 1.05),
        hair=np.array(_HAIR[rng.integers(len(_HAIR))]) * rng.uniform(0.85, 1.15),
        shoe=rng.uniform(20, 235) * rng.uniform(0.75, 1.0, 3),
        seat=_random_colour(rng),
        hair_style=_pick(rng, _HAIR_STYLES),
        top=top,
        bottom=top if skirt and rng.random() < 0.35 else bottom,  # a dress
        sleeve=float(rng.choice([0.0, 0.55, 1.0, 2.0], p=[0.1, 0.38, 0.06, 0.46])),
        leg=float(
            rng.choice([0.7, 1.0]) if skirt else rng.choice([0.6, 0.9, 2], p=[0.2, 0.1, 0.7])
        ),
        skirt=skirt,
        girth=float(np.clip(rng.normal(1.0, 0.09), 0.84, 1.25)),
    )


def _pick(rng: np.random.Generator, odds: dict[str, float]) -> str:
    return str(rng.choice(list(odds), p=list(odds.values())))


def _random_cloth(rng: np.random.Generator, *, patterned: float, front: str) -> Cloth:
    pattern = rng.choice(["hoops", "stripes", "checks"]) if rng.random() < patterned else "plain"
    period = float(rng.uniform(0.05, 0.13))
    return Cloth(_random_colour(rng), _random_colour(rng), str(pattern), period, front)


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    """Any hue at any brightness, mostly of a middling saturation."""
    tint = rng.uniform(0, 1, 3)
    tint = (tint - tint.min()) / max(float(np.ptp(tint)), 1e-6)
    return rng.uniform(35, 235) * (1 - rng.beta(1.4, 1.8) * (1 - tint))


def cloth_paint(cloth: Cloth) -> Paint:
    """A sleeve, a trouser leg, a skirt."""
    if cloth.pattern == "plain":
        return cloth.colour
    return lambda surface: _pattern(cloth, surface)


def shirt_paint(cloth: Cloth, skin: np.ndarray) -> Paint:
    """The torso of a garment: its pattern, and a front that looks different from the back."""

    def paint(surface: Surface) -> np.ndarray:
        left, _, forward = surface.local
        edge, ahead = surface.detail * 0.17, forward > 0
        colour = _pattern(cloth, surface)
        if cloth.front in ("placket", "zip"):
            half = 0.13 if cloth.front == "placket" else 0.07
            line = np.clip((half - np.abs(left)) * edge + 0.5, 0, 1) * ahead * 0.8
            colour = _mixed(colour, cloth.colour * (0.6 if cloth.colour.mean() > 90 else 1.7), line)
        elif cloth.front == "badge":
            inside = np.maximum(np.abs(left) / 0.42, np.abs(surface.t - 0.66) / 0.12)
            badge = np.clip((1 - inside) * edge * 0.5 + 0.5, 0, 1) * ahead
            colour = _mixed(colour, cloth.second, badge)
        collar = np.clip(((surface.t - 0.87) * 3.4 - np.abs(left)) * edge + 0.5, 0, 1) * ahead
        return _mixed(colour, skin, collar)

    return paint


def _pattern(cloth: Cloth, surface: Surface) -> np.ndarray:
    colour = np.broadcast_to(cloth.colour, (len(surface.t), 3))
    softness = surface.detail * cloth.period / 4
    for kind, position in (
        ("hoops", surface.t * surface.length),
        ("stripes", surface.local[0] * 0.17),
    ):
        if cloth.pattern in (kind, "checks"):
            wave = _square_wave(position / cloth.period, softness)
            colour = _mixed(colour, cloth.second, wave * (0.5 if cloth.pattern == "checks" else 1))
    return colour


def _square_wave(phase: np.ndarray, softness: float) -> np.ndarray:
    """A wave of 0..1 whose edges blur where the stripes are as thin as pixels."""
    triangle = np.abs((phase % 1.0) * 4 - 2) - 1
    return np.clip(0.5 + triangle * min(max(softness, 0.25), 12.0), 0, 1)


def _mixed(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return first + weight[:, None].astype(np.float32) * (second - first)


def face_paint(look: Look) -> Paint:
    """Eyes, brows and a mouth, painted on the front of the unit sphere."""
    features = (
        # colour, distance from the middle, height, half width, half height, opacity
        (np.array((240.0, 238.0, 232.0)), 0.36, 0.08, 0.17, 0.10, 1.0),
        (np.array((38.0, 28.0, 26.0)), 0.35, 0.08, 0.10, 0.11, 1.0),
        (look.hair * 0.8, 0.37, 0.27, 0.22, 0.05, 0.8),
        (look.skin * (0.72, 0.42, 0.42), 0.0, -0.5, 0.26, 0.06, 0.9),
    )

    def paint(surface: Surface) -> np.ndarray:
        left, up, forward = surface.local
        aside, ahead = np.abs(left), forward > 0.2
        colour = np.broadcast_to(look.skin, (len(left), 3))
        if not ahead.any():
            return colour
        for tone, x, y, half_width, half_height, opacity in features:
            gap = 1 - np.hypot((aside - x) / half_width, (up - y) / half_height)
            cover = np.clip(gap * surface.detail * 0.012 + 0.5, 0, 1)
            colour = _mixed(colour, tone, cover * ahead * opacity)
        return colour

    return paint
