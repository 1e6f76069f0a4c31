"""Filling holes in pictures."""

from __future__ import annotations

import cv2
import numpy as np


def spread(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[h, w, 3] float32: the known pixels' colours carried smoothly into the unknown ones (push and pull on a pyramid,
    after Gortler et al., 1996). Known pixels keep theirs."""
    weight = known.astype(np.float32)
    levels = [(image.astype(np.float32) * weight[..., None], weight)]
    while min(levels[-1][1].shape) > 1 and not (levels[-1][1] > 0).all():
        colour, weight = levels[-1]
        h, w = weight.shape
        size = (-(-w // 2), -(-h // 2))
        levels.append((cv2.resize(colour, size, interpolation=cv2.INTER_AREA), cv2.resize(weight, size, interpolation=cv2.INTER_AREA)))
    colour, weight = levels.pop()
    filled = colour / np.maximum(weight, 1e-6)[..., None] if colour.ndim == 3 else colour
    mean = image[known].mean(0) if known.any() else np.full(3, 127.0)
    filled = np.where((weight > 1e-6)[..., None], filled, mean).astype(np.float32)
    while levels:
        colour, weight = levels.pop()
        up = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = np.clip(weight, 0, 1)[..., None]
        filled = np.where(share > 0, colour / np.maximum(share, 1e-6), 0) * share + up * (1 - share)
    return filled


def complete(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """[h, w, 3] uint8: the picture with its hole filled from the rest of it; pixels outside keep their values.

    Patches of the surroundings are searched for (PatchMatch, Barnes et al., 2009) and agreed on (Wexler et al., 2007) from
    coarse to fine at a size at which the hole has some thousand pixels; each pixel of the full picture then copies what the
    agreed shifts point at, and the remaining step in brightness along the hole's edge is spread over it."""
    out = image.copy()
    if not hole.any() or hole.all():
        return out
    finest = max(0, int(np.ceil(np.log2(hole.sum() / TARGET_PIXELS) / 2)))
    base = _guess(image, hole)
    levels = _reduce(base, hole, finest)
    rng = np.random.default_rng(0)
    shifts = None
    for colour, missing in reversed(levels):
        if shifts is not None:
            shifts = 2 * cv2.resize(shifts.astype(np.float32), missing.shape[::-1], interpolation=cv2.INTER_NEAREST)
            shifts = shifts.astype(np.int64)
        found = _agree(colour, missing, shifts, rng)
        if found is None:
            continue
        shifts = found
    if shifts is None:
        out[hole] = base[hole]
        return out
    return _copy(image, base, hole, shifts, 2**finest)


def _guess(image, hole):
    """A first fill, in float32: from the nearest known pixels in the four directions, those along the picture's grain
    first (beside a horizon, not across it)."""
    small = cv2.resize(image, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA).astype(np.float32)
    clear = cv2.resize((~hole).astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_AREA) == 1
    across = np.square(np.diff(small, axis=1))[clear[:, 1:] & clear[:, :-1]].sum() + 1
    down = np.square(np.diff(small, axis=0))[clear[1:] & clear[:-1]].sum() + 1
    grain = np.clip((down / across) ** 3, 1e-3, 1e3)
    shrink = 4
    size = (-(-hole.shape[1] // shrink), -(-hole.shape[0] // shrink))
    weight = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(image * (~hole)[..., None].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    known = weight > 0.5
    colour = spread(colour / np.maximum(weight, 1e-6)[..., None], known)
    beside, beside_share = _from_sides(colour, known)
    above, above_share = _from_sides(colour.transpose(1, 0, 2), known.T)
    above, above_share = above.transpose(1, 0, 2), above_share.T
    total = grain * beside_share + above_share
    mixed = (grain * beside_share[..., None] * beside + above_share[..., None] * above) / np.maximum(total, 1e-12)[..., None]
    mixed = np.where((total > 0)[..., None], mixed, colour).astype(np.float32)
    mixed = cv2.resize(mixed, hole.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(hole[..., None], mixed, image).astype(np.float32)


def _from_sides(colour, known):
    """Each pixel's mean of the nearest known ones in its row, weighed by their distance, and how much it weighs."""
    width = known.shape[1]
    column = np.arange(width)
    row = np.arange(len(known))[:, None]
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, width)[:, ::-1], axis=1)[:, ::-1]
    near = np.where(left >= 0, 1.0 / (column - left + 1) ** 2, 0), np.where(right < width, 1.0 / (right - column + 1) ** 2, 0)
    share = near[0] + near[1]
    soft = cv2.blur(colour, (3, 1))
    mean = near[0][..., None] * soft[row, left] + near[1][..., None] * soft[row, np.minimum(right, width - 1)]
    return mean / np.maximum(share, 1e-12)[..., None], share


TARGET_PIXELS = 5000
PATCH = np.array([(y, x) for y in range(-2, 3) for x in range(-2, 3)])


def _reduce(colour, hole, finest):
    levels = []
    while min(hole.shape) >= 16:
        levels.append((colour, hole))
        if cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_C, 3).max() <= 2:
            break
        size = (hole.shape[1] // 2, hole.shape[0] // 2)
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return levels[finest:]


def _agree(colour, hole, shifts, rng):
    """[h, w, 2] int shifts (rows, columns) from each pixel of the hole to where it is copied from, None without a source."""
    height, width = hole.shape
    pad = 2
    source = cv2.dilate(np.pad(hole, 1, constant_values=True).astype(np.uint8), np.ones((5, 5)))[1:-1, 1:-1] == 0
    source[:pad], source[-pad:], source[:, :pad], source[:, -pad:] = False, False, False, False
    y, x = np.nonzero(hole)
    candidates = np.flatnonzero(source)
    if not len(candidates):
        return None
    stride = width + 2 * pad
    picture = np.pad(colour, ((pad, pad), (pad, pad), (0, 0)), mode="edge").reshape(-1, 3).astype(np.float32)
    step = PATCH[:, 0] * stride + PATCH[:, 1]
    target = (y + pad) * stride + x + pad
    order = np.full(hole.shape, -1)
    order[y, x] = np.arange(len(y))
    level = 75**0.5 * LEVEL / height
    # Candidates lie sorted by row: start in the same row where it has any.
    begin, end = np.searchsorted(candidates, y * width), np.searchsorted(candidates, (y + 1) * width)
    begin, end = np.where(end > begin, begin, 0), np.where(end > begin, end, len(candidates))
    blank = candidates[rng.integers(begin, end)]
    sy, sx = np.divmod(blank, width)
    if shifts is not None:
        oy, ox = y + shifts[y, x, 0], x + shifts[y, x, 1]
        oy, ox = np.clip(oy, 0, height - 1), np.clip(ox, 0, width - 1)
        fine = source[oy, ox]
        sy, sx = np.where(fine, oy, sy), np.where(fine, ox, sx)

    def cost(patches, ys, xs, rows):
        other = picture[((ys + pad) * stride + xs + pad)[:, None] + step]
        return np.square(patches - other).sum((1, 2)) + (level * (ys - rows)) ** 2

    for _ in range(ROUNDS):
        patches = picture[target[:, None] + step]
        best = cost(patches, sy, sx, y)

        def offer(cy, cx):
            nonlocal sy, sx, best
            cy, cx = np.clip(cy, 0, height - 1), np.clip(cx, 0, width - 1)
            ask = np.flatnonzero(source[cy, cx] & ((cy != sy) | (cx != sx)))
            price = cost(patches[ask], cy[ask], cx[ask], y[ask])
            win = price < best[ask]
            ask = ask[win]
            sy[ask], sx[ask], best[ask] = cy[ask], cx[ask], price[win]

        for hop in (1, 3):
            for dy, dx in ((0, hop), (0, -hop), (hop, 0), (-hop, 0)):
                ny, nx = np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)
                near = order[ny, nx]
                near = np.where(near >= 0, near, np.arange(len(y)))
                offer(sy[near] - (y[near] - y), sx[near] - (x[near] - x))
        reach = max(height, width) // 2
        while reach >= 2:
            offer(sy + rng.integers(-reach, reach + 1, len(y)), sx + rng.integers(-reach, reach + 1, len(y)))
            reach //= 4

        weight = np.exp(-best / (2 * np.median(best) + 1e-3)).astype(np.float32)
        total = np.zeros((len(y), 3), np.float32)
        share = np.full(len(y), 1e-6, np.float32)
        for dy, dx in PATCH:
            ny, nx = y - dy, x - dx
            ok = (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
            near = np.where(ok, order[np.clip(ny, 0, height - 1), np.clip(nx, 0, width - 1)], -1)
            who = np.flatnonzero(near >= 0)
            near = near[who]
            vote = picture[(sy[near] + dy + pad) * stride + sx[near] + dx + pad]
            total[who] += weight[near, None] * vote
            share[who] += weight[near]
        picture[target] = total / share[:, None]
    out = np.zeros((height, width, 2), np.int64)
    out[y, x, 0], out[y, x, 1] = sy - y, sx - x
    return out


ROUNDS = 4
LEVEL = 50.0
SHADING = 10.0


def _shading(picture):
    small = cv2.resize(picture, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), 1), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _copy(image, base, hole, shifts, factor):
    """Fill the hole of the full picture by shifts found at a reduced size."""
    height, width = hole.shape
    ring = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3))) > 0
    small = (shifts != 0).any(-1)
    if not small.any():
        return image
    _, nearest = cv2.distanceTransformWithLabels((~small).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros((nearest.max() + 1, 2), np.int64)
    table[nearest[small]] = shifts[small]
    shifts = table[nearest]
    y, x = np.nonzero(ring)
    v, u = (y + 0.5) / factor - 0.5, (x + 0.5) / factor - 0.5
    top, left = np.floor(v).astype(int), np.floor(u).astype(int)
    filled, share = np.zeros((len(y), 3), np.float32), np.zeros(len(y), np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - (v - top)) * np.abs(1 - dx - (u - left)) + 1e-4
            row, column = np.clip(top + dy, 0, shifts.shape[0] - 1), np.clip(left + dx, 0, shifts.shape[1] - 1)
            fy = np.clip(y + factor * shifts[row, column, 0], 0, height - 1)
            fx = np.clip(x + factor * shifts[row, column, 1], 0, width - 1)
            weight = np.where(hole[fy, fx], 1e-6, weight)
            filled += weight[:, None] * image[fy, fx]
            share += weight
    copied = base.copy()
    copied[y, x] = filled / share[:, None]
    edge = ring & ~hole
    gap = np.zeros(copied.shape, np.float32)
    gap[edge] = image[edge].astype(np.float32) - copied[edge]
    copied += spread(gap, edge)
    copied[~hole] = image[~hole]
    drift = _shading(base) - _shading(copied)
    size = np.abs(drift).max(-1, keepdims=True)
    copied += drift * np.exp(-((size / SHADING) ** 2))
    out = image.copy()
    out[hole] = np.clip(np.rint(copied[hole]), 0, 255)
    return out
