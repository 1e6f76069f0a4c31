"""Whether the engine that a valid request names can serve it, told before the job waits for its turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared import engines
from shared.engines import EngineDescription
from shared.messages import GenerationRequest, PoseFinderDescription
from shared.schema import MessageError
from shared.sentences import SentenceError, as_value, say


class Refusal(SentenceError):
    """A request no engine here can serve. Its text is one sentence for the user, `code` one of `Failed`'s."""

    def __init__(self, text: str, code: str = "invalid", **values: Any):
        super().__init__(text, **values)
        self.code = code


def check_request(request: GenerationRequest, offered: Mapping[str, EngineDescription]) -> None:
    """Raises `Refusal`."""
    _check(request, offered, engines.check_request)


def check_live(request: GenerationRequest, offered: Mapping[str, EngineDescription]) -> None:
    """The same for a request that opens a live session."""
    _check(request, offered, engines.check_live)


def _check(request, offered, check) -> None:
    engine = offered.get(request.engine)
    if engine is None:
        raise Refusal(
            "There is no engine named {name!r}; choose one of {names}.",
            name=request.engine,
            names=", ".join(offered),
        )
    if not engine.ready:
        cant_run = say("{engine} can't run here; choose another engine.", engine=as_value(engine.label))
        raise Refusal(engine.reason or cant_run, "engine")
    try:
        check(request, engine)
    except MessageError as error:
        raise Refusal(str(error)) from error


def check_pose_finder(finder: PoseFinderDescription | None) -> None:
    """Raises `Refusal` where no worker looks for poses in videos."""
    if finder is None or not finder.ready:
        reason = finder.reason if finder is not None else ""
        raise Refusal(reason or say("This server can't find poses in videos; start it anew."), "engine")
