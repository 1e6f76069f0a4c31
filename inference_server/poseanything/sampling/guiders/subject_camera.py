from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from shared.engines import option

from .base import Guider
from .subject_camera_separate import SubjectCameraSeparateGuidance


@dataclass(frozen=True)
class SubjectCameraGuidance(Guider):
    """Subject motion in the positive branch, the opposite of the camera's in the negative one (section 4.3,
    Eq. 10).

    e = e(camera) + s (e(subject) - e(camera)): two evaluations, with the same prompt. This is the equation's
    first line; what the paper expands it to does not follow from it. It is `SubjectCameraSeparateGuidance`
    with s_s = s and s_c = s - 1, and becomes that for a checkpoint whose rectangle moves with the background,
    or which declares a strength s_s of its own.

    Args:
        guidance_scale: s; at 1 the camera has no say and one evaluation is enough.
    """

    name = "subject_camera"
    label = "Subject and Camera"
    help = "Decouple the camera's motion from the subject's, with one strength for both"
    predictions = ("pred_cond", "pred_camera")
    pose_conditions = ("subject", "camera")
    text_conditions = ("prompt", "prompt")

    guidance_scale: float = option(
        2.0, "Strength", "Strength of the camera's motion. 1 is none", minimum=0.0, maximum=30.0
    )

    def weights(self):
        return self.guidance_scale, 1 - self.guidance_scale

    def for_checkpoint(self, config):
        same = SubjectCameraSeparateGuidance(
            self.guidance_scale, self.guidance_scale - 1, start=self.start, stop=self.stop
        )
        declared = config.get("subject_strength")
        subject = same if declared is None else dataclasses.replace(same, guidance_scale=declared)
        trained = subject.for_checkpoint(config)
        return self if trained == same else trained
