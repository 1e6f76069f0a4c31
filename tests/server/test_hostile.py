"""Bytes that no client of ours sends: each gets one sentence at most, and everybody else is served on."""

from __future__ import annotations

import socket
import sys
import zlib
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import wire
from shared.messages import PIECE_BYTES, Done, Failed, Hello, LiveClose, Piece, Welcome

from .client import Client, most_memory, request

VALID = [wire.encode(Hello(client="test"))] + [
    [bytes(part) for part in wire.encode(request("job", "nonesuch", num_frames=n))] for n in (1, 5)
]


def replies(client: Client) -> list:
    """What a client is told up to the answer to its next Hello."""
    before = len(client.events)
    client.welcome()
    return client.events[before:-1]


def header(parts: list[bytes], **changes) -> list[bytes]:
    return [msgpack.packb(msgpack.unpackb(parts[0]) | changes), *parts[1:]]


@st.composite
def damaged(draw) -> list[bytes]:
    """A valid message cut short, prolonged, with bytes changed, or with parts lost, doubled or swapped."""
    parts = list(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(parts) - 1))
        match draw(st.sampled_from(["cut", "insert", "flip", "lose", "double", "swap"])):
            case "cut":
                parts[i] = parts[i][: draw(st.integers(0, len(parts[i])))]
            case "insert":
                at = draw(st.integers(0, len(parts[i])))
                parts[i] = parts[i][:at] + draw(st.binary(max_size=8)) + parts[i][at:]
            case "flip" if parts[i]:
                at = draw(st.integers(0, len(parts[i]) - 1))
                parts[i] = parts[i][:at] + bytes([draw(st.integers(0, 255))]) + parts[i][at + 1 :]
            case "lose" if len(parts) > 1:
                del parts[i]
            case "double":
                parts.insert(i, parts[i])
            case "swap":
                j = draw(st.integers(0, len(parts) - 1))
                parts[i], parts[j] = parts[j], parts[i]
    return parts


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=20),
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=10,
)


@st.composite
def mistyped(draw) -> list[bytes]:
    """A valid message with fields, at any depth, that hold something else."""
    parts = list(draw(st.sampled_from(VALID)))
    table = node = msgpack.unpackb(parts[0])
    while True:
        key = draw(st.sampled_from(sorted(node)))
        if isinstance(node[key], dict) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        node[key] = draw(values)
        return [msgpack.packb(table), *parts[1:]]


hostile = (
    st.lists(st.binary(max_size=200), max_size=6)
    | st.builds(lambda v: [msgpack.packb(v)], values)
    | damaged()
    | mistyped()
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile)
def test_any_bytes_get_one_sentence_at_most(server, parts):
    with server.client(user="fuzz") as client:
        client.send_parts(parts or [b""])
        told = replies(client)
    assert len(told) <= 1
    for reply in told:
        if isinstance(reply, Failed):
            assert reply.code in ("invalid", "version"), reply
            assert 10 < len(reply.message) <= 2048
        else:
            assert isinstance(reply, Welcome)


def test_another_protocol_version(server):
    with server.client() as client:
        client.send_parts(header(VALID[1], version=7))
        failed = client.receive()
    assert failed.code == "version" and failed.job == "job"
    assert "version 7" in failed.message and "install the same release" in failed.message


@pytest.mark.parametrize("kind", [[], {}, None, 7, True, ["LiveClose"], "x" * 60_000])
def test_a_message_of_no_type(server, kind):
    with server.client() as client:
        for valid in (*VALID, wire.encode(LiveClose(session="view"))):
            client.send_parts(header(valid, type=kind))
            failed = client.receive()
            assert failed.code == "invalid" and len(failed.message) < 200


def test_a_message_of_the_server_is_not_taken(server):
    with server.client() as client:
        client.send(Done(job="x", num_frames=1, seconds=1.0))
        failed = client.receive()
    assert failed.code == "invalid" and "'Done'" in failed.message


def test_a_bad_request_does_not_end_the_good_one_of_that_name(server):
    with server.client() as client:
        client.send(request("same", "plain", num_frames=10, engine_options={"pause": 0.05}))
        client.send_parts(header(VALID[1], job="same", num_frames=-1))
        failed = client.wait_for(Failed)
        assert failed.job == "" and "-1" in failed.message
        assert isinstance(client.ending("same"), Done)


def test_a_flood_of_tiny_messages(server):
    with server.client() as flooder, server.client() as other:
        for _ in range(10_000):
            flooder.send_parts([b"x"])
        assert other.welcome()
        assert replies(flooder), "told what is wrong"
        flooder.send(request("sober", "plain"))
        assert isinstance(flooder.ending("sober"), Done)


def test_a_flooder_that_never_listens(server):
    with server.client(receive_limit=1) as flooder, server.client() as other:
        for _ in range(20_000):
            flooder.send_parts([b"x"])
        other.send(request("served", "plain"))
        assert isinstance(other.ending("served"), Done)


def amplifying(job: str) -> list[bytes]:
    """A request of some 30 kB that unpacks to 5 MB."""
    side = 512
    table = request(
        job,
        "nonesuch",
        num_frames=81,
        width=side,
        height=side,
        first_labels=np.zeros((side, side), np.uint8),
        part_maps=np.zeros((81, 238, 238), np.uint8),
    )
    return [bytes(part) for part in wire.encode(table)]


def test_messages_that_take_long_to_read_hold_up_nobody(server):
    with server.client() as flooder, server.client() as other:
        parts = amplifying("a")
        assert sum(map(len, parts)) < 64 << 10
        for _ in range(100):
            flooder.send_parts(parts)
        for _ in range(5):
            assert other.welcome()
        other.send(request("mine", "plain"))
        assert isinstance(other.ending("mine"), Done)
        told = len(flooder.of(Failed))
        while told < 100:
            assert "no engine" in flooder.wait_for(Failed).message
            told += 1


def test_a_message_of_a_hundred_thousand_parts(server):
    with server.client() as client:
        client.send_parts([b""] * 100_000)
        (failed,) = replies(client)
    assert "parts" in failed.message


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\nabcd",
        b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53),
        b"\x01\x00\x05\x00hello",
        b"\xff" * 5000,
        b"",
    ],
)
def test_strangers_at_the_port(server, data):
    host, port = server.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger, server.client() as client:
        stranger.sendall(data)
        assert client.welcome()


def piece(offset: int, total: int) -> list:
    return wire.encode(Piece(stream=1, offset=offset, total=total, data=bytes(PIECE_BYTES)))


def test_a_piece_of_pieces_is_nothing(server):
    with server.client() as client:
        client.send(Piece(stream=1, offset=0, total=PIECE_BYTES, data=bytes(PIECE_BYTES)))
        (failed,) = replies(client)
    assert "'Piece' is not expected" in failed.message


def masked(job: str) -> list[bytes]:
    """A valid request with a compressed part."""
    return [bytes(p) for p in wire.encode(request(job, "plain", subject_mask=np.zeros((48, 64), np.uint8)))]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestMemory:
    def test_a_zlib_bomb_is_not_unpacked(self, server):
        parts = masked("bomb")
        index = msgpack.unpackb(parts[0])["subject_mask"]["part"]
        parts[1 + index] = zlib.compress(bytes(48 << 20), 9)
        before = most_memory(server)
        with server.client() as client:
            client.send_parts(parts)
            (failed,) = replies(client)
        assert failed.code == "invalid" and "is damaged" in failed.message
        assert most_memory(server) < before + (16 << 20)

    def test_an_array_that_claims_to_be_huge(self, server):
        parts = masked("huge")
        table = msgpack.unpackb(parts[0])
        table["subject_mask"]["shape"] = [1 << 40, 1 << 40]
        before = most_memory(server)
        with server.client() as client:
            client.send_parts([msgpack.packb(table), *parts[1:]])
            (failed,) = replies(client)
        assert failed.code == "invalid"
        assert most_memory(server) < before + (8 << 20)

    def test_a_part_too_large_is_cut_off_before_it_is_held(self, server):
        before = most_memory(server)
        with server.client() as client, server.client() as other:
            client.send_parts([*VALID[1], bytes(wire.MAX_PART + 1)])
            assert other.welcome()
            client.socket.close()
        assert most_memory(server) < before + (8 << 20)

    def test_a_message_too_large_in_all_is_refused_before_it_is_held(self, server):
        before = most_memory(server)
        with server.client() as client:
            client.send_parts(piece(0, 1 << 40))
            (failed,) = replies(client)
            assert failed.code == "invalid" and "too large" in failed.message
        assert most_memory(server) < before + (8 << 20)

    def test_a_message_that_does_not_end_is_cut_off(self, server):
        """Even of somebody who is let in: all of its parts are held until the last has come."""
        before = most_memory(server)
        with server.client() as client, server.client() as other:
            assert client.welcome()
            monitor = client.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            client.socket.send_multipart([bytes(60_000)] * 30_000, copy=False)  # 1.8 GB
            assert monitor.poll(60_000), "it is cut off"
            client.socket.disable_monitor()
            assert other.welcome()
        assert "A message does not end; hanging up" in server.log
        assert most_memory(server) < before + (900 << 20)

    def test_strangers_can_not_have_anything_held(self, server):
        """They begin messages as large as they like, before they have proved anything."""
        host, port = server.address.removeprefix("tcp://").split(":")
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
        before = most_memory(server)
        for _ in range(20):
            with socket.create_connection((host, int(port))) as stranger, suppress(OSError):
                stranger.sendall(greeting + b"\x06" + (60 << 20).to_bytes(8, "big"))
                for _ in range(60):
                    stranger.sendall(bytes(1 << 20))
        with server.client() as client:
            assert client.welcome()
        assert most_memory(server) < before + (8 << 20)
