"""How evaluations of the model under different conditions combine into one prediction (paper sections 4.3, D
and G).

A guider is a module here with a subclass of `Guider`. `LinearGuidance` of `..linear_guidance` runs one as a
guider of diffusers.
"""

from shared.strength import suggest_guidance_scale

from .base import Guider
from .classifier_free import ClassifierFreePoseGuidance
from .conditions import repeat_first_pose
from .none import NoGuidance
from .registry import describe_guiders, find_guider, guiders, make_guider
from .subject_camera import SubjectCameraGuidance
from .subject_camera_separate import SubjectCameraSeparateGuidance

__all__ = [
    "ClassifierFreePoseGuidance",
    "Guider",
    "NoGuidance",
    "SubjectCameraGuidance",
    "SubjectCameraSeparateGuidance",
    "describe_guiders",
    "find_guider",
    "guiders",
    "make_guider",
    "repeat_first_pose",
    "suggest_guidance_scale",
]
