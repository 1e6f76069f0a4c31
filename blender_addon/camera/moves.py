"""Camera moves as keys and noise on the camera, where an animator finds and changes them.

Amounts are those of `shared.camera.camera_path`: pans and tilts in picture widths and heights that the
background shifts by, zooms as growth, rolls in turns. In space there are more: tracks in picture widths and
heights at the subject, dollies as a fraction of the way to it, orbits in turns around it, and a hand's unrest
as a multiple of what is usual.
"""

from __future__ import annotations

import math

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ..rig.animation import all_curves
from ..view.camera import Lens

MOVES = {
    "PAN_LEFT": ("Pan Left", "Turn to the left"),
    "PAN_RIGHT": ("Pan Right", "Turn to the right"),
    "TILT_UP": ("Tilt Up", "Turn upward"),
    "TILT_DOWN": ("Tilt Down", "Turn downward"),
    "ROLL_CLOCKWISE": ("Roll Clockwise", "Turn about the line of sight"),
    "ROLL_COUNTERCLOCKWISE": ("Roll Counterclockwise", "Turn about the line of sight"),
    "ZOOM_IN": ("Zoom In", "Lengthen the lens"),
    "ZOOM_OUT": ("Zoom Out", "Shorten the lens"),
    "DOLLY_IN": ("Dolly In", "Go toward the subject"),
    "DOLLY_OUT": ("Dolly Out", "Go away from the subject"),
    "TRACK_LEFT": ("Track Left", "Go to the left"),
    "TRACK_RIGHT": ("Track Right", "Go to the right"),
    "PEDESTAL_UP": ("Pedestal Up", "Go upward"),
    "PEDESTAL_DOWN": ("Pedestal Down", "Go downward"),
    "ORBIT_LEFT": ("Orbit Left", "Go around the subject to the left"),
    "ORBIT_RIGHT": ("Orbit Right", "Go around the subject to the right"),
    "HANDHELD": ("Handheld", "Slow unrest, as of a camera that is held"),
    "SHAKE": ("Shake", "Fast unrest, as of an explosion or a rough road"),
}
UNREST = {"HANDHELD": (25.0, 0.6, 0.012), "SHAKE": (3.5, 1.2, 0.006)}
"""Frames that a swing lasts, degrees, and the way as a fraction of the distance to the subject."""
KEYS = 5
"""Keys of a move; an orbit has more."""
ARC = math.radians(12)
"""The most that a camera orbits from one key to the next."""


def key_count(move: str, amount: float) -> int:
    """How many keys a move has."""
    if move.startswith("ORBIT"):
        return max(KEYS, math.ceil(2 * math.pi * amount / ARC) + 1)
    return KEYS


def eased(count: int) -> np.ndarray:
    """[count] from 0 to 1, starting and stopping gently."""
    t = np.linspace(0, 1, count)
    return t * t * (3 - 2 * t)


def moved(move: str, amount: float, placed: Matrix, lens: Lens, subject: Vector) -> tuple[Matrix, float]:
    """Where a camera is, and by how much its lens is longer, when a move has come to `amount`.

    placed: where it was before, camera to world. lens: what it saw. subject: what it dollies to and orbits
        around, in world space.
    """
    across, down = lens.projection[0, 0], lens.projection[1, 1]
    ahead = max(-(placed.inverted() @ subject).z, 1e-3)
    width, height = (2 * ahead / across, 2 * ahead / down) if lens.perspective else (2 / across, 2 / down)
    what, _, way = move.partition("_")
    sign = 1 if way in ("LEFT", "UP", "IN", "COUNTERCLOCKWISE") else -1
    if what == "PAN":
        if not lens.perspective:
            return placed @ Matrix.Translation((-sign * amount * width, 0, 0)), 1.0
        return placed @ Matrix.Rotation(sign * math.atan(2 * amount / across), 4, "Y"), 1.0
    if what == "TILT":
        if not lens.perspective:
            return placed @ Matrix.Translation((0, sign * amount * height, 0)), 1.0
        return placed @ Matrix.Rotation(sign * math.atan(2 * amount / down), 4, "X"), 1.0
    if what == "ROLL":
        return placed @ Matrix.Rotation(sign * 2 * math.pi * amount, 4, "Z"), 1.0
    if what == "ZOOM":
        return placed, (1 + amount) ** sign
    if what == "DOLLY":
        step = min(amount, 0.98) if sign > 0 else amount
        return placed @ Matrix.Translation((0, 0, -sign * step * ahead)), 1.0
    if what == "TRACK":
        return placed @ Matrix.Translation((-sign * amount * width, 0, 0)), 1.0
    if what == "PEDESTAL":
        return placed @ Matrix.Translation((0, sign * amount * height, 0)), 1.0
    turn = Matrix.Rotation(-sign * 2 * math.pi * amount, 4, "Z")
    around = Matrix.Translation(subject)
    return around @ turn @ around.inverted() @ placed, 1.0


def add_unrest(
    camera: bpy.types.Object, move: str, amount: float, first: float, last: float, distance: float
) -> None:
    """Noise on the camera's curves from frame `first` to `last` of the animation; curves that it does not
    have are made."""
    length, degrees, way = UNREST[move]
    rotation = "rotation_quaternion" if camera.rotation_mode == "QUATERNION" else "rotation_euler"
    # A quaternion's parts are half angles.
    turn = math.radians(degrees) * amount * (0.5 if rotation == "rotation_quaternion" else 1.0)
    known = {(curve.data_path, curve.array_index) for curve in all_curves(camera)}
    for path in ("location", rotation):
        if not any(name == path for name, _ in known):
            camera.keyframe_insert(path, frame=first)
    for curve in all_curves(camera):
        if curve.data_path not in ("location", rotation):
            continue
        noise = curve.modifiers.new("NOISE")
        noise.scale = length
        # Blender's noise goes from -strength / 2 to strength / 2.
        noise.strength = 2 * (way * distance * amount if curve.data_path == "location" else turn)
        noise.phase = 17.3 * curve.array_index + (101.0 if curve.data_path == "location" else 3.0)
        noise.use_restricted_range = True
        noise.frame_start, noise.frame_end = first, last
        noise.blend_in = noise.blend_out = min(length, (last - first) / 4)
