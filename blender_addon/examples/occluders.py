"""Things that stand or pass between the camera and the subject and hide a part of it, never all of it."""

from __future__ import annotations

import random
from collections.abc import Callable

import bpy
import numpy as np
from mathutils import Vector
from mathutils.bvhtree import BVHTree

from .backgrounds import View
from .props import ball, box, painted, plant, rock, shade

MOST_HIDDEN = 0.6
"""The part of a subject's surface that may be hidden in a frame."""
LEAST_HIDDEN = 0.08
"""The part that is hidden in some frame at least."""
TRIES = 8
LOOKS = 11
"""Frames at which it is looked at how much is hidden."""
POINTS = 150
"""Of the subject's surface, which are looked for."""


def hide_a_part(
    scene: bpy.types.Scene, view: View, bodies: list[bpy.types.Object], shuffle: random.Random
) -> str:
    """Put something in front of the subject; returns how a prompt tells of it, "" where nothing suits, as in
    front of a subject that is everywhere in its picture."""
    frames = np.linspace(scene.frame_start, scene.frame_end, LOOKS).round().astype(int)
    seen = _Seen(scene, bodies, frames)
    for _ in range(TRIES):
        kind = shuffle.choice(list(KINDS))
        there = set(scene.objects)
        middle = int(shuffle.choice(range(LOOKS)[LOOKS // 4 : -(LOOKS // 4)]))
        KINDS[kind](scene, view, _Line(view, seen, middle, shuffle), shuffle)
        things = [item for item in scene.objects if item not in there]
        hidden = seen.hidden_by(scene, things)
        if hidden.max() <= MOST_HIDDEN and hidden.max() >= LEAST_HIDDEN:
            return kind
        for item in things:
            bpy.data.objects.remove(item)
    return ""


class _Seen:
    """Points [F, n, 3] of the subject in some frames, and the camera's places [F, 3]."""

    def __init__(self, scene: bpy.types.Scene, bodies: list[bpy.types.Object], frames: np.ndarray):
        self.frames, points, places = frames, [], []
        for frame in frames:
            scene.frame_set(int(frame))
            depsgraph = bpy.context.evaluated_depsgraph_get()
            places.append(np.array(scene.camera.matrix_world.translation))
            cloud = []
            for body in bodies:
                evaluated = body.evaluated_get(depsgraph)
                mesh = evaluated.to_mesh()
                own = np.empty(3 * len(mesh.vertices), np.float32)
                mesh.vertices.foreach_get("co", own)
                world = np.array(body.matrix_world)
                cloud.append(own.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3])
                evaluated.to_mesh_clear()
            points.append(np.concatenate(cloud))
        count = min(map(len, points))
        chosen = np.linspace(0, count - 1, min(POINTS, count)).astype(int)
        self.points = np.array([each[chosen] for each in points])
        self.places = np.array(places)

    def hidden_by(self, scene: bpy.types.Scene, things: list[bpy.types.Object]) -> np.ndarray:
        """[F]: which part of the points the things are in front of."""
        shares = []
        for frame, points, place in zip(self.frames, self.points, self.places):
            scene.frame_set(int(frame))
            hidden = np.zeros(len(points), bool)
            for item in things:
                world = item.matrix_world
                tree = BVHTree.FromPolygons(
                    [world @ vertex.co for vertex in item.data.vertices],
                    [tuple(face.vertices) for face in item.data.polygons],
                )
                for index in np.flatnonzero(~hidden):
                    way = Vector(points[index] - place)
                    hidden[index] = tree.ray_cast(Vector(place), way.normalized(), way.length)[0] is not None
            shares.append(hidden.mean())
        return np.array(shares)


class _Line:
    """The line from the camera to the subject in one frame, in the axes of a `View`, and a place on it that
    is clear of the subject's way; `wide` and `tall` is how large the subject seems to be there."""

    def __init__(self, view: View, seen: _Seen, frame: int, shuffle: random.Random):
        points = seen.points[frame] @ view.turn
        self.eye, (low, high) = seen.places[frame] @ view.turn, (points.min(0), points.max(0))
        self.low, self.high, self.middle = low, high, (low + high) / 2
        clear = view.low[0] - 0.2 * view.unit
        least = np.clip((self.middle[0] - clear) / max(self.middle[0] - self.eye[0], 1e-6), 0.0, 0.9)
        self.share = float(min(least + shuffle.uniform(0.0, 0.25), 0.9))
        self.scale = 1 - self.share
        x, y, _ = self.middle + self.share * (self.eye - self.middle)
        self.x, self.y = float(x), float(y) + shuffle.uniform(-0.25, 0.25) * (high[1] - low[1]) * self.scale
        self.wide, self.tall = ((high - low)[1:] * self.scale).tolist()
        self.ground = view.ground

    def height(self, share: float) -> float:
        """How high above the ground the line to so much of the subject's height is there, in metres."""
        aim = self.low[2] + share * (self.high[2] - self.low[2])
        return float(aim + self.share * (self.eye[2] - aim)) - self.ground


def _post(scene, view: View, line: _Line, shuffle: random.Random) -> None:
    wood = painted("Post", *shade(shuffle, (0.0, 0.15), 0.35), 4 / view.unit, "wood")
    wide = line.wide * shuffle.uniform(0.12, 0.3)
    size = Vector((wide, wide, 1.3 * max(line.height(1.2), 0.1 * view.unit)))
    box(scene, "Post", view.place(line.x, line.y), size, view.upright(shuffle.uniform(0, 1)), wood)


def _rock(scene, view: View, line: _Line, shuffle: random.Random) -> None:
    stone = painted("Boulder", *shade(shuffle, (0.0, 0.15), 0.3), 6 / view.unit, "cells")
    radius = max(line.height(shuffle.uniform(0.25, 0.5)), 0.1 * line.tall) / 0.7
    rock(scene, view.place(line.x, line.y), min(radius, 0.4 * line.wide + 0.1 * line.tall), stone, shuffle)


def _bush(scene, view: View, line: _Line, shuffle: random.Random) -> None:
    green = painted("Bush", *shade(shuffle, (0.2, 0.4), 0.25), 12 / view.unit)
    tall = max(line.height(shuffle.uniform(0.35, 0.7)), 0.1 * line.tall)
    for _ in range(4):
        y = line.y + shuffle.uniform(-0.25, 0.25) * line.wide
        plant(scene, view.place(line.x, y), tall, green, shuffle, 7)


def _fence(scene, view: View, line: _Line, shuffle: random.Random) -> None:
    wood = painted("Fence", *shade(shuffle, (0.0, 0.12), 0.5), 4 / view.unit, "wood")
    thick, tall = 0.06 * line.tall, line.height(0.75)
    left, right = view.across(line.x)
    for share in (0.25, 0.6):
        rail = view.place(line.x, (left + right) / 2, max(line.height(share), thick))
        box(scene, "Rail", rail, Vector((thick, right - left, thick)), view.upright(), wood)
    gap = line.wide * shuffle.uniform(0.5, 0.9)
    for number in range(min(int((right - left) / gap) + 1, 40)):
        post = Vector((1.5 * thick, 1.5 * thick, tall))
        box(scene, "Post", view.place(line.x, left + number * gap), post, view.upright(), wood)


def _ball(scene, view: View, line: _Line, shuffle: random.Random) -> None:
    """Passes from one side to the other."""
    made = painted("Ball", *shade(shuffle, (0.0, 1.0), 0.8), 4 / view.unit, "checker")
    radius = line.tall * shuffle.uniform(0.15, 0.28)
    item = ball(scene, "Ball", Vector(), radius, made)
    height, side = max(line.height(shuffle.uniform(0.3, 0.6)), radius), shuffle.choice((-1, 1))
    for frame, share in ((scene.frame_start, -1), (scene.frame_end, 1)):
        item.location = view.place(line.x, line.y + side * share * 1.5 * line.wide, height)
        item.rotation_euler = (share * 3.0, 0, 0)
        item.keyframe_insert("location", frame=frame)
        item.keyframe_insert("rotation_euler", frame=frame)


KINDS: dict[str, Callable[..., None]] = {
    "a post stands in front": _post,
    "a rock lies in front": _rock,
    "a bush grows in front": _bush,
    "a fence runs in front": _fence,
    "a ball flies by in front": _ball,
}
"""By how a prompt tells of them."""
