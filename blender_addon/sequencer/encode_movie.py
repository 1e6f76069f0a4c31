"""Encode folders of frames as movies. Run by a Blender of its own in the background, with the arguments

    FPS FPS_BASE MOVIES_FILE

MOVIES_FILE is a JSON table of each movie's path and its pictures, frame for frame, all in one folder; the
size is that of the first.
"""

import json
import sys
from pathlib import Path

import bpy


def encode(output: str, fps: int, fps_base: float, pictures: list[Path]) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strip = strips.new_image("take", str(pictures[0]), channel=1, frame_start=1, fit_method="ORIGINAL")
    render, size = scene.render, strip.elements[0]
    render.resolution_x, render.resolution_y = size.orig_width, size.orig_height
    for picture in pictures[1:]:
        strip.elements.append(picture.name)
    render.resolution_percentage = 100
    render.fps, render.fps_base = fps, fps_base
    scene.frame_start, scene.frame_end = 1, len(pictures)
    # The pictures are final: they pass through unchanged.
    render.dither_intensity = 0
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = "Standard"
    scene.sequencer_colorspace_settings.name = "sRGB"
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "VIDEO"
    render.image_settings.file_format = "FFMPEG"
    render.ffmpeg.format = "MPEG4"
    render.ffmpeg.codec = "H264"
    render.ffmpeg.constant_rate_factor = "HIGH"
    render.ffmpeg.audio_codec = "NONE"
    render.use_file_extension = False
    render.filepath = output
    bpy.ops.render.render(animation=True)


if __name__ == "__main__":
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    movies = json.loads(Path(arguments[2]).read_text(encoding="utf-8"))
    for movie, pictures in movies.items():
        encode(movie, int(arguments[0]), float(arguments[1]), [Path(picture) for picture in pictures])
