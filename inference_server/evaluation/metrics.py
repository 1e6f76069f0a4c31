"""What is measured of a generated clip. Each measure takes frames 1 and on: frame 0 is given.

Clips are uint8 RGB [F, H, W, 3]; label maps uint8 [F, H, W], 0 where there is no limb.
"""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from shared.messages import GenerationRequest
from shared.raster import draw_pose

from .parts import SMALLEST_PART
from .subjects import camera_of, moved, without_subject

PCK_SHARE = 0.05
"""A part is in its place when it lies no farther from it than this share of the subject's larger side."""
FOREGROUND = 24.0
"""Difference from the background, in grey levels, from which on a pixel is the subject's."""
SHARES = np.linspace(-0.5, 1.5, 41)
"""Of the camera's way, those that a frame is held against."""
LEAST_SEEN = 0.1
"""Of the picture, what both of two frames show of the background that they are compared by."""
CAMERA_FRAMES = 8
"""How many frames of a clip are held against them."""
LEAST_SHIFT = 0.02
"""Of the picture's longer side, how far the camera moves the background in a frame that counts."""
CAMERA_SIDE = 128
"""Pixels of the longer side at which frames are held against the camera's way."""


def pixel_measures(
    frames: np.ndarray, truth: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, float]:
    """PSNR in dB, SSIM, and L1 on a scale of 0 to 1 over whole frames; with labels PSNR on the subject as
    well."""
    difference = frames[1:].astype(np.float32) - truth[1:].astype(np.float32)
    error = np.square(difference).mean(-1)
    measures = {
        "psnr": _decibels(error.mean()),
        "ssim": float(
            np.mean([structural_similarity(a, b, channel_axis=2) for a, b in zip(frames[1:], truth[1:])])
        ),
        "l1": float(np.abs(difference).mean() / 255),
    }
    if labels is not None:
        inside = labels[1:] > 0
        measures["psnr_subject"] = _decibels(error[inside].mean()) if inside.any() else float("nan")
    return measures


def _decibels(mean_squared: float) -> float:
    return float(10 * np.log10(255.0**2 / max(float(mean_squared), 1e-6)))


def detail(frames: np.ndarray, truth: np.ndarray, labels: np.ndarray | None = None) -> float:
    """Fine detail as a share of the truth's, with labels on the subject alone: 1 is as much, less is blurred,
    more is noise. PSNR rewards blur; this tells of it.

    It is the root mean square of the grey frames' Laplacian. NaN where the truth has none.
    """
    inside = np.ones(truth[1:].shape[:3], bool) if labels is None else labels[1:] > 0
    made, true = (
        np.stack([cv2.Laplacian(_grey(frame), cv2.CV_32F) for frame in of[1:]])[inside]
        for of in (frames, truth)
    )
    of_truth = np.square(true).mean() if inside.any() else 0.0
    return float(np.sqrt(np.square(made).mean() / of_truth)) if of_truth else float("nan")


def part_pck(frames: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """Whether each part lies where the truth has it (PCK), by its label: bool, for each frame that shows it.

    Where a part lies in the result is found by dense optical flow from the true frame to the generated one,
    the median over the part's pixels.
    """
    flow_of, hits = _flow(), defaultdict(list)
    for index in range(1, len(frames)):
        rows, columns = np.nonzero(labels[index])
        if not len(rows):
            continue
        limit = PCK_SHARE * max(np.ptp(rows) + 1, np.ptp(columns) + 1)
        flow = flow_of.calc(_grey(truth[index]), _grey(frames[index]), None)
        for part in np.unique(labels[index]):
            inside = labels[index] == part
            if part and inside.sum() >= SMALLEST_PART:
                hits[int(part)].append(np.hypot(*np.median(flow[inside], 0)) <= limit)
    return {part: np.array(own) for part, own in hits.items()}


def background_flow(frames: np.ndarray, request: GenerationRequest, labels: np.ndarray) -> dict[str, float]:
    """The background's flow from frame to frame against the camera that was asked for.

    Returns the mean distance of the two in pixels a frame, and where the camera moves the cosine between
    their medians (NaN where it is still).
    """
    size, flow_of = frames.shape[1:3], _flow()
    camera = camera_of(request.camera_motion, len(frames))
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    pixels = np.stack([x, y, np.ones_like(x)], -1)
    distances, cosines = [], []
    for index in range(1, len(frames)):
        free = (
            cv2.dilate(((labels[index - 1] > 0) | (labels[index] > 0)).astype(np.uint8), np.ones((9, 9))) == 0
        )
        if not free.any():
            continue
        step = camera[index] @ np.linalg.inv(camera[index - 1])
        there = pixels @ step.T
        asked = there[..., :2] / there[..., 2:] - pixels[..., :2]
        found = flow_of.calc(_grey(frames[index - 1]), _grey(frames[index]), None)
        distances.append(np.linalg.norm(found - asked, axis=-1)[free].mean())
        # Medians: something that moves over the background is not taken for it.
        a, b = np.median(found[free], 0), np.median(asked[free], 0)
        if np.linalg.norm(b) > 0.1:
            cosines.append(float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)))
    return {
        "background_flow_error": float(np.mean(distances)) if distances else float("nan"),
        "camera_cosine": float(np.mean(cosines)) if cosines else float("nan"),
    }


def camera_share(frames: np.ndarray, request: GenerationRequest, labels: np.ndarray) -> float:
    """How far the background has gone on the way that the camera asks for, as a share of it: a mean over up
    to `CAMERA_FRAMES` frames.

    The first frame's background is moved by shares of the way; the one counts that correlates best with the
    frame. Flow from frame to frame would miss jumps. NaN where the camera is still.
    """
    if request.camera_motion is None:
        return float("nan")
    height, width = frames.shape[1:3]
    camera = request.camera_motion[: len(frames)].astype(float)
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    there = corners @ camera.transpose(0, 2, 1)
    shifts = np.linalg.norm(there[..., :2] / there[..., 2:] - corners[:, :2], axis=-1).mean(1)
    counting = np.flatnonzero(shifts >= LEAST_SHIFT * max(width, height))
    if not len(counting):
        return float("nan")
    counting = counting[np.unique(np.linspace(0, len(counting) - 1, CAMERA_FRAMES).astype(int))]
    scale = CAMERA_SIDE / max(width, height)
    smaller = np.diag([scale, scale, 1])
    first = _background(frames[0], labels[0], scale)
    found = [
        _share_of_way(
            first,
            _background(frames[index], labels[index], scale),
            smaller @ camera[index] @ np.linalg.inv(smaller),
        )
        for index in counting
    ]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def _background(frame: np.ndarray, labels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A scaled and blurred frame, float32 [h, w, 3], and where it shows no subject, bool [h, w]."""
    small = cv2.resize(frame.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    free = cv2.resize((labels == 0).astype(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.GaussianBlur(small, (0, 0), CAMERA_SIDE / 64), free > 0


def _share_of_way(
    first: tuple[np.ndarray, np.ndarray], later: tuple[np.ndarray, np.ndarray], way: np.ndarray
) -> float:
    """The share of a homography by which one background (`_background`) fits another best; NaN where too
    little of both is seen."""
    fits = []
    for share in SHARES:
        part = np.eye(3) + share * (way - np.eye(3))
        free = moved(first[1].astype(np.uint8), part, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
        both = free & later[1]
        if both.mean() < LEAST_SEEN:
            fits.append(np.nan)
            continue
        pair = np.stack([moved(first[0], part)[both], later[0][both]])
        pair -= pair.mean(1, keepdims=True)
        fits.append((pair[0] * pair[1]).sum() / max(np.sqrt(np.square(pair).sum((1, 2)).prod()), 1e-9))
    return float(SHARES[np.nanargmax(fits)]) if np.isfinite(fits).any() else float("nan")


def pose_adherence(frames: np.ndarray, request: GenerationRequest, labels: np.ndarray) -> float:
    """Share of the pose's strokes that lie on the generated subject; needs no truth but frame 0's labels.
    What the subject has beside the strokes, `skeletons.skeleton_measures` tells.

    The subject is what differs from the background, which is frame 0 without its subject, moved by the
    camera. NaN where no stroke lies on known background or subject.
    """
    height, width = frames.shape[1:3]
    background = without_subject(frames[0], labels[0])
    camera = camera_of(request.camera_motion, len(frames))
    shares = []
    for index in range(1, len(frames)):
        stroke = draw_pose(request.pose, index, width, height) > 0
        behind = moved(background, camera[index])
        different = np.abs(frames[index].astype(np.float32) - behind).max(-1) > FOREGROUND
        different = cv2.dilate(different.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if stroke.any():
            shares.append(different[stroke].mean())
    return float(np.mean(shares)) if shares else float("nan")


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def _flow() -> cv2.DISOpticalFlow:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
