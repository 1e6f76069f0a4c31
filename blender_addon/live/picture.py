"""The latest live picture, for the 3D view and for Image Editors."""

from __future__ import annotations

import bpy
import gpu
import numpy as np

from ..shared.messages import LivePicture

IMAGE = "PoseAnything Live"
DECODED = ".PoseAnything Live"
"""Names with a dot are hidden from the user."""


def make_texture(pixels: np.ndarray) -> gpu.types.GPUTexture:
    """[H, W, 4] float32 from 0 to 1, bottom row first, as it is."""
    height, width = pixels.shape[:2]
    buffer = gpu.types.Buffer("FLOAT", pixels.size, pixels.reshape(-1))
    return gpu.types.GPUTexture((width, height), format="RGBA8", data=buffer)


def _decode(message: LivePicture, pixels: np.ndarray) -> bool:
    """Bring a picture file into pixels [H, W, 4] float32, bottom row first, as Blender reads it; whether it
    could be read."""
    image = bpy.data.images.get(DECODED)
    if image is None:  # one for all: Blender looks at everything anew when one is removed
        image = bpy.data.images.new(DECODED, 1, 1)
        image.source, image.filepath_raw = "FILE", f"{DECODED}.{message.format}"
    image.pack(data=bytes(message.data), data_len=len(message.data))
    image.buffers_free()
    if tuple(image.size) != (message.width, message.height):
        return False
    image.pixels.foreach_get(pixels.ravel())
    return True


class Picture:
    """`width` and `height` are 0 while there is none."""

    def __init__(self, name: str = IMAGE):
        self._name = name
        self.width = self.height = 0
        self._pixels: np.ndarray | None = None
        self._texture: gpu.types.GPUTexture | None = None
        self._filled = True

    def take(self, message: LivePicture) -> None:
        """Show a picture from now on. One that is compressed must not be taken while anything is drawn."""
        shape = message.height, message.width
        if self._pixels is None or self._pixels.shape[:2] != shape:
            self._pixels = np.ones((*shape, 4), np.float32)
        if message.format == "raw":
            rgb = np.frombuffer(message.data, np.uint8).reshape(*shape, 3)
            np.multiply(rgb[::-1], np.float32(1 / 255), out=self._pixels[..., :3])
        elif not _decode(message, self._pixels):
            return
        self.width, self.height = message.width, message.height
        self._texture, self._filled = None, False

    def texture(self) -> gpu.types.GPUTexture | None:
        """What is drawn, bottom row first, sRGB values as they are; made when it is first asked for."""
        if self._texture is None and self._pixels is not None:
            self._texture = make_texture(self._pixels)
        return self._texture

    def clear(self) -> None:
        """Give up what is kept. The image stays, for the editors that show it."""
        self.__init__(self._name)
        image = bpy.data.images.get(self._name)
        if image is not None:
            image.buffers_free()
        decoded = bpy.data.images.get(DECODED)
        if decoded is not None:
            bpy.data.images.remove(decoded)

    def fill_image(self) -> None:
        """Bring the latest picture into the image; not to be called while anything is drawn."""
        if self._filled:
            return
        image = bpy.data.images.get(self._name)
        if image is None or tuple(image.size) != (self.width, self.height):
            if image is not None and image.users == 0:
                bpy.data.images.remove(image)
                image = None
            if image is None:
                image = bpy.data.images.new(self._name, self.width, self.height)
            elif tuple(image.size) != (self.width, self.height):
                image.scale(self.width, self.height)
        elif image.users == 0:
            return  # nobody looks
        self._filled = True
        image.pixels.foreach_set(self._pixels.ravel())
        image.update()
