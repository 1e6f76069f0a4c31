"""A rig's pose in many frames at once, as arrays: turned bones, reaching legs, springs; then keys of it.

Bones turn about the armature's axes at rest, on top of what the bone that they hang on does.
"""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from .springs import Spring, follow

MOST_BENT = 2.3
"""The angle in radians between a leg's bone and the way from its hip to its foot, at which it bends no
further."""


def about(axis: tuple[float, float, float], angles: np.ndarray) -> np.ndarray:
    """[N, 3, 3]: turns by angles [N] in radians about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)


def between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """[N, 3, 3]: the least turns that take directions [N, 3] or [3] to others [N, 3]."""
    start, end = np.broadcast_arrays(*(v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (start, end)))
    cross, cosine = np.cross(start, end), (start * end).sum(-1)
    turns = np.zeros((len(end), 3, 3))
    x, y, z = cross.T
    turns[:, 0, 1], turns[:, 0, 2], turns[:, 1, 2] = -z, y, -x
    turns[:, 1, 0], turns[:, 2, 0], turns[:, 2, 1] = z, -y, x
    return np.eye(3) + turns + turns @ turns / np.maximum(1 + cosine, 1e-6)[:, None, None]


def times(turns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """[N, 3]: turned vectors, [N, 3] or [3]."""
    return np.einsum("nij,nj->ni", turns, np.broadcast_to(vectors, (len(turns), 3)))


class Poses:
    """Poses of a rig in F frames. `place` [F, 3] and `turn` [F, 3, 3] are the whole rig's, `turns` has for
    bones by name how they turn [F, 3, 3]."""

    def __init__(self, rig: bpy.types.Object, frames: int):
        self.rig, self.frames = rig, frames
        self.place = np.zeros((frames, 3))
        self.turn = np.tile(np.eye(3), (frames, 1, 1))
        self.turns: dict[str, np.ndarray] = {}
        bones = rig.data.bones
        self.heads = {bone.name: np.array(bone.head_local) for bone in bones}
        self.tails = {bone.name: np.array(bone.tail_local) for bone in bones}
        self.parents = {bone.name: bone.parent.name if bone.parent else "" for bone in bones}

    def rotate(self, bone: str, axis: tuple[float, float, float], angles: np.ndarray) -> None:
        """Turn a bone further about one of the armature's axes."""
        self.turns[bone] = about(axis, np.broadcast_to(angles, self.frames)) @ self._own(bone)

    def _own(self, bone: str) -> np.ndarray:
        return self.turns.get(bone, np.eye(3)[None])

    def turned(self, bone: str) -> np.ndarray:
        """[F, 3, 3] or [1, 3, 3]: how a bone is turned from its rest in all, within the armature."""
        if not bone:
            return np.eye(3)[None]
        return self.turned(self.parents[bone]) @ self._own(bone)

    def set_turned(self, bone: str, turned: np.ndarray) -> None:
        """Turn a bone so that it is turned so in all."""
        self.turns[bone] = self.turned(self.parents[bone]).transpose(0, 2, 1) @ turned

    def at(self, bone: str, rest: np.ndarray) -> np.ndarray:
        """[F, 3]: where a point that goes with a bone is within the armature; `rest` [3] is its place at
        rest."""
        if not bone:
            return np.broadcast_to(rest, (self.frames, 3))
        head = self.at(self.parents[bone], self.heads[bone])
        turned = np.broadcast_to(self.turned(bone), (self.frames, 3, 3))
        return head + times(turned, rest - self.heads[bone])

    def head(self, bone: str) -> np.ndarray:
        return self.at(self.parents[bone], self.heads[bone])

    def to_world(self, points: np.ndarray) -> np.ndarray:
        return self.place + times(self.turn, points)

    def from_world(self, points: np.ndarray) -> np.ndarray:
        return times(self.turn.transpose(0, 2, 1), points - self.place)

    def reach_for(self, chain: list[str], end: np.ndarray, targets: np.ndarray) -> None:
        """Bend a leg so that its end is at the targets [F, 3] within the armature, or as near as it reaches.

        `end` [3] is where the last bone of the chain ends at rest. The leg keeps the shape that it has at
        rest, more bent or less.
        """
        joints = np.array([*(self.heads[bone] for bone in chain), end])
        steps = np.diff(joints, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        along = joints[-1] - joints[0]
        bends = between(along, steps)
        angles = np.arccos(np.clip(steps @ along / lengths / np.linalg.norm(along), -1, 1))
        axes = [_axis(bend) for bend in bends]
        amounts = np.linspace(0, MOST_BENT / max(angles.max(), 1e-3), 400)
        straight = along / np.linalg.norm(along) * lengths[:, None]
        bent = sum(
            times(about(axis, amounts * angle), step) for axis, angle, step in zip(axes, angles, straight)
        )
        far = np.linalg.norm(bent, axis=1)
        last = int(np.argmax(np.diff(far) > 1e-9)) or len(far) - 1  # up to where it gets no shorter
        hip = self.head(chain[0])
        ways = targets - hip
        wanted = np.linalg.norm(ways, axis=1)
        amount = np.interp(wanted, far[last::-1], amounts[last::-1])
        shape = np.stack([np.interp(amount, amounts, axis) for axis in bent.T], axis=1)
        above = np.broadcast_to(self.turned(self.parents[chain[0]]), (self.frames, 3, 3))
        base = between(times(above, shape), ways) @ above
        for bone, axis, angle in zip(chain, axes, angles):
            self.set_turned(bone, base @ about(axis, (amount - 1) * angle))

    def hang(self, chain: list[str], springs: list[Spring], fps: float, push: np.ndarray | float = 0) -> None:
        """Let a chain follow what it hangs on: the bones one after the other, each with its spring."""
        for bone, spring in zip(chain, springs):
            rest = self.tails[bone] - self.heads[bone]
            base = self.turn @ self.turned(self.parents[bone]) @ self._own(bone)
            heads = self.to_world(self.head(bone))
            tips = follow(heads, heads + times(base, rest), spring, fps, push)
            turned = between(times(base, rest), tips - heads) @ base
            self.set_turned(bone, self.turn.transpose(0, 2, 1) @ turned)

    def key(self, first: int, skip: int = 0) -> None:
        """Key all frames but the first `skip` from a frame of the scene on."""
        rig = self.rig
        rig.rotation_mode = "QUATERNION"
        frames = range(skip, self.frames)
        _key(rig, self.turn[skip:], first)
        for index in frames:
            rig.location = self.place[index]
            rig.keyframe_insert("location", frame=first + index - skip)
        for bone, turns in self.turns.items():
            basis = np.array(rig.data.bones[bone].matrix_local.to_3x3())
            turns = np.broadcast_to(turns, (self.frames, 3, 3))[skip:]
            posed = rig.pose.bones[bone]
            posed.rotation_mode = "QUATERNION"
            _key(posed, basis.T @ turns @ basis, first)


def _key(item, turns: np.ndarray, first: int) -> None:
    before = None
    for index, turn in enumerate(turns):
        quaternion = Matrix(turn.tolist()).to_quaternion()
        if before is not None:
            quaternion.make_compatible(before)
        item.rotation_quaternion = before = quaternion
        item.keyframe_insert("rotation_quaternion", frame=first + index)


def _axis(turn: np.ndarray) -> np.ndarray:
    """The axis of a turn [3, 3]; any one where there is none."""
    axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return axis if np.linalg.norm(axis) > 1e-9 else np.array([1.0, 0, 0])
