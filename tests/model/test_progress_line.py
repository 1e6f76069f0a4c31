"""Progress as commands tell it: one line that changes on a terminal, few lines elsewhere."""

import io

import pytest

from inference_server.cli import progress_line
from inference_server.cli.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_shows_every_text_in_one_line():
    stream = Terminal()
    with ProgressLine(stream) as line:
        line("1 of 3")
        line("2 of 3")
    assert stream.getvalue() == "\r\033[K1 of 3\r\033[K2 of 3\n"


def test_elsewhere_a_line_stands_every_few_seconds_and_at_the_end(clock):
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        for step in range(20):
            line(f"step {step}")
            clock[0] += 1
    assert stream.getvalue().split("\n") == ["step 0", "step 6", "step 12", "step 18", "step 19", ""]


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_nothing_is_told_where_nothing_was_done(kind):
    stream = kind()
    with ProgressLine(stream):
        pass
    assert stream.getvalue() == ""


def test_what_is_left_is_told_in_hours_from_an_hour_on():
    times = {0: "0:00", 59.9: "0:59", 3599: "59:59", 3600: "1:00:00", 36_000 + 61: "10:01:01"}
    assert {seconds: progress_line.clock(seconds) for seconds in times} == times


def test_an_error_does_not_go_on_in_the_line():
    stream = Terminal()
    with pytest.raises(ValueError), ProgressLine(stream) as line:
        line("1 of 3")
        raise ValueError
    assert stream.getvalue().endswith("1 of 3\n")
