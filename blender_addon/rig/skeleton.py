"""An armature at rest, as arrays, and who is whose parent among the bones that matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import bpy
import numpy as np

BENDS = 3
"""Points taken inside a B-bone."""
NEAR = 2e-3
"""Joints closer than this fraction of the skeleton's size are one joint."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """All N bones of an armature in its rest position, in armature space and in the order of
    `armature.bones`.

    `parents` [N] int holds -1 for none. `heads`, `tails` [N, 3] and `matrices` [N, 4, 4] (bone to armature
    space) are float64. `segments` [N] counts B-bone segments, 1 for a stiff bone. `size` is the diagonal of
    the box around the heads of the bones in question, and around their flesh: tails may be an importer's
    guess.
    """

    names: tuple[str, ...]
    parents: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    matrices: np.ndarray
    deforming: np.ndarray
    segments: np.ndarray
    size: float

    @classmethod
    def read(cls, armature: bpy.types.Armature) -> Skeleton:
        bones = armature.bones
        count = len(bones)
        index = {bone.name: i for i, bone in enumerate(bones)}

        def values(attribute, width, dtype=np.float32):
            flat = np.empty(count * width, dtype)
            bones.foreach_get(attribute, flat)
            return flat.reshape(count, width) if width > 1 else flat

        heads, tails = values("head_local", 3).astype(np.float64), values("tail_local", 3).astype(np.float64)
        deforming = values("use_deform", 1, bool)
        return cls(
            names=tuple(index),
            parents=np.array([index[bone.parent.name] if bone.parent else -1 for bone in bones], np.int64),
            heads=heads,
            tails=tails,
            matrices=values("matrix_local", 16).reshape(count, 4, 4).transpose(0, 2, 1).astype(np.float64),
            deforming=deforming,
            segments=values("bbone_segments", 1, np.int32),
            size=_extent(heads, tails, deforming),
        )

    def sized(self, among: np.ndarray, flesh: np.ndarray) -> Skeleton:
        """The same, its size that of some of its bones [N] bool and their flesh [V, 3]."""
        size = _extent(self.heads, self.tails, among)
        if len(flesh):
            size = max(size, float(np.linalg.norm(np.ptp(flesh, axis=0))))
        return replace(self, size=size)

    @cached_property
    def near(self) -> float:
        return NEAR * self.size

    @cached_property
    def vectors(self) -> np.ndarray:
        return self.tails - self.heads

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.linalg.norm(self.vectors, axis=1)

    def ancestors(self, bone: int):
        bone = int(self.parents[bone])
        while bone >= 0:
            yield bone
            bone = int(self.parents[bone])

    def to_bone(self, bone: int, point: np.ndarray) -> np.ndarray:
        """A point of armature space in the space of a bone at rest."""
        return np.linalg.solve(self.matrices[bone], np.append(point, 1.0))[:3]


def bends(segments: int) -> list[int]:
    """The segments of a B-bone of so many at whose beginning a stroke along it has a joint."""
    return sorted({round(segments * (k + 1) / (BENDS + 1)) for k in range(BENDS)} - {0, segments})


def spanned_straight(skeleton: Skeleton, first: int, bone: int) -> bool:
    """Whether a bone goes straight on from a `first` one and another bone spans both from end to end: they
    are pieces of that one."""
    onward, whole = skeleton.vectors[bone], skeleton.tails[bone] - skeleton.heads[first]
    if onward @ whole <= 0.99 * np.linalg.norm(onward) * np.linalg.norm(whole):
        return False
    spans = np.linalg.norm(skeleton.heads - skeleton.heads[first], axis=1) <= skeleton.near
    return bool(
        (spans & (np.linalg.norm(skeleton.tails - skeleton.tails[bone], axis=1) <= skeleton.near)).any()
    )


def _extent(heads: np.ndarray, tails: np.ndarray, among: np.ndarray) -> float:
    """The diagonal of the box around heads; around tails too where the heads are too few to have one."""
    if not len(heads):
        return 0.0
    among = among if among.any() else slice(None)
    size = float(np.linalg.norm(np.ptp(heads[among], axis=0)))
    median = float(np.median(np.linalg.norm(tails[among] - heads[among], axis=1)))
    if len(heads[among]) < 4:
        return float(np.linalg.norm(np.ptp(np.concatenate([heads[among], tails[among]]), axis=0)))
    return size if size > 0 else median


class Anatomy:
    """Parents and owners among the drawn bones alone.

    Generated rigs hang their deforming bones on control bones. A control bone stands for the drawn bone
    that lies where it lies at rest (as Rigify's ORG-spine.003 does for DEF-spine.003), so the body's own
    tree is found by walking up and taking the first bone that is drawn or stands for a drawn one.
    """

    def __init__(self, skeleton: Skeleton, drawn: np.ndarray):
        self._skeleton = skeleton
        self._stand_ins = self._find_stand_ins(drawn)
        self.parents = self._find_parents(drawn)

    def _find_stand_ins(self, drawn: np.ndarray) -> list[tuple[int, ...]]:
        """For every bone the drawn bones that lie where it lies, itself first."""
        skeleton = self._skeleton
        indices = np.flatnonzero(drawn)
        directions = skeleton.vectors / np.maximum(skeleton.lengths, 1e-12)[:, None]
        apart = np.linalg.norm(skeleton.heads[:, None] - skeleton.heads[indices], axis=2)
        same = (apart <= skeleton.near) & (directions @ directions[indices].T > 0.99)
        lengths = skeleton.lengths
        found: list[tuple[int, ...]] = [()] * len(drawn)
        for bone in np.flatnonzero(same.any(axis=1)).tolist():
            found[bone] = tuple(
                sorted(indices[same[bone]].tolist(), key=lambda i: abs(lengths[i] - lengths[bone]))
            )
        for bone in indices.tolist():
            found[bone] = (bone,)
        return found

    def _find_parents(self, drawn: np.ndarray) -> np.ndarray:
        parents = np.full(len(drawn), -1, np.int64)
        real = self._skeleton.parents
        indices = np.flatnonzero(drawn)
        # Plain parents first: a bone that stands in must not turn the chain it belongs to around.
        direct = drawn[real[indices]] & (real[indices] >= 0)
        parents[indices[direct]] = real[indices[direct]]
        for bone in indices[~direct].tolist():
            for ancestor in self._skeleton.ancestors(bone):
                fitting = [i for i in self._stand_ins[ancestor] if not self._descends(parents, i, bone)]
                if fitting:
                    parents[bone] = fitting[0]
                    break
        return parents

    @staticmethod
    def _descends(parents, bone, ancestor) -> bool:
        while bone >= 0 and bone != ancestor:
            bone = int(parents[bone])
        return bone == ancestor

    @cached_property
    def owners(self) -> np.ndarray:
        """[N] for every bone the drawn bone it belongs to: itself, or the nearest up the chain; -1 where
        there is none."""
        owners = np.full(len(self.parents), -1, np.int64)
        for bone, stand_ins in enumerate(self._stand_ins):
            if stand_ins:
                owners[bone] = stand_ins[0]
        for bone in np.flatnonzero(owners < 0).tolist():
            owners[bone] = next((owners[a] for a in self._skeleton.ancestors(bone) if owners[a] >= 0), -1)
        return owners

    @cached_property
    def tails_are_real(self) -> bool:
        """Whether most bones end where a child begins. Importers that know only heads (glTF) guess tails."""
        skeleton = self._skeleton
        met = []
        for parent, bones in self.children.items():
            apart = np.linalg.norm(skeleton.heads[bones] - skeleton.tails[parent], axis=1)
            along = np.linalg.norm(skeleton.heads[bones] - skeleton.heads[parent], axis=1)
            length = np.minimum(along, skeleton.lengths[parent])
            met.append(bool((apart < 0.05 * length + skeleton.near).any()))
        return sum(met) * 2 >= len(met)

    @cached_property
    def children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {}
        for bone, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                children.setdefault(parent, []).append(bone)
        return children
