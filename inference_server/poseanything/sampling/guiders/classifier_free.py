from __future__ import annotations

from diffusers.configuration_utils import register_to_config

from .linear import LinearGuidance


class ClassifierFreePoseGuidance(LinearGuidance):
    """Away from a prediction with the negative prompt, the first pose repeated, or both (section G, Eq. 17).

    e = e(negative) + s (e(positive) - e(negative)): two evaluations. As in the release, scale s = 1 is no
    guidance and takes one; Eq. 17 counts the same strength as s - 1.

    Args:
        guidance_scale: s; `guidance_by_density` has one for how many frames have a pose.
        text_negative: whether the negative branch has the negative prompt.
        pose_negative: whether the negative branch has the first pose repeated.
        start, stop: fractions of the denoising steps between which guidance is on.

    Raises:
        ValueError: neither text nor pose is negated.
    """

    _input_predictions = ["pred_cond", "pred_uncond"]

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 5.0,
        text_negative: bool = True,
        pose_negative: bool = True,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        if not (text_negative or pose_negative):
            raise ValueError("Classifier-free guidance has no opposite; negate the text or the pose.")
        self.guidance_scale = guidance_scale
        self.pose_conditions = ("subject", "first_pose" if pose_negative else "subject")
        self.text_conditions = ("prompt", "negative_prompt" if text_negative else "prompt")

    def weights(self):
        return self.guidance_scale, 1 - self.guidance_scale
