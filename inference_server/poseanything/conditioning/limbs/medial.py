"""The skeleton of a mask: its medial axis, as curves that meet at junctions."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from ..masks import size_of
from .graph import Edge, Network, chain_pixels, resample, simplify, smooth_curve

WITHIN_JUNCTION = 1.6
"""Pixels: shorter curves are steps within the pixels of a junction."""
TIP_REACH = 0.05
"""Of the subject's size: how far a limb's tip lies at most from where it is expected."""
MET = 1.0
"""Pixels within which ends of curves are one junction."""
NOWHERE = np.zeros((0, 2))


def medial_curves(
    mask: np.ndarray,
    least_branch: float = 0.06,
    smoothing: float = 0.012,
    expected: np.ndarray = NOWHERE,
    least_expected: float = 0.045,
) -> list[np.ndarray]:
    """The skeleton of one mask, bool [H, W], as curves that meet at junctions; none of an empty one.

    A curve is float32 [K, 2], (x, y) in pixels with their centres at .5.

    A branch is kept when its tip lies further outside of the largest disc around its junction than
    `least_branch` of the subject's size: bumps of an outline go, limbs stay, whatever the resolution.

    expected: [N, 2], places near which `least_expected` of the size is enough for a tip.
    """
    size = size_of(mask)
    if size < 8:
        return []
    shape = _smoothed(mask, smoothing * size)
    # A frame around it lets a subject that the picture cuts off have a branch that leads out of it.
    radius = distance_transform_edt(np.pad(shape, 1, mode="edge"))[1:-1, 1:-1]
    net = Network(simplify(chain_pixels(skeletonize(shape)), WITHIN_JUNCTION).moved(0.5))

    def least(tip: np.ndarray) -> float:
        awaited = (np.linalg.norm(expected - tip, axis=1) < TIP_REACH * size).any()
        return size * (least_expected if awaited else least_branch)

    _prune(net, radius, least)
    _merge_junctions(net, radius)
    curves = []
    for curve in net.graph().curves:
        length = curve.length
        if length >= 2:
            points = smooth_curve(resample(curve.points, int(length) + 2), max(smoothing * size, 1))
            curves.append(resample(points, max(int(length / (0.03 * size)), 2) + 1).astype(np.float32))
    return curves


def loose_ends(curves: list[np.ndarray]) -> np.ndarray:
    """[N, 2]: the ends of curves at which no other one ends."""
    if not curves:
        return NOWHERE
    ends = np.concatenate([curve[[0, -1]] for curve in curves])
    met = (np.linalg.norm(ends[:, None] - ends[None], axis=2) < MET).sum(1)
    return ends[met == 1]


def _smoothed(mask: np.ndarray, scale: float) -> np.ndarray:
    """The mask's largest piece with what lies near it, without specks, pinholes and rough edges."""
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(scale * 0.5, 0.5)) > 0.5
    shape = (blurred | cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)) & mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(shape.astype(np.uint8), connectivity=8)
    if count < 2:
        return shape
    areas = stats[1:, cv2.CC_STAT_AREA]
    shape = np.isin(labels, 1 + np.nonzero(areas >= 0.02 * areas.sum())[0])
    holes, labels, stats, _ = cv2.connectedComponentsWithStats((~shape).astype(np.uint8), connectivity=4)
    small = [n for n in range(1, holes) if stats[n, cv2.CC_STAT_AREA] < 0.01 * areas.sum()]
    return shape | np.isin(labels, small)


def _prune(net: Network, radius: np.ndarray, least: Callable[[np.ndarray], float]) -> None:
    """Take away the branch that sticks out least of what its tip must, until each sticks out far enough or is
    all there is."""
    while len(edges := net.edges()) > 1:
        outside = [_sticks_out(net, edge, radius) / least(net.place(_tip(net, edge))) for edge in edges]
        which = int(np.argmin(outside))
        if outside[which] >= 1:
            return
        net.remove(edges[which])


def _tip(net: Network, edge: Edge) -> int:
    return min((edge.one, edge.other), key=net.degree)


def _sticks_out(net: Network, edge: Edge, radius: np.ndarray) -> float:
    """How far a branch's tip lies outside of the largest disc around its junction; endless for what joins
    two junctions."""
    if edge.one == edge.other:
        return edge.length / 2
    tip, root = sorted((edge.one, edge.other), key=net.degree)
    if net.degree(tip) > 1:
        return np.inf
    if net.degree(root) == 1:
        return edge.length  # a piece of its own
    way = max(edge.length, float(np.linalg.norm(net.place(tip) - net.place(root))))
    return way + _at(radius, net.place(tip)) - _at(radius, net.place(root))


def _merge_junctions(net: Network, radius: np.ndarray) -> None:
    """Make one junction of two that lie within the same disc of the shape: where several limbs meet, thinning
    leaves a few short edges that mean nothing."""
    while True:
        short = [edge for edge in net.edges() if _is_within_disc(net, edge, radius)]
        if not short:
            return
        net.contract(min(short, key=lambda edge: edge.length))


def _is_within_disc(net: Network, edge: Edge, radius: np.ndarray) -> bool:
    if edge.one == edge.other or min(net.degree(edge.one), net.degree(edge.other)) < 3:
        return False
    return edge.length < 0.6 * max(_at(radius, net.place(node)) for node in (edge.one, edge.other))


def _at(radius: np.ndarray, point: np.ndarray) -> float:
    height, width = radius.shape
    column, row = (int(np.clip(value, 0, most - 1)) for value, most in zip(point, (width, height)))
    return float(radius[row, column])
