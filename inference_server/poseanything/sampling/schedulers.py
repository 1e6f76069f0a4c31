"""The release's noise schedule: s_i = 1 - i/N, sigma = 5 s / (1 + 4 s), down to 0, for either of two
solvers."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin, UniPCMultistepScheduler

from .options import SCHEDULERS

SHIFT = 5.0


def make_scheduler(name: str = "euler") -> SchedulerMixin:
    """Flow Euler ("euler", the release's) or UniPC ("unipc", which gets by with fewer steps), both with shift
    5.

    Raises `ValueError` for another name.
    """
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    if name == "unipc":
        return UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
        )
    raise ValueError(f"There is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}.")


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device | str) -> None:
    """Give a scheduler the release's sigmas: left to themselves, Euler would shift twice and UniPC start from
    others.

    The model's timesteps are 1000 sigma; UniPC's own `timesteps` are rounded down to whole numbers.
    """
    unshifted = torch.linspace(1, 0, num_inference_steps + 1)[:-1]
    scheduler.set_timesteps(sigmas=unshifted.numpy(), device=device)
