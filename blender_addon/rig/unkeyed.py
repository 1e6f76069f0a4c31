"""What is posed and not keyed: going to another frame and back would lose it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from .subjects import instanced_objects

CHANNELS = {
    "location": 3,
    "rotation_quaternion": 4,
    "rotation_euler": 3,
    "rotation_axis_angle": 4,
    "scale": 3,
}


@contextmanager
def unkeyed_kept(scene: bpy.types.Scene, frame: int, subframe: float) -> Iterator[None]:
    """Go back to a frame at the end, with every object and bone as it is now, keyed or not: what is not
    animated stays anyway. What is removed meanwhile is passed over."""
    every = {*scene.objects, *instanced_objects(scene.objects)}
    objects = {obj: _channels([obj]) for obj in every if obj.animation_data is not None}
    poses = {obj: _read(obj.pose.bones) for obj in objects if obj.pose is not None}
    try:
        yield
    finally:
        scene.frame_set(frame, subframe=subframe)
        for obj, before in objects.items():
            try:
                _restore(obj, before, poses.get(obj))
            except ReferenceError:
                continue


def _channels(items) -> dict[str, np.ndarray]:
    return {
        name: np.array([getattr(item, name)[:] for item in items], np.float32).ravel() for name in CHANNELS
    }


def _read(bones) -> dict[str, np.ndarray]:
    found = {}
    for name, width in CHANNELS.items():
        found[name] = np.empty(len(bones) * width, np.float32)
        bones.foreach_get(name, found[name])
    return found


def _restore(
    obj: bpy.types.Object, before: dict[str, np.ndarray], pose: dict[str, np.ndarray] | None
) -> None:
    now = _channels([obj])
    for name, value in before.items():
        if (now[name] != value).any():
            setattr(obj, name, value.tolist())
    if pose is None or len(obj.pose.bones) * 3 != len(pose["location"]):
        return
    now, changed = _read(obj.pose.bones), False
    for name, value in pose.items():
        if (now[name] != value).any():
            obj.pose.bones.foreach_set(name, value)
            changed = True
    if changed:
        obj.update_tag(refresh={"DATA"})
