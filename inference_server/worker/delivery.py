"""From an engine's events to messages on their way, in order, while the engine makes the next ones."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Executor, Future

import numpy as np

from shared.messages import Frame, GenerationRequest, Preview, Progress

from ..engines.base import Picture
from .link import Sender, WorkItem
from .pictures import encode_picture

DEPTH = 4
"""How many events may be on their way through the encoders before the engine has to wait."""


class EngineFault(Exception):
    """The engine broke its contract."""


class Delivery:
    """Used as a context: leaving it waits until all is sent, and raises what went wrong on the way. What a
    cancelled job has made is dropped. While it is open nothing else may be sent over the link."""

    def __init__(self, item: WorkItem, request: GenerationRequest, link: Sender, encoders: Executor):
        self.frames = 0
        self._item, self._request, self._link, self._encoders = item, request, link, encoders
        self._events: queue.Queue[Progress | Preview | Future[Frame] | None] = queue.Queue(DEPTH)
        self._fault: BaseException | None = None
        self._sender = threading.Thread(target=self._send_all, name="sender")

    def __enter__(self) -> Delivery:
        self._sender.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._events.put(None)
        self._sender.join()
        if kind is None and self._fault:
            raise self._fault

    def put(self, event: Progress | Preview | Picture) -> None:
        """Send an event in its turn; blocks while too many are on their way. Raises `EngineFault`."""
        if self._fault:
            raise self._fault
        if isinstance(event, Picture):
            self._check(event)
            self.frames += 1
            self._events.put(self._encoders.submit(self._encode, event))
        else:
            self._events.put(event)

    def _check(self, picture: Picture) -> None:
        shape = (self._request.height, self._request.width, 3)
        if picture.index != self.frames or self.frames == self._request.num_frames:
            raise EngineFault(
                f"frame {picture.index} came as number {self.frames} of {self._request.num_frames}"
            )
        if picture.image.shape != shape or picture.image.dtype != np.uint8:
            raise EngineFault(
                f"frame {picture.index} is {picture.image.dtype} {picture.image.shape}, not uint8 {shape}"
            )

    def _encode(self, picture: Picture) -> Frame:
        request = self._request
        data = encode_picture(picture.image, request.frame_format)
        return Frame(request.job, picture.index, request.width, request.height, request.frame_format, data)

    def _send_all(self) -> None:
        while (event := self._events.get()) is not None:
            if self._fault or self._item.cancelled.is_set():
                continue
            try:
                self._link.send(event.result() if isinstance(event, Future) else event)
            except Exception as error:  # raised where the job is run
                self._fault = error
