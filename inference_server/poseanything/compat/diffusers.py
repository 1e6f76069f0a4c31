"""Names of diffusers below its public interface. Checked with 0.42."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from diffusers import CacheMixin, ContextParallelConfig, ModelMixin
from diffusers.hooks import HookRegistry
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.context_parallel import PartitionAnythingSharder
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput, ParallelConfig
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanCausalConv3d,
    WanResidualBlock,
    WanRMS_norm,
    WanUpsample,
    patchify,
    unpatchify,
)
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformerBlock,
)
from diffusers.modular_pipelines.modular_pipeline import BlockState
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    # The parts of Wan's transformer that ours is built of. Watch their forwards' arguments and the names of
    # their parameters, which are those of the checkpoints (tests/model/test_models_transformer.py).
    "WanAttention",
    "WanRotaryPosEmbed",
    "WanTimeTextImageEmbedding",
    "WanTransformerBlock",
    "apply_rotary_emb",
    # How attention is computed, and by which backend. Watch the backends' names, and which of them take a
    # bias (tests/model/test_models_part_aware_attention.py).
    "AttentionBackendName",
    "active_attention_backend",
    "attention_backends",
    "check_attention_backend",
    "dispatch_attention_fn",
    # What caches and context parallelism have to know of our blocks (tests/model/test_sampling_pipeline.py,
    # test_models_transformer.py).
    "ContextParallelInput",
    "ContextParallelOutput",
    "PartitionAnythingSharder",
    "TransformerBlockMetadata",
    "TransformerBlockRegistry",
    "mag_cache_state",
    "enable_context_parallel",
    "parallel_mesh",
    "parallel_group",
    "replace_forward",
    "reset_cache",
    # The VAE frame by frame. Watch the order in which its convolutions take their entry of the cache
    # (tests/model/test_sampling_pipeline.py), that each norm of a residual block is followed by its
    # nonlinearity, and how its convolutions pad (tests/model/test_runtime_acceleration.py).
    "WanCausalConv3d",
    "WanRMS_norm",
    "WanResidualBlock",
    "WanUpsample",
    "patchify",
    "unpatchify",
    # A guider's batch of inputs (tests/model/test_sampling_guiders.py).
    "BlockState",
    # How Wan's pipelines clean a prompt, which the text encoder was trained with.
    "prompt_clean",
]


def active_attention_backend() -> AttentionBackendName:
    """The backend of attention layers that have none of their own; one for the whole process."""
    return _AttentionBackendRegistry.get_active_backend()[0]


def check_attention_backend(name: str) -> None:
    """Raises `ValueError` for a backend that there isn't, `RuntimeError` or `ImportError` for one whose
    package is not installed."""
    _check_attention_backend_requirements(AttentionBackendName(name))


def attention_backends(model: nn.Module) -> set[str]:
    """The backends that a model's attention layers use by now, the process's own included."""
    processors = [module.processor for module in model.modules() if hasattr(module, "processor")]
    own = {getattr(processor, "_attention_backend", None) for processor in processors}
    return {(backend or active_attention_backend()).value for backend in own | {active_attention_backend()}}


def enable_context_parallel(model: ModelMixin, degree: int) -> None:
    """Let so many processes share the model's sequences.

    By itself diffusers counts the accelerators to find this process's, and divides by none where there are
    none. The pieces may be unequal where the backend can gather such; gloo can't.
    """
    anything = torch.accelerator.is_available()
    counted = nullcontext() if anything else mock.patch("torch.accelerator.device_count", lambda: 1)
    with counted:
        model.enable_parallelism(
            config=ContextParallelConfig(ulysses_degree=degree, ulysses_anything=anything)
        )


def parallel_mesh(config: ParallelConfig | None) -> DeviceMesh | None:
    """The devices that share a sequence, None without context parallelism."""
    if config is None or config.context_parallel_config is None:
        return None
    return config.context_parallel_config._flattened_mesh


def parallel_group(config: ParallelConfig | None) -> ProcessGroup | None:
    """The processes that share a sequence, None without context parallelism."""
    mesh = parallel_mesh(config)
    return None if mesh is None else mesh.get_group()


def mag_cache_state(block: nn.Module) -> Any:
    """What MagCache remembers in the current cache context, from the first block; None where it is off.

    Its `step_index` counts the context's evaluations.
    """
    registry = getattr(block, "_diffusers_hook", None)
    hook = registry and registry.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
    return hook and hook.state_manager.get_state()


def reset_cache(model: CacheMixin) -> None:
    """Let a model's cache forget every context; `disable_cache` alone leaves what it holds alive."""
    model._reset_stateful_cache()


def replace_forward(module: nn.Module, change: Callable[[Callable], Callable]) -> None:
    """Change the innermost forward of a module, below the hooks (caches) that it has or gets."""
    registry = HookRegistry.check_if_exists_or_initialize(module)
    inmost = next(iter(registry._fn_refs), module)
    name = "original_forward" if getattr(inmost, "original_forward", None) else "forward"
    setattr(inmost, name, change(getattr(inmost, name)))
