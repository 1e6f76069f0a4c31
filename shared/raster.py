"""Pose pictures from polylines: the one renderer that both sides use.

The look is that of the official release's sample: white strokes on black, no grey. Measured on the 145 frames
of its deer (512 x 288): every frame is exactly a union of 3 x 3 crosses (opening by a cross changes no
pixel), that is a line one pixel thin dilated by the 3 x 3 ellipse; across a level or upright stroke 3 pixels,
across a diagonal one 3 / sqrt(2). Its samples at 704 x 512 and 768 x 512 have strokes of 4 and 4 to 5 pixels:
the weight goes with the longer side, 3 in 512, which is the size XPose's frames have when their skeletons are
extracted.

A pixel is therefore white when its centre lies within 1.5/512 of the longer side of the stroke, measured in
the L1 norm, which gives those very crosses at 512 and the same shape at any other size, down to a pixel.

The model was shown these pictures scaled bilinearly from 512 to its own size, so `condition_images` draws and
scales in the same way, while `draw_pose` draws directly at the size asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from .pose import PoseSequence

NATIVE_SIDE = 512
"""Longer side, in pixels, at which the model's pose pictures are drawn."""
LINE_WEIGHT = 3 / NATIVE_SIDE
"""Width of a level stroke as a fraction of the picture's longer side."""

_MAX_COLUMNS = 1 << 18
"""Stroke columns filled at a time; bounds the memory a picture full of long strokes takes."""


def draw_pose(
    pose: PoseSequence, frame: int, width: int | None = None, height: int | None = None
) -> np.ndarray:
    """[height, width] uint8, 255 on the strokes of a frame, 0 elsewhere; by default as large as the pose's
    canvas."""
    image = np.zeros((1, height or pose.height, width or pose.width), np.uint8)
    _draw(pose, {frame: 0}, image)
    return image[0]


def draw_poses(
    pose: PoseSequence,
    width: int | None = None,
    height: int | None = None,
    frames: Iterable[int] | None = None,
) -> np.ndarray:
    """[num_frames, height, width] uint8 as `draw_pose`; black wherever `frames` (None for all) leaves a frame
    out."""
    images = np.zeros((pose.num_frames, height or pose.height, width or pose.width), np.uint8)
    _draw(pose, {frame: frame for frame in (range(pose.num_frames) if frames is None else frames)}, images)
    return images


def condition_images(
    pose: PoseSequence,
    width: int,
    height: int,
    frames: Iterable[int] | None = None,
    canvas: int | None = NATIVE_SIDE,
) -> np.ndarray:
    """[num_frames, height, width] uint8: the pose pictures as the model was trained to see them.

    Drawn with `canvas` pixels on the longer side and scaled bilinearly to the model's size, so strokes have
    grey edges; None draws them at the model's size, without grey. The model takes them as RGB in [-1, 1]
    (`image / 127.5 - 1` in all three channels); frames without a pose are black (paper F).
    """
    if canvas is None:
        return draw_poses(pose, width, height, frames)
    scale = canvas / max(width, height)
    native = draw_poses(pose, max(int(width * scale), 1), max(int(height * scale), 1), frames)
    images = np.zeros((pose.num_frames, height, width), np.uint8)
    for image, drawn in zip(images, native):
        if drawn.any():
            image[:] = resize_bilinear(drawn, width, height)
    return images


def resize_bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale [h, w] uint8 to [height, width] with a triangle filter, which widens where the picture shrinks.

    The same as Pillow's `resize(..., BILINEAR)` to within one grey level.
    """
    for size in (width, height):  # along the rows, then, turned over, along the columns
        index, weight = _taps(image.shape[1], size)
        drawn = image.any(1)  # a black row stays black, and most of a pose picture's are
        rows = np.ascontiguousarray(image[drawn].T)
        scaled = rows[index[0]] * weight[0][:, None]
        for i, w in zip(index[1:], weight[1:]):
            scaled += rows[i] * w[:, None]
        image = np.zeros((size, len(drawn)), np.uint8)
        image[:, drawn] = (scaled + np.float32(0.5)).astype(np.uint8)
    return image


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights [taps, target] of a triangle filter between pixel centres."""
    scale = source / target
    reach = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale - 0.5
    index = np.floor(centre - reach).astype(int) + np.arange(1, math.ceil(2 * reach) + 1)[:, None]
    weight = np.maximum(1 - np.abs(index - centre) / reach, 0) * ((index >= 0) & (index < source))
    return index.clip(0, source - 1), (weight / weight.sum(0)).astype(np.float32)


def _draw(pose: PoseSequence, places: Mapping[int, int], images: np.ndarray) -> None:
    """Draw frames into `images` [F, height, width]; `places` maps each frame to the index of its image."""
    height, width = images.shape[1:]
    drawn = [pose.frame_points(frame) for frame in places]
    lengths = np.concatenate([lengths for _, lengths in drawn]) if drawn else np.zeros(0, int)
    if not len(lengths):
        return
    points = np.concatenate([points for points, _ in drawn])[:, :2].astype(float)  # they may lie far out
    points *= (width / pose.width, height / pose.height)
    ends = np.cumsum(lengths)
    start, end = np.delete(points, ends - 1, 0), np.delete(points, ends - lengths, 0)
    place = np.repeat(list(places.values()), [len(lengths) for _, lengths in drawn])
    place = np.repeat(place, lengths - 1)
    radius = max(LINE_WEIGHT * max(width, height), 1) / 2
    level = np.abs(end - start) @ [1, -1] >= 0
    _fill(images, place[level], start[level], end[level], radius)
    _fill(images.transpose(0, 2, 1), place[~level], start[~level, ::-1], end[~level, ::-1], radius)


def _fill(images: np.ndarray, place: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """Set the pixels of `images` [F, rows, columns] whose centres are within `radius` (L1) of strokes [S, 2]
    that are more level than upright: their nearest point is straight above or below, past an end the end
    itself. `place` [S] is the index of the image a stroke goes into."""
    rows, columns = images.shape[1:]
    backward = start[:, 0] > end[:, 0]
    start, end = np.where(backward[:, None], end, start), np.where(backward[:, None], start, end)
    run, rise = (end - start).T
    slope = np.divide(rise, run, out=np.zeros_like(run), where=run > 0)
    first = np.ceil(start[:, 0] - radius - 0.5).clip(0, columns).astype(int)
    count = np.floor(end[:, 0] + radius + 0.5).clip(0, columns).astype(int) - first
    visible = (np.minimum(start[:, 1], end[:, 1]) < rows + radius) & (
        np.maximum(start[:, 1], end[:, 1]) > -radius
    )
    count = np.where(visible, count.clip(0), 0)
    filled = np.cumsum(count)
    thickness = np.arange(math.ceil(2 * radius))
    for low in range(0, int(filled[-1]) if len(filled) else 0, _MAX_COLUMNS):
        done = np.arange(low, min(low + _MAX_COLUMNS, filled[-1]))
        stroke = np.searchsorted(filled, done, side="right")
        column = done - (filled[stroke] - count[stroke]) + first[stroke]
        x = column + 0.5
        nearest = x.clip(start[stroke, 0], end[stroke, 0])
        y = start[stroke, 1] + (nearest - start[stroke, 0]) * slope[stroke]
        half = radius - np.abs(x - nearest)
        top = np.ceil(y - half - 0.5).astype(int)
        bottom = np.ceil(y + half - 0.5).astype(int).clip(None, rows)
        row = top[:, None] + thickness
        inside = (row >= 0) & (row < bottom[:, None])
        which = np.nonzero(inside)[0]
        images[place[stroke][which], row[inside], column[which]] = 255
