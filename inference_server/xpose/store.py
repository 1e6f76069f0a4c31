"""What a run keeps on the disk while it lasts, so that it can be killed at any point and go on.

In the folder `work` of the data set: `settings.json`, the videos in their order, a plan for each video, the
mask with which each clip ended, and a record for each clip, which is written last: a clip with a record is
done. Files are whole or not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from ..datasets.dataset import EncodedExample
from .checks import Span
from .stages import Record, XPoseError
from .video import VideoFacts

SHEETS = "sheets"
AGAIN = "a"
"""Ends the name of a clip that was dropped, and accepted by hand."""


def clip_id(span: Span) -> str:
    """A file's name for a clip, whatever its video is called."""
    return _file_id(span.video, span.name)


def _file_id(video: str, clip: str) -> str:
    return f"{video_id(video)}-{clip.rpartition('#')[2]}"


def video_id(video: str) -> str:
    return hashlib.sha256(video.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class WorkFolder:
    """The folder of a run."""

    def __init__(self, dataset: Path):
        self.dataset, self._folder = dataset, dataset / "work"

    def begin(self, settings: dict) -> None:
        """Make the folder, or go on in it. Raises `XPoseError` where it was begun with other settings."""
        for name in ("plans", "clips", "examples", "masks"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self.dataset / SHEETS).mkdir(exist_ok=True)
        for left in self._folder.rglob("*.part"):
            left.unlink()
        text = json.dumps(settings, indent=1, sort_keys=True)
        path = self._folder / "settings.json"
        if not path.exists():
            _write(path, text.encode())
        elif (old := path.read_text(encoding="utf-8")) != text:
            before, now = json.loads(old), json.loads(text)
            differ = ", ".join(sorted(key for key in before | now if before.get(key) != now.get(key)))
            raise XPoseError(
                f"{self.dataset} was begun with other settings ({differ}); give the same, or choose another"
                " folder."
            )

    def settings(self) -> dict:
        """Those that the run was begun with. Raises `XPoseError`."""
        try:
            return json.loads((self._folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise XPoseError(
                f"{self.dataset} holds no run of xpose ({error}); choose the folder of one."
            ) from error

    def videos(self, found: list[str] = ()) -> list[str]:
        """The videos in the order in which they are packed: those of runs before, then what is new."""
        path = self._folder / "videos.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        there = set(known)
        new = [video for video in found if video not in there]
        if new:
            known += new
            _write(path, json.dumps(known, indent=0).encode())
        return known

    def accept(self, span: Span) -> None:
        """Have a dropped clip done once more, whatever the stages think of it, and packed behind all that was
        there."""
        again = dataclasses.replace(span, name=span.name + AGAIN, accepted=True)
        if again.name not in self.videos():
            self.write_plan(again.name, [again], [])
            self.videos([again.name])

    # --- plans

    def write_plan(self, video: str, spans: list[Span], records: list[Record]) -> None:
        plan = {"spans": [dataclasses.asdict(span) for span in spans], "records": [vars(r) for r in records]}
        _write(self._folder / "plans" / f"{video_id(video)}.json", json.dumps(plan).encode())

    def read_plan(self, video: str) -> tuple[list[Span], list[Record]] | None:
        """A video's clips, and a record for each part of it without one; None where it has no plan yet."""
        try:
            text = (self._folder / "plans" / f"{video_id(video)}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        plan = json.loads(text)
        spans = [
            Span(**{**span, "facts": VideoFacts(**span["facts"]), "window": tuple(span["window"])})
            for span in plan["spans"]
        ]
        return spans, [Record(**record) for record in plan["records"]]

    # --- clips

    def write_clip(
        self,
        span: Span,
        record: Record,
        encoded: EncodedExample | None = None,
        sheet: bytes = b"",
        last_mask: np.ndarray | None = None,
    ) -> None:
        """Keep what became of a clip. Raises `OSError`."""
        name = clip_id(span)
        if encoded is not None:
            packed = BytesIO()
            with zipfile.ZipFile(packed, "w") as file:
                for member, data in encoded.members.items():
                    file.writestr(zipfile.ZipInfo(member), data)
            _write(self._folder / "examples" / name, packed.getbuffer())
        if sheet:
            _write(self.dataset / SHEETS / f"{name}.jpg", sheet)
        if last_mask is not None:
            picture = cv2.imencode(".png", 255 * last_mask.astype(np.uint8))[1]
            _write(self._folder / "masks" / f"{name}.png", picture.data)
        _write(self._folder / "clips" / f"{name}.json", json.dumps(vars(record)).encode())

    def read_clip(self, span: Span) -> Record | None:
        """The record of a clip that is done."""
        try:
            text = (self._folder / "clips" / f"{clip_id(span)}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Record(**json.loads(text))

    def is_told(self, span: Span) -> bool:
        """Whether the clip is done that this one follows."""
        return (self._folder / "clips" / f"{_file_id(span.video, span.follows)}.json").exists()

    def mask_before(self, span: Span) -> np.ndarray | None:
        """bool [H, W]: the mask with which the clip ended that this one follows; None where it lost its
        subject."""
        path = self._folder / "masks" / f"{_file_id(span.video, span.follows)}.png"
        if not path.exists():
            return None
        return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE) > 0

    def read_example(self, span: Span, record: Record) -> EncodedExample:
        with zipfile.ZipFile(self._folder / "examples" / clip_id(span)) as file:
            members = {name: file.read(name) for name in file.namelist()}
        return EncodedExample(members, record.video, record.frames)

    def forget_example(self, span: Span) -> None:
        """Delete what is in a shard by now."""
        (self._folder / "examples" / clip_id(span)).unlink(missing_ok=True)

    def records(self) -> Iterator[tuple[Record, str]]:
        """What became of every video and clip so far, in order, with the id of the clip's sheet or ""."""
        for video in self.videos():
            plan = self.read_plan(video)
            if plan is None:
                continue
            spans, records = plan
            yield from ((record, "") for record in records)
            for span in spans:
                record = self.read_clip(span)
                if record is not None:
                    yield record, clip_id(span)

    def dropped(self) -> Iterator[Span]:
        """The clips that a stage dropped, whatever was decided about them since."""
        for span, record in self._clips():
            if record is not None and not record.kept:
                yield span

    def waiting(self) -> int:
        """How many clips that were accepted by hand are not done."""
        return sum(span.accepted and record is None for span, record in self._clips())

    def _clips(self) -> Iterator[tuple[Span, Record | None]]:
        for video in self.videos():
            for span in (self.read_plan(video) or ([], []))[0]:
                yield span, self.read_clip(span)

    # --- decisions by hand

    def write_decisions(self, decisions: dict[str, bool]) -> None:
        _write(self._folder / "decisions.json", json.dumps(decisions, indent=0, sort_keys=True).encode())

    def decisions(self) -> dict[str, bool]:
        """What was accepted or rejected by hand, by the clip's id."""
        path = self._folder / "decisions.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, data: bytes | memoryview) -> None:
    growing = path.with_name(path.name + ".part")
    try:
        growing.write_bytes(data)
        os.replace(growing, path)
    except OSError:
        growing.unlink(missing_ok=True)
        raise
