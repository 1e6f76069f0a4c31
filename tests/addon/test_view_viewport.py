"""A clip seen through a 3D viewport instead of the camera."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mathutils import Euler, Matrix, Vector

from tests.addon.rigs import LEGGED, add_camera, flesh, make_armature, options, read_png
from tests.addon.servers import module

between = st.floats


def viewport(
    perspective: bool, turn=(1.2, 0, 0.5), place=(3, -4, 2), lens=50.0, shift=(0.0, 0.0), size=(900, 600)
):
    """(space, region) as Blender gives them for a 3D view with such a lens; sizes in pixels."""
    near, far, half_width = 0.1, 1000.0, 0.1 * 16 / lens
    half_height = half_width * size[1] / size[0]
    window = Matrix.Identity(4)
    if perspective:
        window[0][0], window[1][1] = near / half_width, near / half_height
        window[0][2], window[1][2] = shift
        window[2][2], window[2][3] = -(far + near) / (far - near), -2 * far * near / (far - near)
        window[3][2], window[3][3] = -1, 0
    else:
        window[0][0], window[1][1], window[2][2] = 1 / 3.0, size[0] / size[1] / 3.0, -1 / far
    placed = Matrix.Translation(place) @ Euler(turn).to_matrix().to_4x4()
    region_3d = SimpleNamespace(
        view_perspective="PERSP" if perspective else "ORTHO",
        is_perspective=perspective,
        view_matrix=placed.inverted(),
        window_matrix=window,
    )
    space = SimpleNamespace(
        region_3d=region_3d, clip_start=near, clip_end=far, use_local_camera=False, camera=None
    )
    return space, SimpleNamespace(data=None, width=size[0], height=size[1])


def see(view, points):
    scene = bpy.context.scene
    fit = module("view").fit(*view.frame_size(scene), 832, 480)
    lens = view.lens(scene, bpy.context.evaluated_depsgraph_get())
    return module("view.projection").Projector([lens], fit).project(np.array(points, float)[None])[0]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.tuples(*[between(-3, 3)] * 3),
    between(20, 120),
    st.tuples(between(-0.5, 0.5), between(-0.5, 0.5)),
    st.tuples(st.integers(200, 2000), st.integers(200, 2000)),
)
def test_the_camera_that_renders_for_a_viewport_sees_the_same(
    clean_scene, perspective, turn, lens, shift, size
):
    view = module("view").Viewport.from_context(
        *viewport(perspective, turn, lens=lens, shift=shift, size=size)
    )
    camera = clean_scene.camera or add_camera()
    camera.rotation_mode = "QUATERNION"
    camera.matrix_world = Matrix(view.stand_in(camera.data))
    bpy.context.view_layer.update()
    render = clean_scene.render
    render.resolution_x, render.resolution_y = size
    placed = Matrix.Translation((3, -4, 2)) @ Euler(turn).to_matrix().to_4x4()
    points = [placed @ Vector(p) for p in ((0, 0, -5), (0.5, 0.2, -3), (-0.4, 0.6, -7))]
    expected, found = see(view, points), see(module("view").SceneCamera(), points)
    assert found[:, :2] == pytest.approx(expected[:, :2], abs=0.02 if perspective else 0.2)


def test_a_viewport_looks_through_its_own_lens(clean_scene):
    add_camera()
    view = module("view").Viewport.from_context(
        *viewport(True, turn=(0, 0, 0), place=(0, 0, 10), size=(832, 480))
    )
    # 50 mm in a viewport spans 32 mm to either side of the axis, 16 : 50.
    ((x, y, depth),) = see(view, [(1, 1, 0)])
    assert (x, y) == pytest.approx((416 + 416 / 3.2, 240 - 416 / 3.2))
    assert depth == pytest.approx(10)


def test_a_viewport_in_camera_view_is_that_camera(clean_scene):
    space, region = viewport(True)
    space.region_3d.view_perspective = "CAMERA"
    assert module("view").Viewport.from_context(space, region) == module("view").SceneCamera()
    space.use_local_camera, space.camera = True, add_camera()
    assert module("view").Viewport.from_context(space, region).find(clean_scene) == space.camera


@pytest.mark.parametrize("perspective", [True, False])
def test_the_first_frame_is_rendered_as_the_viewport_shows_it(clean_scene, perspective):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    camera = add_camera()
    clean_scene.render.engine = "BLENDER_WORKBENCH"
    view = module("view").Viewport.from_context(
        *viewport(perspective, turn=(1.4, 0, 0), place=(0, -5, 1.5), lens=35.0)
    )
    steps = module("request.export").export_clip(
        bpy.context, options([rig], view=view, first_frame="", num_frames=1, width=256, height=160)
    )
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            clip = finished.value
            break
    picture = read_png(clip.first_frame)
    shown = np.abs(picture.astype(int) - picture[0, 0]).max(axis=2) > 8
    assert (shown == (clip.subject_mask > 0)).mean() > 0.99
    assert clip.subject_mask.any()
    assert clean_scene.camera == camera and len(bpy.data.cameras) == 1 and len(clean_scene.objects) == 3
