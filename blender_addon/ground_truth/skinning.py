"""Which bones, and by them which limbs, own the vertices of the subjects' surfaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ..errors import ExportError
from ..rig.limbs import LimbChoice
from ..rig.skin import read_points, read_weights
from ..texts import say
from .shapes import ShapeReader
from .surfaces import Surface

STRONGEST = 4
"""Limbs kept for each vertex, as many as real-time rigs know."""
BATCH = 4000
"""Vertices whose weights are read before somebody else may go on."""


@dataclass(frozen=True, eq=False)
class Skinning:
    """Whose the vertices of a surface are while it has one `make`, as its bones tell: `weight` [n] above 0 of
    the `group` [n], whose names are `groups`, for `vertex` [n]; or all `bone`'s. It was read at clip frame
    `frame`, when the vertices, or the roots of their strands, were at `points` [V, 3], which `world` takes to
    world space. `rest` [V, 3] is where they are before anything bends them, None where that can't be told.
    `subject` is the number of the surface's rig."""

    subject: int
    bone: str
    frame: int
    make: tuple[int, int]
    points: np.ndarray
    world: np.ndarray
    rest: np.ndarray | None
    groups: tuple[str, ...]
    vertex: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    @classmethod
    def read(
        cls,
        surface: Surface,
        shapes: ShapeReader,
        frame: int,
        evaluated: Callable[[], bpy.types.Depsgraph],
    ) -> Iterator[None]:
        """Read it, pausing often, as the generator's return value. `evaluated` gives the evaluated scene,
        anew after every pause. Raises `ExportError` when the surface was changed meanwhile."""
        obj, shape = surface.obj, surface.shape(shapes, evaluated())
        count, found = len(shape.points), [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
        # Nodes may bring in meshes whose groups are others.
        named = obj.evaluated_get(evaluated()).vertex_groups if surface.is_weighted else ()
        groups = tuple(group.name for group in named)
        for begin in range(0, count if groups else 0, BATCH):
            vertices = obj.evaluated_get(evaluated()).data.vertices
            if len(vertices) != count:
                raise ExportError(
                    say(
                        "The mesh of {mesh} was changed while it was exported; export again.",
                        mesh=obj.name,
                    )
                )
            vertex, group, weight = read_weights(vertices[begin : begin + BATCH])
            found.append((vertex + begin, group, weight))
            yield
        vertex, group, weight = map(np.concatenate, zip(*found))
        known = (weight > 0) & (group < len(groups))
        bent = obj.type == "MESH" and surface.kind == "OBJECT" and len(obj.data.vertices) == count
        return cls(
            subject=surface.subject,
            bone=surface.carrier,
            frame=frame,
            make=shape.make,
            points=shape.points if shape.roots is None else shape.points[shape.roots],
            world=shape.world,
            rest=read_points(obj.data) if bent else None,
            groups=groups,
            vertex=vertex[known],
            group=group[known],
            weight=weight[known],
        )

    def label(self, choice: LimbChoice, first: int, strokes: Sequence[np.ndarray]) -> Iterator[None]:
        """[V, n] uint8 labels, limb index + 1 (0 for none), with their weights [V, n] float32, the strongest
        first, n being 4 or as few as are used, pausing on the way, as the generator's return value. `first`
        is the index of the choice's first limb among all; what no bone has a weight for goes to the nearest
        of the limbs' `strokes` in world space."""
        count = len(self.points)
        labels, weights = np.zeros((count, STRONGEST), np.uint8), np.zeros((count, STRONGEST), np.float32)
        if not choice.limbs:
            return labels[:, :1], weights[:, :1]
        if self.bone in choice.owners:
            labels[:, 0], weights[:, 0] = first + 1 + choice.owners[self.bone], 1
            return labels[:, :1], weights[:, :1]
        of_group = [first + 1 + choice.owners[g] if g in choice.owners else 0 for g in self.groups]
        if len(self.vertex):
            _strongest(labels, weights, self.vertex, np.array(of_group)[self.group], self.weight)
        yield
        used = max(1, int((weights > 0).sum(axis=1).max(initial=0)))
        labels, weights = labels[:, :used].copy(), weights[:, :used].copy()
        bare = np.flatnonzero(weights[:, 0] == 0)
        limbs = range(first, first + len(choice.limbs))
        for begin in range(0, len(bare), BATCH):
            batch = bare[begin : begin + BATCH]
            placed = self.points[batch] @ self.world[:3, :3].T + self.world[:3, 3]
            labels[batch, 0], weights[batch, 0] = _nearest(placed, strokes, limbs) + 1, 1
            yield
        return labels, weights


def _nearest(points: np.ndarray, strokes: Sequence[np.ndarray], limbs: range) -> np.ndarray:
    away = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), np.uint8)
    for limb in limbs:
        stroke = strokes[limb]
        for start, step in zip(stroke[:-1], np.diff(stroke, axis=0)):
            out = points - start
            along = np.clip(out @ step / max(float(step @ step), 1e-18), 0, 1)
            distance = ((out - along[:, None] * step) ** 2).sum(axis=1)
            nearer = distance < away
            away[nearer], nearest[nearer] = distance[nearer], limb
    return nearest


def _strongest(
    labels: np.ndarray, weights: np.ndarray, vertex: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> None:
    """Add the weights of bones of the same limb and keep each vertex's strongest limbs, the strongest
    first."""
    known = (label > 0) & (weight > 0)
    key, where = np.unique(vertex[known] * 256 + label[known], return_inverse=True)
    total = np.bincount(where, weight[known], len(key))
    order = np.lexsort((-total, key // 256))
    vertex, label, total = key[order] // 256, key[order] % 256, total[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(vertex)) + 1])
    rank = np.arange(len(vertex)) - np.repeat(begins, np.diff(np.append(begins, len(vertex))))
    kept = rank < STRONGEST
    labels[vertex[kept], rank[kept]] = label[kept]
    weights[vertex[kept], rank[kept]] = total[kept]
