"""Bones land on the clip's pixels where Blender's own camera says they do, and strokes are cut where they
can't be seen."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mathutils import Euler, Vector

from tests.addon.rigs import add_camera, run
from tests.addon.servers import module

many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

between = st.floats
cameras = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["PERSP", "ORTHO"]),
        "lens": between(12, 200),
        "ortho_scale": between(2, 10),
        "sensor_fit": st.sampled_from(["AUTO", "HORIZONTAL", "VERTICAL"]),
        "sensor_width": between(10, 60),
        "sensor_height": between(10, 60),
        "shift_x": between(-0.4, 0.4),
        "shift_y": between(-0.4, 0.4),
    }
)
renders = st.fixed_dictionaries(
    {
        "resolution_x": st.integers(64, 4096),
        "resolution_y": st.integers(64, 4096),
        "resolution_percentage": st.sampled_from([25, 50, 100]),
        "pixel_aspect_x": between(1, 2),
        "pixel_aspect_y": between(1, 2),
        "use_border": st.booleans(),
    }
)
angles = st.tuples(*[between(-math.pi, math.pi)] * 3)
points = st.lists(st.tuples(between(0, 1), between(0, 1), between(0.5, 3)), min_size=1, max_size=8)


def lens_now(view=None):
    view = view or module("view").SceneCamera()
    return view.lens(bpy.context.scene, bpy.context.evaluated_depsgraph_get())


def projector_now(width, height, view=None):
    view = view or module("view").SceneCamera()
    fit = module("view").fit(*view.frame_size(bpy.context.scene), width, height)
    return module("view.projection").Projector([lens_now(view)], fit)


def cut(projector, path):
    """The pieces of one stroke in the first frame."""
    pose = module("shared.pose")
    path = np.array(path, float)[None]
    sequence, _ = run(projector.strokes(path, np.array([path.shape[1]]), [pose.Limb("limb", 0)], ["part"]))
    return [polyline.points for polyline in sequence.frame(0)]


def in_frame(camera, u, v, depth):
    """The world point at fractions (u, v) of the camera's frame, from its lower left corner, `depth` away."""
    frame = np.array(camera.data.view_frame(scene=bpy.context.scene))
    low, high = frame.min(axis=0), frame.max(axis=0)
    scale = 1.0 if camera.data.type == "ORTHO" else depth / -frame[0, 2]
    x, y = (low[:2] + (high[:2] - low[:2]) * (u, v)) * scale
    return camera.matrix_world.normalized() @ Vector((x, y, -depth))


def camera_view(scene, camera, point):
    """`bpy_extras.object_utils.world_to_camera_view` in double precision: the original's single precision
    is off by up to some 1e-4 pixels itself."""
    placed = np.linalg.inv(np.array(camera.matrix_world.normalized(), float))
    x, y, z = placed[:3, :3] @ point + placed[:3, 3]
    frame = np.array(camera.data.view_frame(scene=scene), float)[:3]
    if camera.data.type != "ORTHO":
        frame *= -z / -frame[:, 2:]
    low, high = frame[2, 0], frame[1, 0]
    bottom, top = frame[1, 1], frame[0, 1]
    return (x - low) / (high - low), (y - bottom) / (top - bottom), -z


@many
@given(cameras, renders, angles, points)
def test_points_land_where_blenders_own_camera_sees_them(clean_scene, camera, render, turn, seen):
    scene = bpy.context.scene
    for name, value in render.items():
        setattr(scene.render, name, value)
    placed = scene.camera or add_camera()
    for name, value in camera.items():
        setattr(placed.data, name, value)
    placed.location, placed.rotation_euler, placed.scale = (0.5, -0.3, 0.2), Euler(turn), (2, 2, 2)
    bpy.context.view_layer.update()
    world = [in_frame(placed, u, v, depth) for u, v, depth in seen]
    fit = module("view").fit(*module("view").SceneCamera().frame_size(scene), 832, 480)
    found = projector_now(832, 480).project(np.array(world, float)[None])[0]
    for point, (x, y, depth) in zip(world, found):
        # Blender's matrices are single precision: what they allow grows with the frame.
        size = max(fit.scaled_width, fit.scaled_height) / 832
        for (u, v, distance), near in (
            (camera_view(scene, placed, point), 1e-4 * size),
            (world_to_camera_view(scene, placed, point), 5e-3 * size),
        ):
            assert x == pytest.approx(u * fit.scaled_width - fit.left, abs=near)
            assert y == pytest.approx((1 - v) * fit.scaled_height - fit.top, abs=near)
            assert depth == pytest.approx(distance, abs=1e-5)


@given(st.integers(16, 5000), st.integers(16, 5000), st.integers(1, 60), st.integers(1, 60))
def test_a_frame_covers_the_clip_centred_and_undistorted(addon, frame_width, frame_height, width, height):
    width, height = 32 * width, 32 * height
    fit = module("view").fit(frame_width, frame_height, width, height)
    assert fit.scaled_width == width or fit.scaled_height == height
    assert fit.left >= 0 and fit.top >= 0
    assert fit.scaled_width - width == 2 * fit.left and fit.scaled_height - height == 2 * fit.top
    scale = max(width / frame_width, height / frame_height)
    assert (
        abs(fit.scaled_width - frame_width * scale) <= 1.01
        and abs(fit.scaled_height - frame_height * scale) <= 1.01
    )
    left, top, right, bottom = fit.shown
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1


@pytest.mark.parametrize(
    ("resolution", "aspect", "size"),
    [
        ((1920, 1080), (1, 1), (832, 480)),
        ((1080, 1920), (1, 1), (480, 832)),
        ((1000, 1000), (1, 1), (832, 832)),
        ((1440, 1080), (4, 3), (832, 480)),
        ((4000, 100), (1, 1), (832, 32)),
    ],
)
def test_the_clip_has_the_frames_aspect_in_whole_blocks(clean_scene, resolution, aspect, size):
    render = clean_scene.render
    render.resolution_x, render.resolution_y = resolution
    render.pixel_aspect_x, render.pixel_aspect_y = aspect
    assert module("view").clip_size(clean_scene) == size


def test_a_camera_with_an_animated_lens_zooms(clean_scene):
    camera = add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10)
    for frame, lens in ((1, 35.0), (11, 70.0)):
        camera.data.lens = lens
        camera.data.keyframe_insert("lens", frame=frame)
    xs = []
    for frame in (1, 11):
        clean_scene.frame_set(frame)
        xs.append(projector_now(832, 480).project(np.array([[[1.0, 0.0, 0.0]]]))[0, 0, 0] - 416)
    assert xs[1] == pytest.approx(2 * xs[0])


def test_markers_switch_the_camera_within_the_shot(clean_scene):
    left, right = add_camera(direction=(-1, 0, 0)), add_camera(direction=(1, 0, 0))
    for frame, camera in ((1, left), (5, right)):
        clean_scene.timeline_markers.new(camera.name, frame=frame).camera = camera
    for frame, camera in ((2, left), (7, right)):
        clean_scene.frame_set(frame)
        assert lens_now().view == pytest.approx(np.linalg.inv(np.array(camera.matrix_world)), abs=1e-5)


@pytest.mark.parametrize("kind", ["PANO", "CUSTOM"])
def test_a_camera_without_a_flat_picture_is_refused(clean_scene, kind):
    camera = add_camera()
    if kind not in camera.data.bl_rna.properties["type"].enum_items:
        pytest.skip(f"this Blender has no {kind} cameras")
    camera.data.type = kind
    with pytest.raises(module("errors").ExportError, match="neither perspective nor orthographic"):
        lens_now()


def test_a_camera_that_is_scaled_to_nothing_is_refused(clean_scene):
    add_camera().scale.x = 0
    bpy.context.view_layer.update()
    with pytest.raises(module("errors").ExportError, match="The camera Camera looks nowhere"):
        lens_now()


def test_a_scene_without_a_camera_is_refused(clean_scene):
    with pytest.raises(module("errors").ExportError, match="no camera; add one"):
        lens_now()


def test_strokes_in_view_stay_whole(clean_scene):
    add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10)
    (piece,) = cut(projector_now(832, 480), [(-1, 0, 0), (0, 0, 1), (1, 0, 0)])
    assert piece.shape == (3, 3)
    assert piece[1, 0] == pytest.approx(416, abs=1e-3) and piece[1, 1] < 240


def test_a_stroke_behind_the_camera_has_no_piece(clean_scene):
    add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10)
    assert cut(projector_now(832, 480), [(0, -11, 0), (0.1, -30, 0)]) == []


def test_a_stroke_beside_the_picture_has_no_piece(clean_scene):
    add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10)
    assert cut(projector_now(832, 480), [(50, 0, 0), (51, 0, 3)]) == []


def test_a_stroke_that_leaves_and_comes_back_has_two_pieces(clean_scene):
    add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10)
    path = [(-1, 0, 0), (-1, -30, 0), (1, -30, 0), (1, 0, 0)]
    first, second = cut(projector_now(832, 480), path)
    assert first[0, 0] < 416 < second[-1, 0]


@many
@given(st.lists(st.tuples(between(-30, 30), between(-30, 30), between(-30, 30)), min_size=2, max_size=6))
def test_cut_strokes_lie_on_the_whole_ones_and_in_bounds(clean_scene, path):
    if clean_scene.camera is None:
        add_camera(target=(0, 0, 0), direction=(0.3, -1, 0.2), distance=10)
    projector = projector_now(832, 480)
    for piece in cut(projector, path):
        assert piece[:, 2].min() > 0.099
        assert piece[:, 0].min() > -104.1 and piece[:, 0].max() < 936.1
        assert piece[:, 1].min() > -104.1 and piece[:, 1].max() < 584.1
        # Every point of a piece, taken back to the world by its depth, lies on the path.
        lens = projector.lenses[0]
        for x, y, depth in piece.astype(float):
            device = np.linalg.inv(module("view.projection").to_pixels(projector.fit)) @ (x, y, 1)
            slope = device[:2] / np.diag(lens.projection)[:2]
            world = np.linalg.inv(lens.view) @ (*(slope * depth), -depth, 1)
            starts, steps = np.array(path[:-1], float), np.diff(np.array(path, float), axis=0)
            along = ((world[:3] - starts) * steps).sum(axis=1) / np.maximum((steps**2).sum(axis=1), 1e-12)
            nearest = starts + steps * np.clip(along, 0, 1)[:, None]
            assert np.linalg.norm(world[:3] - nearest, axis=1).min() < 1e-3
