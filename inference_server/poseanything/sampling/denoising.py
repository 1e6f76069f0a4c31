"""The denoising of one window: a step is one evaluation of the model for each condition that the guider asks
for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext

import torch
from diffusers import SchedulerMixin

from ..models.transformer import FirstFrameAttention, PoseAnythingTransformer3DModel
from .caching import MagCalibration, align_mag_cache, cache_config, cached
from .guiders import Guider
from .linear_guidance import LinearGuidance
from .options import Settings
from .part_tracking import PartTracker
from .schedulers import set_timesteps

RELEASE_MATCHING_STEP = 5
"""The step by whose attention the release matches parts, before it starts anew from the first."""
SUBJECT_CONDITIONS = ("subject", "first_pose")


class Denoiser:
    """What the steps of a window have in common.

    Args:
        transformer, scheduler, guider: the model and what it is sampled by.
        first: float32 `[B, C, 1, h, w]`, latents of the first frame.
        text: by the guider's text conditions, `[1, 512, text_dim]`.
        poses: by its pose conditions, `[1, C, F, h, w]`.
        tracker: the window's parts.
        mag_ratios: of this model, for `cache="mag"`; without them they are measured on this window.
    """

    def __init__(
        self,
        transformer: PoseAnythingTransformer3DModel,
        scheduler: SchedulerMixin,
        guider: Guider,
        first: torch.Tensor,
        text: dict[str, torch.Tensor],
        poses: dict[str, torch.Tensor],
        tracker: PartTracker,
        settings: Settings,
        mag_ratios: list[float] | None = None,
    ):
        self.transformer, self.scheduler = transformer, scheduler
        self.guider = LinearGuidance.of(guider)
        self.first, self.tracker, self.settings = first, tracker, settings
        self.mag_ratios = mag_ratios
        self._conditions = {
            "encoder_hidden_states": tuple(self._repeated(text[name]) for name in guider.text_conditions),
            "pose_hidden_states": tuple(self._repeated(poses[name]) for name in guider.pose_conditions),
        }

    def _repeated(self, condition: torch.Tensor) -> torch.Tensor:
        return condition.to(self.transformer.dtype).expand(len(self.first), *condition.shape[1:])

    def steps(self, noise: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Denoise float32 noise `[B, C, F, h, w]`.

        Yields after each step the latents, and the clean ones that the model expects at the end.
        """
        settings, num_steps = self.settings, self.settings.num_inference_steps
        if settings.matching == "release" and settings.part_attention_steps and self.tracker.has_to_match:
            self._match_ahead(noise)
        calibration = MagCalibration() if settings.cache == "mag" and self.mag_ratios is None else None

        set_timesteps(self.scheduler, num_steps, noise.device)
        latents = self._with_first(noise)
        with ExitStack() as until_last_step:
            for index in range(num_steps):
                with_parts = index < settings.part_attention_steps
                if index == settings.part_attention_steps:
                    config = cache_config(
                        settings.cache, num_steps, index, self.mag_ratios, settings.cache_threshold
                    )
                    until_last_step.enter_context(cached(self.transformer, config))
                matches_next = index + 1 < settings.part_attention_steps
                recorder = self.tracker.recorder(self._timestep(index)) if matches_next else None
                measuring = None if with_parts else calibration
                velocity = self._predict(latents, index, with_parts, recorder, measuring)
                self.tracker.observe(recorder)
                clean = latents - self.scheduler.sigmas[index].to(latents.device) * velocity
                latents = self._step(latents, index, velocity)
                yield latents, clean
        if calibration is not None and len(calibration.ratios) == num_steps - settings.part_attention_steps:
            self.mag_ratios = calibration.ratios

    def _match_ahead(self, noise: torch.Tensor) -> None:
        """Denoise without parts, as far as the release does, to match them."""
        num_steps = self.settings.num_inference_steps
        set_timesteps(self.scheduler, num_steps, noise.device)
        latents, last = self._with_first(noise), min(RELEASE_MATCHING_STEP, num_steps - 1)
        for index in range(last):
            latents = self._step(latents, index, self._predict(latents, index))
        if (recorder := self.tracker.recorder(self._timestep(index=last))) is not None:
            self._predict(latents, last, recorder=recorder)
            self.tracker.observe(recorder, final=True)

    def _predict(
        self,
        latents: torch.Tensor,
        index: int,
        with_parts: bool = False,
        recorder: FirstFrameAttention | None = None,
        calibration: MagCalibration | None = None,
    ) -> torch.Tensor:
        """The guided flow, float32. What is recorded is of the request's own condition, where the step has
        it."""
        guider, transformer = self.guider, self.transformer
        timestep = torch.full((len(latents), latents.shape[2]), self._timestep(index), device=latents.device)
        timestep[:, 0] = 0
        parts = self.tracker.parts_on(latents.device) if with_parts else None
        guider.set_state(index, self.settings.num_inference_steps, timestep[0, -1])
        parts = tuple(parts if name in SUBJECT_CONDITIONS else None for name in guider.pose_conditions)
        batches = guider.prepare_inputs(self._conditions | {"parts": parts})
        for batch in batches:
            name = getattr(batch, guider._identifier_key)
            own = name == guider._input_predictions[0]
            measuring = calibration.recording(transformer) if calibration and own else nullcontext()
            with transformer.cache_context(name), measuring:
                align_mag_cache(transformer, index - self.settings.part_attention_steps)
                batch.noise_pred = transformer(
                    latents.to(transformer.dtype),
                    timestep.to(transformer.dtype),  # rounded as in training: bfloat16 takes 995.93 for 996
                    batch.encoder_hidden_states,
                    batch.pose_hidden_states,
                    parts=batch.parts,
                    attention_recorder=recorder if own else None,
                    return_dict=False,
                )[0]
        return guider(batches)[0].float()

    def _timestep(self, index: int) -> float:
        return self.scheduler.sigmas[index].item() * self.scheduler.config.num_train_timesteps

    def _step(self, latents: torch.Tensor, index: int, velocity: torch.Tensor) -> torch.Tensor:
        timestep = self.scheduler.timesteps[index]
        return self._with_first(self.scheduler.step(velocity, timestep, latents).prev_sample)

    def _with_first(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.first, latents[:, :, 1:]], dim=2)
