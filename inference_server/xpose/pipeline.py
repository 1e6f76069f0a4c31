"""A clip's way through the stages, whoever runs them: the local runner or a cluster.

A step is a callable from a list of items to the same items, further on. What a stage drops, and what goes
wrong with a clip, ends that clip with a reason and stops no other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from shared.messages import GenerationRequest
from shared.pose import PoseSequence

from ..datasets.dataset import EncodedExample, encode_example
from ..datasets.examples import Example
from ..poseanything.conditioning.masks import size_of
from ..poseanything.conditioning.pictures import encode_png
from .checks import ClipSettings, Span, in_whole_picture, load_clip, plan_video
from .segments import PART_MAP_SCALE, check_skeletons, limb_map, segment_counts
from .sheets import draw_sheet
from .stages import (
    Clip,
    Dropped,
    Filter,
    Record,
    Skeleton,
    Skeletoniser,
    Stage,
    Subject,
    SubjectFinder,
    SubjectPrompt,
    Verdict,
    XPoseError,
    complexity_of,
    make_stage,
)
from .store import AGAIN, WorkFolder
from .subjects.selection import area_share, check_area

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """What decides what a run makes of a video.

    filter, subject, skeleton: the stages' names; no filter where it is "". options: theirs, by kind. area:
    the rule for the subject's size, see `check_area`. quality: of the frames after the first, 1 to 100, 101
    is lossless.
    """

    clips: ClipSettings = ClipSettings()
    filter: str = ""
    subject: str = "flow"
    skeleton: str = "medial"
    options: dict[str, dict] = field(default_factory=dict)
    area: str = "release"
    quality: int = 95

    @property
    def source(self) -> str:
        return " ".join(filter(None, ["xpose", self.filter, self.subject, self.skeleton]))


@dataclass(eq=False)
class Item:
    """A clip on its way. A dropped one has a reason in its record and goes on as it is.

    root: folder of the videos. prompt: what is known of where the subject is. last_mask: bool [H, W], the
    subject in the last frame, of the video's whole picture.
    """

    span: Span
    root: Path
    prompt: SubjectPrompt
    record: Record
    clip: Clip | None = None
    verdict: Verdict = Verdict(True)
    subject: Subject | None = None
    skeleton: Skeleton | None = None
    encoded: EncodedExample | None = None
    sheet: bytes = b""
    last_mask: np.ndarray | None = None

    @property
    def dropped(self) -> bool:
        return bool(self.record.reason)

    def drop(self, stage: str, reason: str) -> None:
        self.record = dataclasses.replace(self.record, kept=False, stage=stage, reason=reason)


def prompt_of(
    span: Span, prompts: Mapping[str, SubjectPrompt], before: np.ndarray | None = None
) -> SubjectPrompt:
    """What is known of a clip's subject.

    prompts: by the clip's name, by its video's, or "*" for all others. What is said of a video is about its
    first frame: of a clip that begins later it tells what the subject is, and not where. before: bool [h, w],
    the mask with which the clip ended that this one follows.
    """
    if (name := _own_name(span)) in prompts:
        return prompts[name]
    said = _said_of_video(span, prompts)
    return said if span.first == 0 else SubjectPrompt(mask=before, text=said.text)


def takes_over(span: Span, prompts: Mapping[str, SubjectPrompt]) -> bool:
    """Whether a clip begins with the mask with which the one ended that it follows: where somebody said where
    the subject of its video is."""
    if not span.follows or _own_name(span) in prompts:
        return False
    of_clips = (said for name, said in prompts.items() if name.rpartition("#")[0] == span.video)
    return any(said.says_where for said in (_said_of_video(span, prompts), *of_clips))


def begin_item(span: Span, root: Path, prompts: Mapping[str, SubjectPrompt], work: WorkFolder) -> Item | None:
    """A clip that nothing was done to; None as long as the one isn't done whose last mask it takes over."""
    before = None
    if takes_over(span, prompts):
        if not work.is_told(span):
            return None
        before = work.mask_before(span)
    return Item(span, root, prompt_of(span, prompts, before), span.record())


def _own_name(span: Span) -> str:
    return span.name.removesuffix(AGAIN) if span.accepted else span.name


def _said_of_video(span: Span, prompts: Mapping[str, SubjectPrompt]) -> SubjectPrompt:
    return prompts.get(span.video, prompts.get("*", SubjectPrompt()))


Step = Callable[[list[Item]], list[Item]]


class Rates:
    """How many clips, or videos, a second each step does in one process."""

    def __init__(self):
        self._done: dict[str, list[float]] = {}

    def add(self, times: Sequence[tuple[str, int, float]]) -> None:
        """times: (step, how many it did, in how many seconds)."""
        for name, count, seconds in times:
            total = self._done.setdefault(name, [0.0, 0.0])
            total[0] += count
            total[1] += seconds

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {count / max(seconds, 1e-9):.3g}" for name, (count, seconds) in self._done.items()
        )


def take_through(
    steps: Sequence[tuple[str, Step]], items: list[Item]
) -> tuple[list[Item], list[tuple[str, int, float]]]:
    """Take items through named steps; with the times that `Rates` adds up."""
    times = []
    for name, step in steps:
        count = sum(not item.dropped for item in items)
        began = time.monotonic()
        items = step(items)
        if count:
            times.append((name, count, time.monotonic() - began))
    return items, times


def steps_of(settings: RunSettings) -> list[tuple[Callable[[], Step], type[Stage] | None]]:
    """The steps in their order, each as what makes it in the process that runs it, with its stage's class.
    Raises `XPoseError` for a stage or option that isn't there."""
    named = [(kind, getattr(settings, kind)) for kind in ("filter", "subject", "skeleton")]
    steps: list[tuple[Callable[[], Step], type[Stage] | None]] = [(_Read, None)]
    for kind, name in named:
        if name:
            options = settings.options.get(kind)
            stage = type(make_stage(kind, name, options))
            steps.append((_StageMaker(kind, name, options, settings.area), stage))
    steps.append((_FinishMaker(settings), None))
    return steps


@dataclass(frozen=True)
class Group:
    """Steps that one process takes a clip through at a stretch."""

    makers: tuple[Callable[[], Step], ...]
    uses_card: bool
    batch_size: int

    def make(self) -> list[tuple[str, Step]]:
        """The steps with their names."""
        return [(maker.kind, maker()) for maker in self.makers]


def group_steps(settings: RunSettings) -> list[Group]:
    """The steps in groups: each that uses a card alone, those between together."""
    groups: list[Group] = []
    for maker, stage in steps_of(settings):
        card = stage is not None and stage.uses_card
        size = stage.batch_size if stage is not None else 1
        if groups and not card and not groups[-1].uses_card and size == 1:
            groups[-1] = dataclasses.replace(groups[-1], makers=(*groups[-1].makers, maker))
        else:
            groups.append(Group((maker,), card, size))
    return groups


@dataclass(frozen=True)
class _StageMaker:
    """Makes a stage's step; travels to the process where that is done."""

    kind: str
    name: str
    options: dict | None
    area: str

    def __call__(self) -> Step:
        stage = make_stage(self.kind, self.name, self.options)
        stage.load()
        if isinstance(stage, Filter):
            return _Judge(stage)
        if isinstance(stage, SubjectFinder):
            return _Each(self.kind, lambda item: _find(stage, self.area, item))
        assert isinstance(stage, Skeletoniser)
        return _Each(self.kind, lambda item: _extract(stage, item))


@dataclass(frozen=True)
class _FinishMaker:
    settings: RunSettings
    kind: ClassVar[str] = "pack"

    def __call__(self) -> Step:
        return _Each("finish", lambda item: _finish(self.settings, item), always=True)


class _Each:
    """A step that takes items one by one."""

    def __init__(self, stage: str, work: Callable[[Item], None], always: bool = False):
        self._stage, self._work, self._always = stage, work, always

    def __call__(self, items: list[Item]) -> list[Item]:
        for item in items:
            if item.dropped and not self._always:
                continue
            try:
                self._work(item)
            except Dropped as dropped:
                item.drop(self._stage, str(dropped))
            except (XPoseError, OSError):
                raise  # no fault of the clip
            except Exception as error:
                log.warning("%s: %s", item.span.name, error, exc_info=True)
                item.drop(self._stage, f"It can't be worked on ({type(error).__name__}: {error}).")
        return items


class _Read(_Each):
    kind: ClassVar[str] = "read"

    def __init__(self):
        super().__init__("video", self._read)

    @staticmethod
    def _read(item: Item) -> None:
        path = item.root / item.span.video if item.root.is_dir() else item.root
        item.clip = load_clip(path, item.span, item.prompt)


class _Judge:
    """The filter's step: a batch at once."""

    def __init__(self, stage: Filter):
        self._stage = stage

    def __call__(self, items: list[Item]) -> list[Item]:
        waiting = [item for item in items if not item.dropped]
        for item, verdict in zip(
            waiting, self._stage.judge([item.clip for item in waiting]) if waiting else []
        ):
            item.verdict = verdict
            words = {
                name: getattr(verdict, name) for name in ("category", "motion_type", "body_part", "caption")
            }
            item.record = dataclasses.replace(item.record, **words)
            if not verdict.kept and not item.span.accepted:
                item.drop("filter", verdict.reason or "The filter did not keep it.")
        return items


def _find(stage: SubjectFinder, area: str, item: Item) -> None:
    item.subject = stage.find(item.clip, item.verdict)
    masks = item.subject.masks
    item.record.category = item.record.category or item.subject.label
    item.record.figures |= {
        "area_share": area_share(masks),
        "mask_share": float(masks.any((1, 2)).mean()),
        "area_jump": _area_jump(masks),
    }
    if not item.span.accepted:
        check_area(masks, area)
    if not masks[0].any():
        raise Dropped("The first frame has no subject.")


def _area_jump(masks: np.ndarray) -> float:
    """The largest change of the subject's area from one frame to the next, as a share of the larger."""
    areas = masks.sum((1, 2)).astype(float)
    areas = areas[areas > 0]
    if len(areas) < 2:
        return 0.0
    return float((np.abs(np.diff(areas)) / np.maximum(areas[1:], areas[:-1])).max())


def _extract(stage: Skeletoniser, item: Item) -> None:
    item.skeleton = stage.extract(item.clip, item.subject)
    pose, record = item.skeleton.pose, item.record
    counts = segment_counts(pose)
    record.figures |= {
        "skeleton_share": float((counts > 0).mean()),
        "outside": _outside(pose, item.subject.masks),
        "identity_changes": identity_changes(pose),
    }
    record.segments = int(np.median(counts[counts > 0])) if counts.any() else 0
    record.complexity = complexity_of(record.segments)
    if not item.span.accepted:
        check_skeletons(pose)
    elif not counts.any():
        raise Dropped("No frame has a skeleton.")


def identity_changes(pose: PoseSequence) -> float:
    """Segments that come or go, a frame."""
    frames = [set(pose.owners[low:high].tolist()) for low, high in zip(pose.offsets, pose.offsets[1:])]
    return sum(len(a ^ b) for a, b in zip(frames, frames[1:])) / max(len(frames) - 1, 1)


def _outside(pose: PoseSequence, masks: np.ndarray) -> float:
    """The share of the skeletons' points that lie outside of the masks, but for a margin of a hundredth of
    the subject's size."""
    outside = total = 0
    height, width = masks.shape[1:]
    for frame, mask in enumerate(masks):
        points = pose.frame_points(frame)[0][:, :2]
        if not len(points):
            continue
        margin = 2 * round(0.01 * size_of(mask)) + 1
        near = cv2.dilate(mask.astype(np.uint8), np.ones((margin, margin), np.uint8))
        columns = points[:, 0].astype(int).clip(0, width - 1)
        rows = points[:, 1].astype(int).clip(0, height - 1)
        outside += int((near[rows, columns] == 0).sum())
        total += len(points)
    return outside / total if total else 0.0


def _finish(settings: RunSettings, item: Item) -> None:
    """Encode what is kept, draw the sheet, and let go of the frames."""
    if item.clip is not None and item.subject is not None:
        pose = item.skeleton.pose if item.skeleton else None
        item.sheet = draw_sheet(item.clip.frames, item.subject.masks, pose)
        if item.subject.masks[-1].any():
            item.last_mask = in_whole_picture(item.subject.masks[-1], item.span)
    if not item.dropped:
        example = make_example(item.span.video, item.clip, item.verdict, item.subject, item.skeleton.pose)
        item.encoded = encode_example(example, settings.source, settings.quality)
        item.record.kept = True
    for figure, value in item.record.figures.items():
        item.record.figures[figure] = round(value, 4)
    item.clip = item.subject = item.skeleton = None


def make_example(video: str, clip: Clip, verdict: Verdict, subject: Subject, pose: PoseSequence) -> Example:
    """A training example. Its subject is the video, so that no video is in two splits."""
    masks = subject.masks
    counts = segment_counts(pose)
    rows, columns = (slice(PART_MAP_SCALE // 2, None, PART_MAP_SCALE),) * 2
    maps = np.stack([limb_map(pose, frame, mask[rows, columns]) for frame, mask in enumerate(masks)])
    request = GenerationRequest(
        job=f"xpose-{job_name(clip.name)}",
        engine="poseanything",
        width=clip.frames.shape[2],
        height=clip.frames.shape[1],
        num_frames=len(clip.frames),
        fps=clip.fps,
        first_frame=encode_png(clip.frames[0]),
        pose=pose,
        prompt=verdict.caption or subject.label,
        pose_frames=None if counts.all() else tuple(int(frame) for frame in np.nonzero(counts)[0]),
        subject_mask=masks[0].astype(np.uint8),
        first_labels=limb_map(pose, 0, masks[0]),
        part_maps=maps,
    )
    return Example(request, clip.frames, subject=video)


def job_name(name: str) -> str:
    """A job's id of a clip's name, which may have any characters."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def plan_safely(path: Path, video: str, settings: ClipSettings) -> tuple[list[Span], list[Record]]:
    """As `plan_video`; what is wrong with a video is a record of it."""
    try:
        return plan_video(path, video, settings)
    except Dropped as dropped:
        return [], [Record(video, stage="video", reason=str(dropped))]
    except MemoryError:
        return [], [Record(video, stage="video", reason="Memory ran out while it was read.")]
    except Exception as error:  # one bad video never stops the rest
        return [], [
            Record(video, stage="video", reason=f"It can't be read ({type(error).__name__}: {error}).")
        ]
