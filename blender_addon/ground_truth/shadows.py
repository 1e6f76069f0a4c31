"""Where the subjects' shadows fall in each frame, at low resolution.

The lights that matter and cast shadows are followed, each by itself, and the ground is taken for a plane
where rays of a light come down behind the subjects: enough for a shadow that moves along, and cheap. Every
vertex goes to where its light ray meets the plane, and the triangles between are drawn as the camera sees
them. Each shadow withholds its own light alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ..view.projection import Projector
from ..view.rays import cast_rays
from .light import Light
from .looks import Look
from .triangles import Camera, Seen, draw_triangles, see, stack_triangles
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


REACH = 24
"""Cells that an edge is blurred at most, to either side."""
LIGHTS = 4
"""Lights that are followed, the brightest first."""
DIM = 0.05
"""One that gives the subjects less than this fraction of what they get of all such lights is left out."""


@dataclass(frozen=True, eq=False)
class ShadowLook:
    """What the shadows of one frame need beside a `Look`: the `camera` on the shadow map's grid of `shape`
    (rows, columns), and for each of the look's lights the ground's plane [4], None where its shadow is not
    followed."""

    camera: Camera
    shape: tuple[int, int]
    planes: tuple[np.ndarray | None, ...]


class ShadowDrawer:
    """Draws the shadow maps of a range of `num_frames` frames: uint8, 0 where all the light of the lights
    that cast shadows arrives, 255 where none does."""

    def __init__(
        self, scene: bpy.types.Scene, is_subject: Callable[[bpy.types.Object], bool], num_frames: int
    ):
        self._scene, self._is_subject = scene, is_subject
        self._interval = max(1, num_frames // LOOKS)
        self._grounds: dict[int, tuple[int, np.ndarray | None]] = {}
        self._count = 0

    def look(
        self, depsgraph: bpy.types.Depsgraph, projector: Projector, look: Look, stride: int
    ) -> ShadowLook:
        """What is needed of the evaluated scene for a shadow map of [height / stride, width / stride] cells
        (rounded up), as a one-frame projector sees it; `look` has the frame's subjects and lights."""
        fit = projector.fit
        shape = -(-fit.height // stride), -(-fit.width // stride)
        lights = look.lighting.lights
        planes: list[np.ndarray | None] = [None] * len(lights)
        subjects = [chosen for chosen in look.subjects if len(chosen.points)]
        if subjects:
            lows, highs = zip(*(chosen.bounds for chosen in subjects))
            middle = (np.min(lows, axis=0) + np.max(highs, axis=0)) / 2
            for number in _that_matter(lights, middle):
                asked, plane = self._grounds.get(number, (-1, None))
                if asked < 0 or self._count - asked >= self._interval:
                    points = np.concatenate([chosen.points for chosen in subjects])
                    plane = self._find_ground(depsgraph, lights[number], points)
                    self._grounds[number] = self._count, plane
                planes[number] = plane
        self._count += 1
        return ShadowLook(Camera.of(projector, SAMPLES / stride), shape, tuple(planes))

    @staticmethod
    def draw(looks: Sequence[Look], shadows: Sequence[ShadowLook]) -> Iterator[None]:
        """The shadow maps [F, rows, columns] of frames of one make, pausing on the way, as the generator's
        return value."""
        yield
        height, width = shadows[0].shape
        count = len(looks)
        withheld = np.zeros((count, height, width), np.float32)
        subjects = [one for one in zip(*(look.subjects for look in looks)) if one[0].throws_shadow]
        lights = [Light.of_frames(frames) for frames in zip(*(look.lighting.lights for look in looks))]
        casting = [light for light in lights if light.casts]
        for number, light in enumerate(lights):
            frames = np.flatnonzero([shadow.planes[number] is not None for shadow in shadows])
            if not len(frames):
                continue
            planes = np.stack([shadows[frame].planes[number] for frame in frames])
            cameras = [shadows[frame].camera for frame in frames]
            some = [(one[0].triangles, np.stack([one[frame].points for frame in frames])) for one in subjects]
            mask = yield from _draw_one(cameras, light.at(frames), planes, some, height, width)
            if len(casting) > 1:
                others = [other.at(frames) for other in casting]
                _weigh(mask, cameras, light.at(frames), others, planes)
            withheld[frames] += mask
            yield
        return np.rint(255 * np.minimum(withheld, 1)).astype(np.uint8)

    def _find_ground(self, depsgraph, light: Light, points: np.ndarray) -> np.ndarray | None:
        """[4] the plane n x + d = 0, n to the light's side, on which most rays past the subjects come down;
        None when they agree on none."""
        size = float(np.linalg.norm(np.ptp(points, axis=0)))
        chosen = points[np.linspace(0, len(points) - 1, min(RAYS, len(points))).astype(int)].astype(
            np.float64
        )
        ways = -light.towards(chosen)
        found = cast_rays(self._scene, depsgraph, chosen, ways, self._is_subject)
        hits = [hit.place for hit in found if hit is not None]
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


def _that_matter(lights: Sequence[Light], place: np.ndarray) -> list[int]:
    """Which lights throw shadows of a subject at a place [3] that can be told."""
    given = [float(light.received(place[None])[0]) if light.casts else 0.0 for light in lights]
    brightest = sorted((k for k, much in enumerate(given) if much > 0), key=lambda k: -given[k])
    return [k for k in brightest[:LIGHTS] if given[k] >= DIM * sum(given)]


def _draw_one(
    cameras: Sequence[Camera], light: Light, planes: np.ndarray, subjects, height: int, width: int
) -> Iterator[None]:
    """[F, height, width] float32, 0 to 1, how much of a light the subjects hold back in F frames, pausing on
    the way, as the generator's return value. The ground is `planes` [F, 4]; `subjects` are triangles [T, 3]
    and points [F, V, 3]."""
    count, fine = len(cameras), (height * SAMPLES, width * SAMPLES)
    buffer, blur, covered = None, np.zeros(count), np.zeros((count, *fine), bool)
    for triangles, points in subjects:
        fallen, away = _fall(points, light, planes)
        seen = see(cameras, list(fallen.astype(np.float32)))
        blur = np.maximum(blur, _penumbra(cameras, light, fallen[:, ::16], away[:, ::16]))
        known = np.isfinite(away)
        inside, dense = _cells(seen, known, *fine)
        if dense.any():
            covered |= _dots(seen, inside & dense[:, None], *fine)
        thin = np.flatnonzero(inside.any(axis=1) & ~dense)
        if len(thin):
            buffer = buffer or ZBuffer(*fine[::-1], count)
            stacked, layers = stack_triangles([triangles] * count, [points.shape[1]] * count)
            drawn = np.isin(layers, thin) & known.ravel()[stacked].all(axis=1)
            stacked, layers = stacked[drawn], layers[drawn]
            yield from draw_triangles(buffer, seen, stacked, np.zeros(len(stacked), np.int32), layers)
        yield
    if buffer is not None:
        covered |= (buffer.triangle >= 0).reshape(covered.shape)
    # Only the part of the picture in which shadows fall is looked at.
    mask = np.zeros((count, height, width), np.float32)
    rows, columns = (np.flatnonzero(covered.any(axis=axes)) // SAMPLES for axes in ((0, 2), (0, 1)))
    if len(rows):
        sigma = np.maximum(0.35 * blur / SAMPLES, 0.4)
        reach = np.minimum(np.ceil(2.5 * sigma).astype(int), REACH)
        wide = int(reach.max()) + 1
        top, left = max(rows[0] - wide, 0), max(columns[0] - wide, 0)
        bottom, right = min(rows[-1] + 1 + wide, height), min(columns[-1] + 1 + wide, width)
        piece = covered[:, top * SAMPLES : bottom * SAMPLES, left * SAMPLES : right * SAMPLES]
        piece = piece.reshape(count, bottom - top, SAMPLES, right - left, SAMPLES)
        share = piece.sum(axis=(2, 4), dtype=np.float32) / SAMPLES**2
        yield
        mask[:, top:bottom, left:right] = _soften(share, sigma, reach)
    return mask


def _cells(seen: Seen, known: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """[F, V] bool, which vertices fall within the picture, and [F] bool, in which frames they lie so close
    that they cover the shadow by themselves."""
    shape = known.shape
    x, y = seen.corners[:, 0].reshape(shape), seen.corners[:, 1].reshape(shape)
    inside = known & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    if not seen.whole:
        inside &= seen.height.reshape(shape) >= 0
    room = np.ones(shape[0])
    for along in (x, y):
        least = np.floor(np.where(inside, along, np.inf).min(axis=1))
        most = np.floor(np.where(inside, along, -np.inf).max(axis=1))
        room *= most - least + 1
    many = inside.sum(axis=1)
    return inside, (many > 0) & (many >= DENSE * room)


def _dots(seen: Seen, chosen: np.ndarray, height: int, width: int) -> np.ndarray:
    """[F, height, width] bool: the cells of chosen vertices [F, V] and those enclosed between them."""
    layer = np.nonzero(chosen)[0]
    column, row = seen.corners[chosen.ravel(), :2].astype(np.int64).T
    dots = np.zeros((len(chosen), height, width), bool)
    dots.reshape(-1)[(layer * height + row) * width + column] = True
    if not len(layer):
        return dots
    low, high = max(row.min() - 1, 0), row.max() + 2
    left, right = max(column.min() - 1, 0), column.max() + 2
    part = dots[:, low:high, left:right]
    grown = _grow(np.pad(part, ((0, 0), (1, 1), (1, 1))))
    part |= ~_grow(~grown)[:, 1:-1, 1:-1]
    return dots


def _grow(mask: np.ndarray) -> np.ndarray:
    """Masks [F, h, w] with the cells beside them."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    out = wide.copy()
    out[:, :, 1:] |= wide[:, :, :-1]
    out[:, :, :-1] |= wide[:, :, 1:]
    return out


def _fall(points: np.ndarray, light: Light, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[F, V, 3] where the light's rays past points meet planes [F, 4], and how far behind the points that
    is; infinite where they never do."""
    if light.kind == "SUN":  # one direction for all
        way = light.place[:, :3]
        slope = (way * planes[:, :3]).sum(axis=1).astype(points.dtype)[:, None]
        planes = planes.astype(points.dtype)
        away = ((points @ planes[:, :3, None])[..., 0] + planes[:, 3:]) / slope
        return points - away[..., None] * way[:, None].astype(points.dtype), away
    points = points.astype(np.float64)
    way = light.place[:, None, :3] - points
    way /= np.maximum(np.linalg.norm(way, axis=2, keepdims=True), 1e-12)
    height = (points @ planes[:, :3, None])[..., 0] + planes[:, 3:]
    slope = (way @ planes[:, :3, None])[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        away = np.where(slope > 1e-3, height / slope, np.inf)
    return points - way * np.where(np.isfinite(away), away, 0.0)[..., None], away


def _penumbra(cameras: Sequence[Camera], light: Light, fallen: np.ndarray, away: np.ndarray) -> np.ndarray:
    """[F] how wide the shadow's edge is in samples of the grid, on the whole."""
    known = np.isfinite(away)
    wide = np.zeros(len(cameras))
    if known.all():
        distances, places = np.median(np.maximum(away, 0), axis=1), np.median(fallen, axis=1)
    else:
        distances, places = np.zeros(len(cameras)), np.zeros((len(cameras), 3))
        for frame in np.flatnonzero(known.any(axis=1)).tolist():
            distances[frame] = np.median(np.maximum(away[frame, known[frame]], 0))
            places[frame] = np.median(fallen[frame, known[frame]], axis=0)
    for frame, camera in enumerate(cameras):
        if known[frame].any():
            width = float(light.size[frame] * distances[frame])
            if light.kind != "SUN":
                width /= max(float(np.linalg.norm(light.place[frame, :3] - places[frame])), 1e-6)
            wide[frame] = width * camera.scale_at(places[frame])
    return wide


def _soften(mask: np.ndarray, sigma: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Blur masks [F, h, w] by Gaussian kernels of `sigma` [F] cells that go `reach` [F] cells far."""
    wide = int(reach.max())
    steps = np.arange(-wide, wide + 1)
    kernels = np.exp(-(steps**2) / (2 * sigma[:, None] ** 2)) * (np.abs(steps) <= reach[:, None])
    kernels = (kernels / kernels.sum(axis=1, keepdims=True)).astype(np.float32).T[..., None, None]
    _, height, width = mask.shape
    padded = np.pad(mask, ((0, 0), (wide, wide), (wide, wide)), mode="edge")
    rows = sum(kernel * padded[:, i : i + height] for i, kernel in enumerate(kernels))
    return sum(kernel * rows[:, :, i : i + width] for i, kernel in enumerate(kernels))


def _weigh(
    mask: np.ndarray, cameras: Sequence[Camera], light: Light, others: Sequence[Light], planes: np.ndarray
) -> None:
    """Multiply what is held back of a light, [F, h, w], with the share that it has, in each cell of the
    ground, among all lights that cast shadows (`others`, it included)."""
    frames, row, column = np.nonzero(mask)
    pixels = (np.column_stack([column, row]) + 0.5) * SAMPLES
    points = np.empty((len(frames), 3))
    begins = np.searchsorted(frames, np.arange(len(cameras) + 1))
    for frame, camera in enumerate(cameras):
        part = slice(begins[frame], begins[frame + 1])
        points[part] = camera.meet(pixels[part], planes[frame])
    normals = planes[frames, :3]

    def arriving(one: Light) -> np.ndarray:
        one = one.at(frames)
        return one.received(points) * np.maximum((one.towards(points) * normals).sum(axis=1), 0)

    together = sum(arriving(one) for one in others)
    mask[frames, row, column] *= arriving(light) / np.maximum(together, 1e-30)
