"""The graph of a skeleton picture: its junctions and ends, and the curves between them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""Row and column steps, the straight ones first, so that a path doesn't cut corners."""


@dataclass
class Graph:
    """Curves between nodes.

    nodes: [N] points (x, y). edges: (first node, last node, float [K, 2] points from one to the other); both
    nodes are the same where a curve returns to where it began.
    """

    nodes: list[np.ndarray] = field(default_factory=list)
    edges: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def degree(self, node: int) -> int:
        return sum((first == node) + (last == node) for first, last, _ in self.edges)

    def join_through(self, node: int) -> None:
        """Make one curve of the two that meet in a node and nowhere else."""
        meeting = [edge for edge in self.edges if node in edge[:2]]
        if len(meeting) != 2:
            return
        (a, b, one), (c, d, other) = meeting
        if b != node:
            a, one = b, one[::-1]
        if c != node:
            d, other = c, other[::-1]
        self.edges = [edge for edge in self.edges if edge not in meeting]
        self.edges.append((a, d, np.concatenate([one, other[1:]])))

    def contract(self, edge: tuple[int, int, np.ndarray]) -> None:
        """Make one node, in the middle, of the two at a curve's ends."""
        kept, gone, _ = edge
        place = (self.nodes[kept] + self.nodes[gone]) / 2
        self.nodes[kept] = place
        moved = []
        for first, last, points in self.edges:
            if points is edge[2]:
                continue
            points = points.copy()
            if first in (kept, gone):
                first, points[0] = kept, place
            if last in (kept, gone):
                last, points[-1] = kept, place
            moved.append((first, last, points))
        self.edges = moved


def length_of(points: np.ndarray) -> float:
    """Of a polyline [K, 2]."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def trace_graph(skeleton: np.ndarray) -> Graph:
    """The graph of a skeleton, bool [H, W], one pixel thin. Lone pixels are left out."""
    height, width = skeleton.shape
    padded = np.pad(skeleton, 1)
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 0
    degree = cv2.filter2D(padded.astype(np.float32), -1, kernel).astype(int) * padded
    is_node = padded & (degree != 2)
    _, labels = cv2.connectedComponents(is_node.astype(np.uint8), connectivity=8)
    graph = Graph()
    for label in range(1, int(labels.max()) + 1):
        rows, columns = np.nonzero(labels == label)
        graph.nodes.append(np.array([columns.mean() - 0.5, rows.mean() - 0.5]))

    visited = np.zeros_like(padded)
    for row, column in np.argwhere(is_node):
        for step in NEIGHBOURS:
            place = (row + step[0], column + step[1])
            if padded[place] and not is_node[place] and not visited[place]:
                graph.edges.append(_walk(graph, padded, labels, visited, labels[row, column] - 1, place))
    # What is left are rings without a junction.
    for row, column in np.argwhere(padded & ~is_node):
        if not visited[row, column]:
            graph.nodes.append(np.array([column - 0.5, row - 0.5]))
            labels[row, column] = len(graph.nodes)
            visited[row, column] = True
            for step in NEIGHBOURS:
                place = (row + step[0], column + step[1])
                if padded[place] and not visited[place]:
                    graph.edges.append(_walk(graph, padded, labels, visited, len(graph.nodes) - 1, place))
                    break
    return graph


def _walk(graph: Graph, padded, labels, visited, start: int, place) -> tuple[int, int, np.ndarray]:
    """Follow a curve from a node to the next; `visited` marks what was walked over."""
    path, end = [graph.nodes[start]], start
    previous_label = start + 1
    while True:
        visited[place] = True
        path.append(np.array([place[1] - 0.5, place[0] - 0.5]))
        onward, met = None, 0
        for step in NEIGHBOURS:
            other = (place[0] + step[0], place[1] + step[1])
            label = labels[other]
            if label and (label != previous_label or len(path) > 3):
                met = met or label
            elif padded[other] and not label and not visited[other]:
                onward = onward or other
        if met:
            end = met - 1
            path.append(graph.nodes[end])
            break
        if onward is None:
            break
        place = onward
    return start, end, np.array(path)


def resample(points: np.ndarray, count: int) -> np.ndarray:
    """[count, 2] points at even distances along a polyline [K, 2]."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, points[:, axis]) for axis in (0, 1)], 1)


def smooth(points: np.ndarray, scale: float) -> np.ndarray:
    """A polyline without its steps, both ends kept: a Gaussian of `scale` pixels along it, point-mirrored at
    the ends."""
    count = max(int(length_of(points)) + 1, 3)
    line = resample(points, count)
    reach = min(int(3 * scale) + 1, count - 1)
    before = 2 * line[0] - line[reach:0:-1]
    after = 2 * line[-1] - line[-2 : -reach - 2 : -1]
    smoothed = gaussian_filter1d(np.concatenate([before, line, after]), scale, axis=0)
    smoothed = smoothed[reach : reach + count]
    smoothed[0], smoothed[-1] = line[0], line[-1]
    return smoothed
