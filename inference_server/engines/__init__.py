"""Engines by name. Each lives in a module of its own, imported only when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module

from shared.engines import EngineDescription
from shared.messages import PoseFinderDescription
from shared.sentences import say

from .base import Engine, EngineError, PoseFinder

log = logging.getLogger(__name__)

ENGINES = {
    "poseanything": "inference_server.engines.poseanything.engine:PoseAnythingEngine",
    "mini": "inference_server.engines.mini.engine:MiniEngine",
    "draft": "inference_server.engines.draft:DraftEngine",
}
"""The best first: where none is named, the first that is ready makes the clip."""
POSE_FINDER = "inference_server.xpose.finder:VideoPoseFinder"
"""What finds poses in videos, as `module:Class`."""


def find_pose_finder() -> type[PoseFinder]:
    """The class of what finds poses in videos."""
    module, _, attribute = POSE_FINDER.partition(":")
    return getattr(import_module(module), attribute)


def describe_pose_finder() -> PoseFinderDescription:
    """What finds poses in videos says of itself; where it can't be imported, the reason."""
    try:
        return find_pose_finder().describe()
    except Exception as error:  # whatever keeps it from being imported, the engines work on
        log.debug("Poses can't be found in videos", exc_info=True)
        reason = say("Poses can't be found in videos here: {reason}.", reason=_reason(error))
        return PoseFinderDescription(ready=False, reason=reason)


def find_engine(name: str, engines: Mapping[str, str] = ENGINES) -> type[Engine]:
    """The engine class of a name; raises `EngineError` when there is none."""
    if name not in engines:
        raise EngineError(
            "There is no engine named {name!r}; choose one of {names}.",
            code="invalid",
            name=name[:64],
            names=", ".join(engines),
        )
    module, _, attribute = engines[name].partition(":")
    return getattr(import_module(module), attribute)


def describe_engine(name: str, engines: Mapping[str, str] = ENGINES) -> EngineDescription:
    """What an engine says of itself. One that can't be imported is described as not ready, with the
    reason."""
    try:
        return find_engine(name, engines).describe()
    except Exception as error:  # whatever keeps an engine from being imported, the others work on
        log.debug("The engine %s can't be imported", name, exc_info=True)
        return EngineDescription(
            name=name,
            label=name,
            summary="",
            neural=False,
            ready=False,
            reason=say("The engine {name} can't be used here: {reason}.", name=name, reason=_reason(error)),
        )


def _reason(error: Exception) -> str:
    """Why a module can't be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return say("{package} is not installed", package=error.name)
    return f"{type(error).__name__}: {error}"
