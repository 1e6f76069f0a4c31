"""Opening a checkpoint and filling its model: every tensor is read once, straight to where it will stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import torch
from torch import nn

from .errors import CheckpointError, require_same_names
from .float8 import FLOAT8, FLOAT8_FORMATS, Float8Linear, expand, quantize_weight
from .gguf_files import dequantize, gguf_linear, is_quantized
from .lazy_tensors import LazyTensors, Renamed

Quantization = Literal["fp8", "none"] | None
"""How linear layers are kept: None as the file has them, "none" expanded to the planned precision, "fp8"
those of the repeated blocks in float8."""

REPEATED_BLOCK = re.compile(r"(?:^|\.)blocks?\.\d+\.")

SCALES = (".scale_weight", ".weight_scale")  # of fp8 weights, by the two names in use
FLOAT8_MARK = "scaled_fp8"  # an empty tensor by which fp8 files say what they are
# What says how to quantise activations, which stay in high precision here.
ACTIVATION_SCALES = (".scale_input", ".input_scale", ".comfy_quant")

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Opened(Generic[Model]):
    """A checkpoint that fits its model, with nothing of it read yet."""

    model: Model
    """The model it fills, without storage (on the meta device)."""
    tensors: LazyTensors
    """Its tensors under the model's names."""
    scales: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The scales of float8 weights, by the weights' names."""

    def __post_init__(self):
        """Raises `CheckpointError` unless the tensors are the model's: each of them, no other, of the right
        shapes."""
        wanted = {name: tuple(parameter.shape) for name, parameter in self.model.named_parameters()}
        require_same_names(self.tensors.shapes, wanted, self.tensors.where)
        for name, shape in wanted.items():
            if self.tensors.shapes[name] != shape:
                raise CheckpointError(
                    "{where} holds {name} as {found}"
                    " where the model has {shape};"
                    " choose this model's files, and the config.json that came with them.",
                    where=self.tensors.where,
                    name=name,
                    found=self.tensors.shapes[name],
                    shape=shape,
                )


def split_float8_scales(tensors: LazyTensors) -> tuple[LazyTensors, dict[str, torch.Tensor]]:
    """A checkpoint's weights alone, and the scales that an fp8 file holds for them, by the weights' names.

    Raises `CheckpointError` for a scale that is neither one for the whole weight nor one per output feature,
    or that is of no fp8 weight.
    """
    scales, weights = {}, {}
    for name, shape in tensors.shapes.items():
        suffix = next((suffix for suffix in (*SCALES, *ACTIVATION_SCALES) if name.endswith(suffix)), None)
        weight = name.removesuffix(suffix) + ".weight" if suffix else name
        if suffix and (weight not in tensors or tensors[weight].dtype not in FLOAT8_FORMATS):
            raise CheckpointError(
                "{file} has {name}, but {weight} is no fp8 weight;"
                " choose an fp8 file (e4m3 or e5m2), or one that isn't quantised.",
                file=tensors.where,
                name=name,
                weight=weight,
            )
        if suffix in SCALES:
            features = tensors.shapes[weight][0]
            if shape not in ((), (1,), (features,), (features, 1)):
                raise CheckpointError(
                    "{file} scales {weight} by blocks of shape {shape}, which isn't supported;"
                    " choose an fp8 file with one scale per weight or per output feature.",
                    file=tensors.where,
                    weight=weight,
                    shape=shape,
                )
            scales[weight] = tensors[name]
        elif suffix is None and name != FLOAT8_MARK:
            weights[name] = name
    return Renamed(tensors, weights), scales


def fill(
    opened: Opened[Model],
    *,
    torch_dtype: torch.dtype,
    device: torch.device | str,
    quantization: Quantization = None,
    keep_in_fp32: tuple[str, ...] = (),
    check: Callable[[], None] | None = None,
) -> Model:
    """Give an opened checkpoint's model its tensors, and make it ready for inference.

    What lies in modules named in `keep_in_fp32` stays in float32 (diffusers' rule). `check` is called before
    each tensor, and what it raises ends the reading. Raises `CheckpointError` for numbers that can't be
    computed with.
    """
    model, tensors = opened.model, opened.tensors
    places: dict[nn.Parameter, list[str]] = {}  # a tied tensor has several names and is read once
    for name, parameter in model.named_parameters(remove_duplicate=False):
        places.setdefault(parameter, []).append(name)
    linear_weights = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }

    # Weights of linear layers last: a layer that is replaced hands its bias on.
    for names in sorted(places.values(), key=lambda names: names[0] in linear_weights):
        if check is not None:
            check()
        name = names[0]
        tensor = tensors[name]
        if not tensor.is_floating_point() and not is_quantized(tensor):
            raise CheckpointError(
                "{file} holds {name} as {dtype},"
                " which can't be computed here; choose a float16, bfloat16, fp8 or GGUF file.",
                file=tensors.where,
                name=name,
                dtype=str(tensor.dtype).removeprefix("torch."),
            )
        keep = any(part in keep_in_fp32 for part in name.split("."))
        if name in linear_weights and not keep:
            layer = _quantized_layer(name, tensor, opened.scales.get(name), torch_dtype, device, quantization)
            if layer is not None:
                layer.bias = model.get_submodule(name.removesuffix(".weight")).bias
                _set(model, name.removesuffix(".weight"), layer)
                continue
        if is_quantized(tensor):
            tensor = dequantize(tensor, tensors.shapes[name])
        elif tensor.dtype in FLOAT8_FORMATS:
            tensor = expand(tensor, opened.scales.get(name))
        parameter = nn.Parameter(
            tensor.to(device, torch.float32 if keep else torch_dtype), requires_grad=False
        )
        for place in names:
            _set(model, place, parameter)
    return model.to(device).eval()


def _quantized_layer(
    name: str,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    compute_dtype: torch.dtype,
    device: torch.device | str,
    quantization: Quantization,
) -> nn.Linear | None:
    """The layer that keeps this weight quantised, without its bias; None where it is to be a plain one."""
    if quantization == "none":
        return None
    if weight.dtype == FLOAT8:
        return Float8Linear(
            weight.to(device), torch.ones((), device=device) if scale is None else scale.to(device)
        )
    if is_quantized(weight):
        return gguf_linear(weight.to(device), compute_dtype) if quantization is None else None
    if quantization == "fp8" and REPEATED_BLOCK.search(name):
        weight = expand(weight, scale) if weight.dtype in FLOAT8_FORMATS else weight
        return Float8Linear(*quantize_weight(weight.to(device)))
    return None


def _set(model: nn.Module, name: str, value: nn.Module | nn.Parameter) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, value)
