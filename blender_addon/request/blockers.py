"""What keeps the user from exporting, all of it at once."""

from __future__ import annotations

import itertools
import math
import os

import bpy

from ..buttons import FIND_POSES, OPEN_VIDEO, RENDER_INSTEAD, USE_CAMERA
from ..errors import ExportError
from ..sequencer import footage
from ..shared.engines import EngineDescription
from ..shared.pose import MAX_FRAMES
from ..texts import Headline, say
from ..times import frame_rate
from . import view
from .finding import Finding, setting
from .range import camera_cuts, clip_shots, frame_range
from .subjects import find_subjects, why_none
from .video_time import poses_of

SETTINGS = "scene.poseanything"


def scene_blockers(context) -> list[Finding]:
    """What has to be put right in the scene before it can be exported; sentences without a full stop."""
    scene, found = context.scene, []
    settings = scene.poseanything
    filmed = settings.pose_source == "VIDEO"
    if filmed:
        found += _video_blockers(scene, settings)
    elif not find_subjects(context, settings):
        found.append(_no_subject(context, settings))
    seen = not filmed or settings.first_frame_source in ("RENDER", "LAST_RENDER")
    if settings.view == "CAMERA" and scene.camera is None and seen:
        operator = "object.camera_add" if found else "poseanything.frame_subject"
        found.append(
            Finding("Add a camera to the scene, or choose the viewport as view", operator, "Add Camera")
        )
    if settings.view == "VIEWPORT" and view.find_viewport(context) is None:
        found.append(Finding("Open a 3D view, or choose the camera as view", *USE_CAMERA))
    try:
        frame_range(scene, settings)
    except ExportError as error:
        found.append(Finding(Headline(str(error)), *error.button))
    if settings.first_frame_source == "VIDEO" and not filmed:
        found.append(Finding("The first frame is a video's, but the poses are a rig's", *RENDER_INSTEAD))
    if settings.first_frame_source == "PICTURE" and not _is_file(settings.first_frame_path):
        sentence = say("Choose the picture that the clip begins with, or another source of the first frame")
        if settings.first_frame_path:
            sentence = say(
                "The picture {path} is not there; choose another one",
                path=settings.first_frame_path,
            )
        found.append(Finding(sentence, *RENDER_INSTEAD))
    if bpy.app.is_job_running("RENDER"):
        found.append(Finding("Wait for the render to end", "render.view_show", "Show the Render"))
    return found


def size_blockers(context, engine: EngineDescription | None) -> list[Finding]:
    """What an engine can't make of the range and the size, with the nearest that it can."""
    scene, settings = context.scene, context.scene.poseanything
    try:
        first, last = frame_range(scene, settings)
    except ExportError:
        return []  # one of `scene_blockers`
    try:
        clip_shots(context, settings, engine)
    except ExportError as error:
        sentence, most = Headline(str(error)), engine.max_frames if engine is not None else MAX_FRAMES
        begins = [first, *camera_cuts(scene, first, last), last + 1]
        shown = max(end - begin for begin, end in itertools.pairwise(begins)) / settings.speed
        if settings.pacing == "RATE":
            rate = math.floor(100 * frame_rate(scene) * most / shown) / 100
            if 1 <= rate < settings.clip_rate:
                label = say("Use {rate:g} Frames a Second", rate=rate)
                return [setting(sentence, label, f"{SETTINGS}.clip_rate", rate)]
        else:
            step = math.ceil((shown - 1) / max(most - 1, 1))
            if step > settings.frame_step:
                return [setting(sentence, say("Use Step {step}", step=step), f"{SETTINGS}.frame_step", step)]
        return [Finding(sentence)]
    return []


def export_blocker(context) -> str:
    """The first of `scene_blockers`, "" when nothing stands in the way."""
    found = scene_blockers(context)
    return found[0].sentence if found else ""


def _video_blockers(scene: bpy.types.Scene, settings) -> list[Finding]:
    """What is missing where poses come from a video."""
    video = scene.poseanything_video
    strip = footage.find(video.strip)
    if strip is None and (video.poses is None or settings.first_frame_source == "VIDEO"):
        return [Finding("Choose a video, in the Video panel", *OPEN_VIDEO)]
    try:
        poses_of(scene)
    except ExportError as error:
        return [Finding(Headline(str(error)), *FIND_POSES)]
    return []


def _no_subject(context, settings) -> Finding:
    sentence = why_none(context, settings)
    if any(obj.type == "ARMATURE" and obj.visible_get() for obj in context.view_layer.objects):
        return setting(sentence, "Use All Visible Armatures", f"{SETTINGS}.subjects", "VISIBLE")
    return Finding(sentence, "poseanything.example_shot", "Example Shot")


def _is_file(path: str) -> bool:
    return bool(path) and os.path.isfile(bpy.path.abspath(path))
