"""Contact sheets: frames, masks and skeletons of a clip in one picture."""

from __future__ import annotations

import cv2
import numpy as np

from shared.pose import PoseSequence

from ..poseanything.conditioning.pictures import encode_jpeg

SHOWN = 6
WIDTH = 240
COLOURS = cv2.applyColorMap(
    (np.arange(256) * 67 % 256).astype(np.uint8).reshape(-1, 1), cv2.COLORMAP_HSV
).reshape(-1, 3)[:, ::-1]
"""RGB by limb index."""


def draw_segments(image: np.ndarray, pose: PoseSequence, frame: int, thickness: int = 2) -> None:
    """Draw a frame's segments into uint8 [H, W, 3] of any size, a colour for each limb."""
    scale = np.array([image.shape[1] / pose.width, image.shape[0] / pose.height])
    points, lengths = pose.frame_points(frame)
    low = int(pose.offsets[frame])
    for number, (end, length) in enumerate(zip(np.cumsum(lengths), lengths)):
        line = np.round((points[end - length : end, :2] * scale - 0.5) * 16).astype(np.int32)
        colour = [int(value) for value in COLOURS[pose.owners[low + number]]]
        cv2.polylines(image, [line], False, colour, thickness, cv2.LINE_AA, 4)


def draw_sheet(frames: np.ndarray, masks: np.ndarray, pose: PoseSequence | None) -> bytes:
    """A JPEG of three rows: frames spread over the clip, the subject's masks, the segments."""
    height = round(WIDTH * frames.shape[1] / frames.shape[2])
    rows: list[list[np.ndarray]] = [[], [], []]
    for number in np.unique(np.linspace(0, len(frames) - 1, SHOWN).astype(int)):
        frame = cv2.resize(frames[number], (WIDTH, height), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(masks[number].astype(np.uint8), (WIDTH, height), interpolation=cv2.INTER_AREA)
        over = (frame * 0.55).astype(np.uint8)
        if pose is not None:
            draw_segments(over, pose, int(number))
        rows[0].append(frame)
        rows[1].append(np.where(mask[..., None] > 0, frame, np.uint8(30)))
        rows[2].append(over)
    sheet = np.concatenate([np.concatenate(row, 1) for row in rows])
    return encode_jpeg(sheet, 82)
