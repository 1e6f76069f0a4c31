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


def suits(settings, engine: EngineDescription | None) -> tuple[str, bool]:
    """Which look suits an engine, in a line, and whether it is the one that is taken; "" without an
    engine."""
    if engine is None:
        return "", True
    right = look_of(settings, engine) == engine.pose_look
    if engine.pose_look == "bones":
        template = "{engine} knows bones" if right else "{engine} was trained with bones"
    elif right:
        template = "{engine} knows OpenPose's people and middle lines"
    else:
        template = "{engine} was trained with OpenPose's people and middle lines"
    return say(template, engine=engine.short_label), right
