"""Pictures of requests as Blender means them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

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
