"""Pictures from the bytes of their files. Needs no more than every engine has."""

from __future__ import annotations

import cv2
import numpy as np

from .latent_grid import InputError


def decode_picture(data: bytes | memoryview) -> np.ndarray:
    """uint8 [H, W, 3], RGB, of a picture file's bytes. Raises `InputError`."""
    data = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise InputError("The first frame can't be read; save it again, or choose another picture.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
