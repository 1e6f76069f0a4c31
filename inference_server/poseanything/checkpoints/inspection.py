"""Looking through weights without reading them: each component is opened and held against the model it is to
fill."""

from __future__ import annotations

from dataclasses import replace

from .folder import WeightSet
from .text_encoder import load_tokenizer, open_text_encoder
from .transformer import open_transformer
from .vae import open_vae


def inspect_weights(weights: WeightSet) -> list[str]:
    """One line on each component, and on each of several transformers.

    Raises `CheckpointError` for the first that can't be used.
    """
    lines = []
    every = [replace(weights, transformers=(path,)) for path in weights.transformers]
    for transformer in map(open_transformer, weights.transformers):
        parts = "with" if transformer.model.config.part_attention else "without"
        billions = sum(parameter.numel() for parameter in transformer.model.parameters()) / 1e9
        lines.append(
            f"transformer: {transformer.tensors.where}, {billions:.2f} billion parameters,"
            f" {parts} part-aware attention"
        )
    lines += [f"VAE: {open_vae(path).tensors.where}" for path in dict.fromkeys(one.vae for one in every)]
    for encoder, tokenizer in dict.fromkeys((one.text_encoder, one.tokenizer) for one in every):
        if encoder is not None and tokenizer is not None:
            lines.append(f"text encoder: {open_text_encoder(encoder).tensors.where}")
            load_tokenizer(tokenizer)
            lines.append(f"tokenizer: {tokenizer}")
    return lines
