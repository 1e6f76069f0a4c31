"""Looking through weights without reading them: every component opened, and held against the model it is to fill."""

from __future__ import annotations

from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan

from ..transformer import PoseAnythingTransformer3DModel
from .folder import WeightSet
from .loading import require_fits
from .text_encoder import empty_text_encoder, load_tokenizer, read_text_encoder
from .transformer import read_transformer
from .vae import read_vae


def inspect_weights(weights: WeightSet) -> list[str]:
    """One line on each component. Raises `CheckpointError` for the first that can't be used."""
    transformer, _, config = read_transformer(weights.transformer)
    vae, vae_config = read_vae(weights.vae)
    text_encoder, _, text_config = read_text_encoder(weights.text_encoder)
    with init_empty_weights():
        model = PoseAnythingTransformer3DModel.from_config(config)
        require_fits(model, transformer)
        require_fits(AutoencoderKLWan.from_config(vae_config), vae)
        require_fits(empty_text_encoder(text_config), text_encoder)
    load_tokenizer(weights.tokenizer)
    parts = "with" if model.config.part_attention else "without"
    billions = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    return [
        f"transformer: {transformer.where}, {billions:.2f} billion parameters, {parts} part-aware attention",
        f"VAE: {vae.where}",
        f"text encoder: {text_encoder.where}",
        f"tokenizer: {weights.tokenizer}",
    ]
