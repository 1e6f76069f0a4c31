"""Whose pixel is whose in the first frame: the bone that owns each, from what the request knows."""

from __future__ import annotations

import cv2
import numpy as np

from shared.messages import GenerationRequest

from ...poseanything.conditioning.masks import from_nearest, grab_cut, touching
from .regions import boxes_of
from .tracks import Tracks

GRABCUT_PIXELS, GRABCUT_ROUNDS = 50_000, 3

BAND = 0.14
"""As a share of the root of its area: how far a subject may go on beyond where it is thought to end."""

SURE = 2.0
"""Pixels within a subject's outline from which on it is surely the subject."""

FARTHEST = 2.5
"""Where the outline is guessed, nothing farther from its bone than so many times the flesh's thickness
belongs to it."""


def find_owners(request: GenerationRequest, image: np.ndarray, tracks: Tracks) -> np.ndarray:
    """[height, width] int16, bone + 1 of the bone that owns each pixel of the first frame, 0 on the
    background.

    Exact where the request has `first_labels`; else pixels go to the bone that is nearest as measured by its
    thickness, inside `subject_mask`, or inside what GrabCut finds around the bones."""
    mask, labels = request.subject_mask, request.first_labels
    owners = np.zeros(image.shape[:2], np.int16)
    if labels is not None and labels.any():
        subject = labels > 0 if mask is None else (labels > 0) | (mask > 0)
        limbs, first, count = np.unique(tracks.limbs, return_index=True, return_counts=True)
        table = np.zeros(256, np.int16)
        table[limbs + 1] = first + 1
        owners = table[labels]
        for limb in limbs[count > 1]:
            if (mine := labels == limb + 1).any():
                _assign(owners, mine, tracks, np.flatnonzero(tracks.limbs == limb), None)
        _drop_crumbs(owners)
    else:
        subject = mask > 0 if mask is not None and mask.any() else _cut_out(image, tracks)
    if not subject.any():
        return owners
    if owners.any():
        _grow(owners, subject)
    else:
        thickness = cv2.distanceTransform(subject.astype(np.uint8), cv2.DIST_L2, 3)
        away = _assign(owners, subject, tracks, np.arange(tracks.num_bones), thickness)
        if mask is None or not mask.any():
            owners[subject] = np.where(away < FARTHEST, owners[subject], 0)
    return owners


def _bones_at_rest(tracks, bones):
    points = tracks.points[tracks.rest]
    return points[tracks.heads[bones]], points[tracks.tails[bones]]


def _assign(owners, region, tracks, bones, thickness):
    """Give each pixel of a region to the nearest of some bones; with `thickness` (distance to the silhouette)
    a thick body reaches farther than a thin leg. Returns the distances [n], as multiples of the reach."""
    heads, tails = _bones_at_rest(tracks, bones)
    reach = np.ones(len(bones)) if thickness is None else _find_reach(thickness, heads, tails)
    y, x = np.nonzero(region)
    axis = tails - heads
    size = np.maximum((axis * axis).sum(1), 1e-9)
    best, nearest = np.full(len(x), np.inf, np.float32), np.zeros(len(x), np.int16)
    x, y = x.astype(np.float32), y.astype(np.float32)
    for k, bone in enumerate(bones):
        dx, dy = x - np.float32(heads[k, 0]), y - np.float32(heads[k, 1])
        t = np.clip((dx * np.float32(axis[k, 0]) + dy * np.float32(axis[k, 1])) / np.float32(size[k]), 0, 1)
        dx -= t * np.float32(axis[k, 0])
        dy -= t * np.float32(axis[k, 1])
        distance = np.sqrt(dx * dx + dy * dy) / np.float32(reach[k])
        closer = distance < best
        best[closer], nearest[closer] = distance[closer], bone + 1
    owners[region] = nearest
    return best


def _find_reach(thickness, heads, tails):
    """[S] how far bones reach: the radius of the largest disc inside the subject that holds a bone's points,
    where it is thin (a thigh is thin below the belly that its head lies in)."""
    step = max(1, round(np.sqrt((thickness > 0).sum() / 3000)))
    y, x = np.nonzero(thickness[::step, ::step])
    size = thickness[::step, ::step][y, x]
    at = (step * x + 1j * step * y).astype(np.complex64)
    reach = np.empty(len(heads))
    for k, (head, tail) in enumerate(zip(heads, tails)):
        points = complex(*head) + np.linspace(0.1, 0.9, 7, dtype=np.complex64)[:, None] * complex(
            *(tail - head)
        )
        holds = np.abs(points - at) < size
        reach[k] = np.percentile(np.where(holds, size, 0).max(1, initial=0), 25)
    return np.maximum(reach, 2)


def _drop_crumbs(owners):
    """Take pieces of a bone's region that lie apart from its main one, and are small beside it, away from
    it."""
    for bone, area in boxes_of(owners).items():
        mine = (owners[area] == bone + 1).view(np.uint8)
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(mine, connectivity=8)
        if count > 2:
            sizes = stats[1:, cv2.CC_STAT_AREA]
            small = np.append(False, sizes < 0.2 * sizes.max())
            owners[area][small[pieces]] = 0


def _grow(owners, subject):
    """Give the subject's pixels without an owner the owner of the nearest that has one."""
    lost = subject & (owners == 0)
    if lost.any():
        owners[lost] = from_nearest(owners, owners > 0)[lost]


def _cut_out(image, tracks):
    """The subject by GrabCut, sure on the bones and unsure around them, at reduced
    size."""
    height, width = image.shape[:2]
    heads, tails = _bones_at_rest(tracks, np.arange(tracks.num_bones))
    ends = np.concatenate([heads, tails])
    low, high = np.clip(ends.min(0), 0, (width, height)), np.clip(ends.max(0), 0, (width, height))
    span = np.sqrt(max(np.prod(high - low), 400.0))
    x0, y0 = np.maximum(low - 0.45 * span, 0).astype(int)
    x1, y1 = np.minimum(high + 0.45 * span + 1, (width, height)).astype(int)
    if x1 - x0 < 8 or y1 - y0 < 8:
        return np.zeros((height, width), bool)
    shrink = min(1.0, np.sqrt(GRABCUT_PIXELS / ((x1 - x0) * (y1 - y0))))
    small = cv2.resize(image[y0:y1, x0:x1], None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)

    def stroke(thickness, keep=1.0):
        canvas = np.zeros(small.shape[:2], np.uint8)
        middle = (heads + tails) / 2
        for a, b in zip(middle + (heads - middle) * keep, middle + (tails - middle) * keep):
            a, b = ((np.clip(p, -1e4, 1e4) - (x0, y0)) * shrink for p in (a, b))
            cv2.line(
                canvas, np.rint(a).astype(int), np.rint(b).astype(int), 1, max(1, round(thickness * shrink))
            )
        return canvas > 0

    seeds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    seeds[stroke(0.45 * span)] = cv2.GC_PR_BGD
    seeds[stroke(0.03 * span)] = cv2.GC_PR_FGD
    seeds[stroke(1, keep=0.8)] = cv2.GC_FGD
    probable = stroke(0.10 * span)
    if (seeds == cv2.GC_BGD).sum() >= 64 and (seeds == cv2.GC_FGD).any():
        found = grab_cut(small, seeds, GRABCUT_ROUNDS)
        found = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        found = touching(found > 0, stroke(1, keep=0.8))
        if found.sum() > 0.5 * probable.sum():
            probable = found
    out = np.zeros((height, width), bool)
    soft = cv2.resize(probable.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    out[y0:y1, x0:x1] = soft > 0.5
    return out


def find_extent(image: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """[height, width] bool: all that a picture shows of a subject that lies about where `subject` [height,
    width] bool says, by GrabCut."""
    x, y, w, h = cv2.boundingRect(subject.view(np.uint8))
    if not w:
        return subject
    band = BAND * np.sqrt(subject.sum())
    room = int(3 * band) + 8
    area = slice(max(y - room, 0), y + h + room), slice(max(x - room, 0), x + w + room)
    shrink = min(1.0, np.sqrt(GRABCUT_PIXELS / subject[area].size))
    small = cv2.resize(image[area], None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(subject[area].view(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    away = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    deep = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    seeds = np.full(mask.shape, cv2.GC_BGD, np.uint8)
    seeds[away < band * shrink] = cv2.GC_PR_BGD
    seeds[mask > 0] = cv2.GC_PR_FGD
    seeds[deep > SURE] = cv2.GC_FGD
    if not (seeds == cv2.GC_BGD).any() or not (seeds == cv2.GC_FGD).any():
        return subject
    found = touching(grab_cut(small, seeds, GRABCUT_ROUNDS), mask > 0)
    out = np.zeros(subject.shape, bool)
    size = subject[area].shape[::-1]
    out[area] = cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return out
