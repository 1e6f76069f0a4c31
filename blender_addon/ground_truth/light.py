"""How much light falls on what is seen of the subjects: on each place from every light that renders, from the
sky and back from the ground, so that a picture of it can be lit anew when it turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import bpy
import numpy as np

from ..shared.messages import LIGHT_STEPS
from .surfaces import rendered_lights
from .triangles import Camera, draw_triangles
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
    """A light: `place` [4] homogeneous, at infinity for a sun; `strength` is the light that a surface which
    faces it gets, at a distance of one unit from others than suns. From a point it looks `size` wide, as an
    angle for a sun, in scene units for others. It shines along `axis` [3], within `spread` (a cosine) of it;
    for an area light less to the side."""

    place: np.ndarray
    strength: float
    size: float
    casts: bool
    axis: np.ndarray
    spread: float
    is_area: bool

    def towards(self, points: np.ndarray) -> np.ndarray:
        """[V, 3] unit vectors from points to the light."""
        out = np.broadcast_to(self.place[:3], points.shape) if self.place[3] == 0 else self.place[:3] - points
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)

    def received(self, points: np.ndarray) -> np.ndarray:
        """[V] what surfaces at points that face the light get of it."""
        if self.place[3] == 0:
            return np.full(len(points), self.strength)
        out = points - self.place[:3]
        distance = np.maximum(np.linalg.norm(out, axis=1), 1e-6)
        ahead = (out @ self.axis) / distance
        if self.is_area:
            return self.strength * 4 * np.maximum(ahead, 0) / distance**2
        return np.where(ahead >= self.spread, self.strength, 0.0) / distance**2


def find_lights(depsgraph: bpy.types.Depsgraph) -> list[Light]:
    """The lights that render."""
    found = []
    for obj in rendered_lights(depsgraph):
        evaluated = obj.evaluated_get(depsgraph)
        data = evaluated.data
        world = np.array(evaluated.matrix_world, np.float64)
        back = world[:3, 2] / max(np.linalg.norm(world[:3, 2]), 1e-12)
        strength = data.energy * float(LUMINANCE @ np.array(data.color)) * 2 ** getattr(data, "exposure", 0.0)
        if strength <= 0:
            continue
        sun = data.type == "SUN"
        found.append(
            Light(
                place=np.append(back, 0.0) if sun else np.append(world[:3, 3], 1.0),
                strength=strength / math.pi if sun else strength / (4 * math.pi**2),
                size=data.angle if sun else data.size if data.type == "AREA" else 2 * data.shadow_soft_size,
                casts=getattr(data, "use_shadow", True),
                axis=-back,
                spread=math.cos(data.spot_size / 2) if data.type == "SPOT" else -2.0,
                is_area=data.type == "AREA",
            )
        )
    return found


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


class LightMeter:
    """Measures one frame: its `lights`, how bright the `sky` is, and the subjects' triangles [T, 3] and
    points [V, 3] in world space, which throw shadows on themselves."""

    def __init__(self, lights: list[Light], sky: float, subjects: list[tuple[np.ndarray, np.ndarray]]):
        self._lights, self._sky = lights, sky
        self._middle = np.zeros(3)
        self._shades: Light | None = None
        points = [points for _, points in subjects if len(points)]
        if not points:
            return
        everything = np.concatenate(points)
        low, high = everything.min(axis=0), everything.max(axis=0)
        self._middle = (low + high) / 2
        casting = [light for light in lights if light.casts]
        if casting:
            self._shades = max(casting, key=lambda light: float(light.received(self._middle[None])[0]))
            self._cast(subjects, float(np.linalg.norm(high - low)))

    def _cast(self, subjects, size: float) -> None:
        """Draw the subjects as the brightest light sees them, from afar."""
        way = self._shades.towards(self._middle[None])[0]
        side = np.cross(way, (0, 0, 1) if abs(way[2]) < 0.9 else (1, 0, 0))
        side /= np.linalg.norm(side)
        zoom = SIDE / max(size, 1e-9)
        pixels = np.zeros((3, 4))
        for row, axis in ((0, side), (1, np.cross(way, side))):
            pixels[row, :3], pixels[row, 3] = zoom * axis, SIDE / 2 - zoom * float(axis @ self._middle)
        pixels[2, 3] = 1
        depths = np.append(-way, float(way @ self._middle) + size)
        self._camera = Camera(pixels, depths, -np.inf, False)
        self._bias = BIAS * size / SIDE
        buffer = ZBuffer(SIDE, SIDE)
        for triangles, points in subjects:
            seen = self._camera.see(points, np.eye(4))
            if len(points) > SIDE**2:  # they lie closer than samples
                np.maximum.at(buffer.nearness, _samples(seen.corners), seen.corners[:, 2])
            else:
                for _ in draw_triangles(buffer, seen, triangles, 0):
                    pass
        self._nearest = buffer.nearness

    def measure(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """[P] uint8 as `shared.messages.GenerationRequest` has it, of points [P, 3] with unit normals."""
        up = (1 + normals[:, 2]) / 2
        ground = self._sky
        total = self._sky * up
        for light in self._lights:
            towards, received = light.towards(points), light.received(points)
            direct = received * np.maximum((normals * towards).sum(axis=1), 0)
            if light is self._shades:
                direct *= self._lit(points)
            total += direct
            ground += float(np.mean(received * np.maximum(towards[:, 2], 0))) if len(points) else 0.0
        total += BOUNCE * ground * (1 - up)
        steps = 128 + LIGHT_STEPS * np.log2(np.maximum(total, 1e-6))
        return np.clip(np.rint(steps), 1, 255).astype(np.uint8)

    def _lit(self, points: np.ndarray) -> np.ndarray:
        """[P] bool: which points do not lie in the subjects' own shadow of the brightest light."""
        seen = self._camera.see(points.astype(np.float32), np.eye(4)).corners
        return seen[:, 2] > self._nearest[_samples(seen)] - self._bias


def _samples(seen: np.ndarray) -> np.ndarray:
    column, row = np.clip(seen[:, :2], 0, SIDE - 1).astype(np.int64).T
    return row * SIDE + column
