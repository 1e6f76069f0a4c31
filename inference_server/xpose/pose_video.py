"""Poses from a video: the motion of a filmed subject as a request's pose, for its own first frame or another
picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from shared.messages import FoundPoses, GenerationRequest, PoseRequest
from shared.pose import PoseSequence

from ..poseanything.conditioning.pictures import encode_jpeg, encode_png
from .segments import limb_map, segment_counts
from .stages import Clip, Dropped, SubjectPrompt, XPoseError
from .subjects.first_frame import find_mask
from .video import probe, read_frames

JOB = "pose-video"
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) as fractions of a picture's width and height."""


def read_clip(
    path: Path,
    prompt: SubjectPrompt,
    begin: float = 0.0,
    most_frames: int = 81,
    frame_step: int = 4,
    fps: float | None = None,
    longer_side: int = 832,
    size_multiple: int = 32,
) -> Clip:
    """A video's frames from `begin` seconds on, as many as there are up to `most_frames`.

    Args:
        prompt: where the subject is in the frame at `begin`.
        frame_step: a clip has 1 + `frame_step` n frames.
        fps: at which the video is read, as fast as it was filmed; its own by default.
        longer_side, size_multiple: of the frames, in pixels; each axis is scaled on its own to multiples.

    Raises:
        XPoseError: the video can't be read, or is too short.
    """
    try:
        facts = probe(path)
        facts = dataclasses.replace(facts, fps=fps or facts.fps)
        scale = min(1.0, longer_side / max(facts.width, facts.height))
        width, height = (
            max(round(side * scale / size_multiple), 1) * size_multiple
            for side in (facts.width, facts.height)
        )
        frames = list(read_frames(path, facts, width, height, round(begin * facts.fps), most_frames))
    except Dropped as dropped:
        raise XPoseError(f"{path.name}: {dropped}") from dropped
    count = (len(frames) - 1) // frame_step * frame_step + 1
    if count < 1 + frame_step:
        least = 1 + frame_step
        raise XPoseError(
            f"{path.name}: Only {len(frames)} frames are there after {begin:g} s; {least} are needed."
        )
    return Clip(path.name, np.stack(frames[:count]), facts.fps, prompt)


def ask_for_poses(clip: Clip, skeleton: str, job: str = JOB) -> PoseRequest:
    """What a server is asked for the poses of a clip's subject.

    skeleton: the skeletoniser's name. Raises `MessageError` where the frames are too many.
    """
    height, width = clip.frames.shape[1:3]
    files, prompt = [encode_jpeg(frame) for frame in clip.frames], clip.prompt
    mask = None
    if prompt.mask is not None:
        mask = cv2.resize(prompt.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return PoseRequest(
        job=job,
        width=width,
        height=height,
        fps=clip.fps,
        lengths=np.array([len(file) for file in files], np.int32),
        frames=b"".join(files),
        skeleton=skeleton,
        box=None if prompt.box is None else np.float32(prompt.box),
        points=np.float32(prompt.points).reshape(-1, 2),
        background=np.float32(prompt.background).reshape(-1, 2),
        mask=mask,
        text=prompt.text,
    )


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask, uint8 [H, W]."""
    left, top, width, height = cv2.boundingRect(mask)
    size = np.array(mask.shape[::-1] * 2, float)
    return tuple((np.array([left, top, left + width, top + height]) / size).tolist())


def placed(pose: PoseSequence, source: Box, target: Box) -> PoseSequence:
    """The same poses on the same canvas, moved and scaled so that the box `source` comes to lie on
    `target`."""
    canvas = np.array([pose.width, pose.height])
    low, high = (np.array(source[at : at + 2]) * canvas for at in (0, 2))
    to_low, to_high = (np.array(target[at : at + 2]) * canvas for at in (0, 2))
    scale = (to_high - to_low) / np.maximum(high - low, 1e-6)
    points = pose.points.copy()
    points[:, :2] = (points[:, :2] - low) * scale + to_low
    return dataclasses.replace(pose, points=points.astype(np.float32))


def make_request(
    clip: Clip,
    found: FoundPoses,
    prompt: str,
    picture: np.ndarray | None = None,
    place: Box | None = None,
) -> GenerationRequest:
    """A request that drives a picture by the poses that were found in a clip.

    Args:
        picture: uint8 [h, w, 3], the first frame, of any size; by default the clip's own.
        place: where the picture's subject is; the poses are laid over it, and its mask is looked for there.
            By default where the clip's subject is in its first frame.

    Raises:
        XPoseError: no subject is found in the picture's place.
    """
    height, width = clip.frames.shape[1:3]
    pose, mask, maps = found.pose, found.mask, None
    if picture is None:
        first = clip.frames[0]
        maps = np.stack([limb_map(pose, frame, each > 0) for frame, each in enumerate(found.masks)])
    else:
        first = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        source = box_of(mask)
        place = place or source
        pose = placed(pose, source, place)
        try:
            mask = find_mask([first], SubjectPrompt(box=place)).astype(np.uint8)
        except Dropped as dropped:
            raise XPoseError(f"In the first frame: {dropped}") from dropped
    counts = segment_counts(pose)
    return GenerationRequest(
        job=JOB,
        engine="draft",
        width=width,
        height=height,
        num_frames=len(clip.frames),
        fps=clip.fps,
        first_frame=encode_png(first),
        first_frame_in_pose=picture is None,
        pose=pose,
        prompt=prompt,
        pose_frames=None if counts.all() else tuple(int(frame) for frame in np.nonzero(counts)[0]),
        subject_mask=mask,
        first_labels=limb_map(pose, 0, mask > 0),
        part_maps=maps,
    )
