"""What the add-on knows of a job: told by events, read by panels."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..shared.messages import Accepted, Cancelled, Done, Failed, FoundPoses, Progress, Queued
from ..takes.take import Take
from ..takes.unfinished import Unfinished
from ..texts import say
from .events import FramesSaved, Interrupted, Unsent

WAITING, QUEUED, RUNNING, ENCODING = "WAITING", "QUEUED", "RUNNING", "ENCODING"
INTERRUPTED = "INTERRUPTED"
DONE, FAILED, CANCELLED, LEFT = "DONE", "FAILED", "CANCELLED", "LEFT"
"""`LEFT` goes on at a server that this Blender has left, and can be fetched there later."""
ENDED = (DONE, FAILED, CANCELLED, LEFT)


@dataclass(kw_only=True)
class Task:
    """What the server is asked for: a clip or the poses of a video.

    state: one of the names above.
    awaited: a script waits for it, and shall not wait for ever for a server that is gone.
    sentence: what the server or this side says of it, above all why it failed.
    """

    id: str
    state: str = WAITING
    position: int = 0
    stage: str = ""
    step: int = 0
    total: int = 0
    sentence: str = ""
    began: float = field(default_factory=time.monotonic)
    deadline: float | None = None
    awaited: bool = False
    interrupted_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def label(self) -> str:
        """What it makes, in a word or two."""
        raise NotImplementedError

    def hear(self, event: object) -> None:
        """Take in an event of this task."""
        if isinstance(event, Accepted):
            self.state = QUEUED
        elif isinstance(event, Queued):
            self.state, self.position = QUEUED, event.position
        elif isinstance(event, Unsent):
            self.state, self.began = WAITING, time.monotonic()
        elif isinstance(event, Interrupted):
            self.state, self.deadline, self.interrupted_at = INTERRUPTED, None, time.monotonic()
        elif isinstance(event, Progress):
            self.state, self.stage, self.step, self.total = RUNNING, event.stage, event.step, event.total
            self.deadline = None if event.seconds_left is None else time.monotonic() + event.seconds_left
            self.sentence = event.note or self.sentence
        elif isinstance(event, Failed) and event.code == "elsewhere":
            self.state, self.sentence = LEFT, event.message
        elif isinstance(event, Failed):
            self.state, self.sentence = FAILED, event.message
        elif isinstance(event, Cancelled):
            self.state, self.sentence = CANCELLED, self._cancelled()

    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.state in (DONE, ENCODING):
            return 1.0
        return min(self.step / self.total, 1.0) if self.total else 0.0

    def seconds_left(self) -> float | None:
        """Until its end, as the server estimates it; None where it has nothing to tell from."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def describe(self) -> str:
        """Where it stands, in a few words."""
        if self.state == WAITING:
            return say("Waiting for the server")
        if self.state == INTERRUPTED:
            return self._interrupted()
        if self.state == QUEUED:
            if not self.position:
                return say("Next in the queue")
            return say("Queued, {position} before it", position=self.position)
        if self.ended:
            return self.sentence
        text, left = self._doing(), self.seconds_left()
        return text if left is None else say("{what}, {time} left", what=text, time=duration(left))

    def went_away(self, address: str) -> str:
        """What to say of it when the server that had it does not come back."""
        return say(
            "The server at {address} went away in the middle; start it in the Server panel and try again.",
            address=address,
        )

    def _interrupted(self) -> str:
        return say("Interrupted, waiting for the server")

    def _cancelled(self) -> str:
        return say("Cancelled.")

    def _doing(self) -> str:
        if self.total:
            return say(
                "{stage} {step} of {total}", stage=_stage(self.stage), step=self.step, total=self.total
            )
        return _stage(self.stage) if self.stage else say("Starting")


@dataclass(kw_only=True)
class Job(Task):
    """One clip that is being generated, or was.

    state: `ENCODING` and the `DONE` after it are told by whoever encodes a movie.
    frames: how many are on disk.
    warnings: what the exporter found worth saying.
    unfinished: what is left in the take's folder until no more of it is to come.
    """

    take: Take
    engine_label: str
    neural: bool
    warnings: tuple[str, ...] = ()
    frames: int = 0
    unfinished: Unfinished | None = None

    @property
    def label(self) -> str:
        return self.take.name

    def hear(self, event: object) -> None:
        if isinstance(event, FramesSaved):
            self.state, self.frames = RUNNING, event.count
        elif isinstance(event, Done):
            self.state, self.frames, self.sentence = DONE, event.num_frames, event.note
        else:
            super().hear(event)

    def fraction(self) -> float:
        """By steps until frames come, then by frames."""
        if self.frames and self.state not in (DONE, ENCODING):
            return self.frames / self.take.num_frames
        return super().fraction()

    def describe(self) -> str:
        if self.state == ENCODING:
            return say("Encoding the movie")
        return say("{frames} frames", frames=self.frames) if self.state == DONE else super().describe()

    def went_away(self, address: str) -> str:
        if not self.frames:
            return super().went_away(address)
        return say(
            "The server at {address} went away in the middle ({frames} of {total} frames are kept); start "
            "it in the Server panel and try again.",
            address=address,
            frames=self.frames,
            total=self.take.num_frames,
        )

    def _interrupted(self) -> str:
        if not self.frames:
            return super()._interrupted()
        return say(
            "Interrupted at frame {frames} of {total}, waiting for the server",
            frames=self.frames,
            total=self.take.num_frames,
        )

    def _cancelled(self) -> str:
        if not self.frames:
            return super()._cancelled()
        return say(
            "Cancelled. {frames} of {total} frames are kept.", frames=self.frames, total=self.take.num_frames
        )

    def _doing(self) -> str:
        if not self.frames:
            return super()._doing()
        return say("Frame {frames} of {total}", frames=self.frames, total=self.take.num_frames)


@dataclass(kw_only=True)
class PoseSearch(Task):
    """A search for the poses of a filmed subject, or for its mask in a picture.

    of_picture: whether that is looked for. told: whether its end has been taken up.
    """

    of_picture: bool = False
    found: FoundPoses | None = None
    told: bool = False

    @property
    def label(self) -> str:
        return say("Subject") if self.of_picture else say("Poses")

    def hear(self, event: object) -> None:
        if isinstance(event, FoundPoses):
            self.state, self.sentence, self.found = DONE, event.note, event
        else:
            super().hear(event)


def _stage(name: str) -> str:
    """A stage of an engine's, to be shown; another than these is shown as it is called."""
    known = {
        "loading": say("Loading"),
        "compiling": say("Compiling, once"),
        "encoding": say("Encoding"),
        "denoising": say("Denoising"),
        "decoding": say("Decoding"),
        "drawing": say("Drawing"),
        "reading": say("Reading"),
        "subject": say("Following the subject"),
        "skeleton": say("Drawing skeletons"),
    }
    return known.get(name) or name.capitalize()


def duration(seconds: float) -> str:
    """1:05 for 65 seconds."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
