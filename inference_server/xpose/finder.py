"""Poses of frames that a client sends: the subject's masks, its skeleton, limbs followed over time."""

from __future__ import annotations

import time
from importlib.util import find_spec

import numpy as np

from shared.messages import FoundPoses, PoseFinderDescription, PoseRequest, png_size
from shared.pose import PoseSequence
from shared.sentences import say

from ..engines.base import EngineError, PoseFinder, Report
from ..poseanything.conditioning.pictures import read_picture
from .segments import PART_MAP_SCALE, check_skeletons
from .stages import Clip, Dropped, Skeletoniser, SubjectFinder, SubjectPrompt, Verdict, XPoseError, make_stage

WEIGHTLESS, NEURAL = "flow", "grounded"
GUESSED = say(
    "The subject was followed by its colours and motion, without a neural network; look through the poses."
)


def follow_subject(
    clip: Clip, subject: SubjectFinder, skeleton: Skeletoniser
) -> tuple[np.ndarray, PoseSequence]:
    """(masks bool [F, H, W], poses) of a clip's subject. Raises `Dropped` where it, or a skeleton in most
    frames, isn't found."""
    found = subject.find(clip, Verdict(True))
    if not found.masks[0].any():
        raise Dropped("The subject is not in the first frame.")
    pose = skeleton.extract(clip, found).pose
    check_skeletons(pose)
    return found.masks, pose


def best_subject_finder() -> str:
    """The name of the stage that finds subjects here: SAM 2's where its packages and weights are."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        return WEIGHTLESS
    from .models import MODELS, is_there

    return NEURAL if all(map(is_there, MODELS[NEURAL])) else WEIGHTLESS


def find_poses(clip: Clip, skeleton: str, job: str = "") -> FoundPoses:
    """The poses of a clip's subject, by networks where their weights are, else by colours and optical flow;
    of a single frame its mask alone.

    skeleton: the skeletoniser's name.

    Raises:
        Dropped: the subject, or a skeleton in most frames, isn't found.
        XPoseError: a stage can't run.
    """
    started, name = time.monotonic(), best_subject_finder()
    subject, skeletoniser = make_stage("subject", name), make_stage("skeleton", skeleton)
    subject.load()
    skeletoniser.load()
    if len(clip.frames) == 1:
        masks, pose = _mask_alone(clip, subject)
    else:
        masks, pose = follow_subject(clip, subject, skeletoniser)
    centre = slice(min(PART_MAP_SCALE // 2, *(side - 1 for side in masks.shape[1:])), None, PART_MAP_SCALE)
    return FoundPoses(
        job=job,
        pose=pose,
        mask=masks[0].astype(np.uint8),
        masks=masks[:, centre, centre].astype(np.uint8),
        seconds=time.monotonic() - started,
        note="" if name == NEURAL else GUESSED,
    )


class VideoPoseFinder(PoseFinder):
    """`find_poses` in frames that a client sent."""

    @classmethod
    def describe(cls) -> PoseFinderDescription:
        return PoseFinderDescription(note="SAM 2" if best_subject_finder() == NEURAL else GUESSED)

    def find(self, request: PoseRequest, report: Report) -> FoundPoses:
        frames = _read_frames(request, report)
        report("loading", 0, 1)
        watch = lambda stage, done: report(stage, done, len(frames))  # noqa: E731
        clip = Clip("video", frames, request.fps, _prompt_of(request), watch)
        try:
            return find_poses(clip, request.skeleton, request.job)
        except (Dropped, XPoseError) as error:
            raise EngineError(str(error), code="invalid") from error


def _mask_alone(clip: Clip, subject: SubjectFinder) -> tuple[np.ndarray, PoseSequence]:
    masks = subject.find(clip, Verdict(True)).masks
    if not masks[0].any():
        raise Dropped("No subject was found there; point at it again, or draw a box around it.")
    height, width = masks.shape[1:]
    return masks, PoseSequence.from_frames(width, height, [], [], [[]])


def _prompt_of(request: PoseRequest) -> SubjectPrompt:
    box = None if request.box is None else tuple(request.box.tolist())
    points, background = (
        tuple(map(tuple, places.tolist())) for places in (request.points, request.background)
    )
    mask = None if request.mask is None else request.mask > 0
    return SubjectPrompt(box, points, background, mask, request.text)


def _read_frames(request: PoseRequest, report: Report) -> np.ndarray:
    """uint8 [F, H, W, 3]. Raises `EngineError` where one is no picture of the size that was told."""
    frames = np.empty((len(request.lengths), request.height, request.width, 3), np.uint8)
    data, end = memoryview(request.frames), 0
    for index, length in enumerate(request.lengths.tolist()):
        report("reading", index, len(frames))
        picture, end = data[end : end + length], end + length
        told = _size_of(picture)
        image = read_picture(picture, turn=False) if told == (request.width, request.height) else None
        if image is None or image.shape != frames.shape[1:]:
            raise EngineError(
                "Frame {frame} of the video is no picture of {width} x {height}; send it again.",
                code="invalid",
                frame=index + 1,
                width=request.width,
                height=request.height,
            )
        frames[index] = image
    return frames


def _size_of(picture: memoryview) -> tuple[int, int] | None:
    """Width and height as a PNG's or JPEG's header says, before any memory is spent on its pixels."""
    if (size := png_size(picture)) is not None:
        return size
    data = bytes(picture[:65536])
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # the frame's header
            height, width = (int.from_bytes(data[at + 5 + k : at + 7 + k], "big") for k in (0, 2))
            return width, height
        at += 2 + length
    return None
