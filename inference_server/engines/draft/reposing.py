"""A picture's subject brought into the first pose, which the picture shows it near but not in."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...poseanything.conditioning.masks import from_nearest
from .fitting import OFF, Fit
from .regions import boxes_of
from .segmentation import find_extent
from .surface import place
from .surface_motion import Cells, Key
from .tracks import Tracks

RIM = 2
"""Pixels within the subject's outline that have taken some of the background's colour."""
DEEP = 5
"""Pixels from the outline from which on the fit alone says what is the subject; nearer, its colour too."""
CELL = 4
"""Pixels of a side of the cells in which limbs bend."""


@dataclass(frozen=True, eq=False)
class Reposed:
    """`picture` [H, W, 3] shows the subject as the first pose has it (and nothing else of use); `owners`
    [H, W] are bone + 1 of each pixel of the subject as the original shows it; `subject` [H, W] bool is all
    that the original shows of it, also what no bone was found to own."""

    picture: np.ndarray
    owners: np.ndarray
    subject: np.ndarray


def repose(image: np.ndarray, owners: np.ndarray, tracks: Tracks, fit: Fit) -> Reposed:
    """A picture [H, W, 3] by how the limbs lie in it; `owners` [H, W] are bone + 1 of each pixel in the first
    pose."""
    height, width = owners.shape
    size = -(-width // CELL), -(-height // CELL)
    cell = width / size[0], height / size[1]
    small = cv2.resize(owners, size, interpolation=cv2.INTER_NEAREST)
    columns, rows = ((np.arange(count) + 0.5) * side - 0.5 for count, side in zip(size, cell))
    at = columns + 1j * rows[:, None]
    together = tracks.neighbours | np.eye(tracks.num_bones, dtype=bool)
    known = small > 0
    key = Key(
        Cells(np.zeros((*known.shape, 2), np.float32), known, None),
        at,
        np.maximum(small.astype(int) - 1, 0),
        max(cell),
        together,
    )
    way = key.even(fit.place(key.bones, key.at) - key.at, key.known)
    carried = key.carry(way, tracks.rest_depth()[key.bones], fit.turn[key.bones], at, cell)

    shown = np.zeros_like(owners)
    if (placed := place(carried, owners.shape)) is not None:
        source, inside, area = placed
        shown[area] = np.where(inside > 0.5, _look(from_nearest(owners, owners > 0), source), 0)

    extent = find_extent(image, shown > 0)
    flow, (top, left) = np.zeros((*known.shape, 2), np.float32), key.corner
    box = np.s_[top : top + way.shape[0], left : left + way.shape[1]]
    flow[box] = np.stack([way.real, way.imag], axis=-1)
    picture = image.copy()
    if (placed := place(Cells(flow, known, None), owners.shape)) is not None:
        source, _, area = placed
        found = cv2.remap(image, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mine, whose = owners[area], _look(shown, source)
        # What another limb hides there is not this one's picture, and the fit is not exact.
        true = (mine > 0) & (whose > 0) & together[np.maximum(mine, 1) - 1, np.maximum(whose, 1) - 1]
        whole = (extent | (shown > 0)).view(np.uint8)
        inner = cv2.erode(whole, np.ones((2 * RIM + 1,) * 2, np.uint8), borderValue=1)
        deep = cv2.erode(whole, np.ones((2 * DEEP + 1,) * 2, np.uint8), borderValue=1)
        inner &= (deep > 0) | (cv2.resize(fit.likely, (width, height)) > OFF)
        picture[area] = _complete_limbs(found, mine, true & (_look(inner, source) > 0))
    return Reposed(picture, shown, extent | (shown > 0))


def _complete_limbs(picture, owners, true):
    """The picture with each limb's nearest true pixel where it is not true."""
    if not true.any():
        return picture
    out = from_nearest(picture, true)
    for bone in boxes_of(np.where(true, 0, owners)):
        mine = owners == bone + 1
        if (known := mine & true).any():
            x, y, w, h = cv2.boundingRect(mine.view(np.uint8))
            box = slice(y, y + h), slice(x, x + w)
            gaps = mine[box] & ~true[box]
            out[box][gaps] = from_nearest(picture[box], known[box])[gaps]
    return out


def _look(plane, at):
    """The values of a plane [H, W] at places [h, w, 2] (x, y), the nearest pixel's."""
    x, y = (np.clip(np.rint(at[..., axis]), 0, plane.shape[1 - axis] - 1).astype(int) for axis in (0, 1))
    return plane[y, x]
