"""The transformer under the official release's names: Wan's own, and `cross_attn_instance` and `norm4` for
the PTCM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from shared.sentences import say

from ..models.transformer import TRAINED_WITH
from .errors import CheckpointError
from .keymap import KeyMap

_ATTENTION = [
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "o"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
]

OFFICIAL_KEYS = KeyMap(
    [
        (f"blocks.{{}}.{ours}.{our_part}", f"blocks.{{}}.{theirs}.{their_part}")
        for ours, theirs in [
            ("attn1", "self_attn"),
            ("attn2", "cross_attn"),
            ("part_attn", "cross_attn_instance"),
        ]
        for our_part, their_part in _ATTENTION
    ]
    + [
        ("blocks.{}.norm2", "blocks.{}.norm3"),
        ("blocks.{}.norm_part", "blocks.{}.norm4"),
        ("blocks.{}.ffn.net.0.proj", "blocks.{}.ffn.0"),
        ("blocks.{}.ffn.net.2", "blocks.{}.ffn.2"),
        ("blocks.{}.scale_shift_table", "blocks.{}.modulation"),
        ("patch_embedding", "patch_embedding"),
        ("pose_proj", "condition_proj"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("scale_shift_table", "head.modulation"),
        ("proj_out", "head.head"),
    ]
)

# Wrappings that training frameworks and other programs put around the same names.
OFFICIAL_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "pipe.dit.", "module.")

WAN_HEAD_DIM = 128  # of every Wan transformer; the shapes alone don't tell it

# What else a file of Wan's names may be, by its width and the channels that go in and come out.
OTHER_WANS = {
    (3072, 48, 48): say("the plain Wan2.2-TI2V-5B"),
    (5120, 16, 16): say("a Wan 14B text-to-video model"),
    (5120, 36, 16): say("a Wan 14B image-to-video model"),
    (1536, 16, 16): say("the Wan2.1 1.3B text-to-video model"),
    (1536, 36, 16): say("a Wan2.1 1.3B image-to-video model"),
}


def from_official_state_dict(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The release's tensors under our names. The tensors are passed on as they are, neither copied nor cast.

    Raises `CheckpointError` naming the keys that are not the release's.
    """
    return {
        ours: state_dict[theirs]
        for ours, theirs in OFFICIAL_KEYS.all_to_ours(state_dict, "The checkpoint").items()
    }


def to_official_state_dict(model: nn.Module | Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a `PoseAnythingTransformer3DModel` (or its state dict) under the release's names, as
    they are.

    Raises `CheckpointError` for a tensor the release has no name for (a quantised layer's scale, a LoRA's).
    """
    state_dict = model.state_dict() if isinstance(model, nn.Module) else model
    return {
        theirs: state_dict[ours]
        for theirs, ours in OFFICIAL_KEYS.all_to_theirs(state_dict, "The model").items()
    }


def config_from_official(
    shapes: Mapping[str, tuple[int, ...]], where: str, original_config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The configuration of the model that tensors of these official names and shapes belong to.

    `original_config` is the `config.json` in Wan's own words that may lie beside them; it alone can tell a
    number of heads other than one per 128 features, poses beside the video (`pose_injection`), what the
    PTCM does with empty tokens (`part_attention_empty`), and how the checkpoint was trained (`TRAINED_WITH`).
    `where` names the checkpoint in messages.

    Raises `CheckpointError` when they are another model's: plain Wan, a 14B one, or none of this family.
    """
    original_config = original_config or {}
    try:
        dim, in_channels, *patch_size = shapes["patch_embedding.weight"]
        out_channels = shapes["head.head.weight"][0] // (patch_size[0] * patch_size[1] * patch_size[2])
        text_dim = shapes["text_embedding.0.weight"][1]
        freq_dim = shapes["time_embedding.0.weight"][1]
        ffn_dim = shapes["blocks.0.ffn.0.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            "{where} is not a PoseAnything transformer: its tensor {error} is missing or has no such shape;"
            " choose the release's diffusion_pytorch_model files.",
            where=where,
            error=error,
        ) from error

    if "condition_proj.weight" in shapes:
        pose_injection = "mlp"
    elif in_channels == 2 * out_channels:
        pose_injection = "channel"
    elif in_channels == out_channels and original_config.get("pose_injection") == "width":
        pose_injection = "width"
    else:
        what = OTHER_WANS.get(
            (dim, in_channels, out_channels),
            say("another Wan transformer ({count} features wide)", count=dim),
        )
        raise CheckpointError(
            "{where} is {what}, not PoseAnything: it takes {channels} channels where PoseAnything takes"
            " {needed}, the video's and the pose's;"
            " get Ryan241005/PoseAnything with python build.py weights.",
            where=where,
            what=what,
            channels=in_channels,
            needed=2 * out_channels,
        )

    heads = original_config.get("num_heads") or dim // WAN_HEAD_DIM
    if not heads or dim % heads:
        raise CheckpointError(
            "{where} is {dim} features wide, which isn't a number of heads of {head_dim};"
            ' put a config.json with "num_heads" beside it.',
            where=where,
            dim=dim,
            head_dim=WAN_HEAD_DIM,
        )
    return {
        "patch_size": tuple(patch_size),
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "text_dim": text_dim,
        "freq_dim": freq_dim,
        "ffn_dim": ffn_dim,
        "num_layers": len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        "eps": original_config.get("eps", 1e-6),
        "pose_injection": pose_injection,
        "part_attention": any(".cross_attn_instance." in name for name in shapes),
        "part_attention_empty": original_config.get("part_attention_empty", "shared"),
        **{name: original_config[name] for name in TRAINED_WITH if name in original_config},
    }


def wan_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer's configuration as the `config.json` beside its files says it: in Wan's own words, and in
    ours what Wan has no words for and no tensor tells."""
    return {
        "_class_name": "WanModel",
        "model_type": "ti2v",
        "dim": config["num_attention_heads"] * config["attention_head_dim"],
        "num_heads": config["num_attention_heads"],
        "ffn_dim": config["ffn_dim"],
        "freq_dim": config["freq_dim"],
        "text_dim": config["text_dim"],
        "in_dim": config["in_channels"],
        "out_dim": config["out_channels"],
        "num_layers": config["num_layers"],
        "patch_size": list(config["patch_size"]),
        "eps": config["eps"],
        "pose_injection": config["pose_injection"],
        "part_attention_empty": config["part_attention_empty"],
        **{name: config[name] for name in TRAINED_WITH},
    }
