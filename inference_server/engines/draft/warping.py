"""Drawing a frame: every part, bent by the bones it follows, laid over the background from back to front.

A part bends forward (linear blend skinning of a coarse grid over its picture) but is drawn backward (each
pixel asks where it comes from). The inverse is found on a coarse grid too: grid points of the picture fall
into cells of the frame, their neighbours take over where the picture is stretched, and a few Newton steps on
the bilinear patch make it exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from .layers import GRID, Part
from .motion import Motion

NEWTON_STEPS = 2
LOST, BESIDE, INSIDE = 0, 1, 2
"""States of a cell: its source is not found, lies beside what is visible of the part, or in it."""

LEAP = 5.0
"""Neighbouring cells whose sources lie so many cells apart do not belong together."""

SQUARE = np.ones((2, 2), np.uint8)
CLOSE = 3.0
"""A cell whose source can't be found closer than this (pixels in the frame) lies outside the part."""


class Drawer:
    """Draws the parts of a clip, `width` x `height` pixels."""

    def __init__(self, parts: list[Part], motion: Motion, width: int, height: int):
        self.parts, self.width, self.height = parts, width, height
        self.rods = [part.rods for part in parts]
        shapes = np.array([part.weights.shape[:2] for part in parts], int).reshape(-1, 2)
        self.columns, self.rows = shapes[:, 1], shapes[:, 0]
        self.first = np.concatenate([[0], np.cumsum(shapes.prod(1))])
        self.bases, active = [], []
        for part, first in zip(parts, self.first):
            at = part.nodes()
            basis = motion.basis(part.rods, at.ravel())
            self.bases.append(
                (basis * part.weights.reshape(-1, len(part.rods), 1)).reshape(at.size, -1).astype(np.float32)
            )
            # Where the part folds over itself, what shows comes last and so lies on top.
            mine = np.flatnonzero(part.active)
            active.append(first + mine[np.argsort(part.active.ravel()[mine], kind="stable")])
        self.active = np.concatenate(active) if parts else np.zeros(0, int)
        self.begin = np.concatenate([[0], np.cumsum([len(a) for a in active])])[:-1].astype(int)
        self.part_of = np.repeat(np.arange(len(parts)), [len(a) for a in active])
        local = self.active - self.first[self.part_of]
        self.node_column, self.node_row = (
            local % self.columns[self.part_of],
            local // self.columns[self.part_of],
        )
        self.column_of_node = np.zeros(self.first[-1], np.int32)
        self.row_of_node = np.zeros(self.first[-1], np.int32)
        self.column_of_node[self.active], self.row_of_node[self.active] = self.node_column, self.node_row
        self.shows = (
            np.concatenate([part.active.ravel() == 2 for part in parts]) if parts else np.zeros(0, bool)
        )
        self.bent = np.zeros(self.first[-1], np.complex64)
        self.most_u, self.most_v = (
            (self.columns - 1.001).astype(np.float32),
            (self.rows - 1.001).astype(np.float32),
        )
        self.follow(motion)

    def follow(self, motion: Motion) -> None:
        """Draw the frames of another motion from now on, from the same rest frame."""
        self.coefficients = motion.coefficients()
        lead = np.array([part.rods[0] for part in self.parts], int)
        self.level = np.floor(0.3 - np.log2(motion.scale[:, lead])).astype(int)
        self.turn_back = motion.rest_axis[lead] / (motion.axis[:, lead] * motion.scale[:, lead])
        used = np.unique(np.concatenate(self.rods)) if self.parts else []
        growth = np.maximum(motion.scale[:, used], motion.length[:, used] / motion.rest_length[used]).max(
            1, initial=1
        )
        self.stretch = np.clip(np.ceil(growth - 0.25).astype(int), 1, 8)

    def draw(self, frame: int, canvas: np.ndarray, coverage: np.ndarray, order: np.ndarray) -> None:
        """Lay the parts of `order` (indices, the farthest first) over an RGB canvas, in place; `coverage` [h,
        w] uint8 becomes as opaque as what is drawn."""
        if not len(order):
            return
        flat = self.bent.view(np.float32).reshape(-1, 2)
        for basis, rods, first in zip(self.bases, self.rods, self.first):
            np.matmul(
                basis, self.coefficients[frame, rods].reshape(-1, 2), out=flat[first : first + len(basis)]
            )
        boxes = self._boxes(order)
        source, state, base = self._invert(boxes, frame)
        for k in order:
            c0, r0, c1, r1 = boxes[k]
            if c1 > c0 and r1 > r0:
                cells = slice(base[k], base[k] + (c1 - c0) * (r1 - r0))
                shape = (r1 - r0, c1 - c0)
                self._lay(
                    frame,
                    k,
                    source[cells].reshape(*shape, 2),
                    state[cells].reshape(shape),
                    boxes[k],
                    canvas,
                    coverage,
                )

    def _boxes(self, order):
        """[parts, 4] the cells that each part may cover: first column and row, end of columns and rows."""
        bent = self.bent.view(np.float32).reshape(-1, 2)[self.active]
        low = np.minimum.reduceat(bent, self.begin, axis=0)
        high = np.maximum.reduceat(bent, self.begin, axis=0)
        size = np.array([self.width, self.height], np.float32)
        seen = ((high > 0) & (low < size)).all(1) & np.isin(np.arange(len(self.parts)), order)
        low = np.floor(np.clip(low, -GRID, size) / GRID).astype(int) - 1
        high = np.ceil(np.clip(high, -GRID, size + GRID) / GRID).astype(int) + 2
        return np.where(seen[:, None], np.concatenate([low, high], axis=1), 0)

    def _invert(self, boxes, frame):
        """For all cells of all boxes, one after another: ([n, 2] position in the part's picture, [n] its
        state)."""
        wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        base = np.concatenate([[0], np.cumsum(wide * tall)])
        bent, part = self.bent[self.active], self.part_of
        column = np.rint((np.clip(bent.real, -1e6, 1e6) - 1.5) / GRID).astype(int) - boxes[part, 0]
        row = np.rint((np.clip(bent.imag, -1e6, 1e6) - 1.5) / GRID).astype(int) - boxes[part, 1]
        inside = (column >= 0) & (column < wide[part]) & (row >= 0) & (row < tall[part])
        node = np.full(base[-1] + 1, -1, np.int64)
        node[(base[part] + row * wide[part] + column)[inside]] = self.active[inside]
        stride = np.repeat(wide, wide * tall)
        for _ in range(self.stretch[frame]):
            self._grow(node, stride, everywhere=True)
        self._grow(node, stride, everywhere=False)

        reached = np.flatnonzero(node >= 0)
        owner, node = np.repeat(np.arange(len(boxes)), wide * tall)[reached], node[reached]
        inner = reached - base[owner]
        inner_row = inner // wide[owner]
        at = (
            (inner - inner_row * wide[owner] + boxes[owner, 0]) + 1j * (inner_row + boxes[owner, 1])
        ) * GRID + (1.5 + 1.5j)
        u, v, off = self._newton(
            owner, self.column_of_node[node], self.row_of_node[node], at.astype(np.complex64)
        )
        source = np.zeros((base[-1], 2), np.float32)
        source[reached, 0], source[reached, 1] = u * GRID + 1.5, v * GRID + 1.5
        shown = self.shows[
            self.first[owner] + np.rint(v).astype(int) * self.columns[owner] + np.rint(u).astype(int)
        ]
        state = np.zeros(base[-1], np.uint8)
        state[reached] = np.where(off < CLOSE, np.where(shown, INSIDE, BESIDE), LOST)
        return source, state, base

    @staticmethod
    def _grow(node, stride, everywhere):
        """Let empty cells start from a neighbour's node: all of them, or those between two."""
        empty = np.flatnonzero(node[:-1] < 0)
        right, left = node[empty + 1], node[empty - 1]
        below, above = (node[np.clip(empty + way * stride[empty], -1, len(node) - 1)] for way in (1, -1))
        if everywhere:
            taken = np.maximum(np.maximum(left, right), np.maximum(above, below))
        else:
            taken = np.maximum(np.where(right >= 0, left, -1), np.where(below >= 0, above, -1))
        node[empty] = taken

    def _newton(self, owner, u, v, at):
        """Solve bent(u, v) = at on the bilinear patches of the grid, from a start close by: (u, v, error in
        pixels)."""
        columns, first = self.columns[owner], self.first[owner]
        most_u, most_v = self.most_u[owner], self.most_v[owner]
        u, v = u.astype(np.float32), v.astype(np.float32)
        best = None
        for step in range(NEWTON_STEPS + 1):
            u, v = np.clip(u, 0, most_u), np.clip(v, 0, most_v)
            left, top = u.astype(np.int32), v.astype(np.int32)
            corner = first + top * columns + left
            s, t = u - left, v - top
            a, c = self.bent[corner], self.bent[corner + columns]
            b, d = self.bent[corner + 1] - a, self.bent[corner + columns + 1] - c
            du, dv = b + (d - b) * t, (c - a) + (d - b) * s
            off = a + b * s + (dv * t) - at
            error = np.abs(off)
            if best is None:
                best = [u, v, error]
            else:
                better = error < best[2]
                best = [np.where(better, new, old) for new, old in zip((u, v, error), best)]
            if step < NEWTON_STEPS:
                dv = dv.conj()
                det = (du * dv).imag
                det = np.where(np.abs(det) > 0.05, det, np.inf)
                u = u - np.clip((off * dv).imag / det, -2, 2)
                v = v + np.clip((off * du.conj()).imag / det, -2, 2)
        return best

    def _lay(self, frame, k, source, state, box, canvas, coverage):
        """Lay a part over the canvas: `source` [h, w, 2] and `state` [h, w] are those of the cells of its
        box."""
        c0, r0, c1, r1 = box
        part = self.parts[k]
        level = int(np.clip(self.level[frame, k], 0, len(part.levels) - 1))
        zoom = 0.5**level
        whole, torn = _squares(state, source)
        full = cv2.resize((source + 0.5) * zoom - 0.5, None, fx=GRID, fy=GRID, interpolation=cv2.INTER_LINEAR)
        if torn.any():
            self._mend(full, source, state, torn, self.turn_back[frame, k], zoom)
        mask = np.zeros(full.shape[:2], np.uint8)
        mask[2:-2, 2:-2] = cv2.resize(whole | torn, None, fx=GRID, fy=GRID, interpolation=cv2.INTER_NEAREST)

        x0, y0 = max(c0 * GRID, 0), max(r0 * GRID, 0)
        x1, y1 = min(c1 * GRID, self.width), min(r1 * GRID, self.height)
        window = (slice(y0 - r0 * GRID, y1 - r0 * GRID), slice(x0 - c0 * GRID, x1 - c0 * GRID))
        layer = cv2.remap(
            part.levels[level], full[window], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        layer = cv2.bitwise_and(layer, layer, mask=mask[window])
        covered = coverage[y0:y1, x0:x1]
        cv2.max(covered, cv2.extractChannel(layer, 3), dst=covered)
        over(canvas[y0:y1, x0:x1], layer)

    @staticmethod
    def _mend(full, source, state, torn, turn_back, zoom):
        """Where a fold or a gap leaves nothing to interpolate, go on rigidly from a corner that is inside."""
        row, column = np.nonzero(torn)
        down, right = np.zeros(len(row), int), np.zeros(len(row), int)
        for dy, dx in ((1, 1), (1, 0), (0, 1), (0, 0)):
            inside = state[row + dy, column + dx] == INSIDE
            down, right = np.where(inside, dy, down), np.where(inside, dx, right)
        step = np.arange(GRID) + 0.5
        offset = (step - GRID * right[:, None])[:, None] + 1j * (step - GRID * down[:, None])[..., None]
        start = source[row + down, column + right]
        at = (start[:, 0] + 1j * start[:, 1])[:, None, None] + offset * turn_back
        pixel = np.arange(GRID) + GRID // 2
        rows, columns = (GRID * row[:, None] + pixel)[..., None], (GRID * column[:, None] + pixel)[:, None]
        full[rows, columns] = (np.stack([at.real, at.imag], axis=-1) + 0.5) * zoom - 0.5


def _squares(state, source):
    """[h - 1, w - 1] uint8 twice: 1 for the squares between four cells across which `source` may be
    interpolated, and for the others that have a corner inside the part."""
    found = cv2.erode((state >= BESIDE).view(np.uint8), SQUARE, anchor=(1, 1))
    spread = cv2.dilate(source, SQUARE, anchor=(1, 1)) - cv2.erode(source, SQUARE, anchor=(1, 1))
    whole = found & (spread < LEAP * GRID).all(-1).view(np.uint8)
    touched = cv2.dilate((state == INSIDE).view(np.uint8), SQUARE, anchor=(1, 1))
    return whole[1:, 1:], (touched & ~whole & 1)[1:, 1:]


def over(canvas: np.ndarray, layer: np.ndarray) -> None:
    """Lay a premultiplied RGBA picture over an RGB one of the same size, in place."""
    clear = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    rest = cv2.multiply(canvas, clear, scale=1 / 255)
    canvas[:] = cv2.add(rest, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))
