"""Triangles to pixels in numpy: which triangle is nearest at each pixel's centre.

Everything is done for all triangles at once. Triangles that cover no pixel centre (most of a dense mesh at
a coarse grid) fall away after a few comparisons; the others are turned into rows, the rows into pixels,
without a wasted pixel. At pixels that several triangles cover, all still nearer than what is there are
written at once, whichever comes last staying, until none is nearer: as many rounds as surfaces lie over
each other, each with fewer pixels than the one before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BATCH = 120_000
"""Pixels that are drawn before somebody else may go on."""


class ZBuffer:
    """Pictures of one size that lie over each other as `layers`, each drawn by itself.

    `triangle` [layers * height * width] int32 holds the number of the nearest triangle at each pixel, -1
    where there is none, `nearness`, of the same shape, how near that is, minus infinity where there is
    none."""

    def __init__(self, width: int, height: int, layers: int = 1):
        self.width = width
        self.height = height
        self.triangle = np.full(layers * width * height, -1, np.int32)
        self.nearness = np.full(layers * width * height, -np.inf)

    def draw(
        self,
        corners: np.ndarray,
        numbers: np.ndarray,
        layers: np.ndarray | None = None,
        windows: np.ndarray | None = None,
    ) -> Iterator[None]:
        """Draw triangles `corners` [T, 3, 3] (x, y in pixels and nearness, larger being nearer and linear
        over the picture) under their `numbers` [T], pausing after each batch; on their `layers` [T], all on
        the first without, and within each layer's window of `windows` [L, 4] (left, top, right, bottom)."""
        if windows is None:
            left, top, right, bottom = 0, 0, self.width, self.height
        else:
            window = windows[0] if layers is None else windows[layers]
            left, top, right, bottom = np.moveaxis(window, -1, 0)
        a, b, c = corners[:, 0, :2], corners[:, 1, :2], corners[:, 2, :2]
        low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        first = np.maximum(np.ceil(low - 0.5), np.stack([left, top], axis=-1))
        last = np.minimum(np.ceil(high - 0.5), np.stack([right, bottom], axis=-1)) - 1
        covering = np.flatnonzero((first[:, 0] <= last[:, 0]) & (first[:, 1] <= last[:, 1]))
        if not len(covering):
            return
        corners, numbers = corners[covering].astype(np.float64), numbers[covering]
        columns, rows = (last[covering] - first[covering] + 1).T
        first_row, rows = first[covering, 1].astype(np.int64), rows.astype(np.int64)
        size = rows * columns
        left, right = (np.broadcast_to(edge, len(low))[covering] for edge in (left, right))
        above = 0 if layers is None else layers[covering].astype(np.int64) * self.height
        above = np.broadcast_to(above, len(covering))
        batch = (np.cumsum(size) // BATCH).astype(np.int64)
        for part in np.split(np.arange(len(covering)), np.flatnonzero(np.diff(batch)) + 1):
            edges = left[part], right[part], above[part]
            self._draw(corners[part], numbers[part], first_row[part], rows[part], *edges)
            yield

    def _draw(self, corners, numbers, first_row, rows, left, right, above) -> None:
        triangle, row = _expand(first_row, rows)
        middle = row + 0.5
        begin, end = np.full(len(row), np.inf), np.full(len(row), -np.inf)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            (xa, ya, _), (xb, yb, _) = corners[:, a].T, corners[:, b].T
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                slope = (xb - xa) / (yb - ya)
            crosses = (ya[triangle] <= middle) != (yb[triangle] <= middle)
            across = triangle[crosses]
            x = xa[across] + (middle[crosses] - ya[across]) * slope[across]
            begin[crosses] = np.minimum(begin[crosses], x)
            end[crosses] = np.maximum(end[crosses], x)
        begin = np.clip(np.ceil(begin - 0.5), left[triangle], right[triangle])
        end = np.clip(np.ceil(end - 0.5), left[triangle], right[triangle])
        wide = np.flatnonzero(end > begin)
        triangle, row = triangle[wide], row[wide]
        begin = begin[wide].astype(np.int64)

        # Nearness is a plane over the picture: its height at corner 0, and its slopes along x and y.
        x0, y0, z0 = corners[:, 0].T
        (ux, uy, uz), (vx, vy, vz) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            along_x = (uz * vy - vz * uy) / (ux * vy - vx * uy)
            along_y = (ux * vz - vx * uz) / (ux * vy - vx * uy)
        at_begin = z0[triangle] + along_x[triangle] * (begin + 0.5 - x0[triangle])
        at_begin += along_y[triangle] * (row + 0.5 - y0[triangle])
        span, column = _expand(begin, (end[wide] - begin).astype(np.int64))
        nearness = at_begin[span] + along_x[triangle[span]] * (column - begin[span])
        pixel = (row + above[triangle])[span] * self.width + column
        self._write(pixel, nearness, numbers[triangle[span]])

    def _write(self, pixel, nearness, number) -> None:
        nearer = np.flatnonzero(nearness > self.nearness[pixel])
        pixel, nearness, number = pixel[nearer], nearness[nearer], number[nearer]
        while len(pixel):
            self.nearness[pixel] = nearness
            self.triangle[pixel] = number
            # Of pixels written several times one write stayed, in both arrays the same, the last.
            nearer = np.flatnonzero(nearness > self.nearness[pixel])
            pixel, nearness, number = pixel[nearer], nearness[nearer], number[nearer]


def _expand(first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of consecutive numbers, `counts[i]` from `first[i]` on: for every number the run it is in, and
    itself."""
    run = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return run, np.arange(len(run)) - begin[run] + first[run]
