from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shared.engines import option

from .base import Guider


@dataclass(frozen=True)
class SubjectCameraSeparateGuidance(Guider):
    """Subject and camera motion, each with its own strength (section D, Eq. 13 to 15).

    e = e(empty) + s_s (e(subject) - e(empty)) - s_c (e(camera) - e(empty)): three evaluations, with the same
    prompt. Where s_c = s_s - 1 the empty pose cancels out and this is `SubjectCameraGuidance`.

    Args:
        guidance_scale: s_s, strength of the subject's motion.
        camera_guidance_scale: s_c, strength of the camera's, whose condition moves against the background;
            below 0 for one that moves with it (`for_checkpoint`).
    """

    name = "subject_camera_separate"
    label = "Subject and Camera, Separate"
    help = "Decouple the camera's motion from the subject's, with a strength for each"
    predictions = ("pred_cond", "pred_uncond", "pred_camera")
    pose_conditions = ("subject", "empty", "camera")
    text_conditions = ("prompt", "prompt", "prompt")
    declared_defaults = {"guidance_scale": "subject_strength"}

    guidance_scale: float = option(
        2.0, "Subject Strength", "Strength of the subject's motion", minimum=0.0, maximum=30.0
    )
    camera_guidance_scale: float = option(
        1.0, "Camera Strength", "Strength of the camera's motion", minimum=0.0, maximum=30.0
    )

    def weights(self):
        subject, camera = self.guidance_scale, self.camera_guidance_scale
        return subject, 1 - subject + camera, -camera

    def for_checkpoint(self, config):
        strength = self.camera_guidance_scale * config.get("camera_strength", 1.0)
        if config.get("camera_condition") == "with_background":
            strength = -strength
        return dataclasses.replace(self, camera_guidance_scale=strength)
