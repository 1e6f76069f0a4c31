"""A guider at work: PoseAnything's as diffusers' pipelines drive theirs."""

from __future__ import annotations

import dataclasses
import logging

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput

from ..compat.diffusers import BlockState
from .guiders import Guider, find_guider

NEGLIGIBLE = 1e-6

# That guiders are new in diffusers is nothing for the user.
logging.getLogger("diffusers.guiders.guider_utils").setLevel(logging.ERROR)


class LinearGuidance(BaseGuidance):
    """Adds up predictions by their weights inside the guider's interval; outside, takes the first alone.

    A condition is evaluated only where its weight is not 0 (to rounding). The values of tuples given to
    `prepare_inputs` follow the order of the guider's predictions. Its configuration can be saved and loaded
    as any other guider's of diffusers.

        guidance = LinearGuidance.of(ClassifierFreePoseGuidance(3.0))

    Args:
        guider: the name of a guider.
        parameters: its parameters, by name.
        start, stop: fractions of the denoising steps between which it is on.

    Raises:
        ValueError: there is no guider of this name.
    """

    @register_to_config
    def __init__(
        self,
        guider: str = "none",
        parameters: dict[str, object] | None = None,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        self.guider = find_guider(guider)(**parameters or {}, start=start, stop=stop)
        self._input_predictions = list(self.guider.predictions)
        super().__init__(start, stop, enabled)

    @classmethod
    def of(cls, guider: Guider) -> LinearGuidance:
        """The guider at work."""
        values = dataclasses.asdict(guider)
        start, stop = values.pop("start"), values.pop("stop")
        return cls(guider.name, values, start, stop)

    @property
    def pose_conditions(self) -> tuple[str, ...]:
        return self.guider.pose_conditions

    @property
    def text_conditions(self) -> tuple[str, ...]:
        return self.guider.text_conditions

    def active_weights(self) -> dict[str, float]:
        """The weight of each prediction that the current step needs."""
        if not (self._enabled and self.is_in_interval()):
            return {self._input_predictions[0]: 1.0}
        named = zip(self._input_predictions, self.guider.weights())
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
    def num_conditions(self) -> int:
        """Evaluations of the model in the current step."""
        return len(self.active_weights())
