"""Data sets of examples: WebDataset shards with an index.

A shard is a plain tar, read from front to back and written by appending, so a set of any size streams from a
disk or over a network without being unpacked, and any tool opens it. An example is a few members that share
a key:

    KEY.poserequest     the request, as the extension writes it
    KEY.00001.webp ...  the frames after the first, lossless
    KEY.labels.npz      limb labels [F, H, W] where the truth is known
    KEY.draft.npz       the draft engine's frames where it was asked
    KEY.poses.npz       pictures of the poses where these are known as such
    KEY.json            who is seen, and where the example is from

`index.json` beside the shards has their checksums, the set's statistics, who is in which split, checksums of
the requests, so that no example is added twice, what examples were drawn from, so that none is drawn twice,
and the keys of examples that were rejected and are passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from shared.messages import GenerationRequest
from shared.request_file import SUFFIX, read_request, write_request
from shared.schema import MessageError

from ..poseanything.conditioning.pictures import read_picture
from .errors import DatasetError
from .examples import Example

if TYPE_CHECKING:
    from webdataset import TarWriter

FORMAT = 1
INDEX = "index.json"
SHARD_BYTES = 256 << 20
LOSSLESS = 101
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SPLITS = {"test": 5, "validation": 5, "train": 90}
"""Which share of the subjects, in percent, is in which split."""


def split_of(subject: str) -> str:
    """The split of a subject: always the same, and no subject is in two."""
    place = int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 100
    for name, percent in SPLITS.items():
        if place < percent:
            return name
        place -= percent
    raise AssertionError("the splits add up to 100")


@dataclasses.dataclass(frozen=True)
class EncodedExample:
    """An example as the members of a shard, their names without the key."""

    members: dict[str, bytes]
    subject: str
    frames: int

    @property
    def request(self) -> str:
        """What tells its request from others."""
        return hashlib.sha256(self.members[SUFFIX[1:]]).hexdigest()[:16]


def encode_example(example: Example, source: str, quality: int = LOSSLESS) -> EncodedExample:
    """An example as it is kept in a shard; `source` and `quality` as of `DatasetWriter`."""
    members = {SUFFIX[1:]: request_bytes(example.request)}
    for number, frame in enumerate(example.frames[1:], 1):
        flags = [cv2.IMWRITE_WEBP_QUALITY, quality]
        members[f"{number:05d}.webp"] = cv2.imencode(".webp", frame[..., ::-1], flags)[1].tobytes()
    for name in ("labels", "draft", "poses"):
        array = getattr(example, name)
        if array is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, array)
            members[f"{name}.npz"] = buffer.getvalue()
    about = {"subject": example.subject, "split": split_of(example.subject), "source": source}
    members["json"] = json.dumps(about).encode()
    return EncodedExample(members, example.subject, len(example.frames))


class DatasetWriter:
    """Writes a new data set, or adds shards to one that is there. As a context it writes the index when left.

    Args:
        folder: for the shards and the index.
        source: where the examples are from, such as "synthesis 2d" or "blender workbench".
        quality: of the frames, 1 to 100, or `LOSSLESS`.
        shard_bytes: after which a new shard is begun.
    """

    def __init__(
        self, folder: Path | str, source: str, quality: int = LOSSLESS, shard_bytes: int = SHARD_BYTES
    ):
        self.folder, self.source, self.quality, self.shard_bytes = Path(folder), source, quality, shard_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"There can be no data set in {folder} ({error}); choose a folder.") from error
        there = (self.folder / INDEX).exists()
        self.index = read_index(self.folder) if there else {"format": FORMAT, "shards": [], "subjects": {}}
        self._requests = {each for entry in self.index["shards"] for each in entry.get("requests", ())}
        self.origins = {each for entry in self.index["shards"] for each in entry.get("origins", ())}
        for left in self.folder.glob("shard-*.tar.part"):  # by a run that was killed
            left.unlink()
        self._tar: TarWriter | None = None
        self._entry: dict = {}

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *error) -> None:
        self._writing(self._close)

    def add(self, example: Example, origin: str = "") -> bool:
        """Append an example, unless the set has one with the same request; returns whether it did. `origin`
        is what it was made from, to be found in `origins` before it is made once more. Raises
        `DatasetError` when the disk is full; the shards that were written before stay whole."""
        return self._writing(lambda: self._add(example, origin))

    def _writing(self, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except OSError as error:
            self.abandon()
            raise DatasetError(
                f"The data set in {self.folder} can't be written ({error}); free some space and run again:"
                " the shards in its index are whole."
            ) from error

    def _add(self, example: Example, origin: str) -> bool:
        encoded = encode_example(example, self.source, self.quality)
        if encoded.request in self._requests:
            return False
        self.append(encoded, origin)
        return True

    def append(self, encoded: EncodedExample, origin: str = "") -> None:
        """Append an example that was encoded before, perhaps by another process. Raises `OSError`."""
        if self._tar is None:
            name = f"shard-{len(self.index['shards']):06d}.tar"
            self._entry = {"name": name, "examples": 0, "frames": 0, "subjects": []}
            self._entry |= {"requests": [], "origins": []}
            self._growing = self.folder / (name + ".part")
            from webdataset import TarWriter  # brings torch, which encoding does without

            self._tar = TarWriter(str(self._growing), mtime=0)
        key = f"{len(self.index['shards']):06d}-{self._entry['examples']:06d}"
        self._tar.write({"__key__": key, **encoded.members})
        self._entry["examples"] += 1
        self._entry["frames"] += encoded.frames
        self._entry["subjects"].append(encoded.subject)
        self._entry["requests"].append(encoded.request)
        self._requests.add(encoded.request)
        if origin:
            self._entry["origins"].append(origin)
            self.origins.add(origin)
        if self._growing.stat().st_size >= self.shard_bytes:
            self._close()

    def abandon(self) -> None:
        """Leave out the shard that is not whole, as if it had not been begun."""
        if self._tar is not None:
            with contextlib.suppress(OSError):  # of a full disk
                self._tar.close()
            self._tar = None
            self._growing.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        shard = self.folder / self._entry["name"]
        subjects = Counter(self._entry.pop("subjects"))
        self._entry |= {"bytes": self._growing.stat().st_size, "sha256": checksum(self._growing)}
        os.replace(self._growing, shard)
        self.index["shards"].append(self._entry)
        for subject, count in subjects.items():
            known = self.index["subjects"].setdefault(subject, {"split": split_of(subject), "examples": 0})
            known["examples"] += count
        self.index["statistics"] = {
            "examples": sum(entry["examples"] for entry in self.index["shards"]),
            "frames": sum(entry["frames"] for entry in self.index["shards"]),
            "subjects": len(self.index["subjects"]),
            "bytes": sum(entry["bytes"] for entry in self.index["shards"]),
            "by_split": dict(Counter(about["split"] for about in self.index["subjects"].values())),
        }
        _write_index(self.folder, self.index)


def _write_index(folder: Path, index: dict) -> None:
    growing = folder / (INDEX + ".part")
    growing.write_text(json.dumps(index, indent=1))
    os.replace(growing, folder / INDEX)


def read_index(folder: Path | str) -> dict:
    """The index of a data set. Raises `DatasetError`."""
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"The index {path} can't be read ({error}); choose the folder of a data set."
        ) from error
    if index.get("format") != FORMAT:
        raise DatasetError(f"{path} has the format {index.get('format')} and this version reads {FORMAT}.")
    return index


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path | str) -> None:
    """Raise `DatasetError` naming the first shard that isn't what was written."""
    for entry in read_index(folder)["shards"]:
        path = Path(folder) / entry["name"]
        _check_size(path, entry)
        if checksum(path) != entry["sha256"]:
            raise DatasetError(f"The shard {path} is damaged (its checksum differs); copy it again.")


def _check_size(path: Path, entry: dict) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found != entry["bytes"]:
        raise DatasetError(
            f"The shard {path} has {found} bytes where {entry['bytes']} were written; copy it again."
        )


def reject_examples(folder: Path | str, keys: Iterable[str]) -> None:
    """Say which examples are left out when the data set is read; what was said before is forgotten, and the
    shards stay as they are. Raises `DatasetError`."""
    index = read_index(folder)
    index["rejected"] = sorted(keys)
    _write_index(Path(folder), index)


def read_examples(folder: Path | str, split: str | None = None) -> Iterator[Example]:
    """The examples of a data set, of one split or all, in the order they were written, but for those that
    were rejected. Raises `DatasetError`."""
    import webdataset

    folder = Path(folder)
    index = read_index(folder)
    rejected = set(index.get("rejected", ()))
    for entry in index["shards"]:
        path = folder / entry["name"]
        _check_size(path, entry)
        try:
            # Of several processes each reads all: which examples it takes is said by its batches' numbers.
            opened = webdataset.WebDataset(
                str(path), shardshuffle=False, empty_check=False, nodesplitter=lambda shards: shards
            )
            for members in opened:
                if members["__key__"] in rejected:
                    continue
                if split in (None, json.loads(members["json"])["split"]):
                    yield _decode(members)
        except (OSError, ValueError, KeyError, MessageError) as error:
            raise DatasetError(f"The shard {path} can't be read ({error}); copy it again.") from error


def _decode(members: dict) -> Example:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"request{SUFFIX}"
        file.write_bytes(members[SUFFIX[1:]])
        request = read_request(file)
    pictures = [request.first_frame, *(members[f"{n:05d}.webp"] for n in range(1, request.num_frames))]
    arrays = {}
    for name in ("labels", "draft", "poses"):
        if f"{name}.npz" in members:
            arrays[name] = np.load(io.BytesIO(members[f"{name}.npz"]))["arr_0"]
    frames = np.stack([decode_picture(bytes(picture)) for picture in pictures])
    return Example(request, frames, json.loads(members["json"])["subject"], **arrays)


def decode_picture(data: bytes) -> np.ndarray:
    """RGB uint8 [H, W, 3]. Raises `ValueError`."""
    image = read_picture(data)
    if image is None:
        raise ValueError("a picture in it is damaged")
    return image


def request_bytes(request: GenerationRequest) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"request{SUFFIX}"
        write_request(file, request)
        return file.read_bytes()


# --- videos and folders of pictures ---


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write uint8 [F, H, W, 3] as FFV1. Raises `DatasetError`."""
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), fps, (width, height))
    if not writer.isOpened():
        raise DatasetError(f"The video {path} can't be written; check the folder and the space on its disk.")
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()


def read_pictures(folder: Path, flags: int) -> np.ndarray:
    """A folder's pictures in the order of their names: uint8 [F, H, W, 3] RGB, or [F, H, W] by OpenCV's flag
    for grey ones. Raises `DatasetError`."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    pictures = [cv2.imread(str(file), flags) for file in files]
    broken = [file for file, picture in zip(files, pictures) if picture is None]
    if broken or not pictures:
        which = f"The picture {broken[0]} can't be read" if broken else f"{folder} has no pictures"
        raise DatasetError(f"{which}; get or make it again.")
    if len({picture.shape for picture in pictures}) > 1:
        raise DatasetError(f"The pictures in {folder} are of different sizes; make them anew.")
    stacked = np.stack(pictures)
    return stacked[..., ::-1] if stacked.ndim == 4 else stacked


def read_video(path: Path, most_frames: int | None = None) -> np.ndarray:
    """uint8 [F, H, W, 3], all frames or the first so many. Raises `DatasetError`."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while most_frames is None or len(frames) < most_frames:
        read, frame = capture.read()
        if not read:
            break
        frames.append(frame[..., ::-1])
    if not frames:
        raise DatasetError(f"The video {path} can't be read; get or make it again.")
    return np.stack(frames)
