"""Drawing a frame: every part, bent by the bones it follows, laid over the background from back to front.

A part bends forward (linear blend skinning of a coarse grid over its picture) but is drawn backward (each pixel asks where
it comes from). The inverse is found on a coarse grid too: grid points of the picture fall into cells of the frame, their
neighbours take over where the picture is stretched, and a few Newton steps on the bilinear patch make it exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from .motion import Motion
from .parts import GRID, Part

NEWTON_STEPS = 2
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
CLOSE = 3.0
"""A cell whose source can't be found closer than this (pixels in the frame) lies outside the part."""


class Drawer:
    """Draws the parts of a clip, `width` x `height` pixels."""

    def __init__(self, parts: list[Part], motion: Motion, width: int, height: int):
        self.parts, self.width, self.height = parts, width, height
        self.rods = [part.rods for part in parts]
        self.coefficients = motion.coefficients()
        shapes = np.array([part.weights.shape[:2] for part in parts], int).reshape(-1, 2)
        self.columns, self.rows = shapes[:, 1], shapes[:, 0]
        self.first = np.concatenate([[0], np.cumsum(shapes.prod(1))])
        self.bases, active = [], []
        for part, first in zip(parts, self.first):
            at = part.nodes()
            basis = motion.basis(part.rods, at.ravel())
            self.bases.append((basis * part.weights.reshape(-1, len(part.rods), 1)).reshape(at.size, -1).astype(np.float32))
            active.append(first + np.flatnonzero(part.active))
        self.active = np.concatenate(active) if parts else np.zeros(0, int)
        self.begin = np.concatenate([[0], np.cumsum([len(a) for a in active])])[:-1].astype(int)
        self.part_of = np.repeat(np.arange(len(parts)), [len(a) for a in active])
        local = self.active - self.first[self.part_of]
        self.node_column, self.node_row = local % self.columns[self.part_of], local // self.columns[self.part_of]
        self.column_of_node = np.zeros(self.first[-1], np.int32)
        self.row_of_node = np.zeros(self.first[-1], np.int32)
        self.column_of_node[self.active], self.row_of_node[self.active] = self.node_column, self.node_row
        self.bent = np.zeros(self.first[-1], np.complex64)
        self.most_u, self.most_v = (self.columns - 1.001).astype(np.float32), (self.rows - 1.001).astype(np.float32)
        lead = np.array([part.rods[0] for part in parts], int)
        self.level = np.floor(0.3 - np.log2(motion.scale[:, lead])).astype(int)
        used = np.unique(np.concatenate(self.rods)) if parts else []
        growth = np.maximum(motion.scale[:, used], motion.length[:, used] / motion.rest_length[used]).max(1, initial=1)
        self.stretch = np.clip(np.ceil(growth - 0.25).astype(int), 1, 8)

    def draw(self, frame: int, canvas: np.ndarray, order: np.ndarray) -> None:
        """Lay the parts of `order` (indices, the farthest first) over an RGB canvas, in place."""
        if not len(order):
            return
        flat = self.bent.view(np.float32).reshape(-1, 2)
        for basis, rods, first in zip(self.bases, self.rods, self.first):
            np.matmul(basis, self.coefficients[frame, rods].reshape(-1, 2), out=flat[first : first + len(basis)])
        boxes = self._boxes(order)
        source, valid, base = self._invert(boxes, frame)
        for k in order:
            c0, r0, c1, r1 = boxes[k]
            if c1 > c0 and r1 > r0:
                cells = slice(base[k], base[k] + (c1 - c0) * (r1 - r0))
                shape = (r1 - r0, c1 - c0)
                self._lay(frame, k, source[cells].reshape(*shape, 2), valid[cells].reshape(shape), boxes[k], canvas)

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
        """For all cells of all boxes, one after another: ([n, 2] position in the part's picture, [n] whether it is one)."""
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
        at = ((inner - inner_row * wide[owner] + boxes[owner, 0]) + 1j * (inner_row + boxes[owner, 1])) * GRID + (1.5 + 1.5j)
        u, v, off = self._newton(owner, self.column_of_node[node], self.row_of_node[node], at.astype(np.complex64))
        source = np.zeros((base[-1], 2), np.float32)
        source[reached, 0], source[reached, 1] = u * GRID + 1.5, v * GRID + 1.5
        valid = np.zeros(base[-1], np.uint8)
        valid[reached] = np.where(off < CLOSE, 1, 2)
        return source, valid, base

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
        """Solve bent(u, v) = at on the bilinear patches of the grid, from a start close by: (u, v, error in pixels)."""
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

    def _lay(self, frame, k, source, valid, box, canvas):
        c0, r0, c1, r1 = box
        part = self.parts[k]
        x0, y0 = max(c0 * GRID, 0), max(r0 * GRID, 0)
        x1, y1 = min(c1 * GRID, self.width), min(r1 * GRID, self.height)
        level = int(np.clip(self.level[frame, k], 0, len(part.levels) - 1))
        if level:
            source = (source + 0.5) / 2**level - 0.5
        window = (slice(y0 - r0 * GRID, y1 - r0 * GRID), slice(x0 - c0 * GRID, x1 - c0 * GRID))
        full = cv2.resize(source, ((c1 - c0) * GRID, (r1 - r0) * GRID), interpolation=cv2.INTER_LINEAR)[window]
        layer = cv2.remap(part.levels[level], full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        # Where folds leave a gap, the nearest guess is better than a hole.
        valid = cv2.morphologyEx((valid == 1).view(np.uint8), cv2.MORPH_CLOSE, CROSS) & (valid > 0)
        # Between cells of which one has no source there is nothing to interpolate.
        whole = cv2.erode(valid, np.ones((2, 2), np.uint8), anchor=(1, 1))
        mask = np.zeros(((r1 - r0) * GRID, (c1 - c0) * GRID), np.uint8)
        mask[2:-2, 2:-2] = cv2.resize(whole[1:, 1:], None, fx=GRID, fy=GRID, interpolation=cv2.INTER_NEAREST)
        layer = cv2.bitwise_and(layer, layer, mask=mask[window])
        over(canvas[y0:y1, x0:x1], layer)


def over(canvas: np.ndarray, layer: np.ndarray) -> None:
    """Lay a premultiplied RGBA picture over an RGB one of the same size, in place."""
    clear = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
    rest = cv2.multiply(canvas, clear, scale=1 / 255)
    canvas[:] = cv2.add(rest, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))
