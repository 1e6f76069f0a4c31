"""What waits for a client that does not listen: bounded where it may be, whole where it must be."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from inference_server.broker import frontend as rules
from inference_server.broker.frontend import Client as Correspondent
from inference_server.broker.frontend import Frontend
from inference_server.broker.keys import KeyRing
from shared import wire
from shared.keys import keys_folder
from shared.messages import Frame, Hello, Progress

from .client import Client

SIDE = 512


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    context = zmq.Context()
    frontend = Frontend(context, "tcp://127.0.0.1:0", KeyRing(keys_folder()))
    yield frontend
    frontend.close(0)
    context.term()


def test_a_front_end_that_can_not_be_opened_leaves_nothing_that_its_context_would_wait_for(monkeypatch):
    class Full(zmq.Context):
        def socket(self, kind, **more):
            if kind == zmq.ROUTER:
                raise zmq.ZMQError(errno.EMFILE)
            return super().socket(kind, **more)

    context = Full()
    with pytest.raises(zmq.ZMQError):
        Frontend(context, "tcp://127.0.0.1:0", KeyRing(keys_folder()))
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    ending.join(10)
    assert context.closed


def connect(frontend: Frontend, client: Client) -> Correspondent:
    client.send(Hello())
    assert frontend.socket.poll(10_000)
    correspondent, _ = frontend.receive(0.0)
    return correspondent


def frame(index: int) -> Frame:
    return Frame(job="a", index=index, width=SIDE, height=SIDE, format="raw", data=bytes(3 * SIDE * SIDE))


def progress(step: int) -> Progress:
    return Progress(job="a", stage="drawing", step=step, total=1000)


def block(frontend: Frontend, correspondent: Correspondent) -> int:
    """Send frames until the client's pipe takes no more, even after a while; returns how many."""
    sent = 0
    while True:
        frontend.send(correspondent, frame(sent))
        sent += 1
        if correspondent.outbox:
            time.sleep(0.2)
            frontend.flush()
            if correspondent.outbox:
                return sent


def receive(frontend: Frontend, client: Client):
    """The client's next message, while the front end does what its loop does."""
    deadline = time.monotonic() + 60
    while not client.socket.poll(20):
        assert time.monotonic() < deadline, "what waits is not sent"
        frontend.flush()
    return client.receive()


def test_frames_wait_and_come_whole_and_in_order(frontend):
    with Client(frontend.endpoint, receive_limit=1) as client:
        correspondent = connect(frontend, client)
        sent = block(frontend, correspondent)
        for index in range(sent, sent + 20):
            frontend.send(correspondent, frame(index))
        assert len(correspondent.outbox) > 20 and frontend.blocked
        for index in range(sent + 20):
            assert receive(frontend, client).index == index
        frontend.flush()
        assert not correspondent.outbox and not frontend.blocked


def test_what_needs_not_be_kept_does_not_pile_up(frontend):
    with Client(frontend.endpoint, receive_limit=1) as client:
        correspondent = connect(frontend, client)
        block(frontend, correspondent)
        for step in range(1000):
            frontend.send(correspondent, progress(step), keep=False)
        assert len(correspondent.outbox) == rules.OUTBOX_ANSWERS
        frontend.send(correspondent, frame(0))
        assert len(correspondent.outbox) == rules.OUTBOX_ANSWERS + 1


def test_what_is_taken_back_of_a_job_is_counted_in_frames(frontend):
    with Client(frontend.endpoint, receive_limit=1) as client:
        correspondent = connect(frontend, client)
        sent = block(frontend, correspondent)
        for index in range(3):
            parts = wire.encode(frame(sent + index))
            frontend.forward(correspondent, parts, "a", keep=True, is_frame=True)
            frontend.send(correspondent, progress(index), keep=False)
        frontend.send(correspondent, Progress(job="other", stage="drawing", step=0, total=1))
        assert frontend.discard(correspondent, "a") == 3
        while receive(frontend, client).job != "other":
            pass
    assert len(client.of(Frame)) < sent, "frames not sent yet were taken back"


def test_a_connection_that_has_ended_is_noticed(frontend):
    with Client(frontend.endpoint) as client:
        correspondent = connect(frontend, client)
    deadline = time.monotonic() + 10
    while not correspondent.away:
        assert time.monotonic() < deadline
        frontend.receive(0.0)
        frontend.send(correspondent, frame(0), keep=False)
        time.sleep(0.01)
    assert not frontend.blocked
