"""Joints are where the evaluated pose has them, however the rig is moved, placed or linked."""

from __future__ import annotations

import math

import bpy
import numpy as np
import pytest
from mathutils import Matrix, Vector

from tests.addon.rigs import (
    LEGGED,
    append_rig,
    generated,
    import_fox,
    make_armature,
    needs_fox,
    strokes,
    swing,
)
from tests.addon.servers import module


def placed_bone(rig, bone):
    """World head and tail of a bone in the evaluated pose."""
    evaluated = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    pose_bone = evaluated.pose.bones[bone]
    return np.array(evaluated.matrix_world @ pose_bone.head), np.array(
        evaluated.matrix_world @ pose_bone.tail
    )


def assert_follows(rig, bone="shin.L"):
    head, tail = placed_bone(rig, bone)
    stroke = strokes(rig)[bone]
    assert stroke[0] == pytest.approx(head, abs=1e-5) and stroke[-1] == pytest.approx(tail, abs=1e-5)


def rest_end(bone="shin.L"):
    return np.array(LEGGED[bone][1])


def test_constraints_are_followed(clean_scene):
    rig = make_armature("Rig", LEGGED | {"goal": ((0.2, 0, 0), (0.2, 0.3, 0), "")})
    ik = rig.pose.bones["shin.L"].constraints.new("IK")
    ik.target, ik.subtarget, ik.chain_count = rig, "goal", 2
    rig.pose.bones["goal"].location = (0, -0.3, 0.4)
    assert_follows(rig)
    assert np.linalg.norm(strokes(rig)["shin.L"][-1] - rest_end()) > 0.3


def test_drivers_are_followed(clean_scene):
    rig = make_armature("Rig", LEGGED)
    bone = rig.pose.bones["thigh.L"]
    bone.rotation_mode = "XYZ"
    rig["bend"] = 1.0
    driver = bone.driver_add("rotation_euler", 0).driver
    driver.type = "SUM"
    variable = driver.variables.new()
    variable.targets[0].id, variable.targets[0].data_path = rig, '["bend"]'
    rig.update_tag()
    assert_follows(rig)
    assert np.linalg.norm(strokes(rig)["shin.L"][-1] - rest_end()) > 0.3


def test_nla_strips_are_followed(clean_scene):
    rig = make_armature("Rig", LEGGED)
    swing(rig, "thigh.L", angle=1.0, frames=11)
    action = rig.animation_data.action
    rig.animation_data.nla_tracks.new().strips.new("swing", 20, action)
    rig.animation_data.action = None
    ends = []
    for frame in (20, 25, 30):
        clean_scene.frame_set(frame)
        assert_follows(rig)
        ends.append(strokes(rig)["shin.L"][-1])
    assert np.linalg.norm(ends[0] - rest_end()) < 1e-5 < np.linalg.norm(ends[1] - rest_end()) - 0.1
    assert np.linalg.norm(ends[2] - ends[0]) > np.linalg.norm(ends[1] - ends[0])


@needs_fox
def test_every_joint_of_the_fox_follows_its_run(clean_scene):
    rig, _ = import_fox("Run")
    for frame in (0, 9, 20):
        clean_scene.frame_set(frame)
        placed = strokes(rig)
        for stroke, *ends in (
            ("b_Neck_04", "b_Neck_04", "b_Head_05"),
            ("b_LeftLeg02_016", "b_LeftLeg02_016", "b_LeftFoot01_017"),
            ("b_Hip_01", "b_Tail01_012", "b_Spine01_02"),
        ):
            heads = [placed_bone(rig, bone)[0] for bone in ends]
            assert placed[stroke][[0, -1]] == pytest.approx(np.array(heads), abs=1e-4)


def test_a_scaled_armature_under_a_moving_parent_is_followed(clean_scene):
    rig = make_armature("Rig", LEGGED)
    parent = bpy.data.objects.new("Parent", None)
    clean_scene.collection.objects.link(parent)
    rig.parent = parent
    rig.scale, rig.rotation_euler = (2, 0.5, 3), (0.3, 0.2, 0.1)
    for frame, x in ((1, 0.0), (11, 5.0)):
        parent.location.x = x
        parent.keyframe_insert("location", frame=frame)
    clean_scene.frame_set(11)
    assert_follows(rig)
    assert strokes(rig)["hips"][0][0] > 4


def test_bones_that_bend_are_drawn_as_curves(clean_scene):
    rig = make_armature("Rig", {"tail": ((0, 0, 0), (0, 0, 1), "")})
    bone = rig.data.bones["tail"]
    bone.bbone_segments = 16
    # Vertices along a bone that follow it alone lie on its curve.
    heights = np.linspace(0, 1, 65)
    mesh = bpy.data.meshes.new("line")
    mesh.from_pydata([(0, 0, z) for z in heights], [(i, i + 1) for i in range(64)], [])
    line = bpy.data.objects.new("line", mesh)
    clean_scene.collection.objects.link(line)
    line.vertex_groups.new(name="tail").add(list(range(65)), 1.0, "REPLACE")
    line.modifiers.new("Armature", "ARMATURE").object = rig
    rig.pose.bones["tail"].bbone_curveinx = 0.4
    bpy.context.view_layer.update()

    stroke = strokes(rig)["tail"]
    evaluated = line.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    curve = np.array([v.co for v in evaluated.vertices])
    assert len(stroke) == 5
    assert np.linalg.norm(stroke[2] - (stroke[0] + stroke[-1]) / 2) > 0.02
    for joint in stroke:
        assert np.linalg.norm(curve - joint, axis=1).min() < 0.02


def test_an_instanced_armature_is_drawn_where_its_instance_is(clean_scene):
    rig = make_armature("Rig", LEGGED)
    collection = bpy.data.collections.new("Asset")
    clean_scene.collection.objects.unlink(rig)
    collection.objects.link(rig)
    collection.instance_offset = (0, 0, 0.5)
    instance = bpy.data.objects.new("Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    instance.matrix_world = (
        Matrix.Translation((3, 0, 0)) @ Matrix.Rotation(math.pi / 2, 4, "Z") @ Matrix.Scale(2, 4)
    )
    clean_scene.collection.objects.link(instance)
    rig.pose.bones["chest"].location.x = 1
    bpy.context.view_layer.update()
    expected = instance.matrix_world @ Vector((1, 0, 1.6 - 0.5))
    assert strokes(instance)["head"][0] == pytest.approx(np.array(expected), abs=1e-5)


def test_linked_and_overridden_armatures_are_drawn(clean_scene):
    path = str(generated("Animals.shark"))
    with bpy.data.libraries.load(path, link=True) as (_, chosen):
        chosen.objects = ["Animals.shark"]
    linked = chosen.objects[0]
    clean_scene.collection.objects.link(linked)
    bpy.context.view_layer.update()
    plain = strokes(linked)
    override = linked.override_create(remap_local_usages=True)
    override.location.x = 2
    bpy.context.view_layer.update()
    moved = strokes(override)
    assert list(plain) == list(moved)
    for name, stroke in plain.items():
        assert moved[name] == pytest.approx(stroke + (2, 0, 0), abs=1e-5)


def test_several_armatures_are_sampled_one_after_the_other(clean_scene):
    rigs = [make_armature(f"Rig{i}", LEGGED) for i in range(2)]
    rigs[1].location.y = 4
    bpy.context.view_layer.update()
    subjects = module("steps").at_once(module("rig.subjects").find_subjects(rigs))
    sampler = module("rig.sampling").Sampler(subjects)
    joints = sampler.sample(bpy.context.evaluated_depsgraph_get())
    half = len(joints) // 2
    assert joints[half:] == pytest.approx(joints[:half] + (0, 4, 0))
    assert len(sampler.counts) == 2 * len(LEGGED)


def test_a_pose_that_orders_its_bones_otherwise_is_read_right(clean_scene):
    rig = append_rig("Animals.shark")
    # New bones go to the end of the pose but into their place of the armature's tree.
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = rig.data.edit_bones.new("late")
    bone.head, bone.tail = (0, 0, 5), (0, 0, 6)
    rig.data.edit_bones["DEF-spine.003"].parent = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    for name in ("DEF-spine.004", "DEF-side_fin.L"):
        assert strokes(rig)[name][0 if name == "DEF-spine.004" else 1] == pytest.approx(
            placed_bone(rig, name)[0], abs=1e-5
        )
