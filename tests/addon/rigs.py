"""Rigs as users have them: imported, generated, hand-made; a camera on them; and the exporter run to its
end."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Vector

from tests.addon.servers import module

ROOT = Path(__file__).resolve().parents[2]
FOX = ROOT.parent / "shared" / "data" / "rigs" / "Fox.glb"

needs_fox = pytest.mark.skipif(not FOX.exists(), reason="shared/data/rigs/Fox.glb is not here")

_made = tempfile.TemporaryDirectory(prefix="rigs-")
_GENERATE = """
import importlib, os, sys
import bpy, addon_utils
name, kind, path = sys.argv[1:]
bpy.ops.wm.read_factory_settings(use_empty=True)
addon_utils.enable("rigify", default_set=True)
armature = bpy.data.armatures.new("metarig")
metarig = bpy.data.objects.new("metarig", armature)
bpy.context.scene.collection.objects.link(metarig)
bpy.context.view_layer.objects.active = metarig
bpy.ops.object.mode_set(mode="EDIT")
importlib.import_module("rigify.metarigs." + kind).create(metarig)
bpy.ops.object.mode_set(mode="OBJECT")
bpy.ops.pose.rigify_generate()
rig = next(obj for obj in bpy.data.objects if obj.type == "ARMATURE" and obj is not metarig)
rig.name = name
bpy.data.objects.remove(metarig)
bpy.ops.wm.save_as_mainfile(filepath=path)
os._exit(0)  # Blender 4.2 crashes when it quits after Rigify
"""


@functools.cache
def generated(kind: str) -> Path:
    """A .blend with the rig that Rigify generates from a metarig ("human", "Animals.wolf"), made once."""
    path = Path(_made.name, f"{kind}.blend")
    command = [sys.executable, "-c", _GENERATE, kind, kind, str(path)]
    own = os.environ | {"BLENDER_USER_RESOURCES": f"{_made.name}/profile"}  # or this one loses its packages
    subprocess.run(command, check=True, capture_output=True, text=True, env=own, timeout=240)
    return path


def append_rig(kind: str, link: bool = False) -> bpy.types.Object:
    """The rig of a generated file, in the scene (or, linked, only in the file's data)."""
    with bpy.data.libraries.load(str(generated(kind)), link=link) as (_, chosen):
        chosen.objects = [kind]
    rig = chosen.objects[0]
    if not link:
        bpy.context.scene.collection.objects.link(rig)
    return rig


def import_fox(action: str = "Survey") -> tuple[bpy.types.Object, bpy.types.Object]:
    """The glTF fox as it comes in, playing an action: armature and mesh."""
    bpy.ops.import_scene.gltf(filepath=str(FOX))
    rig, mesh = bpy.data.objects["root"], bpy.data.objects["fox"]
    bpy.data.objects.remove(bpy.data.objects["Icosphere"])
    while rig.animation_data.nla_tracks:
        rig.animation_data.nla_tracks.remove(rig.animation_data.nla_tracks[0])
    play(rig, next(found for found in bpy.data.actions if found.name.startswith(action)))
    return rig, mesh


def play(rig, action) -> None:
    rig.animation_data.action = action
    if hasattr(rig.animation_data, "action_slot"):
        rig.animation_data.action_slot = action.slots[0]


def make_armature(name: str, bones: dict) -> bpy.types.Object:
    """An armature object from {bone: (head, tail, parent or "")}."""
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for bone, (head, tail, parent) in bones.items():
        edit_bone = data.edit_bones.new(bone)
        edit_bone.head, edit_bone.tail = head, tail
        edit_bone.parent = data.edit_bones.get(parent)
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


LEGGED = {
    "hips": ((0, 0, 1.0), (0, 0, 1.2), ""),
    "chest": ((0, 0, 1.2), (0, 0, 1.6), "hips"),
    "head": ((0, 0, 1.6), (0, 0, 1.9), "chest"),
    "thigh.L": ((0.2, 0, 1.0), (0.2, -0.05, 0.5), "hips"),
    "shin.L": ((0.2, -0.05, 0.5), (0.2, 0, 0.0), "thigh.L"),
    "thigh.R": ((-0.2, 0, 1.0), (-0.2, -0.05, 0.5), "hips"),
    "shin.R": ((-0.2, -0.05, 0.5), (-0.2, 0, 0.0), "thigh.R"),
}
"""A plain little biped."""


def flesh(
    rig: bpy.types.Object, bones=None, thickness: float = 0.25, name: str = "flesh"
) -> bpy.types.Object:
    """One mesh with a box around each deforming bone (or each of `bones`), skinned to it alone."""
    corners, faces, owners = [], [], []
    for bone in rig.data.bones:
        if not bone.use_deform or (bones is not None and bone.name not in bones):
            continue
        width, length = bone.length * thickness / 2, bone.length
        first = len(corners)
        for y in np.linspace(0, length, 4):
            for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corners.append(bone.matrix_local @ Vector((x * width, y, z * width)))
                owners.append(bone.name)
        for ring in range(first, first + 12, 4):
            faces += [(ring + i, ring + (i + 1) % 4, ring + 4 + (i + 1) % 4, ring + 4 + i) for i in range(4)]
        faces += [(first + 3, first + 2, first + 1, first), tuple(range(first + 12, first + 16))]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners, [], faces)
    body = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(body)
    for bone in dict.fromkeys(owners):
        body.vertex_groups.new(name=bone).add(
            [i for i, owner in enumerate(owners) if owner == bone], 1.0, "REPLACE"
        )
    body.parent = rig
    body.modifiers.new("Armature", "ARMATURE").object = rig
    return body


def swing(rig, bone: str, axis=0, angle=0.8, frames=9) -> None:
    """Key a bone's turn about one of its axes, from rest in frame 1 to `angle` radians in the last."""
    pose_bone = rig.pose.bones[bone]
    pose_bone.rotation_mode = "XYZ"
    for frame, value in ((1, 0.0), (frames, angle)):
        pose_bone.rotation_euler[axis] = value
        pose_bone.keyframe_insert("rotation_euler", index=axis, frame=frame)


def add_camera(target=(0, 0, 1), direction=(1, -1, 0.3), distance=6.0, **settings) -> bpy.types.Object:
    """The scene's new camera, looking at a point; `settings` go to its data."""
    scene = bpy.context.scene
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    direction = Vector(direction).normalized()
    camera.location = Vector(target) + direction * distance
    camera.rotation_euler = (-direction).to_track_quat("-Z", "Y").to_euler()
    camera.data.clip_end = 100 * distance
    for name, value in settings.items():
        setattr(camera.data, name, value)
    bpy.context.view_layer.update()
    return camera


def write_picture(path: Path, pixels: np.ndarray) -> str:
    """Write [H, W, 3] uint8 pixels to a PNG file with Blender's own writer."""
    height, width, _ = pixels.shape
    image = bpy.data.images.new("picture", width, height)
    rgba = np.concatenate([pixels[::-1] / 255, np.ones((height, width, 1))], axis=2).astype(np.float32)
    image.pixels.foreach_set(rgba.ravel())
    image.file_format = "PNG"
    image.filepath_raw = str(path)
    image.save()
    bpy.data.images.remove(image)
    return str(path)


def read_png(data: bytes) -> np.ndarray:
    """[H, W, 3] uint8 of a PNG file's bytes, read by Blender's own reader."""
    path = Path(_made.name, "read.png")
    path.write_bytes(data)
    image = bpy.data.images.load(str(path))
    width, height = image.size
    pixels = np.empty(height * width * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return (pixels.reshape(height, width, 4)[::-1, :, :3] * 255 + 0.5).astype(np.uint8)


def grey_picture() -> str:
    """A plain picture to begin with, so that nothing has to be rendered."""
    path = Path(_made.name, "grey.png")
    return str(path) if path.exists() else write_picture(path, np.full((32, 32, 3), 90, np.uint8))


def options(armatures, **given):
    """Export options of a short, small shot with a plain first frame."""
    start, step, count = (
        given.pop(name, default)
        for name, default in (("frame_start", 1), ("frame_step", 1), ("num_frames", 3))
    )
    settings = {
        "times": module("times").ClipTimes(start, step, count, count * step),
        "width": 256,
        "height": 160,
        "view": module("view").SceneCamera(),
        "first_frame": grey_picture(),
    }
    return module("request.export").ExportOptions(armatures=tuple(armatures), **{**settings, **given})


def export(armatures, **given):
    """The clip of a shot as `options` describes it."""
    return run(module("request.export").export_clip(bpy.context, options(armatures, **given)))[0]


def watch(rig, frames=9):
    """How a rig moves in a shot of some frames."""
    steps = module("request.export").watch_range(bpy.context, options([rig], num_frames=frames))
    return run(steps)[0][rig]


def run(steps):
    """What a generator returns, and how often it paused on the way."""
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            return finished.value, pauses
        pauses += 1


def strokes(armature):
    """Each limb's name with its joints [K, 3] in world space in the current frame."""
    subjects = module("steps").at_once(module("rig.subjects").find_subjects([armature]))
    sampler = module("rig.sampling").Sampler(subjects)
    joints = sampler.sample(bpy.context.evaluated_depsgraph_get())
    limbs = [limb for subject in subjects for limb in subject.choice.limbs]
    pieces = np.split(joints, np.cumsum(sampler.counts)[:-1])
    return {limb.name: piece for limb, piece in zip(limbs, pieces)}
