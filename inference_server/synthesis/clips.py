"""A synthetic training example: a request of the bridge, and the frames that answer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.messages import GenerationRequest
from shared.pose import Limb, Polyline, PoseSequence

from ..datasets.examples import Example
from ..poseanything.conditioning.pictures import encode_png
from .creatures import Bone, Motion, MotionSettings, make_creature, move
from .painting import paint

POINTS_PER_LIMB = 5
PART_MAP_SCALE = 2
"""Pixels of the clip to one of its part maps, at this size about what the extension sends."""
NEAR = 10.0
"""Depth of a creature's root, in its own size."""
LOOKS = ("trained", "bones")
ASIDE, SHORT = 0.9, 0.15
"""Of a limb's radius, how far a bone's ends lie beside the middle at most; of its length, how far within."""


@dataclass(frozen=True)
class ClipSettings:
    """What the clips of a set have in common: pixels and frames (1 + 4 n).

    drawn_width, drawn_height: pixels at which a clip is drawn and drafted before it is cut around its subject
    and scaled to `width` x `height`; 0 where it is drawn at its own size.
    drafts: whether a pool of them holds the draft engine's frames as well.
    look: what the poses show: "trained", strokes through the middle of each limb, as the released weights
        know them; or "bones", strokes as a rig may have them, anywhere within the flesh.
    """

    width: int = 128
    height: int = 96
    num_frames: int = 17
    fps: float = 24.0
    drawn_width: int = 0
    drawn_height: int = 0
    drafts: bool = True
    look: str = "trained"

    @property
    def drawn(self) -> ClipSettings:
        """Of the clips before they are cut."""
        width, height = self.drawn_width or self.width, self.drawn_height or self.height
        return ClipSettings(width, height, self.num_frames, self.fps, look=self.look)


def make_clip(
    seed: int, settings: ClipSettings = ClipSettings(), motions: MotionSettings = MotionSettings()
) -> Example:
    """The clip of a seed: always the same, of a creature that no other seed has. In another look it differs
    by its poses alone."""
    random = np.random.default_rng(seed)
    size = settings.width, settings.height
    bones = make_creature(random)
    motion = move(random, bones, size, settings.num_frames, motions)
    painting = paint(random, bones, motion, size)

    names = [f"bone {index}" for index in range(len(bones))]
    heads, tails = motion.heads, motion.tails
    if settings.look == "bones":
        heads, tails = _as_rigged(np.random.default_rng([seed, LOOKS.index("bones")]), bones, motion)
    share = np.linspace(0, 1, POINTS_PER_LIMB)[:, None]
    depth = NEAR + np.array([bone.depth for bone in bones])
    points = heads[:, :, None] + share * (tails - heads)[:, :, None]
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


def _as_rigged(
    random: np.random.Generator, bones: list[Bone], motion: Motion
) -> tuple[np.ndarray, np.ndarray]:
    """Heads and tails [F, N, 2] of bones that lie within the flesh and not in its middle, each at the same
    place of its limb in all frames."""
    ends = np.array([(bone.radius, bone.end_radius) for bone in bones]) * random.uniform(
        -ASIDE, ASIDE, (len(bones), 2)
    )
    cut = random.uniform(0, SHORT, (len(bones), 2))
    along = motion.tails - motion.heads
    normal = np.stack([-np.sin(motion.angles), np.cos(motion.angles)], -1) * motion.scale[:, None, None]
    heads = motion.heads + cut[:, :1] * along + ends[:, :1] * normal
    return heads, motion.tails - cut[:, 1:] * along + ends[:, 1:] * normal
