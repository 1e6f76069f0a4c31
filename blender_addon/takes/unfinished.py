"""What a take that is still being made leaves in its folder, so that another Blender can complete it."""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..shared.messages import png_size
from ..texts import say
from .take import RECORD, Take, TakeError, frame_name, from_json, to_json, writing_to

UNFINISHED = "unfinished.json"


@dataclass(frozen=True)
class Unfinished:
    """A job that a server has, and where its frames belong.

    account: which server, and as whom (see `Token.account`).
    width, height: the clip's.
    file: the .blend, "" before it is saved; scene, filmed: the names of the scene with the strip and of the
        one that lists the take; start: where the strip begins, None where the clip was filmed.
    take: what `to_json` writes.
    """

    job: str
    account: str
    width: int
    height: int
    file: str
    scene: str
    filmed: str
    start: int | None
    make_movie: bool
    take: str

    def __str__(self):
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def parse(cls, text: str) -> Unfinished:
        """Raises `TakeError`."""
        try:
            found = cls(**json.loads(text))
            for field in dataclasses.fields(cls):
                kinds = {"int": int, "str": str, "bool": bool, "int | None": (int, type(None))}
                if not isinstance(getattr(found, field.name), kinds[str(field.type)]):
                    raise ValueError(field.name)
        except (ValueError, TypeError) as error:
            raise TakeError("What is left of an unfinished take can't be read.") from error
        return found


def leave(folder: Path, unfinished: Unfinished) -> None:
    """Raises `OSError`."""
    (folder / UNFINISHED).write_text(str(unfinished), encoding="utf-8")


def clear(folder: Path) -> None:
    """The take is complete, or no more of it will come."""
    try:
        (folder / UNFINISHED).unlink(missing_ok=True)
    except OSError:
        pass  # the folder can't be reached: it is asked for in vain once more


def look(folder: Path) -> Unfinished | None:
    """What is left in a take's folder, None where there is nothing that can be read."""
    try:
        return Unfinished.parse((folder / UNFINISHED).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TakeError):
        return None


def find(output: Path) -> list[tuple[Path, Unfinished]]:
    """The folders of unfinished takes among those in an output folder."""
    folders = [path.parent for path in sorted(output.glob(f"*/{UNFINISHED}"))]
    return [(folder, left) for folder in folders if (left := look(folder)) is not None]


def restore(folder: Path, unfinished: Unfinished) -> Take:
    """The take, whose folder is made where it is missing, as on another computer. Raises `TakeError`."""
    take = from_json(unfinished.take, folder)
    if take.name != folder.name:
        raise TakeError(say("{folder} is not the folder of {take}.", folder=folder, take=take.name))
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / RECORD).exists():
            (folder / RECORD).write_text(to_json(take), encoding="utf-8")
        leave(folder, unfinished)
    return take


def whole_frames(take: Take, size: tuple[int, int]) -> int:
    """How many frames are there before the first that is missing, cut off or damaged."""
    count = 0
    while count < take.num_frames:
        try:
            data = (take.folder / frame_name(take.name, count)).read_bytes()
        except OSError:
            break
        if png_size(data) != size or not _is_whole(data):
            break
        count += 1
    return count


def _is_whole(png: bytes) -> bool:
    """Whether every chunk of a PNG file is there, up to the last, and matches its checksum."""
    place = 8
    while place + 12 <= len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        end = place + 8 + length
        if zlib.crc32(png[place + 4 : end]).to_bytes(4, "big") != png[end : end + 4]:
            return False
        if png[place + 4 : place + 8] == b"IEND":
            return True
        place = end + 4
    return False
