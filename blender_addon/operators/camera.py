"""A camera that shows the subject's whole motion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import bpy
import numpy as np
from mathutils import Euler, Matrix, Vector

from .. import session
from ..errors import ExportError
from ..ground_truth.visibility import as_rendered, is_enabled
from ..request.range import frame_range
from ..request.subjects import find_subjects
from ..request.view import find_viewport
from ..rig.subjects import Rig, find_rigs
from ..view.camera import render_size
from .refusal import refuse

MARGIN = 1.15
"""How much larger than the motion the picture is."""
SAMPLES = 17
"""Frames that are looked at over the range."""
THREE_QUARTER = Euler((1.31, 0.0, 0.61))
"""From the front, a little to the side and above, for where no view says more."""


def motion_points(context, armatures: Iterable[bpy.types.Object], first: int, last: int) -> np.ndarray:
    """[N, 3] float32, in world space: what has to be in the picture over a range of frames; the scene's frame
    is put back."""
    scene, points = context.scene, []
    frame, subframe = scene.frame_current, scene.frame_subframe
    rigs = find_rigs(armatures)
    try:
        with as_rendered(context.view_layer):
            for number in sorted({round(value) for value in np.linspace(first, last, SAMPLES)}):
                scene.frame_set(number)
                depsgraph = context.evaluated_depsgraph_get()
                for rig in rigs:
                    points += _seen_points(rig, depsgraph)
    finally:
        scene.frame_set(frame, subframe=subframe)
    return np.array(points, np.float32)


def _seen_points(rig: Rig, depsgraph: bpy.types.Depsgraph) -> Iterator[Vector]:
    """The ends of a rig's bones and the corners of what it deforms, in world space."""
    placed = Matrix(rig.placement(depsgraph))
    bodies = [obj for obj in rig.objects if obj.type == "MESH" and obj.find_armature() == rig.armature]
    for obj in [rig.armature, *(body for body in bodies if is_enabled(body, depsgraph))]:
        evaluated = obj.evaluated_get(depsgraph)
        for corner in _corners(evaluated):
            yield placed @ evaluated.matrix_world @ Vector(corner)


def _corners(obj: bpy.types.Object):
    if obj.type == "ARMATURE" and obj.pose is not None:
        return [end for bone in obj.pose.bones if bone.bone.use_deform for end in (bone.head, bone.tail)]
    return obj.bound_box


class POSEANYTHING_OT_frame_subject(bpy.types.Operator):
    bl_idname = "poseanything.frame_subject"
    bl_label = "Frame Subject"
    bl_description = (
        "Place the camera so that it shows the subject's whole motion over the range. The scene's camera "
        "keeps its direction; one that is animated is left alone, and another camera is added"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not find_subjects(context, context.scene.poseanything):
            cls.poll_message_set("Select an armature")
            return False
        return True

    def execute(self, context):
        scene, settings = context.scene, context.scene.poseanything
        armatures = find_subjects(context, settings)
        try:
            points = motion_points(context, armatures, *frame_range(scene, settings))
        except ExportError as error:
            return refuse(self, error)
        camera = scene.camera
        if camera is None or not _is_free(camera):
            camera = add_camera(context, camera)
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        around = centre + (points - centre) * MARGIN
        context.view_layer.update()
        if camera.data.type == "ORTHO":
            place = _fit_orthographic(scene, camera, around)
        else:
            place, _ = camera.camera_fit_coords(context.evaluated_depsgraph_get(), around.ravel().tolist())
        camera.location = place
        distance = float(np.linalg.norm(np.array(place) - centre))
        size = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
        camera.data.clip_start = min(camera.data.clip_start, max(distance - size, distance / 100))
        camera.data.clip_end = max(camera.data.clip_end, 10 * (distance + size))
        settings.view = "CAMERA"
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


def _fit_orthographic(scene: bpy.types.Scene, camera: bpy.types.Object, points: np.ndarray) -> Vector:
    """Set the camera's scale to show points in world space; gives the place to show them from."""
    turn = np.array(camera.matrix_world.normalized().to_3x3())
    seen = points @ turn
    least, most = seen.min(axis=0), seen.max(axis=0)
    across, down, deep = most - least
    width, height = render_size(scene)
    camera.data.ortho_scale = float(
        max(across, down * width / height) if width >= height else max(down, across * height / width)
    )
    middle = (least + most) / 2
    return Vector(turn @ (middle[0], middle[1], most[2] + deep + camera.data.ortho_scale))


def _is_free(camera: bpy.types.Object) -> bool:
    """Whether nothing but the user says where a camera is."""
    return (
        camera.library is None
        and camera.override_library is None
        and camera.animation_data is None
        and camera.parent is None
        and not camera.constraints
    )


def add_camera(context, before: bpy.types.Object | None) -> bpy.types.Object:
    """A camera like another, which looks where that one or a 3D view does; the scene looks through it."""
    data = before.data.copy() if before is not None else bpy.data.cameras.new("Camera")
    data.animation_data_clear()  # a copy shares its action
    camera = bpy.data.objects.new("Camera", data)
    context.scene.collection.objects.link(camera)
    context.scene.camera = camera
    if before is not None:
        turn = before.matrix_world.to_quaternion()
    else:
        found = find_viewport(context)
        region = found[0].region_3d if found is not None else None
        turn = region.view_rotation if region is not None else THREE_QUARTER.to_quaternion()
    camera.rotation_mode = "XYZ"
    camera.rotation_euler = turn.to_euler()
    return camera


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_frame_subject,))
