from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shared.engines import option
from shared.strength import suggest_guidance_scale

from .base import Guider


@dataclass(frozen=True)
class ClassifierFreePoseGuidance(Guider):
    """Away from a prediction with the negative prompt, the first pose repeated, or both (section G, Eq. 17).

    e = e(negative) + s (e(positive) - e(negative)): two evaluations. As in the release, scale s = 1 is no
    guidance and takes one; Eq. 17 counts the same strength as s - 1.

    Args:
        guidance_scale: s.
        text_negative: whether the negative branch has the negative prompt.
        pose_negative: whether the negative branch has the first pose repeated.
        scale_by_density: take the scale that section G advises for how many frames have a pose.

    Raises:
        ValueError: neither text nor pose is negated, or the interval is empty.
    """

    name = "classifier_free"
    label = "Classifier-Free"
    help = "Push away from a branch with the negative prompt, the first pose repeated, or both"
    predictions = ("pred_cond", "pred_uncond")

    guidance_scale: float = option(
        5.0, "Strength", "How far to push. 1 is no guidance", minimum=0.0, maximum=30.0
    )
    text_negative: bool = option(True, "Negate Text", "The negative branch has the negative prompt")
    pose_negative: bool = option(True, "Negate Pose", "The negative branch has the first pose in every frame")
    scale_by_density: bool = option(
        False,
        "Strength by Poses",
        "Choose the strength by how many frames have a pose, as the paper advises: 1.2 for every frame, "
        "3 for one in ten",
    )

    def __post_init__(self):
        super().__post_init__()
        if not (self.text_negative or self.pose_negative):
            raise ValueError("Classifier-free guidance has no opposite; negate the text or the pose.")

    @property
    def pose_conditions(self):
        return "subject", "first_pose" if self.pose_negative else "subject"

    @property
    def text_conditions(self):
        return "prompt", "negative_prompt" if self.text_negative else "prompt"

    def weights(self):
        return self.guidance_scale, 1 - self.guidance_scale

    def for_poses(self, posed_ratio):
        if not self.scale_by_density:
            return self
        if not posed_ratio:
            raise ValueError(
                "No frame has a pose to go by; set the strength of the guidance, or pose a frame."
            )
        scale = suggest_guidance_scale(posed_ratio)
        return dataclasses.replace(self, guidance_scale=scale, scale_by_density=False)
