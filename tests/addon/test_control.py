"""Control videos: aligned with the clip and with each other, at its size, of what there is to draw."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon import people
from tests.addon.rigs import add_camera, export, flesh, make_armature, read_png, run
from tests.addon.scenes import session
from tests.addon.servers import module


@pytest.fixture
def person(shot):
    """A person before a wall, in a shot of five frames, 128 x 64."""
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    bones = people.mixamo()
    rig = make_armature("Ann", bones)
    flesh(rig, bones=[bone for bone in bones if "_End" not in bone and "4" not in bone])
    rig.location.x = -0.4
    rig.keyframe_insert("location", frame=5)
    rig.location.x = 0.4
    rig.keyframe_insert("location", frame=9)
    bpy.ops.mesh.primitive_plane_add(size=40, location=(0, 6, 0), rotation=(1.5708, 0, 0))
    rig.select_set(True)
    bpy.context.view_layer.objects.active = rig
    add_camera(target=(0, 0, 0.95), direction=(0, -1, 0), distance=5)
    shot.frame_end = 9
    shot.render.resolution_x, shot.render.resolution_y = 256, 128
    return rig


def write(tmp_path, kinds, file_format="PNG"):
    control = bpy.context.scene.poseanything_control
    module("control.settings").choose(control, kinds)
    control.file_format = file_format
    assert bpy.ops.poseanything.export_control_videos(directory=str(tmp_path)) == {"FINISHED"}
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    return folder


def frames(folder, kind):
    return np.array([read_png(path.read_bytes()) for path in sorted((folder / kind).iterdir())])


def test_every_kind_has_the_clips_frames_and_size_and_lies_on_the_subject(person, shot, tmp_path):
    kinds = module("control.kinds")
    folder = write(tmp_path, kinds.KINDS)
    assert {path.name for path in folder.iterdir()} == {*kinds.KINDS} - {"first_frame"} | {"first_frame.png"}
    drawn = {kind: frames(folder, kind) for kind in kinds.KINDS if kind != "first_frame"}
    assert all(pictures.shape == (5, 64, 128, 3) for pictures in drawn.values())
    assert read_png((folder / "first_frame.png").read_bytes()).shape == (64, 128, 3)
    mask = drawn["mask"][..., 0]
    assert set(np.unique(mask)) == {0, 255}
    assert ((drawn["parts"] > 0).any(axis=-1) == (mask > 0)).all()
    assert {tuple(colour) for colour in drawn["parts"].reshape(-1, 3)} >= {(0, 0, 0)}
    assert len(np.unique(drawn["parts"].reshape(-1, 3), axis=0)) == 7, "six parts on black"
    columns = np.arange(128)
    for kind in ("mask", "poses", "openpose", "cylinders"):
        lit = drawn[kind].max(axis=-1).astype(float)
        middles = (lit * columns).sum(axis=(1, 2)) / lit.sum(axis=(1, 2))
        across = (mask.astype(float) * columns).sum(axis=(1, 2)) / mask.sum(axis=(1, 2))
        assert middles == pytest.approx(across, abs=2), kind
    assert across[-1] - across[0] > 10
    # The body is nearer than the wall in every frame, and the wall is as far in all of them.
    depth = drawn["depth"][..., 0].astype(int)
    inner = mask == 255
    assert depth[inner].min() > depth[~inner].max() > 0
    wall = depth[:, 2, 2]
    assert (wall == wall[0]).all()


def test_depth_is_that_of_the_moment_in_which_it_was_asked_for(person, shot):
    """Others go on between the steps, and may show another frame."""
    projector = export([person], num_frames=1).projector
    shot.frame_set(5)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    drawer = module("ground_truth.depth").DepthDrawer(depsgraph)
    expected, drawing = run(drawer.draw(depsgraph, projector))[0], drawer.draw(depsgraph, projector)
    shot.frame_set(9)
    assert np.array_equal(run(drawing)[0], expected) and np.isfinite(expected).any()
    assert not np.array_equal(run(drawer.draw(depsgraph, projector))[0], expected)


def test_openpose_has_dwposes_colours_on_the_right_sides(person, tmp_path):
    picture = frames(write(tmp_path, {"openpose", "cylinders"}), "openpose")[2]
    table = module("shared.openpose")
    found = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert found <= {
        (0, 0, 0),
        *table.COLOURS,
        *table.hand_colours(),
        *(tuple(int(c * table.LIMB_SHADE) for c in colour) for colour in table.COLOURS),
    }
    # The person faces the camera: its right arm is on the left of the picture.
    right, left = (
        np.argwhere((picture == table.COLOURS[index]).all(axis=-1))[:, 1].mean() for index in (3, 6)
    )
    assert right < 54 and left > 74


def test_what_can_not_be_drawn_is_left_out_and_said(shot, tmp_path):
    """The rig of three bones is no person."""
    folder = write(tmp_path, {"openpose", "cylinders"})
    assert [path.name for path in folder.iterdir()] == ["cylinders"]
    assert "OpenPose was left out: no armature is a person's." in [f.sentence for f in session().findings]


def test_movies_show_the_same_pictures_at_the_clips_pace(person, shot, tmp_path):
    shot.poseanything.frame_step, shot.frame_end = 2, 13
    folder = write(tmp_path, {"mask", "cylinders"}, "MP4")
    assert sorted(path.name for path in folder.iterdir()) == ["cylinders.mp4", "mask.mp4"]
    clip = bpy.data.movieclips.load(str(folder / "mask.mp4"))
    assert tuple(clip.size) == (128, 64) and clip.frame_duration == 5
    assert clip.fps == pytest.approx(shot.render.fps / 2)


def test_a_cylinder_is_round_lit_from_the_camera_and_hides_what_is_behind(addon, clean_scene):
    add_camera(target=(0, 0, 0), direction=(0, -1, 0), distance=10, lens=50)
    view = module("view")
    lens = view.SceneCamera().lens(clean_scene, bpy.context.evaluated_depsgraph_get())
    projector = module("view.projection").Projector([lens], view.fit(1920, 1080, 192, 108))
    ends = np.array([[[-1, 0, 0], [1, 0, 0]], [[0, 1, -1], [0, 1, 1.0]]])
    steps = module("control.cylinders").draw_cylinders(
        projector, ends, np.array([0.3, 0.3]), np.array([[1.0, 0, 0], [0, 1.0, 0]]), (5.0, 1000.0)
    )
    try:
        while True:
            next(steps)
    except StopIteration as finished:
        picture = finished.value.astype(int)
    red, green = picture[..., 0] > picture[..., 1], picture[..., 1] > picture[..., 0]
    pixel = 192 / 36 * 50 / 10  # of one unit at the target
    assert red.any(axis=0).sum() == pytest.approx(2.6 * pixel, abs=2)
    assert red.any(axis=1).sum() == pytest.approx(0.6 * pixel, abs=2)
    assert red[54, 96] and green[54 - 20, 96], "the nearer one hides the other"
    column = picture[:, 90, 0][red[:, 90]]
    assert column[len(column) // 2] > 250 and column[0] < 180, "full in the middle, dim at the rim"


def test_nothing_is_left_of_an_export_that_is_cancelled(person, shot, tmp_path):
    film = module("control.film")
    settings = shot.poseanything
    engine = module("shared.release").RELEASE
    planned = module("request.range").clip_range(bpy.context, settings, engine)
    steps = film.export_control_videos(
        bpy.context, settings, ["mask"], False, planned, (person,), module("view").SceneCamera(), engine,
        tmp_path, False,
    )  # fmt: skip
    for step in steps:
        if "Subject Mask" in step.text:
            break
    assert [path for path in tmp_path.iterdir() if path.is_dir()]
    steps.close()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
