"""Kinds of message fields: what a value may be, checked alike where it is sent and where it is received.

A message is a frozen dataclass whose fields carry a `Kind` (see `declare`). The kind checks a value when the
message is made, turns it into what msgpack can carry, and reads it back from bytes nobody vouches for. Bulk
data (pictures, arrays) never enters the msgpack header: it travels as parts of its own, and the header holds
a reference to the part's index.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .sentences import Sentence, SentenceError, as_value, put_together, say, take_apart

_TEMPLATES = "templates"
"""The name under which the templates of a table's sentences lie beside the sentences themselves, where
releases that know of none pass them over."""


class MessageError(SentenceError, ValueError):
    """A message breaks the contract. Its text is one sentence that says what is wrong and what to do."""


class Kind:
    """What a field may hold. `pack` and `unpack` are inverse; `check` returns the value in its canonical
    type."""

    def check(self, value: Any, name: str) -> Any:
        raise NotImplementedError

    def pack(self, value: Any, parts: list) -> Any:
        return value

    def unpack(self, value: Any, parts: Sequence, name: str) -> Any:
        return self.check(value, name)


@dataclass(frozen=True)
class Text(Kind):
    """A string of at most `limit` characters (at least `least`)."""

    limit: int
    least: int = 0

    def check(self, value, name):
        if not isinstance(value, str):
            raise MessageError("{name} must be text.", name=name)
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, as in file names that are not UTF-8
            raise MessageError(
                "{name} holds a character that can't be sent; type it again.", name=name
            ) from None
        if not self.least <= len(value) <= self.limit:
            raise MessageError(
                "{name} is {count} characters long; between {least} and {limit} are allowed.",
                name=name,
                count=len(value),
                least=self.least,
                limit=self.limit,
            )
        return value


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def printable(text: str) -> str:
    """What others wrote as one line that can be shown: nothing in it moves a cursor, clears a terminal or
    turns the order of letters round."""
    return _UNPRINTABLE.sub(" ", text) if _UNPRINTABLE.search(text) else text


@dataclass(frozen=True)
class Line(Text):
    """Text that is shown or logged: control characters in it become spaces."""

    def check(self, value, name):
        return printable(super().check(value, name))


@dataclass(frozen=True)
class Prose(Line):
    """What is said to a person; where it is a `Sentence`, its template travels with it. What is too long is
    cut."""

    def check(self, value, name):
        too_long = isinstance(value, str) and len(value) > self.limit
        return super().check(value[: self.limit] if too_long else value, name)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, value, name):
        if not isinstance(value, str) or value not in self.words:
            raise MessageError(
                "{name} is {value}; choose one of {words}.",
                name=name,
                value=_shown(value),
                words=", ".join(self.words),
            )
        return value


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    def check(self, value, name):
        if not isinstance(value, (bool, np.bool_)):
            raise MessageError("{name} must be true or false.", name=name)
        return bool(value)


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number from `least` to `most`, a multiple of `step` where given."""

    least: int
    most: int
    step: int = 1

    def check(self, value, name):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise MessageError("{name} must be a whole number.", name=name)
        if not self.least <= value <= self.most:
            raise MessageError(
                "{name} is {value}; it must lie between {least} and {most}.",
                name=name,
                value=_shown(value),
                least=self.least,
                most=self.most,
            )
        if value % self.step:
            raise MessageError(
                "{name} is {value}; it must be a multiple of {step}.", name=name, value=value, step=self.step
            )
        return int(value)


@dataclass(frozen=True)
class Number(Kind):
    """A finite number from `least` to `most`."""

    least: float
    most: float

    def check(self, value, name):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise MessageError("{name} must be a number.", name=name)
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not (math.isfinite(value) and self.least <= value <= self.most):
            raise MessageError(
                "{name} is {value:g}; it must lie between {least:g} and {most:g}.",
                name=name,
                value=value,
                least=self.least,
                most=self.most,
            )
        return value


_SENDABLE = Number(-(2.0**63), 2.0**63 - 1024)
"""What msgpack takes as a signed integer."""
MAX_STRENGTHS = 64
MAX_NAME = 255
"""Characters of a file's name."""


@dataclass(frozen=True)
class Many(Kind):
    """A tuple of at most `limit` values of one kind."""

    kind: Kind
    limit: int

    def check(self, value, name):
        return tuple(self.kind.check(item, f"{name}[{i}]") for i, item in enumerate(self._items(value, name)))

    def pack(self, value, parts):
        return [self.kind.pack(item, parts) for item in value]

    def unpack(self, value, parts, name):
        return tuple(
            self.kind.unpack(item, parts, f"{name}[{i}]") for i, item in enumerate(self._items(value, name))
        )

    def _items(self, value, name):
        if not isinstance(value, (list, tuple)):
            raise MessageError("{name} must be a list.", name=name)
        if len(value) > self.limit:
            raise MessageError(
                "{name} has {count} entries; at most {limit} are allowed.",
                name=name,
                count=len(value),
                limit=self.limit,
            )
        return value


@dataclass(frozen=True)
class Value(Kind):
    """The value of an option: text, a number, a flag, or a table of names and their strengths."""

    def check(self, value, name):
        if isinstance(value, str):
            return Text(4096).check(value, name)
        if isinstance(value, dict):
            if len(value) > MAX_STRENGTHS:
                raise MessageError(
                    "{name} has {count} entries; at most {limit} are allowed.",
                    name=name,
                    count=len(value),
                    limit=MAX_STRENGTHS,
                )
            for key, strength in value.items():
                Text(MAX_NAME, 1).check(key, say("A name in {name}", name=name))
                _SENDABLE.check(strength, f"{name}[{key!r}]")
            return dict(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _SENDABLE.check(value, name)
        elif not isinstance(value, bool):
            raise MessageError(
                "{name} must be text, a number, true or false, or a table of numbers.", name=name
            )
        return value


@dataclass(frozen=True)
class Options(Kind):
    """A small table of names and values, for what only one engine understands."""

    limit: int = 64

    def check(self, value, name):
        if not isinstance(value, dict) or len(value) > self.limit:
            raise MessageError(
                "{name} must be a table of at most {limit} entries.", name=name, limit=self.limit
            )
        for key in value:
            Text(64, 1).check(key, say("A key of {name}", name=name))
        return {key: Value().check(item, f"{name}[{key!r}]") for key, item in value.items()}


@dataclass(frozen=True)
class Optional(Kind):
    """A value of another kind, or None."""

    kind: Kind

    def check(self, value, name):
        return None if value is None else self.kind.check(value, name)

    def pack(self, value, parts):
        return None if value is None else self.kind.pack(value, parts)

    def unpack(self, value, parts, name):
        return None if value is None else self.kind.unpack(value, parts, name)


@dataclass(frozen=True)
class Struct(Kind):
    """Another declared dataclass."""

    cls: type

    def check(self, value, name):
        if not isinstance(value, self.cls):
            raise MessageError("{name} must be a {kind}.", name=name, kind=self.cls.__name__)
        return value

    def pack(self, value, parts):
        return pack_fields(value, parts)

    def unpack(self, value, parts, name):
        return unpack_fields(self.cls, value, parts, f"{name}.")


@dataclass(frozen=True)
class Blob(Kind):
    """Raw bytes of at most `limit`, carried as a part of its own, neither copied when sent nor when
    received."""

    limit: int

    def check(self, value, name):
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise MessageError("{name} must be bytes.", name=name)
        size = memoryview(value).nbytes
        if size > self.limit:
            raise MessageError(
                "{name} holds {size} bytes; at most {limit} are allowed.",
                name=name,
                size=size,
                limit=self.limit,
            )
        if isinstance(value, memoryview) and size != len(value):
            return value.cast("B") if value.c_contiguous else value.tobytes()
        return value

    def pack(self, value, parts):
        parts.append(value)
        return len(parts) - 1

    def unpack(self, value, parts, name):
        return self.check(_part(value, parts, name), name)


@dataclass(frozen=True)
class Array(Kind):
    """A numpy array of one dtype and `shape`, where None is any length; at most `limit` elements in all.

    `compress` sends it through zlib at its fastest setting, worth it for label maps and of no use for
    pictures. An array of the other byte order is turned round, one that is not contiguous is copied when it
    is sent. A received array is read-only, and a view of the message unless it was compressed.
    """

    dtype: str
    shape: tuple[int | None, ...]
    limit: int
    compress: bool = False
    finite_within: float | None = None

    def check(self, value, name):
        dtype = np.dtype(self.dtype)
        if not isinstance(value, np.ndarray) or value.dtype.newbyteorder("=") != dtype:
            raise MessageError("{name} must be an array of {dtype}.", name=name, dtype=dtype.name)
        self._check_shape(value.shape, name)
        if self.finite_within is not None and value.size and not (np.abs(value) <= self.finite_within).all():
            raise MessageError(
                "{name} holds a value that is not a number within ±{bound:g}.",
                name=name,
                bound=self.finite_within,
            )
        return value.astype(dtype, copy=False)

    def _check_shape(self, shape, name):
        fits = len(shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape)
        )
        if not fits or math.prod(shape) > self.limit:
            want = " x ".join("n" if side is None else str(side) for side in self.shape)
            got = " x ".join(map(str, shape)) or "of a single number"
            raise MessageError(
                "{name} has the shape {got}; {want} with at most {limit} elements is allowed.",
                name=name,
                got=got,
                want=want,
                limit=self.limit,
            )

    def pack(self, value, parts):
        data = np.ascontiguousarray(value, np.dtype(self.dtype).newbyteorder("<"))
        parts.append(zlib.compress(data, 1) if self.compress else data.data.cast("B") if data.size else b"")
        return {"part": len(parts) - 1, "shape": list(value.shape)}

    def unpack(self, value, parts, name):
        if not isinstance(value, dict) or not isinstance(value.get("shape"), list):
            raise MessageError("{name} must refer to an array.", name=name)
        shape = tuple(Integer(0, self.limit).check(side, f"{name}.shape") for side in value["shape"][:8])
        self._check_shape(shape, name)
        data = _part(value.get("part"), parts, name)
        dtype = np.dtype(self.dtype).newbyteorder("<")
        expected = math.prod(shape) * dtype.itemsize
        if self.compress:
            data = _inflate(data, expected, name)
        if memoryview(data).nbytes != expected:
            raise MessageError(
                "{name} holds {size} bytes where its shape needs {expected}.",
                name=name,
                size=memoryview(data).nbytes,
                expected=expected,
            )
        array = self.check(np.frombuffer(data, dtype).reshape(shape), name)
        array.flags.writeable = False
        return array


def _inflate(data, expected: int, name: str) -> bytes:
    """Undo zlib without ever holding more than the expected size."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, expected + 1)
    except zlib.error:
        raise MessageError("{name} is damaged: its compressed data can't be read.", name=name) from None
    if len(out) > expected or not inflater.eof or inflater.unused_data:
        raise MessageError("{name} is damaged: it does not unpack to the size its shape needs.", name=name)
    return out


def _part(index, parts, name):
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(parts):
        raise MessageError("{name} refers to a part that the message does not have.", name=name)
    part = parts[index]
    return part if isinstance(part, bytes) else memoryview(part)


def _shown(value) -> str:
    """A value in an error's sentence, kept short."""
    if isinstance(value, str):
        return repr(value[:40])
    return "too large" if isinstance(value, int) and abs(value) >= 2**64 else str(value)[:40]


def declare(
    kind: Kind,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    label: str | None = None,
) -> Any:
    """A dataclass field of a kind; `label` is what errors call it where a user may have set it."""
    return dataclasses.field(
        default=default, default_factory=default_factory, metadata={"kind": kind, "label": label}
    )


@dataclass(frozen=True, eq=False)
class Checked:
    """Base of every declared dataclass: making one checks every field, then `validate` what fields mean
    together."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = field.metadata["kind"].check(getattr(self, field.name), _called(field, field.name))
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Raise `MessageError` when fields that are each fine do not fit together."""


def _called(field: dataclasses.Field, name: str) -> str:
    """What errors call a field."""
    label = field.metadata["label"]
    return name if label is None else as_value(label)


def pack_fields(message: Checked, parts: list) -> dict[str, Any]:
    """The fields as msgpack can carry them; bulk data is appended to `parts`."""
    packed, templates = {}, {}
    for field in dataclasses.fields(message):
        value, kind = getattr(message, field.name), field.metadata["kind"]
        packed[field.name] = kind.pack(value, parts)
        if isinstance(kind, Prose) and isinstance(value, Sentence):
            templates[field.name] = take_apart(value)
    return packed | {_TEMPLATES: templates} if templates else packed


def unpack_fields(cls: type, values: Any, parts: Sequence, prefix: str = "") -> Any:
    """Make a `cls` from received values; unknown fields are passed over, missing ones take their default."""
    if not isinstance(values, dict):
        raise MessageError("{name} must be a table of fields.", name=prefix.rstrip(".") or cls.__name__)
    known, templates = {}, values.get(_TEMPLATES)
    for field in dataclasses.fields(cls):
        name, kind = _called(field, prefix + field.name), field.metadata["kind"]
        if field.name in values:
            known[field.name] = kind.unpack(values[field.name], parts, name)
            if isinstance(kind, Prose) and isinstance(templates, dict) and field.name in templates:
                known[field.name] = put_together(templates[field.name], known[field.name])
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise MessageError("{name} is missing from the message.", name=name)
    return cls(**known)
