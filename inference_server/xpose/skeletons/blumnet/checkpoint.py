"""BlumNet's published checkpoints: training's `.pth` files, read strictly and without running what is in
them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ....poseanything.checkpoints import CheckpointError
from ....poseanything.checkpoints.errors import name_some
from ....poseanything.checkpoints.readers import open_tensors
from .model import BlumNet, BlumNetConfig, SwinSizes

BODY = "backbone.0.body."
HEADS = 8
POINTS = 128
"""Heads and key points of all published checkpoints, which no tensor's shape tells."""
SWIN_NAMES = (
    (r"patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"layers\.", "swin.encoder.layers."),
    (r"norm([123])\.", lambda found: f"hidden_states_norms.stage{int(found[1]) + 1}."),
)
BLOCK_NAMES = (
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
    (".attn.proj.", ".attention.o_proj."),
)


def load_blumnet(path: Path) -> BlumNet:
    """The network of a checkpoint, in float32, ready to be asked.

    Raises `CheckpointError` for a file that is no BlumNet checkpoint, naming what is too much or lacking.
    """
    tensors = open_tensors(path, entry="model")
    state = {name: tensors[name] for name in tensors.shapes}
    try:
        config = config_of(tensors.shapes)
        model = BlumNet(config)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of BlumNet ({error}); choose another file."
        ) from error
    state = rename_swin(state) if isinstance(config.backbone, SwinSizes) else state
    wanted = model.state_dict()
    unknown, lacking = sorted(state.keys() - wanted.keys()), sorted(wanted.keys() - state.keys())
    other = sorted(name for name in state.keys() & wanted.keys() if state[name].shape != wanted[name].shape)
    for names, what in ((unknown, "has no place for"), (lacking, "lacks"), (other, "has another shape of")):
        if names:
            subject = "BlumNet" if names is unknown else str(path)
            raise CheckpointError(f"{subject} {what} {name_some(names)}; choose a checkpoint of BlumNet.")
    model.load_state_dict(state)
    return model.eval()


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> BlumNetConfig:
    """The network's sizes from its tensors' shapes, by the checkpoint's names. Raises `KeyError` for a name
    that every BlumNet has."""
    levels, size = shapes["transformer.level_embed"]
    layer = "transformer.{}.layers.{}.{}.attention_weights.bias"
    return BlumNetConfig(
        backbone=_swin_sizes(shapes) if f"{BODY}patch_embed.proj.weight" in shapes else _vgg_layers(shapes),
        hidden_size=size,
        num_heads=HEADS,
        ffn_dim=shapes["transformer.encoder.layers.0.linear1.bias"][0],
        encoder_layers=_count(shapes, r"transformer\.encoder\.layers\.(\d+)\."),
        decoder_layers=_count(shapes, r"transformer\.decoder\.layers\.(\d+)\."),
        levels=levels,
        encoder_points=shapes[layer.format("encoder", 0, "self_attn")][0] // (HEADS * levels),
        decoder_points=shapes[layer.format("decoder", 0, "cross_attn")][0] // (HEADS * levels),
        queries=shapes["query_embed.weight"][0],
        points=POINTS if "class_pt_embed.0.bias" in shapes else 0,
        curve_points=shapes["bbox_embed.0.layers.2.bias"][0] // 2,
        graph_ids="gid_embed.0.bias" in shapes,
    )


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in shapes if (found := re.match(pattern, name)))


def _swin_sizes(shapes: Mapping[str, tuple[int, ...]]) -> SwinSizes:
    stages = range(_count(shapes, re.escape(BODY) + r"layers\.(\d+)\."))
    depths = [_count(shapes, re.escape(f"{BODY}layers.{stage}.blocks.") + r"(\d+)\.") for stage in stages]
    tables = [shapes[f"{BODY}layers.{n}.blocks.0.attn.relative_position_bias_table"] for n in stages]
    return SwinSizes(
        embed_dim=shapes[f"{BODY}patch_embed.proj.weight"][0],
        depths=tuple(depths),
        num_heads=tuple(heads for _, heads in tables),
        window_size=(round(tables[0][0] ** 0.5) + 1) // 2,
    )


def _vgg_layers(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Each convolution has a ReLU after it; where the next has not its place after that, there is pooling."""
    found = {
        int(match[1]): shape[0]
        for name, shape in shapes.items()
        if (match := re.fullmatch(re.escape(BODY) + r"features\.(\d+)\.weight", name))
    }
    places, layers = sorted(found), []
    for place, following in zip(places, [*places[1:], places[-1] + 3]):
        layers.append(found[place])
        layers += [0] * (following - place - 2)
    return tuple(layers)


def rename_swin(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors under the names of transformers' Swin: query, key and value apart, and without
    the table of relative positions, which follows from the window."""
    renamed = {}
    for name, tensor in state.items():
        if not name.startswith(BODY):
            renamed[name] = tensor
            continue
        inner = name.removeprefix(BODY)
        for pattern, new in SWIN_NAMES:
            inner, changed = re.subn(f"^{pattern}", new, inner)
            if changed:
                break
        for old, new in BLOCK_NAMES if ".blocks." in inner else ():
            inner = inner.replace(old, new)
        if inner.endswith(".attn.relative_position_index"):
            continue
        if ".attn.qkv." in inner:
            for part, each in zip("qkv", tensor.chunk(3)):
                renamed[f"{BODY}swin.{inner.replace('.attn.qkv.', f'.attention.{part}_proj.')}"] = each
        else:
            renamed[f"{BODY}swin.{inner}"] = tensor
    return renamed
