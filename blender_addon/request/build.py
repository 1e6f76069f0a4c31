"""From the user's settings to what is exported, and from what was exported to the request."""

from __future__ import annotations

import dataclasses
import random

import bpy
import numpy as np

from .. import engine_settings
from ..shared.camera import camera_path
from ..shared.engines import EngineDescription, check_request
from ..shared.messages import GenerationRequest
from ..view import SceneCamera, Viewport
from .export import Alignment, ExportedClip, ExportOptions
from .first_frame import OF_NOW, PICTURE, VIDEO
from .look import look_of
from .range import ClipRange, pose_frames
from .video import alignment_of as video_alignment


def export_options(
    context,
    settings,
    clip_range: ClipRange,
    armatures: tuple[bpy.types.Object, ...],
    view: SceneCamera | Viewport,
    first_frame: str,
    engine: EngineDescription | None = None,
) -> ExportOptions:
    """What the exporter is to do for an engine; `first_frame` is the path of its picture, "" to have it
    rendered."""
    return ExportOptions(
        armatures=armatures,
        times=clip_range.times,
        width=clip_range.width,
        height=clip_range.height,
        view=view,
        first_frame=first_frame,
        first_frame_in_pose=settings.first_frame_source in OF_NOW,
        alignment=first_frame_alignment(context.scene, settings),
        pose_frames=pose_frames(context, settings, clip_range),
        look=look_of(settings, engine),
    )


def alignment_of(settings) -> Alignment:
    """How the user laid the first frame's picture on the clip; another source needs none."""
    if settings.first_frame_source != PICTURE:
        return Alignment()
    return Alignment(settings.picture_scale, settings.picture_x, settings.picture_y)


def first_frame_alignment(scene: bpy.types.Scene, settings) -> Alignment:
    """How the first frame lies on the clip: a video's own as its poses do."""
    if settings.first_frame_source == VIDEO:
        return video_alignment(scene.poseanything_video)
    return alignment_of(settings)


def choose_seed(settings) -> int:
    """The seed to use; a new one is put into the settings, where the user finds it again."""
    if settings.new_seed:
        settings.seed = random.randrange(2**31)
    return settings.seed


def build_request(
    job: str, clip: ExportedClip, clip_range: ClipRange, scene: bpy.types.Scene, engine: EngineDescription
) -> GenerationRequest:
    """Raises `shared.schema.MessageError` when something exported breaks the contract, or the engine can't
    serve the request."""
    settings = scene.poseanything
    request = GenerationRequest(
        job=job,
        engine=engine.name,
        width=clip_range.width,
        height=clip_range.height,
        num_frames=clip_range.num_frames,
        fps=clip_range.fps,
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        seed=choose_seed(settings) if engine.uses_seed else 0,
        num_inference_steps=engine_settings.num_inference_steps(scene, engine),
        guidance=engine_settings.guidance(scene, engine),
        engine_options=engine_settings.options(scene, engine),
        **_exported(clip, clip_range, settings, engine),
    )
    check_request(request, engine)
    return request


def rebuild_request(
    job: str,
    clip: ExportedClip,
    clip_range: ClipRange,
    settings,
    engine: EngineDescription,
    old: GenerationRequest,
) -> GenerationRequest:
    """A request that asks for the same as an old one, of what was exported now. Raises as `build_request`."""
    exported = _exported(clip, clip_range, settings, engine)
    request = dataclasses.replace(old, job=job, num_frames=clip_range.num_frames, **exported)
    check_request(request, engine)
    return request


def _exported(clip: ExportedClip, clip_range: ClipRange, settings, engine: EngineDescription) -> dict:
    """The fields of a request that come from the scene."""
    return {
        "first_frame": clip.first_frame,
        "first_frame_in_pose": clip.first_frame_in_pose,
        "pose": clip.pose,
        "pose_frames": clip.pose_frames,
        "subject_mask": clip.subject_mask,
        "first_labels": clip.first_labels,
        "part_maps": clip.part_maps,
        "shadow_maps": clip.shadow_maps,
        "surface_flow": clip.surface_flow,
        "light_maps": clip.light_maps,
        "backdrop": clip.backdrop,
        "camera_motion": _camera_motion(clip, clip_range, settings, engine),
    }


def _camera_motion(
    clip: ExportedClip, clip_range: ClipRange, settings, engine: EngineDescription
) -> np.ndarray | None:
    """[F, 3, 3] homographies of what the camera does in the scene, and of the chosen move on top of it."""
    if settings.camera_source == "SCENE" or not engine.uses_camera:
        return clip.camera_motion
    moves = {settings.camera_move.lower(): settings.camera_amount}
    path = camera_path(moves, clip_range.num_frames, clip_range.width, clip_range.height)
    if clip.camera_motion is None:
        return path
    path = path @ clip.camera_motion
    return path / path[:, 2:, 2:]
