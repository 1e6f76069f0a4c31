"""Leaving out what hardly changes from step to step, by diffusers' caches, once the part-aware steps are
done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from .transformer import PoseAnythingTransformer3DModel

CACHES = ("none", "first_block", "mag", "taylorseer")

FIRST_BLOCK_THRESHOLD = 0.08
MAG_THRESHOLD = 0.12
MAG_MAX_SKIP_STEPS = 4
MAG_RETENTION = 0.2  # of all steps, the first, in which MagCache leaves nothing out
TAYLOR_INTERVAL = 4
TAYLOR_WARM_UP = 2


def cache_config(
    name: str,
    num_steps: int,
    first_step: int,
    mag_ratios: list[float] | None = None,
    threshold: float | None = None,
) -> FirstBlockCacheConfig | MagCacheConfig | TaylorSeerCacheConfig | None:
    """The configuration of a cache that is switched on at `first_step` of `num_steps`; None for "none".

    `threshold` is the change up to which "first_block" and "mag" leave a step out; higher is faster and less
    exact.

    MagCache needs the ratios of this model, one for each step that it is on (any other number is resampled).
    `MagCalibration` measures them on a run without it; until then there is no configuration.
    """
    remaining = num_steps - first_step
    if name == "none" or remaining < 2:
        return None
    if name == "first_block":
        return FirstBlockCacheConfig(threshold=threshold or FIRST_BLOCK_THRESHOLD)
    if name == "taylorseer":
        return TaylorSeerCacheConfig(
            cache_interval=TAYLOR_INTERVAL, disable_cache_before_step=TAYLOR_WARM_UP, use_lite_mode=True
        )
    if mag_ratios is None:
        return None
    return MagCacheConfig(
        threshold=threshold or MAG_THRESHOLD,
        max_skip_steps=MAG_MAX_SKIP_STEPS,
        retention_ratio=max(0.0, MAG_RETENTION * num_steps - first_step) / remaining,
        num_inference_steps=remaining,
        mag_ratios=mag_ratios,
    )


@contextmanager
def cached(transformer: PoseAnythingTransformer3DModel, config: object | None) -> Iterator[None]:
    """The transformer with a cache, empty at first, for the steps within the context."""
    if config is None:
        yield
        return
    transformer.enable_cache(config)
    try:
        yield
    finally:
        transformer._reset_stateful_cache()
        transformer.disable_cache()


class MagCalibration:
    """Measures MagCache's ratios over the steps of a run that leaves nothing out.

    ratios: for each recorded forward, how much larger the blocks' joint residual got since the one before:
        the mean ratio of its tokens' norms, 1 at first.
    """

    def __init__(self):
        self.ratios: list[float] = []
        self._norm: torch.Tensor | None = None

    @contextmanager
    def recording(self, transformer: PoseAnythingTransformer3DModel) -> Iterator[None]:
        """Records the forward within the context."""
        entered = []

        def enter(module, inputs):
            entered.append(inputs[0])

        def leave(module, inputs, output):
            norm = (output - entered.pop()).float().norm(dim=-1)
            self.ratios.append(1.0 if self._norm is None else (norm / (self._norm + 1e-8)).mean().item())
            self._norm = norm

        first, last = transformer.blocks[0], transformer.blocks[-1]
        handles = [first.register_forward_pre_hook(enter), last.register_forward_hook(leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
