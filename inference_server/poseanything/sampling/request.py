"""What is to be sampled and how: conditions, guider, seed and options of one clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.engines import Guidance
from shared.schema import MessageError

from ..conditioning.conditions import Conditions, InputError
from .guiders import Guider, make_guider
from .options import Options, Settings


@dataclass(frozen=True, eq=False)
class SamplingRequest:
    """One clip to be sampled: its conditions, and how."""

    conditions: Conditions
    guider: Guider
    seed: int
    options: Options

    @property
    def settings(self) -> Settings:
        """Those of the options that the sampling loop reads."""
        return self.options

    @classmethod
    def of(
        cls,
        conditions: Conditions,
        guidance: Guidance,
        seed: int,
        num_inference_steps: int,
        engine_options: Mapping[str, object],
        config: Mapping[str, Any] = {},
    ) -> SamplingRequest:
        """`config` is the checkpoint's, as far as it says how it was trained. Raises `InputError`."""
        try:
            options = Options.parse(engine_options, num_inference_steps)
            posed_ratio = len(conditions.pose_frames) / conditions.num_frames
            guider = make_guider(guidance, config).for_poses(posed_ratio)
        except (MessageError, ValueError) as error:
            raise InputError(str(error)) from error
        return cls(conditions, guider, seed, options)
