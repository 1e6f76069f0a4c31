"""How poses look: as the rig's bones lie, or as those that an engine was trained with."""

from __future__ import annotations

from ..shared.engines import EngineDescription

AUTO = "AUTO"
_NAMES = {"bones": "bones", "trained": "OpenPose's people and middle lines"}


def look_of(settings, engine: EngineDescription | None) -> str:
    """ "bones" or "trained": what the user says, else what suits the engine."""
    if settings.pose_look != AUTO:
        return settings.pose_look.lower()
    return engine.pose_look if engine is not None else "bones"


def suits(settings, engine: EngineDescription | None) -> tuple[str, bool]:
    """Which look suits an engine, in a line, and whether it is the one that is taken; "" without an
    engine."""
    if engine is None:
        return "", True
    right = look_of(settings, engine) == engine.pose_look
    known = _NAMES[engine.pose_look]
    return f"{engine.label} {'knows' if right else 'was trained with'} {known}", right
