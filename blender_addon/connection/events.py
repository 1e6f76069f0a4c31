"""What the client's thread tells the main thread, and the box through which it does."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeAlias

from ..shared.messages import LiveEnded, LivePicture, LiveReady, Preview, Progress, Queued, Welcome

CONNECTING, CONNECTED, REFUSED = "CONNECTING", "CONNECTED", "REFUSED"
LiveAnswer: TypeAlias = LiveReady | LivePicture | LiveEnded


@dataclass(frozen=True)
class LinkState:
    """Whether a server answers: `CONNECTING` (none does, still trying), `CONNECTED`, or `REFUSED` (one
    does, but can't be used); `sentence` says why not."""

    state: str
    sentence: str = ""


@dataclass(frozen=True)
class FramesSaved:
    """The first `count` frames of a job are on disk."""

    job: str
    count: int


@dataclass(frozen=True)
class Interrupted:
    """The connection broke while the server had a job; it goes on there, and here when the server is back."""

    job: str


@dataclass(frozen=True)
class Unsent:
    """The server went away before it began with a job; the job waits here for the next one."""

    job: str


class Inbox:
    """What waits for the main thread, kept as the latest state of each job: a fast server can't pile up work
    for a busy Blender. Any thread may use it."""

    def __init__(self) -> None:
        self.link = LinkState(CONNECTING)
        self.welcome: Welcome | None = None
        self._events: dict[tuple, object] = {}
        self._live: dict[tuple, LiveAnswer] = {}
        self._lock = threading.Lock()

    def post(self, event: object) -> None:
        job = getattr(event, "job", "")
        latest = isinstance(event, (Progress, Preview, Queued, FramesSaved, LinkState, Welcome))
        key = (job, type(event)) if latest else (job, type(event), id(event))
        with self._lock:
            self._events.pop(key, None)
            self._events[key] = event

    def post_live(self, answer: LiveAnswer) -> None:
        with self._lock:
            self._live[answer.session, type(answer)] = answer

    def set_link(self, state: str, sentence: str = "") -> None:
        """Post the link's state where it changes."""
        link = LinkState(state, sentence)
        if link != self.link:
            self.link = link
            if state != CONNECTED:
                self.welcome = None
            self.post(link)

    def take(self, limit: int) -> list[object]:
        """At most `limit` of what was posted since, in order."""
        with self._lock:
            keys = list(self._events)[:limit]
            return [self._events.pop(key) for key in keys]

    def take_live(self) -> list[LiveAnswer]:
        """Of each live session the latest of each kind of answer."""
        with self._lock:
            answers = list(self._live.values())
            self._live.clear()
        return answers
