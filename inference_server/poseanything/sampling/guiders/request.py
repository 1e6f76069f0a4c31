"""The guider that a request asks for."""

from __future__ import annotations

from shared.messages import Guidance

from .classifier_free import ClassifierFreePoseGuidance
from .linear import LinearGuidance
from .none import NoGuidance
from .subject_camera import SubjectCameraGuidance
from .subject_camera_separate import SubjectCameraSeparateGuidance


def make_guider(guidance: Guidance) -> LinearGuidance:
    """The guider for a request's `Guidance`.

    Raises:
        ValueError: the interval is empty, or classifier-free guidance negates nothing.
    """
    if guidance.guider == "none":
        return NoGuidance()
    if not guidance.start < guidance.stop:
        raise ValueError(
            f"Guidance starts at {guidance.start:g} and stops at {guidance.stop:g} of the steps; "
            "let it stop after it starts."
        )
    interval = {"start": guidance.start, "stop": guidance.stop}
    if guidance.guider == "classifier_free":
        return ClassifierFreePoseGuidance(
            guidance.guidance_scale, guidance.negative_text, guidance.negative_pose, **interval
        )
    if guidance.guider == "subject_camera":
        return SubjectCameraGuidance(guidance.guidance_scale, **interval)
    return SubjectCameraSeparateGuidance(guidance.guidance_scale, guidance.camera_guidance_scale, **interval)
