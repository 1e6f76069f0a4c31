"""Small scenes to generate from, and what became of them."""

from __future__ import annotations

import bpy

from tests.addon.servers import module, wait_for


def make_rig(name="Rig", x=0.0):
    """An armature of three bones in a row that swings, and a mesh bound to it."""
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    bpy.context.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    parent = None
    for i in range(3):
        bone = data.edit_bones.new(f"bone{i}")
        bone.head, bone.tail = (x + i, 0, 0), (x + i + 1, 0, 0.2)
        bone.parent, bone.use_connect = parent, parent is not None
        parent = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    pose_bone = rig.pose.bones["bone0"]
    pose_bone.rotation_mode = "XYZ"
    for frame, angle in ((1, 0.0), (20, 0.8)):
        pose_bone.rotation_euler = (0, 0, angle)
        pose_bone.keyframe_insert("rotation_euler", frame=frame)
    bpy.ops.mesh.primitive_cube_add(size=1, location=(x + 1.5, 0, 0), scale=(3, 0.4, 0.4))
    body = bpy.context.object
    body.name = f"{name} body"
    modifier = body.modifiers.new("Armature", "ARMATURE")
    modifier.object = rig
    for i in range(3):
        group = body.vertex_groups.new(name=f"bone{i}")
        group.add(list(range(8)), 1.0 if i == 1 else 0.1, "REPLACE")
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj == rig)
    bpy.context.view_layer.objects.active = rig
    return rig


def make_take(
    folder, name="fox_001", num_frames=5, frame_start=10, frame_step=1, duration=None, record=None, **given
):
    times = module("times").ClipTimes(
        frame_start, frame_step, num_frames, duration or num_frames * frame_step, **given
    )
    return module("takes.take").Take(folder, name, times, record or {})


def session():
    return module("session").get()


def newest_job():
    return list(session().bridge.jobs.values())[-1]


def poll_until(condition, seconds: float = 20.0):
    """Do what the window's timer does until `condition()` is true; gives its value."""

    def polled():
        session().poll()
        return condition()

    return wait_for(polled, seconds)


def settle(job, seconds: float = 60.0):
    """Wait until a job has ended and all of it is in the sequencer."""
    poll_until(lambda: not session().in_progress(job), seconds)


def strip_of(job):
    return module("sequencer.strips").find_strip(job.id)[1]


def span(strip):
    if hasattr(strip, "left_handle"):
        return strip.left_handle, strip.right_handle
    return strip.frame_final_start, strip.frame_final_end


def names(strip):
    return [element.filename for element in strip.elements]
