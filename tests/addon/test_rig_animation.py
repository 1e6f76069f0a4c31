"""Keys are found wherever they are: in the NLA, on controls, in other armatures, on instancers."""

from __future__ import annotations

import bpy
import pytest

from tests.addon.rigs import LEGGED, add_camera, make_armature
from tests.addon.servers import module

WAVE = ((1, 0.0), (9, 1.2), (17, -1.0), (25, 1.2), (33, 0.0))


def wave(owner, path="rotation_euler", index=0, keys=WAVE):
    if hasattr(owner, "rotation_mode"):
        owner.rotation_mode = "XYZ"
    for frame, value in keys:
        if index is None:
            setattr(owner, path, value)
            owner.keyframe_insert(path, frame=frame)
        else:
            getattr(owner, path)[index] = value
            owner.keyframe_insert(path, index=index, frame=frame)


def posed(scene, frames=33, density="KEYS"):
    """The clip frames that carry a pose."""
    scene.frame_start, scene.frame_end = 1, frames
    scene.poseanything.pose_density = density
    ranges = module("request.range")
    planned = ranges.clip_range(bpy.context, scene.poseanything, None)
    return ranges.pose_frames(bpy.context, scene.poseanything, planned)


@pytest.fixture
def rig(clean_scene):
    add_camera()
    return make_armature("Rig", LEGGED)


def pushed_down(rig, name="Wave", start=1):
    data = rig.animation_data
    strip = data.nla_tracks.new().strips.new(name, start, data.action)
    data.action = None
    return strip


def test_in_the_nla(rig, clean_scene):
    wave(rig.pose.bones["head"])
    strip = pushed_down(rig)
    assert posed(clean_scene) == (0, 8, 16, 24, 32)
    strip.frame_start_ui = 5
    assert posed(clean_scene) == (0, 4, 12, 20, 28, 32)
    strip.frame_start_ui = 1
    strip.scale = 0.5
    assert posed(clean_scene) == (0, 4, 8, 12, 16, 32)
    strip.repeat = 2
    assert posed(clean_scene) == (0, 4, 8, 12, 16, 20, 24, 28, 32)
    rig.animation_data.nla_tracks[0].mute = True
    assert posed(clean_scene) == (0, 32)


def test_in_the_turns_of_a_curve_that_cycles(rig, clean_scene):
    head = rig.pose.bones["head"]
    wave(head, keys=((9, 0.0), (12, 1.0), (17, 0.0)))
    [curve] = module("rig.animation").all_curves(rig)
    cycles = curve.modifiers.new("CYCLES")
    assert posed(clean_scene) == (0, 3, 8, 11, 16, 19, 24, 27, 32)
    cycles.mode_before, cycles.mode_after = "NONE", "MIRROR"
    assert posed(clean_scene) == (0, 8, 11, 16, 21, 24, 27, 32)
    cycles.mode_after, cycles.cycles_after = "REPEAT", 1
    assert posed(clean_scene) == (0, 8, 11, 16, 19, 24, 32)
    cycles.mute = True
    assert posed(clean_scene) == (0, 8, 11, 16, 32)


def test_a_reversed_strip_is_read_backwards(rig, clean_scene):
    wave(rig.pose.bones["head"], keys=((1, 0.0), (5, 1.0), (33, 0.0)))
    pushed_down(rig).use_reverse = True
    assert posed(clean_scene) == (0, 28, 32)


def test_on_a_target_of_inverse_kinematics(rig, clean_scene):
    target = bpy.data.objects.new("Target", None)
    clean_scene.collection.objects.link(target)
    wave(target, "location")
    constraint = rig.pose.bones["shin.L"].constraints.new("IK")
    constraint.target = target
    assert posed(clean_scene) == (0, 8, 16, 24, 32)
    constraint.mute = True
    assert posed(clean_scene) == (0, 32)


def test_in_the_time_of_a_strip_that_is_keyed(rig, clean_scene):
    wave(rig.pose.bones["head"], keys=((1, 0.0), (5, 1.0), (9, 0.0)))
    strip = pushed_down(rig)
    strip.frame_end, strip.use_animated_time = 33, True
    wave(strip, "strip_time", None, keys=((1, 1.0), (25, 5.0), (33, 9.0)))
    assert posed(clean_scene) == (0, 24, 32)


def test_on_what_bends_a_target(rig, clean_scene):
    """A hook bends the curve of a Spline IK; shape keys move the mesh that another target hangs on."""
    curve = bpy.data.curves.new("Curve", "CURVE")
    curve.splines.new("POLY").points.add(1)
    path, handle, holder, mesh = (
        bpy.data.objects.new(name, data)
        for name, data in (
            ("Path", curve),
            ("Handle", None),
            ("Holder", None),
            ("Mesh", bpy.data.meshes.new("Mesh")),
        )
    )
    for obj in (path, handle, holder, mesh):
        clean_scene.collection.objects.link(obj)
    path.modifiers.new("Hook", "HOOK").object = handle
    rig.pose.bones["head"].constraints.new("SPLINE_IK").target = path
    wave(handle, "location", keys=((1, 0.0), (9, 1.0)))
    mesh.data.from_pydata([(0, 0, 0)], [], [])
    mesh.shape_key_add(name="Basis")
    wave(mesh.shape_key_add(name="Up"), "value", None, keys=((1, 0.0), (21, 1.0)))
    holder.parent, holder.parent_type = mesh, "VERTEX"
    rig.pose.bones["shin.L"].constraints.new("IK").target = holder
    assert posed(clean_scene) == (0, 8, 20, 32)


@pytest.mark.parametrize("how", ["constraints", "driver"])
def test_in_another_armature_that_moves_this_one(rig, clean_scene, how):
    other = make_armature("Other", LEGGED)
    bpy.context.view_layer.objects.active = rig
    rig.select_set(True)
    wave(other.pose.bones["head"])
    head = rig.pose.bones["head"]
    if how == "constraints":
        copy = head.constraints.new("COPY_ROTATION")
        copy.target, copy.subtarget = other, "head"
    else:
        head.rotation_mode = "XYZ"
        variable = head.driver_add("rotation_euler", 0).driver.variables.new()
        variable.type, variable.targets[0].id, variable.targets[0].bone_target = "TRANSFORMS", other, "head"
    assert posed(clean_scene) == (0, 8, 16, 24, 32)


def test_on_what_a_rig_stands_on_and_on_its_instancer(rig, clean_scene):
    cart = bpy.data.objects.new("Cart", None)
    clean_scene.collection.objects.link(cart)
    rig.parent = cart
    wave(cart, "location", keys=((1, 0.0), (7, 1.0), (33, 0.0)))
    assert posed(clean_scene) == (0, 6, 32)
    store = bpy.data.collections.new("Store")
    for obj in (rig, cart):
        clean_scene.collection.objects.unlink(obj)
        store.objects.link(obj)
    instancer = bpy.data.objects.new("Instancer", None)
    instancer.instance_type, instancer.instance_collection = "COLLECTION", store
    clean_scene.collection.objects.link(instancer)
    wave(instancer, "location", keys=((1, 0.0), (21, 1.0), (33, 0.0)))
    instancer.select_set(True)
    assert posed(clean_scene) == (0, 6, 20, 32)


def findings(scene, density="KEYS"):
    ranges, review = module("request.range"), module("request.review")
    scene.frame_end = 33
    planned = ranges.clip_range(bpy.context, scene.poseanything, None)
    return list(review.review_keys(scene.poseanything, planned, posed(scene, density=density)))


def test_baked_keys_and_missing_ones_are_told(rig, clean_scene):
    [lost] = findings(clean_scene)
    assert "No keyframe lies between frame 1 and 33" in lost.sentence
    assert dict(lost.properties)["value"] == "ALL"
    for density in ("MARKERS", "HAND"):
        [lost] = findings(clean_scene, density)
        assert lost.sentence.startswith("No pose is sent between frame 1 and 33")
    wave(rig.pose.bones["head"], keys=[(frame, 0.1 * frame) for frame in range(1, 34)])
    [baked] = findings(clean_scene)
    assert "keyed on 33 of 33 frames (baked)" in baked.sentence
    is_set = module("request.finding").is_set
    assert not is_set(bpy.context, baked)
    assert bpy.ops.wm.context_set_enum(**dict(baked.properties)) == {"FINISHED"}
    assert is_set(bpy.context, baked)
    assert clean_scene.poseanything.pose_density == "NTH"


def test_key_poses_by_markers_and_by_hand(rig, clean_scene):
    from tests.addon.test_register_panels import draw_all

    settings = clean_scene.poseanything
    wave(rig.pose.bones["head"], keys=((1, 0.0), (33, 1.0), (50, 0.0)))
    for frame in (21, 41, 200):
        clean_scene.timeline_markers.new("m", frame=frame)
    assert posed(clean_scene, 81, "MARKERS") == (0, 20, 40, 80)
    assert "4 of 81 frames, 5%" in draw_all()
    for frame in (11, 31, 41, 61):
        clean_scene.frame_set(frame)
        assert bpy.ops.poseanything.toggle_key_pose() == {"FINISHED"}
    assert settings.pose_density == "HAND", "what was chosen by markers is what one begins with"
    assert posed(clean_scene, 81, "HAND") == (0, 10, 20, 30, 60, 80)
    for curve in module("rig.animation").all_curves(rig):
        for key in curve.keyframe_points:
            key.select_control_point = key.co.x == 33
    bpy.ops.poseanything.key_poses_from_selection()
    assert posed(clean_scene, 81, "HAND") == (0, 10, 20, 30, 32, 60, 80)
    assert "7 of 81 frames, 9%" in draw_all()
    bpy.ops.poseanything.clear_key_poses()
    assert posed(clean_scene, 81, "HAND") == (0, 80)
