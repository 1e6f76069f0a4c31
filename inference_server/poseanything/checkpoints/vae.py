"""The video VAE: Wan 2.2's `Wan2.2_VAE.pth`, and diffusers' folders of `AutoencoderKLWan` or our own one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan

from shared.sentences import say

from ..models.linear_vae import AutoencoderLinear
from ..models.tiny_decoder import TinyDecoder
from .errors import CheckpointError
from .keymap import KeyMap
from .lazy_tensors import LazyTensors, Renamed
from .loading import Opened, fill
from .readers import open_tensors

_RESIDUAL = [
    ("norm1", "residual.0"),
    ("conv1", "residual.2"),
    ("norm2", "residual.3"),
    ("conv2", "residual.6"),
    ("conv_shortcut", "shortcut"),
]
RESIDUALS_PER_LEVEL = {"encoder": 2, "decoder": 3}  # before the resampling, in every Wan VAE


def _half(side: str, ours: str, theirs: str, resampler: str) -> list[tuple[str, str]]:
    """The rules of one half of the VAE, `side`, whose levels are called `ours` here and `theirs` by Wan."""
    residuals = [
        (f"{side}.{ours}.{{}}.resnets.{{}}", f"{side}.{theirs}.{{}}.{theirs}.{{}}"),
        (f"{side}.mid_block.resnets.0", f"{side}.middle.0"),
        (f"{side}.mid_block.resnets.1", f"{side}.middle.2"),
    ]
    return [
        *(
            (f"{ours}.{our_part}", f"{theirs}.{their_part}")
            for ours, theirs in residuals
            for our_part, their_part in _RESIDUAL
        ),
        (f"{side}.{ours}.{{}}.{resampler}", f"{side}.{theirs}.{{}}.{theirs}.{RESIDUALS_PER_LEVEL[side]}"),
        (f"{side}.mid_block.attentions.0", f"{side}.middle.1"),
        (f"{side}.conv_in", f"{side}.conv1"),
        (f"{side}.norm_out", f"{side}.head.0"),
        (f"{side}.conv_out", f"{side}.head.2"),
    ]


WAN_VAE_KEYS = KeyMap(
    _half("encoder", "down_blocks", "downsamples", "downsampler")
    + _half("decoder", "up_blocks", "upsamples", "upsampler")
    + [("quant_conv", "conv1"), ("post_quant_conv", "conv2")]
)

LATENT_CHANNELS = 48
# Mean and standard deviation of each latent channel over Wan's training videos (Wan2.2,
# wan/modules/vae2_2.py).
# fmt: off
LATENTS_MEAN = [
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
]
LATENTS_STD = [
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
]
# fmt: on


def load_vae(
    path: Path | str,
    *,
    torch_dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    check: Callable[[], None] | None = None,
) -> AutoencoderKLWan | AutoencoderLinear:
    """Load the VAE from Wan's `Wan2.2_VAE.pth` (or the same as safetensors) or from a diffusers folder.

    `check` is called between the tensors, and what it raises ends the reading. Raises `CheckpointError`: one
    sentence on what is wrong with the file, or which other VAE it is.
    """
    return fill(open_vae(path), torch_dtype=torch_dtype, device=device, check=check)


def load_tiny_decoder(
    path: Path | str, *, torch_dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
) -> TinyDecoder:
    """Load the decoder of previews from TAEHV's `taew2_2.safetensors` or `.pth`. Raises `CheckpointError`."""
    tensors = open_tensors(Path(path))
    mine = {name: tensors[name] for name in tensors if name.startswith("decoder.")}
    decoder = TinyDecoder()
    try:
        decoder.load_state_dict(mine)
    except RuntimeError as error:
        raise CheckpointError(
            "{file} is not TAEHV's decoder of Wan 2.2's latents; get taew2_2.safetensors, or remove it.",
            file=tensors.where,
        ) from error
    return decoder.to(device, torch_dtype).eval().requires_grad_(False)


def open_vae(path: Path | str) -> Opened[AutoencoderKLWan | AutoencoderLinear]:
    """Open a VAE checkpoint and tell what model it is. Raises `CheckpointError`."""
    tensors, kind = open_tensors(Path(path)), AutoencoderKLWan
    if "decoder.mid_block.weight" in tensors:
        kind, config = AutoencoderLinear, _config_beside(tensors)
    elif "decoder.conv_in.weight" in tensors:
        config = _config_beside(tensors)
        _require_wan22(config.get("z_dim"), tensors.where)
    elif "decoder.conv1.weight" in tensors:
        config = config_from_wan(tensors.shapes, tensors.where)
        tensors = Renamed(tensors, WAN_VAE_KEYS.all_to_ours(tensors, tensors.where))
    else:
        raise CheckpointError(
            "{file} is no Wan VAE; choose Wan2.2_VAE.pth or diffusers' folder vae.", file=tensors.where
        )
    with init_empty_weights():
        vae = kind.from_config(config)
    return Opened(vae, tensors)


def _config_beside(tensors: LazyTensors) -> dict[str, object]:
    """The config.json of a diffusers folder. Raises `CheckpointError`."""
    config_file = tensors.paths[0].parent / "config.json"
    try:
        return json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "{file} needs the config.json of its folder, which can't be read ({error}); get it again.",
            file=tensors.where,
            error=error,
        ) from error


def config_from_wan(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, object]:
    """The configuration of the VAE that tensors of these names (Wan's) and shapes belong to.

    Raises `CheckpointError` when it isn't Wan 2.2's.
    """
    latent_channels = shapes["decoder.conv1.weight"][1]
    _require_wan22(latent_channels, where)
    try:
        base_dim, patched_channels = shapes["encoder.conv1.weight"][:2]
        levels = {int(name.split(".")[2]) for name in shapes if name.startswith("encoder.downsamples.")}
        widths = [
            shapes[f"encoder.downsamples.{level}.downsamples.0.residual.6.weight"][0]
            for level in sorted(levels)
        ]
        decoder_base_dim = shapes["decoder.head.0.gamma"][0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            "{where} is no Wan 2.2 VAE: its tensor {error} is missing;"
            " get Wan2.2_VAE.pth with python build.py weights.",
            where=where,
            error=error,
        ) from error
    halved_in_time = [
        f"encoder.downsamples.{level}.downsamples.2.time_conv.weight" in shapes
        for level in sorted(levels)[:-1]
    ]
    patch_size = math.isqrt(patched_channels // 3)
    return {
        "_class_name": "AutoencoderKLWan",
        "base_dim": base_dim,
        "decoder_base_dim": decoder_base_dim,
        "z_dim": latent_channels,
        "dim_mult": [width // base_dim for width in widths],
        "num_res_blocks": RESIDUALS_PER_LEVEL["encoder"],
        "attn_scales": [],
        "temperal_downsample": halved_in_time,
        "dropout": 0.0,
        "latents_mean": LATENTS_MEAN,
        "latents_std": LATENTS_STD,
        "is_residual": True,
        "in_channels": patched_channels,
        "out_channels": patched_channels,
        "patch_size": patch_size,
        "scale_factor_temporal": 2 ** sum(halved_in_time),
        "scale_factor_spatial": patch_size * 2 ** len(halved_in_time),
    }


def _require_wan22(latent_channels: object, where: str) -> None:
    if latent_channels != LATENT_CHANNELS:
        kind = say("Wan 2.1's VAE") if latent_channels == 16 else say("another VAE")
        raise CheckpointError(
            "{where} is {kind} ({channels} latent channels), and PoseAnything needs Wan 2.2's"
            " ({needed}); get Wan2.2_VAE.pth with python build.py weights.",
            where=where,
            kind=kind,
            channels=latent_channels,
            needed=LATENT_CHANNELS,
        )
