"""Leaving out what hardly changes from step to step, by diffusers' caches, once the part-aware steps are
done."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from ..compat.diffusers import mag_cache_state, reset_cache
from ..models.transformer import PoseAnythingTransformer3DModel

log = logging.getLogger(__name__)

# The thresholds are those in use with other video models. What they leave out depends on the weights: look at
# the frames before raising them.
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
        reset_cache(transformer)
        transformer.disable_cache()


def align_mag_cache(transformer: PoseAnythingTransformer3DModel, step: int) -> None:
    """Tell MagCache, where it is on, at which of its steps the condition of this cache context is.

    By itself it counts each condition's evaluations, and takes the first steps' ratios for guidance that
    begins late.
    """
    if (state := mag_cache_state(transformer.blocks[0])) is not None:
        state.step_index = step


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


class MagRatiosFile:
    """A transformer's ratios in `mag_ratios.json` beside its weights, so that they are measured only once.

    Args:
        weights: the transformer's file or folder. Ratios belong to its name, size and time; others are
            measured anew.
    """

    def __init__(self, weights: Path):
        files = [file for file in [weights, *weights.rglob("*")] if file.is_file()]
        stats = [file.stat() for file in files]
        size, time = sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
        self._key = f"{weights.name}, {size} bytes, {time} ns"
        self._file = weights.with_name("mag_ratios.json")

    def read(self) -> list[float] | None:
        ratios = self._all().get(self._key)
        usable = isinstance(ratios, list) and ratios and all(type(ratio) is float for ratio in ratios)
        return ratios if usable else None

    def write(self, ratios: list[float]) -> None:
        """Where the folder can't be written to, they are measured anew next time."""
        growing = self._file.with_suffix(".part")
        try:
            growing.write_text(json.dumps(self._all() | {self._key: ratios}, indent=1), encoding="utf-8")
            os.replace(growing, self._file)
        except OSError as error:
            log.warning("MagCache's ratios can't be kept in %s: %s", self._file, error)

    def _all(self) -> dict:
        try:
            ratios = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return ratios if isinstance(ratios, dict) else {}
