"""How much of the picture each bone moves by itself during a shot.

Every sampled surface point is carried along twice, by its own bone and by that bone's parent; where the two
come apart in the picture, the bone moves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STIR = 0.005
"""A point that goes this fraction of the picture's longer side away from where its parent's bone would have
carried it moves."""

GLANCES = 7
"""Frames that are looked at over a shot."""


@dataclass(frozen=True, eq=False)
class Motion:
    """An armature in F frames of a shot.

    `poses` [F, N, 4, 4] are its bones, in the order of `armature.bones`, bone to armature space; `pixels`
    [F, 3, 4] take armature space to homogeneous pixels of a picture of `width` x `height`.
    """

    poses: np.ndarray
    pixels: np.ndarray
    width: int
    height: int

    def moves(self, bones: np.ndarray) -> bool:
        """Whether any of some bones [N] bool moves or turns within the armature."""
        poses = self.poses[:, bones]
        size = np.abs(poses[..., :3, 3]).max(initial=1.0)
        return bool(np.abs(poses - poses[0]).max(initial=0.0) > 1e-4 * size)


def spread_frames(count: int) -> list[int]:
    """The clip frames at which the motion of a shot of `count` frames is looked at, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, GLANCES)).round().astype(int)).tolist()


def seen_and_moved(
    motion: Motion,
    rest: np.ndarray,
    parents: np.ndarray,
    owners: np.ndarray,
    points: np.ndarray,
    areas: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """[N] the fraction of the picture that each bone's own flesh takes, and [N] the fraction that it moves by
    itself, both as the mean over the frames; hidden surfaces are not told from visible ones.

    `rest` [N, 4, 4] are the bones at rest, `parents` [N] those that carry them (-1 for none); `owners`,
    `points` and `areas` are a `Skin`'s.
    """
    count = len(rest)
    if not len(owners):
        return np.zeros(count), np.zeros(count)
    homogeneous = np.column_stack([points, np.ones(len(points))])
    local = np.einsum("vij,vj->vi", _inverses(rest, owners), homogeneous)
    carriers = parents[owners]
    first = np.einsum("vij,vj->vi", motion.poses[0][owners], local)
    on_carrier = np.where(
        (carriers >= 0)[:, None],
        np.einsum("vij,vj->vi", _inverses(motion.poses[0], carriers), first),
        first,
    )
    longer = max(motion.width, motion.height)
    taken = np.zeros(len(points))
    stirred = np.zeros(len(points), bool)
    for pose, pixels in zip(motion.poses, motion.pixels, strict=False):
        own = np.einsum("vij,vj->vi", pose[owners], local)
        carried = np.where(
            (carriers >= 0)[:, None], np.einsum("vij,vj->vi", pose[carriers], on_carrier), first
        )
        at, depth = _project(pixels, own)
        expected, _ = _project(pixels, carried)
        inside = (depth > 0) & (at >= 0).all(axis=1) & (at < (motion.width, motion.height)).all(axis=1)
        # Of a closed surface half looks away, and half of the rest is foreshortened.
        taken += np.where(inside, areas * _scale(pixels, own, depth) / 4, 0.0)
        stirred |= inside & (np.linalg.norm(at - expected, axis=1) > STIR * longer)
    taken /= len(motion.poses) * motion.width * motion.height
    return np.bincount(owners, taken, count), np.bincount(owners, taken * stirred, count)


def _inverses(matrices: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """[V, 4, 4] those of the matrices [N, 4, 4] of bones [V], of which there are few; bones may be flat."""
    used, places = np.unique(bones, return_inverse=True)
    return np.linalg.pinv(matrices[used])[places]


def _project(pixels: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = points @ pixels.T
    depth = seen[:, 2]
    return seen[:, :2] / np.where(np.abs(depth) > 1e-12, depth, 1e-12)[:, None], depth


def _scale(pixels: np.ndarray, points: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """[V] pixels that a unit of area facing the camera takes at each point."""
    linear = pixels[:, :3]
    across = np.linalg.norm(
        linear[0] - linear[2] * (linear[0] @ linear[2]) / max(linear[2] @ linear[2], 1e-18)
    )
    down = np.linalg.norm(linear[1] - linear[2] * (linear[1] @ linear[2]) / max(linear[2] @ linear[2], 1e-18))
    return across * down / np.maximum(np.abs(depth), 1e-12) ** 2
