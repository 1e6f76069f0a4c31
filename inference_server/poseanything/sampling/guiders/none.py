from __future__ import annotations

from diffusers.configuration_utils import register_to_config

from .linear import LinearGuidance


class NoGuidance(LinearGuidance):
    """The prediction for the poses and the prompt as it is: one evaluation a step, the release's default."""

    _input_predictions = ["pred_cond"]
    pose_conditions = ("subject",)
    text_conditions = ("prompt",)

    @register_to_config
    def __init__(self, start: float = 0.0, stop: float = 1.0, enabled: bool = True):
        super().__init__(start, stop, enabled)

    def weights(self):
        return (1.0,)
