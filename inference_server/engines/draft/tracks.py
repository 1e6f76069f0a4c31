"""From the polylines of a request to tracks: every limb as the same few points in every frame of the clip.

A polyline says where a limb is drawn, not which point of it is which: it may be missing (behind the camera,
out of view, a frame without a pose) or cut off at the picture's edge. Here each limb gets a fixed number of
points that keep their identity through the clip, the limbs are tied where they meet, and what is missing is
filled in between the frames that have it, as rigidly as the limbs allow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shared.messages import GenerationRequest
from shared.pose import PoseSequence

STRAIGHT = 1 / 200
"""Of the picture's width: a limb that bends less than this is one stiff piece, however many points draw
it."""
MAX_POINTS = 9
"""A limb is followed by at most so many points; longer polylines are resampled by arc length."""

WEAK = 0.05
"""How much a limb's place counts beside its length and its joints, where it is filled in."""

EDGE = 1.5
"""A polyline that ends this close to the canvas' edge (pixels) counts as cut off there."""


@dataclass(frozen=True, eq=False)
class Layout:
    """By which points limbs are followed: `limbs` are, one after the other, a limb's index in the pose, how
    many points draw it, and which of them are kept; `first` and `counts` say which of all points these are,
    and `joints` where they meet (see `_find_joints`)."""

    limbs: list[tuple[int, int, list[int]]]
    first: np.ndarray
    counts: np.ndarray
    joints: list[tuple[int, int, float]]

    @property
    def owner(self) -> np.ndarray:
        """[S] which of `limbs` each bone is of."""
        return np.repeat(np.arange(len(self.limbs)), self.counts - 1)


@dataclass(frozen=True, eq=False)
class Tracks:
    """`points` [F, N, 2] in pixel indices (a pixel's centre is whole), `depth` [F, N] > 0.

    Bone s runs from point `heads[s]` to `tails[s]` and belongs to limb `limbs[s]`; `neighbours` [S, S] is
    true for bones that meet. `rest` is the frame that shows the subject as the first frame of the clip does;
    `drawn` [F, S] is false where the bone's whole subject has left.
    """

    points: np.ndarray
    depth: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    limbs: np.ndarray
    subjects: np.ndarray
    neighbours: np.ndarray
    rest: int
    drawn: np.ndarray
    layout: Layout

    @property
    def num_bones(self) -> int:
        return len(self.heads)

    def rest_depth(self) -> np.ndarray:
        """[S] depth of every bone's middle in the rest frame."""
        depth = self.depth[self.rest]
        return (depth[self.heads] + depth[self.tails]) / 2

    def still(self, frame: int) -> bool:
        """Whether everything stands as in the rest frame, and all of it is drawn."""
        moved = np.abs(self.points[frame] - self.points[self.rest]).max()
        nearer = np.abs(self.depth[frame] / self.depth[self.rest] - 1).max()
        return bool(moved < 1e-3 and nearer < 1e-4 and self.drawn[frame].all())

    def vectors(self) -> np.ndarray:
        """[F, S] complex, from head to tail."""
        v = self.points[:, self.tails] - self.points[:, self.heads]
        return v[..., 0] + 1j * v[..., 1]


def track_limbs(request: GenerationRequest) -> Tracks | None:
    """The tracks of a request, None when no frame has a pose."""
    pose = request.pose
    posed = np.zeros(request.num_frames, bool)
    posed[list(request.conditioned_frames())] = True
    posed[0] = True  # whether or not it conditions the clip: its polylines say where the picture's parts are
    posed &= np.diff(pose.offsets) > 0
    if not posed.any():
        return None
    rest = int(np.argmax(posed))

    size = request.width, request.height
    scale = np.array([request.width / pose.width, request.height / pose.height, 1.0])
    frame_of = np.repeat(np.arange(request.num_frames), np.diff(pose.offsets))
    starts = np.concatenate([[0], np.cumsum(pose.lengths[:-1], dtype=np.int64)])[: len(pose.lengths)]
    limbs = []
    for limb in np.unique(pose.owners[posed[frame_of]]):
        mine = np.flatnonzero((pose.owners == limb) & posed[frame_of])
        count = request.num_frames
        points, valid = _follow(
            pose.points, starts[mine], pose.lengths[mine], frame_of[mine], count, size, scale, rest
        )
        if valid[rest]:
            bends = _bends(points[valid, :, :2], STRAIGHT * request.width)
            limbs.append(((int(limb), points.shape[1], bends), points[:, bends], valid))
    if not limbs:
        return None

    points = np.concatenate([p for _, p, _ in limbs], axis=1)
    valid = np.stack([v for *_, v in limbs], axis=1)
    counts = np.array([p.shape[1] for _, p, _ in limbs])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    heads = np.concatenate([start + np.arange(count - 1) for start, count in zip(first, counts)])
    owner = np.repeat(np.arange(len(limbs)), counts - 1)
    subject = np.array([pose.limbs[limb].subject for (limb, *_), *_ in limbs])

    joints = _find_joints(points, valid, first, counts, heads, owner, subject, rest, request.width)
    if not valid.all():
        _fill(points, valid, posed, first, counts, heads, subject, joints)
    drawn = _find_drawn(points, valid, posed, first, counts, subject, size)

    neighbours = np.zeros((len(heads), len(heads)), bool)
    chained = np.flatnonzero(owner[1:] == owner[:-1])
    neighbours[chained, chained + 1] = True
    for end, bone, _ in joints:
        limb = int(np.searchsorted(first, end, "right") - 1)
        neighbours[(first[limb] if end == first[limb] else end - 1) - limb, bone] = True
    return Tracks(
        points=points[..., :2],
        depth=points[..., 2],
        heads=heads,
        tails=heads + 1,
        limbs=np.array([limb for (limb, *_), *_ in limbs])[owner],
        subjects=subject[owner],
        neighbours=neighbours | neighbours.T,
        rest=rest,
        drawn=drawn[:, owner],
        layout=Layout([followed for followed, *_ in limbs], first, counts, joints),
    )


def track_pose(tracks: Tracks, before: PoseSequence, pose: PoseSequence, width: int, height: int) -> Tracks:
    """The same limbs in another pose, a single frame: tracks of two frames, the rest frame of `before` and
    that one. What can't be seen of a limb is where its joints leave it."""
    layout, subject = tracks.layout, _subjects_of(tracks)
    scale, size = np.array([width / pose.width, height / pose.height, 1.0]), (width, height)
    points = np.empty((2, tracks.points.shape[1], 3))
    valid = np.ones((2, len(layout.limbs)), bool)
    lines: dict[int, list[np.ndarray]] = {}
    for line in pose.frame(0):
        lines.setdefault(line.limb, []).append(line.points)
    for row, (limb, count, bends) in enumerate(layout.limbs):
        followed = _whole(lines.get(limb, []), count, size, scale)
        if followed is None:
            rest = [line.points for line in before.frame(tracks.rest) if line.limb == limb]
            both = rest + lines.get(limb, [])
            lengths = np.array([len(line) for line in both])
            frames = np.repeat([0, 1], [len(rest), len(both) - len(rest)])
            starts = np.cumsum(lengths) - lengths
            found, known = _follow(np.concatenate(both), starts, lengths, frames, 2, size, scale, 0)
            followed, valid[1, row] = found[1], known[1]
        points[1, layout.first[row] : layout.first[row] + layout.counts[row]] = followed[bends]
    points[0] = np.column_stack([tracks.points[tracks.rest], tracks.depth[tracks.rest]])
    posed = np.ones(2, bool)
    if not valid.all():
        _fill(points, valid, posed, layout.first, layout.counts, tracks.heads, subject, layout.joints)
    drawn = _find_drawn(points, valid, posed, layout.first, layout.counts, subject, size)
    return replace(tracks, points=points[..., :2], depth=points[..., 2], rest=0, drawn=drawn[:, layout.owner])


def _whole(lines, count, size, scale):
    """[count, 3] the one polyline of a limb, where it has one, of as many points, that no edge cuts off."""
    if len(lines) != 1 or len(lines[0]) != count:
        return None
    line = lines[0] * scale
    ends = line[[0, -1], :2]
    if (line[:, 2] <= 1e-6).any() or (np.abs(ends) <= EDGE).any() or (np.abs(ends - size) <= EDGE).any():
        return None
    return line - np.array([0.5, 0.5, 0])


def _subjects_of(tracks):
    """[limbs] the subject of each."""
    return tracks.subjects[np.unique(tracks.layout.owner, return_index=True)[1]]


def _follow(points, starts, lengths, frames, num_frames, size, scale, rest):
    """One limb through the clip: ([F, K, 3] points, [F] where they are known)."""
    order = np.lexsort((-lengths, frames))
    frames, starts, lengths = frames[order], starts[order], lengths[order]
    if len(frames) > 1 and (np.diff(frames) == 0).any():
        extent = np.array([np.ptp(points[s : s + n, :2], axis=0).sum() for s, n in zip(starts, lengths)])
        order = np.lexsort((-extent, frames))
        frames, starts, lengths = frames[order], starts[order], lengths[order]
        keep = np.concatenate([[True], np.diff(frames) > 0])  # of a limb in pieces, the longest piece
        frames, starts, lengths = frames[keep], starts[keep], lengths[keep]

    at_rest = lengths[frames == rest]
    count = int(min(at_rest[0] if len(at_rest) else lengths.max(), MAX_POINTS))
    out = np.zeros((num_frames, count, 3))
    valid = np.zeros(num_frames, bool)
    cut = np.zeros((num_frames, 2), bool)
    for length in np.unique(lengths):
        same = lengths == length
        raw = points[starts[same, None] + np.arange(length)] * scale
        out[frames[same]] = raw if length == count else _resample(raw, count)
        ends = raw[:, [0, -1], :2]
        cut[frames[same]] = ((np.abs(ends) <= EDGE) | (np.abs(ends - np.array(size)) <= EDGE)).any(-1)
        valid[frames[same]] = True
    out[..., :2] -= 0.5
    depth = out[..., 2]
    fallback = np.median(depth[valid][depth[valid] > 0]) if (depth[valid] > 0).any() else 1.0
    out[..., 2] = np.where(depth > 1e-6, depth, fallback)
    _restore_cut(out, valid, cut, rest)
    return out, valid


def _bends(lines, tolerance):
    """Indices of the points that [n, K, 2] polylines need, so that what is left out stays within `tolerance`
    of the straight line between them in every frame (Douglas and Peucker, 1973, for all frames at once)."""
    kept, spans = {0, lines.shape[1] - 1}, [(0, lines.shape[1] - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, chord = lines[:, first, None], lines[:, last, None] - lines[:, first, None]
        inner = lines[:, first + 1 : last] - start
        along = (inner * chord).sum(-1) / np.maximum((chord**2).sum(-1), 1e-9)
        away = np.linalg.norm(inner - np.clip(along, 0, 1)[..., None] * chord, axis=-1).max(0)
        farthest = int(away.argmax())
        if away[farthest] > tolerance:
            middle = first + 1 + farthest
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return sorted(kept)


def _resample(lines, count):
    """[n, K, 3] polylines at `count` points evenly along their length in the picture."""
    along = np.concatenate(
        [
            np.zeros((len(lines), 1)),
            np.cumsum(np.linalg.norm(np.diff(lines[..., :2], axis=1), axis=-1), axis=1),
        ],
        axis=1,
    )
    want = np.linspace(0, 1, count) * along[:, -1:]
    left = np.clip((along[:, None, :] <= want[:, :, None]).sum(-1) - 1, 0, lines.shape[1] - 2)
    row = np.arange(len(lines))[:, None]
    span = along[row, left + 1] - along[row, left]
    t = np.where(span > 0, (want - along[row, left]) / np.where(span > 0, span, 1), 0.0)[..., None]
    return lines[row, left] * (1 - t) + lines[row, left + 1] * t


def _restore_cut(out, valid, cut, rest):
    """Give polylines that the picture's edge has cut off their length back, from the end that is still
    inside."""
    length = np.linalg.norm(np.diff(out[..., :2], axis=1), axis=-1).sum(1)
    touched = cut.any(1)
    known = np.flatnonzero(valid & ~touched)
    if not len(known):
        return
    full = np.interp(np.arange(len(valid)), known, length[known])
    for frame in np.flatnonzero(valid & touched & (length >= 2) & (length < full)):
        line = out[frame]
        anchor = line.mean(0) if cut[frame].all() else line[-1 if cut[frame, 0] else 0].copy()
        line += (line - anchor) * (full[frame] / length[frame] - 1)
        line[:, 2] = np.maximum(line[:, 2], anchor[2] * 0.1)
    scrap = touched & (length < 2)
    scrap[rest] = False
    valid &= ~scrap


def _find_joints(points, valid, first, counts, heads, owner, subject, rest, width):
    """Where limbs meet: a minimum spanning tree of each subject's limbs over the mean distance of the ends of
    one to the bones of another. Returns (point, bone, position along the bone), the point being the end of
    another limb."""
    limbs = len(counts)
    ends = np.stack([first, first + counts - 1], axis=1).ravel()
    frames = np.flatnonzero(valid.any(1))
    most = max(1, min(12, 4_000_000 // (len(ends) * len(heads))))
    frames = np.unique(np.append(frames[np.linspace(0, len(frames) - 1, most).astype(int)], rest))

    # Depth counts like width, through a usual lens: enough to tell a near leg from a far one.
    spread = points[frames] * np.array([1, 1, 1.4 * width / np.median(points[rest, :, 2])])
    total = np.zeros((len(ends), len(heads)))
    seen = np.zeros((len(ends), len(heads)))
    for k, frame in enumerate(frames):
        head, axis = spread[k, heads], spread[k, heads + 1] - spread[k, heads]
        offset = spread[k, ends][:, None] - head
        t = np.clip((offset * axis).sum(-1) / np.maximum((axis * axis).sum(-1), 1e-12), 0, 1)
        both = np.repeat(valid[frame], 2)[:, None] & valid[frame][owner]
        total += np.where(both, np.linalg.norm(offset - t[..., None] * axis, axis=-1), 0)
        seen += both
        if frame == rest:
            along, length = t, np.linalg.norm(axis, axis=-1)
    cost = total / np.maximum(seen, 1)
    # Bones that only share a head are siblings more often than parent and child.
    cost += (
        0.02
        * np.median(length)
        * ((np.arange(len(ends)) % 2 == 0)[:, None] & np.isin(heads, first) & (along < 0.05))
    )
    limb_of_end = np.arange(limbs).repeat(2)[:, None]
    cost[(seen == 0) | (limb_of_end == owner) | (subject[limb_of_end] != subject[owner])] = np.inf

    joints, root = [], np.arange(limbs)
    for flat in np.argsort(cost, axis=None, kind="stable"):
        end, bone = divmod(int(flat), len(heads))
        if not np.isfinite(cost[end, bone]):
            break
        a, b = root[end // 2], root[owner[bone]]
        if a != b:
            root[root == a] = b
            joints.append((int(ends[end]), bone, float(along[end, bone])))
    return joints


def _fill(points, valid, posed, first, counts, heads, subject, joints):
    """Fill `points` in where `valid` is false, in place: each bone turns and stretches evenly between the
    frames that know it, limbs stay tied at their joints, and a subject that has left keeps its last speed."""
    frames = np.arange(len(points))
    place, travel = points[..., :2].copy(), np.zeros(points.shape[1])
    vectors = np.zeros((len(points), len(heads), 2))
    bone = 0
    for limb, (start, count) in enumerate(zip(first, counts)):
        keys = np.flatnonzero(valid[:, limb])
        known = points[keys, start : start + count]
        place[:, start : start + count] = pchip(keys, known[..., :2], frames)
        travel[start : start + count] = np.linalg.norm(np.diff(known[..., :2], axis=0), axis=-1).sum(0)
        points[~valid[:, limb], start : start + count, 2] = pchip(
            keys, known[..., 2], frames[~valid[:, limb]]
        )
        step = np.diff(known[..., :2], axis=1)
        turn = np.unwrap(np.arctan2(step[..., 1], step[..., 0]), axis=0)
        reach = np.log(np.maximum(np.linalg.norm(step, axis=-1), 0.5))
        turn, reach = pchip(keys, turn, frames), np.exp(pchip(keys, reach, frames))
        vectors[:, bone : bone + count - 1] = np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=-1)
        bone += count - 1

    owner = np.repeat(np.arange(len(counts)), counts)
    trust = np.zeros(points.shape[1])
    for index in np.unique(subject):
        limbs = subject == index
        mine = limbs[owner]
        # What travels least (the body, a hip) turns least, so the way between its places is surest.
        span = np.ptp(points[valid[:, limbs].any(1).argmax(), mine, :2], axis=0).max()
        trust[mine] = WEAK / (1 + ((travel[mine] - travel[mine].min()) / (0.1 * span + 1)) ** 2)
        here = np.flatnonzero(valid[:, limbs].any(1))
        gone = np.flatnonzero(posed & (frames > here[-1]))
        if len(gone) and len(here) > 1:
            before = here[max(0, len(here) - 5)]
            speed = (place[here[-1], mine] - place[before, mine]).mean(0) / (here[-1] - before)
            away = np.interp(frames, np.append(here[-1], gone), np.append(0, gone - here[-1]))
            place[:, mine] += away[:, None, None] * speed

    ties = np.zeros((len(joints), points.shape[1]))
    gaps = np.zeros((len(points), len(joints), 2))
    for row, (end, bone, along) in enumerate(joints):
        ties[row, [end, heads[bone], heads[bone] + 1]] = 1, along - 1, -along
        pair = np.searchsorted(first, [end, heads[bone]], "right") - 1
        keys = np.flatnonzero(valid[:, pair].all(1))
        if len(keys):
            gaps[:, row] = pchip(keys, np.einsum("n,fnc->fc", ties[row], points[keys, :, :2]), frames)
    bones = np.zeros((len(heads), points.shape[1]))
    bones[np.arange(len(heads)), heads + 1] = 1
    bones[np.arange(len(heads)), heads] = -1
    system = np.concatenate([bones, ties, np.diag(trust)])
    wanted = np.concatenate([vectors, gaps, trust[:, None] * place], axis=1)

    patterns, which = np.unique(valid, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        missing = ~pattern[owner]
        if missing.any():
            these = np.flatnonzero(which.ravel() == number)
            rhs = wanted[these] - system[:, ~missing] @ points[these][:, ~missing, :2]
            left = system[:, missing]
            # One system for all frames, which is taken apart once.
            columns = (left.T @ rhs).transpose(1, 0, 2).reshape(left.shape[1], -1)
            solved = np.linalg.solve(left.T @ left, columns).reshape(left.shape[1], len(these), 2)
            points[np.ix_(these, np.flatnonzero(missing), [0, 1])] = solved.transpose(1, 0, 2)


def _find_drawn(points, valid, posed, first, counts, subject, size):
    """[F, limbs]: false where a subject has no polyline in a posed frame although its track has not left the
    picture."""
    drawn = np.ones(valid.shape, bool)
    owner = np.repeat(np.arange(len(counts)), counts)
    for index in np.unique(subject):
        mine = subject == index
        gone = posed & ~valid[:, mine].any(1)
        inside = ((points[..., :2] > -0.5) & (points[..., :2] < np.array(size) - 0.5)).all(-1)
        drawn[:, mine] = ~(gone & inside[:, mine[owner]].any(1))[:, None]
    return drawn


def pchip(keys, values, at):
    """Monotone cubic interpolation (Fritsch and Carlson, 1980) of `values` [n, ...] at `keys` [n], held at
    both ends."""
    if len(keys) == 1:
        return np.repeat(values, len(at), axis=0)
    shape = (-1,) + (1,) * (values.ndim - 1)
    step = np.diff(keys).astype(float)
    slope = np.diff(values, axis=0) / step.reshape(shape)
    tangent = np.zeros(values.shape)
    before, after = slope[:-1], slope[1:]
    if len(keys) > 2:
        w1, w2 = (2 * step[1:] + step[:-1]).reshape(shape), (step[1:] + 2 * step[:-1]).reshape(shape)
        same = before * after > 0
        mean = (w1 + w2) / (w1 / np.where(same, before, 1) + w2 / np.where(same, after, 1))
        tangent[1:-1] = np.where(same, mean, 0)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    left = np.clip(np.searchsorted(keys, at, "right") - 1, 0, len(keys) - 2)
    width = step[left].reshape(shape)
    t = np.clip((at - keys[left]) / step[left], 0, 1).reshape(shape)
    rise = values[left] * (1 + 2 * t) * (1 - t) ** 2 + values[left + 1] * t * t * (3 - 2 * t)
    return rise + width * (tangent[left] * t * (1 - t) ** 2 - tangent[left + 1] * t * t * (1 - t))
