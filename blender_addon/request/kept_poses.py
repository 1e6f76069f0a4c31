"""Poses that were found in a video, kept in the .blend as a text: they are saved, undone, appended and linked
with the scene that points at it."""

from __future__ import annotations

import base64
import json
import textwrap
import uuid
import zlib
from dataclasses import asdict, dataclass

import bpy

from ..errors import ExportError
from ..shared.messages import FoundPoses
from ..shared.request_file import from_bytes, to_bytes
from ..shared.schema import MessageError
from ..texts import say

FIRST_LINE = "PoseAnything Bridge: poses of a video. What follows is read by the extension alone."
VERSION = "poseanything_version"
"""The custom property that changes with what a text holds."""
MOST_BYTES = 64 << 20
MOST_READ = 8
"""Texts whose poses are kept in memory."""

_read: dict[str, KeptPoses] = {}


@dataclass(frozen=True)
class Source:
    """In what was looked for a subject.

    first: the position (see `sequencer.footage`) of a video's first frame. keys: its strip's clock. picture:
    the path of the picture, "" for a video.
    """

    first: float = 0.0
    keys: tuple[float, ...] = ()
    picture: str = ""

    @classmethod
    def of(cls, values: dict) -> Source:
        """Raises `ValueError`, `KeyError` or `TypeError` for what is none."""
        return cls(float(values["first"]), tuple(map(float, values["keys"])), str(values["picture"]))


@dataclass(frozen=True)
class Asked:
    """What a scene waits for: the job, at which server and as whom (see `Token.account`), and in
    what it looks."""

    job: str
    account: str
    source: Source

    def __str__(self):
        return json.dumps({"job": self.job, "account": self.account, **asdict(self.source)})

    @classmethod
    def parse(cls, text: str) -> Asked | None:
        """None for what says nothing."""
        try:
            values = json.loads(text)
            return cls(str(values["job"]), str(values["account"]), Source.of(values))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, eq=False)
class KeptPoses:
    """What was found, and in what."""

    found: FoundPoses
    source: Source


def write(name: str, kept: KeptPoses) -> bpy.types.Text:
    """A new text that holds them."""
    text = bpy.data.texts.new(name)
    text.use_fake_user = False  # a text has one by default, and would stay in the file with no scene's poses
    head = json.dumps(asdict(kept.source))
    data = base64.b64encode(zlib.compress(to_bytes(kept.found))).decode()
    text.from_string("\n".join([FIRST_LINE, head, *textwrap.wrap(data, 120)]) + "\n")
    text[VERSION] = uuid.uuid4().hex
    _remember(text[VERSION], kept)
    return text


def read(text: bpy.types.Text | None) -> KeptPoses | None:
    """What a text holds, None for no text. Raises `ExportError` for one that was changed."""
    if text is None:
        return None
    version = text.get(VERSION, "")
    if version in _read:
        return _read[version]
    damaged = say(
        "The text {text} can't be read as poses any more; look for them in the video again.", text=text.name
    )
    try:
        first_line, head, *data = text.as_string().splitlines()
        if first_line != FIRST_LINE:
            raise ValueError(first_line)
        inflater = zlib.decompressobj()
        whole = inflater.decompress(base64.b64decode("".join(data)), MOST_BYTES)
        kept = KeptPoses(from_bytes(whole, FoundPoses, text.name), Source.of(json.loads(head)))
    except (ValueError, KeyError, TypeError, zlib.error, MessageError) as error:
        raise ExportError(damaged) from error
    if version:
        _remember(version, kept)
    return kept


def _remember(version: str, kept: KeptPoses) -> None:
    while len(_read) >= MOST_READ:
        _read.pop(next(iter(_read)))
    _read[version] = kept
