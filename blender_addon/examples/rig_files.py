"""Rigs out of files of the usual formats, each with a body and an action that plays."""

from __future__ import annotations

import math
from pathlib import Path

import bpy

from .creatures import bind, wrap

MAX_FRAMES = 81
"""Of a longer action only so much is played."""


class RigFileError(Exception):
    """What is wrong with a rig file and what to do, in a sentence."""


def import_rig(context: bpy.types.Context, path: Path, action: str | None = None) -> bpy.types.Object:
    """Bring in a rig of any of the usual formats; the scene's range becomes that of its action."""
    loaders = {
        ".glb": lambda: bpy.ops.import_scene.gltf(filepath=str(path)),
        ".gltf": lambda: bpy.ops.import_scene.gltf(filepath=str(path)),
        ".fbx": lambda: _import_fbx(path),
        ".bvh": lambda: bpy.ops.import_anim.bvh(
            filepath=str(path), update_scene_fps=False, global_scale=0.01
        ),
        ".blend": lambda: _append(context, path),
    }
    if not path.is_file():
        raise RigFileError(f"There is no file {path}; name an existing .glb, .gltf, .fbx, .blend or .bvh.")
    if path.suffix.lower() not in loaders:
        raise RigFileError(
            f"{path.name} is of a kind that can't be imported; choose a .glb, .gltf, .fbx, .blend or .bvh."
        )
    loaders[path.suffix.lower()]()
    rigs = [item for item in context.scene.objects if item.type == "ARMATURE"]
    if not rigs:
        raise RigFileError(f"{path.name} holds no armature; choose a file with a rig in it.")
    rig = max(rigs, key=lambda item: len(item.data.bones))
    _play(context.scene, rig, path, action)
    if not bodies_of(context.scene, rig):
        height = max((rig.matrix_world @ bone.head_local).z for bone in rig.data.bones) or 1.0
        bones = [
            (bone.head_local.copy(), bone.tail_local.copy()) for bone in rig.data.bones if bone.length > 1e-4
        ]
        radius = 0.035 * height / (rig.matrix_world.median_scale or 1.0)
        body = wrap(
            context,
            ((head, tail, radius, radius * 0.8) for head, tail in bones),
            voxel=radius / 2,
            name="Body",
        )
        bind(body, rig)
        body.matrix_parent_inverse.identity()
    return rig


def _import_fbx(path: Path) -> None:
    # The importer written in C++ (Blender 4.5) reads files at which the older one fails.
    if hasattr(bpy.types, "WM_OT_fbx_import"):
        bpy.ops.wm.fbx_import(filepath=str(path))
    else:
        bpy.ops.import_scene.fbx(filepath=str(path))


def _append(context: bpy.types.Context, path: Path) -> None:
    """Bring in the file's rigs and what they deform; control shapes and other people's stages stay out."""
    with bpy.data.libraries.load(str(path)) as (source, target):
        target.objects = source.objects
    rigs = {item for item in target.objects if item is not None and item.type == "ARMATURE"}
    for item in target.objects:
        if item in rigs or (
            item is not None and item.type == "MESH" and rigs & {item.parent, item.find_armature()}
        ):
            context.scene.collection.objects.link(item)


def _play(scene: bpy.types.Scene, rig: bpy.types.Object, path: Path, name: str | None) -> None:
    actions = [item for item in bpy.data.actions if item.users or item.use_fake_user] or list(
        bpy.data.actions
    )
    if name:
        matching = [item for item in actions if item.name.lower().startswith(name.lower())]
        if not matching:
            found = ", ".join(item.name for item in actions) or "none"
            raise RigFileError(f"{path.name} has no action named {name}; it has {found}.")
        rig.animation_data_create()
        for track in list(rig.animation_data.nla_tracks):
            rig.animation_data.nla_tracks.remove(track)
        rig.animation_data.action = matching[0]
        if getattr(rig.animation_data, "action_suitable_slots", None):
            rig.animation_data.action_slot = rig.animation_data.action_suitable_slots[0]
    playing = rig.animation_data and rig.animation_data.action
    if playing:
        first, last = playing.frame_range
        scene.frame_start = math.floor(first)
        scene.frame_end = min(math.ceil(last), scene.frame_start + MAX_FRAMES - 1)


def bodies_of(scene: bpy.types.Scene, rig: bpy.types.Object) -> list[bpy.types.Object]:
    """The meshes that a rig deforms."""
    return [
        item
        for item in scene.objects
        if item.type == "MESH" and any(m.type == "ARMATURE" and m.object == rig for m in item.modifiers)
    ]
