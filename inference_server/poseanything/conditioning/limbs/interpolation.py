"""Poses for the frames between those that have one (sparse poses, paper section F)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from scipy.interpolate import PchipInterpolator

from shared.pose import Polyline, PoseSequence

from .graph import resample


def interpolate_poses(pose: PoseSequence, frames: Sequence[int]) -> PoseSequence:
    """The poses of `frames` alone, and between them their limbs on the way from each pose to the next.

    The points of a limb follow a monotone cubic (PCHIP) through the poses, which stays within what they span;
    between two poses alone it is a straight line. A limb that is absent or in several pieces in a pose ends
    before it and begins anew after it. Nothing is drawn before the first pose and after the last.

    Args:
        frames: ascending.
    """
    given = {frame: pose.frame(frame) for frame in frames}
    whole = [_in_one_piece(lines) for lines in given.values()]
    between: dict[int, list[Polyline]] = {frame: [] for frame in range(pose.num_frames) if frame not in given}
    for limb in range(len(pose.limbs)):
        for stretch in _stretches([limb in limbs for limbs in whole]):
            times = [frames[place] for place in stretch]
            way = PchipInterpolator(times, _alike([whole[place][limb] for place in stretch]))
            for frame in set(range(times[0], times[-1])) & between.keys():
                between[frame].append(Polyline(limb, way(frame)))
    drawn = given | between
    return PoseSequence.from_frames(
        pose.width, pose.height, pose.parts, pose.limbs, [drawn[frame] for frame in range(pose.num_frames)]
    )


def _in_one_piece(lines: Sequence[Polyline]) -> dict[int, np.ndarray]:
    """The points of each limb that has a single polyline."""
    limbs = [line.limb for line in lines]
    return {line.limb: line.points for line in lines if limbs.count(line.limb) == 1}


def _stretches(present: Sequence[bool]) -> Iterator[list[int]]:
    """The places, two or more, of neighbours that are all present."""
    for there, places in groupby(range(len(present)), present.__getitem__):
        stretch = list(places)
        if there and len(stretch) > 1:
            yield stretch


def _alike(lines: Sequence[np.ndarray]) -> np.ndarray:
    """[N, K, 3]: the polylines of a limb with as many points each."""
    count = max(map(len, lines))
    return np.stack([line if len(line) == count else resample(line, count) for line in lines])
