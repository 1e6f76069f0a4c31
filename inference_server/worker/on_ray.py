"""A worker whose engine runs somewhere in a Ray cluster.

The broker's machine keeps a process for each, as for an engine of its own, which speaks the same protocol. It
owns an actor in the cluster, hands requests to it, and passes on what it makes as it comes. When the actor or
its node is lost, or does not answer any more, this process ends, and the broker does what it does then: the
job is made once more, elsewhere. When this process ends, Ray ends its actor.

Every node needs the same release of this package, with what its engines need.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from shared import wire

from .. import NODE_LOST
from .host import EngineHost
from .link import HEARTBEAT, Link, WorkItem
from .run import run
from .vitals import measure

log = logging.getLogger(__name__)

AHEAD = 4
"""How many messages an actor gets ahead of what is taken."""
PATIENCE = 10.0
"""Seconds in which a cluster must answer."""


class EngineActor:
    """Runs engines on a node. Its methods are called side by side; only one `make` at a time."""

    def __init__(self, engines: Mapping[str, str]):
        self._host = EngineHost(engines)
        self._host.warm_up()
        self._encoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "encoder")
        self._item: WorkItem | None = None

    def welcome(self) -> list[bytes]:
        """What it can do, as an encoded message."""
        return _plain(wire.encode(self._host.welcome()))

    def vitals(self) -> bytes:
        return measure()

    def cancel(self, job: str) -> None:
        item = self._item
        if item and item.job == job:
            item.cancel()

    def make(self, job: str, parts: Sequence[bytes]) -> Iterator[tuple[list[bytes], bool]]:
        """Encoded messages up to the job's ending, each with whether the actor can't be used after it."""
        item = self._item = WorkItem(job, [memoryview(part) for part in parts])
        outbox = _Outbox()

        def work() -> None:
            ending = run(self._host, item, outbox, self._encoders)
            outbox.put((_plain(wire.encode(ending.message)), ending.needs_restart))
            outbox.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (message := outbox.take()) is not None:
            yield message
        self._item = None


class _Outbox:
    """What a run sends over instead of a link, until None."""

    def __init__(self):
        messages: queue.Queue[tuple[list[bytes], bool] | None] = queue.Queue(AHEAD)
        self.put, self.take = messages.put, messages.get

    def send(self, message: Any) -> None:
        self.put((_plain(wire.encode(message)), False))


def _plain(parts: Sequence) -> list[bytes]:
    return [bytes(part) for part in parts]


class _Pulse:
    """Asks the actor for signs of life, from a thread of its own, and ends this process after `silence`
    seconds without them."""

    def __init__(self, ask: Callable[[], bytes], silence: float):
        self._ask, self._silence = ask, silence
        self._latest, self._at = ask(), time.monotonic()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            try:
                self._latest = self._ask()
            except Exception as error:  # of Ray's many kinds, whichever says that it is gone
                _give_up(error)
            self._at = time.monotonic()

    def __call__(self) -> bytes:
        if time.monotonic() - self._at > self._silence:
            _give_up(f"no sign of life for {self._silence:.0f} s")
        return self._latest


def _give_up(reason: object) -> NoReturn:
    log.error("The Ray actor is lost: %s", str(reason).partition("\n")[0])
    os._exit(NODE_LOST)


def connect(address: str):
    """The module `ray`, connected to a cluster. Ends the process with a sentence where that is not
    possible."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()  # Ray would try for minutes
    except (OSError, ValueError) as error:
        sys.exit(f"No Ray cluster answers at {address} ({error}); start one with: ray start --head")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    try:
        import ray
    except ImportError:
        sys.exit("Ray is not installed; install it with: pip install 'poseanything-bridge[ray]'")
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        first_line = str(error).partition("\n")[0][:300]
        sys.exit(f"The Ray cluster at {address} can't be used ({first_line}).")
    return ray


def main(settings: Mapping[str, Any]) -> None:
    """Serve the broker's requests by an actor, until either is gone."""
    ray = connect(settings["ray"])
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    options = {"max_concurrency": 4, "scheduling_strategy": "SPREAD", **needs}
    actor = ray.remote(EngineActor).options(**options).remote(settings["engines"])
    try:
        welcome = ray.get(actor.welcome.remote())  # waits until a node has room for it
        pulse = _Pulse(lambda: ray.get(actor.vitals.remote()), settings["silence"])
        link = Link(settings["address"], settings["token"], pulse)
        while True:
            if (item := link.wait()) is not None:
                _make(ray, actor, item, link)
            else:
                welcome = ray.get(actor.welcome.remote())
            link.forward(welcome)
    except ray.exceptions.RayError as error:
        _give_up(error)


def _make(ray, actor, item: WorkItem, link: Link) -> None:
    stream = actor.make.options(num_returns="streaming", _generator_backpressure_num_objects=AHEAD)
    item.on_cancel = lambda: actor.cancel.remote(item.job)
    events = stream.remote(item.job, _plain(item.parts))
    if item.cancelled.is_set():
        item.on_cancel()
    for reference in events:
        parts, is_last = ray.get(reference)
        link.forward(parts)
        if is_last:
            link.close()
            os._exit(0)


if __name__ == "__main__":  # how many workers a cluster has room for: its cards, or its nodes without any
    ray = connect(sys.argv[1])
    nodes = [node for node in ray.nodes() if node["Alive"]]
    print(int(ray.cluster_resources().get("GPU", 0)) or len(nodes))
