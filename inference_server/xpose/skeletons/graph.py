"""A skeleton's graph while it is pruned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...poseanything.conditioning.limbs.graph import chain_pixels, curve_length


@dataclass
class Graph:
    """Curves between nodes.

    nodes: [N] points (x, y). edges: (first node, last node, float [K, 2] points from one to the other); both
    nodes are the same where a curve returns to where it began.
    """

    nodes: list[np.ndarray]
    edges: list[tuple[int, int, np.ndarray]]

    @classmethod
    def of(cls, skeleton: np.ndarray) -> Graph:
        """The graph of a skeleton, bool [H, W], one pixel thin; pixel centres are at .5."""
        chained = chain_pixels(skeleton)
        graph = cls(
            [node + 0.5 for node in chained.nodes],
            [(curve.start, curve.end, curve.points + 0.5) for curve in chained.curves],
        )
        # A junction of several pixels is one.
        while (edge := next(filter(graph._is_within_junction, graph.edges), None)) is not None:
            graph.contract(edge)
        return graph

    def _is_within_junction(self, edge: tuple[int, int, np.ndarray]) -> bool:
        first, last, points = edge
        if first == last:
            return len(points) <= 4  # around a single pixel
        return curve_length(points) < 1.6 and min(self.degree(first), self.degree(last)) > 2

    def degree(self, node: int) -> int:
        return sum((first == node) + (last == node) for first, last, _ in self.edges)

    def join_through(self, node: int) -> None:
        """Make one curve of the two that meet in a node and nowhere else."""
        meeting = [edge for edge in self.edges if node in edge[:2]]
        if len(meeting) != 2 or self.degree(node) != 2:
            return
        (a, b, one), (c, d, other) = meeting
        if b != node:
            a, one = b, one[::-1]
        if c != node:
            d, other = c, other[::-1]
        self.edges = [edge for edge in self.edges if node not in edge[:2]]
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
