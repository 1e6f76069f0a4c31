"""Prompts as the model takes them: padded to 512 tokens, zeros past the prompt's end, all of them
attended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from ..compat.diffusers import prompt_clean

MAX_TOKENS = 512


def encode_prompts(
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    device: torch.device | str,
) -> torch.Tensor:
    """`[len(prompts), 512, text_dim]` in the encoder's precision. A prompt is cut off at 512 tokens."""
    tokens = tokenizer(
        [prompt_clean(prompt) for prompt in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(device)
    embeddings = text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return embeddings * tokens.attention_mask.unsqueeze(-1).to(embeddings.dtype)
