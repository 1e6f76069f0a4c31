"""diffusers' arithmetic of GGUF weights; needs the package gguf. Checked with diffusers 0.42."""

from __future__ import annotations

from diffusers.quantizers.gguf.utils import (
    SUPPORTED_GGUF_QUANT_TYPES,
    GGUFLinear,
    GGUFParameter,
    dequantize_gguf_tensor,
)

# Watch the kinds supported, and GGUFParameter's `quant_type` and `quant_shape`
# (tests/model/test_checkpoints_quantized.py).
__all__ = ["SUPPORTED_GGUF_QUANT_TYPES", "GGUFLinear", "GGUFParameter", "dequantize_gguf_tensor"]
