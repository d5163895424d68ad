"""Shaded solids drawn into an image with a depth buffer; edges are anti-aliased by their distance.

Everything is made of two solids: a strip, which is a bone whose cross-section varies along it
(limbs, torsos, shoes, poles), and an ellipsoid (heads, hair, foliage). For each pixel that it
covers, a solid has a surface normal for light, a depth for occlusion, and surface coordinates for
patterns and faces, so that clothes and faces turn with the body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NOBODY = -1
# Metres by which a part may lie behind the surface of its own body and still be drawn over it, so
# that a sleeve and its shirt do not compete for a pixel.
_BIAS = np.float32(0.012)
_END_CURVATURE = np.float32(0.45)  # < 1: limbs meet at their ends without a dark seam


@dataclass(frozen=True)
class Light:
    """One distant light.

    Attributes:
        direction: unit vector towards the light: x right, y up, z towards the viewer.
        ambient: share of the light that comes from all directions, 0..1.
    """

    direction: np.ndarray
    ambient: float = 0.5

    def shade(self, facing: np.ndarray, towards_viewer: np.ndarray) -> np.ndarray:
        """The brightness of surfaces: wrapped Lambert, with slightly darker rims.

        Args:
            facing: cosine between the normal and the light, any shape.
            towards_viewer: cosine between the normal and the line of sight, same shape.
        """
        lit = np.maximum(facing * 0.65 + 0.35, 0)
        rim = np.minimum(towards_viewer * 0.5 + 0.72, 1)
        return (lit * (1.05 * (1 - self.ambient)) + self.ambient) * rim


@dataclass(frozen=True)
class View:
    """Where a body stands in the image. Perspective is weak: a whole body has one scale.

    Attributes:
        scale: pixels per metre.
        origin: (x, y) of the body's origin in pixels, continuous coordinates.
        depth: in metres; larger is nearer. The depths of different bodies are comparable.
    """

    scale: float
    origin: tuple[float, float]
    depth: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Maps points [..., 3] in metres to (x, y) in pixels and depth in metres."""
        return np.asarray(points) * (self.scale, -self.scale, 1.0) + (*self.origin, self.depth)


@dataclass(frozen=True)
class Surface:
    """What a paint knows of the N pixels that a solid covers.

    Attributes:
        t: [N], the place along a strip, 0..1; 0 on an ellipsoid.
        length: the length of a strip in metres.
        local: [3, N], the unit normal in the solid's own frame (left, up, forward); on an
            ellipsoid, the point of the unit sphere.
        detail: pixels per metre, for the width of soft edges.
    """

    t: np.ndarray
    length: float
    local: np.ndarray
    detail: float


# One colour [3], or a function that gives colours [N, 3], in 0..255.
Paint = np.ndarray | Callable[[Surface], np.ndarray]


class Canvas:
    """An image that is being drawn.

    Attributes:
        rgb: float32 [H, W, 3], 0..255.
        depth: float32 [H, W], in metres; larger is nearer, and the background has -inf.
        owner: int16 [H, W], the number of the figure that is seen at a pixel, or NOBODY.
    """

    def __init__(self, background: np.ndarray) -> None:
        height, width = background.shape[:2]
        self.rgb = np.array(background, np.float32, order="C")
        self.depth = np.full((height, width), -np.inf, np.float32)
        self.owner = np.full((height, width), NOBODY, np.int16)
        self.x = np.arange(width, dtype=np.float32) + 0.5
        self.y = np.arange(height, dtype=np.float32)[:, None] + 0.5
        self._pixels = np.arange(height * width).reshape(height, width)

    def window(
        self, centre: tuple[float, float], reach: tuple[float, float]
    ) -> tuple[slice, slice] | None:
        """The rows and columns within `reach` (x, y) of a centre, with a margin of one pixel.

        Returns None where that is outside the image.
        """
        height, width = self.depth.shape
        x0, x1 = max(0, int(centre[0] - reach[0]) - 1), min(width, int(centre[0] + reach[0]) + 2)
        y0, y1 = max(0, int(centre[1] - reach[1]) - 1), min(height, int(centre[1] + reach[1]) + 2)
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def pixels(self, window: tuple[slice, slice], inside: np.ndarray) -> np.ndarray:
        """Flat indices in the image of the flat indices `inside` of a window."""
        return self._pixels[window].ravel()[inside]

    def in_front(self, pixels: np.ndarray, depth: np.ndarray, owner: int) -> np.ndarray:
        """Which of N places are in front of what is drawn already, as indices into `pixels`."""
        own = self.owner.ravel()[pixels] == owner
        return np.flatnonzero(depth + own * _BIAS > self.depth.ravel()[pixels])

    def blend(
        self,
        pixels: np.ndarray,
        alpha: np.ndarray,
        colour: np.ndarray,
        depth: np.ndarray,
        owner: int,
    ) -> None:
        """Blends N pixels over the image.

        Args:
            pixels: flat indices [N], each at most once.
            alpha: coverage [N], 0..1.
            colour: [N, 3], 0..255.
            depth: [N], in metres.
            owner: the number of the figure that is drawn.
        """
        rgb = self.rgb.reshape(-1, 3)
        under = rgb.take(pixels, 0)
        rgb[pixels] = under + alpha[:, None] * (colour - under)
        solid = alpha > 0.5
        pixels = pixels[solid]
        self.depth.ravel()[pixels] = depth[solid]
        self.owner.ravel()[pixels] = owner


@dataclass(frozen=True)
class Brush:
    """What all solids of one body have in common.

    Attributes:
        canvas: drawn into.
        view: where the body stands.
        light: lights it.
        owner: the number of the figure that the pixels belong to.
    """

    canvas: Canvas
    view: View
    light: Light
    owner: int = NOBODY


def draw_strip(
    brush: Brush,
    ends: np.ndarray,
    widths: Sequence[float],
    paint: Paint,
    *,
    frame: np.ndarray | None = None,
    flatness: float = 1.0,
    caps: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draws a solid along a bone.

    Args:
        brush: where to draw.
        ends: float [2, 3], the ends of the bone in metres.
        widths: half the width at two or more evenly spaced places along the bone, in metres.
        paint: colours the surface.
        frame: [3, 3], the columns are left, up and forward of the part. It is needed by paints
            that use `local`, and where `flatness` is not 1; without it, the directions of the
            image are taken.
        flatness: depth of the cross-section (along `forward`) divided by its width (along `left`).
        caps: how far the two ends bulge, in metres; None makes an end round.
    """
    canvas, view, owner = brush.canvas, brush.view, brush.owner
    (ax, ay, az), (bx, by, bz) = view.project(ends).tolist()
    length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
    # A bone that points at the viewer has no direction in the image, so any direction will do.
    length, ux, uy = (
        (length, (bx - ax) / length, (by - ay) / length) if length else (1e-3, 1.0, 0.0)
    )
    # Rows: a step along the bone, across it and towards the viewer, each in the part's frame.
    basis = np.array([(ux, -uy, 0), (-uy, -ux, 0), (0, 0, 1)])
    if frame is not None:
        basis = basis @ frame
    # The widths of the elliptic cross-section across the bone and along the line of sight.
    across, thick = 1.0, 1.0
    if flatness != 1:
        across, thick = np.hypot(basis[1:, 0], flatness * basis[1:, 2]).tolist()
    radii = np.asarray(widths, np.float32) * (view.scale * across)
    reach = float(radii.max())
    window = canvas.window(
        ((ax + bx) / 2, (ay + by) / 2), (abs(bx - ax) / 2 + reach, abs(by - ay) / 2 + reach)
    )
    if window is None:
        return

    x, y = canvas.x[window[1]] - ax, canvas.y[window[0]] - ay
    along = x * ux + y * uy
    side = y * ux - x * uy
    on_bone = np.minimum(np.maximum(along, 0), length)
    r = _evenly_interpolated(on_bone * ((len(radii) - 1) / length), radii)
    beyond = along - on_bone
    if caps != (None, None):
        first, last = (
            1.0 if cap is None else width / max(cap * view.scale, 0.5)
            for cap, width in zip(caps, radii[[0, -1]].tolist(), strict=True)
        )
        beyond *= np.where(beyond < 0, np.float32(first), np.float32(last))
    gap = r - np.sqrt(side * side + beyond * beyond)
    inside = np.flatnonzero(gap > -0.5)
    t, r, side, beyond = (a.ravel()[inside] for a in (on_bone, r, side, beyond))
    t, side, beyond = t / length, side / r, beyond / r
    up = np.sqrt(np.maximum(1 - side * side - beyond * beyond, 0))
    depth = t * (bz - az) + r * up * (thick / (across * view.scale)) + az
    pixels = canvas.pixels(window, inside)
    front = canvas.in_front(pixels, depth, owner)
    if not len(front):
        return

    t, side, beyond = t[front], side[front], beyond[front] * _END_CURVATURE
    up = np.sqrt(np.maximum(1 - side * side - beyond * beyond, 0))
    lx, ly, lz = brush.light.direction.tolist()
    facing = beyond * (lx * ux - ly * uy) - side * (lx * uy + ly * ux) + up * lz
    colour = paint
    if callable(paint):
        local = basis.T.astype(np.float32) @ np.stack([beyond, side, up])
        metres = float(np.linalg.norm(ends[1] - ends[0]))
        colour = paint(Surface(t, metres, local, view.scale))
    shaded = brush.light.shade(facing, up)[:, None] * np.asarray(colour, np.float32)
    alpha = np.minimum(gap.ravel()[inside[front]] + 0.5, 1)
    canvas.blend(pixels[front], alpha, shaded, depth[front], owner)


def _evenly_interpolated(position: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation at positions 0..len(values) - 1."""
    if len(values) == 2:
        return position * (values[1] - values[0]) + values[0]
    return np.interp(position, np.arange(len(values)), values).astype(np.float32)


def draw_ellipsoid(
    brush: Brush,
    centre: np.ndarray,
    frame: np.ndarray,
    sizes: Sequence[float],
    paint: Paint,
    *,
    keep: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Draws an ellipsoid, exactly as it is seen from far away.

    Args:
        brush: where to draw.
        centre: float [3], in metres.
        frame: [3, 3], the columns are left, up and forward.
        sizes: half axes along left, up and forward, in metres.
        paint: colours the surface.
        keep: maps points of the unit sphere [3, N] to opacities 0..1; 0 cuts the surface away.
    """
    canvas, view, owner = brush.canvas, brush.view, brush.owner
    cx, cy, cz = view.project(centre).tolist()
    reach = np.sqrt(((frame * sizes) ** 2).sum(1)) * view.scale
    window = canvas.window((cx, cy), (reach[0], reach[1]))
    if window is None:
        return
    x, y = (canvas.x[window[1]] - cx) / view.scale, (cy - canvas.y[window[0]]) / view.scale
    # A point p + z e_z of the surface has |M (p + z e_z)| = 1. This quadratic equation for z has a
    # solution where q(p) < 1; the outline is where q = 1.
    to_sphere = (frame / sizes).T
    m = to_sphere.astype(np.float32)
    gram = to_sphere.T @ to_sphere
    a, slope = gram[2, 2], gram[2, :2] / gram[2, 2]
    form = gram[:2, :2] - a * np.outer(slope, slope)
    q = x * x * form[0, 0] + x * y * (2 * form[0, 1]) + y * y * form[1, 1]
    gap = np.sqrt(x * x + y * y) * (1 / np.sqrt(np.maximum(q, 1e-6)) - 1) * view.scale
    inside = np.flatnonzero(gap > -0.5)
    row, column = np.divmod(inside, gap.shape[1])
    x, y = x[column], y[row, 0]
    z = np.sqrt(np.maximum(1 - q.ravel()[inside], 0) / a) - x * slope[0] - y * slope[1]
    depth = (z + np.float32(cz)).astype(np.float32)
    pixels = canvas.pixels(window, inside)
    front = canvas.in_front(pixels, depth, owner)
    local = m @ np.stack([x[front], y[front], z[front]]).astype(np.float32)
    local /= np.maximum(np.sqrt((local * local).sum(0)), 1e-6)
    alpha = np.minimum(gap.ravel()[inside[front]] + 0.5, 1)
    if keep is not None:
        alpha = alpha * keep(local)
        kept = np.flatnonzero(alpha)
        alpha, front, local = alpha[kept], front[kept], local[:, kept]
    if not len(front):
        return
    normals = m.T @ local
    normals /= np.sqrt((normals * normals).sum(0))
    facing = brush.light.direction.astype(np.float32) @ normals
    colour = paint
    if callable(paint):
        colour = paint(Surface(np.zeros_like(alpha), 0.0, local, view.scale))
    shaded = brush.light.shade(facing, normals[2])[:, None] * np.asarray(colour, np.float32)
    canvas.blend(pixels[front], alpha, shaded, depth[front], owner)


def soft_shadow(
    canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float], strength: float
) -> None:
    """Darkens the image by a soft ellipse (x, y in pixels)."""
    window = canvas.window(centre, radii)
    if window is None:
        return
    x, y = (
        (canvas.x[window[1]] - centre[0]) / radii[0],
        (canvas.y[window[0]] - centre[1]) / radii[1],
    )
    light = np.maximum(1 - x * x - y * y, 0)
    canvas.rgb[window] *= (1 - strength * light * np.sqrt(light))[..., None]
