from __future__ import annotations

from dataclasses import dataclass

from .base import Guider


@dataclass(frozen=True)
class NoGuidance(Guider):
    """The prediction for the poses and the prompt as it is: one evaluation a step, the release's default."""

    name = "none"
    label = "None"
    help = "One evaluation a step, the release's default"
    predictions = ("pred_cond",)
    pose_conditions = ("subject",)
    text_conditions = ("prompt",)

    def weights(self):
        return (1.0,)
