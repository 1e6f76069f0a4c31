from __future__ import annotations

from diffusers.configuration_utils import register_to_config

from .linear import LinearGuidance


class SubjectCameraGuidance(LinearGuidance):
    """Subject motion in the positive branch, the opposite of the camera's in the negative one (section 4.3,
    Eq. 10).

    e = e(camera) + s (e(subject) - e(camera)): two evaluations, with the same prompt. This is the equation's
    first line; what the paper expands it to does not follow from it.

    Args:
        guidance_scale: s; at 1 the camera has no say and one evaluation is enough.
        start, stop: fractions of the denoising steps between which guidance is on.
    """

    _input_predictions = ["pred_cond", "pred_camera"]
    pose_conditions = ("subject", "camera")
    text_conditions = ("prompt", "prompt")

    @register_to_config
    def __init__(
        self, guidance_scale: float = 2.0, start: float = 0.0, stop: float = 1.0, enabled: bool = True
    ):
        super().__init__(start, stop, enabled)
        self.guidance_scale = guidance_scale

    def weights(self):
        return self.guidance_scale, 1 - self.guidance_scale
