"""Hypothesis strategies for every declared message, made from the kinds of its fields, and how two messages
compare."""

from __future__ import annotations

import dataclasses
import math
import re
import struct
import zlib

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared import camera, engines, messages, schema
from shared.pose import Limb, Polyline, PoseSequence
from shared.sentences import Sentence

ALL_MESSAGES = messages.CLIENT_MESSAGES + messages.SERVER_MESSAGES


def png(width, height):
    """A black PNG."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + 3 * width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(-1e15, 1e15)


@st.composite
def sentences(draw, deepest=2):
    """A sentence of any values, some of which are sentences."""
    literal = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    forms = {"": literal | NUMBERS, ":g": NUMBERS, ":.1f": NUMBERS, "!r": literal}
    template, values = draw(literal).replace("{", "{{").replace("}", "}}"), {}
    for number in range(draw(st.integers(0, 3))):
        form = draw(st.sampled_from(sorted(forms)))
        nested = deepest and not form and draw(st.booleans())
        values[f"value_{number}"] = draw(sentences(deepest - 1) if nested else forms[form])
        template += f" {{value_{number}{form}}}"
    return Sentence(template, values)


def of_kind(kind):
    match kind:
        case schema.Prose():
            return of_kind(schema.Text(kind.limit)) | sentences()
        case schema.Text():
            return st.text(
                st.characters(exclude_categories=["Cs"]), min_size=kind.least, max_size=min(kind.limit, 30)
            )
        case schema.Choice():
            return st.sampled_from(kind.words)
        case schema.Flag():
            return st.booleans()
        case schema.Integer():
            return st.integers(-(-kind.least // kind.step), kind.most // kind.step).map(
                lambda n: n * kind.step
            )
        case schema.Number():
            return st.floats(kind.least, kind.most)
        case schema.Many():
            return st.lists(of_kind(kind.kind), max_size=min(kind.limit, 3)).map(tuple)
        case schema.Value():
            strengths = st.dictionaries(WORDS, NUMBERS, max_size=3)
            return WORDS | NUMBERS | st.booleans() | strengths
        case schema.Options():
            return st.dictionaries(WORDS, of_kind(schema.Value()), max_size=3)
        case schema.Optional():
            return st.none() | of_kind(kind.kind)
        case schema.Struct():
            return of_class(kind.cls)
        case schema.Blob():
            return st.binary(max_size=100)
        case schema.Array():
            sides = st.tuples(*(st.integers(0, 4) if side is None else st.just(side) for side in kind.shape))
            bound = kind.finite_within
            elements = None if bound is None else st.floats(-bound, bound, width=32)
            return hnp.arrays(kind.dtype, sides, elements=elements)
    raise TypeError(f"no strategy for {kind}")


def fields_of(cls, **given):
    kinds = {
        field.name: of_kind(field.metadata["kind"])
        for field in dataclasses.fields(cls)
        if field.name not in given
    }
    return st.fixed_dictionaries(kinds | given)


def of_class(cls):
    special = {
        PoseSequence: poses,
        engines.Guidance: guidances,
        engines.OptionDescription: options,
        engines.GuiderDescription: lambda: fields_of(
            engines.GuiderDescription, parameters=uniquely_named(options())
        ).map(lambda fields: engines.GuiderDescription(**fields)),
        engines.EngineDescription: descriptions,
        messages.GenerationRequest: requests,
        messages.Preview: previews,
        messages.Frame: lambda: frames(messages.Frame),
        messages.LivePicture: lambda: frames(messages.LivePicture),
        messages.LivePose: live_poses,
        messages.PoseRequest: pose_requests,
        messages.FoundPoses: found_poses,
    }
    if cls in special:
        return special[cls]()
    return fields_of(cls).map(lambda fields: cls(**fields))


@st.composite
def poses(draw, num_frames=None):
    parts = draw(st.lists(st.text("abc", max_size=3), min_size=1, max_size=3))
    limb = st.builds(Limb, st.text("xyz", max_size=3), st.integers(0, len(parts) - 1), st.integers(0, 254))
    limbs = draw(st.lists(limb, min_size=1, max_size=4))
    shape = st.tuples(st.integers(2, 4), st.just(3))
    points = hnp.arrays(np.float32, shape, elements=st.floats(-1e7, 1e7, width=32))
    polyline = st.builds(Polyline, st.integers(0, len(limbs) - 1), points)
    count = st.integers(0, 4) if num_frames is None else st.just(num_frames)
    drawn = [draw(st.lists(polyline, max_size=2)) for _ in range(draw(count))]
    return PoseSequence.from_frames(
        draw(st.integers(1, 4096)), draw(st.integers(1, 4096)), parts, limbs, drawn
    )


@st.composite
def pose_requests(draw):
    lengths = draw(st.lists(st.integers(1, 20), min_size=2, max_size=4))
    low, high = (
        draw(hnp.arrays(np.float32, (2,), elements=st.floats(*span, width=32)))
        for span in ((0, 0.5), (0.625, 1))
    )
    places = hnp.arrays(
        np.float32, st.tuples(st.integers(0, 3), st.just(2)), elements=st.floats(0, 1, width=32)
    )
    width, height = draw(st.integers(16, 900)), draw(st.integers(16, 900))
    given = {
        "lengths": st.just(np.array(lengths, np.int32)),
        "frames": st.binary(min_size=sum(lengths), max_size=sum(lengths)),
        "width": st.just(width),
        "height": st.just(height),
        "mask": st.sampled_from([None, np.eye(height, width, dtype=np.uint8)]),
        "box": st.sampled_from([None, np.concatenate([low, high])]),
        "points": places,
        "background": places,
    }
    return messages.PoseRequest(**draw(fields_of(messages.PoseRequest, **given)))


@st.composite
def found_poses(draw):
    width, height = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    pose = dataclasses.replace(draw(poses(draw(st.integers(1, 3)))), width=width, height=height)
    small = st.tuples(st.just(pose.num_frames), st.integers(1, 4), st.integers(1, 4))
    given = {
        "pose": st.just(pose),
        "mask": hnp.arrays(np.uint8, (pose.height, pose.width), elements=st.integers(0, 1), fill=st.just(0)),
        "masks": hnp.arrays(np.uint8, small),
    }
    return messages.FoundPoses(**draw(fields_of(messages.FoundPoses, **given)))


@st.composite
def guidances(draw):
    start, stop = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    return engines.Guidance(**draw(fields_of(engines.Guidance, start=st.just(start), stop=st.just(stop))))


def uniquely_named(items):
    return st.lists(items, max_size=3, unique_by=lambda item: item.name).map(tuple)


@st.composite
def options(draw):
    kind = draw(st.sampled_from(engines.OPTION_TYPES))
    choices = draw(uniquely_named(of_class(engines.OptionChoice)))
    least, most = sorted(draw(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000))))
    if kind == "choice" and not choices:
        choices = (engines.OptionChoice("only", "Only"),)
    names = [choice.name for choice in choices if choice.name]
    default = {
        "bool": st.booleans(),
        "int": st.integers(least, most),
        "float": st.floats(least, most),
        "choice": st.sampled_from([choice.name for choice in choices] or [""]),
        "text": WORDS,
        "strengths": st.dictionaries(st.sampled_from(names), st.floats(least, most))
        if names
        else st.just({}),
    }[kind]
    given = dict(type=kind, choices=choices, minimum=least, maximum=most, default=draw(default))
    fields = fields_of(engines.OptionDescription, **{name: st.just(value) for name, value in given.items()})
    return engines.OptionDescription(**draw(fields))


@st.composite
def descriptions(draw):
    given = dict(
        guiders=uniquely_named(of_class(engines.GuiderDescription)),
        options=uniquely_named(options()),
        presets=uniquely_named(of_class(engines.Preset)),
    )
    return engines.EngineDescription(**draw(fields_of(engines.EngineDescription, **given)))


def previews():
    shape = st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3))
    return fields_of(messages.Preview, image=hnp.arrays(np.uint8, shape)).map(
        lambda fields: messages.Preview(**fields)
    )


@st.composite
def frames(draw, cls):
    width, height, kind = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        draw(st.sampled_from(["png", "jpeg", "raw"])),
    )
    size = (
        {"min_size": 3 * width * height, "max_size": 3 * width * height}
        if kind == "raw"
        else {"max_size": 100}
    )
    given = dict(width=width, height=height, format=kind, data=draw(st.binary(**size)))
    return cls(**draw(fields_of(cls, **{name: st.just(value) for name, value in given.items()})))


@st.composite
def live_poses(draw):
    turns = st.floats(-1, 1, width=32).map(
        lambda shift: np.array([[1, 0, shift], [0, 1, -shift], [0, 0, 1]], np.float32)
    )
    given = dict(pose=poses(1), camera_motion=st.none() | turns)
    return messages.LivePose(**draw(fields_of(messages.LivePose, **given)))


def backdrops():
    shape = st.tuples(st.integers(1, 5), st.integers(1, 5))
    return fields_of(messages.Backdrop, labels=hnp.arrays(np.uint8, shape)).map(
        lambda fields: messages.Backdrop(**fields)
    )


@st.composite
def requests(draw):
    count = draw(st.integers(1, 4))
    width, height = draw(st.sampled_from([(32, 32), (64, 48), (34, 98)]))
    pose = draw(poses(count))
    labels = st.integers(0, len(pose.limbs))
    maps = st.tuples(st.just(count), st.integers(1, 4), st.integers(1, 4))
    paths = st.builds(
        lambda moves: camera.camera_path(moves, count, width, height),
        st.dictionaries(st.sampled_from(camera.MOVES), st.floats(0, 1), max_size=2),
    )
    given = dict(
        width=st.just(width),
        height=st.just(height),
        num_frames=st.just(count),
        first_frame=st.just(png(width, height)),
        pose=st.just(pose),
        pose_frames=st.none()
        | st.sets(st.integers(0, count - 1), min_size=1).map(lambda indices: tuple(sorted(indices))),
        subject_mask=st.none() | hnp.arrays(np.uint8, (height, width), elements=st.integers(0, 1)),
        first_labels=st.none() | hnp.arrays(np.uint8, (height, width), elements=labels),
        part_maps=st.none() | hnp.arrays(np.uint8, maps, elements=labels),
        shadow_maps=st.none() | hnp.arrays(np.uint8, maps),
        surface_flow=st.none() | hnp.arrays(np.int16, maps.map(lambda shape: (count, 2, *shape[1:]))),
        light_maps=st.none() | hnp.arrays(np.uint8, maps),
        backdrop=st.none() | backdrops(),
        camera_motion=st.none() | paths,
    )
    return messages.GenerationRequest(**draw(fields_of(messages.GenerationRequest, **given)))


def any_message():
    return st.sampled_from(ALL_MESSAGES).flatmap(of_class)


def bits(value):
    """A value as comparable Python values that differ when a single bit does."""
    if dataclasses.is_dataclass(value):
        return type(value), {
            field.name: bits(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes", bytes(value)
    if isinstance(value, float):
        return "float", value, math.copysign(1, value)
    if isinstance(value, (tuple, list)):
        return type(value), [bits(item) for item in value]
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, Sentence):
        return str.__str__(value), value.template, bits(value.values)
    return type(value), value


def assert_one_sentence(error):
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", str(error))
    assert text.endswith(".") and "\n" not in text and len(text) < 300, text
    assert not re.search(r"[.!?]\s", text), text
