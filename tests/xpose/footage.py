"""Small videos with what real ones bring: a lizard that walks, and files of every kind of badness."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 160, 128


def lizard(count: int = 21, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [F, H, W, 3] of a lizard with four legs and a tail on a still ground, and its masks."""
    random = np.random.default_rng(seed)
    ground = cv2.resize(random.integers(90, 150, (16, 20, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    frames = np.empty((*masks.shape, 3), np.uint8)
    for number in range(count):
        x, swing, mask = 50 + 1.5 * number, 10 * np.sin(number * 0.7), masks[number]
        body = [(x - 22, 62), (x + 22, 62)]
        lines = [(body[0], body[1], 15), (body[0], (x - 45, 60 + swing), 5), (body[1], (x + 38, 54), 9)]
        for side, at in ((1, -18), (-1, -18), (-1, 18), (1, 18)):
            lines.append(((x + at, 62), (x + at + side * swing, 62 + (34 if side > 0 else -34)), 6))
        for start, end, thick in lines:
            cv2.line(mask, *(tuple(int(v) for v in point) for point in (start, end)), 1, thick, cv2.LINE_8)
        frames[number] = np.where(mask[..., None] > 0, np.uint8([200, 40, 30]), ground)
    return frames, masks > 0


def encode(
    path: Path,
    frames: np.ndarray,
    fps: float = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: list[float] | None = None,
    source: str = "rgb24",
    options: dict[str, str] | None = None,
    **context,
) -> Path:
    """Write frames; `times` in seconds for an uneven rate, `context` for the codec's fields,
    `options` its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "12", "preset": "ultrafast"}
        if options:
            stream.options = options
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        container.start_encoding()  # a file without frames is one too
        base = Fraction(1, 12000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format=source)
            frame.pts = round((times[number] if times else number / fps) / base)
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def encode_sound(path: Path) -> Path:
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path) -> None:
    """Have an MP4 say that it is to be shown turned by a quarter, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 8  # version, times, id, duration; reserved, layer, volume
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(data)
