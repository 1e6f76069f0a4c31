"""From BlumNet's short lines and key points to the curves of one skeleton."""

from __future__ import annotations

import cv2
import numpy as np

from ....poseanything.conditioning.limbs.graph import trace_lines

STROKE = 5
"""Lines are drawn this many pixels broad at the network's size, so that those of one branch are one."""
SHORTEST = 12
"""Pixels at the network's size: shorter curves are accidents of the drawing."""
SNAP = 0.02
"""Of the picture's diagonal: an end or a junction goes to the key point that is so near to it."""
SUPPORT = 0.05
"""Of the picture's diagonal: a curve is one when a key point is so near to one of its ends."""
INSIDE = 0.5
"""The share of a curve's points that must be in the subject."""


def reconstruct(
    lines: np.ndarray,
    ends: np.ndarray,
    junctions: np.ndarray,
    mask: np.ndarray,
) -> list[np.ndarray]:
    """The curves of one picture.

    Args:
        lines: float [L, K, 2], those that the network is sure of, (x, y) in pixels (a pixel's centre is at
        .5). ends, junctions: float [N, 2], its key points, likewise. mask: bool [H, W], the subject, at the
        network's size.

    Returns:
        float [K, 2] each, likewise; curves that meet share an end point.
    """
    height, width = mask.shape
    diagonal = float(np.hypot(height, width))
    drawn = np.zeros((height, width), np.uint8)
    # OpenCV's pixel centres are whole; its last bits of a coordinate are fractions of a pixel.
    cv2.polylines(drawn, list(np.rint((lines - 0.5) * 16).astype(np.int32)), False, 255, 1, shift=4)
    drawn = cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (STROKE, STROKE)))
    graph = trace_lines(drawn > 0, SHORTEST).moved(0.5)
    nodes = graph.nodes.copy()
    key_points = np.concatenate([ends, junctions])
    supported = _nearest(nodes, key_points)[0] <= SUPPORT * diagonal if len(key_points) else None
    degrees = graph.degrees()
    for kind, mine in ((ends, degrees == 1), (junctions, degrees > 2)):
        if len(kind):
            away, place = _nearest(nodes, kind)
            near = mine & (away <= SNAP * diagonal)
            nodes[near] = kind[place[near]]

    curves = []
    for curve in graph.curves:
        if supported is not None and not supported[[curve.start, curve.end]].any():
            continue
        points = curve.points.copy()
        points[0], points[-1] = nodes[curve.start], nodes[curve.end]
        x, y = np.clip(points.astype(int), 0, (width - 1, height - 1)).T
        if mask[y, x].mean() >= INSIDE:
            curves.append(points)
    return curves


def _nearest(places: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the nearest point is from each place, and which it is."""
    away = np.linalg.norm(places[:, None] - points, axis=-1).reshape(len(places), len(points))
    return away.min(1), away.argmin(1)
