"""Where the joints of all limbs are in a frame.

All pose matrices of an armature are read in one call (25 us for 706 bones, less than forty bones cost one
by one), and all joints of all frames placed by one matrix product. What is read does not depend on the limbs:
they may be chosen after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from .skeleton import bends
from .subjects import Rig, Subject


@dataclass(frozen=True, eq=False)
class Posed:
    """A rig in a frame, constraints, drivers and NLA included: `matrices` [N, 4, 4] float32 of its bones, in
    the order of the pose, in armature space and column by column as Blender has them; `world` [4, 4] takes
    armature space to the world. `bends` [B, 3] is where segments of B-bones begin in their bone's space, in
    the reader's order."""

    matrices: np.ndarray
    world: np.ndarray
    bends: np.ndarray


class PoseReader:
    """Reads a rig off the evaluated scene: of its B-bones those that are `bent`, as (place in the pose,
    segment) each, or every segment that a stroke may have a joint at."""

    def __init__(self, rig: Rig, bent: Iterable[tuple[int, int]] | None = None):
        self._rig = rig
        bones = rig.armature.pose.bones
        if bent is None:
            counts = np.empty(len(bones), np.int32)
            rig.armature.data.bones.foreach_get("bbone_segments", counts)
            order = _places(rig.armature)
            found = [(int(order[k]), bends(int(counts[k]))) for k in np.flatnonzero(counts > 1)]
            bent = [(bone, segment) for bone, segments in found for segment in segments]
        self.bends = tuple(bent)
        # By name: the pose is a list that is gone through to find a bone by its place.
        self._bent = [(bones[bone].name, segment) for bone, segment in self.bends]

    def read(self, depsgraph: bpy.types.Depsgraph) -> Posed:
        evaluated = self._rig.armature.evaluated_get(depsgraph)
        bones = evaluated.pose.bones
        matrices = np.empty((len(bones), 4, 4), np.float32)
        bones.foreach_get("matrix", matrices.ravel())
        begins = [bones[name].bbone_segment_matrix(segment).translation for name, segment in self._bent]
        world = self._rig.placement(depsgraph) @ np.array(evaluated.matrix_world, np.float64)
        return Posed(matrices, world, np.array(begins, np.float64).reshape(-1, 3))


def bone_poses(armature: bpy.types.Object, posed: Sequence[Posed]) -> np.ndarray:
    """[F, N, 4, 4] bone to armature space in several frames, in the order of `armature.bones`."""
    matrices = np.stack([one.matrices for one in posed])
    return matrices.transpose(0, 1, 3, 2)[:, _places(armature)].astype(np.float64)


def _places(armature: bpy.types.Object) -> np.ndarray:
    """[N] where each bone is in the pose, which may hold them in another order than the armature."""
    order = {bone.name: i for i, bone in enumerate(armature.pose.bones)}
    return np.array([order[bone.name] for bone in armature.data.bones], np.int64)


class Sampler:
    """Places the joints of several subjects' limbs. `counts` [L] says how many joints each limb has."""

    def __init__(self, subjects: Sequence[Subject]):
        self._armatures = [_ArmatureSampler(subject) for subject in subjects]
        self.counts = np.concatenate([subject.choice.counts for subject in subjects])

    def sample(self, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
        """[K, 3] float64 joints in world space at the scene's current frame."""
        posed = [[armature.reader.read(depsgraph)] for armature in self._armatures]
        return np.concatenate([a.place(frames, a.reader) for a, frames in zip(self._armatures, posed)], 1)[0]

    def place(self, readers: Sequence[PoseReader], posed: Sequence[Sequence[Posed]]) -> np.ndarray:
        """[F, K, 3] float64 joints in world space of what a reader for each subject has read in F frames."""
        every = zip(self._armatures, posed, readers)
        return np.concatenate([armature.place(frames, reader) for armature, frames, reader in every], axis=1)


class _ArmatureSampler:
    def __init__(self, subject: Subject):
        choice = subject.choice
        places = _places(subject.armature)
        self._bones = places[choice.joint_bones]
        self._offsets = np.concatenate(
            [choice.joint_offsets, np.ones((len(choice.joint_offsets), 1))], axis=1
        )
        twins = sorted(choice.joint_twins)
        self._twins = np.array(twins, np.int64)
        self._twin_bones = places[[choice.joint_twins[k][0] for k in twins]]
        self._twin_offsets = np.array([(*choice.joint_twins[k][1], 1.0) for k in twins]).reshape(-1, 4)
        bent = np.flatnonzero(choice.joint_bends).tolist()
        self._bends = {k: (int(self._bones[k]), int(choice.joint_bends[k])) for k in bent}
        self.reader = PoseReader(subject, self._bends.values())

    def place(self, posed: Sequence[Posed], reader: PoseReader) -> np.ndarray:
        matrices = np.stack([one.matrices for one in posed])
        offsets = self._offsets
        if self._bends:
            offsets = np.repeat(offsets[None], len(posed), axis=0)
            for joint, bend in self._bends.items():
                place = reader.bends.index(bend)
                offsets[:, joint, :3] = [one.bends[place] for one in posed]
        placed = _place(offsets, matrices[:, self._bones])
        if len(self._twins):
            twins = _place(self._twin_offsets, matrices[:, self._twin_bones])
            placed[:, self._twins] = (placed[:, self._twins] + twins) / 2
        world = np.stack([one.world for one in posed])
        return placed[..., :3] @ world[:, :3, :3].transpose(0, 2, 1) + world[:, None, :3, 3]


def _place(offsets: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """[F, K, 4] of offsets [K, 4] or [F, K, 4] in the bones of matrices [F, K, 4, 4]."""
    # Blender stores matrices column by column.
    return (offsets[..., None, :] @ matrices.astype(np.float64))[..., 0, :]
