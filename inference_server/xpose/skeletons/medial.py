"""`medial`: skeletons from masks alone, without weights."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from ...poseanything.conditioning.limbs.graph import curve_length, resample, smooth_curve
from ..stages import Curve, Skeletoniser
from .graph import Graph


@dataclass
class MedialSkeletoniser(Skeletoniser):
    """The medial axis of each mask, pruned by scale.

    least_branch: how far a branch must stick out of the shape around it, as a share of the subject's size
        (the diagonal of its box). smoothing: of the mask's outline and of the curves, the same share.
    """

    least_branch: float = 0.06
    smoothing: float = 0.012

    def trace(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        return [medial_curves(mask, self.least_branch, self.smoothing) for mask in masks]


def size_of(mask: np.ndarray) -> float:
    """The subject's size: the diagonal of its mask's box, in pixels; 0 for an empty mask."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return 0.0
    return float(np.hypot(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))


def medial_curves(mask: np.ndarray, least_branch: float = 0.06, smoothing: float = 0.012) -> list[Curve]:
    """The skeleton of one mask, bool [H, W], as curves that meet at junctions; none of an empty one.

    A branch is kept when its tip lies further outside of the largest disc around its junction than
    `least_branch` of the subject's size: bumps of an outline go, limbs stay, whatever the resolution.
    """
    size = size_of(mask)
    if size < 8:
        return []
    shape = _smoothed(mask, smoothing * size)
    # A frame around it lets a subject that the picture cuts off have a branch that leads out of it.
    radius = distance_transform_edt(np.pad(shape, 1, mode="edge"))[1:-1, 1:-1]
    graph = Graph.of(skeletonize(shape))
    _prune(graph, radius, least_branch * size)
    _merge_junctions(graph, radius)
    curves = []
    for _, _, points in graph.edges:
        length = curve_length(points)
        if length >= 2:
            curve = smooth_curve(resample(points, int(length) + 2), max(smoothing * size, 1))
            curves.append(resample(curve, max(int(length / (0.03 * size)), 2) + 1).astype(np.float32))
    return curves


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


def _prune(graph: Graph, radius: np.ndarray, least: float) -> None:
    """Take away the branch that sticks out least, until each sticks out far enough or is all there is."""
    while len(graph.edges) > 1:
        degrees = {node: graph.degree(node) for edge in graph.edges for node in edge[:2]}
        worst, place = least, None
        for index, (first, last, points) in enumerate(graph.edges):
            if first == last:
                outside = curve_length(points) / 2
                root = first
            elif 1 in (degrees[first], degrees[last]):
                tip, root = (first, last) if degrees[first] == 1 else (last, first)
                if degrees[root] == 1:
                    outside = curve_length(points)  # a piece of its own
                else:
                    way = max(curve_length(points), np.linalg.norm(graph.nodes[tip] - graph.nodes[root]))
                    outside = way + _at(radius, graph.nodes[tip]) - _at(radius, graph.nodes[root])
            else:
                continue
            if outside < worst:
                worst, place = outside, (index, root)
        if place is None:
            return
        del graph.edges[place[0]]
        graph.join_through(place[1])


def _merge_junctions(graph: Graph, radius: np.ndarray) -> None:
    """Make one junction of two that lie within the same disc of the shape: where several limbs meet, thinning
    leaves a few short edges that mean nothing."""
    while True:
        short = None
        for edge in graph.edges:
            first, last, points = edge
            if first == last or graph.degree(first) < 3 or graph.degree(last) < 3:
                continue
            reach = 0.6 * max(_at(radius, graph.nodes[first]), _at(radius, graph.nodes[last]))
            length = curve_length(points)
            if length < reach and (short is None or length < short[0]):
                short = (length, edge)
        if short is None:
            return
        graph.contract(short[1])


def _at(radius: np.ndarray, point: np.ndarray) -> float:
    height, width = radius.shape
    column, row = (int(np.clip(value, 0, most - 1)) for value, most in zip(point, (width, height)))
    return float(radius[row, column])
