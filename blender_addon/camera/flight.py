"""A camera's way through space, as it was flown or as a move makes it, and its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import bpy
import numpy as np
from mathutils import Matrix, Quaternion, Vector

from ..rig.animation import action_curves
from ..view import Viewport

_KEYED = (
    "location",
    "rotation_euler",
    "rotation_quaternion",
    "rotation_axis_angle",
    "lens",
    "ortho_scale",
)
NEAR = 1e-2
"""Keys that lie closer together than this part of a frame are one to Blender."""


class Flight:
    """What a 3D view showed while somebody flew through it: places and zooms over time.

    `add` takes what was seen at a scene frame, which may lie between two; `resampled` gives whole frames.
    """

    def __init__(self) -> None:
        self._frames: list[float] = []
        self._places: list[Vector] = []
        self._turns: list[Quaternion] = []
        self._zooms: list[float] = []

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def last(self) -> float:
        """The last frame that was flown."""
        return self._frames[-1]

    def add(self, frame: float, placed: Matrix, zoom: float) -> None:
        """placed: from the camera to the world. zoom: half a picture's width at a distance of one is
        1 / zoom."""
        if self._frames and frame <= self._frames[-1]:
            return
        turn = placed.to_quaternion()
        if self._turns and turn.dot(self._turns[-1]) < 0:
            turn.negate()
        self._frames.append(frame)
        self._places.append(placed.to_translation())
        self._turns.append(turn)
        self._zooms.append(zoom)

    def resampled(self, frames: Sequence[int], smoothing: float = 0.0) -> tuple[list[Matrix], list[float]]:
        """Camera to world, and the zoom, at whole frames; `smoothing` is how many frames around each are
        averaged (the standard deviation of a Gaussian)."""
        if not self._frames:
            raise ValueError("Nothing was flown.")
        at = np.clip(frames, self._frames[0], self._frames[-1])
        known = np.column_stack([self._places, self._turns, self._zooms])
        values = np.column_stack([np.interp(at, self._frames, column) for column in known.T])
        if smoothing > 0 and len(values) > 1:
            away = np.arange(len(values))
            weights = np.exp(-((away[:, None] - away) ** 2) / (2 * smoothing**2))
            values = weights @ values / weights.sum(axis=1, keepdims=True)
        matrices = [
            Matrix.LocRotScale(Vector(row[:3]), Quaternion(row[3:7]).normalized(), None) for row in values
        ]
        return matrices, values[:, 7].tolist()


def seen_zoom(viewport: Viewport, width: float, height: float) -> float:
    """The zoom with which a camera whose picture has the aspect `width` / `height` shows the part of a 3D
    view that a clip of that aspect would."""
    shown = min(1.0, width / height / (viewport.width / viewport.height))
    return float(viewport.frozen.projection[0, 0] / shown)


def lens_of(data: bpy.types.Camera, zoom: float, width: float, height: float) -> float:
    """The focal length, in millimetres, that gives a camera a zoom in a picture of `width` x `height`."""
    if data.sensor_fit == "VERTICAL":
        return zoom * width / height * data.sensor_height / 2
    if data.sensor_fit == "AUTO" and height > width:
        return zoom * width / height * data.sensor_width / 2
    return zoom * data.sensor_width / 2


def blended(flown: Sequence[Matrix], before: Sequence[Matrix], length: int) -> list[Matrix]:
    """A flight that leaves an earlier one over its first `length` frames and comes back to it over its last,
    so that what was recorded in between joins at both ends."""
    count = len(flown)
    result = []
    for index, (new, old) in enumerate(zip(flown, before, strict=True)):
        edge = min(index, count - 1 - index)
        share = 1.0 if edge >= length else edge / length
        share = share * share * (3 - 2 * share)
        result.append(old.lerp(new, share))
    return result


def write_keys(
    camera: bpy.types.Object,
    frames: Sequence[float],
    matrices: Sequence[Matrix],
    lenses: Sequence[float] | None = None,
    interpolation: str = "LINEAR",
) -> None:
    """Key a camera at frames of the animation; what it has between the first and the last of them is
    replaced, what lies outside stays. `lenses` are focal lengths in millimetres, None to leave the lens
    alone."""
    rotation = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
        camera.rotation_mode, "rotation_euler"
    )
    paths = ("location", rotation)
    clear_keys(camera, paths, frames[0], frames[-1])
    before = None
    for frame, matrix in zip(frames, matrices, strict=True):
        camera.matrix_world = matrix
        if rotation == "rotation_euler":
            turn = camera.rotation_euler.copy()
            if before is not None:
                turn.make_compatible(before)
            camera.rotation_euler = before = turn
        elif rotation == "rotation_quaternion":
            turn = camera.rotation_quaternion.copy()
            if before is not None and turn.dot(before) < 0:
                turn.negate()
            camera.rotation_quaternion = before = turn
        for path in paths:
            camera.keyframe_insert(path, frame=frame)
    _interpolate(camera, paths, frames, interpolation)
    if lenses is not None:
        data = camera.data
        clear_keys(data, ("lens",), frames[0], frames[-1])
        varying = np.ptp(lenses) > 1e-4 * lenses[0] or any(_curves(data, ("lens",)))
        for frame, lens in zip(frames, lenses, strict=True):
            data.lens = lens
            if varying:
                data.keyframe_insert("lens", frame=frame)
        _interpolate(data, ("lens",), frames, interpolation)


def show_keys(camera: bpy.types.Object, frame: float) -> None:
    """Put a camera where its keys say that it is at a frame of the animation, which evaluating the scene
    would do at the cost of every pose that is not keyed."""
    for block in (camera, camera.data):
        for curve in _curves(block, _KEYED):
            value = curve.evaluate(frame)
            if curve.data_path in ("lens", "ortho_scale"):
                setattr(block, curve.data_path, value)
            else:
                getattr(block, curve.data_path)[curve.array_index] = value


def clear_keys(block: bpy.types.ID, paths: Iterable[str], first: float, last: float) -> None:
    """Remove a block's keys from one frame to another."""
    for curve in _curves(block, paths):
        for key in reversed(
            [key for key in curve.keyframe_points if first - NEAR <= key.co.x <= last + NEAR]
        ):
            curve.keyframe_points.remove(key, fast=True)
        curve.update()


def _interpolate(block, paths, frames, interpolation: str) -> None:
    at = np.array(sorted(frames))
    for curve in _curves(block, paths):
        for key in curve.keyframe_points:
            if np.abs(at - key.co.x).min() < NEAR:
                key.interpolation = interpolation
                key.handle_left_type = key.handle_right_type = "AUTO_CLAMPED"
        curve.update()


def _curves(block: bpy.types.ID, paths: Iterable[str]) -> list[bpy.types.FCurve]:
    animation = block.animation_data
    if animation is None or animation.action is None:
        return []
    wanted = set(paths)
    slot = getattr(animation, "action_slot", None)
    return [curve for curve in action_curves(animation.action, slot) if curve.data_path in wanted]
