"""Drawing a frame from where the first frame shows each surface: what the scene knows need not be guessed
from the bones."""

from __future__ import annotations

import cv2
import numpy as np

from shared.messages import FLOW_STEPS, LIGHT_STEPS, NO_FLOW

from .warping import over

LEAP = 2.5
"""Neighbouring cells whose pictures lie so many cells farther apart than themselves do not belong
together."""
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
    """Draws the subject of a clip by its surface flow [F, 2, h, w]; `owners` [H, W] says whose pixel each is
    in the first frame `image` [H, W, 3], 0 for nobody's. By light maps [F, h, w] surfaces are lit as they
    turn."""

    def __init__(self, flow: np.ndarray, image: np.ndarray, owners: np.ndarray, light: np.ndarray | None):
        self.flow, subject = flow, owners > 0
        height, width = subject.shape
        self.cell = width / flow.shape[3], height / flow.shape[2]
        # The outermost pixels have taken some of the background's colour.
        pure = cv2.erode(subject.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
        self.picture = _from_nearest(image, pure if pure.any() else subject)
        self.light = None
        if light is not None and light.shape[1:] == flow.shape[2:] and shows_light(image, light[0], owners):
            self.light = light
            known = light[0] > 0
            self.first_light = _from_nearest(light[0].astype(np.float32), known) if known.any() else light[0]

    def still(self, frame: int) -> bool:
        """Whether the first frame shows everything where it is in this frame, and in the same light."""
        lit = self.light is None or np.array_equal(self.light[frame], self.light[0])
        return lit and np.array_equal(self.flow[frame], self.flow[0])

    def draw(self, frame: int, canvas: np.ndarray) -> None:
        """Lay the subject over an RGB canvas, in place."""
        known = self.flow[frame, 0] != NO_FLOW
        x, y, w, h = cv2.boundingRect(known.view(np.uint8))
        if not w:
            return
        margin = REACH + 1
        rows = slice(max(y - margin, 0), min(y + h + margin, known.shape[0]))
        columns = slice(max(x - margin, 0), min(x + w + margin, known.shape[1]))
        known = known[rows, columns]
        flow = self.flow[frame, :, rows, columns].astype(np.float32).transpose(1, 2, 0) / FLOW_STEPS
        (left, right), (top, bottom) = (
            (round(cells.start * side), round(cells.stop * side))
            for cells, side in zip((columns, rows), self.cell)
        )
        size = right - left, bottom - top
        if self.light is not None:
            flow = np.dstack([flow, self._lit(frame, flow, rows, columns)])
        flow, reached = _carry_on(flow, known)
        spread = self._spread(flow, reached, size)
        source = np.ascontiguousarray(spread[..., :2])
        source[..., 0] += np.arange(left, right, dtype=np.float32)
        source[..., 1] += np.arange(top, bottom, dtype=np.float32)[:, None]
        layer = cv2.remap(self.picture, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        if self.light is not None:
            layer = np.clip(layer * np.exp2(spread[..., 2:]), 0, 255)

        soft = cv2.GaussianBlur(known.astype(np.float32), (3, 3), EDGE)
        inside = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
        alpha = np.clip((inside - 0.5) * max(self.cell) + 0.5, 0, 1)[..., None]
        layer = np.rint(np.concatenate([layer * alpha, 255 * alpha], axis=-1)).astype(np.uint8)
        over(canvas[top:bottom, left:right], layer)

    def _lit(self, frame, flow, rows, columns):
        """[h, w] by how much brighter, as a power of two of the picture's values, the light makes what is
        seen in cells."""
        y, x = np.mgrid[rows, columns].astype(np.float32)
        x, y = x + flow[..., 0] / np.float32(self.cell[0]), y + flow[..., 1] / np.float32(self.cell[1])
        before = cv2.remap(self.first_light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        now = self.light[frame, rows, columns]
        change = np.where(now > 0, now - before, 0) / np.float32(LIGHT_STEPS * GAMMA)
        weight = cv2.GaussianBlur((now > 0).astype(np.float32), (5, 5), 0)
        smooth = cv2.GaussianBlur(change, (5, 5), 0) / np.maximum(weight, 1e-3)
        return np.clip(smooth, -MOST, MOST)

    def _spread(self, flow, reached, size):
        """Flow [h, w, n] of cells, and what else is known of them, for each pixel of a picture of `size`.
        Between cells that belong together it is interpolated; at other places a pixel follows those around it
        that belong together and are nearest."""
        out = cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR)
        square = np.ones((2, 2), np.uint8)
        wide = cv2.dilate(flow, square, anchor=(0, 0)) - cv2.erode(flow, square, anchor=(0, 0))
        torn = (wide[..., :2].max(axis=-1) > LEAP * max(self.cell)) | (
            cv2.erode(reached.view(np.uint8), square, anchor=(0, 0)) == 0
        )
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
        near = np.abs(corner[:, :, None, :2] - corner[:, None, :, :2]).max(axis=-1) <= LEAP * max(self.cell)
        together = near * weight[:, None, :]
        best = (together.sum(axis=2) + 1e-3 * weight).argmax(axis=1)
        chosen = together[np.arange(len(best)), best]
        chosen /= np.maximum(chosen.sum(axis=1, keepdims=True), 1e-6)
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


def _from_nearest(image, known):
    """The picture with the colour of the nearest known pixel where it is not known."""
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((nearest.max() + 1, *image.shape[2:]), image.dtype)
    table[nearest[known]] = image[known]
    return table[nearest]


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
