"""Finished pictures in the format that the client asked for."""

from __future__ import annotations

import cv2
import numpy as np


def encode_picture(image: np.ndarray, format: str) -> memoryview:
    """An RGB uint8 [height, width, 3] picture as a PNG or JPEG file, or "raw", as its own memory.

    OpenCV's defaults for PNG are the fastest of its lossless settings: zlib's first level on differences to
    the left pixel."""
    if format == "raw":
        return np.ascontiguousarray(image).data.cast("B")
    settings = [cv2.IMWRITE_JPEG_QUALITY, 95] if format == "jpeg" else []
    _, data = cv2.imencode(f".{format}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    return data.data
