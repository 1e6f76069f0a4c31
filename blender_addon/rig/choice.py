"""Which bones of an armature are drawn, and why.

Evidence decides, in this order: how much of the picture a bone moves by itself (the flesh it owns, and in a
shot its motion against the bone that carries it), then how it hangs together with others, then what its name
hints at.
"""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np

from ..errors import ExportError
from ..texts import say
from . import names
from .motion import Motion, seen_and_moved
from .skeleton import Anatomy, Skeleton
from .skin import Skin

LIMB = 0.1
"""A side branch longer than this fraction of the skeleton is a limb, moving or not."""
DETAIL = 0.03
"""One shorter than this is none without flesh of its own."""
MOVING = 0.02
"""A side branch that moves this fraction of the subject's picture by itself is a limb, however short."""
STIRRING = 0.002
"""One of many side branches of one make, that move `ADORNING` of it together, moves at least this much."""
ADORNING = 0.08
"""So is a part of the face, hair or cloth that moves this much."""
BODILESS = 2
"""Parts of a face, hair and cloth that hang on this many other bones are no part of a body."""
BULKY = 0.04
"""A side branch with this fraction of the flesh, or one of several bones with this fraction of the subject's
picture, is a limb too."""
DIGIT = 0.12
"""Fingers and toes are shorter than this fraction of the skeleton; where they are not, they are the
subject."""
EAR = 0.02
"""An ear whose bones are longer than this fraction of the skeleton is an animal's."""
BUNDLE = 3
"""This many short chains side by side at a limb's end are fingers, toes or feathers, whatever their names."""
STRAY = 0.01
"""An aim of inverse kinematics, or a bone that is the strongest nowhere, with less than this fraction of the
flesh has it by mistake."""
ROOTS = 3
"""At most so many bones one after the other carry the whole rig."""
LOOSE = 0.5
"""A bone whose tail misses its only child by this fraction of the way to it only carries that child."""

ENDING = 0.7
"""Where only heads are known, a limb goes on with a bone that begins this far along its flesh."""
STRAIGHT = 0.9
"""Cosine from which on a chain goes straight on."""
TRACE = 1e-4
"""A bone that moves less than this fraction of the flesh moves none."""
FEATHER = 0.3
"""Feathers are shorter than this fraction of the skeleton."""


class Choice:
    """`drawn` [N] bool; `candidates` [N] bool, the bones that move flesh; `face` and `digits` [N] bool, the
    bones of the face (hair and cloth too) and of fingers, toes and feathers, whether drawn or not; `reasons`
    [N] why each is drawn or not. `unsent` is the fraction of the picture that undrawn fingers and toes
    move, `unsent_face` that of undrawn parts of the face, hair and cloth."""

    def __init__(self, armature: bpy.types.Object, skeleton: Skeleton, skin: Skin, motion: Motion | None):
        self._name = armature.name
        self._skin = skin
        self._count = len(skeleton.names)
        self.reasons = [""] * self._count
        self._has_flesh = bool(skin.shares.any())
        self.candidates = self._find_candidates(armature, skeleton)
        self.skeleton = self._skeleton = skeleton.sized(self.candidates, skin.points)
        self._latest: tuple[bytes, Anatomy] | None = None
        self._anatomy = self.anatomy_of(self.candidates)
        self._measure(motion)
        said = user_overrides(armature.data)
        self._fixed = said != 0
        settings = armature.data.poseanything

        self.drawn = self.candidates.copy()
        self._skip_ends()
        self.face = self._find_face()
        if not settings.face:
            self._skip_adornment()
        self.digits = self._find_digits(settings.digits != "AUTO")
        if settings.digits in ("AUTO", "SKIP"):
            named = np.array([names.may_be_digit(name) for name in skeleton.names])
            self._skip(self.digits & named, say("a finger or toe"))
            self._skip(self.digits, say("one of a bundle of small bones"))
        self._skip_details(settings.digits in ("MERGE", "DRAW"), settings.face)
        for bone in np.flatnonzero(self._fixed).tolist():
            self.drawn[bone] = said[bone] > 0
            self.reasons[bone] = say("as you say")
        self._skip_roots()
        if not self.drawn.any():
            raise ExportError(
                say(
                    "The armature {armature} has no bone left to draw; turn on Deform for the bones of "
                    "its limbs, or set them to Draw.",
                    armature=armature.name,
                ),
                "poseanything.forget_limbs",
                "Choose Bones Anew",
                (("armature", armature.name),),
            )
        self.unsent = float(self._moved[self.digits & ~self.drawn].sum())
        self.unsent_face = float(self._moved[self.face & ~self.drawn].sum())
        self._explain()

    # What moves flesh

    def _find_candidates(self, armature, skeleton: Skeleton) -> np.ndarray:
        """The bones that move flesh; without any flesh, those flagged to deform that neither their name nor
        their use as a target marks as controls."""
        names_, shares = skeleton.names, self._skin.shares
        leaf = np.ones(self._count, bool)
        leaf[skeleton.parents[skeleton.deforming & (skeleton.parents >= 0)]] = False
        aims = _goals(armature)
        goal = np.array([name in aims for name in names_], bool) & leaf
        control = goal | np.array([names.is_control(name) for name in names_], bool)
        if shares.any():
            strongest = np.bincount(self._skin.owners, minlength=self._count) > 0
            owning = shares > np.where(strongest & ~goal, TRACE, STRAY)
            # A thing hung on a control bone is carried by the limb that lies where the control does.
            guest = owning & ~skeleton.deforming
            if (owning & ~guest).any():
                for bone in np.flatnonzero(guest).tolist():
                    away = np.linalg.norm(skeleton.heads[owning & ~guest] - skeleton.heads[bone], axis=1)
                    owning[bone] = away.min() > 5 * skeleton.near
            if owning.any():
                self._explain_all(~owning, say("it moves no flesh"))
                return owning
        for bones in (skeleton.deforming & ~control, ~control):
            if bones.any():
                self._explain_all(~bones, say("a control"))
                return bones
        raise ExportError(
            say(
                "The armature {armature} has nothing but control bones; turn on Deform for the bones of its "
                "limbs.",
                armature=armature.name,
            )
        )

    def _measure(self, motion: Motion | None) -> None:
        """Lengths, and what of the flesh and of the picture each bone has and moves."""
        skeleton, skin, anatomy = self._skeleton, self._skin, self._anatomy
        self._trusted = anatomy.tails_are_real
        own = np.zeros(self._count)
        self._spread = self._flesh_reach()
        for bone in np.flatnonzero(self.candidates).tolist():
            below = anatomy.children.get(bone, [])
            to_children = np.linalg.norm(skeleton.heads[below] - skeleton.heads[bone], axis=1)
            tail = skeleton.lengths[bone] if self._trusted else 0.0
            if self._spread[bone] > 0 and (not self._trusted or self.tail_is_guessed(bone)):
                tail = float(self._spread[bone])
            own[bone] = tail or max(to_children, default=0.0)
        self._own = own
        self._length = own.copy()  # of the longest chain that begins with a bone
        for bone in self._upward():
            for child in anatomy.children.get(bone, ()):
                away = float(np.linalg.norm(skeleton.heads[child] - skeleton.heads[bone]))
                self._length[bone] = max(self._length[bone], away + self._length[child])
        owners, points, areas = skin.owners, skin.points, skin.areas
        if not len(owners):
            owners, points, areas = self._stand_in_flesh()
        self._flesh = skin.shares
        if not self._has_flesh:
            self._flesh = np.bincount(owners, areas, self._count) / max(float(areas.sum()), 1e-30)
        self._measured = motion is not None
        if motion is not None:
            self._seen, self._moved = seen_and_moved(
                motion, skeleton.matrices, anatomy.parents, owners, points, areas
            )
        else:
            self._seen, self._moved = self._flesh.copy(), np.zeros(self._count)

    def _flesh_reach(self) -> np.ndarray:
        """[N] how far each bone's flesh lies from its head, leaving out the last twentieth."""
        reach = np.zeros(self._count)
        skin = self._skin
        away = np.linalg.norm(skin.points - self._skeleton.heads[skin.owners], axis=1)
        order = np.lexsort((away, skin.owners))
        bones, begins, counts = np.unique(skin.owners[order], return_index=True, return_counts=True)
        place = begins + 0.95 * (counts - 1)
        below = away[order[place.astype(int)]]
        above = away[order[np.minimum(place.astype(int) + 1, begins + counts - 1)]]
        reach[bones] = np.where(counts > 2, below + (above - below) * (place % 1), 0.0)
        return reach

    def _stand_in_flesh(self):
        """Points along the bones, for an armature without a mesh, as thick as a stick figure's."""
        skeleton = self._skeleton
        bones = np.flatnonzero(self.candidates)
        direction = skeleton.vectors[bones] / np.maximum(skeleton.lengths[bones], 1e-12)[:, None]
        along = np.linspace(0.1, 0.9, 5)
        points = (
            skeleton.heads[bones, None] + direction[:, None] * (self._own[bones, None] * along)[..., None]
        )
        areas = np.repeat(self._own[bones] * 0.2 * skeleton.size / 5, 5)
        return np.repeat(bones, 5), points.reshape(-1, 3), areas

    @property
    def anatomy(self) -> Anatomy:
        """Who is whose parent among the candidates."""
        return self._anatomy

    def anatomy_of(self, drawn: np.ndarray) -> Anatomy:
        """Who is whose parent among some bones [N] bool; for those asked about last it is known."""
        key = drawn.tobytes()
        if self._latest is None or self._latest[0] != key:
            self._latest = key, Anatomy(self._skeleton, drawn)
        return self._latest[1]

    @property
    def lengths(self) -> np.ndarray:
        """[N] each bone's own length, by its joints or its flesh where its tail is an importer's guess."""
        return self._own

    def tail_is_guessed(self, bone: int) -> bool:
        """Whether a bone's flesh lies quite elsewhere than its tail says."""
        reach = self._spread[bone]
        return bool(reach > 0 and not reach / 4 <= self._skeleton.lengths[bone] <= reach * 4)

    def matters(self, bones: list[int]) -> tuple[bool, float, float]:
        """How much it matters that bones are drawn, to be compared with other subjects' too: whether the user
        says so, and what of the picture they move and cover."""
        return (
            bool(self._fixed[bones].any()),
            float(self._moved[bones].sum()),
            float(self._seen[bones].sum()),
        )

    def leave_out(self, bones: list[int], drawn: np.ndarray) -> None:
        """Take bones from the `drawn` [N] ones: there are more than can be told apart."""
        drawn[bones] = self.drawn[bones] = False
        for bone in bones:
            self.reasons[bone] = say("skipped: {reason}", reason=say("others move more of the picture"))

    def is_plain(self, bone: int) -> bool:
        """Whether nothing was said of a bone by itself, so that it may be drawn as one with its
        neighbours."""
        return not self._fixed[bone] and not self.digits[bone]

    def _upward(self) -> list[int]:
        """Candidates, children before parents."""
        return list(self._downward())[::-1]

    def _downward(self) -> Iterator[int]:
        waiting = np.flatnonzero(self.candidates & (self._anatomy.parents < 0)).tolist()
        while waiting:
            bone = waiting.pop()
            yield bone
            waiting.extend(self._anatomy.children.get(bone, ()))

    def _branch(self, bone: int) -> list[int]:
        """A bone and all candidates below it."""
        found = [bone]
        for one in found:
            found.extend(self._anatomy.children.get(one, ()))
        return found

    def _stirs(self, branch: list[int], share: float) -> bool:
        """Whether the bones of a branch move that share of the subject's picture by themselves."""
        if not self._measured:
            return False
        return bool(self._moved[branch].sum() >= share * max(float(self._seen.sum()), 1e-12))

    def _skip(self, bones: np.ndarray, why: str) -> None:
        for bone in np.flatnonzero(bones & self.drawn & ~self._fixed).tolist():
            self.drawn[bone] = False
            self.reasons[bone] = why

    def _explain_all(self, bones: np.ndarray, why: str) -> None:
        for bone in np.flatnonzero(bones).tolist():
            self.reasons[bone] = why

    # Ends, faces, cloth, digits

    def _skip_ends(self) -> None:
        """Joints that only mark an end have no flesh; without any flesh their name tells them, or, for a
        "tip", its length too."""
        skeleton, anatomy = self._skeleton, self._anatomy
        if self._has_flesh:
            return
        marks = np.zeros(self._count, bool)
        for bone in np.flatnonzero(self.candidates & (anatomy.parents >= 0)).tolist():
            if bone in anatomy.children:
                continue
            name, parent = skeleton.names[bone], int(anatomy.parents[bone])
            short = self._own[bone] < 0.5 * self._own[parent]
            marks[bone] = names.is_end(name) or (names.may_be_end(name) and short)
        self._skip(marks, say("it marks an end"))

    def _find_face(self) -> np.ndarray:
        """Bones of the face, hair and cloth, those under them too, but not ears that stand out (an
        animal's)."""
        skeleton, _anatomy = self._skeleton, self._anatomy
        named = np.array([names.is_face(name) or names.is_adornment(name) for name in skeleton.names])
        ears = np.array([names.is_ear(name) for name in skeleton.names]) & self.candidates
        # What the rest of the body hangs on is not its face, whatever its name.
        for bone in np.flatnonzero(named & self.candidates).tolist():
            named[bone] = self._flesh[self._branch(bone)].sum() <= 0.5
        face = named.copy()
        for bone in np.flatnonzero(self.candidates & ~named).tolist():
            face[bone] = any(named[a] for a in skeleton.ancestors(bone))
        for bone in np.flatnonzero(ears & (self._own > EAR * skeleton.size)).tolist():
            word = _kind(skeleton.names[bone])
            same = [b for b in np.flatnonzero(ears).tolist() if _kind(skeleton.names[b]) == word]
            if not self._is_loop(same):
                face[same] = False
        self._ears = ears & ~face
        if (self.candidates & ~face).sum() <= BODILESS:
            face[:] = False  # a face, a wig or a flag is the subject
        return face

    def _is_loop(self, bones: list[int]) -> bool:
        """Whether the bones go round and back, as an ear's outline does: no joint is the end of only one of
        them."""
        joints = np.concatenate([self._skeleton.heads[bones], self._skeleton.tails[bones]])
        apart = np.linalg.norm(joints[:, None] - joints, axis=2)
        return bool(((apart <= self._skeleton.near).sum(axis=1) >= 2).all())

    def _skip_adornment(self) -> None:
        for bone in self._downward():
            parent = int(self._anatomy.parents[bone])
            if not self.face[bone] or (parent >= 0 and self.face[parent]):
                continue
            branch = [b for b in self._branch(bone) if self.face[b]]
            if self._stirs(branch, ADORNING):
                self.face[branch] = False
                continue
            chosen = np.zeros(self._count, bool)
            chosen[branch] = True
            named = names.is_adornment(self._skeleton.names[bone])
            self._skip(chosen, say("hair or cloth") if named else say("a part of the face"))
        self._skip(self.face, say("a part of the face"))

    def _find_digits(self, every: bool) -> np.ndarray:
        """Short chains side by side at a limb's end, and short ones whose names say so; `every` one of those,
        short or not."""
        skeleton, anatomy = self._skeleton, self._anatomy
        children, parents = anatomy.children, anatomy.parents
        digits = np.zeros(self._count, bool)
        most = np.inf if every else DIGIT * skeleton.size
        for parent, bones in children.items():
            maybe = sum(names.may_be_digit(skeleton.names[bone]) for bone in bones) >= BUNDLE
            maybe |= any(names.is_digit(skeleton.names[bone]) for bone in bones)
            for bone in bones:
                name = skeleton.names[bone]
                if names.is_digit(name) or (maybe and names.may_be_digit(name)):
                    # A lone claw ends its limb; several are its fingers.
                    lone = not names.is_feather(name)
                    lone &= not any(names.may_be_digit(skeleton.names[b]) for b in bones if b != bone)
                    lone &= int(parents[parent]) < 0 or not names.is_digit(skeleton.names[parent])
                    room = max(most, FEATHER * skeleton.size) if names.is_feather(name) else most
                    digits[bone] = not lone and self._length[bone] < room
            if parents[parent] < 0:
                continue
            limb = self._limb_length(parent)
            short = [
                bone
                for bone in bones
                if not self.face[bone]
                and _is_chain(children, bone)
                and self._length[bone] < min(0.5 * limb, DIGIT * skeleton.size)
            ]
            if len(short) >= BUNDLE and self._side_by_side(parent, short):
                digits[short] = True
        for bone in self._downward():
            parent = int(parents[bone])
            digits[bone] |= parent >= 0 and digits[parent]
        return digits & ~self.face

    def _side_by_side(self, parent: int, bones: list[int]) -> bool:
        heads = self._skeleton.heads[bones]
        apart = np.linalg.norm(heads[:, None] - heads, axis=2).max()
        largest = max(self._flesh[bones])
        return bool(apart <= 0.75 * max(self._own[parent], 1e-12) and largest < BULKY)

    def _limb_length(self, bone: int) -> float:
        """Length of the chain that ends at a bone, back to where it branched off."""
        length, parents = self._own[bone], self._anatomy.parents
        up = int(parents[bone])
        while up >= 0 and len(self._anatomy.children[up]) == 1:
            length += self._own[up]
            up = int(parents[up])
        return length

    # Details

    def _skip_details(self, digits_too: bool, face_too: bool) -> None:
        """Leave out side branches that neither reach out nor move: correctives, attachments, what fills out
        the trunk. Where the next bone of a limb begins is no side branch."""
        anatomy, skeleton = self._anatomy, self._skeleton
        kept = (self.digits if digits_too else np.zeros(self._count, bool)) | (
            self.face if face_too else np.zeros(self._count, bool)
        )
        side = [
            bone
            for bone in self._downward()
            if self.drawn[bone] and anatomy.parents[bone] >= 0 and not kept[bone] and not self._goes_on(bone)
        ]
        limbs = {bone for bone in side if self._stands_out(bone)}
        limbs |= self._moving_together([bone for bone in side if bone not in limbs])
        moving = {bone for bone in limbs if self._measured and self._stirs(self._branch(bone), MOVING)}
        mirrored = {
            names.unsided(skeleton.names[bone]) for bone in limbs if names.is_sided(skeleton.names[bone])
        }
        for bone in side:
            if names.unsided(skeleton.names[bone]) in mirrored or any(
                self._alike(bone, other) for other in moving
            ):
                limbs.add(bone)
        for bone in side:
            if bone in limbs or not self.drawn[bone]:
                continue
            branch = np.zeros(self._count, bool)
            branch[self._branch(bone)] = True
            carrier = skeleton.names[int(anatomy.parents[bone])]
            moved = float(self._moved[branch].sum())
            why = say("rigid with {carrier}", carrier=carrier)
            if moved >= 1e-4:
                why = say("it moves only {share:.1%} of the picture", share=moved)
            elif not self._measured:
                why = say("a detail of {carrier}", carrier=carrier)
            self._skip(branch & ~kept, why)

    def _moving_together(self, bones: list[int]) -> set[int]:
        """Those of some side branches that are many of one make, each moves, and together they move enough of
        the picture: the legs of a centipede, the keys of a piano."""
        rest = [bone for bone in bones if self._stirs(self._branch(bone), STIRRING)]
        found: set[int] = set()
        while rest:
            first = rest[0]
            same = [bone for bone in rest if self._of_one_size(first, bone)]
            rest = [bone for bone in rest if bone not in same]
            if len(same) >= BUNDLE and self._stirs([b for one in same for b in self._branch(one)], ADORNING):
                found.update(same)
        return found

    def _goes_on(self, bone: int) -> bool:
        """Whether a bone begins where its parent's limb ends."""
        skeleton, parent = self._skeleton, int(self._anatomy.parents[bone])
        siblings = self._anatomy.children[parent]
        away = float(np.linalg.norm(skeleton.heads[bone] - skeleton.heads[parent]))
        if self._trusted:
            gap = float(np.linalg.norm(skeleton.heads[bone] - skeleton.tails[parent]))
            length = skeleton.lengths[parent]
            if gap <= 0.05 * length + skeleton.near:
                return True
            onward = (skeleton.heads[bone] - skeleton.heads[parent]) @ skeleton.vectors[parent]
            beyond = away >= length and onward >= STRAIGHT * away * length
            return beyond or (gap < 0.4 * length and len(siblings) == 1)
        if away < ENDING * self._own[parent] and away < ENDING * self._reach_onward(parent, bone):
            return False
        return len(siblings) == 1 or bone == max(
            siblings, key=lambda child: self._straightness(parent, child)
        )

    def _reach_onward(self, parent: int, child: int) -> float:
        """How far the flesh of a bone goes toward a child that goes straight on from it, so that short fat
        bones of a chain do not count as within one another; else however far it goes."""
        skeleton, before = self._skeleton, int(self._anatomy.parents[parent])
        mine = self._skin.points[self._skin.owners == parent] - skeleton.heads[parent]
        onward = skeleton.heads[child] - skeleton.heads[parent]
        incoming = skeleton.heads[parent] - skeleton.heads[before]
        span = float(np.linalg.norm(onward) * np.linalg.norm(incoming))
        if before < 0 or len(mine) < 3 or onward @ incoming < STRAIGHT * span:
            return np.inf
        return float(np.percentile(mine @ onward, 95) / max(np.linalg.norm(onward), 1e-12))

    def _straightness(self, parent: int, child: int) -> tuple:
        skeleton = self._skeleton
        middle = not names.is_sided(skeleton.names[parent]) and not names.is_sided(skeleton.names[child])
        before = int(self._anatomy.parents[parent])
        onward = skeleton.heads[child] - skeleton.heads[parent]
        onward = onward / max(np.linalg.norm(onward), 1e-12)
        incoming = skeleton.heads[parent] - skeleton.heads[before] if before >= 0 else np.zeros(3)
        straight = float(onward @ incoming) / max(float(np.linalg.norm(incoming)), 1e-12)
        return middle, self._length[child] > LIMB * skeleton.size, straight, self._length[child]

    def _stands_out(self, bone: int) -> bool:
        skeleton, branch = self._skeleton, self._branch(bone)
        name, leaf = skeleton.names[bone], bone not in self._anatomy.children
        long = self._length[bone] >= LIMB * skeleton.size
        if leaf and (names.is_helper(name) or names.is_bulk(name)):
            long = long and not names.is_helper(name) and not names.is_bulk(name)
            return long or self._stirs(branch, ADORNING)
        if leaf and self._lies_within_parent(bone):
            return False
        if self._ears[bone]:
            return True
        if long or self._stirs(branch, MOVING):
            return True
        if not self._has_flesh:
            return not self._measured and self._length[bone] >= DETAIL * skeleton.size
        if self._measured:  # a leg that stands still is one, a thing that one bone carries is rigid
            return not leaf and bool(self._seen[branch].sum() >= BULKY * self._seen.sum())
        return bool(self._flesh[branch].sum() >= BULKY)

    def _lies_within_parent(self, bone: int) -> bool:
        """Whether a bone lies along its parent from one place to another, as twist bones do."""
        skeleton, parent = self._skeleton, int(self._anatomy.parents[bone])
        if not self._trusted:
            return self._flesh_lies_within(bone, parent)
        length = self._own[parent]
        ends = [skeleton.heads[c] for c in self._anatomy.children[parent] if c != bone and self._goes_on(c)]
        end = ends[0] if ends else skeleton.tails[parent]
        axis = end - skeleton.heads[parent]
        span = float(axis @ axis)
        if span <= 0 or length <= 0:
            return False
        for point in (skeleton.heads[bone], skeleton.tails[bone]):
            along = float((point - skeleton.heads[parent]) @ axis) / span
            off = np.linalg.norm(point - skeleton.heads[parent] - along * axis)
            if not -0.05 <= along <= 1.05 or off > 0.1 * length:
                return False
        return True

    def _flesh_lies_within(self, bone: int, parent: int) -> bool:
        """Whether a bone's flesh lies along that of its parent, not beyond it: so it is with twist bones,
        whose tails may be an importer's guess."""
        skin, head = self._skin, self._skeleton.heads[parent]
        mine, whole = (skin.points[skin.owners == one] - head for one in (bone, parent))
        if len(mine) < 3 or len(whole) < 3:
            return False
        axis = whole.mean(axis=0)
        axis /= max(np.linalg.norm(axis), 1e-12)
        low, high = np.percentile(whole @ axis, (2, 98))
        thick = np.percentile(np.linalg.norm(whole - (whole @ axis)[:, None] * axis, axis=1), 95)
        along, room = mine @ axis, 0.05 * (high - low)
        off = np.linalg.norm(mine - along[:, None] * axis, axis=1)
        inside = (along >= low - room) & (along <= high + room) & (off <= 1.1 * thick)
        return bool(inside.mean() > 0.9)

    def _alike(self, bone: int, other: int) -> bool:
        """Whether two bones are of one make: mirror images, or siblings of one size."""
        if names.unsided(self._skeleton.names[bone]) == names.unsided(self._skeleton.names[other]):
            return True
        same_parent = self._anatomy.parents[bone] == self._anatomy.parents[other]
        return bool(same_parent and self._of_one_size(bone, other))

    def _of_one_size(self, bone: int, other: int) -> bool:
        lengths = sorted((self._length[bone], self._length[other]))
        areas = sorted((self._flesh[bone], self._flesh[other]))
        return bool(lengths[1] <= 1.25 * lengths[0] and areas[1] <= 1.5 * areas[0])

    # Roots

    def _skip_roots(self) -> None:
        """Leave out bones that only carry the whole rig: a stroke from the world's origin to the hips is no
        limb."""
        while True:
            anatomy = self.anatomy_of(self.drawn)
            dropped = False
            for bone in np.flatnonzero(self.drawn & (anatomy.parents < 0) & ~self._fixed).tolist():
                below = anatomy.children.get(bone, [])
                if below and self._skin.shares[bone] <= TRACE and self._only_carries(bone, below):
                    self.drawn[bone] = False
                    self.reasons[bone] = say("it carries the whole rig")
                    dropped = True
            if not dropped:
                return

    def _only_carries(self, bone: int, below: list[int]) -> bool:
        skeleton, name = self._skeleton, self._skeleton.names[bone]
        gaps = np.linalg.norm(skeleton.heads[below] - skeleton.tails[bone], axis=1)
        loose = bool((gaps > skeleton.near).all())
        if names.is_root(name) and (loose or len(below) == 1):
            return True
        if self._has_flesh:
            return loose and len(below) == 1
        if len(below) != 1:
            return False
        fork = self._fork(below[0])
        if fork is None:
            return False
        axis = skeleton.heads[below[0]] - skeleton.heads[bone]
        if self._trusted and gaps[0] > LOOSE * np.linalg.norm(axis):
            return True
        # A body that reaches back to where the bone begins (feet on the floor) does not grow out of it.
        span = float(axis @ axis)
        branch = self._branch(fork)
        joints = np.concatenate(
            [skeleton.heads[branch], skeleton.tails[branch][: len(branch) * self._trusted]]
        )
        along = (joints - skeleton.heads[bone]) @ axis / max(span, 1e-18)
        return bool(along.min() < 0.5)

    def _fork(self, bone: int) -> int | None:
        """The bone at which a skeleton branches, this one or one soon after it; None where it goes on as a
        chain, as a rope does."""
        for _ in range(ROOTS):
            onward = self._anatomy.children.get(bone, [])
            if len(onward) != 1:
                return bone if onward else None
            bone = onward[0]
        return None

    # Reasons

    def _explain(self) -> None:
        whole: dict[tuple[bool, str], str] = {}
        for bone in range(self._count):
            if self.drawn[bone] and not self.reasons[bone]:
                if self._measured and self._moved[bone] >= 0.001:
                    self.reasons[bone] = say(
                        "moves {share} of the picture", share=_percent(self._moved[bone])
                    )
                elif self._measured:
                    self.reasons[bone] = say(
                        "covers {share} of the picture", share=_percent(self._seen[bone])
                    )
                elif self._has_flesh:
                    self.reasons[bone] = say("has {share} of the flesh", share=_percent(self._flesh[bone]))
                else:
                    self.reasons[bone] = say("a joint of the skeleton")
            # Most bones of a generated rig share a few reasons.
            told = bool(self.drawn[bone]), self.reasons[bone]
            if told not in whole:
                reason = self.reasons[bone] or say("not among the limbs")
                whole[told] = (
                    say("drawn: {reason}", reason=reason)
                    if self.drawn[bone]
                    else say("skipped: {reason}", reason=reason)
                )
            self.reasons[bone] = whole[told]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


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


def _is_chain(children: dict[int, list[int]], bone: int) -> bool:
    """Whether a bone and all below it do not branch."""
    while bone in children:
        if len(children[bone]) > 1:
            return False
        bone = children[bone][0]
    return True


def _kind(name: str) -> frozenset[str]:
    return frozenset(word for word in names.words(name) if not word.isdigit())
