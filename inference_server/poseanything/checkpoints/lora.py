"""LoRAs for the transformer, under any of the names they are trained with; attaching them is PEFT's work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.utils import is_peft_available
from torch import nn

from ..compat.diffusers import reapply_offloading
from ..models.transformer import PoseAnythingTransformer3DModel
from .errors import CheckpointError, name_some
from .official import OFFICIAL_KEYS
from .readers import open_tensors

# Trainers' prefixes: diffusers, PEFT, ComfyUI, DiffSynth; kohya's also flattens the dots of the layer's name.
PREFIXES = ("transformer.", "base_model.model.", "diffusion_model.", "pipe.dit.", "model.")
KOHYA_PREFIX = "lora_unet_"

PIECE = re.compile(
    r"(?P<layer>.+)\.(?:"
    r"(?P<down>lora_A|lora_down|lora\.down)(?:\.\w+)?\.weight|"
    r"(?P<up>lora_B|lora_up|lora\.up)(?:\.\w+)?\.weight|"
    r"(?P<alpha>alpha))"
)


def load_lora(
    transformer: PoseAnythingTransformer3DModel,
    path: Path | str,
    *,
    name: str = "default",
    strength: float = 1.0,
) -> None:
    """Attach a LoRA file to the transformer as the adapter `name`, active together with those attached
    before.

    `strength` becomes part of the adapter's weights. `transformer.unload_lora()` takes all of them off again.
    Raises `CheckpointError` for a damaged file, a LoRA of other layers or sizes (it names them), or without
    PEFT.
    """
    if not is_peft_available():
        raise CheckpointError(
            "Using a LoRA needs the Python package peft; install it with: pip install peft."
        )
    tensors = open_tensors(Path(path))
    pieces = collect_pieces(transformer, tensors, tensors.where, strength)
    transformer.load_lora_adapter(pieces, prefix=None, adapter_name=name)
    transformer.set_adapters(list(transformer.peft_config))
    dtype = transformer.patch_embedding.weight.dtype
    for layer, parameter in transformer.named_parameters():
        if ".lora_" in layer:
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(False)
    # Streaming (memory.MemoryPlan) has to learn of the new tensors.
    reapply_offloading(transformer)


def collect_pieces(
    transformer: nn.Module, tensors: Mapping[str, torch.Tensor], where: str, strength: float = 1.0
) -> dict[str, torch.Tensor]:
    """A LoRA's tensors under PEFT's names for our layers, each layer's alpha and the strength within its up
    weight.

    Raises `CheckpointError` naming what has no place in this transformer or lacks its other half.
    """
    layers = {
        layer.removesuffix(".base_layer"): module  # as PEFT calls a layer that has a LoRA already
        for layer, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in layer
    }
    flattened = {(OFFICIAL_KEYS.to_theirs(layer) or layer).replace(".", "_"): layer for layer in layers}
    found: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for key in tensors:
        match = PIECE.fullmatch(key)
        layer = _layer_of(match["layer"], layers, flattened) if match else None
        if layer is None:
            unknown.append(key)
        else:
            found.setdefault(layer, {})[match.lastgroup] = tensors[key]
    if unknown:
        raise CheckpointError(
            f"{where} has {len(unknown)} tensor(s) that are no LoRA of this transformer's layers"
            f" ({name_some(unknown)}); choose a LoRA made for Wan2.2-TI2V-5B or PoseAnything."
        )
    pieces = {}
    for layer, parts in found.items():
        _require_fit(layer, layers[layer], parts, where)
        scale = parts["alpha"].item() / parts["down"].shape[0] if "alpha" in parts else 1.0
        pieces[f"{layer}.lora_A.weight"] = parts["down"]
        pieces[f"{layer}.lora_B.weight"] = parts["up"].float() * (scale * strength)
    return pieces


def _layer_of(name: str, layers: Mapping[str, nn.Linear], flattened: Mapping[str, str]) -> str | None:
    """Our name of the layer a trainer calls `name`, None when the transformer has none of the kind."""
    if name.startswith(KOHYA_PREFIX):
        return flattened.get(name.removeprefix(KOHYA_PREFIX))
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    ours = name if name in layers else OFFICIAL_KEYS.to_ours(name)
    return ours if ours in layers else None


def _require_fit(layer: str, module: nn.Linear, parts: Mapping[str, torch.Tensor], where: str) -> None:
    if "down" not in parts or "up" not in parts:
        raise CheckpointError(
            f"{where} has only half of the LoRA of {layer}; the file is damaged, get it again."
        )
    shape = (parts["up"].shape[0], parts["down"].shape[1])
    if parts["up"].shape[1] != parts["down"].shape[0] or shape != (module.out_features, module.in_features):
        raise CheckpointError(
            f"{where} changes {layer} as {shape[0]} x {shape[1]} where it is {module.out_features} x"
            f" {module.in_features}; it is another model's LoRA,"
            " choose one for Wan2.2-TI2V-5B or PoseAnything."
        )
