"""The picture that the clip begins with: a render of the scene, or one the user gives, on the clip's
pixels."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from ..errors import ExportError
from ..view import Fit, SceneCamera, Viewport, fit


def render_frame(scene: bpy.types.Scene, view: SceneCamera | Viewport, placed: Fit) -> np.ndarray:
    """[H, W, 3] uint8 sRGB: the scene's current frame, rendered with its own engine and settings at just
    the size that the fit scales it to, and cropped. Every setting touched is put back. Raises `ExportError`
    when rendering fails."""
    with contextlib.ExitStack() as restored, tempfile.TemporaryDirectory() as folder:
        _set_up(restored, scene, view, placed)
        path = str(Path(folder, "frame.png"))
        try:
            outcome = bpy.ops.render.render(scene=scene.name)
            if "FINISHED" not in outcome:
                raise ExportError(
                    "Rendering the first frame was cancelled; export again or choose a picture."
                )
            bpy.data.images["Render Result"].save_render(path, scene=scene)
        except RuntimeError as error:
            reason = str(error).strip().removeprefix("Error: ").splitlines()[0].rstrip(".")
            raise ExportError(
                f"The first frame can't be rendered ({reason}); mend that or choose a picture."
            ) from None
        pixels = read_picture(path)
    return pixels[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]


def _set_up(restored: contextlib.ExitStack, scene, view, placed: Fit) -> None:
    frame_width, frame_height = view.frame_size(scene)
    # The scaled frame is rounded to whole pixels: make up for it, so that it still shows what the camera
    # sees.
    aspect = frame_width / frame_height / (placed.scaled_width / placed.scaled_height)
    set_ = _Setter(restored)
    set_(scene.render, "resolution_x", placed.scaled_width)
    set_(scene.render, "resolution_y", placed.scaled_height)
    set_(scene.render, "resolution_percentage", 100)
    set_(scene.render, "pixel_aspect_x", max(aspect, 1.0))
    set_(scene.render, "pixel_aspect_y", max(1 / aspect, 1.0))
    for unwanted in ("use_border", "use_sequencer", "use_multiview", "use_stamp"):
        set_(scene.render, unwanted, False)
    _write_png(restored, scene.render.image_settings)
    tree = scene.compositing_node_group if hasattr(scene, "compositing_node_group") else scene.node_tree
    for node in tree.nodes if tree is not None else ():
        if node.type == "OUTPUT_FILE":
            set_(node, "mute", True)
    if isinstance(view, Viewport):
        set_(scene, "camera", _stand_in(restored, scene, view))
    elif view.camera is not None:
        set_(scene, "camera", view.camera)


def _write_png(restored: contextlib.ExitStack, output: bpy.types.ImageFormatSettings) -> None:
    """Each of these settings may change those after it: all are read before the first is touched."""
    wanted = {"file_format": "PNG", "color_mode": "RGB", "color_depth": "8"}
    if hasattr(output, "media_type"):
        wanted = {"media_type": "IMAGE", **wanted}
    for name in reversed(wanted):
        restored.callback(setattr, output, name, getattr(output, name))
    for name, value in wanted.items():
        setattr(output, name, value)


class _Setter:
    """Sets an attribute until the stack unwinds."""

    def __init__(self, restored: contextlib.ExitStack):
        self._restored = restored

    def __call__(self, owner, name: str, value) -> None:
        self._restored.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)


def _stand_in(restored: contextlib.ExitStack, scene, view: Viewport) -> bpy.types.Object:
    data = bpy.data.cameras.new("PoseAnything Viewport")
    restored.callback(bpy.data.cameras.remove, data)
    camera = bpy.data.objects.new(data.name, data)
    restored.callback(bpy.data.objects.remove, camera)
    scene.collection.objects.link(camera)
    camera.rotation_mode = "QUATERNION"  # angles near the poles lose digits
    camera.matrix_world = Matrix(view.stand_in(data))
    return camera


def fit_picture(path: str, width: int, height: int) -> Iterator[None]:
    """A picture file fitted to the clip by the rule of `view.fit`, pausing on the way; the generator's
    return value is [height, width, 3] uint8 sRGB. Raises `ExportError` when the file can't be read."""
    pixels = read_picture(path)
    yield
    placed = fit(pixels.shape[1], pixels.shape[0], width, height)
    rows = yield from _resample(pixels, placed.scaled_height, placed.top, height)
    columns = yield from _resample(rows.transpose(1, 0, 2), placed.scaled_width, placed.left, width)
    return (columns.transpose(1, 0, 2) + 0.5).astype(np.uint8)


def _resample(lines: np.ndarray, scaled: int, first: int, count: int) -> Iterator[None]:
    """Lines `first` to `first + count` of [N, M, 3] lines scaled to `scaled` ones: the mean over the area
    that each covers when there are fewer than before, a linear blend of two when there are more.
    float32."""
    step = len(lines) / scaled
    begin = (first + np.arange(count)) * step
    if step < 1:
        begin, step = begin + (step - 1) / 2, 1.0
    taps = np.floor(begin).astype(int)[:, None] + np.arange(int(np.ceil(step)) + 1)
    shares = np.minimum(taps + 1, begin[:, None] + step) - np.maximum(taps, begin[:, None])
    shares = np.clip(shares, 0, None).astype(np.float32) / np.float32(step)
    taps = np.clip(taps, 0, len(lines) - 1)
    out = np.zeros((count, *lines.shape[1:]), np.float32)
    for tap, share in zip(taps.T, shares.T):
        for begin in range(0, count, 128):
            batch = slice(begin, begin + 128)
            out[batch] += lines[tap[batch]] * share[batch, None, None]
            yield
    return out


def read_picture(path: str) -> np.ndarray:
    """[H, W, 3] uint8 sRGB from any picture file that Blender reads, transparency over black. Raises
    `ExportError`."""
    try:
        image = bpy.data.images.load(path)
    except RuntimeError:
        raise ExportError(f"The picture {path} can't be read; choose another one.") from None
    try:
        width, height = image.size
        if not width or not height:
            raise ExportError(f"The picture {path} can't be read; choose another one.")
        pixels = np.empty((height, width, image.channels), np.float32)
        image.pixels.foreach_get(pixels.ravel())
        linear = image.is_float
        premultiplied = image.alpha_mode == "PREMUL"
    finally:
        bpy.data.images.remove(image)
    colour = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    if pixels.shape[2] == 4 and not premultiplied and (pixels[..., 3] < 1).any():
        colour = colour * pixels[..., 3:]
    if linear:
        colour = np.where(
            colour <= 0.0031308, colour * 12.92, 1.055 * np.maximum(colour, 0.0031308) ** (1 / 2.4) - 0.055
        )
    return (np.clip(colour[::-1], 0, 1) * 255 + 0.5).astype(np.uint8)
