"""Shaded solids drawn into a picture with a depth buffer, each edge anti-aliased by its distance.

Two solids make everything: a strip (a bone with a cross-section that varies along it: limbs,
torsos, shoes, poles) and an ellipsoid (heads, hair, foliage). Each computes, for the pixels it
covers, a surface normal (for light), a depth (for occlusion) and its own surface coordinates (for
patterns and faces), so that clothes and faces turn with the body.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NOBODY = -1
_BIAS = 0.012  # metres by which a part may lie behind the same person's parts and yet cover them


@dataclass(frozen=True)
class Light:
    """One distant light.

    Attributes:
        direction: unit vector towards it: x right, y up, z towards the viewer.
        ambient: share of the light that comes from everywhere, 0..1.
    """

    direction: np.ndarray
    ambient: float = 0.5

    def shade(self, normals: np.ndarray) -> np.ndarray:
        """Brightness [N] of surfaces with unit normals [3, N]: wrapped Lambert, darker rims."""
        facing = np.tensordot(self.direction.astype(np.float32), normals, 1)
        lit = np.maximum(0.0, 0.35 + 0.65 * facing)
        rim = 0.72 + 0.28 * np.minimum(1.0, normals[2] * 1.8)
        return (self.ambient + 1.05 * (1 - self.ambient) * lit) * rim


@dataclass(frozen=True)
class View:
    """Where a body stands in the picture: weak perspective, one scale for a whole body.

    Attributes:
        scale: pixels per metre.
        origin: pixel (x, y) of the body's origin, continuous coordinates.
        depth: metres, larger is nearer; depths of different bodies compare.
    """

    scale: float
    origin: tuple[float, float]
    depth: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Maps points [..., 3] in metres to (x, y) in pixels and depth in metres."""
        return np.asarray(points) * (self.scale, -self.scale, 1.0) + (*self.origin, self.depth)


@dataclass(frozen=True)
class Surface:
    """What a painter sees of the N pixels that a solid covers.

    Attributes:
        along: metres from the strip's first end (ellipsoids: 0), [N].
        t: the same as a fraction of the strip's length, 0..1.
        local: unit normal in the solid's own frame (left, up, forward), [3, N].
        detail: pixels per metre, for the width of soft edges.
    """

    along: np.ndarray
    t: np.ndarray
    local: np.ndarray
    detail: float


# Gives colours float32 [N, 3] (0..255), or one colour [3].
Paint = Callable[[Surface], np.ndarray]


class Canvas:
    """A picture in the making.

    Attributes:
        rgb: float32 [H, W, 3], 0..255.
        depth: float32 [H, W], metres, larger is nearer, -inf on the background.
        owner: int16 [H, W], who is seen at a pixel; NOBODY on the background.
    """

    def __init__(self, background: np.ndarray) -> None:
        height, width = background.shape[:2]
        self.rgb = background.astype(np.float32)
        self.depth = np.full((height, width), -np.inf, np.float32)
        self.owner = np.full((height, width), NOBODY, np.int16)
        self._x = np.arange(width, dtype=np.float32) + 0.5
        self._y = np.arange(height, dtype=np.float32)[:, None] + 0.5

    def window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns of the pixels between two corners (x, y), with a margin of one."""
        height, width = self.depth.shape
        x0, y0 = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
        x1, y1 = min(width, int(high[0]) + 2), min(height, int(high[1]) + 2)
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def grid(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """x [1, w] and y [h, 1] of the pixel centres of a window."""
        return self._x[None, window[1]], self._y[window[0]]

    def blend(
        self,
        window: tuple[slice, slice],
        inside: tuple[np.ndarray, ...],
        alpha: np.ndarray,
        colour: np.ndarray,
        depth: np.ndarray,
        owner: int,
    ) -> None:
        """Puts N pixels over the picture where nothing nearer stands there.

        Args:
            window: the window that `inside` counts from.
            inside: rows and columns of the N pixels.
            alpha: coverage [N], 0..1.
            colour: [N, 3].
            depth: [N], metres.
            owner: who is drawn.
        """
        rows, columns = inside[0] + window[0].start, inside[1] + window[1].start
        before = self.depth[rows, columns]
        own = self.owner[rows, columns] == owner
        seen = depth > before - np.where(own, np.float32(_BIAS), np.float32(0))
        weight = (alpha * seen)[:, None]
        under = self.rgb[rows, columns]
        self.rgb[rows, columns] = under + weight * (colour - under)
        solid = seen & (alpha > 0.5)
        rows, columns = rows[solid], columns[solid]
        self.depth[rows, columns] = depth[solid]
        self.owner[rows, columns] = owner


def draw_strip(
    canvas: Canvas,
    view: View,
    ends: np.ndarray,
    widths: np.ndarray,
    paint: Paint,
    light: Light,
    *,
    owner: int = NOBODY,
    frame: np.ndarray | None = None,
    flatness: float = 1.0,
    cap: float | None = None,
) -> None:
    """Draws a solid along a bone.

    Args:
        canvas: drawn into.
        view: where the body stands.
        ends: float [2, 3], the bone in metres.
        widths: float [S], half the width across at S >= 2 evenly spaced places of the bone, metres.
        paint: colours the surface.
        light: lights it.
        owner: whom the pixels belong to.
        frame: columns left, up, forward of the part [3, 3]; needed by paints that look at `local`
            and where `flatness` is not 1.
        flatness: depth of the cross-section (along `forward`) over its width (along `left`).
        cap: length of the rounded ends in metres; None makes them round.
    """
    (ax, ay, az), (bx, by, bz) = view.project(ends)
    length = max(float(np.hypot(bx - ax, by - ay)), 1e-3)
    ux, uy = (bx - ax) / length, (by - ay) / length
    # The ellipse of the cross-section, as seen across the projected bone and towards the viewer.
    across_factor = thick_factor = 1.0
    if frame is not None and flatness != 1.0:
        across = frame.T @ (-uy, -ux, 0.0)
        across_factor = float(np.hypot(across[0], flatness * across[2]))
        thick_factor = float(np.hypot(frame[2, 0], flatness * frame[2, 2]))
    radii = (np.asarray(widths) * (view.scale * across_factor)).astype(np.float32)
    caps = radii[[0, -1]] if cap is None else np.full(2, max(cap * view.scale, 0.5), np.float32)
    reach = radii.max()
    window = canvas.window(
        np.array([min(ax, bx), min(ay, by)]) - reach, np.array([max(ax, bx), max(ay, by)]) + reach
    )
    if window is None:
        return
    x, y = canvas.grid(window)
    x, y = x - np.float32(ax), y - np.float32(ay)
    s = x * np.float32(ux) + y * np.float32(uy)
    w = y * np.float32(ux) - x * np.float32(uy)
    clipped = np.clip(s, 0, np.float32(length))
    r = _evenly_interpolated(clipped * np.float32((len(radii) - 1) / length), radii)
    excess = s - clipped
    excess *= np.where(excess < 0, r / caps[0], r / caps[1])
    distance = np.sqrt(w * w + excess * excess)
    inside = np.nonzero(distance < r + 0.5)
    if not len(inside[0]):
        return
    r, w, excess, t = r[inside], w[inside], excess[inside], clipped[inside] / np.float32(length)
    alpha = np.clip(r - distance[inside] + 0.5, 0, 1)
    w, excess = w / r, excess / r
    z = np.sqrt(np.maximum(0, 1 - w * w - excess * excess))
    normals = np.stack([ux * excess - uy * w, -(uy * excess + ux * w), z]).astype(np.float32)
    thickness = r * np.float32(thick_factor / (across_factor * view.scale))
    surface = Surface(
        along=t * np.float32(np.linalg.norm(ends[1] - ends[0])),
        t=t,
        local=normals if frame is None else frame.T.astype(np.float32) @ normals,
        detail=view.scale,
    )
    colour = light.shade(normals)[:, None] * paint(surface)
    canvas.blend(
        window, inside, alpha, colour, np.float32(az) + t * (bz - az) + thickness * z, owner
    )


def _evenly_interpolated(position: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation at positions 0..len(values) - 1."""
    if len(values) == 2:
        return values[0] + position * (values[1] - values[0])
    return np.interp(position, np.arange(len(values)), values).astype(np.float32)


def draw_ellipsoid(
    canvas: Canvas,
    view: View,
    centre: np.ndarray,
    frame: np.ndarray,
    sizes: tuple[float, float, float],
    paint: Paint,
    light: Light,
    *,
    owner: int = NOBODY,
    keep: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Draws an ellipsoid, exactly as seen from far away.

    Args:
        canvas: drawn into.
        view: where the body stands.
        centre: float [3], metres.
        frame: columns left, up, forward [3, 3].
        sizes: half axes along left, up and forward, metres.
        paint: colours the surface; `local` holds the point on the unit sphere.
        light: lights it.
        owner: whom the pixels belong to.
        keep: gives 0..1 for points on the unit sphere [3, N]; 0 cuts the surface away.
    """
    cx, cy, cz = view.project(centre)
    to_sphere = (frame / sizes).T  # metres -> unit sphere
    reach = np.sqrt(((frame * sizes) ** 2).sum(1))[:2] * view.scale
    window = canvas.window(np.array([cx, cy]) - reach, np.array([cx, cy]) + reach)
    if window is None:
        return
    x, y = canvas.grid(window)
    x, y = (
        (x - np.float32(cx)) / np.float32(view.scale),
        (np.float32(cy) - y) / np.float32(view.scale),
    )
    # |M (p + z e_z)|^2 = 1 has the discriminant 1 - q(p); q = 1 is the outline.
    m = to_sphere.astype(np.float32)
    a = float(m[:, 2] @ m[:, 2])
    planar = m[:, :2] - np.outer(m[:, 2], m[:, 2] @ m[:, :2]) / a
    form = planar.T @ planar
    q = form[0, 0] * x * x + 2 * form[0, 1] * x * y + form[1, 1] * y * y
    distance = np.sqrt(x * x + y * y) * (1 - 1 / np.sqrt(np.maximum(q, 1e-6))) * view.scale
    inside = np.nonzero(distance < 0.5)
    if not len(inside[0]):
        return
    alpha = np.clip(0.5 - distance[inside], 0, 1)
    x, y = x[0, inside[1]], y[inside[0], 0]
    z = (np.sqrt(np.maximum(0, 1 - q[inside])) / np.sqrt(a)) - (
        (m[:, 2] @ m[:, 0]) * x + (m[:, 2] @ m[:, 1]) * y
    ) / a
    local = m @ np.stack([x, y, z])
    local /= np.maximum(np.sqrt((local * local).sum(0)), 1e-6)
    normals = m.T @ local
    normals /= np.sqrt((normals * normals).sum(0))
    if keep is not None:
        alpha = alpha * keep(local)
    zero = np.zeros_like(x)
    colour = light.shade(normals)[:, None] * paint(Surface(zero, zero, local, view.scale))
    canvas.blend(window, inside, alpha, colour, np.float32(cz) + z, owner)


def soft_shadow(
    canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float], strength: float
) -> None:
    """Darkens the picture by a soft ellipse (x, y in pixels)."""
    low, high = np.array(centre) - radii, np.array(centre) + radii
    window = canvas.window(low, high)
    if window is None:
        return
    x, y = canvas.grid(window)
    d = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    canvas.rgb[window] *= 1 - strength * (np.maximum(0, 1 - d) ** 1.5)[..., None]
