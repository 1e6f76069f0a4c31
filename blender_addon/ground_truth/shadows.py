"""Where the subjects' shadow falls in each frame, at low resolution.

Only the brightest light that casts shadows is followed, and the ground is taken for a plane where rays of
that light come down behind the subjects: enough for a shadow that moves along, and cheap. Every vertex goes
to where its light ray meets the plane, and the triangles between are drawn as the camera sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import bpy
import numpy as np

from ..view.motion import cast_ray
from ..view.projection import Projector
from .light import Light, find_lights
from .triangles import Camera, draw_triangles
from .zbuffer import ZBuffer

RAYS = 48
"""Rays that look for the ground."""
ENOUGH = 8
FLAT = 0.03
"""What comes down closer to the plane than this fraction of the subjects' size lies on it."""
SHARE = 0.6
"""So many of the rays must agree on one plane."""
LOOKS = 3
"""How often the ground is looked for over a range: rays need the deformed subject sorted anew."""
SAMPLES = 2
"""Samples along each side of a cell."""
DENSE = 0.3
"""A surface with this many vertices for each sample of the box around its shadow covers it by them alone:
limbs fill a part of that box, and gaps of two samples are closed."""


def find_light(depsgraph: bpy.types.Depsgraph, subject: np.ndarray) -> Light | None:
    """The light that throws the most light on a place [3], of those that render and cast shadows."""
    found = [light for light in find_lights(depsgraph) if light.casts]
    return max(found, key=lambda light: float(light.received(subject[None])[0]), default=None)


class ShadowDrawer:
    """Draws the shadow maps of a range of `num_frames` frames: uint8, 0 for no shadow, 255 for full
    shadow."""

    def __init__(
        self, scene: bpy.types.Scene, is_subject: Callable[[bpy.types.Object], bool], num_frames: int
    ):
        self._scene, self._is_subject = scene, is_subject
        self._interval = max(1, num_frames // LOOKS)
        self._count = 0
        self._plane: np.ndarray | None = None

    def draw(
        self, depsgraph: bpy.types.Depsgraph, projector: Projector, subjects, stride: int
    ) -> Iterator[None]:
        """The shadow map of the current frame, seen through a one-frame projector at 1/stride of its size.
        What is needed of the scene is looked at at once; the generator that comes back draws it, pausing on
        the way, and returns [height / stride, width / stride] (rounded up). `subjects` are triangles [T, 3]
        and points [V, 3] in world space of what casts it."""
        fit = projector.fit
        height, width = -(-fit.height // stride), -(-fit.width // stride)
        light = None
        if subjects:
            everything = np.concatenate([points for _, points in subjects])
            light = find_light(depsgraph, (everything.min(axis=0) + everything.max(axis=0)) / 2)
            if light is not None and self._count % self._interval == 0:
                self._plane = self._find_ground(depsgraph, light, everything)
        self._count += 1
        camera = Camera.of(projector, SAMPLES / stride)
        return self._paint(camera, light, self._plane, subjects, width, height)

    @staticmethod
    def _paint(camera: Camera, light, plane, subjects, width: int, height: int) -> Iterator[None]:
        yield
        if light is None or plane is None:
            return np.zeros((height, width), np.uint8)
        fine = height * SAMPLES, width * SAMPLES
        buffer, blur, covered = None, 0.0, np.zeros(fine, bool)
        for triangles, points in subjects:
            fallen, away = _fall(points, light, plane)
            seen = camera.see(fallen.astype(np.float32), np.eye(4))
            blur = max(blur, _penumbra(camera, light, fallen[::16], away[::16]))
            known = np.isfinite(away)
            cells = seen.corners[known & (seen.height >= 0), :2]
            cells = cells[(cells >= 0).all(axis=1) & (cells < fine[::-1]).all(axis=1)].astype(np.int64)
            if not len(cells):
                continue
            if len(cells) >= DENSE * np.prod(np.ptp(cells, axis=0) + 1):
                covered |= _dots(cells, *fine)
            else:
                buffer = buffer or ZBuffer(*fine[::-1])
                if not known.all():
                    triangles = triangles[known[triangles].all(axis=1)]
                yield from draw_triangles(buffer, seen, triangles, 0)
            yield
        if buffer is not None:
            covered |= (buffer.triangle >= 0).reshape(fine)
        rows = covered.view(np.uint8).reshape(height, SAMPLES, -1).sum(axis=1, dtype=np.uint8)
        mask = rows.reshape(height, width, SAMPLES).sum(axis=2, dtype=np.float32) / SAMPLES**2
        return np.rint(255 * _soften(mask, blur / SAMPLES)).astype(np.uint8)

    def _find_ground(self, depsgraph, light: Light, points: np.ndarray) -> np.ndarray | None:
        """[4] the plane n x + d = 0, n to the light's side, on which most rays past the subjects come down;
        None when they agree on none."""
        size = float(np.linalg.norm(np.ptp(points, axis=0)))
        chosen = points[np.linspace(0, len(points) - 1, min(RAYS, len(points))).astype(int)].astype(
            np.float64
        )
        hits = []
        for start, towards in zip(chosen, light.towards(chosen)):
            hit = cast_ray(self._scene, depsgraph, start, -towards, self._is_subject)
            if hit is not None:
                hits.append(hit)
        if len(hits) < ENOUGH:
            return None
        hits = kept = np.array(hits)
        for _ in range(3):
            centre = kept.mean(axis=0)
            normal = np.linalg.svd(kept - centre, full_matrices=False)[2][-1]
            off = np.abs((hits - centre) @ normal)
            kept = hits[off <= max(2 * float(np.median(off)), FLAT * size / 4)]
            if len(kept) < ENOUGH:
                return None
        if (off < FLAT * size).mean() < SHARE:
            return None
        normal = normal if normal @ light.towards(centre[None])[0] > 0 else -normal
        if normal @ light.towards(centre[None])[0] < 0.02:  # it only grazes the ground
            return None
        return np.append(normal, -normal @ centre)


def _dots(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """[height, width] bool: the cells (x, y) [n] and those enclosed between them."""
    column, row = cells.T
    dots = np.bincount(row * width + column, minlength=width * height).reshape(height, width) > 0
    grown = _grow(np.pad(dots, 1))
    return ~_grow(~grown)[1:-1, 1:-1] | dots


def _grow(mask: np.ndarray) -> np.ndarray:
    """A mask with the cells beside it."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    out = wide.copy()
    out[:, 1:] |= wide[:, :-1]
    out[:, :-1] |= wide[:, 1:]
    return out


def _fall(points: np.ndarray, light: Light, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[V, 3] where the light's rays past points meet a plane, and how far behind the points that is;
    infinite where they never do."""
    if light.place[3] == 0:  # one direction for all, one product
        towards = light.towards(points[:1].astype(np.float64))
        slope = float(towards[0] @ plane[:3])
        away = ((points @ plane[:3].astype(points.dtype)) + points.dtype.type(plane[3])) / points.dtype.type(
            slope
        )
        return points - away[:, None] * towards.astype(points.dtype), away
    towards = light.towards(points.astype(np.float64))
    height = points @ plane[:3] + plane[3]
    slope = towards @ plane[:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.where(slope > 1e-3, height / slope, np.inf)
    return points - towards * np.where(np.isfinite(away), away, 0.0)[:, None], away


def _penumbra(camera: Camera, light: Light, fallen: np.ndarray, away: np.ndarray) -> float:
    """How wide the shadow's edge is in samples of the grid, on the whole."""
    known = np.isfinite(away)
    if not known.any():
        return 0.0
    distance, place = float(np.median(np.maximum(away[known], 0))), np.median(fallen[known], axis=0)
    if light.place[3] == 0:
        width = light.size * distance
    else:
        width = light.size * distance / max(float(np.linalg.norm(light.place[:3] - place)), 1e-6)
    return width * camera.scale_at(place)


def _soften(mask: np.ndarray, width: float) -> np.ndarray:
    """Blur by a kernel about as wide as the light's edge, a cell at least."""
    sigma = max(0.35 * width, 0.4)
    reach = min(int(math.ceil(2.5 * sigma)), 24)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(mask, reach, mode="edge")
    rows = sum(k * padded[i : i + mask.shape[0]] for i, k in enumerate(kernel))
    return sum(k * rows[:, i : i + mask.shape[1]] for i, k in enumerate(kernel))
