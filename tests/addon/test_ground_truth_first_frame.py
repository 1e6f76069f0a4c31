"""The clip's first picture: rendered without a trace, or given and fitted."""

from __future__ import annotations

from contextlib import contextmanager

import bpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature, read_png, run, write_picture
from tests.addon.servers import module


def fitted(path, *given):
    first_frame = module("ground_truth.first_frame")
    return run(first_frame.fit_picture(first_frame.read_picture(str(path)), *given))[0]


pictures = st.tuples(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1, 16, 256])
)


@settings(max_examples=40)
@given(pictures)
def test_png_files_hold_every_pixel(addon, picture):
    height, width, seed, range_ = picture
    pixels = np.random.default_rng(seed).integers(0, range_, (height, width, 3)).astype(np.uint8)
    assert (read_png(run(module("ground_truth.png").encode_png(pixels))[0]) == pixels).all()


@pytest.mark.parametrize(("width", "height"), [(832, 480), (2048, 1152)])
def test_a_picture_is_encoded_in_bands_between_pauses(addon, width, height):
    rows = np.arange(height, dtype=np.uint8)[:, None, None]
    pixels = (rows * np.arange(width, dtype=np.uint8)[:, None] + np.array([0, 5, 9], np.uint8)).astype(
        np.uint8
    )
    data, pauses = run(module("ground_truth.png").encode_png(pixels))
    assert width * height / pauses <= 1.1 * 2**15
    assert (read_png(data) == pixels).all()


def test_a_picture_of_the_clips_size_is_taken_as_it_is(clean_scene, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    assert (fitted(write_picture(tmp_path / "a.png", pixels), 160, 96) == pixels).all()


def test_a_larger_picture_is_averaged_over_areas(clean_scene, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (288, 480, 3)).astype(np.uint8)
    expected = pixels.reshape(96, 3, 160, 3, 3).mean(axis=(1, 3))
    found = fitted(write_picture(tmp_path / "a.png", pixels), 160, 96)
    assert np.abs(found - expected).max() <= 0.51


def test_a_picture_of_another_aspect_is_cropped_around_its_centre(clean_scene, tmp_path):
    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:, 150:250] = 200  # its middle quarter
    found = fitted(write_picture(tmp_path / "a.png", pixels), 64, 64)
    assert (found == 200).all()


def test_a_small_picture_is_enlarged_smoothly(clean_scene, tmp_path):
    pixels = np.repeat(np.array([0, 100, 200], np.uint8)[None, :, None], 3, axis=0).repeat(3, axis=2)
    row = fitted(write_picture(tmp_path / "a.png", pixels), 96, 96)[48, :, 0].astype(int)
    assert row[0] == 0 and row[-1] == 200 and row[48] == pytest.approx(100, abs=3)
    assert (np.diff(row) >= 0).all() and np.diff(row).max() <= 5


def test_a_gradient_keeps_its_place(clean_scene, tmp_path):
    across = np.linspace(0, 255, 500)
    pixels = np.repeat(across[None, :, None], 300, axis=0).repeat(3, axis=2).astype(np.uint8)
    found = fitted(write_picture(tmp_path / "a.png", pixels), 160, 96)[40, :, 0]
    assert found == pytest.approx(across.reshape(-1)[(np.arange(160) * 500 / 160 + 1.06).astype(int)], abs=2)


def test_an_aligned_picture_lies_where_its_box_says(clean_scene, tmp_path):
    first_frame = module("ground_truth.first_frame")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 30:45] = 200
    path = str(write_picture(tmp_path / "a.png", pixels))
    alignment = first_frame.Alignment(scale=2.0, x=0.25, y=-0.25)
    left, top, width, height = alignment.box(module("view").fit(60, 40, 60, 40))
    assert (left, top, width, height) == (-15, -10, 120, 80)
    seen = fitted(path, 60, 40, alignment)[..., 0] > 100
    rows, columns = np.nonzero(seen)
    assert (rows.min(), rows.max() + 1) == (10, 30) and columns.min() == 45, "it goes on beyond the edge"
    assert not (seen == (fitted(path, 60, 40)[..., 0] > 100)).all()


@pytest.mark.parametrize("depth", ["8", "16"])
def test_deeper_pictures_keep_their_colours(clean_scene, tmp_path, depth):
    image = bpy.data.images.new("deep", 8, 8, float_buffer=depth == "16")
    value = 0.5 if depth == "8" else ((0.5 + 0.055) / 1.055) ** 2.4
    image.pixels.foreach_set(np.tile(np.array([value, value, value, 1], np.float32), 64))
    output = clean_scene.render.image_settings
    output.file_format, output.color_mode, output.color_depth = "PNG", "RGB", depth
    clean_scene.view_settings.view_transform = "Standard"
    path = str(tmp_path / "deep.png")
    image.save_render(path, scene=clean_scene)
    assert fitted(path, 32, 32) == pytest.approx(np.full((32, 32, 3), 128), abs=1.5)


def test_transparency_lies_over_black(clean_scene, tmp_path):
    image = bpy.data.images.new("see-through", 8, 8, alpha=True)
    image.pixels.foreach_set(np.tile(np.array([1, 0.5, 0, 0.5], np.float32), 64))
    image.file_format, image.filepath_raw = "PNG", str(tmp_path / "a.png")
    image.save()
    assert fitted(tmp_path / "a.png", 32, 32)[16, 16] == pytest.approx([128, 64, 0], abs=1.5)


@pytest.mark.parametrize("content", [None, b"not a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_picture_that_cant_be_read_is_one_sentence(clean_scene, tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        module("errors").ExportError, match=r"broken.png can't be read; choose another one\.$"
    ):
        fitted(path, 32, 32)
    assert not bpy.data.images


@pytest.fixture
def film(clean_scene):
    """A scene with all that rendering one frame must leave alone."""
    scene = clean_scene
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    add_camera()
    render = scene.render
    render.engine = "BLENDER_WORKBENCH"
    render.resolution_x, render.resolution_y, render.resolution_percentage = 1000, 500, 30
    render.pixel_aspect_x, render.pixel_aspect_y = 1.0, 1.5
    render.use_border = render.use_crop_to_border = True
    render.border_max_x = 0.4
    render.filepath = "//somewhere"
    output = render.image_settings
    if hasattr(output, "media_type"):
        output.media_type = "VIDEO"
    output.file_format = "FFMPEG"
    return scene, rig


def settings_of(scene) -> dict:
    owners = {"render": scene.render, "output": scene.render.image_settings}
    found = {"camera": scene.camera, "frame": scene.frame_current}
    for owner, group in owners.items():
        for item in group.bl_rna.properties:
            if item.type in {"BOOLEAN", "INT", "FLOAT", "ENUM", "STRING"} and not item.is_readonly:
                value = getattr(group, item.identifier)
                found[owner, item.identifier] = tuple(value) if getattr(item, "is_array", False) else value
    return found


OUTPUTS = {
    "video": ("VIDEO", "FFMPEG", "RGB", "8"),
    "exr": ("IMAGE", "OPEN_EXR", "RGBA", "32"),
    "multilayer": ("MULTI_LAYER_IMAGE", "OPEN_EXR_MULTILAYER", "RGBA", "32"),
    "tiff": ("IMAGE", "TIFF", "BW", "16"),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_rendering_the_first_frame_leaves_every_setting(film, output):
    scene, rig = film
    image = scene.render.image_settings
    for name, value in zip(("media_type", "file_format", "color_mode", "color_depth"), OUTPUTS[output]):
        if hasattr(image, name):
            setattr(image, name, value)
    scene.frame_set(7)
    before = settings_of(scene)
    clip = export([rig], frame_start=3, num_frames=2, first_frame="")
    assert settings_of(scene) == before
    assert read_png(clip.first_frame).shape == (160, 256, 3)
    assert not list(bpy.data.cameras)[1:]


@pytest.mark.parametrize(("engine", "first"), [("BLENDER_WORKBENCH", 20), ("CYCLES", -5)])
def test_a_frame_is_rendered_as_it_is_whatever_frame_is_current(film, engine, first):
    """A ball crosses the picture and the rig bends: another frame must not show through."""
    scene, rig = film
    scene.render.engine = engine
    scene.cycles.samples = 1
    bpy.ops.object.light_add(type="SUN")
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.3)
    ball, bone = bpy.context.object, rig.pose.bones["thigh.L"]
    bone.rotation_mode = "XYZ"
    for frame, x in ((-40, -2.0), (40, 2.0)):
        ball.location, bone.rotation_euler = (x, 0, 1.2), (x / 2, 0, 0)
        ball.keyframe_insert("location", frame=frame)
        bone.keyframe_insert("rotation_euler", frame=frame)
    view = module("view").SceneCamera()
    placed = module("view").fit(*view.frame_size(scene), 256, 160)
    render = module("ground_truth.scene_render").render_frame
    scene.frame_set(first)
    wanted = render(scene, view, placed, first)
    scene.frame_set(1)
    for other in (0, 1):
        assert (render(scene, view, placed, other) != wanted).any()
    assert (render(scene, view, placed, first) == wanted).all()
    assert scene.frame_current == 1


def test_no_thread_of_ours_is_at_work_while_a_frame_is_rendered(film):
    """Beside one, a render in a context override ends Blender 4.2 and 4.5."""
    threads, parked, seen = module("threads"), [], []

    @contextmanager
    def park(timeout):
        parked.append(timeout)
        yield True
        parked.clear()

    threads.add(park)
    bpy.app.handlers.render_pre.append(lambda *_: seen.append(bool(parked)))
    try:
        export([film[1]], num_frames=2, first_frame="")
    finally:
        bpy.app.handlers.render_pre.pop()
        threads.remove(park)
    assert seen == [True] and not parked


def test_settings_are_put_back_when_rendering_fails(film):
    scene, rig = film
    scene.frame_set(7)
    before = settings_of(scene)

    def fail(rendered, *_):
        rendered.camera = None

    bpy.app.handlers.render_pre.append(fail)
    try:
        with pytest.raises(module("errors").ExportError, match="first frame"):
            export([rig], first_frame="")
    except pytest.fail.Exception:
        pytest.skip("this Blender renders without a camera")
    finally:
        bpy.app.handlers.render_pre.remove(fail)
    assert settings_of(scene) == before


def test_bones_lie_where_the_render_shows_them(film):
    """Small balls at two bones' heads, seen through an anamorphic frame that is cropped on two sides."""
    scene, _ = film
    for obj in list(scene.objects):
        if obj.type != "CAMERA":
            bpy.data.objects.remove(obj)
    places = {"a": (1.2, 0, 0.3), "b": (-0.8, 0.5, 1.7)}
    rig = make_armature(
        "Dots", {name: (place, (*place[:2], place[2] + 0.1), "") for name, place in places.items()}
    )
    for place in places.values():
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.06, location=place)
    scene.display.shading.light, scene.display.shading.color_type = "FLAT", "SINGLE"
    scene.camera.data.shift_x = 0.05
    clip = export([rig], first_frame="", num_frames=1, width=512, height=320)
    picture = read_png(clip.first_frame).astype(float).sum(axis=2)
    weight = np.clip(picture - picture[0, 0], 0, None)
    for polyline in clip.pose.frame(0):
        x, y, _ = polyline.points[0]
        rows, columns = np.mgrid[0:320, 0:512] + 0.5
        near = weight * (np.hypot(columns - x, rows - y) < 25)
        assert (near * columns).sum() / near.sum() == pytest.approx(x, abs=0.3)
        assert (near * rows).sum() / near.sum() == pytest.approx(y, abs=0.3)


def test_the_sequencer_does_not_stand_in_for_the_scene(film):
    scene, rig = film
    plain = export([rig], first_frame="", num_frames=1)
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    given = {"length": 30} if bpy.app.version >= (5, 0, 0) else {"frame_end": 30}
    strip = strips.new_effect("c", "COLOR", channel=1, frame_start=1, **given)
    strip.color = (1, 0, 0)
    assert export([rig], first_frame="", num_frames=1).first_frame == plain.first_frame


def test_no_trace_is_left_of_a_render(film):
    """Not of its scene, nor of the camera that stands in for a viewport, nor of what a compositor became."""
    scene, rig = film
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        layers, output = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
        tree.links.new(layers.outputs["Image"], output.inputs["Image"])
        scene.compositing_node_group = tree
    else:
        scene.use_nodes = True
    before = [
        len(blocks) for blocks in (bpy.data.scenes, bpy.data.cameras, bpy.data.node_groups, bpy.data.objects)
    ]
    export([rig], first_frame="", num_frames=1)
    after = [
        len(blocks) for blocks in (bpy.data.scenes, bpy.data.cameras, bpy.data.node_groups, bpy.data.objects)
    ]
    assert after == before
    scene_render = module("ground_truth.scene_render")
    leftover = scene.copy()
    leftover[scene_render.MARK] = True
    scene_render.discard_leftovers()
    assert [len(bpy.data.scenes), len(bpy.data.cameras)] == before[:2]


def test_the_last_render_is_taken_if_it_shows_what_the_clip_begins_with(film):
    scene, _ = film
    last = module("ground_truth.last_render")
    error = module("errors").ExportError
    camera = scene.camera
    with pytest.raises(error, match="has no render yet; press F12"):
        last.read_last_render(scene, camera, 7)
    scene.render.use_border = False
    scene.frame_set(7)
    bpy.ops.render.render()
    before = settings_of(scene)
    assert last.read_last_render(scene, camera, 7).shape == (150, 300, 3)
    assert settings_of(scene) == before
    with pytest.raises(error, match="shows frame 7 of Scene through Camera, the clip begins with frame 8"):
        last.read_last_render(scene, camera, 8)
    other = bpy.data.objects.new("Other", camera.data)
    with pytest.raises(error, match="through Other; go there and press F12"):
        last.read_last_render(scene, other, 7)


def test_a_picture_is_read_again_only_when_its_file_changes(tmp_path):
    path, first_frame = tmp_path / "a.png", module("ground_truth.first_frame")
    write_picture(path, np.full((4, 4, 3), 90, np.uint8))
    before = first_frame.read_picture(str(path))
    assert first_frame.read_picture(str(path)) is before and not before.flags.writeable
    write_picture(path, np.full((4, 4, 3), 91, np.uint8))
    assert (first_frame.read_picture(str(path)) == 91).all()
    path.unlink()
    with pytest.raises(module("errors").ExportError, match="can't be read"):
        first_frame.read_picture(str(path))
