"""The three stages of the pipeline, what goes in and out of each, and what is said of every clip.

A stage is a dataclass, whose fields are its options, in a module of its own; `STAGES` names it. It is made
once in each process that runs it, by `make_stage`, and loads what it needs in `load`. It knows nothing of the
files, the other stages or the data set.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import ClassVar

import numpy as np

from shared.pose import PoseSequence
from shared.sentences import SentenceError

STAGES = {
    "filter": {"qwen": "inference_server.xpose.filters.qwen:QwenFilter"},
    "subject": {
        "flow": "inference_server.xpose.subjects.flow:FlowSubjectFinder",
        "grounded": "inference_server.xpose.subjects.grounded:GroundedSam2Finder",
        "sam3": "inference_server.xpose.subjects.grounded:Sam3Finder",
    },
    "skeleton": {
        "medial": "inference_server.xpose.skeletons.medial:MedialSkeletoniser",
        "carried": "inference_server.xpose.skeletons.carried:CarriedSkeletoniser",
        "blumnet": "inference_server.xpose.skeletons.blumnet.stage:BlumNetSkeletoniser",
    },
}
"""The stages by kind and name, as `module:class`; each is imported when it is asked for."""

TRACED_AT_ONCE = 16
"""Frames that a skeletoniser is given at once."""


class XPoseError(SentenceError):
    """The run can't begin or go on. Its text is one sentence that says what is wrong and what to do."""


class Dropped(SentenceError):
    """A clip, or a whole video, is not taken. Its text is the reason, in one sentence."""


# --- what goes through the stages


@dataclass(frozen=True, eq=False)
class SubjectPrompt:
    """What the user says of the subject in a clip's first frame; all of it may be missing.

    box: (left, top, right, bottom) as fractions of the width and height.
    points: ((x, y), ...) as fractions: clicks, or a scribble's points, on the subject.
    background: the same beside it.
    mask: bool [h, w] of any size.
    text: what it is, such as "horse".
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    background: tuple[tuple[float, float], ...] = ()
    mask: np.ndarray | None = None
    text: str = ""

    @property
    def says_where(self) -> bool:
        return self.box is not None or bool(self.points) or self.mask is not None


def _unwatched(stage: str, frames: int) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive frames of one shot.

    name: unique in a run, and the name of its video with the clip's number.
    frames: uint8 [F, H, W, 3] RGB, F = 1 + 4 n, as large as the data set's.
    fps: frames a second.
    prompt: what the user said of the subject.
    watch: told by a stage how many frames it is done with; whatever it raises ends the work.
    """

    name: str
    frames: np.ndarray
    fps: float
    prompt: SubjectPrompt = SubjectPrompt()
    watch: Callable[[str, int], None] = _unwatched


@dataclass(frozen=True)
class Verdict:
    """What a filter says of a clip. The words are the axes of the paper's Figure 3, "" where not known.

    reason: one sentence when it is not kept.
    category: what the subject is, such as "horse". motion_type: such as "running". body_part: what moves,
    such as "legs". caption: the prompt that the model is trained with.
    """

    kept: bool
    reason: str = ""
    category: str = ""
    motion_type: str = ""
    body_part: str = ""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """Where the subject is.

    masks: bool [F, H, W] at the frames' size; a frame without a valid mask is all False, and is skipped.
    label: what it is, "" where not known.
    """

    masks: np.ndarray
    label: str = ""


Curve = np.ndarray
"""float32 [K, 2], K >= 2: one segment of a frame's skeleton, as points (x to the right, y down) in pixels of
the clip, pixel centres at .5. Segments meet at junctions by sharing an end point."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The skeleton of every frame; a limb of `pose` is one segment and keeps its index over time.

    pose: on the clip's canvas. A frame without a skeleton has no polylines. Depths are all 1.
    """

    pose: PoseSequence


# --- the stages


class Stage:
    """What the stages have in common.

    uses_card: runs in one process for each graphics card, which all its clips go through; else in as many as
        there are processor cores.
    batch_size: how many clips it is given at once, at most.
    """

    uses_card: ClassVar[bool] = False
    batch_size: ClassVar[int] = 1

    def load(self) -> None:
        """Get ready, once in each process: read weights. Raises `XPoseError` where they are missing."""


class Filter(Stage, ABC):
    """Stage 1: is there one non-human subject that moves? The cheap checks were done before."""

    @abstractmethod
    def judge(self, clips: Sequence[Clip]) -> list[Verdict]:
        """A verdict for each clip. Raises nothing for what a model answers: that is a verdict."""


class SubjectFinder(Stage, ABC):
    """Stage 2: the subject's mask in every frame."""

    @abstractmethod
    def find(self, clip: Clip, verdict: Verdict) -> Subject:
        """The subject of a clip; follows `clip.prompt` where it says anything. Raises `Dropped`."""


class Skeletoniser(Stage, ABC):
    """Stage 3: the skeleton of every frame. A subclass that sees frames one by one overrides `trace` alone;
    segments are then matched over time by what all share. `revise` sees all frames' curves before that."""

    @abstractmethod
    def trace(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        """The curves of each frame, in any order, of the subject in `masks`; a frame whose mask is empty has
        none.

        frames: uint8 [N, H, W, 3]. masks: bool [N, H, W].
        """

    def revise(self, curves: list[list[Curve]], masks: np.ndarray) -> list[list[Curve]]:
        """The curves of all frames, once those of every frame are known; by default as they are.

        masks: bool [F, H, W].
        """
        return curves

    def extract(self, clip: Clip, subject: Subject) -> Skeleton:
        """The skeleton of a clip, its segments matched over time. Raises `Dropped`."""
        from .skeletons.matching import match_segments

        curves: list[list[Curve]] = []
        for begin in range(0, len(clip.frames), TRACED_AT_ONCE):
            some = slice(begin, begin + TRACED_AT_ONCE)
            curves += self.trace(clip.frames[some], subject.masks[some])
            clip.watch("skeleton", len(curves))
        return Skeleton(match_segments(self.revise(curves, subject.masks), subject.masks))


def make_stage(kind: str, name: str, options: dict | None = None) -> Stage:
    """A stage by kind and name, not yet loaded; one of your own by `module:class`. Raises `XPoseError` for a
    name or option that isn't there."""
    if name not in STAGES[kind] and ":" not in name:
        names = ", ".join(STAGES[kind]) or "none"
        raise XPoseError(
            "There is no {kind} stage named {name!r}; choose one of: {names}.",
            kind=kind,
            name=name,
            names=names,
        )
    module, _, attribute = STAGES[kind].get(name, name).partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise XPoseError(
            "The {kind} stage {name} needs {package}, which is not installed.",
            kind=kind,
            name=name,
            package=error.name,
        ) from error
    except AttributeError as error:
        raise XPoseError(
            "There is no {attribute} in {module}; write a stage as module:class.",
            attribute=attribute,
            module=module,
        ) from error
    known = {each.name for each in dataclasses.fields(found)}
    for option in options or {}:
        if option not in known:
            names = ", ".join(sorted(known)) or "none"
            raise XPoseError(
                "The {kind} stage {name} has no option {option!r}; it has {names}.",
                kind=kind,
                name=name,
                option=option,
                names=names,
            )
    return found(**(options or {}))


# --- what is said of it

COMPLEXITIES = {"simple": range(1, 4), "medium": range(4, 7), "complex": range(7, 11)}
"""The subsets of the paper's appendix B, by the number of segments; beyond ten is named "beyond ten"."""


def complexity_of(segments: int) -> str:
    """The paper's subset of a skeleton by its number of segments, "" for none."""
    for name, counts in COMPLEXITIES.items():
        if segments in counts:
            return name
    return "beyond ten" if segments else ""


@dataclass
class Record:
    """One line of the report: a clip, or a video of which no clip could be made.

    video: path below the folder of videos. clip: its name, "" for a whole video. begin, end: seconds in the
    video. stage: which stage dropped it ("video", "checks", "filter", "subject", "skeleton"), "" when kept.
    reason: one sentence when dropped. notes: what else is worth saying, such as "HDR". segments: of the
    skeleton, the median over its frames. figures: measures by name, such as "area_share".
    """

    video: str
    clip: str = ""
    kept: bool = False
    stage: str = ""
    reason: str = ""
    notes: str = ""
    begin: float = 0.0
    end: float = 0.0
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    category: str = ""
    motion_type: str = ""
    body_part: str = ""
    caption: str = ""
    segments: int = 0
    complexity: str = ""
    figures: dict[str, float] = field(default_factory=dict)
