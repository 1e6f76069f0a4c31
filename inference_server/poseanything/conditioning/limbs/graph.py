"""The graph of a line drawing or a skeleton: the curves between its junctions and ends, and their pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import networkx as nx
import numpy as np
from scipy.ndimage import gaussian_filter1d
from skimage.morphology import skeletonize

SMOOTHING = 2.0
"""Standard deviation, in pixels along a curve, of what takes the pixels' steps out of it."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A stretch of a drawing from the node `start` to the node `end`, without a junction between them.

    points: float [K, 2] with K >= 2, (x, y) in pixels (a pixel's centre is whole), from start to end.
    """

    start: int
    end: int
    points: np.ndarray

    @property
    def length(self) -> float:
        """In pixels."""
        return curve_length(self.points)


@dataclass(frozen=True, eq=False)
class SkeletonGraph:
    """nodes: float [N, 2], (x, y) of the junctions and ends; every curve starts and ends at one."""

    nodes: np.ndarray
    curves: tuple[Curve, ...]

    def degrees(self) -> np.ndarray:
        """int [N]: how many curves meet at each node; one that returns to its node counts twice."""
        ends = [node for curve in self.curves for node in (curve.start, curve.end)]
        return np.bincount(np.array(ends, int), minlength=len(self.nodes))

    def moved(self, by: float) -> SkeletonGraph:
        """The same with all of its points moved right and down by so many pixels."""
        curves = (Curve(curve.start, curve.end, curve.points + by) for curve in self.curves)
        return SkeletonGraph(self.nodes + by, tuple(curves))


def curve_length(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def resample(points: np.ndarray, count: int) -> np.ndarray:
    """[count, D] points evenly along a polyline [K, D], its ends kept."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1))])
    wanted = np.linspace(0, along[-1], count)
    return np.stack([np.interp(wanted, along, axis) for axis in points.T], axis=1)


def trace_lines(lines: np.ndarray, shortest: float = 8.0, smoothing: float = SMOOTHING) -> SkeletonGraph:
    """The graph of a drawing.

    Strokes are thinned (Zhang and Suen, 1984) and their pixels chained. What is shorter than `shortest` is
    the drawing's accident: dots and holes are removed, a short curve between two junctions makes them one,
    and a short one that ends in nothing is dropped. A drawing that is one short stroke stays.

    Args:
        lines: bool [H, W], true on the strokes, of any width.
        shortest: pixels.
        smoothing: pixels along the curves, 0 for none.
    """
    graph = simplify(chain_pixels(skeletonize(clean_lines(lines, shortest))), shortest)
    smooth = (Curve(c.start, c.end, smooth_curve(c.points, smoothing)) for c in graph.curves)
    return SkeletonGraph(graph.nodes, tuple(smooth))


def clean_lines(lines: np.ndarray, size: float) -> np.ndarray:
    """The drawing without the fringes that a lossy codec leaves along broad strokes, without dots that are
    less than `size` pixels across (unless there is nothing else), and without holes that a square of that
    size would cover."""
    drawn = lines.astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(drawn, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    width = 4 * depth[lines].mean() - 2 if lines.any() else 0  # across a stroke they rise from 1 to its half
    if (kernel := 2 * int(0.3 * width) + 1) > 1:
        drawn = cv2.medianBlur(drawn, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(drawn, connectivity=8)
    across = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    across[0] = 0
    drawn = (labels > 0) & (across >= min(size, across.max()))[labels]

    _, labels, stats, _ = cv2.connectedComponentsWithStats((~drawn).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < size * size
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    small &= (left > 0) & (top > 0) & (right < lines.shape[1]) & (bottom < lines.shape[0])
    small[0] = False  # what is drawn
    return drawn | small[labels]


def chain_pixels(skeleton: np.ndarray) -> SkeletonGraph:
    """The graph of a drawing bool [H, W] whose lines are one pixel wide, as they are. A closed
    line has a node somewhere; a single pixel is nothing."""
    neighbours = _pixel_neighbours(skeleton)
    y, x = np.nonzero(skeleton)
    at = np.stack([x, y], axis=1).astype(float)
    node_of: dict[int, int] = {}
    places, curves = [], []
    used: set[tuple[int, int]] = set()

    def node(pixel: int) -> int:
        if pixel not in node_of:
            node_of[pixel] = len(places)
            places.append(at[pixel])
        return node_of[pixel]

    def follow(start: int, step: int) -> None:
        chain = [start, step]
        used.update([(start, step), (step, start)])
        while len(neighbours[chain[-1]]) == 2 and chain[-1] != start:
            onward = neighbours[chain[-1]]
            following = onward[0] if onward[0] != chain[-2] else onward[1]
            used.update([(chain[-1], following), (following, chain[-1])])
            chain.append(following)
        curves.append(Curve(node(start), node(chain[-1]), at[chain]))

    special = [pixel for pixel, near in enumerate(neighbours) if len(near) not in (0, 2)]
    closed = [pixel for pixel, near in enumerate(neighbours) if len(near) == 2]
    for pixel in special + closed:  # of closed lines, what none has come by
        for near in neighbours[pixel]:
            if (pixel, near) not in used:
                follow(pixel, near)
    return SkeletonGraph(np.array(places).reshape(-1, 2), tuple(curves))


def _pixel_neighbours(skeleton: np.ndarray) -> list[list[int]]:
    """For each pixel in scan order those it touches; over a corner only where no pixel beside leads there."""
    index = np.full(np.add(skeleton.shape, 2), -1)
    inner = index[1:-1, 1:-1]
    inner[skeleton] = np.arange(np.count_nonzero(skeleton))
    right, below = index[1:-1, 2:], index[2:, 1:-1]
    left, below_left, below_right = index[1:-1, :-2], index[2:, :-2], index[2:, 2:]
    free_below = below < 0
    pairs = [
        (inner, right, True),
        (inner, below, True),
        (inner, below_right, free_below & (right < 0)),
        (inner, below_left, free_below & (left < 0)),
    ]
    neighbours: list[list[int]] = [[] for _ in range(np.count_nonzero(skeleton))]
    for one, other, allowed in pairs:
        both = (one >= 0) & (other >= 0) & allowed
        for a, b in zip(one[both].tolist(), other[both].tolist()):
            neighbours[a].append(b)
            neighbours[b].append(a)
    return neighbours


def simplify(graph: SkeletonGraph, shortest: float) -> SkeletonGraph:
    """Merge junctions, drop stubs and rings, join two curves that meet alone; the shortest goes first. See
    `trace_lines`."""
    net = Network(graph)
    while True:
        short = [edge for edge in net.edges() if _is_accident(net, edge, shortest)]
        if not short:
            return net.graph()
        edge = min(short, key=lambda edge: (edge.length, edge.one, edge.other, edge.key))
        if edge.one == edge.other or 1 in (net.degree(edge.one), net.degree(edge.other)):
            net.remove(edge)
        else:
            net.contract(edge)


def _is_accident(net: Network, edge: Edge, shortest: float) -> bool:
    most = shortest * (3 if edge.one == edge.other else 1)  # a ring is as wide as a third of its length
    return edge.length < most and max(net.degree(edge.one), net.degree(edge.other)) > 2


class Edge(NamedTuple):
    """A curve of a `Network`, with the nodes at its ends. points: float [K, 2], from either to the other."""

    one: int
    other: int
    key: int
    points: np.ndarray
    length: float


class Network:
    """A skeleton's graph that is being pruned. Two curves that meet where no other does are always one."""

    def __init__(self, graph: SkeletonGraph):
        self._net = nx.MultiGraph()
        self._net.add_nodes_from((index, {"at": place}) for index, place in enumerate(graph.nodes))
        for curve in graph.curves:
            self._connect(curve.start, curve.end, curve.points)
        self._join_pairs()

    def edges(self) -> list[Edge]:
        return [
            Edge(one, other, key, data["points"], data["length"])
            for one, other, key, data in self._net.edges(keys=True, data=True)
        ]

    def place(self, node: int) -> np.ndarray:
        """[2] where a node is."""
        return self._net.nodes[node]["at"]

    def degree(self, node: int) -> int:
        """How many curves meet there; one that returns to its node counts twice."""
        return self._net.degree(node)

    def remove(self, edge: Edge) -> None:
        self._net.remove_edge(edge.one, edge.other, edge.key)
        self._join_pairs()

    def contract(self, edge: Edge) -> None:
        """Make one node, in the middle, of the two at a curve's ends."""
        net, kept, gone = self._net, edge.one, edge.other
        net.remove_edge(kept, gone, edge.key)
        place = (self.place(kept) + self.place(gone)) / 2
        moved = {
            id(data): (one, other, key, data)
            for node in (kept, gone)
            for one, other, key, data in net.edges(node, keys=True, data=True)
        }
        net.remove_edges_from([each[:3] for each in moved.values()])
        net.remove_node(gone)
        net.nodes[kept]["at"] = place
        for one, other, _, data in moved.values():
            points = data["points"].copy()
            last = other if data["start"] == one else one
            if data["start"] in (kept, gone):
                points[0] = place
            if last in (kept, gone):
                points[-1] = place
            self._connect(*(kept if node == gone else node for node in (data["start"], last)), points)
        self._join_pairs()

    def graph(self) -> SkeletonGraph:
        """As it is now, without nodes where no curve ends."""
        net = self._net
        number = {node: index for index, node in enumerate(node for node in net if net.degree(node))}
        curves = []
        for one, other, data in net.edges(data=True):
            start, end = (one, other) if data["start"] == one else (other, one)
            curves.append(Curve(number[start], number[end], data["points"]))
        return SkeletonGraph(np.array([self.place(node) for node in number]).reshape(-1, 2), tuple(curves))

    def _connect(self, start: int, end: int, points: np.ndarray) -> None:
        self._net.add_edge(start, end, start=start, points=points, length=curve_length(points))

    def _join_pairs(self) -> None:
        for node in [node for node, degree in self._net.degree() if degree == 2]:
            edges = list(self._net.edges(node, keys=True, data=True))
            if len(edges) < 2:  # a ring
                continue
            (_, first, one, before), (_, last, two, after) = edges
            head = before["points"] if before["start"] != node or first == node else before["points"][::-1]
            tail = after["points"] if after["start"] == node else after["points"][::-1]
            self._net.remove_edge(node, first, one)
            self._net.remove_edge(node, last, two)
            self._connect(first, last, np.concatenate([head, tail[1:]]))


def smooth_curve(points: np.ndarray, sigma: float) -> np.ndarray:
    """The same points [K, 2] evened out over `sigma` of them, the ends left where they are."""
    if sigma and len(points) > 2:
        # Mirrored through the ends, so that these stay where they are.
        extended = np.concatenate([2 * points[0] - points[:0:-1], points, 2 * points[-1] - points[-2::-1]])
        smooth = gaussian_filter1d(extended, sigma, axis=0)[len(points) - 1 : 2 * len(points) - 1]
        smooth[0], smooth[-1] = points[0], points[-1]
        return smooth
    return points
