"""Drawing a frame from where the first frame shows each surface: what the scene knows need not be guessed
from the bones."""

from __future__ import annotations

import cv2
import numpy as np

from shared.messages import LIGHT_STEPS

from ...poseanything.conditioning.masks import from_nearest
from .surface_motion import LEAP, Cells, within
from .warping import over

REACH = 2
"""Cells beyond the outline into which the surface is carried on, so that it can be interpolated up to it."""
EDGE = 0.7
"""Cells over which the outline's steps are evened out."""


GAMMA = 2.2
"""Between light and a picture's values."""
MOST = 1.5
"""A picture's values change by no larger power of two."""
TRUE = 0.25
"""By so much of what the light maps say a picture's shades must follow them to be lit anew: a painted one
may be flat."""


class SurfaceDrawer:
    """Draws the subject from the first frame `image` [H, W, 3], in which it is where `subject` [H, W] bool
    says. By the light `first_light` [h, w] that falls on it there surfaces are lit as they turn, if any."""

    def __init__(self, image: np.ndarray, subject: np.ndarray, first_light: np.ndarray | None):
        # The outermost pixels have taken some of the background's colour.
        pure = cv2.erode(subject.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
        self.picture = from_nearest(image, pure if pure.any() else subject)
        self.first_light = first_light
        if first_light is not None and (lit := first_light > 0).any():
            self.first_light = from_nearest(first_light.astype(np.float32), lit)

    def draw(self, cells: Cells, canvas: np.ndarray) -> None:
        """Lay the subject over an RGB canvas, in place."""
        lit = None if self.first_light is None else self._lit(cells, canvas.shape)
        placed = place(cells, canvas.shape, lit)
        if placed is None:
            return
        source, alpha, area = placed
        where = np.ascontiguousarray(source[..., :2])
        layer = cv2.remap(self.picture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if lit is not None:
            layer = np.clip(layer * np.exp2(source[..., 2:]), 0, 255)
        alpha = alpha[..., None]
        layer = np.rint(np.concatenate([layer * alpha, 255 * alpha], axis=-1)).astype(np.uint8)
        over(canvas[area], layer)

    def _lit(self, cells, shape):
        """[h, w] by how much brighter, as a power of two of the picture's values, the light makes what is
        seen in cells."""
        rows, columns = _around(cells.known)
        now, flow = cells.light[rows, columns], cells.flow[rows, columns]
        height, width = (np.float32(side / count) for side, count in zip(shape, cells.known.shape))
        y, x = np.mgrid[rows, columns].astype(np.float32)
        x, y = x + flow[..., 0] / width, y + flow[..., 1] / height
        before = cv2.remap(self.first_light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change = np.where(now > 0, now - before, 0) / np.float32(LIGHT_STEPS * GAMMA)
        weight = cv2.GaussianBlur((now > 0).astype(np.float32), (5, 5), 0)
        smooth = cv2.GaussianBlur(change, (5, 5), 0) / np.maximum(weight, 1e-3)
        return np.clip(smooth, -MOST, MOST)


def _around(known):
    """The rows and columns of cells around those known, with room for what is carried on."""
    x, y, w, h = cv2.boundingRect(known.view(np.uint8))
    margin = REACH + 1
    rows = slice(max(y - margin, 0), min(y + h + margin, known.shape[0]))
    return rows, slice(max(x - margin, 0), min(x + w + margin, known.shape[1]))


def place(cells: Cells, shape: tuple[int, ...], more: np.ndarray | None = None):
    """(source, alpha, area): for each pixel of an area (rows, columns) of a picture of a shape [H, W, ...]
    the place (x, y) that the flow points at and, after it, what else is known of the cells there; and how
    much of the pixel the cells cover. None where they cover nothing. `more` [h, w] is of the box around what
    is known alone."""
    if not cells.known.any():
        return None
    rows, columns = _around(cells.known)
    cell = shape[1] / cells.known.shape[1], shape[0] / cells.known.shape[0]
    (left, right), (top, bottom) = (
        (round(each.start * side), round(each.stop * side)) for each, side in zip((columns, rows), cell)
    )
    size = right - left, bottom - top
    known, flow = cells.known[rows, columns], cells.flow[rows, columns]
    flow, reached = _carry_on(flow if more is None else np.dstack([flow, more]), known)
    source = _spread(flow, reached, size, max(cell))
    source[..., 0] += np.arange(left, right, dtype=np.float32)
    source[..., 1] += np.arange(top, bottom, dtype=np.float32)[:, None]
    soft = cv2.GaussianBlur(known.astype(np.float32), (3, 3), EDGE)
    inside = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
    alpha = np.clip((inside - 0.5) * max(cell) + 0.5, 0, 1)
    return source, alpha, (slice(top, bottom), slice(left, right))


def _spread(flow, reached, size, cell):
    """Flow [h, w, n] of cells, and what else is known of them, for each pixel of a picture of `size`.
    Between cells that belong together it is interpolated; at other places a pixel follows those around it
    that belong together and are nearest."""
    out = cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR)
    square = np.ones((2, 2), np.uint8)
    wide = cv2.dilate(flow, square, anchor=(0, 0)) - cv2.erode(flow, square, anchor=(0, 0))
    torn = ~within(wide, LEAP * cell) | (cv2.erode(reached.view(np.uint8), square, anchor=(0, 0)) == 0)
    torn &= cv2.dilate(reached.view(np.uint8), square, anchor=(0, 0)) > 0
    u, v = (
        np.clip((np.arange(n) + 0.5) * cells / n - 0.5, 0, cells - 1.001)
        for n, cells in zip(size, flow.shape[1::-1])
    )
    column, row = u.astype(int), v.astype(int)
    y, x = np.nonzero(torn[row[:, None], column])
    if not len(x):
        return out
    s, t = (u - column)[x].astype(np.float32), (v - row)[y].astype(np.float32)
    weight = np.stack([(1 - s) * (1 - t), s * (1 - t), (1 - s) * t, s * t], axis=1)
    rows, columns = row[y][:, None] + (0, 0, 1, 1), column[x][:, None] + (0, 1, 0, 1)
    corner = flow[rows, columns]
    weight *= reached[rows, columns]
    near = within(corner[:, :, None, :2] - corner[:, None, :, :2], LEAP * cell)
    together = near * weight[:, None, :]
    best = (together @ np.ones(4, np.float32) + 1e-3 * weight).argmax(axis=1)
    chosen = together[np.arange(len(best)), best]
    chosen /= np.maximum(chosen @ np.ones((4, 1), np.float32), 1e-6)
    out[y, x] = np.einsum("pk,pkc->pc", chosen, corner)
    return out


def _carry_on(flow, known):
    """Flow [h, w, n] carried on from where it is known into the cells beside, and where it then is."""
    flow, known = np.where(known[..., None], flow, 0), known.copy()
    for _ in range(REACH):
        weight = cv2.blur(known.astype(np.float32), (3, 3))
        total = cv2.blur(flow, (3, 3))
        grown = ~known & (weight > 0.01)
        flow[grown] = total[grown] / weight[grown][:, None]
        known |= grown
    return flow, known


def shows_light(image: np.ndarray, light: np.ndarray, owners: np.ndarray) -> bool:
    """Whether the shades of a picture [H, W, 3] go with its light map [h, w], limb by limb of `owners`
    [H, W]."""
    size = light.shape[::-1]
    grey = cv2.resize(image.mean(axis=2).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    whose = cv2.resize(owners.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(int)
    known = (light > 0) & (whose > 0)
    if known.sum() < 16:
        return False
    whose, shade = whose[known], GAMMA * np.log2(grey[known] + 1)
    told = light[known].astype(np.float64) / LIGHT_STEPS
    count = np.maximum(np.bincount(whose), 1)
    shade, told = (each - (np.bincount(whose, each) / count)[whose] for each in (shade, told))
    return bool((shade * told).sum() > TRUE * (told * told).sum())
