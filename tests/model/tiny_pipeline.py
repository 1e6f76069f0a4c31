"""A whole pipeline small enough for any machine, with random weights, and clips of its size."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.models.linear_vae import AutoencoderLinear
from inference_server.poseanything.sampling.pipeline import PoseAnythingPipeline
from inference_server.poseanything.sampling.schedulers import make_scheduler

from .tiny_transformer import tiny_transformer

LATENT_CHANNELS = 48
TEXT_DIM = 16
HEIGHT, WIDTH = 64, 96
VAE_CONFIG = {
    "base_dim": 4,
    "decoder_base_dim": 4,
    "z_dim": LATENT_CHANNELS,
    "dim_mult": [1, 2, 4, 4],
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1] * LATENT_CHANNELS,
    "latents_std": [0.7] * LATENT_CHANNELS,
}


class WordTokenizer:
    """Words by their length: what the pipeline needs of a tokenizer, without a vocabulary to download."""

    def __call__(self, prompts, max_length, **options):
        from transformers import BatchEncoding

        ids = torch.zeros(len(prompts), max_length, dtype=torch.long)
        for row, prompt in zip(ids, prompts):
            words = [min(len(word), 30) + 1 for word in prompt.split()] + [1]
            row[: len(words)] = torch.tensor(words)
        return BatchEncoding({"input_ids": ids, "attention_mask": (ids > 0).long()})


def psnr(images: np.ndarray, reference: np.ndarray) -> float:
    """Decibels; infinite where the pictures, uint8, are the same."""
    error = np.mean((images.astype(np.float64) - reference) ** 2)
    return 10 * np.log10(255**2 / error) if error else float("inf")


def tiny_vae(**config) -> AutoencoderKLWan:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = AutoencoderKLWan(**VAE_CONFIG | config).eval()
        torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.3)  # else every picture is nearly grey
    return vae


def linear_vae(**config) -> AutoencoderLinear:
    """As fine as Wan's, and many times as fast: for tests in which the VAE's own arithmetic plays no part."""
    vae = AutoencoderLinear(
        **{"z_dim": LATENT_CHANNELS, "patch_size": 16, "latents_std": [7.0] * LATENT_CHANNELS} | config
    )
    columns, rows = vae.encoder.mid_block.weight.shape[:2]
    basis = torch.linalg.qr(torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))).Q.T
    vae.set_basis(basis, torch.zeros(rows))
    return vae.eval()


def tiny_text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(vocab_size=64, d_model=TEXT_DIM, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return UMT5EncoderModel(config).eval()


def tiny_pipeline(scheduler: str = "euler", vae=None, **config) -> PoseAnythingPipeline:
    """With the linear VAE unless another is given. `config` goes to the transformer."""
    channels = {"in_channels": 2 * LATENT_CHANNELS, "out_channels": LATENT_CHANNELS}
    transformer = tiny_transformer(**channels | config)
    return PoseAnythingPipeline(
        tokenizer=WordTokenizer(),
        text_encoder=tiny_text_encoder(),
        vae=linear_vae() if vae is None else vae,
        transformer=transformer,
        scheduler=make_scheduler(scheduler),
    )


def tiny_clip(num_frames: int = 9, height: int = HEIGHT, width: int = WIDTH, **fields) -> Conditions:
    """A cross of two bars that turns, on a picture of two colours."""
    import cv2

    first = np.full((height, width, 3), (40, 90, 160), np.uint8)
    first[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = (200, 150, 60)
    poses = np.zeros((num_frames, height, width), np.uint8)
    for frame, image in enumerate(poses):
        for bar in range(2):
            angle = 0.1 * frame + np.pi / 2 * bar
            reach = np.array([np.cos(angle), np.sin(angle)]) * height * 0.45
            centre = np.array([width, height]) / 2
            ends = (centre - reach).astype(int).tolist(), (centre + reach).astype(int).tolist()
            cv2.line(image, *ends, 255, 2)
    subject = np.zeros((height, width), bool)
    subject[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return Conditions(first, poses, **{"subject_mask": subject, "prompt": "a wheel turns"} | fields)
