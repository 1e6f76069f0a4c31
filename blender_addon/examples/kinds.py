"""Subjects of many kinds to train on: Rigify's metarigs and skeletons that are made up here, each in
proportions, colours and motions of its seed."""

from __future__ import annotations

import colorsys
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Vector

from .creatures import Build, animate_walk, bind, build_fox, coat, rigify, wrap
from .gaits import animate
from .props import colour_name
from .rig_files import tubes

METARIGS = ("human", "wolf", "cat", "horse", "bird", "shark", "basic_quadruped")
"""As Rigify names them."""
Bones = dict[str, tuple[Vector, Vector, str]]
"""By name the head, the tail and the parent's name, "" for none; in metres."""
VOXELS = 90
"""Of a body's surface, along the skeleton's size."""
SIDE = re.compile(r"[ ._]?[LR](?=\.\d+$|$)")


def chain(bones: Bones, name: str, parent: str, points: list[Vector]) -> None:
    """Add bones from point to point, the first of them a child of `parent`."""
    for number, (head, tail) in enumerate(zip(points, points[1:])):
        bones[f"{name}.{number:02d}"] = head, tail, parent
        parent = f"{name}.{number:02d}"


def snake(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    bends = [0.12 * math.sin(0.8 * index) for index in range(15)]
    chain(bones, "spine", "", [Vector((x, 0.16 * index, 0.06)) for index, x in enumerate(bends)])
    return bones


def spider(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    chain(bones, "body", "", [Vector((0, y, 0.35)) for y in (0.35, 0.0, -0.25)])
    for number in range(8):
        side, turn = 1 - 2 * (number % 2), math.radians(35 * (number // 2) - 52)
        out = Vector((side * math.cos(turn), math.sin(turn), 0))
        reach = ((0.1, 0.35), (0.4, 0.65), (0.75, 0.35), (1.0, 0.0))
        points = [out * far + Vector((0, 0, height)) for far, height in reach]
        chain(bones, f"leg {number // 2}{'LR'[number % 2]}", "body.01", points)
    for side, x in (("L", 1), ("R", -1)):
        points = [Vector((0.06 * x * k, 0.35 + 0.17 * k, 0.38 + 0.1 * min(k, 2))) for k in range(4)]
        chain(bones, f"feeler {side}", "body.00", points)
    return bones


def lamp(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    points = [(0, 0, 0), (0, 0, 0.15), (0, 0.4, 0.7), (0, -0.2, 1.2), (0, -0.45, 1.0)]
    chain(bones, "stand", "", list(map(Vector, points)))
    return bones


def arm(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    points = [Vector((0, 0, height)) for height in (0.0, 0.6, 1.15, 1.35)]
    chain(bones, "arm", "", points)
    for finger in range(5):
        across = 0.06 * (finger - 2)
        heights = (1.35, 1.47, 1.56, 1.63) if finger else (1.2, 1.3, 1.37, 1.43)
        points = [Vector((across * (1 + 0.5 * k), 0, height)) for k, height in enumerate(heights)]
        chain(bones, f"finger {finger}", "arm.02", points)
    return bones


def tree(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    chain(bones, "trunk", "", [Vector((0, 0, 0.4 * index)) for index in range(5)])
    for number in range(9):
        turn, root = shuffle.uniform(0, 2 * math.pi), 1 + number % 3
        out = Vector((math.cos(turn), math.sin(turn), 0.7)) * shuffle.uniform(0.2, 0.35)
        base = bones[f"trunk.{root:02d}"][1]
        chain(bones, f"branch {number}", f"trunk.{root:02d}", [base + out * k for k in range(4)])
    return bones


def octopus(shuffle: random.Random) -> Bones:
    bones: Bones = {}
    chain(bones, "head", "", [Vector((0, 0, height)) for height in (0.5, 0.75, 1.05)])
    for number in range(8):
        turn = math.pi / 4 * number
        out = Vector((math.cos(turn), math.sin(turn), 0))
        points = [out * (0.1 + 0.19 * k) + Vector((0, 0, 0.5 - 0.16 * min(k, 3))) for k in range(7)]
        chain(bones, f"tentacle {number}", "head.00", points)
    return bones


MADE_UP: dict[str, Callable[[random.Random], Bones]] = {
    each.__name__: each for each in (snake, spider, lamp, arm, tree, octopus)
}
KINDS = (*METARIGS, *MADE_UP)
NAMES = {"basic_quadruped": "four-legged animal", "human": "person"}
"""Of those that a prompt calls otherwise."""
HOMES = {"shark": "water", "octopus": "water", "lamp": "indoors", "arm": "indoors", "tree": "garden"}
"""Where they live that do not live on land."""


@dataclass(frozen=True)
class Actor:
    """A rig that moves, and how a prompt tells of it: "A blue wolf" and "trots". `home` is where it lives,
    one of `backgrounds.HOMES`; a `still` one stays where it is."""

    rig: bpy.types.Object
    name: str
    does: str
    home: str = "land"
    still: bool = False


def build(context: bpy.types.Context, kind: str, seed: int) -> Actor:
    """A rig of one of `KINDS` with a body, moving for all of the scene's range. The same seed gives the same
    one."""
    shuffle = random.Random(f"{kind} {seed}")
    bones = MADE_UP[kind](shuffle) if kind in MADE_UP else _metarig(context, kind)
    if kind == "human" and shuffle.random() < 0.5:
        skull = bones["spine.006"][0]
        hangs = ((0.09, 0.12), (0.17, 0.08), (0.2, -0.06), (0.2, -0.22))
        chain(bones, "hair", "spine.006", [skull + Vector((0, back, up)) for back, up in hangs])
    rig = _armature(context, _reshaped(bones, shuffle), kind.replace("_", " ").capitalize())
    capsules = []
    thickness, taper, trunk = shuffle.uniform(1.0, 1.6), shuffle.uniform(0.6, 1.0), shuffle.uniform(1.5, 2.5)
    for bone, start, end, radius in tubes(rig):
        radius *= thickness * (1 if SIDE.search(bone) else trunk)
        capsules.append((start, end, radius, taper * radius))
    body = wrap(context, capsules, voxel=_size(rig) / VOXELS, name=f"{rig.name} Body")
    colour = _paint(body, shuffle)
    bind(body, rig)
    does = animate(context.scene, rig, kind, shuffle)
    home = "air" if does == "flies" else HOMES.get(kind, "land")
    still = kind in ("lamp", "arm", "tree") or does.startswith(("stands", "turns"))
    return Actor(rig, _named(colour, NAMES.get(kind, kind)), does, home, still)


def fox(context: bpy.types.Context, kind: str, seed: int) -> Actor:
    """The walking fox of the example shot, for all of the scene's range."""
    scene, rig = context.scene, build_fox(context, seed).rig
    animate_walk(rig, scene.frame_end - scene.frame_start + 1, seed)
    return Actor(rig, _named(colour_name(*colorsys.rgb_to_hsv(*Build.from_seed(seed).coat)), "fox"), "walks")


def _named(colour: str, name: str) -> str:
    return f"{'An' if colour[0] in 'aeiou' else 'A'} {colour} {name}"


def _metarig(context: bpy.types.Context, kind: str) -> Bones:
    with rigify():
        getattr(bpy.ops.object, f"armature_{kind}_metarig_add")()
    metarig = context.object
    roots = [bone for bone in metarig.data.bones if bone.parent is None]
    bones = {
        bone.name: (bone.head_local.copy(), bone.tail_local.copy(), bone.parent.name if bone.parent else "")
        for root in roots
        for bone in (root, *root.children_recursive)
    }
    bpy.data.objects.remove(metarig)
    return bones


def _reshaped(bones: Bones, shuffle: random.Random) -> Bones:
    """The same bones, parents first, in other lengths, alike on both sides."""
    factors: dict[str, float] = {}
    made: Bones = {}
    for name, (head, tail, parent) in bones.items():
        factor = factors.setdefault(SIDE.sub("", name), shuffle.uniform(0.8, 1.3))
        if parent:
            (old_head, old_tail, _), (new_head, new_tail, _) = bones[parent], made[parent]
            share = (new_tail - new_head).length / (old_tail - old_head).length
            head_now = new_head + share * (head - old_head)
        else:
            head_now = head
        made[name] = head_now, head_now + factor * (tail - head), parent
    return made


def _armature(context: bpy.types.Context, bones: Bones, name: str) -> bpy.types.Object:
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    context.scene.collection.objects.link(rig)
    context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for bone, (head, tail, parent) in bones.items():
        made = data.edit_bones.new(bone)
        made.head, made.tail = head, tail
        made.parent = data.edit_bones.get(parent)
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


def _size(rig: bpy.types.Object) -> float:
    ends = np.array([end for bone in rig.data.bones for end in (bone.head_local, bone.tail_local)])
    return float(np.linalg.norm(np.ptp(ends, axis=0)))


def _paint(body: bpy.types.Object, shuffle: random.Random) -> str:
    """Stripes or spots of two colours, and a third from below; returns the name of what most of it has."""
    points = np.empty(len(body.data.vertices) * 3, np.float32)
    body.data.vertices.foreach_get("co", points)
    points = points.reshape(-1, 3)
    places = (points - points.min(0)) / np.ptp(points, axis=0).max()
    waves = [np.sin(shuffle.uniform(15, 60) * place + shuffle.uniform(0, 6)) for place in places.T]
    pattern = waves[1] if shuffle.random() < 0.5 else waves[0] * waves[1] * waves[2]
    colours = [(shuffle.random(), shuffle.uniform(0, 0.9), shuffle.uniform(0.05, 0.8)) for _ in range(3)]
    which = np.zeros(len(points), int)
    which[pattern > shuffle.uniform(0, 0.7)] = 1
    which[places[:, 2] < shuffle.uniform(0, 0.3)] = 2
    painted = np.ones((len(points), 4), np.float32)
    painted[:, :3] = np.array([colorsys.hsv_to_rgb(*colour) for colour in colours])[which]
    body.data.color_attributes.new("Coat", "FLOAT_COLOR", "POINT").data.foreach_set("color", painted.ravel())
    body.data.materials.append(coat())
    return colour_name(*colours[np.bincount(which, minlength=3).argmax()])
