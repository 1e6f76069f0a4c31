"""From the user's settings to what is exported and asked for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from .. import preferences, session
from .. import settings as scene_settings
from ..errors import ExportError
from ..rig import properties
from ..sequencer.takes import FIRST_FRAME, Take
from ..shared.camera import camera_path
from ..shared.messages import MAX_CLIP_PIXELS, MAX_PIXELS, EngineDescription, GenerationRequest, Guidance
from ..view import SceneCamera, Viewport, clip_size
from .export import ExportedClip, ExportOptions


@dataclass(frozen=True)
class Shot:
    """When and how large. Clip frame i is scene frame `frame_start` + i * `frame_step`; the clip is shown
    for `duration` scene frames, which may end before its last frame where the engine takes only certain
    lengths."""

    frame_start: int
    frame_step: int
    duration: int
    num_frames: int
    width: int
    height: int
    fps: float


def frame_range(scene, settings) -> tuple[int, int]:
    """First and last scene frame. Raises `ExportError` when there is none between them."""
    if settings.use_custom_range:
        first, last = settings.frame_start, settings.frame_end
    elif scene.use_preview_range:
        first, last = scene.frame_preview_start, scene.frame_preview_end
    else:
        first, last = scene.frame_start, scene.frame_end
    if last < first:
        raise ExportError(
            f"The frame range is empty: its end ({last}) comes before its start ({first}); set it anew."
        )
    return first, last


def plan_shot(
    context, settings, engine: EngineDescription | None, view: SceneCamera | Viewport | None = None
) -> Shot:
    """The shot as an engine can take it; without one, as it is. `view` is used instead of what the settings
    say. Raises `ExportError`."""
    scene = context.scene
    first, last = frame_range(scene, settings)
    duration = last - first + 1
    frames = (duration - 1) // settings.frame_step + 1
    multiple, most = 2, None
    if engine is not None:
        frames += -(frames - 1) % engine.frame_step
        multiple, most = max(engine.size_multiple, 2), engine.max_frames
    if most is not None and frames > most:
        raise ExportError(
            f"The shot has {frames} frames but {engine.label} makes at most {most}; shorten the range or "
            "raise the step."
        )
    width, height = clip_size(scene, settings.long_side, multiple, view or find_view(context, settings))
    if width * height > MAX_PIXELS or frames * width * height > MAX_CLIP_PIXELS:
        raise ExportError(
            f"A clip of {frames} frames at {width} x {height} is too large; choose a smaller size or fewer "
            "frames."
        )
    fps = scene.render.fps / scene.render.fps_base / settings.frame_step
    return Shot(first, settings.frame_step, duration, frames, width, height, fps)


def find_subjects(context, settings) -> tuple[bpy.types.Object, ...]:
    """The armatures that the settings name, and the collection instances that bring one along; none when
    they name none."""
    if settings.subjects == "COLLECTION":
        chosen = set(settings.collection.all_objects) if settings.collection is not None else set()
    elif settings.subjects == "VISIBLE":
        chosen = {obj for obj in context.view_layer.objects if obj.visible_get()}
    else:
        selected = list(context.view_layer.objects.selected)
        chosen = set(selected) | {obj.find_armature() for obj in selected if obj.type == "MESH"}
    carriers = [obj for obj in context.view_layer.objects if _brings_armature(obj)]
    found = tuple(obj for obj in carriers if obj in chosen)
    if not found and settings.subjects == "SELECTED" and len(carriers) == 1:
        return tuple(carriers)
    return found


def _brings_armature(obj: bpy.types.Object) -> bool:
    if obj.type == "ARMATURE":
        return True
    if obj.instance_type != "COLLECTION" or obj.instance_collection is None:
        return False
    return any(inner.type == "ARMATURE" for inner in obj.instance_collection.all_objects)


def export_blocker(context) -> str:
    """What stands in the way of exporting, in a few words; "" when nothing does."""
    scene = context.scene
    if not find_subjects(context, scene.poseanything):
        return (
            "Put an armature into the collection"
            if scene.poseanything.subjects == "COLLECTION"
            else "Select an armature"
        )
    if scene.poseanything.view == "CAMERA" and scene.camera is None:
        return "Add a camera to the scene, or choose the viewport as view"
    if scene.poseanything.view == "VIEWPORT" and find_viewport(context) is None:
        return "Open a 3D view, or choose the camera as view"
    if bpy.app.is_job_running("RENDER"):
        return "Wait for the render to end"
    return ""


def find_viewport(context):
    """(space, region) of the 3D view that the user is in, else of the largest one; None without any."""
    area = context.area
    if area is None or area.type != "VIEW_3D":
        areas = [a for a in context.screen.areas if a.type == "VIEW_3D"] if context.screen is not None else []
        if not areas:
            return None
        area = max(areas, key=lambda a: a.width * a.height)
    return area.spaces.active, next(region for region in area.regions if region.type == "WINDOW")


def find_view(context, settings) -> SceneCamera | Viewport:
    """What the clip is seen through. Raises `ExportError`."""
    if settings.view == "CAMERA":
        return SceneCamera()
    viewport = find_viewport(context)
    if viewport is None:
        raise ExportError("There is no 3D view to look through; choose the camera as view.")
    return Viewport.from_context(*viewport)


def pose_frames(context, settings, shot: Shot) -> tuple[int, ...] | None:
    """Indices of the clip frames that carry a pose, None for all; the first and the last always do."""
    if settings.pose_density == "ALL":
        return None
    last = shot.num_frames - 1
    if settings.pose_density == "NTH":
        chosen = range(0, last, settings.pose_interval)
    else:
        frames = [frame for obj in find_subjects(context, settings) for frame in _keyed_frames(obj)]
        indices = (round((frame - shot.frame_start) / shot.frame_step) for frame in frames)
        chosen = (index for index in indices if 0 < index < last)
    return tuple(sorted({0, *chosen, last}))


def _keyed_frames(obj: bpy.types.Object) -> Iterator[float]:
    """The scene frames at which an object or its bones are keyed in its own action."""
    animation = obj.animation_data
    if animation is None or animation.action is None:
        return
    if hasattr(animation, "action_slot"):  # from Blender 4.4 on, where others may share the action
        bags = [
            bag for layer in animation.action.layers for strip in layer.strips for bag in strip.channelbags
        ]
        curves = [curve for bag in bags if bag.slot == animation.action_slot for curve in bag.fcurves]
    else:
        curves = animation.action.fcurves
    for curve in curves:
        for key in curve.keyframe_points:
            yield key.co.x


def export_options(context, settings, shot: Shot, again: Take | None = None) -> ExportOptions:
    """What the exporter is to do; with the first frame and the viewport of a take that is made `again`.
    Raises `ExportError`."""
    picture = str(again.folder / FIRST_FRAME) if again is not None else ""
    if not os.path.isfile(picture):
        picture = ""
    if not picture and settings.first_frame_source == "PICTURE":
        picture = bpy.path.abspath(settings.first_frame_path)
        if not settings.first_frame_path:
            raise ExportError(
                "Choose the picture that the clip begins with, or let its first frame be rendered."
            )
    return ExportOptions(
        armatures=find_subjects(context, settings),
        frame_start=shot.frame_start,
        num_frames=shot.num_frames,
        frame_step=shot.frame_step,
        width=shot.width,
        height=shot.height,
        view=recorded_view(again) or find_view(context, settings),
        first_frame=picture,
        pose_frames=pose_frames(context, settings, shot),
    )


def choose_seed(settings) -> int:
    """The seed to use; a new one is put into the settings, where the user finds it again."""
    if settings.new_seed:
        settings.seed = random.randrange(2**31)
    return settings.seed


def build_request(
    job: str, clip: ExportedClip, shot: Shot, settings, engine: EngineDescription
) -> GenerationRequest:
    """Raises `shared.schema.MessageError` when something exported breaks the contract."""
    guider = settings.guider_name if settings.guider_name in engine.guiders else "none"
    return GenerationRequest(
        job=job,
        engine=engine.name,
        width=shot.width,
        height=shot.height,
        num_frames=shot.num_frames,
        fps=shot.fps,
        first_frame=clip.first_frame,
        pose=clip.pose,
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        seed=choose_seed(settings),
        num_inference_steps=settings.num_inference_steps if engine.neural else engine.default_steps,
        guidance=Guidance(
            guider=guider,
            guidance_scale=settings.guidance_scale,
            camera_guidance_scale=settings.camera_guidance_scale,
            negative_text=settings.negative_text,
            negative_pose=settings.negative_pose,
            start=min(settings.guidance_start, settings.guidance_stop),
            stop=settings.guidance_stop,
        ),
        pose_frames=clip.pose_frames,
        subject_mask=clip.subject_mask,
        first_labels=clip.first_labels,
        part_maps=clip.part_maps,
        camera_motion=_camera_motion(clip, shot, settings, engine),
    )


def _camera_motion(clip: ExportedClip, shot: Shot, settings, engine: EngineDescription) -> np.ndarray | None:
    """[F, 3, 3] homographies of what the camera does in the scene, and of the chosen move on top of it."""
    if settings.camera_source == "SCENE" or not engine.uses_camera:
        return clip.camera_motion
    moves = {settings.camera_move.lower(): settings.camera_amount}
    path = camera_path(moves, shot.num_frames, shot.width, shot.height)
    if clip.camera_motion is None:
        return path
    path = path @ clip.camera_motion
    return path / path[:, 2:, 2:]


def make_record(context, settings, shot: Shot, engine: EngineDescription, options: ExportOptions) -> dict:
    """What a take is made with, to make it again."""
    scene, view = context.scene, options.view
    return {
        "extension": session.get().version,
        "settings": scene_settings.record(settings),
        "scene": scene.name,
        "camera": scene.camera.name if scene.camera is not None else "",
        "viewport": view.record() if isinstance(view, Viewport) else None,
        "armatures": [obj.name for obj in options.armatures],
        "limbs": {
            obj.name: properties.record(obj.data) for obj in options.armatures if obj.type == "ARMATURE"
        },
        "engine": engine.name,
        "engine_label": engine.label,
        "neural": engine.neural,
        "width": shot.width,
        "height": shot.height,
        "fps": shot.fps,
        "seed": settings.seed,
    }


def recorded_view(take: Take | None) -> Viewport | None:
    """The viewport that a take was seen through, None when it was a camera. Raises `ExportError`."""
    kept = take.record.get("viewport") if take is not None else None
    try:
        return Viewport.from_record(kept) if kept else None
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"The viewport of {take.name} can't be read; use its settings and generate."
        ) from error


def output_folder(context, settings) -> Path:
    """The folder that takes go to. Raises `ExportError` when it is relative to a file that is not saved."""
    folder = settings.output_folder or preferences.get(context).output_folder
    if folder.startswith("//") and not bpy.data.is_saved:
        raise ExportError(
            "Save the .blend first, or choose an output folder: takes are kept beside the file."
        )
    if not folder:
        raise ExportError("Choose an output folder.")
    # Links and mapped drives stay as the user wrote them, so that a path relative to the file stays one.
    return Path(os.path.abspath(bpy.path.abspath(folder)))


def take_for(folder: Path, name: str, shot: Shot, record: dict) -> Take:
    return Take(folder, name, shot.num_frames, shot.frame_start, shot.frame_step, shot.duration, record)
