"""What all of PoseAnything's guiders share: a weighted sum of predictions over an interval of the steps."""

from __future__ import annotations

import torch
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput

from ...compat.diffusers import BlockState

NEGLIGIBLE = 1e-6


class LinearGuidance(BaseGuidance):
    """Adds up predictions by their `weights()` inside the interval; outside, takes the first alone.

    A condition is evaluated only where its weight is not 0 (to rounding). Subclasses name their predictions
    in `_input_predictions` and, in the same order, the condition of each: `pose_conditions`, of

    - "subject": the request's poses,
    - "first_pose": the first of them in place of each (`conditions.repeat_first_pose`),
    - "camera": the rectangle that moves against the camera,
    - "empty": black frames,

    and `text_conditions`, of "prompt" and "negative_prompt". The values of tuples given to `prepare_inputs`
    follow that order.
    """

    pose_conditions: tuple[str, ...]
    text_conditions: tuple[str, ...]

    def weights(self) -> tuple[float, ...]:
        """The weight of each prediction, in their order, inside the interval."""
        raise NotImplementedError

    def active_weights(self) -> dict[str, float]:
        """The weight of each prediction that the current step needs."""
        if not (self._enabled and self.is_in_interval()):
            return {self._input_predictions[0]: 1.0}
        named = zip(self._input_predictions, self.weights())
        return {name: weight for name, weight in named if abs(weight) > NEGLIGIBLE}

    def is_in_interval(self) -> bool:
        """Whether the current step lies in [start, stop) of all steps, counted as diffusers does; True before
        `set_state`."""
        steps = self._num_inference_steps
        return steps is None or int(self._start * steps) <= self._step < int(self._stop * steps)

    def prepare_inputs(self, data: dict[str, object | tuple]) -> list[BlockState]:
        """One batch for each evaluation of the step: of a tuple the prediction's own value, anything else as
        it is.

        A batch carries its prediction's name as `__guidance_identifier__`.
        """
        active = self.active_weights()
        return [
            BlockState(
                **{field: value[i] if isinstance(value, tuple) else value for field, value in data.items()},
                **{self._identifier_key: name},
            )
            for i, name in enumerate(self._input_predictions)
            if name in active
        ]

    def prepare_inputs_from_block_state(
        self, data: BlockState, input_fields: dict[str, str | tuple[str, ...]]
    ) -> list[BlockState]:
        """As `prepare_inputs`, with the names of `data`'s attributes in place of the values."""

        def look_up(names):
            return tuple(map(look_up, names)) if isinstance(names, tuple) else getattr(data, names)

        return self.prepare_inputs({field: look_up(names) for field, names in input_fields.items()})

    def forward(self, **predictions: torch.Tensor) -> GuiderOutput:
        """The weighted sum, added up in float32, in the predictions' own type."""
        dtype = next(iter(predictions.values())).dtype
        guided = sum(weight * predictions[name].float() for name, weight in self.active_weights().items())
        return GuiderOutput(
            pred=guided.to(dtype),
            pred_cond=predictions.get("pred_cond"),
            pred_uncond=predictions.get("pred_uncond"),
        )

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        """Evaluations of the model in the current step."""
        return len(self.active_weights())
