"""Faster blocks: another attention kernel, and compilation."""

from __future__ import annotations

import functools

import torch

from ..compat.diffusers import attention_backends, replace_forward
from ..conditioning.conditions import InputError
from ..models.transformer import PoseAnythingTransformer3DModel


def compile_blocks(transformer: PoseAnythingTransformer3DModel, **options) -> None:
    """Compile the blocks' forward; blocks that are alike share what is compiled. `options` go to
    `torch.compile`.

    Unlike `compile_repeated_blocks` this leaves diffusers' hooks (caches, offloading) outside of what is
    compiled, those there are and those to come, so that it lasts when they are taken off and put on again, as
    for a LoRA. Steps with parts, whose lengths differ from clip to clip, or with a recorder are not compiled:
    they are few.
    """
    for block in transformer.blocks:
        replace_forward(
            block, lambda forward: _compiled_without_parts(forward, torch.compile(forward, **options))
        )


def _compiled_without_parts(eager, compiled):
    @functools.wraps(eager)
    def forward(hidden_states, encoder_hidden_states, temb, rotary_emb, parts=None, recorder=None):
        if parts is not None or recorder is not None:
            return eager(hidden_states, encoder_hidden_states, temb, rotary_emb, parts, recorder)
        return compiled(hidden_states, encoder_hidden_states, temb, rotary_emb)

    return forward


def set_attention_backend(transformer: PoseAnythingTransformer3DModel, name: str) -> None:
    """Choose one of diffusers' attention backends ("native", "flash", "_flash_3_hub", "sage", ...).

    diffusers sets it for the whole process as well, so that another model's choice changes this one's.

    Raises `InputError` where there is none of that name or it can't run here.
    """
    if attention_backends(transformer) == {name}:
        return
    try:
        transformer.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"The attention backend {name!r} can't be used here ({str(error).splitlines()[0]});"
            " choose native."
        ) from error
