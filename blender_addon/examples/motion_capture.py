"""Motion capture from BVH files, which do not say which of their axes is up."""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import bpy
from mathutils import Vector

from ..texts import say

FORWARD = {"Y": "-Z", "Z": "Y"}
"""The axis that Blender's importer is told is forward, by the one that is up."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FRAME_TIME = re.compile(r"frame time:\s*(?=[\d.]*[1-9])", re.IGNORECASE)
"""What stands before the time between two frames, unless that is 0."""
ALONG = 0.8
"""Cosine from which on legs go along an axis."""
SAME = 0.5
"""Cosine from which on two things go the same way."""
ALIKE = 0.9
"""Two legs are as long as each other, but for this ratio."""


def import_bvh(context: bpy.types.Context, path: Path, up: str | None, tell: Callable[[str], None]) -> None:
    """Bring in a file with "Y" or "Z" up; where that is None, as its rest pose stands. What is not certain is
    told."""
    _read(path, up or "Y")
    if up is not None:
        return
    stands = standing_axis(context.object.data)
    if stands is None:
        tell(
            say(
                "The rest pose of {path} does not tell which axis is up, so Y is, as it is most often; take "
                "Z with --up Z.",
                path=path.name,
            )
        )
    elif stands == "Z":
        lying = context.object
        if lying.animation_data is not None:  # a file may have no motion
            bpy.data.actions.remove(lying.animation_data.action)
        bpy.data.armatures.remove(lying.data)
        _read(path, "Z")
        tell(
            say(
                "The rest pose of {path} stands along the Z axis, so Z is up; take Y with --up Y.",
                path=path.name,
            )
        )


def _read(path: Path, up: str) -> None:
    """Bring a file in at the scene's frame rate, in whichever encoding its names are."""
    raw = path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="poseanything-") as folder:
        readable = path
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("utf-16" if raw.startswith(UTF_16) else "latin-1", errors="replace")
            readable = Path(folder, path.name)
            readable.write_text(text, encoding="utf-8")
        bpy.ops.import_anim.bvh(
            filepath=str(readable),
            update_scene_fps=False,
            use_fps_scale=FRAME_TIME.search(text) is not None,
            global_scale=0.01,
            axis_up=up,
            axis_forward=FORWARD[up],
        )


def standing_axis(armature: bpy.types.Armature) -> str | None:
    """Along which axis of its file a figure stands that was brought in with Y up: "Y", "Z", or None where its
    rest pose does not tell. Its legs are the longest two chains that are alike and go the same way, and the
    rest of the body does not go there."""
    legs = _legs(armature)
    if legs is None:
        return None
    down = sum(map(_way, legs), Vector()).normalized()
    below = {bone.name for leg in legs for bone in (leg[0], *leg[0].children_recursive)}
    others = [bone.head_local for bone in armature.bones if bone.name not in below]
    hip = sum((leg[0].head_local for leg in legs), Vector()) / len(legs)
    body = sum(others, Vector()) / len(others) - hip
    if body.normalized().dot(down) > SAME:
        return None
    # The importer turned the file's Y axis to Blender's Z, and its Z to Blender's -Y.
    for axis, ground in (("Y", Vector((0, 0, -1))), ("Z", Vector((0, 1, 0)))):
        if down.dot(ground) > ALONG:
            return axis
    return None


def _legs(armature: bpy.types.Armature) -> tuple[list[bpy.types.Bone], ...] | None:
    """The longest two chains of bones that begin at one bone, are alike and go the same way."""
    chains: dict[str, list[bpy.types.Bone]] = {}
    for bone in list(armature.bones)[::-1]:  # children before parents
        onward = max((chains[child.name] for child in bone.children), key=_length, default=[])
        chains[bone.name] = [bone, *onward]
    pairs = [
        pair
        for bone in armature.bones
        for pair in combinations([chains[child.name] for child in bone.children], 2)
        if _are_alike(*pair)
    ]
    return max(pairs, key=lambda pair: _length(pair[0]), default=None)


def _are_alike(one: list[bpy.types.Bone], other: list[bpy.types.Bone]) -> bool:
    if len(one) != len(other):
        return False
    shorter, longer = sorted((_length(one), _length(other)))
    return shorter > ALIKE * longer and _way(one).dot(_way(other)) > SAME


def _way(chain: list[bpy.types.Bone]) -> Vector:
    """Where a chain goes, of length 1."""
    return (chain[-1].tail_local - chain[0].head_local).normalized()


def _length(chain: list[bpy.types.Bone]) -> float:
    return sum(bone.length for bone in chain)
