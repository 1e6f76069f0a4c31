"""What lies behind the subject and beyond the first frame, where the camera comes to see it later: not its
colours, which the picture alone can tell, but which places are of one material."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bpy
import numpy as np

from ..view.projection import Projector
from ..view.rays import Hit, cast_rays, rays_through

CELL = 8
"""Side of a cell in pixels of the clip."""
WIDEST = 1.0
"""So many widths and heights of the picture beyond each of its edges are looked at, no farther."""
AROUND = 6
"""Cells around the subject that are looked at where the camera stands still."""
MANY = 254
"""Materials that are told apart."""
BATCH = 2048
"""Rays cast before somebody else may go on."""


def find_extent(homographies: np.ndarray | None, width: int, height: int, labels: np.ndarray):
    """(left, top, right, bottom) in whole cells: what a camera sees in the first frame's pixels that moves by
    `homographies` [F, 3, 3], or, where it stands still, what is around the subject in `labels` [H, W]; None
    when nothing is uncovered."""
    if homographies is None:
        rows, columns = np.flatnonzero(labels.any(axis=1)), np.flatnonzero(labels.any(axis=0))
        if not len(rows):
            return None
        low = np.array([columns[0], rows[0]]) // CELL - AROUND
        high = np.array([columns[-1], rows[-1]]) // CELL + 1 + AROUND
        low, high = np.maximum(low, 0), np.minimum(high, (-(-width // CELL), -(-height // CELL)))
    else:
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
        seen = np.einsum("frc,kc->fkr", np.linalg.pinv(homographies.astype(np.float64)), corners)
        seen = seen[(seen[..., 2] > 1e-6).all(axis=1)].reshape(-1, 3)
        seen = np.concatenate([seen[:, :2] / seen[:, 2:], corners[:, :2]])
        room = np.array([width, height]) * WIDEST
        low = np.floor(np.maximum(seen.min(axis=0), -room) / CELL)
        high = np.ceil(np.minimum(seen.max(axis=0), room + (width, height)) / CELL)
    return (*low.astype(int).tolist(), *high.astype(int).tolist())


def label_backdrop(
    evaluated: Callable[[], bpy.types.Depsgraph],
    scene: bpy.types.Scene,
    projector: Projector,
    is_subject: Callable[[bpy.types.Object], bool],
    extent: tuple[int, int, int, int],
) -> Iterator[None]:
    """[rows, columns] uint8 of an extent in cells, pausing on the way: the same number where the scene
    without its subjects shows the same material, the sky being one too. Rays are cast through every other
    cell, and through those between where these differ. `evaluated` gives the scene at the first frame."""
    left, top, right, bottom = extent
    found = np.zeros((bottom - top, right - left), np.uint8)
    numbers: dict[object, int] = {}
    known = np.zeros(found.shape, bool)
    known[::2, ::2] = known[-1, ::2] = known[::2, -1] = known[-1, -1] = True
    wanted = known
    for _ in range(2):
        row, column = np.nonzero(wanted)
        pixels = (np.column_stack([column + left, row + top]) + 0.5) * CELL
        starts, rays = rays_through(projector, pixels)
        for begin in range(0, len(row), BATCH):
            depsgraph, batch = evaluated(), slice(begin, begin + BATCH)
            for k, hit in enumerate(
                cast_rays(scene, depsgraph, starts[batch], rays[batch], is_subject), begin
            ):
                seen = _material(hit, depsgraph)
                found[row[k], column[k]] = numbers.setdefault(seen, min(len(numbers), MANY) + 1)
            yield
        wanted = _between(found, known)
        found = _fill(found)
    return found


def _between(found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The unknown cells among whose known neighbours, two cells around, there are different ones."""
    most, least = np.where(known, found, 0), np.where(known, found, 255)
    for axis in (0, 1):
        most = np.maximum(np.maximum(most, _moved(most, 1, axis, 0)), _moved(most, -1, axis, 0))
        least = np.minimum(np.minimum(least, _moved(least, 1, axis, 255)), _moved(least, -1, axis, 255))
    return ~known & (most != least)


def _fill(found: np.ndarray) -> np.ndarray:
    """Cells without a number take after one beside them."""
    for axis in (0, 1):
        beside = np.maximum(_moved(found, 1, axis, 0), _moved(found, -1, axis, 0))
        found = np.where(found == 0, beside, found)
    return found


def _moved(cells: np.ndarray, way: int, axis: int, edge: int) -> np.ndarray:
    out = np.full_like(cells, edge)
    here = [slice(None)] * 2
    there = [slice(None)] * 2
    here[axis], there[axis] = (
        (slice(1, None), slice(None, -1)) if way > 0 else (slice(None, -1), slice(1, None))
    )
    out[tuple(here)] = cells[tuple(there)]
    return out


def _material(hit: Hit | None, depsgraph: bpy.types.Depsgraph) -> bpy.types.ID | None:
    """The material of what a ray meets, the object where that has none, None for the sky."""
    if hit is None:
        return None
    slots, slot = hit.obj.material_slots, 0
    if len(slots) > 1 and hit.obj.type == "MESH":
        faces = hit.obj.evaluated_get(depsgraph).data.polygons
        slot = faces[hit.face].material_index if hit.face < len(faces) else 0
    material = slots[slot].material if slot < len(slots) else None
    return (material or hit.obj).original
