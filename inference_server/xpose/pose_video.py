"""Poses from a video: the motion of a filmed subject as a request's pose, for its own first frame or another
picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shared.messages import GenerationRequest
from shared.pose import PoseSequence

from ..poseanything.conditioning.pictures import encode_png
from .finder import follow_subject
from .segments import PART_MAP_SCALE, limb_map, segment_counts
from .stages import Clip, Dropped, Skeletoniser, SubjectFinder, SubjectPrompt, XPoseError
from .subjects.flow import find_mask
from .video import probe, read_frames

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) as fractions of a picture's width and height."""


@dataclass(frozen=True, eq=False)
class VideoPose:
    """What was found in a video.

    frames: uint8 [F, H, W, 3]. masks: bool [F, H, W]. pose: on the frames' canvas, parts matched over time.
    """

    frames: np.ndarray
    masks: np.ndarray
    pose: PoseSequence
    fps: float

    @property
    def box(self) -> Box:
        """The subject's in the first frame."""
        left, top, width, height = cv2.boundingRect(self.masks[0].astype(np.uint8))
        size = np.array(self.masks.shape[:0:-1] * 2, float)
        return tuple((np.array([left, top, left + width, top + height]) / size).tolist())


def find_poses(
    path: Path,
    prompt: SubjectPrompt,
    subject: SubjectFinder,
    skeleton: Skeletoniser,
    begin: float = 0.0,
    most_frames: int = 81,
    frame_step: int = 4,
    fps: float | None = None,
    longer_side: int = 832,
    size_multiple: int = 32,
) -> VideoPose:
    """The poses of a video's subject, `begin` seconds into it, as many as there are up to `most_frames`.

    Args:
        prompt: where the subject is in the frame at `begin`.
        frame_step: a clip has 1 + `frame_step` n frames.
        fps: at which the video is read, as fast as it was filmed; its own by default.
        longer_side, size_multiple: of the frames, in pixels; each axis is scaled on its own to multiples.

    Raises:
        XPoseError: the video, the subject or its skeleton can't be had, with the reason.
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
        count = (len(frames) - 1) // frame_step * frame_step + 1
        if count < 1 + frame_step:
            least = 1 + frame_step
            raise Dropped(f"Only {len(frames)} frames are there after {begin:g} s; {least} are needed.")
        clip = Clip(path.name, np.stack(frames[:count]), facts.fps, prompt)
        masks, pose = follow_subject(clip, subject, skeleton)
    except Dropped as dropped:
        raise XPoseError(f"{path.name}: {dropped}") from dropped
    return VideoPose(clip.frames, masks, pose, facts.fps)


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
    found: VideoPose,
    prompt: str,
    picture: np.ndarray | None = None,
    place: Box | None = None,
    job: str = "pose-video",
) -> GenerationRequest:
    """A request that drives a picture by what was found in a video.

    Args:
        picture: uint8 [h, w, 3], the first frame, of any size; by default the video's own.
        place: where the picture's subject is; the poses are laid over it, and its mask is looked for there.
            By default where the video's subject is in its first frame.

    Raises:
        XPoseError: no subject is found in the picture's place.
    """
    height, width = found.frames.shape[1:3]
    pose, maps = found.pose, None
    if picture is None:
        first, mask = found.frames[0], found.masks[0]
        centre = slice(PART_MAP_SCALE // 2, None, PART_MAP_SCALE)
        small = found.masks[:, centre, centre]
        maps = np.stack([limb_map(pose, frame, each) for frame, each in enumerate(small)])
    else:
        first = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        place = place or found.box
        pose = placed(pose, found.box, place)
        try:
            mask = find_mask(first, SubjectPrompt(box=place))
        except Dropped as dropped:
            raise XPoseError(f"In the first frame: {dropped}") from dropped
    counts = segment_counts(pose)
    return GenerationRequest(
        job="pose-video",
        engine="draft",
        width=width,
        height=height,
        num_frames=len(found.frames),
        fps=found.fps,
        first_frame=encode_png(first),
        pose=pose,
        prompt=prompt,
        pose_frames=None if counts.all() else tuple(int(frame) for frame in np.nonzero(counts)[0]),
        subject_mask=mask.astype(np.uint8),
        first_labels=limb_map(pose, 0, mask),
        part_maps=maps,
    )
