from __future__ import annotations

from diffusers.configuration_utils import register_to_config

from .linear import LinearGuidance


class SubjectCameraSeparateGuidance(LinearGuidance):
    """Subject and camera motion, each with its own strength (section D, Eq. 13 to 15).

    e = e(empty) + s_s (e(subject) - e(empty)) - s_c (e(camera) - e(empty)): three evaluations, with the same
    prompt. Where s_c = s_s - 1 the empty pose cancels out and this is `SubjectCameraGuidance`.

    Args:
        guidance_scale: s_s, strength of the subject's motion.
        camera_guidance_scale: s_c, strength of the camera's, whose condition moves against it.
        start, stop: fractions of the denoising steps between which guidance is on.
    """

    _input_predictions = ["pred_cond", "pred_uncond", "pred_camera"]
    pose_conditions = ("subject", "empty", "camera")
    text_conditions = ("prompt", "prompt", "prompt")

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 2.0,
        camera_guidance_scale: float = 1.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        self.guidance_scale = guidance_scale
        self.camera_guidance_scale = camera_guidance_scale

    def weights(self):
        subject, camera = self.guidance_scale, self.camera_guidance_scale
        return subject, 1 - subject + camera, -camera
