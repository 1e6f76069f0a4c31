"""The log stays readable, whatever others send."""

from __future__ import annotations

import logging

from inference_server.broker import logs
from shared import wire
from shared.messages import Failed


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.WARNING, "", 0, message, arguments, None)


def test_no_kind_of_line_fills_the_log(monkeypatch):
    moment = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: moment[0])
    moderation = logs.Moderation()
    written = [moderation.filter(record("refused %s", number)) for number in range(1000)]
    assert written == [True] * logs.MOST + [False] * (1000 - logs.MOST)
    assert moderation.filter(record("something else"))
    moment[0] += logs.PERIOD + 1
    late = record("refused %s", "late")
    assert (
        moderation.filter(late) and late.getMessage() == f"refused late (and {1000 - logs.MOST} more before)"
    )


def test_control_characters_are_not_passed_on():
    shown = logs._Formatter("%(message)s").format(
        record("Job %s", "a\x1b[2J\r\nERROR all is lost\u202eb\x9b")
    )
    assert shown == "Job a [2J ERROR all is lost b "
    parts = wire.encode(Failed(job="a", message="No.\x1b]0;owned\x07\n"))
    assert wire.decode(parts).message == "No. ]0;owned "
