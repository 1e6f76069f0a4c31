"""What a take is made with, kept beside its frames so that it can be made again."""

from __future__ import annotations

import time
from pathlib import Path

import bpy

from .. import engine_settings
from .. import settings as scene_settings
from ..buttons import GENERATE_INSTEAD
from ..rig import properties
from ..shared.engines import EngineDescription
from ..shared.messages import GenerationRequest
from ..takes.take import Take, TakeError
from ..texts import say
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
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "settings": scene_settings.record(settings),
        "scene": scene.name,
        "camera": scene.camera.name if scene.camera is not None else "",
        "viewport": view.record() if isinstance(view, Viewport) else None,
        "armatures": [obj.name for obj in options.armatures],
        "limbs": {
            obj.name: properties.record(obj.data) for obj in options.armatures if obj.type == "ARMATURE"
        },
        "engine": engine.name,
        "engine_settings": engine_settings.record(scene, engine),
        "engine_label": engine.label,
        "neural": engine.neural,
        "width": clip_range.width,
        "height": clip_range.height,
        "fps": clip_range.fps,
        "seed": settings.seed if engine.uses_seed else None,
    }


def recorded_armatures(context, take: Take) -> tuple[bpy.types.Object, ...]:
    """The armatures that a take was made of. Raises `TakeError` when one is not in the scene, or its view
    layer leaves it out."""
    if take.record.get("settings", {}).get("pose_source") == "VIDEO":
        return ()
    names = take.record.get("armatures", ())
    found = [context.scene.objects.get(name) for name in names]
    if not found or None in found:
        missing = ", ".join(name for name, obj in zip(names, found) if obj is None) or say("an armature")
        raise TakeError(
            say(
                "{take} was made of {missing}, which is not in this scene any more.",
                take=take.name,
                missing=missing,
            ),
            *GENERATE_INSTEAD,
        )
    there = context.view_layer.objects
    if away := [obj.name for obj in found if obj.name not in there]:
        raise TakeError(
            say(
                "{take} was made of {away}, which this view layer leaves out; include its collection again.",
                take=take.name,
                away=", ".join(away),
            )
        )
    return tuple(found)


def range_of(take: Take, request: GenerationRequest) -> ClipRange:
    """The range that a take was made of."""
    return ClipRange(take.times, request.width, request.height, request.fps)


def restore_engine(scene: bpy.types.Scene, engine: EngineDescription, take: Take) -> list[str]:
    """Set the engine's values to those that the take was made with; gives a sentence for each that can't be
    set."""
    kept = take.record.get("engine_settings", {})
    same = take.record.get("engine") == engine.name and isinstance(kept, dict)
    return engine_settings.restore(scene, engine, kept) if same else []


def take_for(folder: Path, name: str, clip_range: ClipRange, record: dict) -> Take:
    return Take(folder, name, clip_range.times, record)
