"""Frame Subject: the whole motion is in the picture."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from tests.addon.scenes import session


def extent(scene):
    """The least and greatest coordinate in the picture, 0 to 1, that the subject's box takes over the
    range."""
    body, found = bpy.data.objects["Rig body"], []
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        evaluated = body.evaluated_get(bpy.context.evaluated_depsgraph_get())
        for corner in evaluated.bound_box:
            point = world_to_camera_view(scene, scene.camera, evaluated.matrix_world @ Vector(corner))
            assert point.z > 0
            found += [point.x, point.y]
    return min(found), max(found)


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_the_camera_shows_the_whole_motion_from_where_it_looks(shot, kind):
    rig, camera = bpy.data.objects["Rig"], shot.camera
    bpy.data.objects["Rig body"].parent = rig
    rig.location.x = -9
    rig.keyframe_insert("location", frame=5)
    rig.location.x = 9
    rig.keyframe_insert("location", frame=16)
    camera.data.type = kind
    turn = camera.rotation_euler.copy()
    shot.frame_set(8)
    assert bpy.ops.poseanything.frame_subject() == {"FINISHED"}
    assert shot.camera == camera and camera.rotation_euler == turn and shot.frame_current == 8
    least, most = extent(shot)
    assert 0 <= least and most <= 1 and most - least > 0.75


def test_a_camera_that_is_animated_is_left_alone(shot):
    camera = shot.camera
    camera.keyframe_insert("location", frame=1)
    place = camera.location.copy()
    bpy.ops.poseanything.frame_subject()
    assert shot.camera != camera and camera.location == place
    assert shot.camera.rotation_euler[:] == pytest.approx(camera.rotation_euler[:])
    assert shot.camera.data != camera.data


def test_a_scene_without_a_camera_gets_one(shot):
    bpy.data.objects.remove(shot.camera)
    bpy.ops.poseanything.frame_subject()
    least, most = extent(shot)
    assert 0 <= least and most <= 1 and most - least > 0.4


def test_a_subject_out_of_view_is_told_in_the_panel_with_a_button_that_frames_it(shot, served):
    served()
    shot.camera.location = (0, 0, -50)
    with pytest.raises(RuntimeError, match="No limb of Rig is in view"):
        bpy.ops.poseanything.generate(wait=True)
    [told] = session().findings
    assert "No limb of Rig is in view" in told.sentence
    assert told.operator == "poseanything.frame_subject"
    bpy.ops.poseanything.frame_subject()
    assert not session().findings
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}


def test_an_instanced_subject_is_framed_where_it_stands(shot):
    collection = bpy.data.collections.new("Set")
    rig = bpy.data.objects["Rig"]
    for obj in (rig, bpy.data.objects["Rig body"]):
        obj.users_collection[0].objects.unlink(obj)
        collection.objects.link(obj)
    carrier = bpy.data.objects.new("Carrier", None)
    carrier.instance_type, carrier.instance_collection = "COLLECTION", collection
    carrier.location = (40, 0, 0)
    shot.collection.objects.link(carrier)
    carrier.select_set(True)
    assert bpy.ops.poseanything.frame_subject() == {"FINISHED"}
    bpy.context.view_layer.update()
    seen = [
        world_to_camera_view(shot, shot.camera, carrier.matrix_world @ bone.head) for bone in rig.pose.bones
    ]
    assert all(0 <= point.x <= 1 and 0 <= point.y <= 1 and point.z > 0 for point in seen)
    assert max(np.ptp(np.array(seen)[:, :2], axis=0)) > 0.2
