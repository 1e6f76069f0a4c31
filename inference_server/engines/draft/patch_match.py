"""Agreeing on what to copy into a hole: for every pixel of it, the patch of the surroundings that fits
best."""

from __future__ import annotations

import cv2
import numpy as np

REACH = 2
"""Patches are squares of 2 * REACH + 1 pixels."""

ROUNDS = 4
LEVEL = 50.0
"""What it costs to copy from far above or below, in grey levels per picture height: pictures change with
height."""

POOR = 20.0
"""A patch that differs from what it stands for by so many grey levels on average is not worth copying."""

ALIEN = 40.0
"""What it costs to copy another material, in grey levels."""

_HOPS = [(y, x) for hop in (1, 3) for y, x in ((0, hop), (0, -hop), (hop, 0), (-hop, 0))]


class PatchSearch:
    """Patches for the hole of a small picture `colour` [h, w, 3] float32, whose hole holds a first guess.

    Near matches spread from pixel to pixel (PatchMatch, Barnes et al., 2009); the patches found then vote for
    the colours that the next round compares with (Wexler et al., 2007). `start` [h, w, 2] are shifts to begin
    with; `labels` [h, w] twice are the materials of what is looked for and of what may be copied, where they
    are known: likenesses are looked for within one."""

    def __init__(
        self,
        colour: np.ndarray,
        hole: np.ndarray,
        start: np.ndarray | None,
        rng: np.random.Generator,
        labels: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self.height, self.width = hole.shape
        self.rng = rng
        padded = np.pad(hole, REACH, constant_values=True).astype(np.uint8)
        self.whole = (cv2.dilate(padded, np.ones((2 * REACH + 1,) * 2, np.uint8)) == 0)[
            REACH:-REACH, REACH:-REACH
        ]
        self.y, self.x = np.nonzero(hole)
        self.number = np.full(hole.shape, -1)
        self.number[self.y, self.x] = np.arange(len(self.y))
        room = ((REACH, REACH), (REACH, REACH), (0, 0))
        self.picture = np.pad(colour, room, mode="edge").reshape(-1, 3).astype(np.float32)
        self.steps = [(dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)]
        self.patch = np.array([dy * (self.width + 2 * REACH) + dx for dy, dx in self.steps])
        self.start = start
        self.labels = labels

    def run(self) -> tuple[np.ndarray, np.ndarray] | None:
        """([h, w, 2] int, [h, w] bool): by how many rows and columns off each pixel of the hole finds its
        likeness, and whether it is one; None where the picture has nothing to copy."""
        if not self.whole.any():
            return None
        self.sy, self.sx = self._first_sources()
        for turn in range(ROUNDS):
            self.wanted = self._patches(self.y, self.x)
            self.best = self._cost(np.arange(len(self.y)), self.sy, self.sx)
            for _ in range(4 if turn == 0 and self.start is None else 1):
                self._spread_matches()
                self._try_at_random()
            self._vote()
        shifts = np.zeros((self.height, self.width, 2), np.int64)
        shifts[self.y, self.x] = np.stack([self.sy - self.y, self.sx - self.x], axis=-1)
        sure = np.zeros((self.height, self.width), bool)
        sure[self.y, self.x] = self.best < 3 * len(self.patch) * POOR**2
        return shifts, sure

    def _first_sources(self):
        """The sources of the given shifts; without, any in the same row, or else any at all."""
        sources = np.flatnonzero(self.whole)
        begin = np.searchsorted(sources, self.y * self.width)
        end = np.searchsorted(sources, (self.y + 1) * self.width)
        own_row = end > begin
        any_ = self.rng.integers(np.where(own_row, begin, 0), np.where(own_row, end, len(sources)))
        sy, sx = np.divmod(sources[any_], self.width)
        if self.start is not None:
            shift = self.start[self.y, self.x]
            y = np.clip(self.y + shift[:, 0], 0, self.height - 1)
            x = np.clip(self.x + shift[:, 1], 0, self.width - 1)
            fine = self.whole[y, x]
            sy, sx = np.where(fine, y, sy), np.where(fine, x, sx)
        return sy, sx

    def _patches(self, y, x):
        centre = (y + REACH) * (self.width + 2 * REACH) + x + REACH
        return self.picture[centre[:, None] + self.patch]

    def _cost(self, which, sy, sx):
        drift = len(self.patch) * 3 * np.square(LEVEL / self.height * (sy - self.y[which]))
        if self.labels is not None:
            wanted, there = self.labels
            alien = there[sy, sx] != wanted[self.y[which], self.x[which]]
            drift = drift + len(self.patch) * 3 * ALIEN**2 * alien
        return np.square(self.wanted[which] - self._patches(sy, sx)).sum((1, 2)) + drift

    def _offer(self, sy, sx):
        sy, sx = np.clip(sy, 0, self.height - 1), np.clip(sx, 0, self.width - 1)
        ask = np.flatnonzero(self.whole[sy, sx] & ((sy != self.sy) | (sx != self.sx)))
        cost = self._cost(ask, sy[ask], sx[ask])
        wins = cost < self.best[ask]
        ask = ask[wins]
        self.sy[ask], self.sx[ask], self.best[ask] = sy[ask], sx[ask], cost[wins]

    def _spread_matches(self):
        for dy, dx in _HOPS:
            y, x = np.clip(self.y + dy, 0, self.height - 1), np.clip(self.x + dx, 0, self.width - 1)
            near = self.number[y, x]
            near = np.where(near >= 0, near, np.arange(len(near)))
            self._offer(self.sy[near] - self.y[near] + self.y, self.sx[near] - self.x[near] + self.x)

    def _try_at_random(self):
        radius = max(self.height, self.width) // 2
        while radius >= 2:
            dy, dx = self.rng.integers(-radius, radius + 1, (2, len(self.y)))
            self._offer(self.sy + dy, self.sx + dx)
            radius //= 4

    def _vote(self):
        weight = np.exp(-self.best / (2 * np.median(self.best) + 1e-3)).astype(np.float32)
        stride = self.width + 2 * REACH
        own = (self.y + REACH) * stride + self.x + REACH
        share = np.full(len(own), 0.01, np.float32)
        total = self.picture[own] * share[:, None]
        number = np.pad(self.number, REACH, constant_values=-1)
        for dy, dx in self.steps:
            near = number[self.y - dy + REACH, self.x - dx + REACH]
            mine = np.flatnonzero(near >= 0)
            near = near[mine]
            voted = self.picture[(self.sy[near] + dy + REACH) * stride + self.sx[near] + dx + REACH]
            total[mine] += weight[near, None] * voted
            share[mine] += weight[near]
        self.picture[own] = total / share[:, None]
