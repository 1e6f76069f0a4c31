"""What a take is made with, kept beside its frames so that it can be made again."""

from __future__ import annotations

from pathlib import Path

from .. import settings as scene_settings
from ..rig import properties
from ..shared.messages import EngineDescription
from ..takes.take import Take
from ..view import Viewport
from .export import ExportOptions
from .range import ClipRange


def make_record(
    context, settings, clip_range: ClipRange, engine: EngineDescription, options: ExportOptions, version: str
) -> dict:
    """What a take is made with, to make it again; `version` is the extension's."""
    scene, view = context.scene, options.view
    return {
        "extension": version,
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
        "width": clip_range.width,
        "height": clip_range.height,
        "fps": clip_range.fps,
        "seed": settings.seed,
    }


def take_for(folder: Path, name: str, clip_range: ClipRange, record: dict) -> Take:
    return Take(
        folder,
        name,
        clip_range.num_frames,
        clip_range.frame_start,
        clip_range.frame_step,
        clip_range.duration,
        record,
    )
