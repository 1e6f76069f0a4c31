"""When a clip's frames are filmed and shown, and the scene's clock.

Three clocks run here. The *scene's frames* are what Blender counts, plays and renders; a moment between two
of them has a fraction, Blender's subframe. The *animation's frames* are where keys and markers lie, which
Time Stretching (`frame_map_old`, `frame_map_new`) takes apart from the scene's. The *clip's frames* are
counted from 0; the engine knows only these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

CLOSE = 1e-4
"""Moments that lie closer together than this part of a frame are one."""


@dataclass(frozen=True)
class ClipTimes:
    """Clip frame i shows the scene at its frame `start` + i * `step`, a whole number or between two.

    duration: how many scene frames are filmed; the clip's last frames may lie after them, where an engine
        takes only certain lengths.
    speed: how fast the filmed time passes where the clip is shown: 0.5 is slow motion.
    place: the moment of the scene at which the clip begins to be shown, None for `start`; a clip that takes
        the place of a part of another begins between two frames where that one's does.
    """

    start: float
    step: float
    num_frames: int
    duration: float
    speed: float = 1.0
    place: float | None = None

    def at(self, index: float) -> float:
        """The scene frame that a clip frame shows."""
        return whole_if_close(self.start + index * self.step)

    def index_of(self, frame: float) -> float:
        """The clip frame that shows a scene frame; it may lie between two, or outside of the clip."""
        return (frame - self.start) / self.step

    def index_at(self, frame: float) -> int:
        """The clip frame that is shown while the scene is at a frame; it may lie outside of the clip."""
        return math.floor(self.index_of(frame) + CLOSE)

    @property
    def end(self) -> float:
        """The last scene frame that is filmed."""
        return self.start + self.duration - 1

    @property
    def pace(self) -> float:
        """For how many scene frames each clip frame is shown."""
        return self.step / self.speed

    @property
    def length(self) -> float:
        """For how many scene frames the clip is shown."""
        return self.duration / self.speed

    @property
    def shown_from(self) -> float:
        """The moment of the scene at which the clip begins to be shown."""
        return self.start if self.place is None else self.place

    def span_in(self, rate: float) -> tuple[int, int]:
        """The first frame of a sequencer that shows the clip, and for how many the whole of it is shown.
        `rate` is the sequencer's frame rate over that of the scene that is filmed: the clip lasts as long
        there."""
        if self.place is None:
            return round(self.start * rate), max(round(self.length * rate), 1)
        first = math.ceil(self.place * rate - CLOSE)
        return first, max(round((self.place + self.length) * rate) - first, 1)

    def moment_in(self, rate: float, index: float) -> float:
        """The moment of a sequencer at which a clip frame begins to be shown; `rate` is as in `span_in`."""
        return self.span_in(rate)[0] + index * self.pace * rate

    def index_in(self, rate: float, moment: float) -> float:
        """The clip frame that is shown at a moment of a sequencer, the other way round."""
        return (moment - self.span_in(rate)[0]) / (self.pace * rate)

    def shown_in(self, rate: float, num_frames: int) -> list[int]:
        """The clip frame that each frame of a sequencer shows once the first `num_frames` are there; `rate`
        is as in `span_in`."""
        first, length = self.span_in(rate)
        late = max(first - self.place * rate, 0.0) if self.place is not None else 0.0
        pace = self.pace * rate
        length = min(math.ceil(num_frames * pace - late - CLOSE), length)
        return [min(int((index + late) / pace + CLOSE), num_frames - 1) for index in range(length)]

    @property
    def asked(self) -> int:
        """How many clip frames the filmed time has; engines may make more of them."""
        return frames_in(self.duration, self.step)

    def part(self, first: float, last: float, multiple: int = 1) -> ClipTimes:
        """The clip frames from the one that is shown at scene frame `first` to what is filmed at `last`,
        shown where they are in the whole. `multiple`: see `frames_in`."""
        begin = max(self.index_at(first), 0)
        start, duration = self.at(begin), min(last, self.end) - self.at(begin) + 1
        place = whole_if_close(self.shown_from + begin * self.pace)
        return replace(
            self,
            start=start,
            duration=whole_if_close(duration),
            num_frames=frames_in(duration, self.step, multiple),
            place=None if place == start else place,
        )


def frames_in(duration: float, step: float, multiple: int = 1) -> int:
    """How many clip frames show `duration` scene frames, one for `step` of them: n with (n - 1) % `multiple`
    == 0, at least one."""
    frames = max(math.ceil(duration / step - CLOSE), 1)
    return frames + -(frames - 1) % multiple


def whole_if_close(frame: float) -> float:
    """The same frame, as an `int` where it is a whole one but for rounding."""
    nearest = round(frame)
    return nearest if abs(frame - nearest) < CLOSE else frame


def go_to(scene, frame: float) -> None:
    """Set a `bpy.types.Scene` to a frame that may lie between two."""
    frame = whole_if_close(frame)
    whole = math.floor(frame)
    scene.frame_set(whole, subframe=frame - whole)


def frame_rate(scene) -> float:
    """A `bpy.types.Scene`'s frames a second."""
    return scene.render.fps / scene.render.fps_base


def stretch(scene) -> float:
    """How many frames of the animation pass in a frame of a `bpy.types.Scene`: Time Stretching, usually 1."""
    return scene.render.frame_map_old / scene.render.frame_map_new


def to_scene(scene, frame: float) -> float:
    """The scene frame at which a frame of the animation, such as a key's or a marker's, is played."""
    return whole_if_close(frame / stretch(scene))


def to_animation(scene, frame: float) -> float:
    """The frame of the animation that is played at a scene frame."""
    return whole_if_close(frame * stretch(scene))
