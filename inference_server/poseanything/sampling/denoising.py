"""The denoising of one window: a step is one evaluation of the model for each condition that the guider asks
for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import torch
from diffusers import FlowMatchLCMScheduler, SchedulerMixin

from ..models.transformer import FirstFrameAttention, PoseAnythingTransformer3DModel
from .caching import MagCalibration, align_mag_cache, cache_config, cached
from .guiders import Guider
from .linear_guidance import LinearGuidance
from .options import Settings
from .part_matching import MATCHING_TIMESTEP
from .part_tracking import TWO_PASS, PartTracker
from .schedulers import schedule, set_timesteps

SUBJECT_CONDITIONS = ("subject", "first_pose")


@dataclass(frozen=True, eq=False)
class Start:
    """What a window's denoising begins with.

    latents: float32 `[B, C, F, h, w]`, noise or a draft's latents.
    known: the same shape, the latents that are there already, where `weights` isn't 0.
    weights: float32 `[F]`, how much of them stays: 1 of frame 0 and of held ones, between 1 and 0 where
        windows blend.
    base: what a prediction of the sample is counted from, `[1, C, F, h, w]`; None for nothing.
    clean: how many of its first frames the model is given clean at timestep 0: the first, and held ones where
        the checkpoint was trained to go on from as many.
    """

    latents: torch.Tensor
    known: torch.Tensor
    weights: torch.Tensor
    base: torch.Tensor | None = None
    clean: int = 1

    def keep(self, latents: torch.Tensor, sigma: float) -> torch.Tensor:
        """Latents at noise level `sigma` with what is known put back, as noisy as the others but for the
        `clean` frames: where a model is given more of these than it was trained with, errors grow from window
        to window."""
        weights = self.weights.view(-1, 1, 1)
        noisy = torch.lerp(self.known, self.latents, sigma)
        noisy[:, :, : self.clean] = self.known[:, :, : self.clean]
        return torch.where(weights == 0, latents, torch.lerp(latents, noisy, weights))


class Denoiser:
    """What the steps of a window have in common.

    Args:
        transformer, scheduler, guider: the model and what it is sampled by.
        start: what there is of the window.
        text: by the guider's text conditions, `[1, text length, text_dim]`.
        poses: by its pose conditions, `[1, C, F, h, w]`.
        tracker: the window's parts.
        generators: of each sample, for schedulers that add noise.
        mag_ratios: of this model, for `cache="mag"`; without them they are measured on this window.
    """

    def __init__(
        self,
        transformer: PoseAnythingTransformer3DModel,
        scheduler: SchedulerMixin,
        guider: Guider,
        start: Start,
        text: dict[str, torch.Tensor],
        poses: dict[str, torch.Tensor],
        tracker: PartTracker,
        settings: Settings,
        generators: Sequence[torch.Generator] | None = None,
        mag_ratios: list[float] | None = None,
    ):
        self.transformer, self.scheduler = transformer, scheduler
        self._dtype = transformer.dtype  # which looks through all parameters each time
        self.guider = LinearGuidance.of(guider)
        self.start, self.tracker, self.settings = start, tracker, settings
        self.mag_ratios = mag_ratios
        draws_noise = isinstance(scheduler, FlowMatchLCMScheduler)
        self._noise = {"generator": list(generators)} if generators and draws_noise else {}
        self._conditions = {
            "encoder_hidden_states": tuple(self._repeated(text[name]) for name in guider.text_conditions),
            "pose_hidden_states": tuple(self._repeated(poses[name]) for name in guider.pose_conditions),
        }
        self._schedule = schedule(settings, transformer.config)
        set_timesteps(scheduler, self._schedule, start.latents.device)
        self.num_steps = len(scheduler.timesteps)
        threshold = settings.part_attention_threshold
        threshold = transformer.config.part_attention_threshold if threshold < 0 else threshold
        self.part_aware_steps = sum(self.timestep(index) > threshold for index in range(self.num_steps))

    def _repeated(self, condition: torch.Tensor) -> torch.Tensor:
        batch_size = len(self.start.latents)
        return condition.to(self._dtype).expand(batch_size, *condition.shape[1:])

    def steps(self) -> Generator[tuple[torch.Tensor, torch.Tensor], torch.Tensor | None, None]:
        """Denoise.

        Yields after each step the latents `[B, C, F, h, w]`, and the clean ones that the model expects at the
        end. A caller may send other latents to go on with.
        """
        settings, num_steps = self.settings, self.num_steps
        # Where a single step has parts, matching on the way would come too late for it.
        ahead = self.part_aware_steps == 1 or (self.part_aware_steps and settings.matching in TWO_PASS)
        if ahead and self.tracker.has_to_match:
            self._match_ahead()
        calibration = MagCalibration() if settings.cache == "mag" and self.mag_ratios is None else None

        latents = self._begin()
        with ExitStack() as until_last_step:
            for index in range(num_steps):
                with_parts = index < self.part_aware_steps
                if index == self.part_aware_steps:
                    config = cache_config(
                        settings.cache, num_steps, index, self.mag_ratios, settings.cache_threshold or None
                    )
                    until_last_step.enter_context(cached(self.transformer, config))
                matches_next = index + 1 < self.part_aware_steps
                recorder = self.tracker.recorder(self.timestep(index)) if matches_next else None
                measuring = None if with_parts else calibration
                velocity = self._predict(latents, index, with_parts, recorder, measuring)
                self.tracker.observe(recorder)
                clean = latents - self.scheduler.sigmas[index].to(latents.device) * velocity
                latents = self._step(latents, index, velocity)
                sent = yield latents, clean
                latents = latents if sent is None else sent
        if calibration is not None and len(calibration.ratios) == num_steps - self.part_aware_steps:
            self.mag_ratios = calibration.ratios

    def _begin(self) -> torch.Tensor:
        return self.start.keep(self.start.latents, 1.0)

    def _match_ahead(self) -> None:
        """Denoise without parts to the last step whose attention still tells parts apart, to match them by
        it."""
        tracker, latents = self.tracker, self._begin()
        last = max(
            index for index in range(self.num_steps) if index == 0 or self.timestep(index) > MATCHING_TIMESTEP
        )
        for index in range(last):
            latents = self._step(latents, index, self._predict(latents, index))
        if (recorder := tracker.recorder(self.timestep(last))) is not None:
            self._predict(latents, last, recorder=recorder)
            tracker.observe(recorder, final=True)
        set_timesteps(self.scheduler, self._schedule, latents.device)

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
        timestep = torch.full((len(latents), latents.shape[2]), self.timestep(index), device=latents.device)
        timestep[:, : self.start.clean] = 0
        known = self.tracker.parts_on(latents.device) if with_parts else None
        guider.set_state(index, self.num_steps, timestep[0, -1])
        parts = tuple(known if name in SUBJECT_CONDITIONS else None for name in guider.pose_conditions)
        batches = guider.prepare_inputs(self._conditions | {"parts": parts})
        for batch in batches:
            name = getattr(batch, guider._identifier_key)
            own = name == guider._input_predictions[0]
            measuring = calibration.recording(transformer) if calibration and own else nullcontext()
            with transformer.cache_context(name), measuring:
                align_mag_cache(transformer, index - self.part_aware_steps)
                batch.noise_pred = transformer(
                    latents.to(self._dtype),
                    timestep.to(self._dtype),  # rounded as in training: bfloat16 takes 995.93 for 996
                    batch.encoder_hidden_states,
                    batch.pose_hidden_states,
                    parts=batch.parts,
                    attention_recorder=recorder if own else None,
                    return_dict=False,
                )[0]
        prediction = guider(batches)[0].float()
        if transformer.config.prediction_type == "flow_prediction":
            return prediction
        sample = prediction if self.start.base is None else prediction + self.start.base
        return (latents - sample) / self.scheduler.sigmas[index].to(latents.device)

    def timestep(self, index: int) -> float:
        """The model's, of a step."""
        return self.scheduler.sigmas[index].item() * self.scheduler.config.num_train_timesteps

    def _step(self, latents: torch.Tensor, index: int, velocity: torch.Tensor) -> torch.Tensor:
        timestep = self.scheduler.timesteps[index]
        stepped = self.scheduler.step(velocity, timestep, latents, **self._noise).prev_sample
        return self.start.keep(stepped, self.scheduler.sigmas[index + 1].item())
