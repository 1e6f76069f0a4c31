"""Rigs out of files of the usual formats, each with a body and an action that plays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import bpy
from mathutils import Vector

from ..errors import ExportError
from ..rig.animation import all_curves, followers, keyed_frames, movers
from ..rig.limbs import choose_limbs
from ..rig.skin import FLESH_TYPES
from ..rig.subjects import instanced_objects
from ..texts import say
from .creatures import dress
from .motion_capture import import_bvh

MAX_FRAMES = 81
"""Of a longer action only so much is played."""
LFS_POINTER = b"version https://git-lfs"
"""What a file begins with that stands for another one, which Git LFS has not fetched yet."""
THICKNESS = 0.025
"""Radius of the tubes around a rig without a mesh, as a fraction of the skeleton's size."""


class RigFileError(Exception):
    """What is wrong with a rig file and what to do, in a sentence."""


def import_rig(
    context: bpy.types.Context,
    path: Path,
    action: str | None = None,
    up: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> bpy.types.Object:
    """Bring in a rig of any of the usual formats; the scene's range becomes that of its action.

    `up` is the axis of a .bvh that is up ("Y" or "Z"), None to go by its rest pose; what was taken for up is
    told in a sentence where it is not certain. Raises `RigFileError`.
    """
    loaders = {
        **dict.fromkeys((".glb", ".gltf", ".vrm"), lambda: bpy.ops.import_scene.gltf(filepath=str(path))),
        ".fbx": lambda: _import_fbx(path),
        ".bvh": lambda: import_bvh(context, path, up, tell),
        ".blend": lambda: _append(context, path),
    }
    if not path.is_file():
        raise RigFileError(
            say(
                "There is no file {path}; name an existing .glb, .gltf, .vrm, .fbx, .blend or .bvh.",
                path=path,
            )
        )
    if path.suffix.lower() not in loaders:
        raise RigFileError(
            say(
                "{path} is of a kind that can't be imported; choose a .glb, .gltf, .vrm, .fbx, .blend or "
                ".bvh.",
                path=path.name,
            )
        )
    if up is not None and path.suffix.lower() != ".bvh":
        raise RigFileError(
            say("{path} says itself which axis is up; leave out --up, which is for .bvh.", path=path.name)
        )
    _check_arrived(path)
    try:
        loaders[path.suffix.lower()]()
    except Exception as error:  # an importer is somebody else's code and raises what it likes
        raise RigFileError(
            say(
                "{path} can't be read: {reason}; choose another file.",
                path=path.name,
                reason=_reason(error, path),
            )
        ) from error
    rigs = [item for item in context.scene.objects if item.type == "ARMATURE" and item.data.bones]
    if not rigs:
        raise RigFileError(
            say("{path} holds no armature with bones; choose a file with a rig in it.", path=path.name)
        )
    rig = max(rigs, key=lambda item: len(item.data.bones))
    if not all(math.isfinite(key.co.y) for curve in all_curves(rig) for key in curve.keyframe_points):
        raise RigFileError(
            say(
                "{path} has numbers that are none in its motion; export it anew or choose another file.",
                path=path.name,
            )
        )
    _play(context.scene, rig, path, action, tell)
    if not bodies_of(context.scene, rig):
        try:
            dress(context, rig, tubes(rig))
        except ExportError as error:
            raise RigFileError(say("{path} can't be used: {error}", path=path.name, error=error)) from error
    return rig


def _check_arrived(path: Path) -> None:
    """Raise `RigFileError` where a file was never downloaded: importers call that many things."""
    with path.open("rb") as file:
        begin = file.read(len(LFS_POINTER))
    if not begin:
        raise RigFileError(say("{path} is empty; download it again.", path=path.name))
    if begin == LFS_POINTER:
        raise RigFileError(
            say("{path} only says where Git LFS keeps the file; fetch it with git lfs pull.", path=path.name)
        )


def _reason(error: Exception, path: Path) -> str:
    """The last line of what an importer said, without the file's place and that in its own code; where it
    failed without knowing why, that alone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Location: ")]
    text = lines[-1] if lines else type(error).__name__
    for prefix in ("Error: ", "RuntimeError: ", "Exception: "):
        text = text.removeprefix(prefix)
    if re.match(r"(\w+\.)*\w*(Error|error)\b", text):
        return say("it is damaged, or no {kind} at all", kind=path.suffix)
    return text.replace(str(path), path.name).rstrip(".;")


def tubes(rig: bpy.types.Object) -> list[tuple[str, Vector, Vector, float]]:
    """Bone, ends and radius of a tube around each stroke of a rig's figure at rest."""
    choice = choose_limbs(rig)
    bones = rig.data.bones
    made, begin = [], 0
    joints = [
        bones[bone].matrix_local @ Vector(offset)
        for bone, offset in zip(choice.joint_bones.tolist(), choice.joint_offsets)
    ]
    low, high = (Vector(map(reduce, zip(*joints))) for reduce in (min, max))
    size = (high - low).length
    for limb, count in zip(choice.limbs, choice.counts.tolist()):
        path = joints[begin : begin + count]
        # What ties a limb to the one it hangs on is no flesh.
        tied = count > 2 and bones[int(choice.joint_bones[begin])].name not in limb.bones
        segments = list(zip(path, path[1:]))[int(tied) :]
        for index, (start, end) in enumerate(segments):
            length = (end - start).length
            radius = min(max(0.3 * length, 0.3 * THICKNESS * size), THICKNESS * size)
            if length > 1e-4 * size:
                made.append((limb.bones[min(index, len(limb.bones) - 1)], start, end, radius))
        begin += count
    return made


def _import_fbx(path: Path) -> None:
    # The importer written in C++ (Blender 4.5) reads files at which the older one fails.
    if "fbx_import" in dir(bpy.ops.wm):
        bpy.ops.wm.fbx_import(filepath=str(path))
    else:
        bpy.ops.import_scene.fbx(filepath=str(path))


def _append(context: bpy.types.Context, path: Path) -> None:
    """Bring in the file's rigs and what they deform; control shapes and other people's stages stay out."""
    with bpy.data.libraries.load(str(path)) as (source, target):
        target.objects = source.objects
    items = [item for item in target.objects if item is not None]
    # A character may lie in another file, linked and instanced.
    items = list(dict.fromkeys(items) | instanced_objects(items))
    rigs = [item for item in items if item.type == "ARMATURE"]
    wanted = dict.fromkeys(rigs)
    for rig in rigs:
        along = followers(rig, items)
        wanted |= dict.fromkeys(item for item in along if item.type in FLESH_TYPES and not item.hide_render)
    wanted |= dict.fromkeys(item for item in movers(wanted) if item in items)
    shapes = {bone.custom_shape for rig in rigs for bone in rig.pose.bones}
    for item in wanted:
        if item not in shapes:
            context.scene.collection.objects.link(item)


def _play(
    scene: bpy.types.Scene,
    rig: bpy.types.Object,
    path: Path,
    name: str | None,
    tell: Callable[[str], None],
) -> None:
    actions = [item for item in bpy.data.actions if item.users or item.use_fake_user] or list(
        bpy.data.actions
    )
    if name:
        matching = [item for item in actions if item.name.lower().startswith(name.lower())]
        if not matching:
            found = ", ".join(item.name for item in actions) or "none"
            raise RigFileError(
                say(
                    "{path} has no action named {name}; it has {found}.",
                    path=path.name,
                    name=name,
                    found=found,
                )
            )
        rig.animation_data_create()
        for track in list(rig.animation_data.nla_tracks):
            rig.animation_data.nla_tracks.remove(track)
        rig.animation_data.action = matching[0]
        if getattr(rig.animation_data, "action_suitable_slots", None):
            rig.animation_data.action_slot = rig.animation_data.action_suitable_slots[0]
    frames = [frame for block in movers([rig]) for frame in keyed_frames(block)]
    if frames:
        scene.frame_start, last = math.floor(min(frames)), math.ceil(max(frames))
        scene.frame_end = min(last, scene.frame_start + MAX_FRAMES - 1)
        if scene.frame_end < last:
            count = last - scene.frame_start + 1
            tell(
                say(
                    "The action of {path} has {count} frames; the first {most} are played.",
                    path=path.name,
                    count=count,
                    most=MAX_FRAMES,
                )
            )


def bodies_of(scene: bpy.types.Scene, rig: bpy.types.Object) -> list[bpy.types.Object]:
    """What renders and goes where a rig goes: meshes and curves that it deforms or carries."""
    along = followers(rig, scene.objects)
    return [item for item in along if item.type in FLESH_TYPES and not item.hide_render]
