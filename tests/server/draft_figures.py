"""Jointed figures whose every frame can be drawn exactly: what the draft engine makes of them has a truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from inference_server.engines.base import Picture
from inference_server.engines.draft import DraftEngine
from shared.messages import GenerationRequest
from shared.pose import Limb, Polyline, PoseSequence

from .client import png

WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class Stick:
    """A limb: a thick line with round ends, from its parent's end on (or from the figure's place)."""

    name: str
    parent: int | None
    length: float
    radius: float
    colour: tuple[int, int, int]
    depth: float


WALKER = (
    Stick("spine", None, 90, 24, (190, 90, 60), 5.0),
    Stick("head", 0, 30, 17, (220, 180, 90), 5.0),
    Stick("thigh.R", None, 45, 12, (90, 60, 170), 5.3),
    Stick("shin.R", 2, 45, 9, (60, 40, 120), 5.3),
    Stick("thigh.L", None, 45, 12, (90, 170, 60), 4.7),
    Stick("shin.L", 4, 45, 9, (60, 120, 40), 4.7),
)
"""Someone seen from the side, lying on the spine like a quadruped without forelegs; legs hang from the
place."""


def ground(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Grainy stripes, as a sky over a field is."""
    rng = np.random.default_rng(7)
    rows = np.linspace(230, 120, height)[:, None, None] * np.array([0.7, 0.85, 1.0])
    grain = cv2.GaussianBlur(rng.normal(0, 20, (height, width)).astype(np.float32), (0, 0), 1.5)
    return np.clip(rows + grain[..., None], 0, 255).astype(np.uint8)


def bones(sticks, angles, place, scale=1.0) -> list[np.ndarray]:
    """[2, 3] x, y, depth of each stick; angles in degrees, 0 to the right, 90 down."""
    ends = []
    for stick, angle in zip(sticks, angles):
        start = np.array(place, float) if stick.parent is None else ends[stick.parent][1, :2]
        reach = (
            stick.length * scale * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        )
        ends.append(np.array([[*start, stick.depth], [*(start + reach), stick.depth]]))
    return ends


def draw(sticks, ends, picture, scale=1.0) -> tuple[np.ndarray, np.ndarray]:
    """The picture with the figure on it, and whose pixel is whose (index + 1)."""
    picture, labels = picture.copy(), np.zeros(picture.shape[:2], np.uint8)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    for index in sorted(range(len(sticks)), key=lambda i: -sticks[i].depth):
        (a, b), stick = ends[index][:, :2], sticks[index]
        axis = b - a
        t = np.clip(((x - a[0]) * axis[0] + (y - a[1]) * axis[1]) / max(axis @ axis, 1e-9), 0, 1)
        away = np.hypot(x - a[0] - t * axis[0], y - a[1] - t * axis[1])
        inside = away <= stick.radius * scale
        shade = 1 - 0.35 * (away / (stick.radius * scale)) ** 2 + 0.12 * np.cos(12 * t)
        picture[inside] = np.clip(shade[inside, None] * np.array(stick.colour), 0, 255)
        labels[inside] = index + 1
    return picture, labels


def walk(
    frames: int, travel: float = 0.0
) -> tuple[list[list[np.ndarray]], list[np.ndarray], list[np.ndarray]]:
    """Bones, pictures and labels of a walker's every frame; it goes `travel` pixels in all."""
    poses, pictures, labels = [], [], []
    for frame in range(frames):
        t = frame / max(frames - 1, 1)
        swing = 28 * math.sin(2 * math.pi * t + 0.6)
        angles = (
            0,
            -40 + 15 * math.sin(2 * math.pi * t),
            90 - swing,
            100 - 1.4 * swing,
            90 + swing,
            105 + swing,
        )
        ends = bones(WALKER, angles, (90 + travel * t, 110))
        picture, label = draw(WALKER, ends, ground())
        poses.append(ends)
        pictures.append(picture)
        labels.append(label)
    return poses, pictures, labels


def pose_of(sticks, poses, width: int = WIDTH, height: int = HEIGHT) -> PoseSequence:
    names = [stick.name for stick in sticks]
    frames = [[Polyline(i, ends) for i, ends in enumerate(pose)] for pose in poses]
    return PoseSequence.from_frames(
        width, height, names, [Limb(name, i) for i, name in enumerate(names)], frames
    )


def ask(picture: np.ndarray, pose: PoseSequence, **fields) -> GenerationRequest:
    height, width = picture.shape[:2]
    return GenerationRequest(
        job="figure",
        engine="draft",
        width=width,
        height=height,
        num_frames=pose.num_frames,
        fps=24.0,
        first_frame=png(picture),
        pose=pose,
        **fields,
    )


def shoot(request: GenerationRequest) -> tuple[list[np.ndarray], str]:
    """The clip's pictures and the note."""
    events, pictures = DraftEngine().generate(request, lambda: False), []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            assert [p.index for p in pictures] == list(range(request.num_frames))
            return [p.image for p in pictures], end.value
        if isinstance(event, Picture):
            assert event.image.shape == (request.height, request.width, 3) and event.image.dtype == np.uint8
            pictures.append(event)
