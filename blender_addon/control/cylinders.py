"""Limbs as shaded cylinders in space, as SCAIL renders them.

Its renderer, for people in millimetres: round ends, a radius of 28, one light along the camera's axis
(ambient 0.3, diffuse 0.7), a highlight of 0.5 at a shininess of 32, all darker with depth, from full at the
nearest joint of the clip to nothing 6 metres behind the farthest. Here lengths are fractions of all limbs of
a subject together, 5.1 metres in a person of 1.7, so that it goes for a fox and for a crane.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..view.projection import Projector

RADIUS = 0.028 / 5.1
BEHIND = 6.0 / 5.1
AMBIENT, DIFFUSE, HIGHLIGHT, SHININESS = 0.3, 0.7, 0.5, 32


def soften(colours: np.ndarray) -> np.ndarray:
    """[N, 3] float from RGB of 0 to 255, as SCAIL takes its colours."""
    return np.asarray(colours, np.float64) / 300 + 0.15


def draw_cylinders(
    projector: Projector,
    ends: np.ndarray,
    radii: np.ndarray,
    colours: np.ndarray,
    depths: tuple[float, float],
) -> Iterator[None]:
    """Cylinders seen through a one-frame projector, pausing after each; the generator's return value is
    [H, W, 3] uint8.

    Args:
        ends: [N, 2, 3] in world space.
        radii: [N] in scene units.
        colours: [N, 3] float, 0 to 1.
        depths: where the light is full, and where it is gone.
    """
    fit, lens = projector.fit, projector.lenses[0]
    picture = np.zeros((fit.height, fit.width, 3), np.uint8)
    nearest = np.full((fit.height, fit.width), np.inf)
    view = lens.view
    placed = ends @ view[:3, :3].T + view[:3, 3]  # x right, y up, looking down -z
    # Pixels of a plane one unit ahead, or of a parallel projection anywhere.
    columns = [0, 1, 2] if lens.perspective else [0, 1, 3]
    to_camera = np.linalg.inv(projector.pixels[0] @ np.linalg.inv(view)[:, columns])
    for (start, end), radius, colour in zip(placed, radii, colours, strict=True):
        window = _window(projector, lens, start, end, radius)
        if window is not None:
            left, top, right, bottom = window
            x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
            rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ to_camera.T
            origin, way = _rays(rays, lens.perspective)
            distance, normal = _meet(origin, way, start, end, radius)
            depth = -(origin + way * distance[..., None])[..., 2]
            depth[~np.isfinite(distance)] = np.inf
            seen = (depth < nearest[top:bottom, left:right]) & (depth >= lens.near)
            nearest[top:bottom, left:right][seen] = depth[seen]
            picture[top:bottom, left:right][seen] = _shade(
                normal[seen], np.broadcast_to(way, normal.shape)[seen], depth[seen], colour, depths
            )
        yield
    return picture


def _window(projector, lens, start, end, radius) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the pixels that a cylinder may cover."""
    fit = projector.fit
    near = lens.near if lens.perspective else -np.inf
    corners = np.array(
        [
            point + radius * np.array(step)
            for point in (start, end)
            for step in np.stack(np.meshgrid(*[(-1.5, 1.5)] * 3), axis=-1).reshape(-1, 3)
        ]
    )
    if (-corners[:, 2] <= near).all():
        return None
    if (-corners[:, 2] <= max(near, 1e-6)).any() and lens.perspective:
        return 0, 0, fit.width, fit.height
    back = np.linalg.inv(lens.view)
    seen = np.column_stack([corners, np.ones(len(corners))]) @ (projector.pixels[0] @ back).T
    flat = seen[:, :2] / seen[:, 2:]
    (left, top), (right, bottom) = np.floor(flat.min(axis=0)), np.ceil(flat.max(axis=0))
    left, right = np.clip([left, right], 0, fit.width).astype(int)
    top, bottom = np.clip([top, bottom], 0, fit.height).astype(int)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _rays(rays: np.ndarray, perspective: bool) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions in camera space."""
    if perspective:
        return np.zeros(3), rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    origin = np.concatenate([rays[..., :2] / rays[..., 2:], np.zeros_like(rays[..., :1])], axis=-1)
    return origin, np.array([0.0, 0.0, -1.0])


def _meet(origin, way, start, end, radius) -> tuple[np.ndarray, np.ndarray]:
    """How far along rays the surface of a cylinder with round ends lies, infinite where it is missed, and the
    normals there."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    axis = axis / length if length > 0 else np.array([0.0, 0.0, 1.0])
    out = origin - start
    across_way, across = way - (way @ axis)[..., None] * axis, out - (out @ axis)[..., None] * axis
    distance = _first_root(
        (across_way**2).sum(-1), (across_way * across).sum(-1), (across**2).sum(-1) - radius**2
    )
    with np.errstate(invalid="ignore"):
        along = out @ axis + distance * (way @ axis)
    distance = np.where((along >= 0) & (along <= length), distance, np.inf)
    for centre in (start, end):
        from_centre = origin - centre
        ball = _first_root(
            np.ones(np.broadcast_shapes(way.shape, from_centre.shape)[:-1]),
            (way * from_centre).sum(-1),
            (from_centre**2).sum(-1) - radius**2,
        )
        distance = np.minimum(distance, ball)
    reached = origin + way * np.where(np.isfinite(distance), distance, 0.0)[..., None]
    along = np.clip((reached - start) @ axis, 0, length)
    return distance, (reached - start - along[..., None] * axis) / radius


def _first_root(a, half_b, c) -> np.ndarray:
    """The smaller root of a t^2 + 2 half_b t + c, infinite where there is none ahead."""
    root = half_b**2 - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-half_b - np.sqrt(root)) / a
    return np.where((root >= 0) & (t > 0), t, np.inf)


def _shade(normal, way, depth, colour, depths) -> np.ndarray:
    light = np.array([0.0, 0.0, 1.0])  # toward the camera
    half = light - way
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    diffuse = np.maximum(normal @ light, 0)
    highlight = HIGHLIGHT * np.maximum((normal * half).sum(-1), 0) ** SHININESS
    dim = np.clip(1 - (depth - depths[0]) / max(depths[1], 1e-9), 0, 1)
    lit = colour * (AMBIENT + DIFFUSE * diffuse)[:, None] + highlight[:, None]
    return (np.clip(lit * dim[:, None], 0, 1) * 255).astype(np.uint8)
