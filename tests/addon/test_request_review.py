"""A clip is judged before it is sent."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature, swing, write_picture
from tests.addon.servers import module


@pytest.fixture
def rig(clean_scene):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    swing(rig, "head", angle=1.0, frames=20)
    add_camera(direction=(0, -1, 0), distance=5)
    return rig


def said(rig, **given):
    return " ".join(export([rig], **{"num_frames": 9, **given}).warnings)


def key(obj, path, keys, index=0):
    for frame, value in keys:
        getattr(obj, path)[index] = value
        obj.keyframe_insert(path, index=index, frame=frame)


def test_a_good_clip_is_not_spoken_of(rig):
    assert said(rig) == ""


def test_a_subject_that_leaves_the_picture(rig):
    key(rig, "location", ((1, 0.0), (9, 30.0)))
    assert "out of view in 7 of 9 frames" in said(rig) or "out of view in" in said(rig)


def test_a_small_subject(rig):
    bpy.context.scene.camera.location.y = -150
    assert "pixels large in a picture of 256 x 160; move the camera nearer" in said(rig)


def test_a_subject_that_is_small_in_some_frames(rig):
    bpy.context.scene.camera.data.clip_end = 1000
    key(rig, "location", ((1, 0.0), (6, 0.0), (7, 150.0)), index=1)
    assert "too small in 3 of 9 frames, from frame 7 on" in said(rig)
    assert "stands in front of it" not in said(rig)


def test_a_subject_beyond_what_the_camera_renders(rig, clean_scene):
    clean_scene.camera.data.clip_end = 3
    assert "beyond the Clip End of Camera in 9 of 9 frames" in said(rig)
    clean_scene.camera.data.type = "ORTHO"
    [beyond] = [one for one in export([rig], num_frames=9).findings if "beyond the Clip End" in one.sentence]
    assert bpy.ops.wm.context_set_float(**dict(beyond.properties)) == {"FINISHED"}
    assert module("request.finding").is_set(bpy.context, beyond)
    assert said(rig) == ""


def test_a_cut_at_a_marker_comes_with_a_button(rig, clean_scene):
    first, other = clean_scene.camera, add_camera(direction=(1, 0, 0), distance=5)
    for frame, camera in ((1, first), (5, other)):
        clean_scene.timeline_markers.new("cut", frame=frame).camera = camera
    clean_scene.camera = first
    clip = export([rig], num_frames=9)
    [cut] = [finding for finding in clip.findings if finding.operator]
    assert "changes to Camera.001 at frame 5" in cut.sentence
    assert bpy.ops.poseanything.use_range(**dict(cut.properties)) == {"FINISHED"}
    settings = clean_scene.poseanything
    assert (settings.use_custom_range, settings.frame_start, settings.frame_end) == (True, 1, 4)
    assert not [f for f in export([rig], num_frames=4).findings if f.operator]


def test_a_camera_that_jumps_cuts_and_one_that_flies_does_not(rig, clean_scene):
    camera = clean_scene.camera
    key(camera, "location", ((1, 0.0), (9, 1.0)))
    assert "jumps" not in said(rig)
    camera.animation_data_clear()
    key(camera, "location", ((1, 0.0), (4, 0.0), (5, 1.2), (9, 1.2)))
    assert "The camera jumps at frame 5" in said(rig)


def test_nothing_that_moves(rig):
    rig.animation_data.action = None
    assert "Nothing moves from frame 1 to 9" in said(rig)
    rig.pose.bones["head"].rotation_euler = (0, 0, 0)
    swing(rig, "head", axis=1)
    assert "but no joint of the limbs that are drawn does" in said(rig)


def test_a_rig_in_rest_position_comes_with_a_button(rig):
    rig.data.pose_position = "REST"
    [finding] = export([rig], num_frames=9).findings
    assert finding.sentence == "Rig is in Rest Position, so its poses do not show."
    is_set = module("request.finding").is_set
    assert not is_set(bpy.context, finding)
    assert bpy.ops.wm.context_set_enum(**dict(finding.properties)) == {"FINISHED"}
    assert is_set(bpy.context, finding) and said(rig) == ""


def test_a_subject_nearer_than_the_camera_renders(rig, clean_scene):
    clean_scene.camera.data.clip_start = 20
    error = module("errors").ExportError
    with pytest.raises(
        error, match="Rig lies before the Clip Start of Camera, so it does not render"
    ) as told:
        export([rig], num_frames=2)
    operator, _, properties = told.value.button
    assert operator == "wm.context_set_float"
    assert bpy.ops.wm.context_set_float(**dict(properties)) == {"FINISHED"}
    assert said(rig) == ""


def test_a_first_frame_that_is_black(rig, tmp_path):
    picture = write_picture(tmp_path / "black.png", np.full((8, 8, 3), 4, np.uint8))
    assert "The first frame is black" in said(rig, first_frame=picture)


def test_a_first_frame_of_quite_another_shape(rig, tmp_path):
    picture = write_picture(tmp_path / "tall.png", np.full((80, 32, 3), 90, np.uint8))
    assert said(rig, first_frame=picture) == (
        "Only 25% of the first frame's picture shows, since it is 32 x 80; scale or move it, or choose one "
        "that is shaped like the clip."
    )
    moved = module("ground_truth.first_frame").Alignment(1.0, 0.2, 0.0)
    assert said(rig, first_frame=picture, alignment=moved) == ""


def test_hair_that_moves_much_comes_with_a_button(rig):
    locks = {f"hair{k}": ((0.1 * k - 0.2, 0.1, 1.9), (0.1 * k - 0.2, 0.1, 1.4), "head") for k in range(5)}
    hair = make_armature("Bust", LEGGED | locks)
    flesh(hair, LEGGED, 0.8)
    flesh(hair, locks, 0.2)
    for name in locks:
        swing(hair, name, angle=1.0, frames=3)
    bpy.data.objects.remove(rig)
    clip = export([hair], num_frames=9)
    [finding] = [one for one in clip.findings if one.operator]
    assert finding.sentence.startswith("Face, hair and cloth of Bust move")
    assert bpy.ops.wm.context_set_boolean(**dict(finding.properties)) == {"FINISHED"}
    assert set(locks) <= {limb.name for limb in export([hair], num_frames=9).pose.limbs}


def test_a_subject_behind_a_wall(rig):
    bpy.ops.mesh.primitive_plane_add(size=20, location=(0, -2, 0), rotation=(1.5708, 0, 0))
    wall = bpy.context.object
    assert "covers only 0% of its limbs in the first frame" in said(rig)
    for frame, hidden in ((1, True), (4, False)):
        wall.hide_render = hidden
        wall.keyframe_insert("hide_render", frame=frame)
    assert "hardly seen in 6 of 9 frames, from frame 4 on" in said(rig)


def test_the_findings_of_an_export_are_kept_for_the_panel(rig, clean_scene, tmp_path):
    bpy.context.scene.camera.location.y = -150
    clean_scene.frame_end = 3
    clean_scene.render.engine = "BLENDER_WORKBENCH"
    bpy.context.view_layer.objects.active = rig
    assert bpy.ops.poseanything.export_skeleton(directory=str(tmp_path)) == {"FINISHED"}
    [finding] = module("session").get().findings
    assert "move the camera nearer" in finding.sentence
    bpy.ops.poseanything.frame_subject()
    assert module("session").get().findings == ()
