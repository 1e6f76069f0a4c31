"""LoRAs for the transformer, under any of the names they are trained or extracted with.

Pairs of low-rank matrices become PEFT's adapters. What such files hold besides (whole differences of norms,
biases, modulation and the patch embedding, as step-distilled ones do) is added to the weights, and taken off
again with the adapters. A file of ours may say in its metadata what it was trained for besides: a flow that
starts from a draft, another number of steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.utils import is_peft_available
from torch import nn

from ..models.transformer import PoseAnythingTransformer3DModel
from .errors import CheckpointError, name_some
from .official import OFFICIAL_KEYS
from .readers import open_tensors

# Trainers' prefixes: diffusers, PEFT, ComfyUI, DiffSynth; kohya's also flattens the dots of the layer's name.
PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "pipe.dit.", "model.")
KOHYA_PREFIX = "lora_unet_"

PIECE = re.compile(
    r"(?P<layer>.+)\.(?:"
    r"(?P<down>lora_A|lora_down|lora\.down)(?:\.\w+)?\.weight|"
    r"(?P<up>lora_B|lora_up|lora\.up)(?:\.\w+)?\.weight|"
    r"(?P<alpha>alpha)|"
    r"(?P<weight>diff|w_norm)|"
    r"(?P<bias>diff_b|b_norm|(?:lora_B|lora_up)(?:\.\w+)?\.bias)|"
    r"(?P<modulation>diff_m))"
)
WHOLE_WEIGHT = re.compile(r"blocks\.\d+\.(?:self_attn|attn1)\.(?:q|to_q)\.weight")

DECLARED = "poseanything"
"""The entry of a file's metadata with what it changes of `TRAINED_WITH`, as JSON."""

_declared: WeakKeyDictionary[nn.Module, dict[str, Any]] = WeakKeyDictionary()
"""By transformer, what its configuration said before LoRAs changed it."""
_originals: WeakKeyDictionary[nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()
"""By transformer, what its parameters were before differences were added to them, on the host."""


@dataclass
class Changes:
    """What a LoRA file changes, under our names.

    pairs: by linear layer, its down and up matrix `[rank, in]`, `[out, rank]`, alpha within the latter.
    differences: by parameter, what is to be added to it.
    """

    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    differences: dict[str, torch.Tensor] = field(default_factory=dict)


def load_lora(
    transformer: PoseAnythingTransformer3DModel,
    path: Path | str,
    *,
    name: str = "default",
    strength: float = 1.0,
) -> None:
    """Attach a LoRA file to the transformer as the adapter `name`, active together with those attached
    before.

    `strength` becomes part of the adapter's weights. `unload_loras` takes all of them off again. Adapters
    stay on the device of the patch embedding, where the blocks stream too.

    Raises `CheckpointError` for a damaged file, a LoRA of other layers or sizes (it names them), or without
    PEFT; the transformer is then as it was.
    """
    if not is_peft_available():
        raise CheckpointError(
            "Using a LoRA needs the Python package peft; install it with: pip install peft."
        )
    tensors = open_tensors(Path(path))
    changes = read_changes(transformer, tensors, tensors.where)
    if trained_with := declared_config(path):
        before = {name: transformer.config.get(name) for name in trained_with}
        try:
            transformer.declare(**trained_with)
        except ValueError as error:
            raise CheckpointError(
                "{file} is made for another version: {error}", file=tensors.where, error=error
            ) from error
        _declared[transformer] = before | _declared.get(transformer, {})
    for parameter, difference in changes.differences.items():
        _add(transformer, parameter, strength * difference.float())
    if not changes.pairs:
        return
    state_dict = {}
    for layer, (down, up) in changes.pairs.items():
        state_dict[f"{layer}.lora_A.weight"] = down
        state_dict[f"{layer}.lora_B.weight"] = strength * up
    transformer.load_lora_adapter(state_dict, prefix=None, adapter_name=name)
    transformer.set_adapters(list(transformer.peft_config))
    kind = transformer.patch_embedding.weight
    for parameter_name, parameter in transformer.named_parameters():
        if ".lora_" in parameter_name:
            parameter.data = parameter.data.to(kind.device, kind.dtype)
            parameter.requires_grad_(False)


def declared_config(path: Path | str) -> dict[str, Any]:
    """What a LoRA file says of how the transformer samples with it, as entries of `TRAINED_WITH`; most say
    nothing. Raises `CheckpointError`."""
    text = getattr(open_tensors(Path(path)), "metadata", {}).get(DECLARED, "{}")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            "The metadata of {path} can't be read ({error}); get it again.", path=path, error=error
        ) from error


def unload_loras(transformer: PoseAnythingTransformer3DModel) -> None:
    """Take off every LoRA that `load_lora` attached; the weights are what they were, bit for bit."""
    if getattr(transformer, "peft_config", None):
        transformer.unload_lora()
    transformer.declare(**_declared.pop(transformer, {}))
    for name, original in _originals.pop(transformer, {}).items():
        transformer.get_parameter(name).data.copy_(original)


def read_changes(transformer: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> Changes:
    """What a LoRA's tensors change in this transformer.

    A patch embedding of the video's channels alone, as plain Wan's is, changes that half of ours. Raises
    `CheckpointError` naming what has no place in this transformer or lacks its other half.
    """
    places = _Places(transformer)
    found: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for key in tensors:
        match = PIECE.fullmatch(key)
        layer = places.find(match["layer"], str(match.lastgroup)) if match else None
        if match is None or layer is None:
            unknown.append(key)
        else:
            found.setdefault(layer, {})[str(match.lastgroup)] = tensors[key]
    if any(WHOLE_WEIGHT.search(key) for key in unknown):
        raise CheckpointError(
            "{where} is a whole model, not a LoRA; make a LoRA of what it changes in the plain"
            " Wan2.2-TI2V-5B with python -m inference_server extract.",
            where=where,
        )
    if unknown:
        raise CheckpointError(
            "{where} has {count} tensor(s) that are no LoRA of this transformer's layers"
            " ({unknown}); choose a LoRA made for Wan2.2-TI2V-5B or PoseAnything.",
            where=where,
            count=len(unknown),
            unknown=name_some(unknown),
        )
    changes = Changes()
    for layer, parts in found.items():
        _collect(changes, places, layer, parts, where)
    return changes


def _collect(
    changes: Changes, places: _Places, layer: str, parts: Mapping[str, torch.Tensor], where: str
) -> None:
    """Add what a file says of one layer to the changes. Raises `CheckpointError`."""
    for kind in ("weight", "bias", "modulation"):
        if kind in parts:
            parameter = places.parameter(layer, kind)
            if not places.dtypes[parameter].is_floating_point:
                raise CheckpointError(
                    "{where} changes the whole weight of {layer}, which is quantised here;"
                    " choose a LoRA of pairs alone, or a model that isn't quantised.",
                    where=where,
                    layer=layer,
                )
            changes.differences[parameter] = _fitted(places, parameter, parts[kind], where)
    if not parts.keys() & {"down", "up"}:
        return
    if "down" not in parts or "up" not in parts:
        raise CheckpointError(
            "{where} has only half of the LoRA of {layer}; the file is damaged, get it again.",
            where=where,
            layer=layer,
        )
    down, up = parts["down"], parts["up"]
    up = up.float() * (parts["alpha"].item() / down.shape[0] if "alpha" in parts else 1.0)
    module = places.modules[layer]
    if isinstance(module, nn.Linear):
        shape = (up.shape[0], down.shape[1])
        if up.shape[1] != down.shape[0] or shape != (module.out_features, module.in_features):
            ours = (module.out_features, module.in_features)
            raise _of_another_shape(layer, shape, ours, where)
        changes.pairs[layer] = down, up
        return
    # The patch embedding: few values, so that the product itself is added.
    product = (up.flatten(1) @ down.float().flatten(1)).unflatten(1, down.shape[1:])
    parameter = places.parameter(layer, "weight")
    product = _fitted(places, parameter, product, where)
    changes.differences[parameter] = product + changes.differences.get(parameter, 0)


def _fitted(places: _Places, parameter: str, difference: torch.Tensor, where: str) -> torch.Tensor:
    """A difference in the parameter's shape. Raises `CheckpointError`."""
    shape = places.shapes[parameter]
    if parameter == "patch_embedding.weight" and difference.ndim == len(shape):
        video = places.video_channels
        if difference.shape[1] == video < shape[1] and difference.shape[:1] == shape[:1]:
            whole = difference.new_zeros(shape)
            whole[:, :video] = difference
            return whole
    if _without_ones(difference.shape) != _without_ones(shape):
        raise _of_another_shape(parameter, difference.shape, shape, where)
    return difference.reshape(shape)


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _of_another_shape(what: str, theirs: Sequence[int], ours: Sequence[int], where: str) -> CheckpointError:
    return CheckpointError(
        "{where} changes {what} as {theirs} where it is {ours}; it is another model's LoRA, choose one for "
        "Wan2.2-TI2V-5B or PoseAnything.",
        where=where,
        what=what,
        theirs=" x ".join(map(str, theirs)),
        ours=" x ".join(map(str, ours)),
    )


class _Places:
    """The layers and parameters of a transformer under the names of every trainer."""

    def __init__(self, transformer: nn.Module):
        # As PEFT calls a layer that has a LoRA already.
        plain = {name.replace(".base_layer", ""): name for name, _ in transformer.named_modules()}
        self._inside = {name: inner for name, inner in plain.items() if ".lora_" not in name}
        self.modules = {name: transformer.get_submodule(inner) for name, inner in self._inside.items()}
        parameters = dict(transformer.named_parameters())
        kept = {name: parameter for name, parameter in parameters.items() if ".lora_" not in name}
        self.shapes = {name: parameter.shape for name, parameter in kept.items()}
        self.dtypes = {name: parameter.dtype for name, parameter in kept.items()}
        self.video_channels = transformer.config.out_channels
        self._flattened: dict[str, list[str]] = {}
        for name in self.modules:
            official = "head" if not name else OFFICIAL_KEYS.to_theirs(name) or name
            for spelt in {name, official}:
                self._flattened.setdefault(spelt.replace(".", "_"), []).append(name)

    def find(self, name: str, kind: str) -> str | None:
        """Our name of what a trainer calls `name`, None when the transformer has none that a piece of this
        kind can change. Wan's `norm3` is our `norm2`, and ours of that name has no weight."""
        if name.startswith(KOHYA_PREFIX):
            layers = self._flattened.get(name.removeprefix(KOHYA_PREFIX), [])
        else:
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            layers = [name, "" if name == "head" else OFFICIAL_KEYS.to_ours(name) or name]
        return next((layer for layer in layers if layer in self.modules and self.takes(layer, kind)), None)

    def takes(self, layer: str, kind: str) -> bool:
        """Whether a layer can be changed by a piece of this kind."""
        if kind in ("weight", "bias", "modulation"):
            return self.parameter(layer, kind) in self.shapes
        return isinstance(self.modules[layer], (nn.Linear, nn.Conv3d))

    def parameter(self, layer: str, kind: str) -> str:
        """The name of the parameter that a difference of this kind is added to."""
        leaf = "scale_shift_table" if kind == "modulation" else kind
        return ".".join(filter(None, [self._inside[layer], leaf]))


def _add(transformer: nn.Module, name: str, difference: torch.Tensor) -> None:
    """Add a difference to a parameter, and remember what it was. Written in place: a streamed block's weights
    lie in memory that is copied from."""
    parameter = transformer.get_parameter(name)
    originals = _originals.setdefault(transformer, {})
    originals.setdefault(name.replace(".base_layer", ""), parameter.data.to("cpu", copy=True))
    parameter.data.copy_(parameter.data.float() + difference.to(parameter.device))
