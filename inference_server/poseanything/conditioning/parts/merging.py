"""Fewer parts, for a checkpoint that was trained with fewer than the scene knows."""

from __future__ import annotations

import numpy as np

from .dilation import city_block_distance

FRAMES_LOOKED_AT = 16


def merge_parts(part_maps: np.ndarray, first_map: np.ndarray, max_parts: int) -> np.ndarray:
    """Which part each part of the first frame becomes a piece of, so that at most `max_parts` are left.

    As in the release the smallest joins the nearest, until there are few enough. How near two parts are is
    measured over the whole clip: bones of one chain touch in every frame, while a left limb and a right one
    part sooner or later, and so stay apart. Of several equally near the largest is joined, which is the
    trunk.

    Args:
        part_maps: uint8 [F, h, w], part index + 1, 0 where there is none.
        first_map: uint8 [H, W], the first frame's, in as much detail as there is.
        max_parts: 1 or more.

    Returns:
        uint8 [256], to look up map values with; parts that the first frame doesn't show stay as they are.
    """
    lookup = np.arange(256, dtype=np.uint8)
    values, sizes = np.unique(first_map[first_map > 0], return_counts=True)
    if len(values) <= max_parts:
        return lookup
    distances = mean_distances(part_maps, values)
    groups = [[index] for index in range(len(values))]
    while len(groups) > max_parts:
        areas = [sizes[group].sum() for group in groups]
        smallest = groups.pop(int(np.argmin(areas)))
        gaps = [(distances[np.ix_(smallest, group)].min(), -sizes[group].sum()) for group in groups]
        groups[min(range(len(groups)), key=gaps.__getitem__)] += smallest
    for group in groups:
        lookup[values[group]] = values[group[0]]
    return lookup


def mean_distances(part_maps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float [P, P]: pixels from each part to each other, city-block, on average over the frames that show
    both.

    Infinite for two that no frame shows together. Of long clips some frames, evenly spaced, are looked at.
    """
    frames = np.unique(np.linspace(0, len(part_maps) - 1, FRAMES_LOOKED_AT).round().astype(int))
    total, count = np.zeros((2, len(values), len(values)))
    for image in part_maps[frames]:
        masks = image == values[:, None, None]
        shown = np.flatnonzero(masks.any((1, 2)))
        for one in shown:
            distance = city_block_distance(masks[one])
            for other in shown:
                total[one, other] += distance[masks[other]].min()
                count[one, other] += 1
    return np.divide(total, count, out=np.full_like(total, np.inf), where=count > 0)
