"""Pictures and the bytes of their files. Needs no more than every engine has."""

from __future__ import annotations

import cv2
import numpy as np

from .latent_grid import InputError


def read_picture(data: bytes | memoryview, turn: bool = True) -> np.ndarray | None:
    """uint8 [H, W, 3], RGB, of a picture file's bytes; None for what is no picture.

    With `turn`, it is turned as its EXIF orientation says: right for a camera's file. Blender doesn't, nor
    does a PNG's header know of it, so for a request's picture it is wrong.
    """
    data = np.frombuffer(data, np.uint8)
    flags = cv2.IMREAD_COLOR if turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_picture(data: bytes | memoryview, turn: bool = True) -> np.ndarray:
    """A first frame as `read_picture` reads it. Raises `InputError`."""
    image = read_picture(data, turn)
    if image is None:
        raise InputError("The first frame can't be read; save it again, or choose another picture.")
    return image


def encode_png(image: np.ndarray) -> bytes:
    """The file of a picture, uint8 [H, W, 3], RGB."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """The same as a JPEG, of a quality from 1 to 100."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
