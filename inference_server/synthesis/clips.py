"""A synthetic training example: a request of the bridge, and the frames that answer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.messages import GenerationRequest
from shared.pose import Limb, Polyline, PoseSequence

from ..datasets.examples import Example
from ..poseanything.conditioning.pictures import encode_png
from .creatures import MotionSettings, make_creature, move
from .painting import paint

POINTS_PER_LIMB = 5
PART_MAP_SCALE = 2
"""Pixels of the clip to one of its part maps, at this size about what the extension sends."""
NEAR = 10.0
"""Depth of a creature's root, in its own size."""


@dataclass(frozen=True)
class ClipSettings:
    """What the clips of a set have in common: pixels and frames (1 + 4 n).

    drawn_width, drawn_height: pixels at which a clip is drawn and drafted before it is cut around its subject
    and scaled to `width` x `height`; 0 where it is drawn at its own size.
    drafts: whether a pool of them holds the draft engine's frames as well.
    """

    width: int = 128
    height: int = 96
    num_frames: int = 17
    fps: float = 24.0
    drawn_width: int = 0
    drawn_height: int = 0
    drafts: bool = True

    @property
    def drawn(self) -> ClipSettings:
        """Of the clips before they are cut."""
        width, height = self.drawn_width or self.width, self.drawn_height or self.height
        return ClipSettings(width, height, self.num_frames, self.fps)


def make_clip(
    seed: int, settings: ClipSettings = ClipSettings(), motions: MotionSettings = MotionSettings()
) -> Example:
    """The clip of a seed: always the same, of a creature that no other seed has."""
    random = np.random.default_rng(seed)
    size = settings.width, settings.height
    bones = make_creature(random)
    motion = move(random, bones, size, settings.num_frames, motions)
    painting = paint(random, bones, motion, size)

    names = [f"bone {index}" for index in range(len(bones))]
    share = np.linspace(0, 1, POINTS_PER_LIMB)[:, None]
    depth = NEAR + np.array([bone.depth for bone in bones])
    points = motion.heads[:, :, None] + share * (motion.tails - motion.heads)[:, :, None]
    points = np.concatenate([points, np.broadcast_to(depth[:, None, None], (*points.shape[:3], 1))], 3)
    pose = PoseSequence.from_frames(
        *size,
        names,
        [Limb(name, part) for part, name in enumerate(names)],
        [[Polyline(limb, line) for limb, line in enumerate(frame)] for frame in points],
    )
    part_maps = painting.labels[
        :, PART_MAP_SCALE // 2 :: PART_MAP_SCALE, PART_MAP_SCALE // 2 :: PART_MAP_SCALE
    ]
    moving = not np.allclose(motion.camera, np.eye(3))
    request = GenerationRequest(
        job=f"synthetic-{seed}",
        engine="poseanything",
        width=settings.width,
        height=settings.height,
        num_frames=settings.num_frames,
        fps=settings.fps,
        first_frame=encode_png(painting.frames[0]),
        pose=pose,
        subject_mask=(painting.labels[0] > 0).astype(np.uint8),
        first_labels=painting.labels[0],
        part_maps=np.ascontiguousarray(part_maps),
        camera_motion=motion.camera.astype(np.float32) if moving else None,
    )
    return Example(request, painting.frames, subject=f"creature-{seed}", labels=painting.labels)
