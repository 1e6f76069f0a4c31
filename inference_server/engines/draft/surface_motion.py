"""Where each surface is in frames of which the request does not tell it: carried there from the frames that
it tells, as the bones go, so that it arrives where the next one knows it to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from shared.messages import FLOW_STEPS, NO_FLOW

from ...poseanything.conditioning.masks import from_nearest
from .motion import Motion, find_motion
from .regions import find_thickness
from .tracks import Tracks

LEAP = 2.5
"""Neighbouring cells whose pictures lie so many cells farther apart than themselves do not belong
together."""
SOFT = 6
"""Cells over which surfaces that belong together bend between two bones."""
SAME = 1.5
"""Cells by which two places of the first frame differ at most that are the same surface."""
FAR, ROUNDS = 8, 4
"""Where a surface arrives is looked for in so many steps of so many cells at most."""
UNSURE = 0.1
"""A surface of which less than this share is found keeps nearer to its bones."""
COVERED = 0.5
"""Of so much of a cell something must be carried there."""
FINE = 2
"""Places to a cell's side, so that a surface that grows has no holes."""


@dataclass(frozen=True, eq=False)
class Cells:
    """What is seen in a frame: `flow` [h, w, 2] float32, pixels to where the first frame shows it; `known`
    [h, w] bool, where the subject is seen; `light` [h, w] float32 as in a request's light maps, or None."""

    flow: np.ndarray
    known: np.ndarray
    light: np.ndarray | None

    def over(self, other: Cells) -> Cells:
        """These, and others where these show nothing."""
        flow = np.where(self.known[..., None], self.flow, other.flow)
        light = self.light
        if light is not None and other.light is not None:
            light = np.where(self.known, light, other.light)
        return Cells(flow, self.known | other.known, light)

    def mixed(self, other: Cells, share: float, leap: float) -> Cells:
        """Between these and others, of which there is a `share`. Where they differ by more than `leap`
        pixels the larger share decides."""
        soft = [cv2.GaussianBlur(each.known.astype(np.float32), (3, 3), 0) for each in (self, other)]
        known = (self.known | other.known) & ((1 - share) * soft[0] + share * soft[1] > 0.45)
        alike = self.known & other.known & within(self.flow - other.flow, leap)
        weight = np.where(other.known, np.float32(share > 0.5), 0)
        weight = np.where(self.known, weight, 1)
        weight = np.where(alike, share, weight).astype(np.float32)
        flow = self.flow + weight[..., None] * (other.flow - self.flow)
        light = None
        if self.light is not None and other.light is not None:
            light = self.light + weight * (other.light - self.light)
        return Cells(flow, known, light)


class SurfaceMotion:
    """The cells of every frame of a clip, of `width` x `height` pixels.

    `flow` [F, 2, h, w], `light` [F, h, w] and `labels` [F, y, x] are a request's surface flow, light and part
    maps, of which only those of `told` frames [n] are looked at, the first among them. `tracks` are the
    poses', `shown` where the limbs are drawn; `owners` [H, W] is bone + 1 for each pixel of the first
    frame."""

    def __init__(
        self,
        flow: np.ndarray,
        light: np.ndarray | None,
        labels: np.ndarray,
        told: np.ndarray,
        tracks: Tracks,
        shown: Tracks,
        size: tuple[int, int],
        owners: np.ndarray,
    ):
        self.flow, self.light, self.labels, self.told = flow, light, labels, told
        self.tracks, self.shown, self.width = tracks, shown, size[0]
        self.cell = size[0] / flow.shape[3], size[1] / flow.shape[2]
        self.owners = owners
        columns, rows = (
            (np.arange(count) + 0.5) * side - 0.5 for count, side in zip(flow.shape[:1:-1], self.cell)
        )
        self.at = columns + 1j * rows[:, None]
        self._keys: dict[int, Key] = {}
        self._strays: dict[tuple[int, int], np.ndarray] = {}

    @cached_property
    def _bend(self) -> tuple[np.ndarray, float]:
        """What `find_motion` asks for: half the thickness of each bone's flesh, and the focal length."""
        radius = find_thickness(self.owners, self.tracks)
        return radius, find_motion(self.tracks, radius, self.width).focal

    def still(self, frame: int) -> bool:
        """Whether the first frame shows everything where it is in this frame, and in the same light."""
        if not self._kept(frame) or not self.shown.still(frame):
            return False
        return all(
            np.array_equal(self.flow[key], self.flow[0])
            and (self.light is None or np.array_equal(self.light[key], self.light[0]))
            for key in self._around(frame)
        )

    def at_frame(self, frame: int) -> Cells:
        """What is seen in a frame."""
        around = self._around(frame)
        if len(around) == 1:
            key = around[0]
            if self._kept(frame) and key == frame:
                return self._told(key)
            cells = self._carried(key, frame, None, 0.0)
            # What lies elsewhere than its pose says may bare what is hidden in it.
            return cells if self._kept(frame) else cells.over(self._carried(0, frame, None, 0.0))
        before, after = around
        share = (frame - before) / (after - before)
        first = self._carried(before, frame, after, share)
        second = self._carried(after, frame, before, 1 - share)
        return first.mixed(second, share, LEAP * max(self.cell))

    def _around(self, frame) -> list[int]:
        """The told frames that say what is seen in a frame: itself, or those before and after it."""
        at = int(np.searchsorted(self.told, frame))
        if at < len(self.told) and self.told[at] == frame:
            return [frame]
        return [int(key) for key in (*self.told[max(at - 1, 0) : at], *self.told[at : at + 1])]

    def _kept(self, frame) -> bool:
        """Whether a frame is drawn as its pose is."""
        return self.shown is self.tracks or np.array_equal(
            self.shown.points[frame], self.tracks.points[frame]
        )

    def _told(self, frame) -> Cells:
        flow = self.flow[frame].astype(np.float32).transpose(1, 2, 0)
        light = None if self.light is None else self.light[frame].astype(np.float32)
        return Cells(flow / FLOW_STEPS, self.flow[frame, 0] != NO_FLOW, light)

    def _key(self, frame) -> Key:
        if frame not in self._keys:
            cells = self._told(frame)
            self._keys[frame] = Key(cells, self.at, self._bones(frame, cells), max(self.cell))
        return self._keys[frame]

    def _bones(self, frame, cells):
        """[h, w] the bone that carries each cell: the one that the first frame's picture of it belongs to,
        where the part maps have its limb there; they are coarser, but tell apart what only looks alike."""
        tracks, known = self.tracks, cells.known
        limbs, first, count = np.unique(tracks.limbs, return_index=True, return_counts=True)
        first_of = np.full(256, -1)
        first_of[limbs + 1] = first
        labels = cv2.resize(self.labels[frame], known.shape[::-1], interpolation=cv2.INTER_NEAREST)
        sure = known & (first_of[labels] >= 0)
        if not sure.any():
            return np.zeros(known.shape, int)
        owner = first_of[from_nearest(labels, sure)]
        points = tracks.points[frame] @ np.array([1, 1j])
        for start, many in zip(first[count > 1], count[count > 1]):
            mine = owner == start
            bones = range(start, start + many)
            away = [_distance(self.at[mine], points[tracks.heads[b]], points[tracks.tails[b]]) for b in bones]
            owner[mine] = start + np.argmin(away, axis=0)

        source = np.rint(self.at + cells.flow @ np.array([1, 1j], np.complex64))
        row = np.clip(source.imag, 0, self.owners.shape[0] - 1).astype(int)
        column = np.clip(source.real, 0, self.owners.shape[1] - 1).astype(int)
        pictured = self.owners[row, column].astype(int) - 1
        limb = np.append(tracks.limbs + 1, 0)[pictured]
        step = [max(1, round(a / b)) for a, b in zip(known.shape, self.labels.shape[1:])]
        around = np.pad(labels, [(each, each) for each in step])
        there = np.zeros(known.shape, bool)
        for down in (0, step[0], 2 * step[0]):
            for right in (0, step[1], 2 * step[1]):
                there |= around[down : down + known.shape[0], right : right + known.shape[1]] == limb
        return np.where(there & (pictured >= 0), pictured, owner)

    def _motion(self, frame, points, depth) -> Motion:
        """The motion of two frames, from a told one to a pose of `points` [N, 2] and `depth` [N]."""
        tracks = self.tracks
        pair = replace(
            tracks,
            points=np.stack([tracks.points[frame], points]),
            depth=np.stack([tracks.depth[frame], depth]),
            rest=0,
        )
        radius, focal = self._bend
        return find_motion(pair, radius, self.width, focal)

    def _carried(self, frame, to, other, share) -> Cells:
        """The cells of a told frame carried to frame `to`, a `share` of the way to the told frame
        `other`."""
        key, shown = self._key(frame), self.shown
        motion = self._motion(frame, shown.points[to], shown.depth[to])
        way = key.way(motion)
        if other is not None:
            way = way + share * self._stray(frame, other)
        depth = (shown.depth[to, shown.heads] + shown.depth[to, shown.tails])[key.bones]
        return key.carry(way, depth, _turn(motion)[key.bones], self.at, self.cell)

    def _stray(self, frame, other):
        """By how many pixels, complex, the surface of a told frame arrives elsewhere in another told frame
        than its bones do."""
        if (frame, other) not in self._strays:
            key, there, tracks = self._key(frame), self._key(other), self.tracks
            pose = tracks.points[other], tracks.depth[other]
            goal = key.at + key.way(self._motion(frame, *pose))
            turn, most = _turn(self._motion(0, *pose))[key.bones], FAR * max(self.cell)
            found, sure = goal, key.known
            for _ in range(ROUNDS):
                source, alike = there.look(found, key.bones, self.cell)
                miss = key.source - source
                step = miss * np.minimum(1, most / np.maximum(np.abs(miss), 1e-9)) * turn
                found = np.where(key.known & alike, found + step, found)
            source, alike = there.look(found, key.bones, self.cell)
            sure = key.known & alike & (np.abs(key.source - source) < SAME * max(self.cell))
            self._strays[frame, other] = key.even(found - goal, sure)
        return self._strays[frame, other]


class Key:
    """What a told frame shows, of the box around it alone: `cells` at pixels `at` complex, carried by
    `bones`, all [y, x]; `source` is where the first frame shows the same, in complex pixels. Only bones that
    are `together` [S, S], if that is given, share a surface."""

    def __init__(
        self,
        cells: Cells,
        at: np.ndarray,
        bones: np.ndarray,
        cell: float,
        together: np.ndarray | None = None,
    ):
        x, y, w, h = cv2.boundingRect(cells.known.view(np.uint8))
        box = slice(y, y + h), slice(x, x + w)
        self.corner, self.at, self.bones, self.known = (y, x), at[box], bones[box], cells.known[box]
        self.light = None if cells.light is None else cells.light[box]
        self.source = self.at + cells.flow[box] @ np.array([1, 1j], np.complex64)
        # From which cells the next one to the right, or below, goes on with the same surface.
        self.right = self._goes_on(np.s_[:, 1:], np.s_[:, :-1], cell, together)
        self.down = self._goes_on(np.s_[1:], np.s_[:-1], cell, together)
        self.slopes = self._slopes(self.source - self.at)
        self.weight = self._gather(self.known.astype(np.float32))

    def _goes_on(self, after, before, cell, together):
        near = np.abs(self.source[after] - self.source[before]) < (LEAP + 1) * cell
        if together is not None:
            near &= together[self.bones[after], self.bones[before]]
        return self.known[after] & self.known[before] & near

    def _gather(self, value):
        """The sum of a value over what belongs together around each cell, the nearest most."""
        for _ in range(SOFT):
            out = value.copy()
            out[:, 1:] += self.right * value[:, :-1]
            out[:, :-1] += self.right * value[:, 1:]
            out[1:] += self.down * value[:-1]
            out[:-1] += self.down * value[1:]
            value = out / 5
        return value

    def even(self, value, sure):
        """A value, carried on from where it is sure into what belongs together with it, and evened out."""
        weight = self._gather(sure.astype(np.float32))
        return self._gather(np.where(sure, value, 0)) / np.maximum(weight, UNSURE * self.weight + 1e-9)

    def way(self, motion: Motion) -> np.ndarray:
        """Complex pixels by which the bones carry each cell."""
        way = motion.forward(1, self.bones, self.at) - self.at
        return self._gather(np.where(self.known, way, 0)) / np.maximum(self.weight, 1e-9)

    def look(self, at, bones, cell):
        """The place in the first frame that shows what is seen at pixels `at`, complex, and whether the same
        bones carry it."""
        column = np.rint((at.real + 0.5) / cell[0] - 0.5).astype(int) - self.corner[1]
        row = np.rint((at.imag + 0.5) / cell[1] - 0.5).astype(int) - self.corner[0]
        height, width = self.known.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
        alike = inside & self.known[row, column] & (self.bones[row, column] == bones)
        return self.source[row, column] + at - self.at[row, column], alike

    def carry(self, way, depth, turn, at, cell) -> Cells:
        """Cells in the middle of pixels `at` [h, w] complex, after each of these has gone its `way` in
        complex pixels, to a `depth`, turned and scaled by `turn`, complex."""
        row, column = np.nonzero(self.known)
        order = np.argsort(-depth[row, column], kind="stable")
        row, column = row[order], column[order]
        place, source, far, back = (
            plane[row, column] for plane in (self.at + way, self.source, depth, 1 / turn)
        )
        # Where the way and the source of a place between two cells lie, beside the cell's own.
        right, down = (each[row, column] for each in self._slopes(way))
        source_right, source_down = (each[row, column] for each in self.slopes)
        height, width = at.shape
        flow, covered = np.zeros((height, width), complex), np.zeros(height * width)
        share = np.abs(turn[row, column]) ** 2 / FINE**2
        nearest = np.full((height, width), np.inf)
        light = None if self.light is None else np.zeros((height, width), np.float32)
        between = (np.arange(FINE) + 0.5) / FINE - 0.5
        for dy in between:
            for dx in between:
                aside = dx * cell[0] + 1j * dy * cell[1]
                there = place + aside + dx * right + dy * down
                u = np.rint((there.real + 0.5) / cell[0] - 0.5).astype(int)
                v = np.rint((there.imag + 0.5) / cell[1] - 0.5).astype(int)
                seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
                inside = np.flatnonzero(seen)
                cells = v[inside] * width + u[inside]
                covered += np.bincount(cells, share[inside], minlength=height * width)
                seen[inside] = far[inside] <= nearest.ravel()[cells]
                u, v, index = u[seen], v[seen], np.flatnonzero(seen)
                shown = (source + aside + dx * source_right + dy * source_down)[index]
                shown += (at[v, u] - there[index]) * back[index]
                # The nearest come last, and stay.
                flow[v, u], nearest[v, u] = shown - at[v, u], far[index]
                if light is not None:
                    light[v, u] = self.light[row, column][index]
        flow = np.stack([flow.real, flow.imag], axis=-1).astype(np.float32)
        known = covered.reshape(height, width) >= COVERED
        return _tidy(Cells(flow, known, light), LEAP * max(cell))

    def _slopes(self, value):
        """How a value changes from cell to cell to the right and down, where they belong together."""
        out = []
        for axis, linked in ((1, self.right), (0, self.down)):
            step = np.diff(value, axis=axis) * linked
            first, last = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
            first[axis], last[axis] = (1, 0), (0, 1)
            many = np.pad(linked, first).astype(np.float32) + np.pad(linked, last)
            out.append((np.pad(step, first) + np.pad(step, last)) / np.maximum(many, 1))
        return out


def _tidy(cells: Cells, leap: float) -> Cells:
    """The same without the crumbs that carrying tore off, which belong with nothing beside them, and without
    the small holes that it left."""
    x, y, w, h = cv2.boundingRect(cells.known.view(np.uint8))
    box = slice(y, y + h), slice(x, x + w)
    known, flow = cells.known[box], cells.flow[box]
    together = np.zeros(known.shape, bool)
    for after, before in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        near = known[after] & known[before] & within(flow[after] - flow[before], leap)
        together[after] |= near
        together[before] |= near
    known &= together
    around = cv2.boxFilter(known.view(np.uint8), cv2.CV_32F, (3, 3), normalize=False)
    hole = ~known & (around >= 5)
    if hole.any():
        for plane in (cells.flow, cells.light):
            if plane is not None:
                plane[box][hole] = from_nearest(plane[box], known)[hole]
        known[hole] = True
    return cells


def _turn(motion: Motion) -> np.ndarray:
    """[S] complex, by how much each bone turns and scales what it carries."""
    return motion.axis[1] * motion.rest_axis.conj() * motion.scale[1]


def _distance(at, head, tail):
    axis = tail - head
    t = np.clip(((at - head) * np.conj(axis)).real / max(abs(axis) ** 2, 1e-9), 0, 1)
    return np.abs(at - head - t * axis)


def within(difference: np.ndarray, most: float) -> np.ndarray:
    """[...] bool: whether neither part of a difference [..., 2] is larger."""
    apart = np.abs(difference)
    return np.maximum(apart[..., 0], apart[..., 1]) <= most
