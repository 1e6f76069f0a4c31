"""A fox: Rigify's wolf metarig generated to a full control rig, skinned with a body of our own, walking.

Rigify's rig is what animators pose: some eight hundred bones of which a few dozen deform. The body is a
union of tapered capsules along the bones, remeshed to one surface; weights fall off with the distance to the
bones.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import addon_utils
import bpy
import numpy as np
from mathutils import Matrix, Quaternion, Vector

from .. import threads

Capsule = tuple[Vector, Vector, float, float]
"""Two ends and the radius at each, in metres."""

BODY = {
    "spine.004": (0.125, 0.13), "spine.005": (0.13, 0.12), "spine.006": (0.12, 0.12),
    "spine.007": (0.12, 0.13), "spine.008": (0.14, 0.12), "spine.009": (0.115, 0.105),
    "spine.010": (0.105, 0.095), "spine.011": (0.088, 0.045), "spine.003": (0.05, 0.07),
    "spine.002": (0.075, 0.11), "spine.001": (0.11, 0.115), "spine": (0.115, 0.02), "thigh": (0.105, 0.055),
    "shin": (0.052, 0.03), "foot": (0.032, 0.03), "toe": (0.036, 0.03), "shoulder": (0.06, 0.07),
    "front_thigh": (0.075, 0.045), "front_shin": (0.042, 0.03), "front_foot": (0.032, 0.032),
    "front_toe": (0.038, 0.03),
}  # fmt: skip

ORANGE, CREAM, SOOT = (0.60, 0.16, 0.025), (0.83, 0.72, 0.56), (0.025, 0.02, 0.02)


@dataclass
class Creature:
    rig: bpy.types.Object
    body: bpy.types.Object


@dataclass(frozen=True)
class Build:
    """How a fox looks and walks: colours linear RGB, `bulk` a factor on its girth, `cycle` in frames,
    `stride` in metres."""

    coat: tuple[float, float, float] = ORANGE
    light: tuple[float, float, float] = CREAM
    dark: tuple[float, float, float] = SOOT
    bulk: float = 1.0
    cycle: float = 26.0
    stride: float = 0.56

    @classmethod
    def from_seed(cls, seed: int) -> Build:
        """The build of a seed; 0 is the plain fox."""
        if not seed:
            return cls()
        rng = random.Random(seed)
        hue, saturation, value = rng.random(), rng.uniform(0.2, 0.95), rng.uniform(0.08, 0.7)
        return cls(
            coat=colorsys.hsv_to_rgb(hue, saturation, value),
            light=colorsys.hsv_to_rgb(
                hue + rng.uniform(-0.1, 0.1), rng.uniform(0, 0.4), rng.uniform(0.5, 0.9)
            ),
            dark=colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.01, 0.08)),
            bulk=rng.uniform(0.85, 1.2),
            cycle=rng.uniform(20, 34),
            stride=rng.uniform(0.42, 0.62),
        )


def build_fox(context: bpy.types.Context, seed: int = 0) -> Creature:
    """Rig, body and materials at the origin of the context's scene, looking along -Y."""
    build = Build.from_seed(seed)
    with rigify():
        bpy.ops.object.armature_wolf_metarig_add()
        metarig = context.object
        metarig.matrix_world.identity()
        capsules = [
            (head, tail, near * build.bulk, far * build.bulk)
            for head, tail, near, far in _fox_capsules(metarig)
        ]
        texts = set(bpy.data.texts)
        bpy.ops.pose.rigify_generate()
        rig = context.object
        for script in set(bpy.data.texts) - texts:  # Rigify's panel; whoever opens the file need not be asked
            script.use_module = False
    rig.name = "Fox"
    bpy.data.objects.remove(metarig)
    body = wrap(context, capsules, voxel=0.014, name="Fox Body")
    _paint(body, build)
    _add_eyes(context, body)
    bind(body, rig)
    return Creature(rig, body)


@contextmanager
def rigify():
    """Rigify for as long as it takes; it reads its preferences, so it must be among the user's add-ons."""
    enabled, _ = addon_utils.check("rigify")
    if not enabled:
        addon_utils.enable("rigify", default_set=True)
    try:
        yield
    finally:
        if not enabled:
            addon_utils.disable("rigify", default_set=True)


def _fox_capsules(metarig) -> Iterable[Capsule]:
    bones = metarig.data.bones
    for name, (head, tail) in BODY.items():
        for bone in [bones[n] for n in (name, f"{name}.L", f"{name}.R") if n in bones]:
            yield bone.head_local.copy(), bone.tail_local.copy(), head, tail
    skull, brow = Vector((0, -0.60, 0.915)), Vector((0, -0.68, 0.875))
    yield Vector((0, -0.30, 0.76)), Vector((0, 0.0, 0.72)), 0.125, 0.105  # chest
    yield skull, brow, 0.088, 0.065
    yield brow, Vector((0, -0.83, 0.825)), 0.062, 0.026
    for side in (1, -1):
        yield (
            Vector((side * 0.06, -0.66, 0.86)),
            Vector((side * 0.02, -0.60, 0.86)),
            0.045,
            0.06,
        )  # cheek ruff
        yield Vector((side * 0.06, -0.575, 0.965)), Vector((side * 0.1, -0.55, 1.15)), 0.052, 0.008  # ear


def wrap(
    context: bpy.types.Context, capsules: Iterable[Capsule], voxel: float, name: str
) -> bpy.types.Object:
    """One smooth closed surface around the capsules."""
    vertices, faces = [], []
    for head, tail, near, far in capsules:
        ring_vertices, ring_faces = _capsule(head, tail, near, far)
        faces += [tuple(i + len(vertices) for i in face) for face in ring_faces]
        vertices += ring_vertices
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices, [], faces)
    body = bpy.data.objects.new(name, mesh)
    context.scene.collection.objects.link(body)
    remesh = body.modifiers.new("Remesh", "REMESH")
    remesh.mode, remesh.voxel_size = "VOXEL", voxel
    smooth = body.modifiers.new("Smooth", "SMOOTH")
    smooth.factor, smooth.iterations = 0.5, 8
    evaluated = body.evaluated_get(context.evaluated_depsgraph_get())
    body.data = bpy.data.meshes.new_from_object(evaluated)
    body.data.name = name
    body.modifiers.clear()
    bpy.data.meshes.remove(mesh)
    body.data.polygons.foreach_set("use_smooth", np.ones(len(body.data.polygons), bool))
    return body


def _capsule(head: Vector, tail: Vector, near: float, far: float, around: int = 14, caps: int = 4):
    """Vertices and faces of two half spheres and the cone between them."""
    axis = tail - head
    turn = Vector((0, 0, 1)).rotation_difference(axis if axis.length > 1e-6 else Vector((0, 0, 1)))
    rings = [(-math.pi / 2 + math.pi / 2 * i / caps, head, near) for i in range(caps + 1)]
    rings += [(math.pi / 2 * i / caps, tail, far) for i in range(caps + 1)]
    vertices = []
    for tilt, centre, radius in rings:
        for k in range(around):
            angle = 2 * math.pi * k / around
            flat = max(math.cos(tilt), 0.02)
            vertices.append(
                centre
                + turn @ Vector((math.cos(angle) * flat, math.sin(angle) * flat, math.sin(tilt))) * radius
            )
    faces = [
        (
            r * around + k,
            r * around + (k + 1) % around,
            (r + 1) * around + (k + 1) % around,
            (r + 1) * around + k,
        )
        for r in range(len(rings) - 1)
        for k in range(around)
    ]
    last = (len(rings) - 1) * around
    return vertices, [tuple(reversed(range(around))), *faces, tuple(range(last, last + around))]


def dress(
    context: bpy.types.Context, rig: bpy.types.Object, tubes: Iterable[tuple[str, Vector, Vector, float]]
) -> bpy.types.Object:
    """A body for a rig that has none: a tube each, of a bone, two ends in armature space and a radius, that
    moves with that bone alone, so that nothing webs together however the rig is folded."""
    vertices, faces, owners = [], [], {}
    for bone, start, end, radius in tubes:
        ring_vertices, ring_faces = _capsule(start, end, radius, radius * 0.8)
        faces += [tuple(i + len(vertices) for i in face) for face in ring_faces]
        owners.setdefault(bone, []).extend(range(len(vertices), len(vertices) + len(ring_vertices)))
        vertices += ring_vertices
    mesh = bpy.data.meshes.new("Body")
    mesh.from_pydata(vertices, [], faces)
    mesh.polygons.foreach_set("use_smooth", np.ones(len(mesh.polygons), bool))
    body = bpy.data.objects.new("Body", mesh)
    context.scene.collection.objects.link(body)
    for bone, chosen in owners.items():
        body.vertex_groups.new(name=bone).add(chosen, 1.0, "REPLACE")
    body.parent = rig
    body.modifiers.new("Armature", "ARMATURE").object = rig
    return body


def bind(body: bpy.types.Object, rig: bpy.types.Object, sharpness: float = 6.0) -> None:
    """Weight every vertex to its four nearest deform bones, falling off with distance, and add the Armature
    modifier.

    The body has the rig's rest pose and neither is transformed against the other.
    """
    bones = [bone for bone in rig.data.bones if bone.use_deform]
    points = np.empty(len(body.data.vertices) * 3, np.float32)
    body.data.vertices.foreach_get("co", points)
    points = points.reshape(-1, 1, 3)
    heads = np.array([bone.head_local for bone in bones], np.float32)
    spans = np.array([bone.tail_local for bone in bones], np.float32) - heads
    along = ((points - heads) * spans).sum(-1) / np.maximum((spans**2).sum(-1), 1e-12)
    distances = np.linalg.norm(points - heads - np.clip(along, 0, 1)[..., None] * spans, axis=-1)
    nearest = np.argsort(distances, axis=1)[:, :4]
    weights = 1 / np.maximum(np.take_along_axis(distances, nearest, 1), 1e-3) ** sharpness
    weights /= weights.sum(1, keepdims=True)
    for index, bone in enumerate(bones):
        rows, columns = np.nonzero(nearest == index)
        if len(rows):
            group = body.vertex_groups.new(name=bone.name)
            for vertex, weight in zip(rows.tolist(), weights[rows, columns].tolist()):
                if weight > 0.01:
                    group.add([vertex], weight, "REPLACE")
    body.parent = rig
    body.modifiers.new("Armature", "ARMATURE").object = rig


def _paint(body: bpy.types.Object, build: Build) -> None:
    """Coat, bib, stockings, tail tip and nose as a colour attribute."""
    points = np.empty(len(body.data.vertices) * 3, np.float32)
    body.data.vertices.foreach_get("co", points)
    x, y, z = points.reshape(-1, 3).T
    colours = np.ones((len(x), 4), np.float32)

    def blend(where, colour):
        mix = np.clip(where, 0, 1)[:, None]
        colours[:, :3] = colours[:, :3] * (1 - mix) + np.array(colour, np.float32) * mix

    blend(np.ones_like(x), build.coat)
    blend((0.69 - z) / 0.04 * (np.abs(x) < 0.085) * (y > -0.5), build.light)  # belly
    blend((0.80 - z) / 0.06 * ((y < -0.33) & (y > -0.5)), build.light)  # bib
    blend((0.845 - z) / 0.02 * (y < -0.55) * (z > 0.6), build.light)  # muzzle and cheeks from below
    blend((y - 0.97) / 0.04, build.light)  # tail tip
    blend((0.45 - z) / 0.12, build.coat)
    blend((0.32 - z) / 0.1, build.dark)  # stockings
    blend((z - 1.06) / 0.04, build.dark)  # ear tips
    blend((-0.825 - y) / 0.012, build.dark)  # nose
    body.data.color_attributes.new("Coat", "FLOAT_COLOR", "POINT").data.foreach_set("color", colours.ravel())
    body.data.materials.append(coat())


def coat() -> bpy.types.Material:
    material = bpy.data.materials.new("Coat")
    if material.node_tree is None:  # it always has one from Blender 5.0 on
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    colour = nodes.new("ShaderNodeVertexColor")
    colour.layer_name = "Coat"
    links.new(colour.outputs["Color"], principled.inputs["Base Color"])
    principled.inputs["Roughness"].default_value = 0.75
    if "Sheen Weight" in principled.inputs:
        principled.inputs["Sheen Weight"].default_value = 0.4
    noise = nodes.new("ShaderNodeTexNoise")
    noise.inputs["Scale"].default_value = 90
    bump = nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = 0.35
    bump.inputs["Distance"].default_value = 0.01
    links.new(noise.outputs[0], bump.inputs["Height"])
    links.new(bump.outputs["Normal"], principled.inputs["Normal"])
    return material


def _add_eyes(context: bpy.types.Context, body: bpy.types.Object) -> None:
    """Two black spheres, part of the body's mesh."""
    vertices, faces = [], []
    for side in (1, -1):
        eye = Vector((side * 0.062, -0.70, 0.905))
        ring_vertices, ring_faces = _capsule(eye, eye + Vector((0, -0.001, 0)), 0.017, 0.017)
        faces += [tuple(i + len(vertices) for i in face) for face in ring_faces]
        vertices += ring_vertices
    mesh = bpy.data.meshes.new("Eyes")
    mesh.from_pydata(vertices, [], faces)
    black = np.tile(np.array([0.004, 0.003, 0.003, 1], np.float32), len(vertices))
    mesh.color_attributes.new("Coat", "FLOAT_COLOR", "POINT").data.foreach_set("color", black)
    mesh.materials.append(body.data.materials[0])
    eyes = bpy.data.objects.new("Eyes", mesh)
    context.scene.collection.objects.link(eyes)
    joined = {"active_object": body, "object": body, "selected_editable_objects": [body, eyes]}
    with threads.still(), context.temp_override(**joined):
        bpy.ops.object.join()


def animate_walk(rig: bpy.types.Object, frames: int, seed: int = 0) -> None:
    """Key a walk along -Y on the fox's own controls, as an animator would: IK feet, torso, head and tail."""
    build = Build.from_seed(seed)
    cycle, stride = build.cycle, build.stride
    feet = {"foot_ik.L": 0.0, "front_foot_ik.L": 0.25, "foot_ik.R": 0.5, "front_foot_ik.R": 0.75}
    for frame in range(1, frames + 1):
        time = (frame - 1) / cycle
        wave = 2 * math.pi * time
        _move(rig, "root", frame, Vector((0, -stride * time, 0)))
        for name, phase in feet.items():
            forward, lift = step((time + phase) % 1.0)
            _move(rig, name, frame, Vector((0, -forward * stride / 2, lift * 0.11)))
            _turn(rig, name, frame, (1, 0, 0), 0.55 * lift)
        _move(rig, "torso", frame, Vector((0.012 * math.sin(wave), 0, 0.012 * math.cos(2 * wave) - 0.02)))
        _turn(rig, "hips", frame, (0, 0, 1), 0.06 * math.sin(wave))
        _turn(rig, "chest", frame, (0, 0, 1), -0.06 * math.sin(wave + 0.6))
        _turn(rig, "neck", frame, (1, 0, 0), 0.10 + 0.05 * math.sin(2 * wave + 0.4))
        _turn(rig, "head", frame, (1, 0, 0), -0.06 - 0.05 * math.sin(2 * wave + 0.9))
        for link, name in enumerate(("spine.003", "spine.002", "spine.001", "spine")):
            sway = Quaternion((0, 0, 1), 0.16 * math.sin(wave - 0.7 * link))
            droop = Quaternion(
                (1, 0, 0), -(0.34, 0.12, -0.10, -0.18)[link] + 0.05 * math.sin(2 * wave - 0.6 * link)
            )
            rotate(rig, name, frame, sway @ droop)


def step(phase: float, stance: float = 0.62) -> tuple[float, float]:
    """A foot's place along its stride (1 ahead .. -1 behind, seen from the body) and its lift (0..1), of a
    cycle in which it is on the ground for the part `stance`."""
    if phase < stance:
        return 1 - 2 * phase / stance, 0.0
    swing = (phase - stance) / (1 - stance)
    return -math.cos(math.pi * swing), math.sin(math.pi * swing)


def _basis(rig, name: str) -> Matrix:
    return rig.data.bones[name].matrix_local.to_3x3()


def _move(rig, name: str, frame: int, offset: Vector) -> None:
    bone = rig.pose.bones[name]
    bone.location = _basis(rig, name).inverted() @ offset
    bone.keyframe_insert("location", frame=frame)


def _turn(rig, name: str, frame: int, axis: tuple[float, float, float], angle: float) -> None:
    rotate(rig, name, frame, Quaternion(axis, angle))


def rotate(rig, name: str, frame: int, rotation: Quaternion) -> None:
    bone, basis = rig.pose.bones[name], _basis(rig, name)
    bone.rotation_mode = "QUATERNION"
    bone.rotation_quaternion = (basis.inverted() @ rotation.to_matrix() @ basis).to_quaternion()
    bone.keyframe_insert("rotation_quaternion", frame=frame)
