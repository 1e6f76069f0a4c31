"""What keeps the user from exporting."""

from __future__ import annotations

import bpy

from . import view
from .subjects import find_subjects, why_none


def export_blocker(context) -> str:
    """What stands in the way of exporting, in a few words; "" when nothing does."""
    scene = context.scene
    if not find_subjects(context, scene.poseanything):
        return why_none(context, scene.poseanything)
    if scene.poseanything.view == "CAMERA" and scene.camera is None:
        return "Add a camera to the scene, or choose the viewport as view"
    if scene.poseanything.view == "VIEWPORT" and view.find_viewport(context) is None:
        return "Open a 3D view, or choose the camera as view"
    if bpy.app.is_job_running("RENDER"):
        return "Wait for the render to end"
    return ""
