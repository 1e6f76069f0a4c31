"""The subject cut into parts: one layer for each bone, with what it hides made up and its neighbours' pull at
the joints.

Where two parts are one flesh they overlap by a few pixels of the same picture and follow the same blend of
both bones, so they move as one and no seam can open. Where they only touch in the picture (a leg before
another) each keeps to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .inpainting import spread
from .motion import Motion
from .regions import boxes_of, find_borders, find_contacts
from .tracks import Tracks

GRID = 4
"""Weights and maps are computed on every fourth pixel."""

MAX_INFLUENCES = 4
SLACK = 2.0
OVERLAP = 6
"""Pixels that a part goes on beneath those it is one with."""


@dataclass(frozen=True, eq=False)
class Part:
    """A layer. `levels` are premultiplied RGBA uint8 pictures, each half the size of the one before; the
    first has its upper left pixel at `corner` (x, y). `rods` [K] are the motions it follows, its own first,
    by `weights` [h, w, K] float32 on a grid of every fourth pixel; `active` [h, w] uint8 is 2 for its points
    where the picture shows something, 1 beside them, else 0."""

    levels: list[np.ndarray]
    corner: tuple[int, int]
    rods: np.ndarray
    weights: np.ndarray
    active: np.ndarray

    def nodes(self) -> np.ndarray:
        """[h, w] complex, where in the first frame the weights' grid points lie."""
        rows, columns = self.weights.shape[:2]
        x = self.corner[0] + (GRID - 1) / 2 + GRID * np.arange(columns)
        return x + 1j * (self.corner[1] + (GRID - 1) / 2 + GRID * np.arange(rows))[:, None]


def cut_parts(
    image: np.ndarray,
    owners: np.ndarray,
    tracks: Tracks,
    motion: Motion,
    radius: np.ndarray,
    kin: np.ndarray,
    joined: np.ndarray,
) -> list[Part]:
    """The parts of the bones that own pixels; `owners` [H, W] is bone + 1 for each pixel, the rods are the
    bones."""
    cutter = _Cutter(image, owners, tracks, motion, radius, kin, joined)
    return [cutter.cut(bone) for bone in cutter.boxes]


def lend_parts(
    parts: list[Part], owners: np.ndarray, tracks: Tracks, motion: Motion, mirrors: dict[int, int]
):
    """Let limbs that the first frame does not show borrow their mirror image's picture: (parts, lent,
    borrowers), where `Motion.carry(*lent)` has more rods for them and `borrowers` are the bones that borrow.
    `mirrors` maps limbs."""
    first = {limb: np.flatnonzero(tracks.limbs == limb) for limb in np.unique(tracks.limbs).tolist()}
    across = np.arange(tracks.num_bones)
    for limb, other in mirrors.items():
        if limb in first and other in first and len(first[limb]) == len(first[other]):
            across[first[limb]] = first[other]
    shown = np.bincount(owners.ravel(), minlength=tracks.num_bones + 1)[1:]
    source, target, borrowed = list(range(tracks.num_bones)), list(range(tracks.num_bones)), {}
    for part in parts:
        lender = int(part.rods[0])
        borrower = int(across[lender])
        alike = 0.5 < motion.rest_length[borrower] / motion.rest_length[lender] < 2
        if borrower != lender and shown[borrower] < 0.1 * shown[lender] and alike:
            borrowed[borrower] = replace(part, rods=len(source) + np.arange(len(part.rods)))
            source.extend(part.rods)
            target.extend(across[part.rods])
    return parts + list(borrowed.values()), (np.array(source), np.array(target)), list(borrowed)


class _Cutter:
    def __init__(self, image, owners, tracks, motion, radius, kin, joined):
        self.image, self.owners, self.tracks, self.motion = image, owners, tracks, motion
        self.radius, self.kin, self.joined = radius, kin, joined
        self.depth = tracks.rest_depth()
        self.boxes = boxes_of(owners)
        self.contact = find_contacts(owners, tracks.num_bones)
        self.borders = find_borders(owners)
        self.girth = np.zeros(tracks.num_bones)
        for bone, area in self.boxes.items():
            own = np.pad((owners[area] == bone + 1).view(np.uint8), 1)
            self.girth[bone] = cv2.distanceTransform(own, cv2.DIST_L2, 3).max()
        self.frames = np.unique(np.linspace(0, len(tracks.points) - 1, 16).astype(int))

    def cut(self, bone):
        area = rows, columns = self._area(bone)
        corner = columns.start, rows.start
        owners, image = self.owners[area], self.image[area]
        own = owners == bone + 1
        rods, weights, glue = self._influences(bone, owners, corner)

        overlap = np.zeros(own.shape, bool)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * OVERLAP + 1,) * 2)
        reach = cv2.dilate(own.view(np.uint8), kernel) > 0
        for other, hold in glue.items():
            full = cv2.resize(hold, None, fx=GRID, fy=GRID, interpolation=cv2.INTER_LINEAR)
            overlap |= reach & (owners == other + 1) & (full[: own.shape[0], : own.shape[1]] > 0.5)
        solid = own | self._behind(bone, own, owners, overlap, corner)

        pad = ((1, 1), (1, 1))
        alpha = np.pad(solid | overlap, pad, mode="edge").astype(np.float32)
        alpha = cv2.GaussianBlur(alpha, (3, 3), 0.6)[1:-1, 1:-1]
        away = cv2.distanceTransform((~solid).view(np.uint8), cv2.DIST_L2, 3)
        alpha *= np.where(overlap, np.clip(1 - (away - 1) / OVERLAP, 0, 1), 1)

        # The outermost pixels have taken some of the background's colour.
        picture = own | overlap
        pure = (
            cv2.erode(np.pad(picture, pad, mode="edge").view(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
            > 0
        )
        pure = pure if pure.sum() > 0.3 * own.sum() else picture
        colour = np.where(pure[..., None], image, spread(image, pure))
        layer = np.concatenate([colour * alpha[..., None], alpha[..., None] * 255], axis=-1)
        layer = np.rint(layer).astype(np.uint8)
        return Part(
            _pyramid(layer), corner, np.array(rods), weights, _active(layer[..., 3], weights.shape[:2])
        )

    def _area(self, bone):
        """The box of a part, with room for its soft edge and for what is hidden along its bone."""
        rows, columns = self.boxes[bone]
        height, width = self.owners.shape
        ends = self.tracks.points[self.tracks.rest][[self.tracks.heads[bone], self.tracks.tails[bone]]]
        (left, top), (right, low) = np.clip([ends.min(0), ends.max(0)], 0, (width - 1, height - 1)).astype(
            int
        )
        room = 3 * OVERLAP
        return (
            slice(max(min(rows.start, top) - room, 0), min(max(rows.stop, low + 1) + room, height)),
            slice(max(min(columns.start, left) - room, 0), min(max(columns.stop, right + 1) + room, width)),
        )

    def _influences(self, bone, owners, corner):
        """The bones a part follows, their weights on its grid, and for each but its own where it holds on to
        it."""
        height, width = -(-owners.shape[0] // GRID) + 1, -(-owners.shape[1] // GRID) + 1
        x, y = (
            start + (GRID - 1) / 2 + GRID * np.arange(count) for start, count in zip(corner, (width, height))
        )
        grid = x + 1j * y[:, None]
        preferred = np.where(self.tracks.neighbours[bone], 3, 1) * self.contact[bone] * self.kin[bone]
        odds, glue = [np.ones(grid.shape, np.float32)], {}
        for other in np.argsort(-preferred, kind="stable")[: 2 * MAX_INFLUENCES].tolist():
            if preferred[other] > 0 and len(glue) < MAX_INFLUENCES - 1:
                hold = self._hold(bone, other, grid)
                if hold.any():
                    odds.append(self._odds(bone, other, owners, grid) * hold)
                    glue[other] = hold
        weights = np.stack(odds, axis=-1)
        weights /= weights.sum(-1, keepdims=True)
        return [bone, *glue], weights.astype(np.float32), glue

    def _odds(self, bone, other, owners, grid):
        """How much more of the surroundings belongs to the other of two bones: by their regions, smoothed the
        more the farther the bones pull apart at the border, and by their distances."""
        pull = np.percentile(self._apart(bone, other, self.borders[min(bone, other), max(bone, other)]), 90)
        least = max(
            0.5 * np.sqrt(self.radius[bone] * self.radius[other]),
            0.9 * min(self.girth[bone], self.girth[other]),
        )
        sigma = max(np.clip(0.2 * pull, least, max(least, 40)) / GRID, 0.6)

        def softened(value):
            region = np.zeros((grid.shape[0] * GRID, grid.shape[1] * GRID), np.float32)
            region[: owners.shape[0], : owners.shape[1]] = owners == value + 1
            coarse = cv2.resize(region, grid.shape[::-1], interpolation=cv2.INTER_AREA)
            return (
                cv2.GaussianBlur(coarse, (0, 0), sigma)
                + 1e-3 * cv2.GaussianBlur(coarse, (0, 0), 4 * sigma)
                + 1e-7
            )

        closer = np.clip((self._distance(bone, grid) / self._distance(other, grid)) ** 2, 1 / 8, 8)
        return np.minimum(softened(other) * closer / softened(bone), 1e3)

    def _distance(self, bone, grid):
        head, tail = self.tracks.points[self.tracks.rest][[self.tracks.heads[bone], self.tracks.tails[bone]]]
        head, axis = complex(*head), complex(*(tail - head))
        t = np.clip(((grid - head) * axis.conjugate()).real / max(abs(axis) ** 2, 1e-9), 0, 1)
        return np.abs(grid - head - t * axis) + 0.5 * self.radius[bone]

    def _hold(self, bone, other, grid):
        """1 where two parts are one flesh, 0 where they slide past each other: skin stretches only so far."""
        if self.joined[bone, other]:
            return np.ones(grid.shape, np.float32)
        slack = SLACK * np.sqrt(self.radius[bone] * self.radius[other])
        t = np.clip(2 - self._apart(bone, other, grid.ravel()).reshape(grid.shape) / slack, 0, 1)
        return (t * t * (3 - 2 * t)).astype(np.float32)

    def _apart(self, bone, other, at):
        """How far two bones' motions tear the positions `at` apart at most, in pixels of the rest frame."""
        frames = self.frames[:, None]
        apart = self.motion.forward(frames, bone, at) - self.motion.forward(frames, other, at)
        return (
            np.abs(apart) / np.sqrt(self.motion.scale[frames, bone] * self.motion.scale[frames, other])
        ).max(0)

    def _behind(self, bone, own, owners, overlap, corner):
        """What of a part is likely hidden by parts before it: the gaps that they cut into it, and the sleeve
        of its bone. Of those that it is one with, only thinner ones (a thigh on a hip) hide anything that
        their turning can reveal."""
        before, thinner = self.depth < self.depth[bone], self.radius < 0.8 * self.radius[bone]
        apart = ~self.joined[bone]
        gaps = np.append(False, before & (apart | thinner))[owners] & ~overlap
        sleeve = np.append(False, before & apart)[owners] & ~overlap
        if not gaps.any():
            return gaps
        size = (-(-own.shape[1] // GRID), -(-own.shape[0] // GRID))
        body = np.append(False, self.joined[bone] & ~thinner)
        body[bone + 1] = True
        coarse = cv2.resize(body[owners].view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        coarse = (coarse > 127).view(np.uint8)
        wide = int(np.clip(self.radius[bone] / GRID, 1, 12))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * wide + 1,) * 2)
        padded = cv2.copyMakeBorder(coarse, wide, wide, wide, wide, cv2.BORDER_CONSTANT)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[wide:-wide, wide:-wide]
        near = cv2.resize(own.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
        closed = closed & cv2.dilate(near.view(np.uint8), kernel)
        line = np.zeros_like(coarse)
        ends = (
            self.tracks.points[self.tracks.rest][[self.tracks.heads[bone], self.tracks.tails[bone]]] - corner
        )
        if np.abs(ends).max() < 1e4:
            a, b = np.rint(ends / GRID).astype(int).tolist()
            cv2.line(line, a, b, 1, max(1, round(1.6 * self.radius[bone] / GRID)))

        def full(cells):
            return cv2.resize(cells.astype(np.float32), own.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5

        return ((full(closed) & gaps) | (full(line) & sleeve)) & ~own


def _pyramid(layer):
    levels = [layer]
    while min(levels[-1].shape[:2]) >= 16 and len(levels) < 4:
        h, w = levels[-1].shape[:2]
        even = cv2.copyMakeBorder(levels[-1], 0, h % 2, 0, w % 2, cv2.BORDER_CONSTANT)
        levels.append(
            cv2.resize(even, (even.shape[1] // 2, even.shape[0] // 2), interpolation=cv2.INTER_AREA)
        )
    return levels


def _active(alpha, shape):
    rows, columns = shape
    room = ((0, rows * GRID - alpha.shape[0]), (0, columns * GRID - alpha.shape[1]))
    shows = np.pad(alpha > 0, room).reshape(rows, GRID, columns, GRID).any((1, 3)).view(np.uint8)
    return shows + cv2.dilate(shows, np.ones((3, 3), np.uint8))
