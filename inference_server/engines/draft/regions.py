"""Whose flesh is whose: how thick bones are clothed, which of them share their clothing, and where its
borders run.

Two parts that touch in a picture may be one surface (thigh and hip) or one before the other (arm and belly).
The skeleton, the depths and, where the request has them, the part maps of the later frames tell which.
"""

from __future__ import annotations

import cv2
import numpy as np

from .motion import Motion
from .tracks import Tracks

COARSE = 4
"""Regions are smoothed at a quarter of the picture's size."""


def find_thickness(owners: np.ndarray, tracks: Tracks) -> np.ndarray:
    """[S] half the thickness of every bone's flesh in pixels; bones that show none take their neighbours'."""
    depth = cv2.distanceTransform((owners > 0).astype(np.uint8), cv2.DIST_L2, 3)
    radius = np.full(tracks.num_bones, np.nan)
    for bone, area in boxes_of(owners).items():
        own = owners[area] == bone + 1
        girth = cv2.distanceTransform(np.pad(own.view(np.uint8), 1), cv2.DIST_L2, 3).max()
        radius[bone] = min(np.percentile(depth[area][own], 90), 1.5 * girth)
    while np.isnan(radius).any():
        known = tracks.neighbours & ~np.isnan(radius)
        reached = np.flatnonzero(np.isnan(radius) & known.any(1))
        if not len(reached):
            break
        radius[reached] = [radius[known[bone]].min() for bone in reached]
    return np.maximum(np.nan_to_num(radius, nan=8.0), 1.5)


def find_kin(tracks: Tracks, motion: Motion, radius: np.ndarray) -> np.ndarray:
    """[S, S]: true for bones whose flesh may grow together: they meet, or meet the same bone at about the
    same depth."""
    depth = tracks.rest_depth()
    gap = np.abs(depth[:, None] - depth) * np.sqrt(motion.rest_size[:, None] * motion.rest_size)
    near = tracks.neighbours.astype(np.int32)
    kin = tracks.neighbours | ((near @ near > 0) & (gap < radius[:, None] + radius))
    np.fill_diagonal(kin, False)
    return kin


def smooth_borders(owners: np.ndarray, kin: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The same map with the borders between kin evened out: a coarse mesh makes them jagged, and flesh is
    not."""
    height, width = owners.shape
    best, out, fields = np.zeros(owners.shape, np.float32), owners.copy(), []
    for bone, (rows, columns) in boxes_of(owners).items():
        sigma = max(0.4 * radius[bone], 1.0)
        pad = int(2.5 * sigma) + COARSE
        area = (
            slice(max(rows.start - pad, 0), min(rows.stop + pad, height)),
            slice(max(columns.start - pad, 0), min(columns.stop + pad, width)),
        )
        own = (owners[area] == bone + 1).astype(np.float32)
        size = (-(-own.shape[1] // COARSE), -(-own.shape[0] // COARSE))
        coarse = cv2.GaussianBlur(cv2.resize(own, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / COARSE)
        field = cv2.resize(coarse, own.shape[::-1])
        fields.append((bone, area, field))
        np.copyto(best[area], field, where=own > 0)
    for bone, area, field in fields:
        wins = np.append(False, kin[bone])[owners[area]] & (field > best[area])
        best[area][wins] = field[wins]
        out[area][wins] = bone + 1
    return out


def find_joined(
    owners: np.ndarray, part_maps: np.ndarray | None, tracks: Tracks, kin: np.ndarray, radius
) -> np.ndarray:
    """[S, S]: true for kin that are one surface in the picture: they meet; or all that lies between them is a
    bone that shows next to nothing though nothing is before it; or their limbs touch in all part maps."""
    near, depth = tracks.neighbours, tracks.rest_depth()
    joined = near.copy()
    length = np.abs(tracks.vectors()[tracks.rest])
    shown = np.bincount(owners.ravel(), minlength=tracks.num_bones + 1)[1:]
    for bone in np.flatnonzero(shown < 0.35 * length * 2 * radius):
        ends = np.flatnonzero(near[bone])
        behind = ends[depth[ends] >= depth[bone]]
        joined[np.ix_(behind, ends)] = joined[np.ix_(ends, behind)] = True
    joined |= _lasting_contacts(part_maps, tracks)
    np.fill_diagonal(joined, False)
    return joined & kin


def _lasting_contacts(part_maps, tracks):
    if part_maps is None or min(part_maps.shape[1:]) < 8:
        return np.zeros((tracks.num_bones,) * 2, bool)
    limbs = max(int(tracks.limbs.max()) + 1, int(part_maps.max()))
    maps = part_maps[np.unique(np.linspace(0, len(part_maps) - 1, 24).astype(int))]
    counts = np.stack([find_contacts(labels.astype(np.int16), limbs, 1) for labels in maps])
    scale = np.sqrt(np.maximum((maps > 0).sum((1, 2)), 1))
    density = counts / scale[:, None, None]
    lasting = (counts[0] >= 3) & (density.min(0) > 0.3 * density[0])
    return lasting[np.ix_(tracks.limbs, tracks.limbs)]


def boxes_of(owners: np.ndarray) -> dict[int, tuple[slice, slice]]:
    """Bone -> the rows and columns of the box around its pixels, for the bones that have any."""
    boxes = {}
    for value in np.flatnonzero(np.bincount(owners.ravel())):
        if value:
            x, y, w, h = cv2.boundingRect((owners == value).view(np.uint8))
            boxes[int(value) - 1] = slice(y, y + h), slice(x, x + w)
    return boxes


def find_contacts(owners: np.ndarray, bones: int, step: int = 2) -> np.ndarray:
    """[S, S] how many pixels of the regions of two bones lie `step` apart."""
    counts = np.zeros((bones + 1) ** 2, np.int64)
    for a, b in ((owners[:, step:], owners[:, :-step]), (owners[step:], owners[:-step])):
        apart = (a != b) & (a > 0) & (b > 0)
        counts += np.bincount(a[apart].astype(np.int64) * (bones + 1) + b[apart], minlength=len(counts))
    counts = counts.reshape(bones + 1, bones + 1)
    return (counts + counts.T)[1:, 1:]


def find_borders(owners: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Of every two regions that touch, some positions along the border: (a, b) with a < b -> complex
    pixels."""
    borders: dict[tuple[int, int], list[np.ndarray]] = {}
    for a, b, middle in ((owners[:, 2:], owners[:, :-2], 1), (owners[2:], owners[:-2], 1j)):
        y, x = np.nonzero((a != b) & (a > 0) & (b > 0))
        first, second = a[y, x].astype(np.int64) - 1, b[y, x].astype(np.int64) - 1
        pair = np.minimum(first, second) * 2**32 + np.maximum(first, second)
        order = np.argsort(pair, kind="stable")
        keys, start = np.unique(pair[order], return_index=True)
        for key, mine in zip(keys.tolist(), np.split(order, start[1:])):
            at = (x[mine] + 1j * y[mine] + middle)[:: max(1, len(mine) // 48)]
            borders.setdefault(divmod(key, 2**32), []).append(at)
    return {key: np.concatenate(found) for key, found in borders.items()}
