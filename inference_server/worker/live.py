"""Live sessions: a process of their own draws them, so that none waits for a clip.

Of the poses that come while one is drawn only each session's latest is kept, and sessions take turns. They
are opened in a thread beside, so that opening one does not stop the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared import wire
from shared.messages import Hello, LiveClose, LiveEnded, LiveOpen, LivePicture, LivePose, LiveReady
from shared.sentences import say

from ..engines.base import EngineError, LiveSession, is_out_of_memory
from .host import EngineHost
from .link import Link
from .pictures import encode_picture
from .run import blame
from .vitals import measure

log = logging.getLogger(__name__)


class Mailbox:
    """What waits to be done: calls in order, and for each session its latest pose."""

    def __init__(self):
        self._calls: list[Callable[[], None]] = []
        self._poses: OrderedDict[str, Sequence] = OrderedDict()
        self._changed = threading.Condition()

    def call(self, what: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(what)
            self._changed.notify()

    def pose(self, session: str, parts: Sequence) -> None:
        """Takes the place of the session's pose that waits; the session keeps its turn."""
        with self._changed:
            self._poses[session] = parts
            self._changed.notify()

    def take(self) -> Callable[[], None] | tuple[str, Sequence]:
        """A call, or else a session and its pose, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._poses)
            return self._calls.pop(0) if self._calls else self._poses.popitem(last=False)


class LiveLink(Link):
    """A link whose messages go to a mailbox."""

    def __init__(self, address: str, token: str, studio: LiveStudio):
        self._studio = studio
        super().__init__(address, token, measure)

    def _take(self, header: dict[str, Any], parts: Sequence) -> None:
        studio = self._studio
        if header["type"] == LivePose.__name__:
            studio.mailbox.pose(header["session"], parts)
        elif header["type"] == LiveOpen.__name__:
            studio.mailbox.call(lambda: studio.open(header["session"], parts))
        elif header["type"] == LiveClose.__name__:
            studio.mailbox.call(lambda: studio.close(header["session"]))
        elif header["type"] == Hello.__name__:
            studio.mailbox.call(studio.greet)


@dataclass(eq=False)
class _Open:
    """A session that is being opened or is `drawer`'s, and how its pictures travel."""

    format: str
    drawer: LiveSession | None = None


class LiveStudio:
    """All sessions of this process; only the thread that runs `serve` touches them."""

    def __init__(self, host: EngineHost, address: str, token: str):
        self.mailbox = Mailbox()
        self._host = host
        self._sessions: dict[str, _Open] = {}
        self._broken = False
        self._opener = ThreadPoolExecutor(1, "opener")
        self._link = LiveLink(address, token, self)

    def serve(self) -> None:
        """Until memory has run out: then this process can't be trusted any more."""
        while not self._broken:
            item = self.mailbox.take()
            if isinstance(item, tuple):
                self._draw(*item)
            else:
                item()
        self._link.close()

    def greet(self) -> None:
        self._link.send(self._host.welcome())

    def open(self, session: str, parts: Sequence) -> None:
        request = wire.decode(parts, (LiveOpen,)).request
        self._sessions[session] = opening = _Open(request.frame_format)

        def prepare() -> None:
            try:
                for _ in self._host.loading(request.engine):
                    pass
                drawer = self._host[request.engine].open_live(request)
            except Exception as error:
                failed = error
                self.mailbox.call(lambda: self._end(session, failed))
            else:
                self.mailbox.call(lambda: self._begin(session, opening, drawer))

        self._opener.submit(prepare)

    def _begin(self, session: str, opening: _Open, drawer: LiveSession) -> None:
        if self._sessions.get(session) is opening:  # else it was closed meanwhile
            opening.drawer = drawer
            self._link.send(LiveReady(session=session, note=drawer.note))

    def close(self, session: str) -> None:
        self._sessions.pop(session, None)

    def _draw(self, session: str, parts: Sequence) -> None:
        found = self._sessions.get(session)
        if found is None or found.drawer is None:
            return
        message = wire.decode(parts, (LivePose,))
        begun = time.perf_counter()
        try:
            image: np.ndarray = found.drawer.draw(message.pose, message.camera_motion)
        except Exception as error:
            self._end(session, error)
            return
        height, width = image.shape[:2]
        data = encode_picture(image, found.format)
        seconds = time.perf_counter() - begun
        self._link.send(LivePicture(session, message.number, width, height, found.format, data, seconds))

    def _end(self, session: str, error: Exception) -> None:
        """What went wrong ends its session, and with memory gone this process."""
        self._sessions.pop(session, None)
        if isinstance(error, EngineError):
            code, reason = error.code, str(error)
        elif is_out_of_memory(error):
            self._broken = True
            code, reason = "memory", say("Memory ran out; choose a smaller size, or close other programs.")
        else:
            log.error("The live session %r ended in a fault", session, exc_info=error)
            code, reason = "engine", blame(error)
        self._link.send(LiveEnded(session=session, code=code, message=reason))


def serve_live(host: EngineHost, address: str, token: str) -> None:
    """Draw live sessions."""
    LiveStudio(host, address, token).serve()
