"""Limbs of a clip of line drawings: those of the first drawing, followed through the others.

A drawing's own curves can't simply be paired: two legs that cross make a ring, antlers come and go, and what
was one curve is three in the next frame. So the first drawing's curves are bent over each following drawing
in turn. Points of the drawing are divided up among the curves' points (coherent point drift, Myronenko and
Song 2010), so that two legs don't share one of two lines that are drawn for them, and springs that turn with
their surroundings keep limbs as they are (as-rigid-as-possible, Sorkine and Alexa 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from shared.pose import Limb, Polyline, PoseSequence

from .graph import SkeletonGraph, resample, trace_lines

SHORTEST = 16 / 512
"""Of the longer side: what is shorter in a drawing is its accident; see `trace_lines`."""
SPACING = 5 / 512
"""Of the longer side, between the points that are paired."""
WIDTHS = tuple(width / 512 for width in (60, 35, 20, 14, 10, 7, 5, 4, 3))
"""Of the longer side: standard deviations within which points of the drawing are divided up, by round."""
STRIDE = 20 / 512
"""Of the longer side: the width to begin with for each frame that has passed. Wider, two legs are one."""
STIFFNESS = 0.5 * 512
"""How much a spring counts beside a point of the drawing, for each of the longer side that a width is."""
TURN = 2.0
"""How many standard deviations squared lines at right angles are apart."""
STRAY = 0.05
"""What counts for none of the curves, beside a point right on one."""
SURROUNDINGS = 3
"""How many springs away a spring's surroundings go."""
MEMORY = 0.15
"""The share of its first length that a spring takes back in each frame."""
FOUND = 0.35
"""What a drawing must have for a limb to be found in it, on average for each of its points, of 1 for a point
that has a line to itself."""


def follow_limbs(
    drawings: Mapping[int, np.ndarray],
    num_frames: int,
    check: Callable[[], None] | None = None,
) -> PoseSequence:
    """The limbs of the first drawing in all frames; a frame where one can't be seen has no polyline of it.

    Args:
        drawings: frame -> bool [H, W], true on the lines, all of one size; black ones are no pose.
        num_frames: of the clip.
        check: called before each frame; what it raises ends it all.

    Returns:
        A pose on a canvas of the drawings' size. A limb is a part of its own; depths are 1. Without any line
        it has no limbs.
    """
    height, width = next(iter(drawings.values())).shape
    side = max(width, height)
    frames: list[list[Polyline]] = [[] for _ in range(num_frames)]
    template, previous = None, 0
    for index in sorted(drawings):
        if check is not None:
            check()
        graph = trace_lines(drawings[index], SHORTEST * side)
        if not graph.curves:
            continue
        if template is None:
            template = _Template.of(graph, SPACING * side)
            last = before = template.points
            seen = np.ones(len(template.points))
        else:
            steps = index - previous
            onward = 2 * last - before if steps == 1 else last  # what moved goes on moving
            before = last
            last, seen = _bend(template, last, onward, graph, side, steps)
        previous = index
        for limb, span in enumerate(template.spans):
            if seen[span].mean() >= FOUND:
                points = np.ones((len(span), 3), np.float32)
                points[:, :2] = last[span] + 0.5
                frames[index].append(Polyline(limb, points))
    limbs = [] if template is None else template.spans
    names = [f"limb {number + 1}" for number in range(len(limbs))]
    return PoseSequence.from_frames(
        width, height, names, [Limb(name, part) for part, name in enumerate(names)], frames
    )


@dataclass(frozen=True, eq=False)
class _Template:
    """Points [N, 2] along curves that share those at their junctions. `spans` are the points of each curve in
    order, `springs` [M, 2] the points that follow each other."""

    points: np.ndarray
    spans: list[np.ndarray]
    springs: np.ndarray

    @classmethod
    def of(cls, graph: SkeletonGraph, spacing: float) -> _Template:
        points, spans, count = [graph.nodes], [], len(graph.nodes)
        for curve in graph.curves:
            inner = resample(curve.points, max(2, round(curve.length / spacing)) + 1)[1:-1]
            points.append(inner)
            spans.append(np.array([curve.start, *range(count, count + len(inner)), curve.end]))
            count += len(inner)
        springs = np.concatenate([np.stack([span[:-1], span[1:]], axis=1) for span in spans])
        return cls(np.concatenate(points), spans, springs)


def _bend(
    template: _Template, last: np.ndarray, onward: np.ndarray, graph: SkeletonGraph, side: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The template's points over a drawing, and how much of it each got, float [N]."""
    drawn, along = _sample(graph, SPACING * side)
    rest = _vectors(template, template.points)
    kept = np.abs(_vectors(template, last)) * (1 - MEMORY) + np.abs(rest) * MEMORY
    points = onward
    for width in (each * side for each in WIDTHS if each <= STRIDE * steps):
        share = _divide(points, _tangents(template, points), drawn, along, width)
        points = _relax(template, points, share, drawn, kept, STIFFNESS * width / side)
    return points, share.sum(1)


def _vectors(template: _Template, points: np.ndarray) -> np.ndarray:
    """[M] complex, along each spring."""
    v = points[template.springs[:, 1]] - points[template.springs[:, 0]]
    return v[:, 0] + 1j * v[:, 1]


def _tangents(template: _Template, points: np.ndarray) -> np.ndarray:
    """[N] complex, the square of each point's direction, 0 where springs disagree: a line has no sign."""
    v = _vectors(template, points) ** 2
    total = np.zeros(len(points), complex)
    for end in template.springs.T:
        np.add.at(total, end, v / np.maximum(np.abs(v), 1e-9))
    return total / np.maximum(np.bincount(template.springs.ravel(), minlength=len(points)), 1)


def _sample(graph: SkeletonGraph, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points [K, 2] evenly along a drawing, and their squared directions [K] complex."""
    whole = _Template.of(graph, spacing)
    return whole.points, _tangents(whole, whole.points)


def _divide(
    points: np.ndarray, tangents: np.ndarray, drawn: np.ndarray, along: np.ndarray, width: float
) -> np.ndarray:
    """[N, K] how much of each point of the drawing belongs to each of the curves'."""
    away = ((points[:, None] - drawn) ** 2).sum(-1) / width**2
    turned = TURN * (1 - (tangents[:, None] * along.conj()).real)
    near = np.exp(-(away + turned) / 2)
    return near / (near.sum(0) + STRAY)


def _relax(
    template: _Template,
    points: np.ndarray,
    share: np.ndarray,
    drawn: np.ndarray,
    lengths: np.ndarray,
    stiffness: float,
) -> np.ndarray:
    """Points drawn to their shares by springs that turn with their surroundings, `lengths` [M] long."""
    first, second = template.springs.T
    system = np.diag(share.sum(1) + 1e-3)  # what has no share keeps to where it is, barely
    wanted = share @ drawn + 1e-3 * points
    for one, other, sign in (
        (first, first, 1),
        (second, second, 1),
        (first, second, -1),
        (second, first, -1),
    ):
        np.add.at(system, (one, other), sign * stiffness)
    factor = cho_factor(system)
    for _ in range(2):
        turned = _turn(template, points)
        vector = turned / np.maximum(np.abs(turned), 1e-9) * lengths
        pull = stiffness * np.stack([vector.real, vector.imag], axis=1)
        right = wanted.copy()
        np.add.at(right, second, pull)
        np.add.at(right, first, -pull)
        points = cho_solve(factor, right)
    return points


def _turn(template: _Template, points: np.ndarray) -> np.ndarray:
    """[M] complex: the first drawing's springs, turned as their surroundings have turned since."""
    first = _vectors(template, template.points)
    spin = _vectors(template, points) * first.conj()
    spin /= np.maximum(np.abs(spin), 1e-9)
    for _ in range(SURROUNDINGS):
        about = np.zeros(len(points), complex)
        for end in template.springs.T:
            np.add.at(about, end, spin)
        spin = about[template.springs].sum(1)
        spin /= np.maximum(np.abs(spin), 1e-9)
    return first * spin
