"""What is sent arrives, bit for bit and without copies, and what must not be sent is refused by name."""

from __future__ import annotations

import dataclasses

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import engines, messages, schema, wire
from shared.pose import Limb, Polyline, PoseSequence
from tests.contract.strategies import ALL_MESSAGES, any_message, assert_one_sentence, bits, of_class, png


def line_pose(num_frames=2):
    line = Polyline(0, np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    return PoseSequence.from_frames(64, 48, ["leg"], [Limb("shin", 0)], [[line]] * num_frames)


def request(**changes):
    fields = dict(
        job="job",
        engine="draft",
        width=64,
        height=48,
        num_frames=2,
        fps=24,
        first_frame=png(64, 48),
        pose=line_pose(),
    )
    return messages.GenerationRequest(**fields | changes)


def header_of(message):
    return msgpack.unpackb(wire.encode(message)[0])


def with_header(message, header):
    return [msgpack.packb(header), *wire.encode(message)[1:]]


@pytest.mark.parametrize("received_as", [bytes, memoryview, zmq.Frame])
@given(st.data())
def test_every_message_arrives_bit_for_bit(received_as, data):
    message = data.draw(any_message())
    parts = [received_as(bytes(part)) for part in wire.encode(message)]
    assert bits(wire.decode(parts)) == bits(message)


@pytest.mark.parametrize("cls", ALL_MESSAGES)
@settings(max_examples=25)
@given(st.data())
def test_every_kind_of_message_arrives_at_the_side_it_is_for_and_at_no_other(cls, data):
    parts = wire.encode(data.draw(of_class(cls)))
    own, other = messages.CLIENT_MESSAGES, messages.SERVER_MESSAGES
    if cls in messages.SERVER_MESSAGES:
        own, other = other, own
    assert type(wire.decode(parts, own)) is cls
    with pytest.raises(schema.MessageError, match=cls.__name__):
        wire.decode(parts, other)


def test_arrays_and_pictures_are_sent_and_received_in_place():
    def in_place(parts, array):
        return any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts)

    preview = messages.Preview("job", 0, np.zeros((4, 4, 3), np.uint8))
    for message, array_of in ((preview, lambda m: m.image), (request(), lambda m: m.pose.points)):
        parts = wire.encode(message)
        assert in_place(parts, array_of(message))
        received = [bytes(part) for part in parts]
        array = array_of(wire.decode(received))
        assert in_place(received, array) and not array.flags.writeable
    frame = messages.Frame("job", 0, 64, 48, "png", png(64, 48))
    parts = wire.encode(frame)
    assert parts[1] is frame.data
    assert wire.decode(parts).data is frame.data


def test_arrays_of_any_layout_and_byte_order_arrive_alike():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    mirrored = messages.Preview("job", 0, image[::-1, ::2])
    np.testing.assert_array_equal(wire.decode(wire.encode(mirrored)).image, image[::-1, ::2])
    points = line_pose().points
    for turned in (points.astype(">f4"), np.asfortranarray(points), np.repeat(points, 2, 0)[::2]):
        pose = dataclasses.replace(line_pose(), points=turned)
        back = wire.decode(wire.encode(request(pose=pose))).pose.points
        assert back.dtype == np.float32
        np.testing.assert_array_equal(back, points)
    motion = np.repeat(np.eye(3, dtype=">f4")[None], 2, 0)
    np.testing.assert_array_equal(
        wire.decode(wire.encode(request(camera_motion=motion))).camera_motion, motion
    )


def test_a_picture_held_as_an_array_is_sent_as_its_bytes():
    pixels = np.arange(96, dtype=np.uint8).reshape(8, 4, 3)
    for rows in (pixels[:4], pixels[::2]):
        frame = messages.Frame("job", 0, 4, 4, "raw", memoryview(rows))
        assert bytes(wire.decode([bytes(part) for part in wire.encode(frame)]).data) == rows.tobytes()


names = st.text("_abc", min_size=1, max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text("é", max_size=3)
)
values = st.recursive(
    scalars | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(any_message(), st.dictionaries(names, values))
def test_unknown_fields_are_passed_over(message, extra):
    header = header_of(message)
    extra = {name: value for name, value in extra.items() if name not in header}
    header.update(extra)
    for name in ("pose", "guidance"):
        if name in header:
            header[name].update({f"new_{key}": value for key, value in extra.items()})
    assert bits(wire.decode(with_header(message, header))) == bits(message)


@given(st.integers(-(2**63), 2**64 - 1).filter(lambda version: version != messages.PROTOCOL_VERSION))
def test_another_version_is_answered_with_both_numbers(version):
    message = messages.Hello("me", "1")
    with pytest.raises(
        wire.VersionError, match=rf"version {version}, this one {messages.PROTOCOL_VERSION}"
    ) as caught:
        wire.decode(with_header(message, header_of(message) | {"version": version, "type": "Greeting"}))
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("cls", ALL_MESSAGES)
@settings(max_examples=25)
@given(st.data())
def test_a_missing_field_takes_its_default_or_is_named(cls, data):
    message = data.draw(of_class(cls))
    header = header_of(message)
    field = data.draw(st.sampled_from(dataclasses.fields(cls)))
    del header[field.name]
    try:
        back = wire.decode(with_header(message, header))
    except schema.MessageError as error:
        assert_one_sentence(error)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert (
            not required
            or str(error) == f"{field.metadata['label'] or field.name} is missing from the message."
        )
    else:
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default
        assert bits(getattr(back, field.name)) == bits(default)


def beyond(kind):
    """Values just outside what a kind allows."""
    match kind:
        case schema.Prose():
            yield from [5, None, b"x", "\ud800"]
        case schema.Text():
            yield from ["x" * (kind.limit + 1), 5, None, b"x", "\ud800"] + [""] * (kind.least > 0)
        case schema.Choice():
            yield from ["nothing of this", 5, None, [kind.words[0]], np.array(kind.words)]
        case schema.Flag():
            yield from [1, 0, None, "yes"]
        case schema.Integer():
            yield from [kind.least - 1, kind.most + 1, 10**5000, True, 1.0, "1", None, np.float64(1)]
            yield from [kind.least + 1] * (kind.step > 1)
        case schema.Number():
            yield from [
                float("nan"),
                float("inf"),
                kind.least - 1,
                kind.most * 1.5 + 1,
                10**5000,
                True,
                "1",
                None,
            ]
        case schema.Many():
            yield from [
                [None],
                "ab",
                5,
                ["x"] * (kind.limit + 1) if isinstance(kind.kind, schema.Text) else {0: 0},
            ]
        case schema.Optional():
            yield from (value for value in beyond(kind.kind) if value is not None)
        case schema.Value():
            yield from [None, [1], float("nan"), 10**5000, "x" * 4097, "\ud800", b"x", {"": 1}, {5: 1}]
            yield from [{"k": True}, {"k": "1"}, {"k": {}}, {"k" * 256: 1}, {str(i): i for i in range(65)}]
        case schema.Options():
            yield from [[], {"": 1}, {5: 1}, {"k" * 65: 1}, {str(i): i for i in range(kind.limit + 1)}]
            yield from [{"k": value} for value in beyond(schema.Value())]
        case schema.Struct():
            yield from [None, {}, 5]
        case schema.Blob():
            yield from ["text", 5, None, np.zeros(kind.limit + 1, np.uint8).data]
        case schema.Array():
            shape = [2 if side is None else side for side in kind.shape]
            yield from [
                None,
                [1],
                np.zeros(shape, np.complex128),
                np.zeros([*shape, 1], kind.dtype),
                np.zeros((), kind.dtype),
            ]
            yield np.lib.stride_tricks.as_strided(
                np.zeros(1, kind.dtype), [kind.limit + 1, *shape[1:]], [0] * len(shape)
            )
            yield np.full(shape, np.nan, kind.dtype) if kind.finite_within else np.zeros(shape, "U1")


def found_poses(**changes):
    mask = np.zeros((48, 64), np.uint8)
    fields = dict(job="job", pose=line_pose(), mask=mask, masks=np.zeros((2, 6, 8), np.uint8))
    return messages.FoundPoses(**fields | changes)


def pose_request(**changes):
    fields = dict(
        job="job", width=64, height=48, fps=24, lengths=np.array([3, 4], np.int32), frames=b"abcdefg"
    )
    return messages.PoseRequest(**fields | changes)


EXAMPLES = {
    messages.GenerationRequest: request(),
    messages.PoseRequest: pose_request(),
    messages.FoundPoses: found_poses(),
    messages.PoseFinderDescription: messages.PoseFinderDescription(),
    messages.Frame: messages.Frame("job", 0, 4, 4, "png", b""),
    messages.Preview: messages.Preview("job", 0, np.zeros((2, 2, 3), np.uint8)),
    engines.Guidance: engines.Guidance(),
    engines.OptionChoice: engines.OptionChoice("none", "None"),
    engines.OptionDescription: engines.OptionDescription("trace", "text", "Trace", "A file", ""),
    engines.GuiderDescription: engines.GuiderDescription("none", "None", "One evaluation"),
    engines.WeightsPart: engines.WeightsPart("Transformer", "https://example.org", "MIT", 5, True),
    engines.Preset: engines.Preset("fast", "Fast", "Few steps"),
    engines.EngineDescription: engines.EngineDescription("draft", "Draft", "Moves parts", False),
    messages.LiveOpen: messages.LiveOpen("live", request()),
    messages.LivePose: messages.LivePose("live", 0, line_pose(1)),
    messages.LiveClose: messages.LiveClose("live"),
    messages.LiveReady: messages.LiveReady("live"),
    messages.LivePicture: messages.LivePicture("live", 0, 4, 4, "png", b""),
    messages.LiveEnded: messages.LiveEnded("live"),
    messages.Welcome: messages.Welcome("1", ()),
    messages.Hello: messages.Hello(),
    messages.Cancel: messages.Cancel("job"),
    messages.Resume: messages.Resume("job", 0),
    messages.Received: messages.Received("job"),
    messages.Piece: messages.Piece(1, 0, 4, b"abcd"),
    messages.More: messages.More(1, 4),
    messages.StatusRequest: messages.StatusRequest(),
    messages.FrameRequest: messages.FrameRequest("job", 0),
    messages.JobStatus: messages.JobStatus("job", "me", "draft", "done", 5),
    messages.WorkerStatus: messages.WorkerStatus("card 0", "Linux", "idle"),
    messages.UserStatus: messages.UserStatus("me", 1),
    messages.Status: messages.Status("1", (), (), ()),
    messages.Accepted: messages.Accepted("job"),
    messages.Queued: messages.Queued("job", 0),
    messages.Progress: messages.Progress("job", "drawing", 0, 1),
    messages.Done: messages.Done("job", 1, 1.0),
    messages.Failed: messages.Failed(),
    messages.Cancelled: messages.Cancelled("job"),
    messages.Forgotten: messages.Forgotten("job"),
    Limb: Limb("shin", 0),
    PoseSequence: line_pose(),
}


@pytest.mark.parametrize(
    "cls, field",
    [(cls, field) for cls in EXAMPLES for field in dataclasses.fields(cls)],
    ids=lambda value: value.__name__ if isinstance(value, type) else value.name,
)
def test_a_value_outside_its_limits_is_refused_by_name(cls, field):
    for value in beyond(field.metadata["kind"]):
        with pytest.raises(schema.MessageError) as caught:
            dataclasses.replace(EXAMPLES[cls], **{field.name: value})
        assert_one_sentence(caught.value)
        assert (field.metadata["label"] or field.name) in str(caught.value)


def test_every_message_has_an_example_here():
    assert set(ALL_MESSAGES) <= set(EXAMPLES)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"lengths": np.zeros(0, np.int32), "frames": b""}, "no frames"),
        ({"lengths": np.array([3, 5], np.int32)}, "do not cover its bytes"),
        (
            {"width": 4096, "height": 4096, "lengths": np.ones(8, np.int32), "frames": b"8 frames"},
            "a shorter part",
        ),
        ({"points": np.float32([[-0.1, 0.5]])}, "outside of the picture"),
        ({"box": np.float32([0.5, 0, 0.4, 1])}, "box around the subject is empty"),
        ({"lengths": np.array([7], np.int32)}, "point at the subject"),
    ],
)
def test_a_search_for_poses_is_refused_in_a_sentence(changes, words):
    with pytest.raises(schema.MessageError, match=words) as caught:
        pose_request(**{"frames": b"abcdefg"} | changes)
    assert_one_sentence(caught.value)


def eyes(num_frames):
    return np.repeat(np.eye(3, dtype=np.float32)[None], num_frames, 0)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(width=2050, height=2050), "too large"),
        (dict(width=2048, height=2048, num_frames=1024), "too large"),
        (dict(first_frame=b"GIF89a"), "not a PNG"),
        (dict(first_frame=png(64, 50)), "64 x 50 .* 64 x 48"),
        (dict(pose=line_pose(3)), "3 frames .* 2"),
        (dict(pose_frames=()), "at least one frame"),
        (dict(pose_frames=(0, 2)), "beyond the clip's end"),
        (dict(pose_frames=(1, 0)), "ascending"),
        (dict(pose_frames=(1, 1)), "ascending"),
        (dict(subject_mask=np.zeros((64, 48), np.uint8)), "subject_mask is 48 x 64"),
        (dict(first_labels=np.zeros((2, 2), np.uint8)), "first_labels is 2 x 2"),
        (dict(first_labels=np.full((48, 64), 2, np.uint8)), "limb that the pose does not have"),
        (dict(part_maps=np.full((2, 3, 4), 2, np.uint8)), "limb that the pose does not have"),
        (dict(part_maps=np.zeros((3, 3, 4), np.uint8)), "part_maps has 3 frames"),
        (dict(part_maps=np.zeros((2, 0, 4), np.uint8)), "no pixels"),
        (dict(shadow_maps=np.zeros((3, 3, 4), np.uint8)), "shadow_maps has 3 frames"),
        (dict(shadow_maps=np.zeros((2, 0, 4), np.uint8)), "shadow_maps has no pixels"),
        (dict(surface_flow=np.zeros((3, 2, 3, 4), np.int16)), "surface_flow has 3 frames"),
        (dict(camera_motion=eyes(1)), "camera_motion has 1 frames"),
        (dict(camera_motion=eyes(2) * 0), "can't be followed"),
        (dict(camera_motion=eyes(2)[:, ::-1]), "infinity|identity"),
        (dict(camera_motion=eyes(2) + np.eye(3, k=2, dtype=np.float32)), "not the identity"),
    ],
)
def test_fields_that_contradict_each_other_are_told_in_a_sentence(changes, words):
    with pytest.raises(schema.MessageError, match=words) as caught:
        request(**changes)
    assert_one_sentence(caught.value)


def test_guidance_that_stops_before_it_starts_is_refused():
    with pytest.raises(schema.MessageError, match="stops before it starts"):
        engines.Guidance(start=0.5, stop=0.4)


def test_a_raw_frame_must_fill_its_size():
    with pytest.raises(schema.MessageError, match="as many bytes"):
        messages.Frame("job", 0, 4, 4, "raw", bytes(47))
    with pytest.raises(schema.MessageError, match="as many bytes"):
        messages.LivePicture("live", 0, 4, 4, "raw", bytes(47))


def test_a_live_pose_is_one_frame_that_can_be_followed():
    with pytest.raises(schema.MessageError, match="single frame, not 2"):
        messages.LivePose("live", 0, line_pose(2))
    with pytest.raises(schema.MessageError, match="can't be followed"):
        messages.LivePose("live", 0, line_pose(1), np.zeros((3, 3), np.float32))


def test_a_message_too_large_to_be_taken_is_not_sent():
    with pytest.raises(schema.MessageError, match="too large"):
        wire.encode(request(engine_options={str(i): "\N{MUSICAL SYMBOL G CLEF}" * 4096 for i in range(64)}))
