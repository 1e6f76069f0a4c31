"""How much light falls on what is seen of the subjects: on each place from every light that renders, from the
sky and back from the ground, so that a picture of it can be lit anew when it turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import bpy
import numpy as np

from ..shared.messages import LIGHT_STEPS
from .surfaces import is_still, rendered_lights
from .triangles import Camera, bounds, draw_triangles, see, stack_triangles, towards
from .visibility import is_enabled
from .zbuffer import ZBuffer

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
BOUNCE = 0.3
"""How much of its light the ground gives back."""
SIDE = 64
"""Samples across the subjects, seen from the brightest light, that tell what lies in their own shadow."""
BIAS = 5.0
"""Samples behind the nearest surface from which on a place lies in its shadow."""


@dataclass(frozen=True, eq=False)
class Light:
    """A light in one frame, or in as many as its fields have rows: `place` [..., 4] homogeneous, at infinity
    for a sun; `strength` [...] is the light that a surface which faces it gets, at a distance of one unit
    from others than suns. From a point it looks `size` wide, as an angle for a sun, in scene units for
    others. It shines along `axis` [..., 3], within `spread` (a cosine) of it; for an area light less to the
    side. What it is, its `kind`, and whether it casts shadows stay as they are."""

    kind: str
    casts: bool
    place: np.ndarray
    strength: np.ndarray
    size: np.ndarray
    axis: np.ndarray
    spread: np.ndarray

    @classmethod
    def of_frames(cls, lights: Sequence[Light]) -> Light:
        """One light in several frames."""
        first = lights[0]
        arrays = (np.stack([getattr(one, name) for one in lights]) for name in _ARRAYS)
        return cls(first.kind, first.casts, *arrays)

    def at(self, frames: np.ndarray) -> Light:
        """The light in frames [P], one after the other."""
        return Light(self.kind, self.casts, *(getattr(self, name)[frames] for name in _ARRAYS))

    def towards(self, points: np.ndarray) -> np.ndarray:
        """[V, 3] unit vectors from points to the light."""
        return towards(self.place, points)

    def received(self, points: np.ndarray) -> np.ndarray:
        """[V] what surfaces at points that face the light get of it."""
        if self.kind == "SUN":
            return np.broadcast_to(self.strength, len(points))
        out = points - self.place[..., :3]
        distance = np.maximum(np.linalg.norm(out, axis=1), 1e-6)
        ahead = (out * self.axis).sum(axis=1) / distance
        if self.kind == "AREA":
            return self.strength * 4 * np.maximum(ahead, 0) / distance**2
        return np.where(ahead >= self.spread, self.strength, 0.0) / distance**2


_ARRAYS = ("place", "strength", "size", "axis", "spread")


def _read_light(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Light | None:
    """A light in the frame that is evaluated, None when it gives none."""
    evaluated = obj.evaluated_get(depsgraph)
    data = evaluated.data
    world = np.array(evaluated.matrix_world, np.float64)
    back = world[:3, 2] / max(np.linalg.norm(world[:3, 2]), 1e-12)
    strength = data.energy * float(LUMINANCE @ np.array(data.color)) * 2 ** getattr(data, "exposure", 0.0)
    if strength <= 0:
        return None
    kind = data.type
    sun = kind == "SUN"
    if kind == "AREA":
        size = (data.size + data.size_y) / 2 if data.shape in {"RECTANGLE", "ELLIPSE"} else data.size
    else:
        size = data.angle if sun else 2 * data.shadow_soft_size
    return Light(
        kind=kind,
        casts=getattr(data, "use_shadow", True),
        place=np.append(back, 0.0) if sun else np.append(world[:3, 3], 1.0),
        strength=np.float64(strength / math.pi if sun else strength / (4 * math.pi**2)),
        size=np.float64(size),
        axis=-back,
        spread=np.float64(math.cos(data.spot_size / 2) if kind == "SPOT" else -2.0),
    )


def find_sky(scene: bpy.types.Scene) -> float:
    """How bright the world is on the whole."""
    world = scene.world
    if world is None:
        return 0.0
    has_nodes = world.node_tree is not None and (bpy.app.version >= (5, 0, 0) or world.use_nodes)
    nodes = world.node_tree.nodes if has_nodes else ()
    for node in nodes:
        if node.type == "BACKGROUND":
            colour, strength = node.inputs["Color"], node.inputs["Strength"]
            # What a picture or a sky texture gives is not looked up: a clear day's.
            bright = 0.5 if colour.is_linked else float(LUMINANCE @ np.array(colour.default_value)[:3])
            return bright * (1.0 if strength.is_linked else strength.default_value)
    return float(LUMINANCE @ np.array(world.color))


@dataclass(frozen=True, eq=False)
class Lighting:
    """What lights a frame: `lights`, and how bright the `sky` is."""

    lights: list[Light]
    sky: float

    @property
    def make(self) -> tuple:
        """What has to be the same of frames that are measured together."""
        return tuple((light.kind, light.casts) for light in self.lights)


def _holds_back(light: bpy.types.Object, subjects: set[bpy.types.Object]) -> bool:
    """Whether any subject may stand in a light's way, by its light linking."""
    blockers = light.light_linking.blocker_collection
    if blockers is None:
        return True
    linked: dict[str, set[bpy.types.Object]] = {"INCLUDE": set(), "EXCLUDE": set()}
    for obj, link in zip(blockers.objects, blockers.collection_objects):
        linked[link.light_linking.link_state].add(obj)
    for child, link in zip(blockers.children, blockers.collection_children):
        linked[link.light_linking.link_state].update(child.all_objects)
    return bool((subjects & linked["INCLUDE"] or not linked["INCLUDE"]) and subjects - linked["EXCLUDE"])


class LightReader:
    """Reads what lights each frame and throws shadows of the objects that are the `subjects`; lights that
    nothing moves or changes are read once."""

    def __init__(self, depsgraph: bpy.types.Depsgraph, subjects: set[bpy.types.Object]):
        self._lights = rendered_lights(depsgraph)
        self._passing = {obj for obj in self._lights if not _holds_back(obj, subjects)}
        self._still = {obj: self._read(obj, depsgraph) for obj in self._lights if is_still(obj)}

    def read(self, depsgraph: bpy.types.Depsgraph) -> Lighting:
        found = [
            self._still[obj] if obj in self._still else self._read(obj, depsgraph)
            for obj in self._lights
            if obj in self._still or is_enabled(obj, depsgraph)
        ]
        return Lighting([light for light in found if light is not None], find_sky(depsgraph.scene))

    def _read(self, obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Light | None:
        light = _read_light(obj, depsgraph)
        return replace(light, casts=False) if light is not None and obj in self._passing else light


class LightMeter:
    """Measures frames of one make together: their `lighting`, and of each subject the `triangles` [T, 3] and
    the `points` [F, V, 3] in world space, which throw shadows on themselves."""

    def __init__(
        self, lighting: Sequence[Lighting], triangles: Sequence[np.ndarray], points: Sequence[np.ndarray]
    ):
        each = zip(*(frame.lights for frame in lighting))
        self._lights = [Light.of_frames(frames) for frames in each]
        self._sky = np.array([frame.sky for frame in lighting])
        self._count = len(lighting)
        self._shades = np.full(self._count, -1)
        subjects = [(t, p) for t, p in zip(triangles, points) if p.shape[1]]
        casting = [k for k, light in enumerate(self._lights) if light.casts]
        if not subjects or not casting:
            return
        lows, highs = zip(*(bounds(p) for _, p in subjects))
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        middle = (low + high) / 2
        bright = np.array([self._lights[k].received(middle) for k in casting])
        self._shades = np.array(casting)[bright.argmax(axis=0)]
        self._cast(subjects, middle, np.linalg.norm(high - low, axis=1))

    def _cast(self, subjects, middle: np.ndarray, size: np.ndarray) -> None:
        """Draw the subjects as the brightest light of each frame sees them, from afar."""
        every = np.array([light.towards(middle) for light in self._lights])
        way = every[self._shades, np.arange(self._count)]
        upright = np.where((np.abs(way[:, 2]) < 0.9)[:, None], (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
        side = np.cross(way, upright)
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        zoom = SIDE / np.maximum(size, 1e-9)
        self._cameras = []
        for frame, axes in enumerate(np.stack([side, np.cross(way, side)], axis=1)):
            pixels = np.zeros((3, 4))
            pixels[:2, :3] = zoom[frame] * axes
            pixels[:2, 3] = SIDE / 2 - pixels[:2, :3] @ middle[frame]
            pixels[2, 3] = 1
            depths = np.append(-way[frame], float(way[frame] @ middle[frame]) + size[frame])
            self._cameras.append(Camera(pixels, depths, -np.inf, False))
        self._bias = BIAS * size / SIDE
        buffer = ZBuffer(SIDE, SIDE, self._count)
        for triangles, points in subjects:
            seen = see(self._cameras, points)
            count = points.shape[1]
            layers = np.repeat(np.arange(self._count), count)
            if count > SIDE**2:  # they lie closer than samples
                np.maximum.at(buffer.nearness, _samples(seen.corners, layers), seen.corners[:, 2])
                continue
            stacked, layers = stack_triangles([triangles] * self._count, [count] * self._count)
            for _ in draw_triangles(buffer, seen, stacked, np.zeros(len(stacked), np.int32), layers):
                pass
        self._nearest = buffer.nearness

    def measure(self, points: np.ndarray, normals: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[P] uint8 as `shared.messages.GenerationRequest` has it, of points [P, 3] with unit normals in
        `frames` [P]."""
        up = (1 + normals[:, 2]) / 2
        count = np.maximum(np.bincount(frames, minlength=self._count), 1)
        ground = self._sky.copy()
        total = self._sky[frames] * up
        shades = self._shades[frames]
        for number, light in enumerate(self._lights):
            light = light.at(frames)
            towards, received = light.towards(points), light.received(points)
            direct = received * np.maximum((normals * towards).sum(axis=1), 0)
            shaded = np.flatnonzero(shades == number)
            if len(shaded):
                direct[shaded] *= self._lit(points[shaded], frames[shaded])
            total += direct
            ground += (
                np.bincount(frames, received * np.maximum(towards[:, 2], 0), minlength=self._count) / count
            )
        total += BOUNCE * ground[frames] * (1 - up)
        steps = 128 + LIGHT_STEPS * np.log2(np.maximum(total, 1e-6))
        return np.clip(np.rint(steps), 1, 255).astype(np.uint8)

    def _lit(self, points: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[P] bool: which points do not lie in the subjects' own shadow of the brightest light."""
        begins = np.searchsorted(frames, np.arange(self._count + 1))  # frames come one after the other
        pieces = [points[a:b].astype(np.float32) for a, b in zip(begins[:-1], begins[1:])]
        seen = see(self._cameras, pieces).corners
        return seen[:, 2] > self._nearest[_samples(seen, frames)] - self._bias[frames]


def _samples(corners: np.ndarray, layers: np.ndarray) -> np.ndarray:
    column, row = np.clip(corners[:, :2], 0, SIDE - 1).astype(np.int64).T
    return (layers * SIDE + row) * SIDE + column
