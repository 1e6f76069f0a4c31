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
CELLS = (16, 96)
"""Least and most cells across the silhouette by which the bones are judged."""
EDGE = 4
"""Empty cells around it."""
THIN = 8
"""Points of flesh around a limb that its middle is known by."""
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
        strokes.append((_body_limb(start, end), openpose.PARTS[part], first, human.body[end]))
    for side, hand in zip(("right", "left"), human.hands, strict=True):
        for start, end in openpose.HAND_LIMBS if hand is not None else ():
            if hand[end] is not None:
                finger = openpose.FINGERS[(end - 1) // 4]
                name = f"{side} {finger} {(end - 1) % 4 + 1}"
                strokes.append((name, f"{side} arm", hand[start], hand[end]))
    return strokes


def _body_limb(start: int, end: int) -> str:
    return f"{openpose.BODY[start]} to {openpose.BODY[end]}"


def human_owners(skeleton: Skeleton, human: Human, drawn: Sequence[int]) -> dict[str, int]:
    """The limb that the flesh of each bone belongs to, by its place among those that are drawn (indices of
    `human_strokes`): the nearest of its arm, leg, trunk or head, or of all where none of those is drawn."""
    if not drawn:
        return {}
    strokes = human_strokes(human)
    ends = np.array([(_rest(start), end.rest) for _, _, start, end in strokes])
    hands = {
        side: [k for k in range(len(openpose.BODY_LIMBS), len(strokes)) if strokes[k][1] == side]
        for side in ("right arm", "left arm")
    }
    forearm = {3: hands["right arm"], 5: hands["left arm"]}
    place = {limb: index for index, limb in enumerate(drawn)}
    owners = {}
    for bone, name in enumerate(skeleton.names):
        possible = list(human.branches[bone])
        for limb in human.branches[bone]:
            possible += forearm.get(limb, [])
        possible = [limb for limb in possible if limb in place] or list(drawn)
        middle = (skeleton.heads[bone] + skeleton.tails[bone]) / 2
        if skeleton.lengths[bone] > 0.5 * skeleton.size:  # a tail that means nothing
            middle = skeleton.heads[bone]
        start, step = ends[possible, 0], ends[possible, 1] - ends[possible, 0]
        along = np.einsum("ij,ij->i", middle - start, step) / np.maximum((step**2).sum(axis=1), 1e-18)
        away = np.linalg.norm(middle - start - step * np.clip(along, 0, 1)[:, None], axis=1)
        owners[name] = place[possible[int(away.argmin())]]
    return owners


def _rest(point: Point | tuple[Point, Point]) -> np.ndarray:
    return point.rest if isinstance(point, Point) else (point[0].rest + point[1].rest) / 2


def unseen_limbs(
    names: Sequence[str], ends: np.ndarray, projector: Projector, hand: float = HAND
) -> np.ndarray:
    """[F, L] bool: the limbs of a person that a pose detector would not find: what of the face is turned
    away, and hands that are smaller than a fraction `hand` of the picture's longer side.

    `names` [L] are those of `human_strokes` or some of them, `ends` [F, L, 2, 3] the limbs' ends in world
    space. Where a limb of the face is missing, none is taken as turned away.
    """
    longer = max(projector.fit.width, projector.fit.height)
    pixels = projector.project(ends.reshape(len(ends), -1, 3))[..., :2].reshape(*ends.shape[:3], 2)
    eyes = np.array([lens.eye for lens in projector.lenses])
    place = {name: limb for limb, name in enumerate(names)}
    body = {joined: place.pop(_body_limb(*joined), None) for joined in openpose.BODY_LIMBS}
    body = {joined: limb for joined, limb in body.items() if limb is not None}
    points = {end: ends[:, limb, 1] for (_, end), limb in body.items()}
    seen = _seen_of_face(points, eyes)
    unseen = np.zeros(ends.shape[:2], bool)
    for joined, limb in body.items():
        for point in joined:
            if point in seen:
                unseen[:, limb] |= ~seen[point]
    for side in ("right", "left"):
        mine = [limb for name, limb in place.items() if name.startswith(side)]
        if mine:
            size = np.ptp(pixels[:, mine].reshape(len(pixels), -1, 2), axis=1).max(axis=1)
            unseen[:, mine] |= (size < hand * longer)[:, None]
    return unseen


def _seen_of_face(points: Mapping[int, np.ndarray], eyes: np.ndarray) -> dict[int, np.ndarray]:
    """[F] bool for each point of a person's face: whether it is turned toward the cameras at `eyes` [F, 3].
    `points` [F, 3] each are those of its body by their numbers; nothing is told where one that tells where
    the face looks is missing."""
    if not {openpose.LEFT_EAR, openpose.RIGHT_EAR, openpose.NOSE} <= points.keys():
        return {}
    left = points[openpose.LEFT_EAR] - points[openpose.RIGHT_EAR]
    middle = (points[openpose.LEFT_EAR] + points[openpose.RIGHT_EAR]) / 2
    forward = points[openpose.NOSE] - middle
    left, forward = _unit(left), _unit(forward)
    toward = _unit(eyes - middle)
    ahead, aside = (forward * toward).sum(axis=1), (left * toward).sum(axis=1)
    return {
        openpose.NOSE: ahead > _NOSE_SEEN,
        openpose.LEFT_EYE: 0.85 * ahead + 0.5 * aside > _EYE_SEEN,
        openpose.RIGHT_EYE: 0.85 * ahead - 0.5 * aside > _EYE_SEEN,
        openpose.LEFT_EAR: aside > _EAR_SEEN,
        openpose.RIGHT_EAR: -aside > _EAR_SEEN,
    }


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
    skeleton: Skeleton, skin: Skin, strokes: Sequence[tuple[list[int], list[np.ndarray]]]
) -> Mapping[bytes, np.ndarray]:
    """Where the joints of limbs go whose bones stray from the middle line of the silhouette, by the bytes of
    where they lie at rest.

    strokes: for each limb its bones, and its joints [3] at rest.
    """
    if len(skin.points) < THIN:
        return {}
    outline = _Outline(skin.points)
    shifts: dict[bytes, list[np.ndarray]] = {}
    for bones, joints in strokes:
        off = [_off_middle(skin, bones, start, end) for start, end in zip(joints, joints[1:], strict=False)]
        off = [shift for shift in off if shift is not None]
        path = np.array(joints)
        if not off or outline.astray(path) <= STRAY:
            continue
        shift = np.mean(off, axis=0)
        if outline.astray(path + shift) < outline.astray(path):
            for joint in joints:
                shifts.setdefault(joint.tobytes(), []).append(shift)
    return {key: np.frombuffer(key) + np.mean(found, axis=0) for key, found in shifts.items()}


class _Outline:
    """The silhouette of flesh, given as points [V, 3] of its surface, from the side where it is largest."""

    def __init__(self, points: np.ndarray):
        low, spans = points.min(axis=0), np.ptp(points, axis=0)
        self._axes = [axis for axis in range(3) if axis != int(spans.argmin())]
        self._low, self._size = low[self._axes], float(np.linalg.norm(spans[self._axes]))
        # As fine as the points are dense: their cells have to touch.
        cells = int(np.clip(np.sqrt(len(points)), *CELLS))
        self._cell = float(spans[self._axes].max()) / cells
        place = self._place(points).astype(int)
        mask = np.zeros(place.max(axis=0) + EDGE + 1, bool)
        mask[tuple(place.T)] = True
        mask = ~_grow(_grow(~_grow(_grow(mask))))  # closes the gaps between the points
        depth = np.zeros(mask.shape, int)
        while mask.any():
            depth += mask
            mask = ~_grow(~mask)
        ridge = np.zeros(depth.shape, bool)
        for step in ((1, 0), (0, 1)):
            before, after = (np.roll(depth, shift, (0, 1)) for shift in (step, tuple(-k for k in step)))
            ridge |= (depth > 0) & (depth >= before) & (depth >= after) & ((depth > before) | (depth > after))
        self._ridge = np.argwhere(ridge) + 0.5

    def _place(self, points: np.ndarray) -> np.ndarray:
        return (points[:, self._axes] - self._low) / self._cell + EDGE

    def astray(self, path: np.ndarray) -> float:
        """How far a polyline [K, 3] lies from the middle line, as a fraction of the silhouette's size: the
        median over its length."""
        shares = np.linspace(0.1, 0.9, 9)[:, None, None]
        along = (path[:-1] + (path[1:] - path[:-1]) * shares).reshape(-1, 3)
        away = np.linalg.norm(self._place(along)[:, None] - self._ridge, axis=2).min(axis=1)
        return float(np.median(away)) * self._cell / self._size if len(self._ridge) else 0.0


def _grow(mask: np.ndarray) -> np.ndarray:
    """With the neighbours of every cell that is set."""
    grown = mask.copy()
    for axis in (0, 1):
        for step in (1, -1):
            grown |= np.roll(mask, step, axis)
    return grown


def _off_middle(skin: Skin, bones: list[int], start: np.ndarray, end: np.ndarray) -> np.ndarray | None:
    """[3] from a straight piece of a limb to the middle of its flesh, across the limb; None where there is
    too little to tell."""
    length = float(np.linalg.norm(end - start))
    if length <= 0:
        return None
    way = (end - start) / length
    side = _unit(np.cross(way, np.eye(3)[np.abs(way).argmin()]))
    basis = np.stack([side, np.cross(way, side)])
    out = skin.points[np.isin(skin.owners, bones)] - (start + end) / 2
    along = np.abs(out @ way)
    for slab in (0.25, 0.5):
        flat = out[along < slab * length] @ basis.T
        if len(flat) >= THIN:
            # The middle of the outline, not of the mass: the vertices may lie denser on one side.
            return ((flat.min(axis=0) + flat.max(axis=0)) / 2) @ basis
    return None
