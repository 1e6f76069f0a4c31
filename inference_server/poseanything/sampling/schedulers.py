"""The noise schedules: the release's, s_i = 1 - i/N, sigma = 5 s / (1 + 4 s), down to 0, with any shift, or
given timesteps; and the solvers that go along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from .options import Settings

SHIFT = 5.0
SCHEDULERS = ("euler", "unipc", "lcm")


def make_scheduler(name: str = "euler", shift: float = SHIFT) -> SchedulerMixin:
    """A solver of the flow.

    Args:
        name: "euler", the release's; "unipc", which gets by with fewer steps; "lcm", which goes to the clean
            latents in each step and adds fresh noise for the next, as checkpoints that were distilled by
            consistency or distribution matching (LCM, DMD) want.
        shift: how far the schedule leans towards noise; the release's is 5, distilled checkpoints have their
            own.

    Raises:
        ValueError: another name, or a shift that isn't above 0.
    """
    if not shift > 0:
        raise ValueError(f"The schedule's shift is {shift:g}; it must be above 0.")
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    if name == "unipc":
        return UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
    if name == "lcm":
        return FlowMatchLCMScheduler(shift=shift)
    raise ValueError(f"There is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}.")


def scheduler_for(config: Mapping, name: str = "auto", shift: float = 0.0) -> SchedulerMixin:
    """The scheduler that a request asks of a checkpoint; "auto" and shift 0 are as it was trained.

    Args:
        config: the transformer's.
    """
    if name == "auto":
        name = "euler" if config["distilled_timesteps"] is None or config["init"] == "draft" else "lcm"
    return make_scheduler(name, shift or config["flow_shift"])


def schedule(settings: Settings, config: Mapping) -> int | Sequence[float]:
    """The number of steps, or their timesteps, that settings ask of a checkpoint with this configuration."""
    if settings.timesteps is not None:
        return settings.timesteps
    distilled = config["distilled_timesteps"]
    if distilled is not None and settings.num_inference_steps in (None, len(distilled)):
        return distilled
    return settings.num_inference_steps or config["num_inference_steps"]


def set_timesteps(
    scheduler: SchedulerMixin, steps: int | Sequence[float], device: torch.device | str
) -> None:
    """Give a scheduler its sigmas: left to themselves, Euler would shift twice and UniPC start from others.

    The model's timesteps are 1000 sigma; UniPC's own `timesteps` are rounded down to whole numbers.

    Args:
        steps: their number; or the timesteps themselves, descending from at most 1000, already shifted.
    """
    if isinstance(steps, int):
        unshifted = torch.linspace(1, 0, steps + 1)[:-1]
    else:
        sigmas = torch.tensor([float(step) for step in steps]) / scheduler.config.num_train_timesteps
        shift = scheduler.config.get("flow_shift") or scheduler.config.shift
        unshifted = sigmas / (shift - (shift - 1) * sigmas)
    scheduler.set_timesteps(sigmas=unshifted.numpy(), device=device)
