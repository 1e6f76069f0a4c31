"""How the limbs of a picture's subject lie, where they do not lie as the first pose says.

The subject that the pose gives is laid on the picture as a puppet: moved and scaled as a whole, and turned
limb by limb about its joints, until it covers what has the subject's colours rather than the background's and
its outline runs along edges. Colours are learnt from the picture, anew as the puppet comes to lie better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .alignment import LIKE, Alignment, find_edges, find_outline, find_ways
from .tracks import Tracks

PIXELS = 6000
"""The puppet is fitted at a size at which it has at most so many."""
COLOURS = 16
"""Steps of each colour that are told apart."""
CLEAR = 2.0
"""Natural logarithm of how much likelier a colour is the subject's than the background's, at most."""
OFF = 0.5
"""What is that much likelier the background's is not the subject."""
WELL, LIMB, WHOLE = 0.02, 0.15, 0.08
"""Shares of a puppet that may lie off the subject before it is fitted, of a limb before it is turned, and of
all of it before it is moved."""
SEEN, LOST = 0.5, 0.25
"""A puppet of which less lies on what looks like the subject, or more off it, does not fit."""
EDGES = 2.0
"""What a pixel of the outline that runs along an edge is worth, beside a pixel of the subject's colour."""
HIDING = 0.8
"""What a pixel costs that a limb loses behind another."""
BENDING = 0.002
"""What turning a limb costs, for a degree and each pixel of it."""
LEAST = 2.0
"""Turning a limb of n pixels must be worth so many times the root of n."""
FARTHEST = 55
"""Degrees by which a limb is turned at most."""
TURNS = np.arange(-48, 49, 8)
FINER = 4, 2, 1
STEPS = (4, 0.04), (2, 0.02), (1, 0.01)
"""Pixels and shares by which the whole is moved and scaled."""
ROUNDS, MOST_TURNS = 3, 8
SMALL = 15
"""Limbs of fewer pixels are not turned by themselves."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Bone b carries what lies at z in the first pose, in complex pixels, to turn[b] * z + shift[b] in the
    picture. `bent` [S] degrees is how far it was turned about its joint; `likely` [h, w] is the natural
    logarithm of how much more of what has a place's colour is the subject; `on` and `off`, from 0 to 1, are
    the shares of the subject that lie on what looks like it and on what looks like background; `sharp` is
    the mean edge, from 0 to 1, under its outline."""

    turn: np.ndarray
    shift: np.ndarray
    bent: np.ndarray
    likely: np.ndarray
    on: float
    off: float
    sharp: float

    @property
    def fits(self) -> bool:
        return self.on > SEEN and self.off < LOST and self.sharp > LIKE

    def place(self, bones: np.ndarray, at: np.ndarray) -> np.ndarray:
        return self.turn[bones] * at + self.shift[bones]

    def points(self, tracks: Tracks) -> np.ndarray:
        """[N, 2] where the tracks' points lie in the picture."""
        at = tracks.points[0] @ np.array([1, 1j])
        total, count = np.zeros(len(at), complex), np.zeros(len(at))
        for ends in (tracks.heads, tracks.tails):
            np.add.at(total, ends, self.place(np.arange(tracks.num_bones), at[ends]))
            np.add.at(count, ends, 1)
        placed = total / np.maximum(count, 1)
        return np.stack([placed.real, placed.imag], axis=-1)

    def warp(self, plane: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """A plane [h, w] of any size over the first pose, moved as the greatest part [H, W] of the subject
        is."""
        bone = int(np.bincount(owners[owners > 0]).argmax()) - 1
        size = np.array(plane.shape[::-1]) / owners.shape[::-1]
        scale, place = (
            float(np.abs(self.turn[bone])),
            complex(*np.argwhere(owners == bone + 1).mean(axis=0)[::-1]),
        )
        shift = self.place(bone, place) - scale * place
        matrix = np.array([[scale, 0, shift.real * size[0]], [0, scale, shift.imag * size[1]]])
        return cv2.warpAffine(plane, matrix, plane.shape[::-1])

    def ease(self, tracks: Tracks, frames: int) -> Tracks:
        """Tracks that begin where the limbs lie in the picture and come to their poses within so many
        frames."""
        points, depth = tracks.points.copy(), tracks.depth.copy()
        away, scale = self.points(tracks) - points[0], float(np.median(np.abs(self.turn)))
        last = min(frames, len(points) - 1)
        for frame in range(max(last, 1)):
            share = frame / max(last, 1)
            share = share * share * (3 - 2 * share)
            points[frame] += (1 - share) * away
            depth[frame] *= share + (1 - share) / scale
        return replace(tracks, points=points, depth=depth)


def fit_limbs(image: np.ndarray, owners: np.ndarray, tracks: Tracks, start: Alignment | None) -> Fit:
    """The fit to a picture [H, W, 3] of the subject whose bone + 1 `owners` [H, W] says for each pixel in
    the first pose. It begins at `start`; None where the whole stands where it should."""
    puppet = _Puppet(image, owners, tracks)
    if start is not None and start.found:
        puppet.move(start)
    for _ in range(ROUNDS):
        puppet.learn()
        off = puppet.off()
        if off < WELL:
            break
        if moved := start is not None and off > WHOLE:
            puppet.move_whole()
        if not puppet.bend() and not moved:
            break
    return puppet.fit()


class _Puppet:
    """All positions are complex pixels of the reduced picture."""

    def __init__(self, image, owners, tracks):
        height, width = owners.shape
        self.tracks = tracks
        zoom = min(1.0, np.sqrt(PIXELS / max((owners > 0).sum(), 1)))
        self.size = max(8, round(width * zoom)), max(8, round(height * zoom))
        self.zoom = self.size[0] / width
        small = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        cells = (small // (256 // COLOURS)).astype(int)
        self.colour = (cells[..., 0] * COLOURS + cells[..., 1]) * COLOURS + cells[..., 2]
        self.edges = np.stack(find_edges(small.astype(np.float32)))
        own = cv2.resize(owners, self.size, interpolation=cv2.INTER_NEAREST)
        y, x = np.nonzero(own)
        self.at, self.bone = x + 1j * y, own[y, x].astype(int) - 1
        rim, self.way, _ = find_outline((own > 0).astype(np.uint8) * 255)
        self.rim, self.rim_bone = (
            rim @ np.array([1, 1j]),
            own[rim[:, 1].astype(int), rim[:, 0].astype(int)] - 1,
        )
        self.order, self.parent, joints = _hang(tracks, np.bincount(self.bone, minlength=tracks.num_bones))
        self.joint = (joints + 0.5 + 0.5j) * self.zoom - 0.5 - 0.5j
        self.below = {bone: np.zeros(tracks.num_bones, bool) for bone in self.order}
        for bone in reversed(self.order):
            self.below[bone][bone] = True
            if self.parent[bone] >= 0:
                self.below[self.parent[bone]] |= self.below[bone]
        self.turn, self.shift = np.ones(tracks.num_bones, complex), np.zeros(tracks.num_bones, complex)
        self.bent = np.zeros(tracks.num_bones)

    def move(self, start):
        centre = (start.centre + 0.5 + 0.5j) * self.zoom - 0.5 - 0.5j
        self.turn[:] = start.scale
        self.shift[:] = centre + start.shift * self.zoom - start.scale * centre

    def fit(self) -> Fit:
        """In pixels of the whole picture."""
        half = 0.5 + 0.5j
        shift = (self.turn * (half * self.zoom - half) + self.shift + half) / self.zoom - half
        self.learn()
        on = _mean(self.look(self.likely, self.placed()) > OFF)
        sharp = _mean(self.along_edges(*self.placed_rim()))
        return Fit(self.turn, shift, self.bent, self.likely, on, self.off(), sharp)

    def placed(self):
        return self.turn[self.bone] * self.at + self.shift[self.bone]

    def placed_rim(self):
        at = self.turn[self.rim_bone] * self.rim + self.shift[self.rim_bone]
        return at, self.way + np.angle(self.turn[self.rim_bone])

    def mask(self, at):
        out = np.zeros(self.size[::-1], np.uint8)
        y, x, inside = self._cells(at)
        out[y[inside], x[inside]] = 1
        return cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))

    def _cells(self, at):
        x, y = np.rint(at.real).astype(int), np.rint(at.imag).astype(int)
        return y, x, (x >= 0) & (x < self.size[0]) & (y >= 0) & (y < self.size[1])

    def look(self, plane, at, beyond=-CLEAR):
        y, x, inside = self._cells(at)
        out = np.full(at.shape, beyond, np.float32)
        out[inside] = plane[y[inside], x[inside]]
        return out

    def along_edges(self, at, way):
        y, x, inside = self._cells(at)
        out = np.zeros(at.shape, np.float32)
        out[inside] = self.edges[find_ways(way)[inside], y[inside], x[inside]]
        return out

    def learn(self):
        """Which colours are the subject's, from where the puppet lies now: `likely` is the logarithm of how
        much more of what has a pixel's colour is the subject."""
        mask = self.mask(self.placed())
        inner = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
        reach = 2 * int(0.12 * np.sqrt(mask.sum())) + 3
        outer = cv2.dilate(mask, np.ones((reach, reach), np.uint8)) == 0
        ours, others = (self._colours(where) for where in (inner if inner.sum() > 50 else mask > 0, outer))
        likely = np.log((ours + 1e-4) / (others + 1e-4)).clip(-CLEAR, CLEAR)[self.colour]
        self.likely = cv2.GaussianBlur(likely.astype(np.float32), (0, 0), 0.8)

    def _colours(self, where):
        count = np.bincount(self.colour[where], minlength=COLOURS**3).reshape((COLOURS,) * 3).astype(float)
        for axis in range(3):
            padded = np.pad(count, [(int(axis == each),) * 2 for each in range(3)])
            below, here, above = (padded.take(range(start, start + COLOURS), axis=axis) for start in range(3))
            count = (below + 2 * here + above) / 4
        return (count / max(count.sum(), 1)).ravel()

    def off(self) -> float:
        return _mean(self.look(self.likely, self.placed()) < -OFF)

    def worth(self) -> float:
        size = np.abs(self.turn)
        inner = (size[self.bone] ** 2 * self.look(self.likely, self.placed())).sum()
        return float(inner + EDGES * (size[self.rim_bone] * self.along_edges(*self.placed_rim())).sum())

    def move_whole(self):
        """Move and scale the puppet as a whole while it lies the better for it."""
        best, centre = self.worth(), self.placed().mean()
        for step, share in STEPS:
            ways = [(way * step, 1.0) for way in (1, -1, 1j, -1j)] + [(0, 1 + share), (0, 1 / (1 + share))]
            better = True
            while better:
                better = False
                for way, scale in ways:
                    before = self.turn, self.shift
                    self.turn = self.turn * scale
                    self.shift = (self.shift - centre) * scale + centre + way
                    worth = self.worth()
                    if worth > best + 1e-3:
                        best, centre, better = worth, centre + way, True
                    else:
                        self.turn, self.shift = before

    def bend(self) -> bool:
        """Turn limbs, the one that gains most first; whether any was."""
        for count in range(MOST_TURNS):
            options = [self._best_turn(bone) for bone in self.order if self.parent[bone] >= 0]
            gain, bone, turn, child, child_turn = max(options, default=(0.0, 0, 0.0, 0, 0.0))
            if gain <= 0:
                return count > 0
            self._turn(bone, turn)
            if child_turn:
                self._turn(child, child_turn)
        return True

    def _joint(self, bone):
        parent = self.parent[bone]
        return self.turn[parent] * self.joint[bone] + self.shift[parent]

    def _turn(self, bone, degrees):
        joint, turn, mine = self._joint(bone), np.exp(1j * np.radians(degrees)), self.below[bone]
        self.turn[mine] *= turn
        self.shift[mine] = (self.shift[mine] - joint) * turn + joint
        self.bent[bone] += degrees

    def _best_turn(self, bone) -> tuple[float, int, float, int, float]:
        """How much more a limb is worth turned, and how it and the largest one that hangs on it should be:
        (gain, bone, degrees, the other bone, its degrees)."""
        nothing = (0.0, bone, 0.0, bone, 0.0)
        mine, at = self.below[bone][self.bone], self.placed()
        if mine.sum() < SMALL or _mean(self.look(self.likely, at[mine]) < -OFF) < LIMB:
            return nothing
        rim, way = (each[self.below[bone][self.rim_bone]] for each in self.placed_rim())
        if _mean(self.along_edges(rim, way)) > LIKE:
            return nothing  # whatever its colours, it is where it should be
        rest, limb = self.mask(at[~mine]), self.mask(at[mine])
        # What the limb covers now of the others' is there too when it is turned away.
        behind = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) & limb
        value = np.where(rest > 0, -HIDING, np.where(behind > 0, 0, self.likely))
        whose, rim_whose = self.bone[mine], self.rim_bone[self.below[bone][self.rim_bone]]
        at = at[mine]
        hanging = [each for each in self.order if self.parent[each] == bone]
        sizes = [int(self.below[each][whose].sum()) for each in hanging]
        child = hanging[int(np.argmax(sizes))] if sizes and max(sizes) >= SMALL else None
        joint, next_joint, upper = self._joint(bone), 0j, {}
        far, rim_far = np.zeros(len(at), bool), np.zeros(len(rim), bool)
        if child is not None:
            next_joint, far, rim_far = (
                self._joint(child),
                self.below[child][whose],
                self.below[child][rim_whose],
            )

        def part(points, line, ways, about, to, degrees):
            turn = np.exp(1j * np.radians(degrees))
            inner = self.look(value, to + (points - about) * turn).sum()
            along = self.along_edges(to + (line - about) * turn, ways + np.radians(degrees))
            return float(inner + EDGES * along.sum())

        def worth(turn, child_turn):
            if turn not in upper:
                upper[turn] = part(at[~far], rim[~rim_far], way[~rim_far], joint, joint, turn)
            total = upper[turn] - BENDING * len(at) * abs(turn + self.bent[bone])
            if child is None:
                return total
            to = joint + (next_joint - joint) * np.exp(1j * np.radians(turn))
            total += part(at[far], rim[rim_far], way[rim_far], next_joint, to, turn + child_turn)
            return total - BENDING * len(at) * abs(child_turn + self.bent[child])

        turns = TURNS[np.abs(TURNS + self.bent[bone]) <= FARTHEST].tolist()
        child_turns = [0] if child is None else TURNS[::2].tolist()
        best, turn, child_turn = max((worth(a, b), a, b) for a in turns or [0] for b in child_turns)
        for finer in FINER:
            around = [(turn - finer, child_turn), (turn + finer, child_turn)]
            if child is not None:
                around += [(turn, child_turn - finer), (turn, child_turn + finer)]
            best, turn, child_turn = max((best, turn, child_turn), *((worth(a, b), a, b) for a, b in around))
        gain = best - worth(0, 0) - LEAST * np.sqrt(len(at))
        return (gain, bone, turn, bone if child is None else child, child_turn) if gain > 0 else nothing


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _hang(tracks: Tracks, area: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The bones as a tree that hangs on the middle of each subject by `area` [S]: their order from there on,
    the bone [S] that each hangs on, -1 for none, and the joint [S] between, in complex pixels."""
    points = tracks.points[0] @ np.array([1, 1j])
    heads, tails = points[tracks.heads], points[tracks.tails]
    order: list[int] = []
    parent, joint = np.full(tracks.num_bones, -1), np.zeros(tracks.num_bones, complex)
    count, piece = _pieces(tracks.neighbours)
    for number in range(count):
        members = np.flatnonzero(piece == number)
        heaviest = []
        for bone in members:
            others = members[members != bone]
            parts, which = _pieces(tracks.neighbours[np.ix_(others, others)])
            heaviest.append(max((area[others[which == part]].sum() for part in range(parts)), default=0))
        queue = [int(members[int(np.argmin(heaviest))])]
        reached = set(queue)
        while queue:
            bone = queue.pop(0)
            order.append(bone)
            axis = tails[bone] - heads[bone]
            for other in np.flatnonzero(tracks.neighbours[bone]).tolist():
                if other not in reached:
                    reached.add(other)
                    queue.append(other)
                    ends = np.array([heads[other], tails[other]])
                    along = ((ends - heads[bone]) * np.conj(axis)).real / max(abs(axis) ** 2, 1e-9)
                    away = np.abs(ends - heads[bone] - np.clip(along, 0, 1) * axis)
                    parent[other], joint[other] = bone, ends[int(away.argmin())]
    return order, parent, joint


def _pieces(near: np.ndarray) -> tuple[int, np.ndarray]:
    """How many pieces a graph [n, n] falls into, and which each node is in."""
    piece = np.full(len(near), -1)
    count = 0
    for start in range(len(near)):
        if piece[start] < 0:
            queue = [start]
            piece[start] = count
            while queue:
                for other in np.flatnonzero(near[queue.pop()] & (piece < 0)).tolist():
                    piece[other] = count
                    queue.append(other)
            count += 1
    return count, piece
