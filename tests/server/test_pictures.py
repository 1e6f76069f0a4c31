"""Pictures of requests as Blender means them."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from inference_server.worker.pictures import encode_picture

from .client import png

ROTATED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""An EXIF block whose only entry is the orientation 6: a quarter turn to the right."""


def with_exif(picture: bytes, exif: bytes) -> bytes:
    chunk = b"eXIf" + exif
    at = picture.index(b"IDAT") - 4
    return (
        picture[:at]
        + struct.pack(">I", len(exif))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + picture[at:]
    )


@pytest.mark.parametrize("engine", ["draft", "poseanything"])
def test_a_picture_that_says_it_is_turned_is_taken_as_it_lies(engine):
    if engine == "poseanything":
        pytest.importorskip("torch")
        from inference_server.engines.poseanything.request import decode_picture
    else:
        from inference_server.engines.draft.clip import decode_picture
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    turned = with_exif(png(image), ROTATED)
    assert np.array_equal(decode_picture(turned, turn=False), image)
    assert decode_picture(turned).shape == (64, 48, 3), "a camera's own file is turned"


@pytest.mark.parametrize("size", [(48, 64), (1, 1), (33, 2)])
@pytest.mark.parametrize("kind", ["noise", "flat", "view"])
def test_png_files_hold_every_pixel_exactly(size, kind):
    """Noise comes out larger than it went in, but no larger than a client takes."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    if kind == "flat":
        image[:] = 7
    if kind == "view":
        image = np.repeat(image, 2, axis=1)[:, ::2]
    data = bytes(encode_picture(image, "png"))
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1], image)
    assert len(data) <= 3 * image.shape[0] * image.shape[1] * 1001 // 1000 + image.shape[0] + 65536
