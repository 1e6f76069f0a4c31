"""A plain Wan 2.2 model made ready to learn poses: twice the channels, part-aware attention added (paper,
section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from ..poseanything.models.transformer import PoseAnythingTransformer3DModel

SHARED = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
    "rope_max_seq_len",
)


def extended_config(wan: Mapping[str, Any], **config: Any) -> dict[str, Any]:
    """The configuration of what `extend_wan` makes of a Wan of this one."""
    return {name: wan[name] for name in SHARED} | {"in_channels": 2 * wan["in_channels"]} | config


def extend_wan(wan: WanTransformer3DModel, **config) -> PoseAnythingTransformer3DModel:
    """The same model with poses beside the video's channels: it gives the same flow until it is trained.

    What the patch embedding does with the pose's channels, and the last projection of part-aware attention,
    begin at 0.

    Args:
        wan: from Wan 2.2's checkpoint; `in_channels` are the latents'.
        config: more entries of the configuration, such as `part_attention_empty`.
    """
    model = PoseAnythingTransformer3DModel(**extended_config(wan.config, **config))
    weights = dict(wan.state_dict())
    plain = weights["patch_embedding.weight"]
    weights["patch_embedding.weight"] = torch.cat([plain, torch.zeros_like(plain)], dim=1)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    strange = unexpected + [
        name for name in missing if ".part_attn." not in name and ".norm_part." not in name
    ]
    if strange:
        raise ValueError(f"This is no Wan 2.2 transformer: {strange[0]} has no place in it.")
    start_part_attention(model)
    return model


def start_part_attention(model: PoseAnythingTransformer3DModel) -> None:
    """Let part-aware attention begin by adding nothing."""
    if model.config.part_attention:
        for block in model.blocks:
            torch.nn.init.zeros_(block.part_attn.to_out[0].weight)
            torch.nn.init.zeros_(block.part_attn.to_out[0].bias)
