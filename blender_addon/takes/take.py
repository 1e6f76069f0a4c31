"""Takes on disk: one folder a clip, numbered, never overwritten."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..buttons import CHOOSE_FOLDER
from ..errors import UserError
from ..shared.messages import GenerationRequest
from ..shared.request_file import SUFFIX, read_request, write_request
from ..shared.schema import MessageError
from ..texts import say
from ..times import ClipTimes

RECORD = "take.json"
FIRST_FRAME = "first_frame.png"
REQUEST = f"request{SUFFIX}"


class TakeError(UserError):
    """A take can't be made or read."""


@dataclass(frozen=True)
class Take:
    """Where a clip's frames are and how they lie on the scene's time.

    folder holds the clip's frames, or the first of them. `record` is what the clip was made with: JSON-able,
    enough to make it again.
    """

    folder: Path
    name: str
    times: ClipTimes
    record: dict

    @property
    def num_frames(self) -> int:
        """How many frames the whole clip has."""
        return self.times.num_frames

    def element_names(self, num_frames: int, rate: float = 1.0) -> list[str]:
        """File names shown, frame for frame of a sequencer, once the first `num_frames` frames are there.
        `rate` is the sequencer's frame rate over that of the scene that was filmed: the clip lasts as long
        there."""
        return [frame_name(self.name, index) for index in self.times.shown_in(rate, num_frames)]

    def length(self, rate: float = 1.0) -> int:
        """For how many frames of a sequencer the whole clip is shown."""
        return self.times.span_in(rate)[1]

    def frames_on_disk(self) -> int:
        """How many frames there are, counted up to the first gap."""
        count = 0
        while count < self.num_frames and (self.folder / frame_name(self.name, count)).is_file():
            count += 1
        return count


def frame_name(take: str, index: int) -> str:
    """File name of a take's frame; numbered from 1, as animators count."""
    return f"{take}_{index + 1:04d}.png"


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """What can't be written to a folder within raises `TakeError`."""
    try:
        yield
    except OSError as error:
        raise TakeError(
            say(
                "{folder} can't be written to: {reason}; choose another output folder.",
                folder=folder,
                reason=error.strerror,
            ),
            *CHOOSE_FOLDER,
        ) from error


def claim_folder(output: Path, stem: str) -> tuple[Path, str]:
    """Make `<stem>_001`, or the next number that was never used in `output`; gives the folder and its name.

    Raises `TakeError`."""
    stem = re.sub(r'[\x00-\x1f<>:"/\\|?*.]+', "_", stem).strip(" _") or "take"
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
        used = [
            int(m[1])
            for p in output.iterdir()
            if (m := re.fullmatch(rf"{re.escape(stem)}_(\d{{3,}})", p.name))
        ]
        number = max(used, default=0) + 1
        while True:
            name = f"{stem}_{number:03d}"
            try:
                (output / name).mkdir()
            except FileExistsError:
                number += 1
            else:
                return output / name, name


def write_take(take: Take, request: GenerationRequest) -> None:
    """Write what the clip is made with, before its first frame comes. Raises `TakeError`."""
    with writing_to(take.folder):
        (take.folder / FIRST_FRAME).write_bytes(request.first_frame)
        write_request(take.folder / REQUEST, request)
        (take.folder / RECORD).write_text(to_json(take), encoding="utf-8")


def read_take_request(take: Take) -> GenerationRequest:
    """What was asked for, exactly. Raises `TakeError`."""
    try:
        return read_request(take.folder / REQUEST)
    except FileNotFoundError:
        raise TakeError(
            say(
                "There is no {file} in {folder}, so {take} can't be made again; use its settings and "
                "generate.",
                file=REQUEST,
                folder=take.folder,
                take=take.name,
            )
        ) from None
    except (OSError, MessageError) as error:
        raise TakeError(
            say(
                "What {take} was made with can't be read ({error}); use its settings and generate.",
                take=take.name,
                error=error,
            )
        ) from error


def to_json(take: Take) -> str:
    """A take as text, for its folder and its strip."""
    times = take.times
    fields = {
        "name": take.name,
        "num_frames": times.num_frames,
        "frame_start": times.start,
        "frame_step": times.step,
        "duration": times.duration,
        "record": take.record,
    }
    if times.speed != 1:  # earlier releases know neither
        fields["speed"] = times.speed
    if times.place is not None:
        fields["place"] = times.place
    return json.dumps(fields, indent=1, ensure_ascii=False)


def from_json(text: str, folder: Path) -> Take:
    """The take that `to_json` wrote; `folder` is where it lies now. Raises `TakeError`."""
    try:
        fields = json.loads(text)
        times = ClipTimes(
            fields["frame_start"],
            fields["frame_step"],
            fields["num_frames"],
            fields["duration"],
            fields.get("speed", 1.0),
            fields.get("place"),
        )
        take = Take(folder, fields["name"], times, fields["record"])
        moments = (times.start, times.shown_from)
        spans = (times.num_frames, times.step, times.duration, times.speed)
        right = (
            all(isinstance(number, (int, float)) and math.isfinite(number) for number in (*moments, *spans))
            and min(spans) > 0
            and isinstance(times.num_frames, int)
        )
        if not (right and isinstance(take.name, str) and isinstance(take.record, dict)):
            raise ValueError("fields of the wrong kind")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise TakeError(
            say(
                "What {take} was made with can't be read; its frames are in {folder}.",
                take=folder.name,
                folder=folder,
            )
        ) from error
    return take


def read_take(folder: Path) -> Take:
    """The take in a folder. Raises `TakeError`."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TakeError(
            say(
                "{folder} holds no take: there is no {file} in it that can be read.",
                folder=folder,
                file=RECORD,
            )
        ) from error
    return from_json(text, folder)
