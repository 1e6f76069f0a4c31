"""Leaving a model in the middle of a forward."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

AHEAD = 2
"""Modules that may be queued on the device while the CPU goes on; more would make cancelling slow, fewer the
device wait."""


@contextmanager
def interruptible(modules: Iterable[nn.Module], check: Callable[[], None] | None) -> Iterator[None]:
    """Within the context `check` is called before each forward of one of `modules`; what it raises ends the
    forward."""
    if check is None:
        yield
        return
    queued: deque[torch.cuda.Event] = deque()

    def before_forward(module: nn.Module, inputs: tuple) -> None:
        check()
        if any(isinstance(value, torch.Tensor) and value.is_cuda for value in inputs):
            queued.append(torch.cuda.Event())
            queued[-1].record()
            if len(queued) > AHEAD:
                queued.popleft().synchronize()

    handles = [module.register_forward_pre_hook(before_forward) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
