"""Which bones of an armature are drawn."""

from __future__ import annotations

from collections import Counter

import bpy
import numpy as np

from ..errors import ExportError
from . import names
from .skeleton import Anatomy, Skeleton
from .skin import Skin

SMALL = 0.03
"""A branch of one bone shorter than this fraction of the skeleton is a detail, not a limb."""
EAR = 0.02
"""An ear whose bones are longer than this fraction of the skeleton is an animal's."""
BUNDLE = 3
"""This many short chains side by side are fingers, toes or feathers, whatever their names."""


class Choice:
    """`drawn` [N] bool; `candidates` [N] bool, the bones that move flesh; `face` and `digits` [N] bool, the
    bones of the face and of fingers, toes and feathers, whether drawn or not."""

    def __init__(self, armature: bpy.types.Object, skeleton: Skeleton, skin: Skin):
        self._skeleton = skeleton
        self.candidates = _deforming(armature, skeleton, skin)
        said = user_overrides(armature.data)
        self._fixed = said != 0
        settings = armature.data.poseanything

        drawn = self.candidates.copy()
        leading = self._leading()
        for bone in np.flatnonzero(drawn).tolist():
            name = skeleton.names[bone]
            drawn[bone] = not (names.is_end(name) or (names.is_helper(name) and not leading[bone]))
        self.face = self._face(drawn)
        if not settings.face:
            drawn &= ~self.face
        self.drawn = np.where(self._fixed, said > 0, drawn)
        self.digits = self._digits()
        if settings.digits == "SKIP":
            self._skip(self.digits)
        self._skip_roots(skin)
        self._skip_details()
        if not self.drawn.any():
            raise ExportError(
                f"The armature {armature.name} has no bone left to draw; turn on Deform for the bones of its "
                "limbs, or set them to Draw."
            )

    def _leading(self) -> np.ndarray:
        """Bones with something other than helpers and ends under them: a twist bone in the midst of a chain
        is one."""
        skeleton = self._skeleton
        leading = np.zeros(len(skeleton.names), bool)
        for bone in np.flatnonzero(self.candidates).tolist():
            if not (names.is_helper(skeleton.names[bone]) or names.is_end(skeleton.names[bone])):
                leading[list(skeleton.ancestors(bone))] = True
        return leading

    def _skip(self, bones: np.ndarray) -> None:
        self.drawn &= ~bones | self._fixed

    def _face(self, drawn: np.ndarray) -> np.ndarray:
        """Bones of the face, those under them too, but not ears that stand out (an animal's)."""
        skeleton = self._skeleton
        face = np.array([names.is_face(name) for name in skeleton.names])
        ears = np.array([bool(names.words(name) & {"ear", "ears"}) for name in skeleton.names]) & drawn
        for bone in np.flatnonzero(drawn & ~face).tolist():
            face[bone] = any(names.is_face(skeleton.names[a]) for a in skeleton.ancestors(bone))
        large = ears & (skeleton.lengths > EAR * skeleton.size)
        for bone in np.flatnonzero(large).tolist():
            word = _kind(skeleton.names[bone])
            same = [b for b in np.flatnonzero(ears).tolist() if _kind(skeleton.names[b]) == word]
            if not self._is_loop(same):
                face[same] = False
        return face

    def _is_loop(self, bones: list[int]) -> bool:
        """Whether the bones go round and back, as an ear's outline does: no joint is the end of only one of
        them."""
        joints = np.concatenate([self._skeleton.heads[bones], self._skeleton.tails[bones]])
        apart = np.linalg.norm(joints[:, None] - joints, axis=2)
        return bool(((apart <= self._skeleton.near).sum(axis=1) >= 2).all())

    def _digits(self) -> np.ndarray:
        skeleton = self._skeleton
        digits = np.array([names.is_digit(name) for name in skeleton.names])
        anatomy = Anatomy(skeleton, self.drawn | (self.candidates & digits))
        children = anatomy.children

        maybe = Counter()
        for parent, bones in children.items():
            maybe[parent] = sum(names.may_be_digit(skeleton.names[bone]) for bone in bones)
        for bone, parent in enumerate(anatomy.parents.tolist()):
            if parent >= 0 and maybe[parent] >= BUNDLE and names.may_be_digit(skeleton.names[bone]):
                digits[bone] = True

        for parent, bones in children.items():
            if anatomy.parents[parent] < 0:
                continue
            chains = [_chain(children, bone) for bone in bones if not self.face[bone]]
            limb = self._limb_length(anatomy.parents, children, parent)
            short = [c for c in chains if c is not None and skeleton.lengths[c].sum() < 0.5 * limb]
            if len(short) >= BUNDLE:
                digits[sum(short, [])] = True

        for bone in np.flatnonzero(anatomy.parents >= 0).tolist():
            up = int(anatomy.parents[bone])
            while up >= 0 and not digits[bone]:
                digits[bone] = digits[up]
                up = int(anatomy.parents[up])
        return digits

    def _limb_length(self, parents, children, bone: int) -> float:
        """Length of the chain that ends at a bone, back to where it branched off."""
        length = self._skeleton.lengths[bone]
        up = int(parents[bone])
        while up >= 0 and len(children[up]) == 1:
            length += self._skeleton.lengths[up]
            up = int(parents[up])
        return length

    def _skip_roots(self, skin: Skin) -> None:
        """Leave out bones that only carry the whole rig: a stroke from the world's origin to the hips is no
        limb."""
        skeleton = self._skeleton
        while True:
            anatomy = Anatomy(skeleton, self.drawn)
            children = anatomy.children
            dropped = False
            for bone in np.flatnonzero(self.drawn & (anatomy.parents < 0) & ~self._fixed).tolist():
                below = children.get(bone, [])
                loose = all(
                    np.linalg.norm(skeleton.heads[c] - skeleton.tails[bone]) > skeleton.near for c in below
                )
                only = len(skin.owners) > 0 and len(below) == 1
                if below and loose and not skin.owns(bone) and (only or names.is_root(skeleton.names[bone])):
                    self.drawn[bone] = False
                    dropped = True
            if not dropped:
                return

    def _skip_details(self) -> None:
        """Leave out side branches that are very short or only fill out the trunk, as Rigify's pelvis.L
        does."""
        skeleton = self._skeleton
        anatomy = Anatomy(skeleton, self.drawn)
        children = anatomy.children
        small = np.zeros(len(self.drawn), bool)
        for bone in np.flatnonzero(self.drawn & (anatomy.parents >= 0)).tolist():
            if bone in children:
                continue
            if len(children[int(anatomy.parents[bone])]) > 1:
                short = skeleton.lengths[bone] < SMALL * skeleton.size
                small[bone] = short or names.is_bulk(skeleton.names[bone])
        self._skip(small & ~self.digits & ~self.face)


def _deforming(armature: bpy.types.Object, skeleton: Skeleton, skin: Skin) -> np.ndarray:
    """The bones that move flesh: those flagged to deform that the bound meshes know, or, without a mesh,
    those flagged that neither their name nor their use as a target marks as controls."""
    names_ = skeleton.names
    leaf = np.ones(len(names_), bool)
    leaf[skeleton.parents[skeleton.deforming & (skeleton.parents >= 0)]] = False
    goal = _in(names_, _goals(armature)) & leaf
    control = goal | np.array([names.is_control(name) for name in names_], bool)
    known = _in(names_, skin.groups | skin.carriers)
    for bones in (skeleton.deforming & known & ~goal, skeleton.deforming & ~control, ~control):
        if bones.any():
            return bones
    raise ExportError(
        f"The armature {armature.name} has nothing but control bones; turn on Deform for the bones of its "
        "limbs."
    )


def _goals(armature: bpy.types.Object) -> set[str]:
    """Bones that inverse kinematics of this armature aims at."""
    goals = set()
    for bone in armature.pose.bones:
        for constraint in bone.constraints:
            if constraint.type == "IK":
                if constraint.target == armature:
                    goals.add(constraint.subtarget)
                if constraint.pole_target == armature:
                    goals.add(constraint.pole_subtarget)
    return goals


def _in(names_, chosen) -> np.ndarray:
    return np.array([name in chosen for name in names_], bool)


def user_overrides(armature: bpy.types.Armature) -> np.ndarray:
    """[N] +1 where the user says draw, -1 skip, 0 nothing; a bone's own word goes before its collections'."""
    values = {"DRAW": 1, "SKIP": -1, "AUTO": 0}
    said = []
    for bone in armature.bones:
        word = values[bone.poseanything.limb]
        if not word:
            words = [values[collection.poseanything.limb] for collection in bone.collections]
            word = 1 if 1 in words else min(words, default=0)
        said.append(word)
    return np.array(said, np.int8)


def _chain(children: dict[int, list[int]], bone: int) -> list[int] | None:
    """A bone and all below it when they do not branch."""
    chain = [bone]
    while bone in children:
        if len(children[bone]) > 1:
            return None
        bone = children[bone][0]
        chain.append(bone)
    return chain


def _kind(name: str) -> frozenset[str]:
    return frozenset(word for word in names.words(name) if not word.isdigit())
