"""How every bone moves the picture: from where it lies in the first frame to where it lies in frame i.

A bone carries its surroundings as a rigid rod that only its shaft lets grow or shrink: between its ends the
picture is stretched along the bone as the bone is foreshortened, beyond them and across it only by the
distance to the camera. So joints stay exactly on joints, and a paw keeps its shape while its leg swings
toward the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tracks import Tracks

MAX_SCALE = 20.0


@dataclass(frozen=True, eq=False)
class Motion:
    """Bone b, at `origin[i, b]` (complex pixels) in frame i, points along `axis[i, b]` (unit) and is
    `length[i, b]` long, seen `scale[i, b]` times as large as in the rest frame. `mirror[i, b]` is -1 where a
    bone has swung through the line of sight, which shows its picture from behind, 1 elsewhere. `rest_*` [B]
    describe it in the first frame of the clip; there a scene unit is `rest_size` pixels. `focal` is the
    focal length in pixels that fits the bones best."""

    rest_origin: np.ndarray
    rest_axis: np.ndarray
    rest_length: np.ndarray
    rest_size: np.ndarray
    origin: np.ndarray
    axis: np.ndarray
    length: np.ndarray
    mirror: np.ndarray
    scale: np.ndarray
    focal: float

    def carry(self, source: np.ndarray, target: np.ndarray) -> Motion:
        """Motion that carries the picture of the bones `source` [B] as the bones `target` [B] move."""
        size = self.rest_size[target] / self.rest_size[source]
        return Motion(
            rest_origin=self.rest_origin[source],
            rest_axis=self.rest_axis[source],
            rest_length=self.rest_length[source],
            rest_size=self.rest_size[source],
            origin=self.origin[:, target],
            axis=self.axis[:, target],
            length=self.length[:, target],
            mirror=self.mirror[:, target],
            scale=np.clip(self.scale[:, target] * size, 1 / MAX_SCALE, MAX_SCALE),
            focal=self.focal,
        )

    def forward(self, frames, bones, at: np.ndarray) -> np.ndarray:
        """Complex positions in frame i of the rest frame's positions `at`; all arguments broadcast."""
        local = (at - self.rest_origin[bones]) * self.rest_axis[bones].conj()
        scale, length = self.scale[frames, bones], self.length[frames, bones]
        shaft = np.clip(local.real, 0, self.rest_length[bones])
        along = shaft * (length / self.rest_length[bones]) + (local.real - shaft) * scale
        out = (along * self.mirror[frames, bones] + 1j * local.imag * scale) * self.axis[frames, bones]
        return out + self.origin[frames, bones]

    def coefficients(self) -> np.ndarray:
        """[F, B, 4, 2] float32: what `basis` is multiplied with to give x and y in frame i."""
        across = self.scale * self.axis
        along = [self.mirror * (self.length / self.rest_length) * self.axis, self.mirror * across]
        all_ = np.stack([*along, 1j * across, self.origin], axis=-1)
        return np.stack([all_.real, all_.imag], axis=-1).astype(np.float32)

    def basis(self, bones: np.ndarray, at: np.ndarray) -> np.ndarray:
        """[n, K, 4]: positions `at` [n] in the rest frame as K bones see them: along the shaft, beyond it,
        across, 1."""
        local = (at[:, None] - self.rest_origin[bones]) * self.rest_axis[bones].conj()
        shaft = np.clip(local.real, 0, self.rest_length[bones])
        return np.stack([shaft, local.real - shaft, local.imag, np.ones(local.shape)], axis=-1)


def find_motion(tracks: Tracks, radius: np.ndarray, width: int, focal: float | None = None) -> Motion:
    """The motion of every bone. `radius` [S] is half the thickness of its flesh in pixels: a bone shorter
    than that, seen end on, says little about its turn and takes its neighbours'. `width` is the picture's, in
    pixels; `focal` is known where the tracks are those of another moment of the same shot."""
    vectors = tracks.vectors()
    rest = vectors[tracks.rest]
    rest_axis = np.where(np.abs(rest) > 1e-6, rest, 1)
    rest_axis = rest_axis / np.abs(rest_axis)
    turn, mirror = _find_turn(tracks, vectors, rest_axis, radius)
    focal = _find_focal(tracks, vectors, width) if focal is None else focal
    size = _find_size(tracks, vectors, focal)
    heads = tracks.points[:, tracks.heads, 0] + 1j * tracks.points[:, tracks.heads, 1]
    return Motion(
        rest_origin=heads[tracks.rest],
        rest_axis=rest_axis,
        rest_length=np.maximum(np.abs(rest), 0.5),
        rest_size=size[tracks.rest],
        origin=heads,
        axis=turn * rest_axis,
        length=np.maximum(np.abs(vectors), 0.5),
        mirror=mirror,
        scale=np.clip(size / size[tracks.rest], 1 / MAX_SCALE, MAX_SCALE),
        focal=focal,
    )


def _find_turn(tracks, vectors, rest_axis, radius):
    """[F, S] unit complex turn of each bone since the rest frame, and +-1 where it shows its back."""
    length = np.abs(vectors)
    axis = np.where(length > 1e-6, vectors, rest_axis)
    turn = axis / np.abs(axis) * rest_axis.conj()
    # A bone that reverses while it is short has passed through the line of sight; it has not spun round in
    # the picture.
    reversed_ = (turn[1:] * turn[:-1].conj()).real < -0.2
    short = np.minimum(length[1:], length[:-1]) < 0.5 * length.max(0)
    mirror = np.cumprod(
        np.concatenate([np.ones((1, length.shape[1])), np.where(reversed_ & short, -1, 1)]), axis=0
    )
    mirror = mirror * mirror[tracks.rest]
    turn = turn * mirror

    sure = np.clip(np.minimum(length, length[tracks.rest]) / (0.25 * radius), 0, 1)
    sure = sure * sure * (3 - 2 * sure)
    weight = sure * length * length[tracks.rest]
    same_subject = tracks.subjects[:, None] == tracks.subjects
    near = tracks.neighbours + 1e-3 * same_subject + 1e-9
    for _ in range(2):
        around = (weight * turn) @ near
        around = around / np.maximum(np.abs(around), 1e-12)
        mixed = sure * turn + (1 - sure) * around
        turn = np.where(np.abs(mixed) > 1e-6, mixed, turn)
        turn = turn / np.abs(turn)
    return turn, mirror


def _find_focal(tracks, vectors, width):
    """The focal length in pixels that keeps the lengths of the bones in space most constant: nobody says what
    it is, whether it changes, or whether the camera is orthographic, but those hold through the clip."""
    seen, rise = _see(tracks, vectors)
    weight = np.abs(vectors).mean(0)
    usual = 1.4 * width
    candidates = usual * np.geomspace(0.25, 64, 41)
    sample = np.unique(np.linspace(0, len(seen) - 1, 33).astype(int))
    spread = []
    for focal in candidates:
        space = np.sqrt(seen[sample] / focal**2 + rise[sample])
        spread.append(np.average(space.std(0) / np.maximum(space.mean(0), 1e-9), weights=weight + 1e-9))
    spread = np.array(spread) + 2e-4 * np.abs(np.log(candidates / usual))
    return float(candidates[int(np.argmin(spread))])


def _find_size(tracks, vectors, focal):
    """[F, S] pixels to a scene unit at each bone: f / depth, where each frame's own f is the one that gives
    its bones their rest lengths."""
    seen, rise = _see(tracks, vectors)
    weight = np.abs(vectors).mean(0)
    rest = seen[tracks.rest] / focal**2 + rise[tracks.rest]
    flat = rest - rise
    open_ = flat > 0.4 * rest
    ratio = np.where(open_, np.sqrt(seen / np.maximum(flat, 1e-12)) / focal, 1.0)
    zoom = _weighted_median(ratio, np.where(open_, weight, 0) + 1e-9)
    return focal * zoom[:, None] / ((tracks.depth[:, tracks.heads] + tracks.depth[:, tracks.tails]) / 2)


def _see(tracks, vectors):
    """[F, S] twice: the square of each bone's length in the picture times its depth, and of its rise in
    depth."""
    heads, tails = tracks.depth[:, tracks.heads], tracks.depth[:, tracks.tails]
    return (np.abs(vectors) * (heads + tails) / 2) ** 2, (heads - tails) ** 2


def _weighted_median(values, weights):
    order = np.argsort(values, axis=1, kind="stable")
    share = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    middle = np.argmax(share >= share[:, -1:] / 2, axis=1)
    return np.take_along_axis(values, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[:, 0]
