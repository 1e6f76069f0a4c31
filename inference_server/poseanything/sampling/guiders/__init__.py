"""How evaluations of the model under different conditions combine into one prediction (paper sections 4.3, D
and G)."""

from .classifier_free import ClassifierFreePoseGuidance
from .conditions import repeat_first_pose
from .linear import LinearGuidance
from .none import NoGuidance
from .request import make_guider
from .strength import guidance_by_density, suggest_guidance_scale
from .subject_camera import SubjectCameraGuidance
from .subject_camera_separate import SubjectCameraSeparateGuidance

__all__ = [
    "ClassifierFreePoseGuidance",
    "LinearGuidance",
    "NoGuidance",
    "SubjectCameraGuidance",
    "SubjectCameraSeparateGuidance",
    "guidance_by_density",
    "make_guider",
    "repeat_first_pose",
    "suggest_guidance_scale",
]
