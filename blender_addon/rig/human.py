"""People, recognised by how their bones hang together, whatever these are called.

A person is mirrored about a plane; from one place of that plane two legs go down, from another, above it,
two arms go out, and above those is a head. That holds for Rigify, Mixamo, Unreal, VRM, MMD and BVH alike, and
not for beasts, whose trunks lie across their legs. Names only help where the shape does not tell: which of
several bones in a row are twists, which finger is the thumb, and, for a body without feet, which way it
faces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..shared import openpose
from . import names
from .skeleton import Anatomy, Skeleton, spanned_straight
from .skin import Skin

MIRRORED = 0.05
"""Mirrored joints are at most this fraction of the skeleton's size apart."""
ASIDE = 0.004
"""What lies this fraction of the size beside the plane lies beside it."""
LIMB = 0.18
"""Arms and legs are longer than this fraction of the size."""
UPRIGHT = 0.75
"""Cosine between trunk and legs from which on a body is upright."""
NEARLY = 0.94
"""Cosine from which on a direction is one of the axes."""
FLOOR = 0.25
"""Ankles are at most this fraction of the hips' height above the lowest joint."""
FINGER = 0.4
"""A finger is shorter than this fraction of the arm."""

# A head's measures as fractions of the way from its joint, at the skull's base, to its crown: up, forward,
# and, for the right one of two, sideways.
NOSE_AT = (0.30, 0.55, 0.0)
EYE_AT = (0.45, 0.42, 0.16)
EAR_AT = (0.38, 0.05, 0.36)


@dataclass(frozen=True, eq=False)
class Point:
    """A place fixed to a bone: `bone` is an index into `armature.bones`, `rest` [3] its place at rest, in
    armature space."""

    bone: int
    rest: np.ndarray


@dataclass(frozen=True, eq=False)
class Human:
    """The points of `shared.openpose` on a rig; the neck is the middle between the shoulders.

    `hands` are the right one's and the left one's 21 points, None for one that has no fingers; a finger that
    is missing has None for its points. `head` is the bone that the face is fixed to, `forward`, `up` and
    `left` [3] are the directions in which the body faces, stands and has its left, in armature space.
    `branches` has for each bone the limbs of `openpose.BODY_LIMBS` that its flesh may belong to.
    """

    body: tuple[Point | None, ...]
    hands: tuple[tuple[Point | None, ...] | None, tuple[Point | None, ...] | None]
    head: int
    forward: np.ndarray
    up: np.ndarray
    left: np.ndarray
    branches: dict[int, tuple[int, ...]]


def find_human(
    skeleton: Skeleton, anatomy: Anatomy, moving: np.ndarray, skin: Skin, face: np.ndarray, digits: np.ndarray
) -> Human | None:
    """The person that a rig at rest is, None where it is none.

    `moving`, `face` and `digits` [N] bool are the bones that move flesh, those of the face, hair and cloth,
    and those of fingers and toes; `anatomy` is that of the moving ones.
    """
    if moving.sum() < 10:
        return None
    body = _Body(skeleton, anatomy, moving, skin, face, digits)
    pairs = [pair for pair in body.pairs() if body.reach[pair[0]] > LIMB * skeleton.size]
    found = [human for legs in pairs for arms in pairs if legs != arms if (human := body.read(legs, arms))]
    return max(found, key=lambda one: one[0])[1] if found else None


class _Body:
    def __init__(self, skeleton, anatomy, moving, skin, face, digits):
        self._skeleton, self._anatomy, self._moving = skeleton, anatomy, moving
        self._skin, self._face, self._digits = skin, face, digits
        self._children = anatomy.children
        self._bones = np.flatnonzero(moving).tolist()
        self._trusted = anatomy.tails_are_real
        self.reach, self._next = np.zeros(len(moving)), {}
        self._ends: dict[int, np.ndarray] = {}
        for bone in self._upward():
            self._measure(bone)

    def _upward(self) -> Iterator[int]:
        order, waiting = [], [b for b in self._bones if self._anatomy.parents[b] < 0]
        while waiting:
            order.append(waiting.pop())
            waiting.extend(self._children.get(order[-1], ()))
        return reversed(order)

    def _measure(self, bone: int) -> None:
        """The length of the longest chain that begins with a bone, and with which bone that goes on."""
        head, best = self._skeleton.heads[bone], 0.0
        for child in self._children.get(bone, ()):
            far = float(np.linalg.norm(self._skeleton.heads[child] - head)) + self.reach[child]
            if far > best and not self._face[child]:
                best, self._next[bone] = far, child
        self._ends[bone] = self._end(bone)
        self.reach[bone] = best or float(np.linalg.norm(self._ends[bone] - head))

    def _end(self, bone: int) -> np.ndarray:
        """Where a bone ends."""
        skeleton = self._skeleton
        if bone in self._next:
            return skeleton.heads[self._next[bone]]
        under = np.flatnonzero((skeleton.parents == bone) & ~self._moving)
        marks = [b for b in under.tolist() if names.is_end(skeleton.names[b])]
        if marks:
            return skeleton.heads[marks[0]]
        if self._trusted:
            return skeleton.tails[bone]
        parent = int(self._anatomy.parents[bone])
        incoming = skeleton.heads[bone] - skeleton.heads[parent] if parent >= 0 else None
        reached = self._skin.reach(skeleton, bone, incoming)
        return skeleton.heads[bone] if reached is None else reached

    def _path(self, bone: int) -> list[int]:
        """The longest chain from a bone on."""
        path = [bone]
        while path[-1] in self._next:
            path.append(self._next[path[-1]])
        return path

    def _under(self, bone: int) -> list[int]:
        found, waiting = [], [bone]
        while waiting:
            found.append(waiting.pop())
            waiting.extend(self._children.get(found[-1], ()))
        return found

    # The mirror

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of bones from which on everything lies on one side of the plane that the body is mirrored
        about, what lies at larger coordinates first, with their mirror images."""
        self._axis, self._middle = self._plane()
        beside = {bone: self._side(bone) for bone in self._bones}
        roots = [b for b in self._bones if beside[b] and not beside.get(int(self._anatomy.parents[b]), 0)]
        pairs, size = [], self._skeleton.size
        others = [b for b in roots if beside[b] < 0]
        ends = np.array([(self._skeleton.heads[b], self._tip(b)) for b in others]).reshape(-1, 2, 3)
        for one in (b for b in roots if beside[b] > 0):
            mirrored = np.stack([self._mirrored(self._skeleton.heads[one]), self._mirrored(self._tip(one))])
            away = np.linalg.norm(ends - mirrored, axis=2).max(axis=1)
            if len(others) and away.min() < 2 * MIRRORED * size:
                pairs.append((one, others[int(away.argmin())]))
        return pairs

    def _plane(self) -> tuple[int, float]:
        heads, size = self._skeleton.heads[self._moving], self._skeleton.size
        best = (-np.inf, 0, 0.0)
        for axis in range(3):
            middle = float(np.median(heads[:, axis]))
            off = np.abs(heads[:, axis] - middle) > 0.02 * size
            image = heads[off].copy()
            image[:, axis] = 2 * middle - image[:, axis]
            apart = np.linalg.norm(image[:, None] - heads[None], axis=2) if off.any() else np.zeros((0, 1))
            met = int((apart.min(axis=1) < MIRRORED * size).sum()) if len(apart) else 0
            best = max(best, (3 * met - 2 * int(off.sum()), axis, middle))
        return best[1], best[2]

    def _mirrored(self, point: np.ndarray) -> np.ndarray:
        image = point.copy()
        image[self._axis] = 2 * self._middle - image[self._axis]
        return image

    def _tip(self, bone: int) -> np.ndarray:
        return self._ends[self._path(bone)[-1]]

    def _side(self, bone: int) -> int:
        """1 or -1 where all that a bone carries lies on one side of the plane, 0 where it does not."""
        points = np.array([self._ends[b] for b in self._under(bone)])
        offset = points[:, self._axis] - self._middle
        least = ASIDE * self._skeleton.size
        return 1 if offset.min() > least else -1 if offset.max() < -least else 0

    # Limbs

    def read(self, legs: tuple[int, int], arms: tuple[int, int]) -> tuple[float, Human] | None:
        """How much of a person these legs and arms make, and the person."""
        skeleton = self._skeleton
        hips = np.mean([skeleton.heads[b] for b in legs], axis=0)
        shoulders = np.mean([skeleton.heads[b] for b in arms], axis=0)
        up = shoulders - hips
        trunk = float(np.linalg.norm(up))
        feet = np.mean([self._lowest(b, up) for b in legs], axis=0)
        down = hips - feet
        length = float(np.linalg.norm(down))
        if trunk < 0.08 * skeleton.size or not 0.4 * trunk < length < 6 * trunk:
            return None
        if up @ down < UPRIGHT * trunk * length or any(self._is_wing(b) for b in arms):
            return None
        up = up / trunk
        up[self._axis] = 0
        up /= np.linalg.norm(up)
        if np.abs(up).max() > NEARLY:  # bodies at rest stand straight though their shoulders lie behind
            up = np.sign(up) * (np.abs(up) == np.abs(up).max())
        height = lambda point: float((point - feet) @ up)  # noqa: E731
        if any(height(self._tip(b)) < 0.12 * (length + trunk) for b in arms):
            return None
        head = self._head(up, shoulders, {*self._under(arms[0]), *self._under(arms[1])})
        if head is None:
            return None
        found = [self._arm(b, up) for b in arms], [self._leg(b, up) for b in legs]
        if any(limb is None for side in found for limb in side):
            return None
        (arm_a, arm_b), (leg_a, leg_b) = found
        across = np.zeros(3)
        across[self._axis] = 1.0
        forward = self._forward(up, across, legs, (leg_a, leg_b))
        left = np.cross(up, forward)
        if left @ across < 0:  # the pairs begin with what lies at larger coordinates
            arm_a, arm_b, leg_a, leg_b = arm_b, arm_a, leg_b, leg_a
            arms, legs = arms[::-1], legs[::-1]
        body: list[Point | None] = [None] * len(openpose.BODY)
        for first, limb in ((5, arm_a), (2, arm_b), (11, leg_a), (8, leg_b)):
            body[first : first + 3] = limb
        for index, point in self._face_points(head, up, forward, left).items():
            body[index] = Point(head, point)
        hands = self._hand(arms[1], arm_b[2]), self._hand(arms[0], arm_a[2])
        human = Human(
            tuple(body), hands, head, forward, up, left, self._owners(head, shoulders, up, arms, legs)
        )
        weight = sum(self.reach[b] for b in (*arms, *legs)) + skeleton.size * sum(
            h is not None for h in hands
        )
        return weight, human

    def _is_wing(self, bone: int) -> bool:
        return any(names.is_wing(self._skeleton.names[b]) for b in self._path(bone))

    def _lowest(self, bone: int, up: np.ndarray) -> np.ndarray:
        points = np.array([self._ends[b] for b in self._under(bone)])
        return points[(points @ up).argmin()]

    def _joints(self, path: list[int]) -> list[int]:
        """The bones of a chain at which it bends: without twists, and without the further pieces of a bone
        that was cut into several."""
        kept = path[:1]
        for bone in path[1:]:
            twist = names.is_helper(self._skeleton.names[bone])
            if not twist and not spanned_straight(self._skeleton, kept[-1], bone):
                kept.append(bone)
        return kept

    def _arm(self, bone: int, up: np.ndarray) -> list[Point] | None:
        """Shoulder, elbow and wrist."""
        path = self._path(bone)
        fingers = next((k for k, b in enumerate(path) if k and self._is_finger(b, path[0])), None)
        chain = self._joints(path[:fingers])
        bones = [Point(b, self._skeleton.heads[b]) for b in chain]
        last = chain[-1]
        short = float(np.linalg.norm(self._ends[last] - self._skeleton.heads[last]))
        before = float(np.linalg.norm(bones[-1].rest - bones[-2].rest)) if len(bones) > 1 else 0.0
        if fingers is None and (len(bones) < 3 or short > 0.75 * before):
            bones.append(Point(last, self._ends[last]))  # a forearm without a hand
        return _balanced(bones, len(bones) - 1)

    def _is_finger(self, bone: int, arm: int) -> bool:
        """Whether a bone of an arm's chain is a finger's: one of several that are short beside the arm."""
        if self._digits[bone]:
            return True
        hand = int(self._anatomy.parents[bone])
        long = FINGER * float(np.linalg.norm(self._skeleton.heads[hand] - self._skeleton.heads[arm]))
        return sum(child in self._next for child in self._children[hand]) > 2 and all(
            self.reach[child] < long for child in self._children[hand]
        )

    def _leg(self, bone: int, up: np.ndarray) -> list[Point] | None:
        """Hip, knee and ankle."""
        path = self._path(bone)
        chain = self._joints(path)
        bones = [Point(b, self._skeleton.heads[b]) for b in chain]
        bones.append(Point(path[-1], self._ends[path[-1]]))
        floor = float(self._lowest(bone, up) @ up)
        hip = max(float(point.rest @ up) for point in bones)
        low = [k for k, p in enumerate(bones) if float(p.rest @ up) - floor <= FLOOR * (hip - floor)]
        return _balanced(bones, low[0]) if low else None

    # Head and face

    def _head(self, up: np.ndarray, shoulders: np.ndarray, arms: set[int]) -> int | None:
        skeleton, size = self._skeleton, self._skeleton.size
        above = [
            bone
            for bone in self._bones
            if bone not in arms
            and not self._face[bone]
            and not names.is_end(skeleton.names[bone])
            and abs(skeleton.heads[bone][self._axis] - self._middle) < 0.02 * size
            and (self._ends[bone] - shoulders) @ up > 0.02 * size
        ]
        if not above:
            return None
        # The bone with the most flesh of those that lie highest: a jaw or a hair's root has less.
        highest = max(float(skeleton.heads[bone] @ up) for bone in above)
        top = [bone for bone in above if highest - float(skeleton.heads[bone] @ up) < 0.05 * size]
        return max(top, key=lambda b: (self._skin.shares[b], float(skeleton.heads[b] @ up)))

    def _face_points(self, head: int, up, forward, left) -> dict[int, np.ndarray]:
        """Nose, eyes and ears by the bones of the eyes and the flesh of the head where there are some, else
        by a head's measures."""
        skeleton, skin = self._skeleton, self._skin
        joint, axes = skeleton.heads[head], np.stack([up, forward, left])
        own = [b for b in range(len(self._moving)) if b == head or head in skeleton.ancestors(b)]
        own = [
            b
            for b in own
            if not any(names.is_adornment(skeleton.names[a]) for a in (b, *skeleton.ancestors(b)))
        ]
        flesh = (skin.points[np.isin(skin.owners, own)] - joint) @ axes.T
        tall = float(np.percentile(flesh[:, 0], 99)) if len(flesh) > 20 else 0.0
        if tall < 0.02 * skeleton.size:
            tall = max(float((self._ends[head] - joint) @ up), 0.06 * skeleton.size)
        nose, eye, ear = (tall * np.array(at) for at in (NOSE_AT, EYE_AT, EAR_AT))
        eyes = [b for b in own if names.is_eye(skeleton.names[b])]
        places = (skeleton.heads[eyes] - joint) @ axes.T if eyes else np.zeros((0, 3))
        # The eyeballs, and not the lids around them or what aims them, which may lie anywhere.
        places = places[(np.abs(places[:, 2]) > 0.05 * tall) & (np.abs(places) < tall).all(axis=1)]
        if len(places):
            eye = np.array([*np.median(places[:, :2], axis=0), np.median(np.abs(places[:, 2]))])
            nose[0], ear[0] = eye[0] - 0.15 * tall, eye[0] - 0.07 * tall
        if len(flesh) > 20:
            front = flesh[(np.abs(flesh[:, 2]) < 0.15 * tall) & (np.abs(flesh[:, 0] - nose[0]) < 0.2 * tall)]
            side = flesh[np.abs(flesh[:, 0] - ear[0]) < 0.15 * tall]
            if len(front):
                nose[1] = np.percentile(front[:, 1], 95)
                if not len(places):
                    eye[1] = nose[1] - 0.12 * tall
            if len(side):
                ear[1] = (np.percentile(side[:, 1], 95) + np.percentile(side[:, 1], 5)) / 2
                ear[2] = np.clip(np.percentile(np.abs(side[:, 2]), 95), 0.25 * tall, 0.5 * tall)
        right = np.array([1, 1, -1])
        found = {
            openpose.NOSE: nose,
            openpose.LEFT_EYE: eye,
            openpose.RIGHT_EYE: eye * right,
            openpose.LEFT_EAR: ear,
            openpose.RIGHT_EAR: ear * right,
        }
        return {index: joint + place @ axes for index, place in found.items()}

    def _forward(self, up, across, legs, ankles) -> np.ndarray:
        """The way the feet point; without feet, the side of the left that the names tell."""
        ahead = np.zeros(3)
        for root, leg in zip(legs, ankles, strict=True):
            ahead += self._tip(root) - leg[2].rest
        ahead -= (ahead @ up) * up + (ahead @ across) * across
        size = float(np.linalg.norm(ahead))
        if size > 0.02 * self._skeleton.size:
            return ahead / size
        left = across if names.side_of(self._skeleton.names[legs[0]]) >= 0 else -across
        return np.cross(left, up)

    # Hands

    def _hand(self, arm: int, wrist: Point) -> tuple[Point | None, ...] | None:
        """21 points, or None without fingers."""
        starts = [
            b
            for b in self._children.get(wrist.bone, ())
            if (self._digits[b] or b in self._next) and not names.is_helper(self._skeleton.names[b])
        ]
        fingers = [path for b in starts for path in self._fingers_from(b, wrist.rest)]
        fingers = [finger for finger in fingers if len(finger) == 4]
        if len(fingers) < 2:
            return None
        ordered = self._in_order(fingers, wrist.rest)
        points: list[Point | None] = [wrist]
        for finger in ordered:
            points += [None] * 4 if finger is None else finger
        return tuple(points)

    def _fingers_from(self, bone: int, wrist: np.ndarray) -> Iterator[list[Point]]:
        """The four points of each finger that begins with a bone: a palm's may lead to one or more."""
        branching = [bone]
        while branching:
            path = [branching.pop()]
            while len(self._children.get(path[-1], ())) == 1:
                path.append(self._children[path[-1]][0])
            if path[-1] in self._children:
                branching.extend(self._children[path[-1]])
                continue
            points = [Point(b, self._skeleton.heads[b]) for b in path]
            if not names.is_end(self._skeleton.names[path[-1]]):
                points.append(Point(path[-1], self._ends[path[-1]]))
            while 1 < len(points) < 4:  # two bones: a joint more between them
                points.insert(1, Point(points[0].bone, (points[0].rest + points[1].rest) / 2))
            # Of five joints the first is a palm's, which begins near the wrist, or the last only an end.
            from_wrist = [float(np.linalg.norm(point.rest - wrist)) for point in points[:2]]
            palm = len(points) > 4 and from_wrist[0] < 0.5 * from_wrist[1]
            yield points[-4:] if palm else points[:4]

    def _in_order(self, fingers: list[list[Point]], wrist: np.ndarray) -> list[list[Point] | None]:
        """The five fingers from the thumb on, None for one that is missing."""
        named = {}
        for finger in fingers:
            index = names.finger_of(self._skeleton.names[finger[-2].bone])
            if index is not None and index not in named:
                named[index] = finger
        if len(named) == len(fingers):
            return [named.get(index) for index in range(len(openpose.FINGERS))]
        # The thumb goes another way than the others do.
        ways = np.array([f[-1].rest - f[0].rest for f in fingers])
        ways /= np.maximum(np.linalg.norm(ways, axis=1), 1e-12)[:, None]
        thumb = int((ways @ ways.T).sum(axis=1).argmin())
        base = fingers[thumb][0].rest
        others = sorted(
            (finger for k, finger in enumerate(fingers) if k != thumb),
            key=lambda finger: float(np.linalg.norm(finger[1].rest - base)),
        )
        return [fingers[thumb], *others[:4], *[None] * (4 - len(others))]

    # Flesh

    def _owners(self, head: int, shoulders, up, arms, legs) -> dict[int, tuple[int, ...]]:
        """For each bone, the limbs of the figure that its flesh may belong to."""
        skeleton = self._skeleton
        limbs = {"left arm": (4, 5), "right arm": (2, 3), "left leg": (10, 11), "right leg": (7, 8)}
        roots = dict(zip(limbs, (*arms, *legs), strict=True))
        branches: dict[int, tuple[int, ...]] = {}
        for bone in range(len(self._moving)):
            above = {bone, *skeleton.ancestors(bone)}
            owner = int(self._anatomy.owners[bone])
            if owner >= 0:
                above |= {owner, *self._anatomy_above(owner)}
            side = next((name for name, root in roots.items() if root in above), None)
            if side is not None:
                first = {"left arm": 1, "right arm": 0}.get(side)
                branches[bone] = limbs[side] if first is None else (first, *limbs[side])
            elif head in above:
                branches[bone] = (12, 13, 14, 15, 16)
            elif (skeleton.heads[bone] - shoulders) @ up > 0:
                branches[bone] = (12,)
            else:
                branches[bone] = (6, 9)
        return branches

    def _anatomy_above(self, bone: int) -> Iterator[int]:
        bone = int(self._anatomy.parents[bone])
        while bone >= 0:
            yield bone
            bone = int(self._anatomy.parents[bone])


def _balanced(points: list[Point], last: int) -> list[Point] | None:
    """Of a chain's points the one at its root, the one in its middle and the `last`: the two pieces of an arm
    and a leg are about equally long; what comes before them, a clavicle, is short."""
    best = None
    end = points[last].rest
    for first in range(last - 1):
        for middle in range(first + 1, last):
            upper = float(np.linalg.norm(points[middle].rest - points[first].rest))
            lower = float(np.linalg.norm(end - points[middle].rest))
            if min(upper, lower) <= 0.25 * max(upper, lower):
                continue
            # Half the length that is left out counts as out of balance.
            out = abs(np.log(upper / lower)) + 0.5 * first / last
            if best is None or out < best[0]:
                best = out, first, middle
    return [points[best[1]], points[best[2]], points[last]] if best is not None else None
