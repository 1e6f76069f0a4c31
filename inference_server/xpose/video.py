"""Reading videos: their frames at an even rate, upright, in SDR, as large as is asked for.

PyAV rather than OpenCV, which can't tell sound from damage, nor HDR from SDR, drops times and transparency,
and has each frame converted at full size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
from av.video.frame import VideoFrame

from .stages import Dropped

SUFFIXES = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wmv",
    ".flv",
    ".ogv",
    ".gif",
    ".apng",
}
MOST_FPS = 30.0
PQ, HLG = 16, 18
"""Transfer functions of HDR, by ITU-T H.273."""
JUMP_BACK = 1.0
"""Seconds that are read again before where a clip begins."""


def find_videos(place: Path) -> list[Path]:
    """The videos of a folder and the folders in it, in the order of their names, or the one video."""
    if place.is_file():
        return [place]
    found = (path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    return sorted(found, key=lambda path: path.relative_to(place).as_posix())


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of its pictures.

    width, height: upright, of square pixels. fps: at which it is read, at most `MOST_FPS` (60 becomes 30).
    rotation: degrees that it is turned counter-clockwise to be upright. transfer: by ITU-T H.273. frames: as
    the file says, 0 where it does not. notes: what is worth telling, such as "HDR". interlaced: a frame is
    two fields, of different times.
    """

    width: int
    height: int
    fps: float
    source_fps: float
    rotation: int
    transfer: int
    transparent: bool
    frames: int
    notes: str
    interlaced: bool = False


def probe(path: Path) -> VideoFacts:
    """Read what a file says of itself and its first frame. Raises `Dropped`."""
    with _opened(path) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except (av.FFmpegError, ValueError) as error:
            raise Dropped(
                f"No picture of it can be read ({_reason_of(error)}); get it again, or as an MP4."
            ) from error
        if first is None:
            raise Dropped("It has no frames.")
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        guessed = float(stream.guessed_rate or rate)
        if not 0 < rate < 1000:
            raise Dropped("It has no frame rate.")
        fps = rate
        while fps > MOST_FPS * 1.01:
            fps /= 2
        rotation = int(first.rotation) % 360 // 90 * 90
        width, height = _square(first.width, first.height, stream.sample_aspect_ratio)
        if rotation % 180:
            width, height = height, width
        transparent = any(component.is_alpha for component in first.format.components)
        notes = []
        if rotation:
            notes.append(f"turned by {rotation} degrees")
        if int(first.color_trc) in (PQ, HLG):
            notes.append("HDR, mapped to SDR")
        if transparent and first.to_ndarray(format="rgba")[..., 3].min() < 255:
            notes.append("transparency laid on black")
        if first.interlaced_frame:
            notes.append("interlaced, made progressive")
        if abs(guessed - rate) > 0.02 * rate:
            notes.append("variable frame rate, made even")
        return VideoFacts(
            width,
            height,
            fps,
            rate,
            rotation,
            int(first.color_trc),
            transparent,
            stream.frames,
            ", ".join(notes),
            bool(first.interlaced_frame),
        )


def _square(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """A picture's size with square pixels; none is lost. aspect: a pixel's width by its height."""
    if not aspect or not 0.1 < aspect < 10:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def read_frames(
    path: Path, facts: VideoFacts, width: int, height: int, first: int = 0, count: int | None = None
) -> Iterator[np.ndarray]:
    """The frames `first` and after at the even rate `facts.fps`, uint8 [height, width, 3] RGB, upright.

    A file that is damaged ends early. Raises `Dropped` where it can't be opened.
    """
    with _opened(path) as (container, stream):
        begin = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        sought = begin + first / facts.fps - JUMP_BACK
        if sought > begin and stream.time_base:
            container.seek(int(sought / stream.time_base), stream=stream, backward=True)
        tolerance = 0.5 * facts.fps / facts.source_fps  # half a frame of the file takes up rounded times
        number, held, at, given = first, None, 0.0, 0
        for time, frame in _decoded(container, stream, begin, facts.interlaced):
            # A frame is shown from its time on, until the next one's.
            while held is not None and number + tolerance <= time * facts.fps:
                yield _picture(held, facts, width, height)
                number, given = number + 1, given + 1
                if given == count:
                    return
            held, at = frame, time * facts.fps
            if not given and at > number + tolerance:
                number = max(number, round(at))  # the file begins late
        if held is not None and at >= number - tolerance:
            yield _picture(held, facts, width, height)


def _decoded(container, stream, begin: float, interlaced: bool) -> Iterator[tuple[float, VideoFrame]]:
    """(seconds from the beginning, frame) in the order of showing; what can't be decoded is left out."""
    frames = _decodable(container, stream)
    last = -np.inf
    for frame in _progressive(frames, stream) if interlaced else frames:
        time = frame.time
        time = last + 1e-3 if time is None else float(time) - begin
        if time > last:
            yield time, frame
            last = time


def _decodable(container, stream) -> Iterator[VideoFrame]:
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except (av.FFmpegError, ValueError):
                continue
    except av.FFmpegError:
        return  # cut off in the middle of a packet


def _progressive(frames: Iterator[VideoFrame], stream) -> Iterator[VideoFrame]:
    """Frames of two fields as frames of the first one's time, by the filter bwdif."""
    graph = av.filter.Graph()
    ends = graph.add_buffer(template=stream), graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")
    graph.link_nodes(*ends).configure()
    for frame in itertools.chain(frames, [None]):  # None ends it
        graph.vpush(frame)
        try:
            while True:
                yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            continue


def _picture(frame: VideoFrame, facts: VideoFacts, width: int, height: int) -> np.ndarray:
    if facts.rotation % 180:
        width, height = height, width
    if facts.transparent:
        image = frame.to_ndarray(width=width, height=height, format="rgba", interpolation="AREA")
        image = (image[..., :3].astype(np.uint16) * image[..., 3:] // 255).astype(np.uint8)
    elif facts.transfer in (PQ, HLG):
        image = _to_sdr(
            frame.to_ndarray(width=width, height=height, format="rgb48le", interpolation="AREA"),
            facts.transfer,
        )
    else:
        image = frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(np.rot90(image, facts.rotation // 90))


REC2020_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear light, ITU-R BT.2087."""


def _to_sdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 RGB in PQ or HLG (ITU-R BT.2100) to uint8 sRGB: reference white (BT.2408: 203 cd/m2) stays a
    little under white, what is brighter is rolled off."""
    signal = image.astype(np.float32) / 65535
    if transfer == PQ:
        power = signal ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        light *= 10000 / 203
    else:
        light = np.where(
            signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        light *= 1000 / 203 * np.maximum(light.max(-1, keepdims=True), 1e-6) ** 0.2
    light = np.maximum(light @ REC2020_TO_709.T, 0)
    light = np.where(light > 0.8, 0.8 + 0.2 * (1 - np.exp(-(light - 0.8) / 0.2)), light)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(srgb.clip(0, 1) * 255).astype(np.uint8)


@contextmanager
def _opened(path: Path):
    """The container and its first moving picture. Raises `Dropped`."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Dropped(f"It can't be read as a video ({_reason_of(error)}); get it again.") from error
    with container:
        moving = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not len(container.streams):
            raise Dropped("There is nothing in it: it is damaged, or was not finished; get it again.")
        if not moving:
            raise Dropped("It has sound but no picture." if container.streams.audio else "It has no picture.")
        moving[0].thread_type = "AUTO"
        moving[0].codec_context.thread_count = 1  # the processes share the cores
        yield container, moving[0]


def _reason_of(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
