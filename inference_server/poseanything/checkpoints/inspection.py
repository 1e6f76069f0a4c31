"""Looking through weights without reading them: each component is opened and held against the model it is to
fill."""

from __future__ import annotations

from .folder import WeightSet
from .text_encoder import load_tokenizer, open_text_encoder
from .transformer import open_transformer
from .vae import open_vae


def inspect_weights(weights: WeightSet) -> list[str]:
    """One line on each component, and on each of several transformers.

    Raises `CheckpointError` for the first that can't be used.
    """
    lines = []
    for transformer in map(open_transformer, weights.transformers):
        parts = "with" if transformer.model.config.part_attention else "without"
        billions = sum(parameter.numel() for parameter in transformer.model.parameters()) / 1e9
        lines.append(
            f"transformer: {transformer.tensors.where}, {billions:.2f} billion parameters,"
            f" {parts} part-aware attention"
        )
    vae = open_vae(weights.vae)
    text_encoder = open_text_encoder(weights.text_encoder)
    load_tokenizer(weights.tokenizer)
    return [
        *lines,
        f"VAE: {vae.tensors.where}",
        f"text encoder: {text_encoder.tensors.where}",
        f"tokenizer: {weights.tokenizer}",
    ]
