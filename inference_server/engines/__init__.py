"""Engines by name. Each lives in a module of its own, imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from .base import Engine, EngineError

ENGINES = {
    "draft": "inference_server.engines.draft:DraftEngine",
    "poseanything": "inference_server.engines.poseanything.engine:PoseAnythingEngine",
}


def find_engine(name: str, engines: Mapping[str, str] = ENGINES) -> type[Engine]:
    """The engine class of a name; raises `EngineError` when there is none."""
    if name not in engines:
        raise EngineError(
            f"There is no engine named {name[:64]!r}; choose one of {', '.join(engines)}.", code="invalid"
        )
    module, _, attribute = engines[name].partition(":")
    return getattr(import_module(module), attribute)
