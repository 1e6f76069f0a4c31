"""Where the subjects of the training data are: landscapes, a street, a room, a studio, under water, the sky.

Each has things at several depths, so that a camera that moves shows it, and a light of its own.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import bmesh
import bpy
import numpy as np
from mathutils import Matrix, Vector

from .props import (
    Colour,
    add,
    ball,
    box,
    colour_name,
    cone,
    glowing,
    lamp,
    painted,
    plant,
    rock,
    shade,
    sky,
    tree,
)

MARGIN = 0.35
"""Between the subject's way and what is nearest to it, in sizes of the subject."""


@dataclass
class View:
    """What a camera sees of a scene, in axes in which it looks along x, from left to right along y.

    `low` and `high` [3] are the corners of the box around the subject's way, `unit` is the subject's size in
    metres, `turn` [3, 3] leads from these axes to the scene's. `places` [n, 3] are the camera's, `edges`
    [n, 2] the slopes dy / dx of its picture's left and right edge.
    """

    low: np.ndarray
    high: np.ndarray
    unit: float
    turn: np.ndarray
    places: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, scene: bpy.types.Scene, boxes: np.ndarray, turn: np.ndarray) -> View:
        boxes = np.sort(boxes @ turn, axis=1)
        camera = scene.camera.data
        half = math.atan(camera.sensor_width / 2 / camera.lens)
        places, edges = [], []
        for frame in np.linspace(scene.frame_start, scene.frame_end, 9).round().astype(int):
            scene.frame_set(int(frame))
            world = np.array(scene.camera.matrix_world)
            ahead = turn.T @ -world[:3, 2]
            middle = math.atan2(ahead[1], ahead[0])
            places.append(turn.T @ world[:3, 3])
            edges.append([math.tan(np.clip(middle + side * half, -1.5, 1.5)) for side in (-1, 1)])
        sizes = (boxes[:, 1] - boxes[:, 0]).max(1)
        low, high, unit = boxes[:, 0].min(0), boxes[:, 1].max(0), float(np.median(sizes))
        return cls(low, high, unit, turn, np.array(places), np.array(edges))

    @property
    def ground(self) -> float:
        return float(self.low[2])

    @property
    def distance(self) -> float:
        """Of the camera from the middle of the subject's way, in metres."""
        return float(np.linalg.norm(self.places - (self.low + self.high) / 2, axis=1).max())

    def place(self, x: float, y: float, z: float = 0.0) -> Vector:
        """A point of the scene, in metres; z above the ground."""
        return Vector(self.turn @ (x, y, self.ground + z))

    def behind(self, far: float) -> float:
        """x, so many sizes of the subject behind its way."""
        return float(self.high[0] + (MARGIN + far) * self.unit)

    def across(self, x: float) -> tuple[float, float]:
        """From where to where along y the camera ever sees at x."""
        sides = self.places[:, 1:2] + (x - self.places[:, :1]) * self.edges
        return float(sides.min()), float(sides.max())

    def somewhere(self, shuffle: random.Random, near: float, far: float) -> tuple[float, float]:
        """x and y of a place that is seen, so many sizes behind the subject's way."""
        x = self.behind(shuffle.uniform(near, far))
        return x, shuffle.uniform(*self.across(x))

    def upright(self, angle: float = 0.0) -> Matrix:
        """The turn of a thing that stands, by an angle about Z."""
        return Matrix(self.turn.tolist()) @ Matrix.Rotation(angle, 3, "Z")


def build_background(
    scene: bpy.types.Scene, view: View, shuffle: random.Random, home: str, still: bool
) -> str:
    """Build one that suits where a subject lives; returns how a prompt tells of it."""
    return shuffle.choice(HOMES[home])(scene, view, shuffle, "in" if still else "through")


def _ground(scene: bpy.types.Scene, view: View, made: bpy.types.Material, hills: float = 0.0) -> None:
    """As far as one sees, under all that stands on it; beyond what stands near it rolls by `hills` sizes."""
    size = 60 * (view.unit + view.distance)
    plane = add(
        scene,
        "Ground",
        lambda mesh: bmesh.ops.create_grid(mesh, x_segments=80, y_segments=80, size=size),
        made,
    )
    middle = (view.low + view.high) / 2
    plane.location = view.place(middle[0], middle[1])
    if hills:
        for vertex in plane.data.vertices:
            far = max(vertex.co.length / (6 * (view.unit + view.distance)) - 1, 0)
            wave = math.sin(vertex.co.x / view.unit / 9) * math.cos(vertex.co.y / view.unit / 7)
            vertex.co.z = min(far, 1.5) * hills * view.unit * (wave + 0.3)


def _daylight(scene: bpy.types.Scene, view: View, shuffle: random.Random) -> str:
    """Sun, an overcast sky or an evening; how a prompt tells of it."""
    middle = view.place(*((view.low + view.high) / 2)[:2])
    turn = shuffle.uniform(0, 2 * math.pi)

    def sun(height: float, energy: float, colour: Colour, size: float) -> None:
        out = Vector((math.cos(turn), math.sin(turn), math.tan(height)))
        lamp(scene, "SUN", middle + 10 * view.unit * out, middle, energy, colour, size)

    weather = shuffle.choice(("sun", "sun", "overcast", "evening"))
    if weather == "sun":
        sky(scene, (0.62, 0.74, 0.90), (0.16, 0.33, 0.75), shuffle.uniform(0.6, 0.9))
        sun(shuffle.uniform(0.5, 1.2), shuffle.uniform(2.5, 4.0), (1.0, 0.94, 0.84), 0.01)
        return "in sunlight"
    if weather == "overcast":
        sky(scene, (0.70, 0.73, 0.78), (0.50, 0.54, 0.60), shuffle.uniform(0.9, 1.2))
        sun(1.0, 0.6, (0.9, 0.95, 1.0), 0.7)
        return "under an overcast sky"
    sky(scene, (0.95, 0.52, 0.26), (0.14, 0.17, 0.38), shuffle.uniform(0.5, 0.7))
    sun(shuffle.uniform(0.2, 0.35), shuffle.uniform(2.0, 3.2), (1.0, 0.55, 0.25), 0.02)
    return "in evening light"


def _strew(
    view: View, shuffle: random.Random, count: int, put: Callable[[Vector, float], object], tall: float = 0.06
) -> None:
    """Small things around the subject, in front of its way, too, where they are too low to hide it."""
    for _ in range(count):
        x, y = view.somewhere(shuffle, 0.0, 5.0)
        put(view.place(x, y), shuffle.uniform(0.03, 0.12) * view.unit)
    for _ in range(count // 3):
        x = float(view.low[0]) - shuffle.uniform(0.3, 0.6) * view.unit
        put(view.place(x, shuffle.uniform(*view.across(x))), 0.5 * tall * view.unit)


def meadow(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit, light = view.unit, _daylight(scene, view, shuffle)
    grass = painted("Grass", *shade(shuffle, (0.18, 0.3), 0.3), 26 / unit)
    _ground(scene, view, grass, hills=0.7)
    leaves = painted("Leaves", *shade(shuffle, (0.22, 0.4), 0.16), 14 / unit)
    bark = painted("Bark", (0.09, 0.05, 0.03), (0.15, 0.09, 0.05), 20 / unit)
    stone = painted("Stone", (0.2, 0.19, 0.18), (0.36, 0.34, 0.31), 9 / unit)
    for near, far, count in ((0.6, 3.0, 3), (3.0, 9.0, 8), (9.0, 25.0, 8)):
        for _ in range(count):
            place = view.place(*view.somewhere(shuffle, near, far))
            tree(scene, place, shuffle.uniform(1.2, 2.6) * unit, leaves, bark)
    _strew(view, shuffle, 6, lambda place, size: rock(scene, place, size, stone, shuffle))
    _strew(view, shuffle, 8, lambda place, size: plant(scene, place, 1.5 * size, leaves, shuffle, 4))
    return f"{way} a meadow {light}, with firs and hills in the background"


def desert(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit, light = view.unit, _daylight(scene, view, shuffle)
    haze = ((0.80, 0.68, 0.52), 60 * (unit + view.distance))
    _ground(
        scene, view, painted("Sand", *shade(shuffle, (0.06, 0.11), 0.65), 5 / unit, "noise", haze), hills=1.0
    )
    stone = painted("Rock", *shade(shuffle, (0.02, 0.08), 0.4), 3 / unit, "cells", haze)
    green = painted("Cactus", (0.06, 0.16, 0.06), (0.16, 0.30, 0.12), 8 / unit)
    for near, far, sizes, count in ((0.5, 2.5, (0.2, 0.5), 4), (3, 9, (0.4, 1.3), 6)):
        for _ in range(count):
            place = view.place(*view.somewhere(shuffle, near, far))
            rock(scene, place, shuffle.uniform(*sizes) * unit, stone, shuffle)
    for _ in range(4):  # table mountains
        x, y = view.somewhere(shuffle, 18, 40)
        tall = shuffle.uniform(0.1, 0.22) * (x - float(view.places[:, 0].min()))
        top = shuffle.uniform(0.6, 1.0) * tall
        made = add(scene, "Mesa", lambda mesh, t=tall, u=top: cone(mesh, 14, 1.3 * t, u, t), stone)
        made.location = view.place(x, y, 0.45 * tall)
    for _ in range(4):
        _cactus(
            scene,
            view.place(*view.somewhere(shuffle, 0.4, 6)),
            shuffle.uniform(0.5, 1.1) * unit,
            green,
            shuffle,
        )
    _strew(view, shuffle, 6, lambda place, size: rock(scene, place, 0.7 * size, stone, shuffle))
    return f"{way} a desert {light}, with rocks and cacti in the background"


def _cactus(scene: bpy.types.Scene, place: Vector, tall: float, green, shuffle: random.Random) -> None:
    thick = 0.09 * tall
    for x, z, height in ((0, 0, tall), (-0.25, 0.4, 0.35 * tall), (0.22, 0.3, 0.45 * tall)):
        arm = add(scene, "Cactus", lambda mesh, h=height: cone(mesh, 10, thick, 0.7 * thick, h), green, True)
        arm.location = place + Vector((x * tall, 0, z * tall + height / 2))
        if x:
            reach = abs(x) * tall
            link = add(
                scene,
                "Cactus",
                lambda mesh, h=reach: cone(mesh, 10, 0.7 * thick, 0.7 * thick, h),
                green,
            )
            link.location = place + Vector((x * tall / 2, 0, (z + 0.03) * tall))
            link.rotation_euler = (0, math.pi / 2, 0)


def street(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit, light = view.unit, _daylight(scene, view, shuffle)
    stones = painted("Pavement", *shade(shuffle, (0.04, 0.1), 0.3), 3 / unit, "brick")
    _ground(scene, view, stones)
    glass = painted("Glass", (0.02, 0.03, 0.05), (0.08, 0.11, 0.16), 2 / unit)
    dark = painted("Iron", (0.02, 0.02, 0.025), (0.06, 0.06, 0.07), 9 / unit)
    for far, tall in ((2.2, (2.0, 3.2)), (9.0, (4.5, 8.0))):  # a row, and what looks over its roofs
        x = view.behind(far)
        y, end = view.across(x + 2 * unit)
        y -= 2 * unit
        while y < end + 2 * unit:
            wide, height = shuffle.uniform(1.5, 3.0) * unit, shuffle.uniform(*tall) * unit
            wall = painted("Wall", *shade(shuffle, (0.0, 0.15), 0.5), 4 / wide, "brick")
            deep = shuffle.uniform(0, 0.4) * unit
            middle = view.place(x + deep + unit, y + wide / 2)
            box(scene, "House", middle, Vector((2 * unit, wide, height)), view.upright(), wall)
            roof = painted("Roof", *shade(shuffle, (0.0, 0.08), 0.25), 5 / unit)
            box(
                scene, "Roof", view.place(x + deep + unit, y + wide / 2, height),
                Vector((2.2 * unit, 1.03 * wide, 0.12 * unit)), view.upright(), roof,
            )  # fmt: skip
            for row in range(int(height / unit)):
                for column in range(max(int(wide / unit / 0.8), 1)):
                    across = y + 0.4 * unit + 0.8 * unit * column
                    if across < y + wide - 0.2 * unit:
                        sill = view.place(x + deep, across, (0.35 + row) * unit)
                        size = Vector((0.06, 0.32, 0.5)) * unit
                        box(scene, "Window", sill, size, view.upright(), glass)
            y += wide + shuffle.choice((0.0, 0.0, 0.5)) * unit
    for _ in range(3):
        x, y = view.somewhere(shuffle, 0.5, 1.5)
        pole = add(scene, "Lamp", lambda mesh: cone(mesh, 10, 0.035 * unit, 0.02 * unit, 1.8 * unit), dark)
        pole.location = view.place(x, y, 0.9 * unit)
        ball(scene, "Lamp", view.place(x, y, 1.85 * unit), 0.09 * unit, glowing("Light", (1, 0.9, 0.7), 1.5))
    for _ in range(4):
        crate = painted("Crate", *shade(shuffle, (0.0, 1.0), 0.4), 6 / unit, "wood")
        x, y = view.somewhere(shuffle, 0.4, 1.6)
        size = Vector([shuffle.uniform(0.2, 0.5) * unit for _ in range(3)])
        box(scene, "Crate", view.place(x, y), size, view.upright(shuffle.uniform(0, 3)), crate)
    return f"{'in' if way == 'in' else 'along'} a street {light}, with houses and lamps in the background"


def room(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit = view.unit
    back, tall = (
        view.behind(shuffle.uniform(1.0, 2.0)),
        max(2.2 * unit, 1.3 * float(view.high[2] - view.ground)),
    )
    left, right = view.across(back)
    left, right = left - 0.3 * unit, right + 0.3 * unit
    front = float(view.places[:, 0].min()) - unit
    floor = painted("Floor", *shade(shuffle, (0.05, 0.1), 0.4), 2 / unit, shuffle.choice(("wood", "checker")))
    papers = shade(shuffle, (0.0, 1.0), 0.7)
    paper = painted("Wall", *papers, 3 / unit, shuffle.choice(("noise", "brick", "cells", "wood")))
    wood = painted("Wood", *shade(shuffle, (0.04, 0.08), 0.25), 3 / unit, "wood")
    size, middle = Vector((back - front, right - left, 0.1 * unit)), ((back + front) / 2, (left + right) / 2)
    box(scene, "Floor", view.place(*middle, -0.1 * unit), size, view.upright(), floor)
    wall = Vector((0.1 * unit, right - left, tall))
    box(scene, "Wall", view.place(back + 0.05 * unit, middle[1]), wall, view.upright(), paper)
    for y in (left, right):
        side = Vector((1.5 * unit, 0.1 * unit, tall))  # no farther than the camera sees past
        box(scene, "Wall", view.place(back - 0.75 * unit, y), side, view.upright(), paper)
    sky(scene, (0.5, 0.5, 0.55), (0.55, 0.6, 0.7), 0.25)

    def at(low: float, high: float) -> float:
        """y, by fractions of the wall."""
        return left + (right - left) * shuffle.uniform(low, high)

    window = Vector((0.05 * unit, 0.8 * unit, 0.8 * unit))
    pane = view.place(back - 0.02 * unit, at(0.1, 0.9), 0.9 * unit)
    box(scene, "Window", pane, window, view.upright(), glowing("Day", (0.7, 0.85, 1.0), 2.0))
    for _ in range(3):
        frame = painted(
            "Picture", *shade(shuffle, (0.0, 1.0), 0.6), 5 / unit, shuffle.choice(("cells", "noise"))
        )
        size = Vector((0.04, shuffle.uniform(0.3, 0.6), shuffle.uniform(0.25, 0.5))) * unit
        box(
            scene,
            "Picture",
            view.place(back - 0.01 * unit, at(0.05, 0.95), 1.1 * unit),
            size,
            view.upright(),
            frame,
        )
    # A table and chairs, shelves with books at the wall, a plant.
    x, y = view.behind(0.35), at(0.25, 0.75)
    box(scene, "Table", view.place(x, y, 0.4 * unit), Vector((0.5, 0.9, 0.05)) * unit, view.upright(), wood)
    for dx, dy in ((-0.2, -0.4), (-0.2, 0.4), (0.2, -0.4), (0.2, 0.4)):
        leg = Vector((0.05, 0.05, 0.4)) * unit
        box(scene, "Table", view.place(x + dx * unit, y + dy * unit), leg, view.upright(), wood)
    for side in (-0.75, 0.75):
        seat, turned = view.place(x, y + side * unit), view.upright(shuffle.uniform(-0.3, 0.3))
        box(scene, "Chair", seat, Vector((0.3, 0.3, 0.25)) * unit, turned, wood)
        rest = view.place(x + 0.14 * unit, y + side * unit, 0.25 * unit)
        box(scene, "Chair", rest, Vector((0.04, 0.3, 0.35)) * unit, turned, wood)
    y = at(0.05, 0.95)
    for level in range(4):
        board = view.place(back - 0.15 * unit, y, (0.1 + 0.35 * level) * unit)
        box(scene, "Shelf", board, Vector((0.28, 1.0, 0.04)) * unit, view.upright(), wood)
        for book in range(6):
            cover = painted("Book", *shade(shuffle, (0.0, 1.0), 0.5), 20 / unit)
            place = view.place(
                back - 0.15 * unit, y + (book - 2.5) * 0.15 * unit, (0.14 + 0.35 * level) * unit
            )
            high = shuffle.uniform(0.18, 0.28)
            box(
                scene,
                "Book",
                place,
                Vector((0.2, shuffle.uniform(0.04, 0.12), high)) * unit,
                view.upright(),
                cover,
            )
    green = painted("Plant", (0.05, 0.15, 0.05), (0.15, 0.35, 0.1), 12 / unit)
    plant(scene, view.place(back - 0.3 * unit, at(0.0, 1.0)), 0.9 * unit, green, shuffle, 9)
    subject = view.place(*((view.low + view.high) / 2)[:2], 0.4 * unit)
    warm = (1.0, shuffle.uniform(0.7, 0.95), shuffle.uniform(0.45, 0.9))
    height = tall + 0.5 * unit
    above = view.place(float(view.low[0]) - 0.5 * unit, at(0.3, 0.7), height)
    lamp(scene, "AREA", above, subject, shuffle.uniform(1.8, 2.6), warm, 0.8 * unit)
    bulb = view.place(back - 0.6 * unit, at(0.1, 0.9), 0.8 * tall)
    lamp(scene, "POINT", bulb, subject, 0.7, (1.0, 0.75, 0.5), 0.1 * unit)
    return f"{way} a room in lamplight, with a table, chairs and shelves in the background"


def studio(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit = view.unit
    hue, full, value = shuffle.random(), shuffle.choice((0.0, 0.5, 0.7)), shuffle.uniform(0.25, 0.75)
    plain = colorsys.hsv_to_rgb(hue, full, value)
    made = painted("Backdrop", tuple(0.85 * part for part in plain), plain, 0.7 / unit)
    back, front = view.behind(3.0), float(view.places[:, 0].min()) - unit
    left, right = view.across(back + 2 * unit)
    tall = 4 * unit + view.distance

    def sweep(mesh: bmesh.types.BMesh) -> None:
        """A floor that bends up into a wall."""
        bend = [
            (back + unit * math.sin(a), unit * (1 - math.cos(a))) for a in np.linspace(0, math.pi / 2, 12)
        ]
        rows = [
            [mesh.verts.new(view.place(x, y, z)) for y in (left - unit, right + unit)]
            for x, z in [(front, 0.0), *bend, (back + unit, tall)]
        ]
        for (a, b), (c, d) in zip(rows, rows[1:]):
            mesh.faces.new((a, b, d, c))

    add(scene, "Backdrop", sweep, made, smooth=True)
    shapes = painted(
        "Shape", *shade(shuffle, (0.0, 1.0), 0.6), 4 / unit, shuffle.choice(("checker", "noise", "cells"))
    )
    for number in range(5):
        x, y = view.somewhere(shuffle, 0.6 * number, 0.6 * number + 0.4)
        size = shuffle.uniform(0.1, 0.35) * unit
        if number % 2:
            ball(scene, "Ball", view.place(x, y, size), size, shapes)
        else:
            block = Vector((size, size, size * shuffle.uniform(1, 3)))
            box(scene, "Block", view.place(x, y), block, view.upright(shuffle.uniform(0, 2)), shapes)
    sky(scene, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.35)
    middle = view.place(*((view.low + view.high) / 2)[:2], 0.4 * unit)
    reach = 1.5 * unit + 0.7 * view.distance
    for side, strength in ((-1, shuffle.uniform(1.5, 2.5)), (1, shuffle.uniform(0.4, 1.0))):
        x, y = float(view.low[0]) - 0.5 * reach, side * reach * 0.7 + middle.dot(Vector(view.turn[:, 1]))
        lamp(scene, "AREA", view.place(x, y, reach), middle, strength, (1.0, 0.97, 0.93), unit)
    return f"in a studio, with a {colour_name(hue, full, value)} backdrop and plain shapes in the background"


def water(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit = view.unit
    deep = colorsys.hsv_to_rgb(
        shuffle.uniform(0.48, 0.6), shuffle.uniform(0.6, 0.9), shuffle.uniform(0.25, 0.6)
    )
    haze = (deep, 1.1 * view.distance + 6 * unit)
    _ground(
        scene,
        view,
        painted("Sea floor", *shade(shuffle, (0.08, 0.14), 0.55), 4 / unit, "noise", haze),
        hills=0.8,
    )
    stone = painted("Rock", *shade(shuffle, (0.0, 0.7), 0.3), 4 / unit, "cells", haze)
    weed = painted("Weed", *shade(shuffle, (0.2, 0.45), 0.25), 10 / unit, "noise", haze)
    for near, far, sizes, count in ((0.4, 2, (0.15, 0.4), 5), (2, 8, (0.3, 1.2), 6)):
        for _ in range(count):
            place = view.place(*view.somewhere(shuffle, near, far))
            rock(scene, place, shuffle.uniform(*sizes) * unit, stone, shuffle)
    for _ in range(6):
        tall = shuffle.uniform(0.4, 1.4) * unit
        plant(scene, view.place(*view.somewhere(shuffle, 0.2, 5)), tall, weed, shuffle, 5)
    for _ in range(5):
        coral = painted("Coral", *shade(shuffle, (0.85, 1.08), 0.6), 9 / unit, "cells", haze)
        plant(
            scene,
            view.place(*view.somewhere(shuffle, 0.1, 4)),
            shuffle.uniform(0.2, 0.5) * unit,
            coral,
            shuffle,
            9,
        )
    _strew(view, shuffle, 5, lambda place, size: rock(scene, place, 0.7 * size, stone, shuffle))
    bubble = painted("Bubble", (0.7, 0.85, 0.9), (0.8, 0.95, 1.0), 1 / unit)
    for _ in range(12):
        x, y = view.somewhere(shuffle, 0.2, 3)
        size = shuffle.uniform(0.01, 0.03) * unit
        ball(scene, "Bubble", view.place(x, y, shuffle.uniform(0.1, 2) * unit), size, bubble)
    sky(scene, deep, tuple(min(1.8 * part, 1.0) for part in deep), 1.0)
    middle = view.place(*((view.low + view.high) / 2)[:2])
    out = Vector((shuffle.uniform(-0.4, 0.4), shuffle.uniform(-0.4, 0.4), 1))
    lamp(scene, "SUN", middle + 10 * unit * out, middle, shuffle.uniform(1.5, 3.0), (0.75, 0.95, 1.0), 0.1)
    return f"{way} clear water, with rocks, weeds and corals in the background"


def clouds(scene: bpy.types.Scene, view: View, shuffle: random.Random, way: str) -> str:
    unit, light = view.unit, _daylight(scene, view, shuffle)
    haze = ((0.62, 0.70, 0.80), 150 * unit)
    _ground(scene, view, painted("Land", *shade(shuffle, (0.1, 0.35), 0.25), 0.1 / unit, "noise", haze))
    scene.objects["Ground"].location.z -= 50 * unit
    white = painted("Cloud", (0.75, 0.77, 0.8), (0.95, 0.95, 0.95), 0.8 / unit)
    for near, far, size in (
        (1.5, 4, 0.5),
        (1.5, 4, 0.5),
        (5, 12, 1.4),
        (5, 12, 1.4),
        (14, 30, 3.0),
        (14, 30, 3.0),
    ):
        x, y = view.somewhere(shuffle, near, far)
        height = shuffle.uniform(-0.12, 0.3) * (x - float(view.places[:, 0].min()))
        for _ in range(6):
            puff = Vector([shuffle.uniform(-1, 1) * size * unit * share for share in (0.5, 1.6, 0.3)])
            made = ball(
                scene, "Cloud", view.place(x + puff.x, y + puff.y, height + puff.z), size * unit, white
            )
            made.scale = (1, shuffle.uniform(0.8, 1.3), shuffle.uniform(0.5, 0.8))
    return f"{'in' if way == 'in' else 'across'} the sky {light}, with clouds in the background"


HOMES = {
    "land": (meadow, desert, street, room, studio),
    "indoors": (room, studio, street),
    "garden": (meadow, desert, street, studio),
    "water": (water,),
    "air": (clouds, meadow, desert, street),
}
"""The backgrounds of those who live there."""
