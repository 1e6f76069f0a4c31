"""What is learned: the flow from the clean latents to noise or to a draft, at a timestep of its own for each
example."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..poseanything.conditioning.parts import PartPlan
from ..poseanything.models.attention_recorder import FirstFrameAttention
from ..poseanything.models.part_tokens import PartTokens
from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
from ..poseanything.sampling.part_matching import MATCHING_TIMESTEP, PartMatcher

NUM_TIMESTEPS = 1000


@dataclass(frozen=True, eq=False)
class Unmatched:
    """Parts of which nothing says where they are in later frames: for each example a plan, with as many parts
    each, and the pixel frames to each latent frame after the first."""

    plans: Sequence[PartPlan]
    frames_per_latent: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples as the network takes them.

    clean: float32 `[B, C, F, h, w]`, latents of the answer; frame 0 is the first frame's. pose: the same of
    the pose images. draft: the same of the drafts, or None. text: `[B, T, text_dim]`. parts: tokens of the
    parts, or None.
    weight: `[B, 1, F - 1, h, w]`, how much an error counts, or None. unmatched: parts that are to be matched
    by the model first (`with_matched_parts`), or None.
    """

    clean: torch.Tensor
    pose: torch.Tensor
    text: torch.Tensor
    draft: torch.Tensor | None = None
    parts: PartTokens | None = None
    weight: torch.Tensor | None = None
    unmatched: Unmatched | None = None


def sigmas(shift: float) -> torch.Tensor:
    """`[1000]`, the noise levels that one trains at, descending: s = 1 - i / 1000, sigma = shift s / (1 +
    (shift - 1) s)."""
    unshifted = 1 - torch.arange(NUM_TIMESTEPS, dtype=torch.float64) / NUM_TIMESTEPS
    return (shift * unshifted / (1 + (shift - 1) * unshifted)).float()


def release_weights(shift: float) -> torch.Tensor:
    """`[1000]`, the release's loss weights: a bell over the timesteps less its minimum, 1000 in sum."""
    timesteps = sigmas(shift).double() * NUM_TIMESTEPS
    bell = torch.exp(-2 * ((timesteps - NUM_TIMESTEPS / 2) / NUM_TIMESTEPS) ** 2)
    bell = bell - bell.min()
    return (bell * NUM_TIMESTEPS / bell.sum()).float()


class Objective:
    """The loss of a model, by what its configuration says it predicts and where its flow starts.

    Args:
        config: the transformer's.
        loss_weights: "release" or "uniform".
        start_share: share of the examples at the flow's start.
        held_share: share of the examples that go on from clean latent frames after the first, of which the
            configuration says how many there are at most.
    """

    def __init__(
        self, config, loss_weights: str = "uniform", start_share: float = 0.0, held_share: float = 0.0
    ):
        self.config, self.start_share, self.held_share = config, start_share, held_share
        self.sigmas = sigmas(config.flow_shift)
        self.weights = (
            release_weights(config.flow_shift) if loss_weights == "release" else torch.ones(NUM_TIMESTEPS)
        )

    def to(self, device: torch.device) -> Objective:
        """Moves the models that it has, if any."""
        for value in vars(self).values():
            if isinstance(value, torch.nn.Module):
                value.to(device)
        return self

    def loss(
        self, transformer: PoseAnythingTransformer3DModel, batch: Batch, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(the loss, the mean squared error of the clean latents without gradient).

        generator: on the batch's device; it decides timesteps and noise.
        """
        clean, device = batch.clean, batch.clean.device
        if self.sigmas.device != device:
            self.sigmas, self.weights = self.sigmas.to(device), self.weights.to(device)
        index = torch.randint(NUM_TIMESTEPS, (len(clean),), device=device, generator=generator)
        at_start = torch.rand(len(clean), device=device, generator=generator) < self.start_share
        index = index.masked_fill(at_start, 0)
        sigma = self.sigmas[index]
        start = start_latents(self.config, batch, generator)
        level = sigma.view(-1, 1, 1, 1, 1)
        noisy = torch.lerp(clean, start, level)
        held = self._held(clean, generator)
        noisy = torch.where(held[:, None, :, None, None], clean, noisy)
        predicted = predict(transformer, noisy, sigma, batch, held)
        target = clean if self.config.prediction_type == "sample" else start - clean
        made = ~held[:, None, 1:, None, None]
        # A mean over the frames that are made, whatever their share.
        made = made * (made.shape[2] / made.sum(2, keepdim=True))
        error = (predicted - target)[:, :, 1:].square() * made
        if self.config.prediction_type == "sample":
            clean_error = error.detach().mean()
        else:
            clean_error = (error.detach() * level.square()).mean()
        if batch.weight is not None:
            error = error * batch.weight
        per_example = error.flatten(1).mean(1)
        return (per_example * self.weights[index]).mean(), clean_error

    def _held(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """bool `[B, F]`, the frames that are given clean: the first, and where windows are to be joined some
        after it, at most half of the others."""
        frames = torch.arange(clean.shape[2], device=clean.device)
        count = torch.zeros(len(clean), 1, device=clean.device)
        most = min(self.config.held_latents, (clean.shape[2] - 1) // 2)
        if self.held_share and most:
            drawn = torch.rand(2, len(clean), 1, device=clean.device, generator=generator)
            count = (drawn[0] < self.held_share) * (1 + (drawn[1] * most).floor())
        return frames <= count


def start_latents(config, batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """`[B, C, F, h, w]`, where the flow starts: noise, or the draft with as much noise as the configuration
    says."""
    if config.init == "draft" and not config.init_noise:
        return batch.draft
    noise = torch.randn(batch.clean.shape, device=batch.clean.device, generator=generator)
    return noise if config.init == "noise" else batch.draft + config.init_noise * noise


def predict(
    transformer,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    batch: Batch,
    held: torch.Tensor | None = None,
    recorder: FirstFrameAttention | None = None,
) -> torch.Tensor:
    """float32 `[B, C, F, h, w]`, what the network was trained to predict, from latents at the level `sigma`
    `[B]`; the frames that are `held`, bool `[B, F]`, are clean, and without it the first alone."""
    config = getattr(transformer, "module", transformer).config
    timestep = (sigma * NUM_TIMESTEPS)[:, None].repeat(1, noisy.shape[2])
    timestep[:, 0] = 0
    if held is not None:
        timestep = timestep.masked_fill(held, 0)
    predicted = transformer(
        noisy,
        timestep,
        batch.text,
        batch.pose,
        parts=batch.parts,
        attention_recorder=recorder,
        return_dict=False,
    )[0].float()
    if config.prediction_base == "first_frame":
        predicted = predicted + batch.clean[:, :, :1]
    elif config.prediction_base == "draft":
        predicted = predicted + batch.draft
    return predicted


@torch.no_grad()
def with_matched_parts(
    transformer: PoseAnythingTransformer3DModel, batch: Batch, generator: torch.Generator
) -> Batch:
    """The batch with its unmatched parts matched as the pipeline matches them (Eq. 8), in one pass without
    parts, where attention tells parts apart. Without any the pass is made all the same: processes that divide
    a model must make the same ones."""
    config, clean, unmatched = transformer.config, batch.clean, batch.unmatched
    levels = sigmas(config.flow_shift).to(clean.device)
    levels = levels[levels * NUM_TIMESTEPS > MATCHING_TIMESTEP]
    sigma = levels[torch.randint(len(levels), (len(clean),), device=clean.device, generator=generator)]
    noisy = torch.lerp(clean, start_latents(config, batch, generator), sigma.view(-1, 1, 1, 1, 1))
    noisy[:, :, 0] = clean[:, :, 0]
    if unmatched is None:
        predict(transformer, noisy, sigma, batch)
        return batch
    matcher = PartMatcher(config, unmatched.frames_per_latent)
    recorder = matcher.recorder(unmatched.plans)
    predict(transformer, noisy, sigma, batch, recorder=recorder)
    assert recorder.weights is not None
    parts = matcher.match(unmatched.plans, recorder.weights).to(clean.device)
    return dataclasses.replace(batch, parts=parts, unmatched=None)


def clean_of(config, predicted: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The clean latents that a prediction from `noisy` at the level `sigma` `[B]` means."""
    return predicted if config.prediction_type == "sample" else noisy - sigma.view(-1, 1, 1, 1, 1) * predicted


def step_levels(steps: int, shift: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """`[steps + 1]`, the noise levels of so many steps, from 1 to 0."""
    levels = torch.linspace(1, 0, steps + 1, device=device)
    return shift * levels / (1 + (shift - 1) * levels)


@torch.no_grad()
def sample(
    transformer: PoseAnythingTransformer3DModel,
    batch: Batch,
    steps: int,
    generator: torch.Generator,
    negative: Batch | None = None,
    scale: float = 1.0,
    renoise: bool = False,
) -> torch.Tensor:
    """Latents `[B, C, F, h, w]` of a batch in `steps` steps; of `batch.clean` frame 0 alone is used.

    negative, scale: guidance away from another batch of the same clips, as `ClassifierFreePoseGuidance`.
    renoise: go to each level from the clean latents with fresh noise, as distilled models do, not along the
        flow (Euler).
    """
    config, first = transformer.config, batch.clean[:, :, :1]
    levels = step_levels(steps, config.flow_shift, first.device)
    latents = start_latents(config, batch, generator)
    for level, following in zip(levels[:-1], levels[1:]):
        latents = torch.cat([first, latents[:, :, 1:]], dim=2)
        sigma = level.expand(len(first))
        predicted = predict(transformer, latents, sigma, batch)
        if negative is not None:
            away = predict(transformer, latents, sigma, negative)
            predicted = away + scale * (predicted - away)
        clean = clean_of(config, predicted, latents, sigma)
        if renoise:
            latents = torch.lerp(clean, start_latents(config, batch, generator), following)
        else:
            latents = latents + (following - level) * (latents - clean) / level
    return torch.cat([first, latents[:, :, 1:]], dim=2)
