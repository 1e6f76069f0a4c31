"""How poses look: as the rig's bones lie, or as those that an engine was trained with."""

from __future__ import annotations

from ..shared.engines import EngineDescription
from ..texts import say

AUTO = "AUTO"


def look_of(settings, engine: EngineDescription | None) -> str:
    """ "bones" or "trained": what the user says, else what suits the engine."""
    if settings.pose_look != AUTO:
        return settings.pose_look.lower()
    return engine.pose_look if engine is not None else "bones"


def unsuited(settings, engine: EngineDescription | None) -> str:
    """Which look an engine was trained with, where another is taken; else ""."""
    if engine is None or look_of(settings, engine) == engine.pose_look:
        return ""
    if engine.pose_look == "bones":
        return say("{engine} was trained with bones", engine=engine.short_label)
    return say("{engine} was trained with OpenPose's people and middle lines", engine=engine.short_label)
