"""Bytes that nobody vouches for give a message or one sentence, and never take more than a bounded amount of
memory."""

from __future__ import annotations

import datetime
import tracemalloc
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared import messages, wire
from shared.schema import MessageError
from tests.contract.strategies import any_message, assert_one_sentence, requests
from tests.contract.test_message_roundtrip import line_pose, request

HELLO = {"type": "Hello", "version": messages.PROTOCOL_VERSION}
PREVIEW = {"type": "Preview", "version": messages.PROTOCOL_VERSION, "job": "job", "index": 0}


def refused(parts):
    """The sentence with which a message is refused, None when it is one of ours."""
    try:
        message = wire.decode(parts)
    except MessageError as error:
        assert_one_sentence(error)
        return str(error)
    assert type(message) in messages.CLIENT_MESSAGES + messages.SERVER_MESSAGES
    return None


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([])
@example([b""])
@example([b"\xc1"])
def test_random_bytes(parts):
    assert refused(parts)


@given(any_message(), st.data())
def test_a_message_cut_short(message, data):
    parts = [bytes(part) for part in wire.encode(message)]
    index = data.draw(st.sampled_from([index for index, part in enumerate(parts) if part]))
    cut = data.draw(st.integers(0, len(parts[index]) - 1))
    shortened = parts[index][:cut]
    why = refused([*parts[:index], shortened, *parts[index + 1 :]])
    # a picture file or a piece cut short is still bytes; everything else has a length to keep
    files = (
        messages.Frame,
        messages.GenerationRequest,
        messages.LiveOpen,
        messages.LivePicture,
        messages.Piece,
    )
    assert why or index and isinstance(message, files)
    if index + 1 < len(parts):
        assert refused(parts[: index + 1])


@given(any_message(), st.data())
def test_a_message_with_bits_turned_over(message, data):
    parts = [bytearray(part) for part in wire.encode(message)]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from([part for part in parts if part]))
        part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused([bytes(part) for part in parts])


strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text("a\0é\N{MUSICAL SYMBOL G CLEF}", max_size=5),
    st.binary(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-3, 2**63), max_size=9),
    st.just(msgpack.Timestamp(0, 0)),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3)),
    st.just({"part": 0, "shape": [0, 0, 3]}),
    st.just({"part": True, "shape": [2**32, 2**32, 3]}),
)


def changed(draw, node):
    """The tree with something strange put in the place of one of its nodes."""
    if isinstance(node, (dict, list)) and node and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        node = dict(node) if isinstance(node, dict) else list(node)
        node[key] = changed(draw, node[key])
        return node
    return draw(strange)


@given(st.one_of(requests(), any_message()), st.data())
def test_a_message_with_something_strange_in_a_field(message, data):
    parts = wire.encode(message)
    header = changed(data.draw, msgpack.unpackb(parts[0]))
    refused([msgpack.packb(header), *parts[1:]])


def header(**fields):
    return [msgpack.packb(HELLO | fields)]


def patched(path, value):
    """A request's parts with one value of its header replaced."""
    parts = wire.encode(request(camera_motion=np.repeat(np.eye(3, dtype=np.float32)[None], 2, 0)))
    table = node = msgpack.unpackb(parts[0])
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return [msgpack.packb(table), *parts[1:]]


def pose_with_offsets(*offsets):
    parts = wire.encode(request())
    table = msgpack.unpackb(parts[0])
    table["pose"]["offsets"] = {"part": len(parts) - 1, "shape": [len(offsets)]}
    table["num_frames"] = len(offsets) - 1
    return [msgpack.packb(table), *parts[1:], np.array(offsets, "<i4").tobytes()]


TRICKS = {
    "no part at all": ([], "0 parts"),
    "too many parts": (header() + [b""] * wire.MAX_PARTS, "parts"),
    "a header too large": ([msgpack.packb(HELLO | {"x": "y" * wire.MAX_HEADER})], "too large"),
    "a part too large": (header() + [bytes(wire.MAX_PART + 1)], "too large"),
    "not a table": ([msgpack.packb([1, 2])], "can't be read"),
    "something after the table": ([header()[0] + b"\0"], "can't be read"),
    "a table within tables within tables": ([b"\x81\xa1a" * 300_000], "can't be read"),
    "lists within lists": ([b"\x91" * 1_000_000], "can't be read"),
    "a list of four milliards": ([b"\xdd\xff\xff\xff\xff"], "can't be read"),
    "a table of four milliards": ([b"\xdf\xff\xff\xff\xff"], "can't be read"),
    "a text of four milliards": ([b"\x81\xa4type\xdb\xff\xff\xff\xff"], "can't be read"),
    "bytes of four milliards": ([b"\x81\xa4type\xc6\xff\xff\xff\xff"], "can't be read"),
    "an extension of four milliards": ([b"\x81\xa4type\xc9\xff\xff\xff\xff\x01"], "can't be read"),
    "a timestamp": (
        [msgpack.packb(HELLO | {"x": datetime.datetime.now(datetime.UTC)}, datetime=True)],
        "can't be read",
    ),
    "an extension": ([msgpack.packb(HELLO | {"x": msgpack.ExtType(5, b"12345")})], "can't be read"),
    "text that is not UTF-8": ([b"\x81\xa4type\xa2\xff\xfe"], "can't be read"),
    "a key twice": ([b"\x83\xa4type\xa5Hello\xa7version\x01\xa7version\x01"], "can't be read"),
    "a list for a key": ([b"\x81\x90\x01"], "can't be read"),
    "a number for a key": ([msgpack.packb({1: 2})], "can't be read"),
    "true for the version": (header(version=True), "can't be read"),
    "a fraction for the version": (header(version=1.0), "can't be read"),
    "no version": ([msgpack.packb({"type": "Hello"})], "can't be read"),
    "a list for the type": (header(type=["Hello"]), "can't be read"),
    "a type unheard of": (header(type="Pickle"), "'Pickle' is not expected"),
    "a type that is a class of ours but no message": (header(type="Guidance"), "'Guidance' is not expected"),
    "a number for a text": (header(client=5), "client must be text"),
    "bytes for a text": (header(client=b"me"), "client must be text"),
    "true for a number": (patched(["width"], True), "width must be a whole number"),
    "a fraction for a whole number": (patched(["width"], 64.0), "width must be a whole number"),
    "not a number": (patched(["fps"], float("nan")), "frame rate is nan"),
    "endless": (patched(["fps"], float("inf")), "frame rate is inf"),
    "a large number": (patched(["seed"], 2**64 - 1), "seed is 18446744073709551615"),
    "not a number in a table": (
        patched(["engine_options"], {"a": float("nan")}),
        "engine_options\\['a'\\] is nan",
    ),
    "a list in a table": (patched(["engine_options"], {"a": [1]}), "engine_options\\['a'\\] must be"),
    "a text for a list": (patched(["pose_frames"], "01"), "pose_frames must be a list"),
    "text in a list of numbers": (
        patched(["pose_frames"], [0, "1"]),
        "pose_frames\\[1\\] must be a whole number",
    ),
    "a limb that is no table": (patched(["pose", "limbs"], [5]), "pose.limbs\\[0\\] must be a table"),
    "a limb without a name": (patched(["pose", "limbs"], [{}]), "pose.limbs\\[0\\].name is missing"),
    "a limb of no part": (patched(["pose", "limbs", 0, "part"], 7), "limb whose part is not"),
    "too many limbs": (patched(["pose", "limbs"], [{"name": "a", "part": 0}] * 300), "300 entries"),
    "a list for a guidance": (patched(["guidance"], []), "guidance must be a table"),
    "part true": (patched(["first_frame"], True), "first frame refers to a part"),
    "part -1": (patched(["first_frame"], -1), "first frame refers to a part"),
    "part 64": (patched(["first_frame"], 64), "first frame refers to a part"),
    "an array that is a number": (patched(["pose", "points"], 1), "pose.points must refer to an array"),
    "an array of no part": (patched(["pose", "points"], {"shape": [4, 3]}), "pose.points refers to a part"),
    "a shape below zero": (patched(["pose", "points", "shape"], [-4, 3]), "pose.points.shape is -4"),
    "a shape of true": (patched(["pose", "points", "shape"], [True, 3]), "pose.points.shape must be"),
    "a shape too large": (patched(["pose", "points", "shape"], [2**62, 3]), "pose.points.shape is"),
    "a shape of more elements than fit": (
        patched(["pose", "points", "shape"], [8_000_000, 3]),
        "at most 12000000",
    ),
    "a shape of nine sides": (patched(["pose", "points", "shape"], [0] * 9), "pose.points has the shape"),
    "a shape that is not the array's": (patched(["pose", "points", "shape"], [3, 3]), "48 bytes where"),
    "offsets that end elsewhere": (pose_with_offsets(0, 1, 3), "do not cover"),
    "offsets that go back": (pose_with_offsets(0, 2, 1, 2), "contradict"),
    "offsets so far apart that their differences overflow": (
        pose_with_offsets(0, 2**31 - 1, -(2**31), -1, 2),
        "contradict",
    ),
    "an empty array of endless width": (
        [msgpack.packb(PREVIEW | {"image": {"part": 0, "shape": [0, 2**20, 3]}}), b""],
        "no pixels",
    ),
}


@pytest.mark.parametrize("parts, words", TRICKS.values(), ids=TRICKS.keys())
def test_each_trick_gets_its_sentence(parts, words):
    with pytest.raises(MessageError, match=words) as caught:
        wire.decode(parts)
    assert_one_sentence(caught.value)


def peak_memory(parts):
    tracemalloc.start()
    try:
        assert refused(parts)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bomb(size):
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


def test_compressed_data_never_unpacks_beyond_the_size_it_claims():
    parts = wire.encode(request(subject_mask=np.zeros((48, 64), np.uint8)))
    table = msgpack.unpackb(parts[0])
    explosive = bomb(1 << 27)
    parts[1 + table["subject_mask"]["part"]] = explosive
    assert peak_memory([bytes(part) for part in parts]) < len(explosive) + (2 << 20)


@pytest.mark.parametrize(
    "unit", [b"\x80", b"\x90", b"\xc0", b"\xa0", b"\xcb" + bytes(8), b"\xa1\xff", b"\xdc\x0f\xff", b"\x91"]
)
def test_a_header_of_many_small_things_stays_within_bounds(unit):
    count = (wire.MAX_HEADER - 5000) // len(unit) // 4000
    inner = b"\xdc" + (4000).to_bytes(2, "big") + unit * 4000
    assert peak_memory([b"\xdc" + count.to_bytes(2, "big") + inner * count]) < 100 << 20


def test_damaged_compressed_data_is_told_apart_from_none():
    mask = np.zeros((48, 64), np.uint8)
    parts = [bytes(part) for part in wire.encode(request(subject_mask=mask))]
    where = 1 + msgpack.unpackb(parts[0])["subject_mask"]["part"]
    for damaged in (
        b"",
        parts[where][:-1],
        parts[where] + b"\0",
        b"not zlib",
        zlib.compress(bytes(48 * 64 - 1)),
    ):
        why = refused([*parts[:where], damaged, *parts[where + 1 :]])
        assert "subject_mask is damaged" in why or "subject_mask holds 3071 bytes" in why


def test_every_frame_of_an_accepted_pose_can_be_read():
    for offsets in ((0, 2), (0, 1, 2), (0, 0, 2, 2)):
        parts = pose_with_offsets(*offsets)
        pose = wire.decode(parts).pose
        assert sum(len(pose.frame(i)) for i in range(pose.num_frames)) == len(line_pose().lengths)
