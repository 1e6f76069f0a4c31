"""Which segment is which over time.

Where a leg passes behind another, or a junction comes and goes, the curves between junctions change from
frame to frame though the subject does not. So curves are not matched whole: each point of a frame's curves is
labelled with the segment that it continues, and neighbouring points of a curve take the same label unless the
distance speaks against it (Viterbi along the curve). A curve that runs over two known segments is cut where
one passes into the other; two curves that a new junction separates stay one segment.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from shared.pose import MAX_LIMBS, Limb, Polyline, PoseSequence

from ...poseanything.conditioning.limbs.graph import curve_length, resample
from ...poseanything.conditioning.masks import size_of

REACH = 0.12
"""How far, as a share of the subject's size, a point may lie from the segment that it continues."""
CHANGE = 0.25
"""What a change of the label along a curve costs, in reaches."""
SHORTEST = 0.05
"""The shortest new segment, as a share of the subject's size."""
LOST_FRAMES = 12
"""How long a segment that is not seen is looked for."""
NEVER = -(10**9)
SPACING = 0.015
"""Of the points that are labelled, as a share of the subject's size."""
REACHED = 5
"""Points from a run's end to where its direction is taken."""


@dataclass
class _Track:
    """A segment: where it was last seen (its points, about the subject's centre), when, and how it moved."""

    points: np.ndarray
    seen: int
    velocity: np.ndarray

    def predicted(self, frame: int, size: float) -> np.ndarray:
        """Its points in a frame, if it went on as it did for a frame or two."""
        step = self.velocity * min(abs(frame - self.seen), 2)
        length = np.linalg.norm(step)
        return self.points + step * min(1.0, 0.5 * REACH * size / max(length, 1e-9))


def match_segments(curves: list[list[np.ndarray]], masks: np.ndarray) -> PoseSequence:
    """The segments of all frames as limbs that keep their index.

    Args:
        curves: the curves [K, 2] of each frame, in any order and direction.
        masks: bool [F, H, W], the subject or the drawing itself, for its size and place.

    Returns:
        a pose on the masks' canvas. A limb may have several polylines in a frame, or none.
    """
    height, width = masks.shape[1:]
    frames = len(curves)
    sizes = [size for size in map(size_of, masks) if size > 0]
    if not sizes or not any(curves):
        return PoseSequence.from_frames(width, height, [], [], [[] for _ in range(frames)])
    size = float(np.median(sizes))
    centres = centres_of(masks)

    lines = [
        [resample(curve, max(int(curve_length(curve) / (SPACING * size)), 2) + 1) for curve in frame]
        for frame in curves
    ]
    tracks: list[_Track] = []
    found: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(frames)]
    start = _clearest(curves)
    for frame in range(start, frames):
        found[frame] = _label_frame(lines[frame], tracks, frame, centres[frame], size)
        if frame == start:
            begun = list(tracks)
    # Back from where it began, with the segments as they were there; later ones are unknown before it.
    tracks[: len(begun)] = begun
    for track in tracks[len(begun) :]:
        track.seen = NEVER
    for frame in range(start - 1, -1, -1):
        found[frame] = _label_frame(lines[frame], tracks, frame, centres[frame], size)
    _relink(found, centres, size)
    return _as_pose(found, len(tracks), size, width, height)


def _label_frame(
    lines: list[np.ndarray], tracks: list[_Track], frame: int, centre: np.ndarray, size: float
) -> list[tuple[int, np.ndarray]]:
    """Label a frame's lines, and move the tracks on to them; what continues none begins a track."""
    alive = [
        (index, KDTree(track.predicted(frame, size) + centre))
        for index, track in enumerate(tracks)
        if abs(frame - track.seen) <= LOST_FRAMES
    ]
    runs: list[tuple[int, np.ndarray]] = []
    for line in lines:
        runs += _label_line(line, alive, size)
    runs = _without_forks(_without_scraps(runs, size), dict(alive), size)

    begun: list[tuple[int, np.ndarray]] = []
    for index, line in runs:
        if index < 0:
            if len(tracks) == MAX_LIMBS:
                continue
            index = len(tracks)
            tracks.append(_Track(line - centre, frame, np.zeros(2)))
        begun.append((index, line))
    for index in {index for index, _ in runs if index >= 0}:
        own = [line for other, line in runs if other == index]
        points = np.concatenate(own) - centre
        track, gap = tracks[index], max(abs(frame - tracks[index].seen), 1)
        moved = (points.mean(0) - track.points.mean(0)) / gap
        tracks[index] = _Track(points, frame, 0.5 * track.velocity + 0.5 * moved)
    return begun


def _label_line(
    line: np.ndarray, alive: list[tuple[int, KDTree]], size: float
) -> list[tuple[int, np.ndarray]]:
    """Cut a line into runs of one label each; -1 is what continues no track."""
    labels = [index for index, _ in alive] + [-1]
    cost = np.ones((len(line), len(labels)))  # in reaches; no track costs one
    for column, (_, tree) in enumerate(alive):
        cost[:, column] = np.minimum(tree.query(line)[0] / (REACH * size), 4)
    change = CHANGE * REACH / SPACING
    total, back = cost[0].copy(), np.zeros((len(line), len(labels)), int)
    for point in range(1, len(line)):
        best = int(total.argmin())
        stays = total <= total[best] + change
        back[point] = np.where(stays, np.arange(len(labels)), best)
        total = np.where(stays, total, total[best] + change) + cost[point]
    chosen = np.zeros(len(line), int)
    chosen[-1] = total.argmin()
    for point in range(len(line) - 1, 0, -1):
        chosen[point - 1] = back[point, chosen[point]]
    cuts = np.nonzero(np.diff(chosen))[0] + 1
    bounds = [0, *cuts, len(line)]
    # A run ends in the next one's first point: the curve has no gap.
    return [
        (labels[chosen[low]], line[low : min(high + 1, len(line))])
        for low, high in zip(bounds, bounds[1:])
        if min(high + 1, len(line)) - low > 1
    ]


def _without_scraps(runs: list[tuple[int, np.ndarray]], size: float) -> list[tuple[int, np.ndarray]]:
    """Give pieces that are too short to begin a segment to the one that they touch."""
    kept = []
    for index, line in runs:
        if index < 0 and curve_length(line) < SHORTEST * size:
            near = [
                (float(np.linalg.norm(other[[0, -1]][:, None] - line[[0, -1]], axis=2).min()), label)
                for label, other in runs
                if label >= 0
            ]
            if near:
                index = min(near)[1]
        kept.append((index, line))
    return kept


def _without_forks(
    runs: list[tuple[int, np.ndarray]], alive: dict[int, KDTree], size: float
) -> list[tuple[int, np.ndarray]]:
    """A segment has no branches and does not turn back at a junction: what fits it less there begins one of
    its own."""
    runs = list(runs)
    while (worst := _worst_of_a_fork(runs, alive, size)) is not None:
        runs[worst] = (-1, runs[worst][1])
    return runs


def _worst_of_a_fork(runs: list[tuple[int, np.ndarray]], alive: dict[int, KDTree], size: float) -> int | None:
    for index in sorted({index for index, _ in runs if index >= 0}):
        ends = [
            (number, line[0], line[min(REACHED, len(line) - 1)] - line[0])
            for number, (label, run) in enumerate(runs)
            for line in (run, run[::-1])
            if label == index
        ]
        for _, place, _ in ends:
            meeting = [end for end in ends if np.linalg.norm(end[1] - place) < 0.5 * SPACING * size]
            if len(meeting) == 2 and meeting[0][2] @ meeting[1][2] <= 0:
                continue
            branches = {n for n, _, _ in meeting if curve_length(runs[n][1]) >= SHORTEST * size}
            if len(meeting) > 1 and len(branches) > 1:
                return max(branches, key=lambda number: alive[index].query(runs[number][1])[0].mean())
    return None


def _relink(found: list[list[tuple[int, np.ndarray]]], centres: np.ndarray, size: float) -> None:
    """Make one segment of two that are never seen together and take over from each other at the same place,
    the best fit first."""
    shapes: dict[int, dict[int, np.ndarray]] = {}
    for frame, lines in enumerate(found):
        for index, line in lines:
            own = shapes.setdefault(index, {})
            line = line - centres[frame]
            own[frame] = np.concatenate([own[frame], line]) if frame in own else line
    trees = {index: {frame: KDTree(points) for frame, points in own.items()} for index, own in shapes.items()}

    def misfit(one: int, other: int) -> float:
        if shapes[one].keys() & shapes[other].keys():
            return np.inf
        order = sorted([(frame, one) for frame in shapes[one]] + [(frame, other) for frame in shapes[other]])
        passes = [(a, b) for a, b in zip(order, order[1:]) if a[1] != b[1]]
        if any(b[0] - a[0] > 2 * LOST_FRAMES for a, b in passes):
            return np.inf
        return float(
            np.mean(
                [
                    0.5 * trees[i][f].query(shapes[j][g])[0].mean()
                    + 0.5 * trees[j][g].query(shapes[i][f])[0].mean()
                    for (f, i), (g, j) in passes
                ]
            )
        )

    misfits = {pair: misfit(*pair) for pair in itertools.combinations(sorted(shapes), 2)}
    names = {index: index for index in shapes}
    while misfits:
        (one, other), cost = min(misfits.items(), key=lambda item: (item[1], item[0]))
        if cost > REACH * size:
            break
        shapes[one] |= shapes.pop(other)
        trees[one] |= trees.pop(other)
        names = {index: one if name == other else name for index, name in names.items()}
        misfits = {pair: known for pair, known in misfits.items() if not {one, other} & set(pair)}
        for third in shapes:
            if third != one:
                misfits[tuple(sorted((one, third)))] = misfit(one, third)
    for frame, lines in enumerate(found):
        found[frame] = [(names[index], line) for index, line in lines]


def _clearest(curves: list[list[np.ndarray]]) -> int:
    """The frame to begin at: one with as many curves as most frames have, where they are longest."""
    counts = [len(frame) for frame in curves]
    usual = np.bincount([count for count in counts if count]).argmax()
    return max(
        (frame for frame, count in enumerate(counts) if count == usual),
        key=lambda frame: sum(map(curve_length, curves[frame])),
    )


def centres_of(masks: np.ndarray) -> np.ndarray:
    """[F, 2] the masks' centres of area; that of the nearest frame where a mask is empty."""
    centres = np.full((len(masks), 2), np.nan)
    for frame, mask in enumerate(masks):
        area = np.count_nonzero(mask)
        if area:
            columns, rows = mask.sum(0), mask.sum(1)
            centres[frame] = (
                columns @ (np.arange(len(columns)) + 0.5) / area,
                rows @ (np.arange(len(rows)) + 0.5) / area,
            )
    known = np.nonzero(~np.isnan(centres[:, 0]))[0]
    nearest = known[np.abs(np.arange(len(masks))[:, None] - known).argmin(1)]
    return centres[nearest]


def _as_pose(
    found: list[list[tuple[int, np.ndarray]]], count: int, size: float, width: int, height: int
) -> PoseSequence:
    """Pack the labelled lines; segments that are hardly ever seen are given to what they touch."""
    seen = np.zeros(count, int)
    for frame in found:
        for index in {index for index, _ in frame}:
            seen[index] += 1
    least = min(max(3, round(0.1 * len(found))), max(seen.max(), 1))
    order = [index for index in np.argsort(-seen, kind="stable") if seen[index] >= least]
    place = {int(index): number for number, index in enumerate(order)}
    frames: list[list[tuple[int, np.ndarray]]] = []
    before: dict[int, np.ndarray] = {}
    for frame in found:
        lines = {}
        for index, line in frame:
            if index not in place:
                near = [
                    (float(np.linalg.norm(other[[0, -1]][:, None] - line[[0, -1]], axis=2).min()), label)
                    for label, other in frame
                    if label in place
                ]
                if not near:
                    continue
                index = min(near)[1]
            lines.setdefault(place[index], []).append(line)
        turned = []
        for limb, parts in sorted(lines.items()):
            own = [_turned(line, before.get(limb)) for line in _joined(parts, 0.005 * size)]
            before[limb] = max(own, key=curve_length)
            turned += [(limb, line) for line in own]
        frames.append(turned)
    return pose_of_segments(width, height, len(order), frames)


def pose_of_segments(
    width: int, height: int, count: int, frames: list[list[tuple[int, np.ndarray]]]
) -> PoseSequence:
    """Segments as limbs, each a part of its own, of depth 1; `frames` are, for each frame, the index of a
    segment and a line [K, 2] of it."""
    names = [f"segment {number + 1}" for number in range(count)]
    limbs = [Limb(name, number) for number, name in enumerate(names)]
    lines = [
        [Polyline(index, np.column_stack([line, np.ones(len(line))])) for index, line in own]
        for own in frames
    ]
    return PoseSequence.from_frames(width, height, names, limbs, lines)


def _turned(line: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """A line that runs the same way as the segment did in the frame before."""
    if before is None:
        return line
    ends = KDTree(before).query(line[[0, -1]])[1]
    if ends[0] == ends[1]:
        turned = (line[-1] - line[0]) @ (before[-1] - before[0]) < 0
    else:
        turned = ends[0] > ends[1]
    return line[::-1] if turned else line


def _joined(lines: list[np.ndarray], near: float) -> list[np.ndarray]:
    """Lines of one segment; those that meet end to end are made one."""
    lines = list(lines)
    for a, b in itertools.combinations(range(len(lines)), 2):
        for one in (lines[a], lines[a][::-1]):
            for other in (lines[b], lines[b][::-1]):
                if np.linalg.norm(one[-1] - other[0]) <= near:
                    rest = [line for number, line in enumerate(lines) if number not in (a, b)]
                    return _joined([*rest, np.concatenate([one, other[1:]])], near)
    return lines
