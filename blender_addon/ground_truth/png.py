"""Writing PNG pictures from arrays."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

BAND = 1 << 15
"""Pixels that are encoded between two pauses, at least a row."""


def encode_png(pixels: np.ndarray, level: int = 4) -> Iterator[None]:
    """Encode [H, W, 3] uint8 sRGB pixels, top row first, pausing after every band of rows; the generator's
    return value is the PNG file's bytes.

    Each row is stored as its difference from the left, from above, or from the Paeth predictor, whichever
    leaves the smallest sum of absolute values (the heuristic of the PNG specification, section 12.8).
    """
    height, width, _ = pixels.shape
    step = max(BAND // width, 1)
    compressor, packed = zlib.compressobj(level), []
    before = np.zeros_like(pixels[:1])
    for top in range(0, height, step):
        band = pixels[top : top + step]
        packed.append(compressor.compress(_filtered(band, before)))
        before = band[-1:]
        yield
    packed.append(compressor.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"sRGB", b"\0"), (b"IDAT", b"".join(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _filtered(pixels: np.ndarray, before: np.ndarray) -> np.ndarray:
    """[H, 1 + 3 W] uint8: rows as they are compressed, the filter first; `before` is the row above them."""
    height, width, _ = pixels.shape
    left, above, corner = (np.zeros((height, width, 3), np.int16) for _ in range(3))
    above[:1], above[1:] = before, pixels[:-1]
    left[:, 1:], corner[:, 1:] = pixels[:, :-1], above[:, :-1]
    to_left, to_above, to_corner = (
        np.abs(above - corner),
        np.abs(left - corner),
        np.abs(left + above - 2 * corner),
    )
    paeth = np.where(to_above <= to_corner, above, corner)
    paeth[(to_left <= to_above) & (to_left <= to_corner)] = left[
        (to_left <= to_above) & (to_left <= to_corner)
    ]

    rows = np.empty((height, 1 + width * 3), np.uint8)
    least = np.full(height, np.iinfo(np.int64).max)
    for kind, prediction in ((1, left), (2, above), (4, paeth)):
        residual = (pixels - prediction).astype(np.uint8).reshape(height, -1)
        cost = np.minimum(residual, 256 - residual.astype(np.int16)).sum(axis=1, dtype=np.int64)
        better = cost < least
        least[better] = cost[better]
        rows[better, 0], rows[better, 1:] = kind, residual[better]
    return rows


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
