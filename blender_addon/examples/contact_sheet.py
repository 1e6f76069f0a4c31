"""A picture of a whole take: what was asked above, what came back below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bpy

COLUMNS, CELL, MARGIN, HEAD = 5, 416, 12, 34
GREY = (24 / 255,) * 3
ONE_FRAME = {"length": 1} if bpy.app.version >= (5, 0, 0) else {"frame_end": 2}


def contact_sheet(
    size: tuple[int, int],
    first_frame: Path,
    poses: Sequence[Path],
    results: Sequence[Path],
    title: str,
    path: Path,
) -> Path:
    """Write a PNG: the first frame at the left, then a row of poses above a row of results at evenly spread
    frames. `size` is that of all pictures, in pixels."""
    scene = bpy.data.scenes.new("Contact Sheet")
    try:
        sheet = _Sheet(scene, size)
        sheet.write(title, MARGIN, HEAD / 2, 20)
        sheet.put(first_frame, "first frame", 0, 0)
        for column in range(COLUMNS):
            index = round(column * (len(results) - 1) / (COLUMNS - 1))
            sheet.put(poses[index], f"pose {index + 1}", column + 1, 0)
            sheet.put(results[index], f"result {index + 1}", column + 1, 1)
        scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True, scene=scene.name)
    finally:
        bpy.data.scenes.remove(scene)
    return path


class _Sheet:
    """A scene whose sequencer composes pictures and captions over a grey ground."""

    def __init__(self, scene: bpy.types.Scene, size: tuple[int, int]):
        self._scale = CELL / size[0]
        self._height = round(size[1] * self._scale)
        render = scene.render
        render.resolution_x = MARGIN + (COLUMNS + 1) * (CELL + MARGIN)
        render.resolution_y = HEAD + 2 * (self._height + MARGIN)
        render.resolution_percentage, render.dither_intensity = 100, 0
        render.image_settings.file_format = "PNG"
        scene.view_settings.view_transform = "Standard"
        scene.frame_start = scene.frame_end = 1
        self._render, self._strips, self._channel = render, scene.sequence_editor_create().strips, 1
        ground = self._strips.new_effect("Ground", "COLOR", channel=1, frame_start=1, **ONE_FRAME)
        ground.color = GREY

    def put(self, picture: Path, caption: str, column: int, row: int) -> None:
        """A picture in a cell, its caption over its lower left corner."""
        left, top = MARGIN + column * (CELL + MARGIN), HEAD + row * (self._height + MARGIN)
        self._channel += 1
        strip = self._strips.new_image(
            picture.name, str(picture), channel=self._channel, frame_start=1, fit_method="ORIGINAL"
        )
        strip.transform.scale_x = strip.transform.scale_y = self._scale
        strip.transform.offset_x = left + CELL / 2 - self._render.resolution_x / 2
        strip.transform.offset_y = self._render.resolution_y / 2 - top - self._height / 2
        self.write(caption, left + 8, top + self._height - 16, 17)

    def write(self, text: str, left: float, middle: float, size: int) -> None:
        """Text from `left` on, its middle `middle` pixels below the sheet's upper edge."""
        self._channel += 1
        strip = self._strips.new_effect(text, "TEXT", channel=self._channel, frame_start=1, **ONE_FRAME)
        strip.text, strip.font_size, strip.use_shadow = text, size, True
        strip.anchor_x, strip.anchor_y = "LEFT", "CENTER"
        strip.location = left / self._render.resolution_x, 1 - middle / self._render.resolution_y
