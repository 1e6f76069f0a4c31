"""Engines by name: described without being made, made and loaded when first asked for, kept from then on."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Mapping

from shared.messages import Progress, Welcome

from .. import __version__
from ..engines import describe_engine, describe_pose_finder, find_engine
from ..engines.base import Engine

log = logging.getLogger(__name__)


class EngineHost:
    def __init__(self, engines: Mapping[str, str]):
        self._names = engines
        self._loaded: dict[str, Engine] = {}

    def warm_up(self) -> None:
        """Load what is cheap to load, so that the first job has nothing to wait for."""
        for engine in self.welcome().engines:
            if engine.ready and not engine.neural:
                try:
                    for _ in self.loading(engine.name):
                        pass
                except Exception:  # the job that asks for it will be told
                    log.exception("The engine %s can't be loaded", engine.name)

    def welcome(self) -> Welcome:
        """What this worker is and can do at this moment."""
        device = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
        engines = tuple(describe_engine(name, self._names) for name in self._names)
        return Welcome(
            server_version=__version__, engines=engines, device=device, pose_finder=describe_pose_finder()
        )

    def loading(self, name: str) -> Iterator[Progress]:
        """Load an engine if it is not loaded; then `[name]` gives it. Raises what the engine raises."""
        if name not in self._loaded:
            engine = find_engine(name, self._names)()
            yield from engine.load()
            self._loaded[name] = engine

    def __getitem__(self, name: str) -> Engine:
        return self._loaded[name]
