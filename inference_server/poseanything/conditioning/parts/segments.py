"""Segments of a skeleton drawing: the lines between its junctions, short ones joined to their neighbours
(section 4.2)."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

MAX_SEGMENTS = 5
MIN_SEGMENT_PIXELS = 20
WHITE = 245
"""A cut-out's pixel up to this grey level belongs to the subject."""
NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


def is_line(pose_image: np.ndarray) -> np.ndarray:
    """bool [H, W]: where a grey pose image (uint8 [H, W], white lines on black) has a line."""
    return pose_image > 127


def squash(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A pose image or cut-out at another size, each axis scaled on its own. Linearly, as in the release: by
    area a thin line of a larger picture would pale to no line at all."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def subject_from_cutout(cutout: np.ndarray, width: int, height: int) -> np.ndarray:
    """bool [height, width]: the subject in a cut-out on white (RGB uint8 [H, W, 3]), squashed to the clip's
    size."""
    return cv2.cvtColor(squash(cutout, width, height), cv2.COLOR_RGB2GRAY) <= WHITE


def split_segments(
    pose_image: np.ndarray, max_segments: int = MAX_SEGMENTS, min_pixels: float = MIN_SEGMENT_PIXELS
) -> np.ndarray:
    """Split a pose image into segments, one pixel wide.

    The drawing is thinned to its skeleton and loses its junctions and end points; what then hangs together
    over edges and corners is a piece, unless it is a single pixel. While there are more than `max_segments`
    pieces or the shortest has under `min_pixels`, the shortest joins the nearest (the release's rules, with 5
    and 20; a lone short piece stays).

    Args:
        pose_image: uint8 [H, W], white lines on black, at the clip's size.

    Returns:
        bool [S, H, W], 0 <= S <= `max_segments`, disjoint, in the order in which the top row first scan meets
        the pieces.
    """
    pieces = merge_pieces(split_pieces(skeletonize(is_line(pose_image))), max_segments, min_pixels)
    segments = np.zeros((len(pieces), *pose_image.shape), bool)
    for segment, piece in zip(segments, pieces):
        segment[tuple(piece.T)] = True
    return segments


def split_pieces(skeleton: np.ndarray) -> list[np.ndarray]:
    """Points (row, column), int [n, 2] with n > 1, of each piece between a skeleton's junctions and end
    points."""
    neighbours = cv2.filter2D(skeleton.astype(np.uint8), -1, NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    key_point = (neighbours == 1) | (neighbours > 2)
    key_point[[0, -1]] = key_point[:, [0, -1]] = False  # the release looks for them inside the border only
    lines = skeleton & ~key_point

    _, labels = cv2.connectedComponents(lines.astype(np.uint8), connectivity=8)
    points = np.argwhere(lines)
    labels = labels[lines]
    found, first, counts = np.unique(labels, return_index=True, return_counts=True)
    longer = counts > 1
    in_scan_order = found[longer][np.argsort(first[longer])]
    return [points[labels == label] for label in in_scan_order]


def merge_pieces(
    pieces: list[np.ndarray], max_segments: int = MAX_SEGMENTS, min_pixels: float = MIN_SEGMENT_PIXELS
) -> list[np.ndarray]:
    """Join the shortest piece to the nearest until at most `max_segments` are left, none under `min_pixels`;
    the first of equals counts."""
    pieces = list(pieces)
    while len(pieces) > 1 and (len(pieces) > max_segments or min(map(len, pieces)) < min_pixels):
        shortest = pieces.pop(int(np.argmin([len(piece) for piece in pieces])))
        distances, _ = KDTree(shortest).query(np.concatenate(pieces))
        starts = np.cumsum([0] + [len(piece) for piece in pieces[:-1]])
        nearest = int(np.argmin(np.minimum.reduceat(distances, starts)))
        pieces[nearest] = np.concatenate([pieces[nearest], shortest])
    return pieces
