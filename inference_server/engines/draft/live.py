"""The draft of one pose after the other, as it comes."""

from __future__ import annotations

import numpy as np

from shared.messages import GenerationRequest
from shared.pose import PoseSequence
from shared.sentences import one_after_another

from ..base import LiveSession
from .clip import Clip


class LiveDraft(LiveSession):
    """Background, layers and what they hide are made once, from the first frame and from how the subject
    moves in the request's other frames; then a pose takes as long as a clip's frame."""

    def __init__(self, request: GenerationRequest):
        self._clip = Clip(request)
        self._clip.cut()
        self.note = one_after_another(*self._clip.notes)

    def draw(self, pose: PoseSequence, camera_motion: np.ndarray | None) -> np.ndarray:
        return self._clip.pose(pose, camera_motion)
