"""Teaching a model of many steps to do with few, by matching distributions.

The student begins as a copy of its teacher and learns at the levels of its few steps alone. It is sampled by
going back to the next level with fresh noise (`objective.sample`, `renoise`), which is what the schedulers of
distilled checkpoints do (`distilled_timesteps` in the configuration).
"""

from __future__ import annotations

import copy

import torch

from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
from .objective import NUM_TIMESTEPS, Batch, Objective, clean_of, predict, start_latents, step_levels

CRITIC_UPDATES = 3
"""Of the model of the student's own distribution, for one of the student."""
CRITIC_RATE = 1e-4
LEVELS = (0.02, 0.98)
"""Noise levels at which the two distributions are compared."""


def distilled_timesteps(steps: int, shift: float) -> list[float]:
    """The timesteps of `steps` steps, descending from 1000, for the student's configuration."""
    return [round(float(level) * NUM_TIMESTEPS, 3) for level in step_levels(steps, shift)[:-1]]


class DistributionMatching(Objective):
    """Distribution matching distillation (DMD2; Yin et al., 2024), without its adversarial loss: the
    student's clips are moved to where the teacher finds them more likely than a critic does, a model of the
    student's own distribution that is trained beside it.

    Args:
        config: the student's, with its `distilled_timesteps`.
        teacher: the model of many steps; it is not trained.
    """

    def __init__(self, config, teacher: PoseAnythingTransformer3DModel):
        super().__init__(config)
        self.teacher = teacher.requires_grad_(False).eval()
        self.critic = copy.deepcopy(teacher).requires_grad_(True).train()
        self.optimizer = torch.optim.AdamW(self.critic.parameters(), lr=CRITIC_RATE, betas=(0.0, 0.99))

    def loss(self, transformer, batch: Batch, generator: torch.Generator):
        clean, device = batch.clean, batch.clean.device
        timesteps = self.config.distilled_timesteps
        levels = torch.tensor([*timesteps, 0.0], device=device) / NUM_TIMESTEPS
        reached = int(torch.randint(len(timesteps), (1,), generator=generator, device=device))
        noisy = _mixed(clean, self._noise(batch, generator), levels[0].expand(len(clean)))
        made = None
        for step in range(reached + 1):
            level = levels[step].expand(len(clean))
            with torch.set_grad_enabled(step == reached):
                made = clean_of(self.config, predict(transformer, noisy, level, batch), noisy, level)
            if step < reached:
                following = levels[step + 1].expand(len(clean))
                noisy = _mixed(made, self._noise(batch, generator), following, clean)
        for _ in range(CRITIC_UPDATES):
            self._train_critic(made.detach(), batch, generator)
        with torch.no_grad():
            level, noisy = self._disturbed(made.detach(), batch, generator)
            real = clean_of(self.config, predict(self.teacher, noisy, level, batch), noisy, level)
            own = clean_of(self.config, predict(self.critic, noisy, level, batch), noisy, level)
            size = (made - real)[:, :, 1:].abs().flatten(1).mean(1).clamp(min=1e-3).view(-1, 1, 1, 1, 1)
            wanted = made - (own - real) / size
        loss = 0.5 * (made - wanted)[:, :, 1:].square().mean()
        return loss, (made.detach() - clean)[:, :, 1:].square().mean()

    def _train_critic(self, made: torch.Tensor, batch: Batch, generator: torch.Generator) -> None:
        with torch.enable_grad():
            level, noisy = self._disturbed(made, batch, generator)
            found = clean_of(self.config, predict(self.critic, noisy, level, batch), noisy, level)
            error = (found - made)[:, :, 1:].square().mean()
            error.backward()
        torch.nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        torch.clear_autocast_cache()  # of the weights as they were

    def _disturbed(self, made: torch.Tensor, batch: Batch, generator: torch.Generator):
        share = torch.rand(len(made), device=made.device, generator=generator)
        share = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * share
        shift = self.config.flow_shift
        level = shift * share / (1 + (shift - 1) * share)
        return level, _mixed(made, self._noise(batch, generator), level, batch.clean)

    def _noise(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return start_latents(self.config, batch, generator)

    def state_dict(self) -> dict:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])


def _mixed(
    made: torch.Tensor, noise: torch.Tensor, level: torch.Tensor, clean: torch.Tensor | None = None
) -> torch.Tensor:
    """Latents at a level `[B]`, frame 0 as it is."""
    noisy = torch.lerp(made, noise, level.view(-1, 1, 1, 1, 1))
    return torch.cat([(made if clean is None else clean)[:, :, :1], noisy[:, :, 1:]], 2)
