"""GGUF files, as llama.cpp's tools and ComfyUI's quantisers write them; the arithmetic is diffusers'."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .errors import CheckpointError
from .lazy_tensors import LazyTensors

ORIGINAL_SHAPE_FIELD = "comfy.gguf.orig_shape."  # GGUF knows four dimensions; a patch embedding has five


class GGUFFile(LazyTensors):
    """The tensors of a GGUF file. Quantised ones come as diffusers' `GGUFParameter` (bytes), the others as
    they are.

    Raises `CheckpointError` when the file is damaged, quantised in a way diffusers can't compute, or when the
    package `gguf` is not installed.
    """

    def __init__(self, path: Path):
        try:
            import gguf
        except ImportError as error:
            raise CheckpointError(
                "Reading {path} needs the Python package gguf;"
                " install it (pip install gguf) or choose .safetensors.",
                path=path,
            ) from error
        from ..compat.gguf import SUPPORTED_GGUF_QUANT_TYPES

        self.paths = [path]
        self.where = str(path)
        self._plain = {
            gguf.GGMLQuantizationType.F32: torch.float32,
            gguf.GGMLQuantizationType.F16: torch.float16,
            gguf.GGMLQuantizationType.BF16: torch.bfloat16,
        }
        try:
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise CheckpointError(
                "{path} is damaged or was cut off ({error}); delete it and get it again.",
                path=path,
                error=error,
            ) from error
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shapes = {}
        for name, tensor in self._tensors.items():
            if tensor.tensor_type not in self._plain and tensor.tensor_type not in SUPPORTED_GGUF_QUANT_TYPES:
                raise CheckpointError(
                    "{path} is quantised as {kind} ({name}),"
                    " which can't be computed here; choose a Q4_0 to Q8_0 or Q2_K to Q6_K file.",
                    path=path,
                    kind=tensor.tensor_type.name,
                    name=name,
                )
            original = reader.get_field(ORIGINAL_SHAPE_FIELD + name)
            # GGUF counts dimensions from the innermost one out.
            self.shapes[name] = (
                tuple(original.contents()) if original else tuple(map(int, reversed(tensor.shape)))
            )

    def __getitem__(self, name: str) -> torch.Tensor:
        from ..compat.gguf import GGUFParameter

        tensor = self._tensors[name]
        data = torch.from_numpy(tensor.data.copy())
        if dtype := self._plain.get(tensor.tensor_type):
            return data.view(dtype).reshape(self.shapes[name])
        return GGUFParameter(data, quant_type=tensor.tensor_type)


def is_quantized(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "quant_type")


def dequantize(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A GGUF tensor's values, float32 or float16 as its kind gives them."""
    from ..compat.gguf import dequantize_gguf_tensor

    return dequantize_gguf_tensor(tensor).reshape(shape)


def gguf_linear(weight: torch.Tensor, compute_dtype: torch.dtype) -> nn.Linear:
    """diffusers' layer that keeps this quantised weight as it is, without a bias."""
    from ..compat.gguf import GGUFLinear

    out_features, in_features = weight.quant_shape
    layer = GGUFLinear(in_features, out_features, bias=False, compute_dtype=compute_dtype, device="meta")
    layer.weight = weight
    return layer
