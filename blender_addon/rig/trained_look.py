"""The look of the poses that the released weights were trained with: people as OpenPose draws them, all
others as the lines through the middle of their flesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..shared import openpose
from ..view.projection import Projector
from .human import Human, Point
from .skeleton import Skeleton
from .skin import Skin

STRAY = 0.02
"""A bone that runs this fraction of the subject's size beside the middle of its flesh is drawn there."""
THIN = 12
"""Points of flesh around a joint that its middle is known by."""
HAND = 0.08
"""Hands smaller than this fraction of the picture's longer side are not seen: their fingers would be one
blot."""

# How far a point of the face may be turned away and still be found: the cosine between where it faces and
# where the camera is.
_NOSE_SEEN, _EYE_SEEN, _EAR_SEEN = -0.2, -0.1, -0.5


def human_strokes(human: Human) -> list[tuple[str, str, Point | tuple[Point, Point], Point]]:
    """(name, part, start, end) of every limb of a person: those of the body in the order of
    `openpose.BODY_LIMBS`, then those of the right and the left hand that has fingers. The start at the neck
    is a pair of points, and lies between them."""
    neck = human.body[openpose.RIGHT_SHOULDER], human.body[openpose.LEFT_SHOULDER]
    strokes = []
    for (start, end), part in zip(openpose.BODY_LIMBS, openpose.PART_OF_LIMB, strict=True):
        first = neck if start == openpose.NECK else human.body[start]
        name = f"{openpose.BODY[start]} to {openpose.BODY[end]}"
        strokes.append((name, openpose.PARTS[part], first, human.body[end]))
    for side, hand in zip(("right", "left"), human.hands, strict=True):
        for start, end in openpose.HAND_LIMBS if hand is not None else ():
            if hand[end] is not None:
                finger = openpose.FINGERS[(end - 1) // 4]
                name = f"{side} {finger} {(end - 1) % 4 + 1}"
                strokes.append((name, f"{side} arm", hand[start], hand[end]))
    return strokes


def human_owners(skeleton: Skeleton, human: Human, bones: Iterable[int]) -> dict[str, int]:
    """The limb that the flesh of each of the bones belongs to: the nearest of its arm, leg, trunk or head."""
    strokes = human_strokes(human)
    ends = np.array([(_rest(start), end.rest) for _, _, start, end in strokes])
    hands = {
        side: [k for k in range(len(openpose.BODY_LIMBS), len(strokes)) if strokes[k][1] == side]
        for side in ("right arm", "left arm")
    }
    forearm = {3: hands["right arm"], 5: hands["left arm"]}
    owners = {}
    for bone in bones:
        possible = list(human.branches[bone])
        for limb in human.branches[bone]:
            possible += forearm.get(limb, [])
        middle = (skeleton.heads[bone] + skeleton.tails[bone]) / 2
        if skeleton.lengths[bone] > 0.5 * skeleton.size:  # a tail that means nothing
            middle = skeleton.heads[bone]
        start, step = ends[possible, 0], ends[possible, 1] - ends[possible, 0]
        along = np.einsum("ij,ij->i", middle - start, step) / np.maximum((step**2).sum(axis=1), 1e-18)
        away = np.linalg.norm(middle - start - step * np.clip(along, 0, 1)[:, None], axis=1)
        owners[skeleton.names[bone]] = possible[int(away.argmin())]
    return owners


def _rest(point: Point | tuple[Point, Point]) -> np.ndarray:
    return point.rest if isinstance(point, Point) else (point[0].rest + point[1].rest) / 2


def unseen_limbs(
    names: Sequence[str], ends: np.ndarray, projector: Projector, hand: float = HAND
) -> np.ndarray:
    """[F, L] bool: the limbs of a person that a pose detector would not find: what of the face is turned
    away, and hands that are smaller than a fraction `hand` of the picture's longer side.

    `names` are those of `human_strokes`, `ends` [F, L, 2, 3] the limbs' ends in world space.
    """
    longer = max(projector.fit.width, projector.fit.height)
    pixels = projector.project(ends.reshape(len(ends), -1, 3))[..., :2].reshape(*ends.shape[:3], 2)
    eyes = np.array([lens.eye for lens in projector.lenses])
    points = {end: ends[:, limb, 1] for limb, (_, end) in enumerate(openpose.BODY_LIMBS)}
    left = points[openpose.LEFT_EAR] - points[openpose.RIGHT_EAR]
    middle = (points[openpose.LEFT_EAR] + points[openpose.RIGHT_EAR]) / 2
    forward = points[openpose.NOSE] - middle
    left, forward = _unit(left), _unit(forward)
    toward = _unit(eyes - middle)
    ahead, aside = (forward * toward).sum(axis=1), (left * toward).sum(axis=1)
    seen = {
        openpose.NOSE: ahead > _NOSE_SEEN,
        openpose.LEFT_EYE: 0.85 * ahead + 0.5 * aside > _EYE_SEEN,
        openpose.RIGHT_EYE: 0.85 * ahead - 0.5 * aside > _EYE_SEEN,
        openpose.LEFT_EAR: aside > _EAR_SEEN,
        openpose.RIGHT_EAR: -aside > _EAR_SEEN,
    }
    unseen = np.zeros(ends.shape[:2], bool)
    for limb, joined in enumerate(openpose.BODY_LIMBS):
        for point in joined:
            if point in seen:
                unseen[:, limb] |= ~seen[point]
    for side in ("right", "left"):
        mine = [k for k in range(len(openpose.BODY_LIMBS), len(names)) if names[k].startswith(side)]
        if mine:
            size = np.ptp(pixels[:, mine].reshape(len(pixels), -1, 2), axis=1).max(axis=1)
            unseen[:, mine] |= (size < hand * longer)[:, None]
    return unseen


def unseen_of(subjects: Iterable, counts: np.ndarray, projector: Projector, joints: np.ndarray) -> np.ndarray:
    """[F, L] bool: the limbs that are not to be seen of those subjects that are drawn as people.

    subjects: `rig.subjects.Subject`s. `counts` [L] are the joints of each of their limbs, `joints` [F, K, 3]
        all of these in world space.
    """
    first_joint = np.concatenate([[0], np.cumsum(counts)])
    unseen = np.zeros((len(joints), len(counts)), bool)
    first = 0
    for subject in subjects:
        names = [limb.name for limb in subject.choice.limbs]
        limbs = slice(first, first + len(names))
        first = limbs.stop
        if subject.choice.as_person:
            mine = joints[:, first_joint[limbs.start] : first_joint[limbs.stop]]
            unseen[:, limbs] = unseen_limbs(names, mine.reshape(len(joints), -1, 2, 3), projector)
    return unseen


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def middles(
    skeleton: Skeleton, skin: Skin, strokes: Iterable[tuple[list[int], list[np.ndarray]]]
) -> Mapping[bytes, np.ndarray]:
    """Where joints go that stray from the middle of their flesh, by the bytes of where they lie at rest.

    strokes: for each limb its bones, and its joints [3] at rest.
    """
    moved: dict[bytes, np.ndarray] = {}
    around: dict[bytes, list[tuple[list[int], np.ndarray, float]]] = {}
    for bones, joints in strokes:
        for k, joint in enumerate(joints):
            before, after = joints[max(k - 1, 0)], joints[min(k + 1, len(joints) - 1)]
            length = float(np.linalg.norm(after - before))
            if length > 0:
                seen = around.setdefault(joint.tobytes(), [])
                seen.append((bones, (after - before) / length, length))
    for key, passing in around.items():
        joint = np.frombuffer(key)
        # Of the limbs that meet here the longest says which way the body runs.
        way, length = max(((way, length) for _, way, length in passing), key=lambda one: one[1])
        bones = [bone for limb, other, _ in passing for bone in limb if abs(other @ way) > 0.7]
        out = skin.points[np.isin(skin.owners, bones)] - joint
        along = out @ way
        for slab in (0.15, 0.3, 0.5):
            chosen = np.abs(along) < slab * length
            if chosen.sum() >= THIN:
                across = out[chosen] - along[chosen, None] * way
                # The middle of the outline, not of the mass: the vertices may lie denser on one side.
                side = _unit(np.cross(way, np.eye(3)[np.abs(way).argmin()]))
                basis = np.stack([side, np.cross(way, side)])
                flat = across @ basis.T
                shift = ((flat.min(axis=0) + flat.max(axis=0)) / 2) @ basis
                if np.linalg.norm(shift) > STRAY * skeleton.size:
                    moved[key] = joint + shift
                break
    return moved
