"""Live sessions in the client's thread: what waits to be sent, and what has been."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..shared.messages import LiveClose, LiveEnded, LiveOpen, LivePicture, LivePose, LiveReady
from ..shared.schema import MessageError
from .events import LiveAnswer

IN_FLIGHT = 2
"""Poses that may be on their way at once: while one is drawn the next is there already, and none piles up."""
PATIENCE = 2.0
"""Seconds after which an answer is not waited for any more."""


class LiveView:
    """Of the poses that wait only the latest is kept. The opening is kept too: a server that comes back is
    asked anew."""

    def __init__(self, opening: LiveOpen):
        self.opening = opening
        self.opened = self.ready = False
        self.pose: LivePose | None = None
        self._flying: deque[int] = deque()
        self._flew = 0.0

    def due(self) -> LivePose | None:
        """The pose to send now."""
        if self._flying and time.monotonic() - self._flew > PATIENCE:
            self._flying.clear()
        return self.pose if self.ready and len(self._flying) < IN_FLIGHT else None

    def sent(self, pose: LivePose) -> None:
        self.pose = None
        self._flying.append(pose.number)
        self._flew = time.monotonic()

    def answered(self, number: int) -> None:
        while self._flying and self._flying[0] <= number:
            self._flying.popleft()

    def interrupt(self) -> None:
        """The connection is gone."""
        self.opened = self.ready = False
        self._flying.clear()


class LiveViews:
    """All of a client's.

    Args:
        send: sends a message; false when it can't be sent for now.
        post: takes what the main thread is to hear.
    """

    def __init__(self, send: Callable[[object], bool], post: Callable[[LiveAnswer], None]):
        self._send, self._post = send, post
        self._views: dict[str, LiveView] = {}

    def open(self, opening: LiveOpen) -> None:
        self._views[opening.session] = LiveView(opening)

    def pose(self, pose: LivePose) -> None:
        if (view := self._views.get(pose.session)) is not None:
            view.pose = pose

    def close(self, session: str) -> None:
        if (view := self._views.pop(session, None)) is not None and view.opened:
            self._send(LiveClose(session=session))

    def send(self) -> None:
        """Open what is to be opened, and send the poses that are due."""
        for name, view in list(self._views.items()):
            try:
                if not view.opened:
                    view.opened = self._send(view.opening)
                elif (pose := view.due()) is not None and self._send(pose):
                    view.sent(pose)
            except MessageError as error:
                self.hear(LiveEnded(session=name, code="invalid", message=str(error)))

    def hear(self, answer: LiveAnswer) -> None:
        view = self._views.get(answer.session)
        if view is None:
            return
        if isinstance(answer, LiveReady):
            view.ready = True
        elif isinstance(answer, LivePicture):
            view.answered(answer.number)
        elif answer.code == "unknown":
            view.interrupt()  # the server has lost it, and is asked anew
            return
        else:
            del self._views[answer.session]
        self._post(answer)

    def interrupt(self) -> None:
        """The connection is gone."""
        for view in self._views.values():
            view.interrupt()

    def refuse(self, sentence: str) -> None:
        """End them all: the server can't be used."""
        for name in list(self._views):
            self.hear(LiveEnded(session=name, code="version", message=sentence))
