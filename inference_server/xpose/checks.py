"""The cheap checks before the first stage: cuts, still pictures, black bars, length and frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .stages import Clip, Dropped, Record, SubjectPrompt
from .video import VideoFacts, probe, read_frames

STEP = 32
"""Pixels that a clip's sides are multiples of: a token of the model (a VAE of 16 and patches of 2)."""
LOOK = 160
"""Pixels of the longer side at which a video is looked through."""

# PySceneDetect's adaptive detector: its measure and its thresholds. The package itself needs `opencv-python`,
# which can't be installed beside the headless one.
CUT_RATIO = 3.0
CUT_CONTENT = 15.0
CUT_WINDOW = 2

BAR = 20
"""Grey level up to which a row or column is black."""
LEAST_BAR = 0.02
STILL = 0.12
"""Mean change of grey from frame to frame under which nothing moves; a codec's noise is about half of it."""


@dataclass(frozen=True)
class ClipSettings:
    """How clips are cut.

    frames: the most of a clip, 1 + 4 n. least_frames: the fewest. longer_side: of a clip, in pixels; videos
    are never enlarged. least_fps: slower videos are dropped. clips_per_video: the most, 0 for all.
    """

    frames: int = 81
    least_frames: int = 17
    longer_side: int = 832
    least_fps: float = 8.0
    clips_per_video: int = 0


@dataclass(frozen=True)
class Span:
    """Where a clip lies.

    name: the clip's. video: path below the folder of videos. first, count: frames at the rate of `facts`.
    window: (left, top, right, bottom) of the picture that is used, as fractions. width, height: of the clip.
    accepted: by hand, so that no stage's judgement drops it. follows: the name of the clip of the same shot
    whose last frame is this one's first, "" where there is none.
    """

    name: str
    video: str
    facts: VideoFacts
    first: int
    count: int
    window: tuple[float, float, float, float]
    width: int
    height: int
    accepted: bool = False
    follows: str = ""

    def record(self) -> Record:
        fps = self.facts.fps
        by_hand = "accepted by hand" if self.accepted else ""
        return Record(
            video=self.video,
            clip=self.name,
            notes=", ".join(filter(None, [self.facts.notes, by_hand])),
            begin=round(self.first / fps, 3),
            end=round((self.first + self.count) / fps, 3),
            width=self.width,
            height=self.height,
            frames=self.count,
            fps=round(fps, 4),
        )


@dataclass(frozen=True, eq=False)
class Look:
    """A video looked through at a small size, a value a frame.

    content: change from the frame before, PySceneDetect's content value. motion: the same in grey levels.
    bars: [F, 4] black rows and columns at left, top, right and bottom, as fractions.
    """

    content: np.ndarray
    motion: np.ndarray
    bars: np.ndarray


def plan_video(path: Path, video: str, settings: ClipSettings) -> tuple[list[Span], list[Record]]:
    """The clips of a video, and a record for each shot that gives none. Raises `Dropped` for all of it."""
    facts = probe(path)
    if facts.fps < settings.least_fps:
        raise Dropped(f"It has {facts.fps:.3g} frames a second; at least {settings.least_fps:g} are needed.")
    look = look_through(path, facts)
    frames = len(look.content)
    if frames < settings.least_frames:
        raise Dropped(f"It is too short: {frames} frames, and {settings.least_frames} are needed.")
    spans: list[Span] = []
    records: list[Record] = []
    edges = [0, *find_cuts(look.content), frames]
    for low, high in zip(edges, edges[1:]):
        before: Span | None = None  # in this shot
        for first in range(low, high, settings.frames - 1):
            count = (min(settings.frames, high - first) - 1) // 4 * 4 + 1
            if count < settings.least_frames:
                if first == low:
                    reason = (
                        f"The shot is too short: {high - low} frames, and {settings.least_frames} are needed."
                    )
                    records.append(_dropped(video, facts, low, high, reason))
                continue
            if float(look.motion[first + 1 : first + count].mean()) < STILL:
                records.append(_dropped(video, facts, first, first + count, "Nothing moves in it."))
                continue
            bars = look.bars[first : first + count].min(0)
            window, width, height = _window(facts, np.where(bars > LEAST_BAR, bars, 0), settings.longer_side)
            if width < STEP or height < STEP:
                records.append(_dropped(video, facts, first, first + count, "The picture is too small."))
                continue
            if settings.clips_per_video and len(spans) == settings.clips_per_video:
                return spans, records
            name = f"{video}#{len(spans) + 1:04d}"
            follows = before.name if before and before.first + before.count - 1 == first else ""
            before = Span(name, video, facts, first, count, window, width, height, follows=follows)
            spans.append(before)
    return spans, records


def _dropped(video: str, facts: VideoFacts, first: int, end: int, reason: str) -> Record:
    return Record(
        video=video,
        stage="checks",
        reason=reason,
        notes=facts.notes,
        begin=round(first / facts.fps, 3),
        end=round(end / facts.fps, 3),
        width=facts.width,
        height=facts.height,
        frames=end - first,
        fps=round(facts.fps, 4),
    )


def look_through(path: Path, facts: VideoFacts) -> Look:
    """Look through a whole video at a small size; memory for a few numbers a frame."""
    scale = min(1.0, LOOK / max(facts.width, facts.height))
    width, height = max(round(facts.width * scale), 2), max(round(facts.height * scale), 2)
    content, motion, bars, last = [], [], [], None
    for frame in read_frames(path, facts, width, height):
        hsv, grey = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV), cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if last is None:
            content.append(0.0)
            motion.append(0.0)
        else:
            content.append(float(np.mean(cv2.mean(cv2.absdiff(hsv, last[0]))[:3])))
            motion.append(float(cv2.mean(cv2.absdiff(grey, last[1]))[0]))
        bars.append([_bar(grey.max(0)), _bar(grey.max(1)), _bar(grey.max(0)[::-1]), _bar(grey.max(1)[::-1])])
        last = hsv, grey
    return Look(np.array(content), np.array(motion), np.array(bars, np.float32).reshape(-1, 4))


def _bar(brightest: np.ndarray) -> float:
    """The share of a side's rows or columns, from its edge on, that are black."""
    bright = np.nonzero(brightest > BAR)[0]
    return float(bright[0]) / len(brightest) if len(bright) else 0.0


def find_cuts(content: np.ndarray) -> list[int]:
    """The frames that begin a new shot: whose content changes much, and much more than around them."""
    cuts = []
    for frame in range(1, len(content)):
        around = np.r_[
            content[max(frame - CUT_WINDOW, 1) : frame], content[frame + 1 : frame + 1 + CUT_WINDOW]
        ]
        usual = float(around.mean()) if len(around) else 0.0
        if content[frame] >= CUT_CONTENT and content[frame] >= CUT_RATIO * max(usual, 1e-9):
            cuts.append(frame)
    return cuts


def _window(
    facts: VideoFacts, bars: np.ndarray, longer_side: int
) -> tuple[tuple[float, float, float, float], int, int]:
    """The part of the picture without bars that has the shape of whole tokens, and the clip's size."""
    left, top = float(bars[0]), float(bars[1])
    right, bottom = 1 - float(bars[2]), 1 - float(bars[3])
    inner = np.array([(right - left) * facts.width, (bottom - top) * facts.height])
    scale = min(1.0, longer_side / inner.max())
    size = np.floor(inner * scale / STEP + 1e-6) * STEP
    if (size < STEP).any():
        return (left, top, right, bottom), 0, 0
    used = size * float((inner / size).min()) / inner  # the largest part of that shape
    margins = (1 - used) / 2 * (right - left, bottom - top)
    window = (left + margins[0], top + margins[1], right - margins[0], bottom - margins[1])
    return tuple(float(edge) for edge in window), int(size[0]), int(size[1])


def load_clip(path: Path, span: Span, prompt: SubjectPrompt) -> Clip:
    """Read a clip. `prompt` is about the whole picture of the video. Raises `Dropped` where its end is
    damaged."""
    whole, place = _place(span)
    frames = np.empty((span.count, span.height, span.width, 3), np.uint8)
    number = 0
    for frame in read_frames(path, span.facts, *whole, span.first, span.count):
        frames[number] = frame[place]
        number += 1
    if number < span.count:
        raise Dropped(f"Only {number} of its {span.count} frames can be read; get the video again.")
    return Clip(span.name, frames, span.facts.fps, prompt_within(prompt, span.window))


def _place(span: Span) -> tuple[tuple[int, int], tuple[slice, slice]]:
    """Width and height of the video's whole picture at a clip's scale, and the clip's part of it."""
    left, top, right, bottom = span.window
    whole = round(span.width / (right - left)), round(span.height / (bottom - top))
    column, row = round(left * whole[0]), round(top * whole[1])
    return whole, np.s_[row : row + span.height, column : column + span.width]


def in_whole_picture(mask: np.ndarray, span: Span) -> np.ndarray:
    """A clip's mask, bool [h, w], in the whole picture of its video, bool [H, W]."""
    (width, height), place = _place(span)
    whole = np.zeros((height, width), bool)
    whole[place] = mask
    return whole


def prompt_within(prompt: SubjectPrompt, window: tuple[float, float, float, float]) -> SubjectPrompt:
    """The same prompt about a part of the picture."""
    low, size = np.array(window[:2]), np.array(window[2:]) - window[:2]

    def moved(points) -> tuple:
        return tuple(map(tuple, ((np.array(points).reshape(-1, 2) - low) / size).tolist()))

    mask = prompt.mask
    if mask is not None:
        height, width = mask.shape
        columns, rows = (
            np.round(np.array(window)[axis::2] * n).astype(int) for axis, n in enumerate((width, height))
        )
        mask = mask[rows[0] : rows[1], columns[0] : columns[1]]
    box = None if prompt.box is None else tuple(value for point in moved(prompt.box) for value in point)
    return SubjectPrompt(box, moved(prompt.points), moved(prompt.background), mask, prompt.text)
