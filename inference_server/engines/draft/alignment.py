"""Whether the subject of a picture stands where the first pose says, and where it stands else.

A picture may be painted, or of another take. The outline that the pose gives the subject is compared with the
picture's edges at every shift and some sizes: edges count where they run as the outline does (oriented
matching of an outline and edges, after Olson and Huttenlocher, 1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 208
"""Outlines are compared at a size whose longer side has about so many pixels."""
WAYS = 6
"""Directions of edges that are told apart."""
SIZES = np.geomspace(0.7, 1.4, 13)
NEAR = 1.5
"""Pixels, at that size, within which the subject stands where it should."""
CLEAR = 1.25
"""A place is another one when it finds so many times as much."""
LIKE = 0.45
"""The mean edge, from 0 to 1, under an outline that is the subject's."""
SURE = 4.5
"""By so many standard deviations a place must stand out from all others."""
FEW = 40


@dataclass(frozen=True)
class Alignment:
    """How the outline is moved to lie on the picture's subject: scaled about `centre`, then shifted, all in
    complex pixels. It is `found` false when the picture shows no such outline anywhere."""

    centre: complex = 0j
    scale: float = 1.0
    shift: complex = 0j
    found: bool = True


def find_alignment(image: np.ndarray, subject: np.ndarray) -> Alignment | None:
    """Where the picture [H, W, 3] shows the outline of `subject` [H, W] bool; None when that is where it is,
    or when it can't be told."""
    zoom = min(1.0, SIDE / max(subject.shape))
    size = tuple(max(8, round(side * zoom)) for side in subject.shape[::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    outline, normal, centre = find_outline(
        cv2.resize(subject.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
    )
    if len(outline) < FEW:
        return None
    padded = [cv2.getOptimalDFTSize(side * 3 // 2) for side in size[::-1]]
    edges = [np.fft.rfft2(way, padded) for way in find_edges(small)]
    scores = np.stack([_score(edges, centre + scale * (outline - centre), normal, padded) for scale in SIZES])

    rows, columns = (np.fft.fftfreq(n, 1 / n) for n in padded)
    allowed = (np.abs(rows)[:, None] < 0.35 * size[1]) & (np.abs(columns) < 0.35 * size[0])
    near = (np.abs(rows)[:, None] <= NEAR) & (np.abs(columns) <= NEAR)
    scores[:, ~allowed] = 0
    here = scores[np.abs(np.log(SIZES)) < 0.06][:, near].max()
    best, typical = scores.max(), scores[:, allowed]
    mean, spread = float(typical.mean()), float(typical.std()) + 1e-9
    if best >= max(CLEAR * here, LIKE, mean + SURE * spread):
        scale, row, column = np.unravel_index(scores.argmax(), scores.shape)
        shift = complex(columns[column], rows[row]) / zoom
        return Alignment(complex(*centre) / zoom, float(SIZES[scale]), shift)
    return Alignment(found=False) if here < mean + 2 * spread else None


def find_outline(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [n, 2] of the outline that lie within the picture, the directions [n] in which it is crossed
    there, from 0 to pi, and the middle [2]."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1)
    across, down = cv2.Scharr(soft, cv2.CV_32F, 1, 0), cv2.Scharr(soft, cv2.CV_32F, 0, 1)
    edge = (mask > 127) & (cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=255) <= 127)
    edge[:2] = edge[-2:] = edge[:, :2] = edge[:, -2:] = False
    y, x = np.nonzero(edge)
    points = np.stack([x, y], axis=1).astype(float)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2 if len(points) else np.zeros(2)
    return points, np.arctan2(down[y, x], across[y, x]) % np.pi, middle


def find_edges(image: np.ndarray) -> list[np.ndarray]:
    """How strong the picture's edges are that are crossed in each direction, from 0 to 1 and a little
    blurred."""
    soft = cv2.GaussianBlur(image, (0, 0), 0.8)
    across, down = cv2.Scharr(soft, cv2.CV_32F, 1, 0), cv2.Scharr(soft, cv2.CV_32F, 0, 1)
    strongest = np.hypot(across, down).argmax(axis=2)[..., None]
    across = np.take_along_axis(across, strongest, 2)[..., 0]
    down = np.take_along_axis(down, strongest, 2)[..., 0]
    most = np.percentile(np.hypot(across, down), 97) + 1e-6
    turns = np.pi * np.arange(WAYS) / WAYS
    return [
        cv2.GaussianBlur(np.minimum(np.abs(across * np.cos(t) + down * np.sin(t)) / most, 1), (0, 0), 1.0)
        for t in turns
    ]


def find_ways(direction: np.ndarray) -> np.ndarray:
    """Which of the ways that edges are crossed in is nearest to a direction, in radians."""
    return np.rint(direction * WAYS / np.pi).astype(int) % WAYS


def _score(edges: list[np.ndarray], outline: np.ndarray, normal: np.ndarray, padded: list[int]) -> np.ndarray:
    """[rows, columns] the mean edge under the outline at every shift; negative shifts come last."""
    at = np.rint(outline).astype(int)
    inside = ((at >= 0) & (at < padded[::-1])).all(axis=1)
    way = find_ways(normal)
    total = 0
    for index, edge in enumerate(edges):
        chosen = at[inside & (way == index)]
        points = np.zeros(padded)
        np.add.at(points, (chosen[:, 1], chosen[:, 0]), 1)
        total = total + edge * np.fft.rfft2(points).conj()
    return np.fft.irfft2(total, padded) / max(len(outline), 1)
