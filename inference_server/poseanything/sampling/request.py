"""What is to be sampled and how: conditions, guider, seed and options of one clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.engines import Guidance
from shared.schema import MessageError

from ..conditioning.conditions import Conditions, InputError
from .guiders import Guider, make_guider
from .options import Options, Settings


@dataclass(frozen=True, eq=False)
class SamplingRequest:
    """One clip to be sampled: its conditions, and how."""

    clip: Conditions
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
        clip: Conditions,
        guidance: Guidance,
        seed: int,
        num_inference_steps: int,
        engine_options: Mapping[str, object],
    ) -> SamplingRequest:
        """Raises `InputError`."""
        try:
            options = Options.parse(engine_options, num_inference_steps)
            guider = make_guider(guidance).for_poses(len(clip.pose_frames) / clip.num_frames)
        except (MessageError, ValueError) as error:
            raise InputError(str(error)) from error
        return cls(clip, guider, seed, options)
