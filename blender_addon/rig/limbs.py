"""From the drawn bones of an armature to strokes that link up as an animal's stick figure does.

A limb is a bone, or a chain of bones that bends as one; its stroke starts where its parent's ends. A part
is a chain of limbs from one branching to the next: the spine, the tail, a leg.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import bpy
import numpy as np

from ..buttons import LEAVE_EDIT_MODE
from ..errors import ExportError
from ..shared.pose import MAX_LIMBS
from ..texts import say
from . import names, trained_look
from .choice import Choice
from .human import Human, Point, find_human
from .motion import Motion
from .skeleton import Skeleton, bends, spanned_straight
from .skin import Skin

MAX_PARTS = 10
SMALL_PART = 0.1
"""A part shorter than this fraction of the longest joins its neighbour."""
SHORTEST = 0.012
"""Neighbours in a chain that are together shorter than this fraction of the skeleton are one limb."""
LONELY = 0.35
"""Bones further than this fraction of the skeleton's size from all others stay apart."""


@dataclass(frozen=True)
class ChosenLimb:
    """`name` is its first bone's; `bones` are those that bend as one in it."""

    name: str
    bones: tuple[str, ...]
    part: int


@dataclass(frozen=True, eq=False)
class LimbChoice:
    """The limbs of one armature, parents before children.

    Limb l's stroke has `counts[l]` consecutive joints. Joint k is fixed to bone `joint_bones[k]` (an index
    into `armature.bones`) at `joint_offsets[k]` [3] in its space, or, where `joint_bends[k]` is not 0, at
    that joint between the segments of a B-bone. `owners` gives for every bone that moves flesh the limb
    that this flesh belongs to, `reasons` for every bone why it is drawn or not ("drawn: moves 6% of the
    picture"). `unsent` is the fraction of the picture that fingers and toes move which are not drawn,
    `unsent_face` that of the face, hair and cloth; `left_out` is the number of limbs for which there were not
    enough labels.

    `human` is the person that the rig was recognised as, None for others. Where `joint_twins` has a joint, it
    lies in the middle between its own place and another, a bone and an offset in its space.
    """

    limbs: tuple[ChosenLimb, ...]
    parts: tuple[str, ...]
    counts: np.ndarray
    joint_bones: np.ndarray
    joint_offsets: np.ndarray
    joint_bends: np.ndarray
    owners: dict[str, int]
    reasons: dict[str, str]
    unsent: float = 0.0
    unsent_face: float = 0.0
    left_out: int = 0
    human: Human | None = None
    joint_twins: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    as_person: bool = False
    """Whether these are the limbs of OpenPose's figure."""


class Figure(Protocol):
    """The limbs of one armature while some of them may still be left out."""

    def matters(self) -> list[tuple[bool, float, float]]:
        """How much it matters that each limb is drawn, as `Choice.matters` has it."""

    def leave_out(self, limbs: Sequence[int]) -> None:
        """Draw these limbs no longer; what they move goes to those beside them."""

    def choice(self) -> LimbChoice:
        """The limbs as they are drawn."""


def choose_limbs(armature: bpy.types.Object, motion: Motion | None = None, look: str = "bones") -> LimbChoice:
    """The limbs of an armature that is drawn alone: those of `make_figure` for which there are labels.
    Raises `ExportError` when nothing is left to draw."""
    [choice] = share_labels([make_figure(armature, motion, look)])
    return choice


def make_figure(
    armature: bpy.types.Object, motion: Motion | None = None, look: str = "bones", before: Skin | None = None
) -> Figure:
    """All limbs of an armature object, as its flesh, its motion in a shot, its make-up and what the user
    says of its bones tell.

    look: "bones", or "trained" for the look that the released weights know (see `trained_look`).
    before: what it moved in another frame of the shot, where that may be something else.

    Raises `ExportError` when nothing is left to draw.
    """
    if armature.mode == "EDIT":
        raise ExportError(
            say("The armature {armature} is in Edit Mode; leave it first.", armature=armature.name),
            *LEAVE_EDIT_MODE,
        )
    if not armature.data.bones:
        raise ExportError(
            say(
                "The armature {armature} has no bones; add some or choose another armature.",
                armature=armature.name,
            )
        )
    skeleton = Skeleton.read(armature.data)
    skin = Skin.read(armature, skeleton, bpy.data.objects)
    skin = skin if before is None else before.joined(skin)
    choice = Choice(armature, skeleton, skin, motion)
    skeleton = choice.skeleton
    human = find_human(skeleton, choice.anatomy, choice.candidates, skin, choice.face, choice.digits)
    if look == "trained" and human is not None:
        return _Person(skeleton, choice, human)
    return _Strokes(armature, skeleton, skin, choice, human, look == "trained")


def share_labels(figures: Sequence[Figure]) -> list[LimbChoice]:
    """The limbs of figures that are drawn together. Where there are more than labels, those are left out that
    matter least of all figures' limbs; the one that matters most of each figure goes before the others."""
    while True:
        ranked = []
        for figure in figures:
            matters = figure.matters()
            foremost = matters.index(max(matters)) if matters else -1
            ranked += [(limb == foremost, much, figure, limb) for limb, much in enumerate(matters)]
        ranked.sort(key=lambda one: one[:2])
        least = ranked[: max(0, len(ranked) - MAX_LIMBS)]
        if not least:
            return [figure.choice() for figure in figures]
        for figure in figures:
            figure.leave_out([limb for *_, mine, limb in least if mine is figure])


def as_person(skeleton: Skeleton, human: Human) -> LimbChoice:
    """The limbs of OpenPose's figure on a person's rig."""
    return _person(skeleton, human, range(len(trained_look.human_strokes(human))))


def _person(skeleton: Skeleton, human: Human, drawn: Sequence[int]) -> LimbChoice:
    """Those of the limbs of OpenPose's figure that are drawn (indices of `human_strokes`)."""
    every = trained_look.human_strokes(human)
    strokes = [every[limb] for limb in drawn]
    parts = tuple(dict.fromkeys(part for _, part, _, _ in strokes))
    joints: list[Point] = []
    twins: dict[int, tuple[int, np.ndarray]] = {}
    for _, _, start, end in strokes:
        if not isinstance(start, Point):
            twins[len(joints)] = start[1].bone, skeleton.to_bone(start[1].bone, start[1].rest)
            start = start[0]
        joints += [start, end]
    return LimbChoice(
        limbs=tuple(ChosenLimb(name, (), parts.index(part)) for name, part, _, _ in strokes),
        parts=parts,
        counts=np.full(len(strokes), 2, np.int32),
        joint_bones=np.array([joint.bone for joint in joints], np.int64),
        joint_offsets=_offsets([skeleton.to_bone(joint.bone, joint.rest) for joint in joints]),
        joint_bends=np.zeros(len(joints), np.int16),
        owners=trained_look.human_owners(skeleton, human, drawn),
        reasons={},
        human=human,
        joint_twins=twins,
        as_person=True,
    )


def _offsets(offsets: Iterable[np.ndarray]) -> np.ndarray:
    return np.array(list(offsets), np.float64).reshape(-1, 3)


class _Person:
    """A `Figure` as OpenPose draws people."""

    def __init__(self, skeleton: Skeleton, choice: Choice, human: Human):
        self._skeleton, self._choice, self._human = skeleton, choice, human
        self._drawn = list(range(len(trained_look.human_strokes(human))))
        self._left_out = 0

    def matters(self) -> list[tuple[bool, float, float]]:
        # A stroke of the body matters as all that lies about it: those of trunk and face have little flesh.
        owners = trained_look.human_owners(self._skeleton, self._human, self._drawn)
        bones: dict[int, list[int]] = {limb: [] for limb in self._drawn}
        for bone, name in enumerate(self._skeleton.names if owners else ()):
            for limb in bones.keys() & {self._drawn[owners[name]], *self._human.branches[bone]}:
                bones[limb].append(bone)
        return [self._choice.matters(mine) for mine in bones.values()]

    def leave_out(self, limbs: Sequence[int]) -> None:
        self._drawn = [stroke for limb, stroke in enumerate(self._drawn) if limb not in set(limbs)]
        self._left_out += len(limbs)

    def choice(self) -> LimbChoice:
        return replace(
            _person(self._skeleton, self._human, self._drawn),
            reasons=dict(zip(self._skeleton.names, self._choice.reasons, strict=True)),
            left_out=self._left_out,
        )


@dataclass
class _Joint:
    bone: int
    offset: np.ndarray
    rest: np.ndarray
    bend: int = 0


@dataclass
class _Stroke:
    """A limb in the making. `first` and `last` are the nodes of the figure between which it runs."""

    bones: list[int]
    joints: list[_Joint]
    digit: bool
    parent: int = -1
    first: int = -1
    last: int = -1
    part: int = -1
    link: list[_Joint] = field(default_factory=list)
    tail_link: list[_Joint] = field(default_factory=list)

    @property
    def path(self) -> list[_Joint]:
        return self.link + self.joints + self.tail_link

    @property
    def length(self) -> float:
        points = np.array([joint.rest for joint in self.path])
        return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


class _Strokes:
    """A `Figure` along the bones, or, `fleshed`, along the middle of their flesh."""

    def __init__(
        self,
        armature: bpy.types.Object,
        skeleton: Skeleton,
        skin: Skin,
        choice: Choice,
        human: Human | None,
        fleshed: bool,
    ):
        self._skeleton = skeleton
        self._skin = skin
        self._choice = choice
        self._human = human
        self._fleshed = fleshed
        self._merge_digits = armature.data.poseanything.digits == "MERGE"
        self._left_out = 0
        self._drawn = choice.drawn.copy()
        self._make_strokes()
        if not self.strokes:
            raise ExportError(
                say(
                    "The bones of the armature {armature} all end where they begin; set the bones of its "
                    "limbs to Draw.",
                    armature=armature.name,
                )
            )

    def matters(self) -> list[tuple[bool, float, float]]:
        return [self._choice.matters(stroke.bones) for stroke in self.strokes]

    def leave_out(self, limbs: Sequence[int]) -> None:
        if limbs:
            bones = [bone for limb in limbs for bone in self.strokes[limb].bones]
            self._choice.leave_out(bones, self._drawn)
            self._left_out += len(limbs)
            self._make_strokes()

    def choice(self) -> LimbChoice:
        if self.strokes:
            self._join_roots()
        parts = self._make_parts() if self.strokes else ()
        if self._fleshed:
            self._follow_flesh()
        skeleton, strokes = self._skeleton, self.strokes
        joints = [joint for stroke in strokes for joint in stroke.path]
        return LimbChoice(
            limbs=tuple(
                ChosenLimb(skeleton.names[s.bones[0]], tuple(skeleton.names[b] for b in s.bones), s.part)
                for s in strokes
            ),
            parts=parts,
            counts=np.array([len(stroke.path) for stroke in strokes], np.int32),
            joint_bones=np.array([joint.bone for joint in joints], np.int64),
            joint_offsets=_offsets(joint.offset for joint in joints),
            joint_bends=np.array([joint.bend for joint in joints], np.int16),
            owners=self._owners() if strokes else {},
            reasons=dict(zip(skeleton.names, self._choice.reasons, strict=True)),
            unsent=self._choice.unsent,
            unsent_face=self._choice.unsent_face,
            left_out=self._left_out,
            human=self._human,
        )

    def _follow_flesh(self) -> None:
        """Move the joints that stray from the middle of their flesh there, and with them those of the limbs
        that begin between them."""
        before = [np.array([joint.rest for joint in stroke.joints]) for stroke in self.strokes]
        moved = trained_look.middles(
            self._skeleton, self._skin, [(s.bones, list(joints)) for s, joints in zip(self.strokes, before)]
        )
        shifts = [
            np.array([moved.get(joint.tobytes(), joint) - joint for joint in joints]) for joints in before
        ]
        for stroke, own in zip(self.strokes, shifts, strict=True):
            for joint, shift in zip(stroke.joints, own, strict=True):
                self._shift(joint, shift)
            for joint in stroke.link + stroke.tail_link:
                shift = moved.get(joint.rest.tobytes())
                if shift is not None:
                    self._shift(joint, shift - joint.rest)
                elif stroke.parent >= 0:
                    self._shift(joint, _along(joint.rest, before[stroke.parent], shifts[stroke.parent]))

    def _shift(self, joint: _Joint, shift: np.ndarray) -> None:
        if shift.any():
            joint.rest = joint.rest + shift
            joint.offset, joint.bend = self._skeleton.to_bone(joint.bone, joint.rest), 0

    # Where a bone's stroke ends

    def _find_ends(self, drawn: np.ndarray) -> None:
        """Set where the bones' strokes end; those that end where they begin are drawn no longer."""
        while True:
            self._anatomy = self._choice.anatomy_of(drawn)
            self._children = self._anatomy.children
            self._trusted = self._anatomy.tails_are_real
            self._main: dict[int, int] = {}
            self._ends: dict[int, _Joint] = {}
            for bone in self._downward(drawn):
                self._find_end(bone)
            flat = [bone for bone in np.flatnonzero(drawn).tolist() if bone not in self._ends]
            if not flat:
                return
            drawn[flat] = False

    def _downward(self, drawn: np.ndarray):
        waiting = [b for b in np.flatnonzero(drawn).tolist() if self._anatomy.parents[b] < 0][::-1]
        while waiting:
            bone = waiting.pop()
            yield bone
            waiting.extend(reversed(self._children.get(bone, ())))

    def _find_end(self, bone: int) -> None:
        """Set the joint at which a bone's stroke ends and the child that goes on from there, if one does."""
        skeleton = self._skeleton
        head, tail, length = skeleton.heads[bone], skeleton.tails[bone], skeleton.lengths[bone]
        children = [
            c
            for c in self._children.get(bone, ())
            if np.linalg.norm(skeleton.heads[c] - head) > skeleton.near
        ]
        if self._trusted and length > skeleton.near:
            gaps = {c: np.linalg.norm(skeleton.heads[c] - tail) for c in children}
            close = [c for c in children if gaps[c] < 0.4 * length]
            touching = [c for c in close if gaps[c] <= 0.05 * length + skeleton.near]
            child = self._straightest(bone, touching or close)
        else:
            child = self._straightest(bone, children)
        if child is not None:
            self._main[bone] = child
            self._ends[bone] = _Joint(child, np.zeros(3), skeleton.heads[child])
        elif self._trusted and length > skeleton.near and not self._choice.tail_is_guessed(bone):
            self._ends[bone] = _Joint(bone, skeleton.to_bone(bone, tail), tail)
        else:
            rest = self._guess_end(bone)
            if rest is not None and np.linalg.norm(rest - head) > skeleton.near:
                self._ends[bone] = _Joint(bone, skeleton.to_bone(bone, rest), rest)

    def _straightest(self, bone: int, children: list[int]) -> int | None:
        """The child with which a limb goes on: straight ahead, and in the body's middle if the bone is."""
        if not children:
            return None
        skeleton = self._skeleton
        incoming = self._incoming(bone)
        if incoming is None:
            incoming = skeleton.vectors[bone] if self._trusted else None
        middle = not names.is_sided(skeleton.names[bone])

        def score(child):
            onward = skeleton.heads[child] - skeleton.heads[bone]
            onward /= np.linalg.norm(onward)
            straight = float(onward @ incoming / np.linalg.norm(incoming)) if incoming is not None else 0.0
            return (
                middle and not names.is_sided(skeleton.names[child]),
                not self._choice.digits[child],
                straight,
                self._below(child),
            )

        return max(children, key=score)

    def _incoming(self, bone: int) -> np.ndarray | None:
        parent = int(self._anatomy.parents[bone])
        if parent < 0:
            return None
        vector = self._skeleton.heads[bone] - self._skeleton.heads[parent]
        return vector if np.linalg.norm(vector) > self._skeleton.near else None

    def _below(self, bone: int) -> int:
        return 1 + sum(self._below(child) for child in self._children.get(bone, ()))

    def _guess_end(self, bone: int) -> np.ndarray | None:
        """The end of a last bone whose tail means nothing: joints that mark it, fingers that go on, its
        flesh, or, without any flesh, straight on from where it comes."""
        skeleton = self._skeleton
        under = np.flatnonzero(skeleton.parents == bone)
        marks = [b for b in under.tolist() if names.is_end(skeleton.names[b]) or self._choice.digits[b]]
        if marks:
            return skeleton.heads[marks].mean(axis=0)
        incoming = self._incoming(bone)
        if len(self._skin.points) or incoming is None:
            return self._skin.reach(skeleton, bone, incoming)
        return skeleton.heads[bone] + incoming * min(1.0, skeleton.lengths[bone] / np.linalg.norm(incoming))

    # Strokes

    def _runs(self, drawn: np.ndarray) -> np.ndarray:
        """[N] numbers from 1 on of the runs of neighbours in a chain that are drawn as one limb, as the
        segments of a B-bone are: bones so short that they tell of no bend, and more where there are more
        bones than labels."""
        lengths = self._choice.lengths
        run = np.zeros(len(drawn), np.int64)
        least = SHORTEST * self._skeleton.size
        order = [bone for bone in self._downward(drawn) if drawn[bone]]
        crowded = False
        while True:
            run[:] = 0
            room: dict[int, float] = {}
            count = 0
            for bone in order:
                parent = int(self._anatomy.parents[bone])
                goes_on = parent >= 0 and self._main.get(parent) == bone
                sure = (
                    goes_on
                    and (self._trusted or crowded)
                    and self._choice.is_plain(bone)
                    and self._choice.is_plain(parent)
                )
                if sure and room[run[parent]] + lengths[bone] <= least:
                    run[bone] = run[parent]
                else:
                    count += 1
                    run[bone] = count
                    room[count] = 0.0
                room[run[bone]] += lengths[bone]
            if count <= MAX_LIMBS or least > self._skeleton.size:
                return run
            crowded = True
            least *= 1.25

    def _make_strokes(self) -> None:
        """Make the strokes of the drawn bones anew."""
        drawn = self._drawn
        self._find_ends(drawn)
        self.strokes: list[_Stroke] = []
        self._stroke_of: dict[int, int] = {}
        self._nodes = 0
        self._run = self._runs(drawn)
        for bone in self._downward(drawn):
            parent = int(self._anatomy.parents[bone])
            if parent >= 0 and self._main.get(parent) == bone and self._bends_with(parent, bone):
                stroke = self.strokes[self._stroke_of[parent]]
                stroke.bones.append(bone)
                stroke.joints += self._joints(bone)[1:]
                self._stroke_of[bone] = self._stroke_of[parent]
                continue
            self._stroke_of[bone] = len(self.strokes)
            self.strokes.append(_Stroke([bone], self._joints(bone), bool(self._choice.digits[bone])))
        for stroke in self.strokes:
            bone = stroke.bones[0]
            parent = int(self._anatomy.parents[bone])
            stroke.last = self._new_node()
            if parent < 0:
                stroke.first = self._new_node()
            else:
                stroke.parent = self._stroke_of[parent]
                self._attach(stroke, self.strokes[stroke.parent])
        for index, stroke in enumerate(self.strokes):
            if stroke.link and self._hangs_by_its_tip(index):
                stroke.parent, stroke.first, stroke.link = -1, self._new_node(), []

    def _joints(self, bone: int) -> list[_Joint]:
        skeleton = self._skeleton
        head, end = skeleton.heads[bone], self._ends[bone]
        joints = [self._start(bone)]
        segments = int(skeleton.segments[bone])
        if segments > 1 and self._trusted:
            for bend in bends(segments):
                offset = np.array([0.0, skeleton.lengths[bone] * bend / segments, 0.0])
                joints.append(_Joint(bone, offset, head + skeleton.vectors[bone] * bend / segments, bend))
        tip = self._muzzle(bone) if bone not in self._main else None
        return joints + [end] + ([_Joint(bone, skeleton.to_bone(bone, tip), tip)] if tip is not None else [])

    def _start(self, bone: int) -> _Joint:
        """A bone's head; for a root from which the body's middle line goes on to two sides, as hips between
        spine and tail do, that line's other joint: where such a root itself lies means nothing when only
        heads are known."""
        skeleton = self._skeleton
        if not self._trusted and self._anatomy.parents[bone] < 0 and not names.is_sided(skeleton.names[bone]):
            children = [c for c in self._children.get(bone, ()) if not names.is_sided(skeleton.names[c])]
            if len(children) == 2 and self._main.get(bone) in children:
                other = next(c for c in children if c != self._main[bone])
                return _Joint(other, np.zeros(3), skeleton.heads[other])
        return _Joint(bone, np.zeros(3), skeleton.heads[bone])

    def _muzzle(self, bone: int) -> np.ndarray | None:
        """The tip of a face that runs on in the direction of the trunk, as an animal's does and a human's
        does not: a head is hardly told from a neck without it."""
        skeleton = self._skeleton
        root = bone
        while self._anatomy.parents[root] >= 0:
            root = int(self._anatomy.parents[root])
        face = [
            b
            for b in np.flatnonzero(
                self._choice.face & self._choice.candidates & (self._anatomy.owners == bone)
            ).tolist()
            if not names.is_sided(skeleton.names[b])
        ]
        if not face or root == bone:
            return None
        trunk = skeleton.heads[bone] - skeleton.heads[root]
        out = skeleton.tails[face] - skeleton.heads[bone]
        far = out[np.linalg.norm(out, axis=1).argmax()]
        along = far @ trunk / (np.linalg.norm(far) * np.linalg.norm(trunk) + 1e-12)
        return (
            skeleton.heads[bone] + far
            if along > 0.7 and np.linalg.norm(far) > skeleton.lengths[bone]
            else None
        )

    def _bends_with(self, parent: int, bone: int) -> bool:
        """Whether a bone and the one it goes on from are segments of one limb: the fingers' joints when
        they are merged, bones named as twists, and straight chains that one other bone spans from end to
        end."""
        skeleton, digits = self._skeleton, self._choice.digits
        if self._merge_digits and digits[bone] and digits[parent]:
            return True
        if self._run[bone] and self._run[bone] == self._run[parent]:
            return True
        if names.is_helper(skeleton.names[bone]):
            return True
        if self._main.get(bone) is None and bone in self._children:
            return False
        return spanned_straight(skeleton, self.strokes[self._stroke_of[parent]].bones[0], bone)

    def _attach(self, stroke: _Stroke, parent: _Stroke) -> None:
        """Let a stroke start on its parent: at one of its ends, or between them where that is much nearer."""
        head = stroke.joints[0].rest
        points = np.array([joint.rest for joint in parent.joints])
        to_first, to_last = np.linalg.norm(head - points[0]), np.linalg.norm(head - points[-1])
        stroke.first = parent.first if to_first < to_last else parent.last
        nearest = parent.joints[0] if to_first < to_last else parent.joints[-1]
        between, distance = _nearest_on_path(head, points)
        if distance < 0.75 * min(to_first, to_last):
            stroke.first = parent.first
            bone = parent.bones[0]
            nearest = _Joint(bone, self._skeleton.to_bone(bone, between), between)
        if np.linalg.norm(nearest.rest - head) > self._skeleton.near:
            stroke.link = [nearest]

    def _hangs_by_its_tip(self, index: int) -> bool:
        """Whether a chain runs toward the body, as the tails of Rigify's quadrupeds do: another of its ends
        lies on it."""
        below = {index}
        for other, stroke in enumerate(self.strokes):
            if stroke.parent in below:
                below.add(other)
        ends = np.array([self.strokes[i].joints[-1].rest for i in below])
        rest = [
            stroke.joints[k].rest for i, stroke in enumerate(self.strokes) if i not in below for k in (0, -1)
        ]
        return bool((np.linalg.norm(ends[:, None] - np.array(rest), axis=2) <= self._skeleton.near).any())

    def _new_node(self) -> int:
        self._nodes += 1
        return self._nodes - 1

    def _join_roots(self) -> None:
        """Tie figures that hang together only through control bones to the largest one, at their nearest
        ends."""
        root = np.arange(len(self.strokes))
        for index in range(len(root)):
            while self.strokes[root[index]].parent >= 0:
                root[index] = self.strokes[root[index]].parent
        # Two ends a stroke: first, last.
        ends = np.array([stroke.joints[k].rest for stroke in self.strokes for k in (0, -1)])
        figure = np.repeat(root, 2)
        joined = figure == np.bincount(root).argmax()
        away = np.linalg.norm(ends[:, None] - ends, axis=2)
        while not joined.all():
            outer, inner = np.unravel_index(
                np.where(joined & ~joined[:, None], away, np.inf).argmin(), away.shape
            )
            joined |= figure == figure[outer]
            distance = away[outer, inner]
            if distance > LONELY * self._skeleton.size:
                continue
            stroke, target = self.strokes[outer // 2], self.strokes[inner // 2]
            joint = target.joints[-1 if inner % 2 else 0]
            if distance > self._skeleton.near:
                (stroke.tail_link if outer % 2 else stroke.link).append(joint)
            self._merge_nodes(
                stroke.last if outer % 2 else stroke.first, target.last if inner % 2 else target.first
            )

    def _merge_nodes(self, old: int, new: int) -> None:
        for stroke in self.strokes:
            stroke.first = new if stroke.first == old else stroke.first
            stroke.last = new if stroke.last == old else stroke.last

    # Parts

    def _make_parts(self) -> tuple[str, ...]:
        """Chains between branchings; small ones join a neighbour, fingers the hand they are on."""
        body = [i for i, stroke in enumerate(self.strokes) if not stroke.digit] or list(
            range(len(self.strokes))
        )
        at_node: dict[int, list[int]] = {}
        for index in body:
            for node in {self.strokes[index].first, self.strokes[index].last}:
                at_node.setdefault(node, []).append(index)
        group = {index: {index} for index in body}
        for indices in at_node.values():
            if len(indices) == 2:
                _unite(group, *indices)

        while True:
            chains = sorted({id(chain): chain for chain in group.values()}.values(), key=min)
            lengths = {id(chain): sum(self.strokes[i].length for i in chain) for chain in chains}
            smallest = min(chains, key=lambda chain: lengths[id(chain)])
            short = lengths[id(smallest)] < SMALL_PART * max(lengths.values())
            if len(chains) == 1 or not (short or len(chains) > MAX_PARTS):
                break
            beside = [i for n in at_node.values() if set(n) & smallest for i in n if i not in smallest]
            parent = self.strokes[min(smallest)].parent
            if parent in group and parent not in smallest:
                beside = [parent]
            if not beside:
                if not short or len(chains) <= MAX_PARTS:
                    break
                beside = [i for i in body if i not in smallest]
            _unite(group, min(smallest), max(beside, key=lambda i: lengths[id(group[i])]))

        chains = sorted({id(chain): chain for chain in group.values()}.values(), key=min)
        for part, chain in enumerate(chains):
            for index in chain:
                self.strokes[index].part = part
        for stroke in self.strokes:
            if stroke.part < 0:
                stroke.part = self.strokes[stroke.parent].part if stroke.parent >= 0 else 0
        return tuple(self._skeleton.names[self.strokes[min(chain)].bones[0]] for chain in chains)

    def _owners(self) -> dict[str, int]:
        """The limb of every bone that moves flesh; where none is up the chain, the nearest."""
        skeleton = self._skeleton
        owning = self._skin.shares > 0
        paths = [np.array([joint.rest for joint in stroke.joints]) for stroke in self.strokes]
        of_piece = np.repeat(np.arange(len(paths)), [len(path) - 1 for path in paths])
        start, step = (np.concatenate(each) for each in zip(*((p[:-1], np.diff(p, axis=0)) for p in paths)))
        owners = {}
        for bone, owner in enumerate(self._anatomy.owners.tolist()):
            name = skeleton.names[bone]
            if owner in self._stroke_of:
                owners[name] = self._stroke_of[owner]
            elif owning[bone] or skeleton.deforming[bone]:
                owners[name] = int(
                    of_piece[_nearest_on_pieces(skeleton.heads[bone], start, step)[1].argmin()]
                )
        return owners


def _unite(group: dict[int, set[int]], one: int, other: int) -> None:
    whole = group[one] | group[other]
    for index in whole:
        group[index] = whole


def _along(point: np.ndarray, path: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What `values` [K, 3] at the points of a polyline [K, 3] are at its point that is nearest."""
    start, step = path[:-1], np.diff(path, axis=0)
    share = np.einsum("ij,ij->i", point - start, step) / np.maximum(np.einsum("ij,ij->i", step, step), 1e-18)
    share = np.clip(share, 0, 1)
    piece = np.linalg.norm(point - start - step * share[:, None], axis=1).argmin()
    return values[piece] + (values[piece + 1] - values[piece]) * share[piece]


def _nearest_on_path(point: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, float]:
    """The point of a polyline [K, 3] that is nearest, and its distance."""
    nearest, away = _nearest_on_pieces(point, path[:-1], np.diff(path, axis=0))
    return nearest[away.argmin()], float(away.min())


def _nearest_on_pieces(
    point: np.ndarray, start: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each straight piece from `start` by `step` [P, 3] the nearest point, and its distance [P]."""
    along = np.einsum("ij,ij->i", point - start, step) / np.maximum(np.einsum("ij,ij->i", step, step), 1e-18)
    nearest = start + step * np.clip(along, 0, 1)[:, None]
    return nearest, np.linalg.norm(point - nearest, axis=1)
