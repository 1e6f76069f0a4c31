"""Linear layers whose weights stay in float8 (e4m3): half of bfloat16's bytes, computed in the input's
precision."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..compat.torch import float8_product

FLOAT8 = torch.float8_e4m3fn
FLOAT8_FORMATS = (FLOAT8, torch.float8_e5m2)  # what files come in; e5m2 is only read, never kept
FLOAT8_MAX = torch.finfo(FLOAT8).max  # 448


class Float8Linear(nn.Linear):
    """`nn.Linear` whose weight is stored as float8 times a scale, one for all of it or one per output
    feature.

    diffusers' layerwise casting doesn't do: it casts without scales, though weights of a usual size (0.01)
    lie where e4m3 runs out of bits, and it has no place for a file's own scales. The bytes are held as int8,
    so that whatever casts a model's floating-point weights leaves them alone (as do PEFT, and UMT5, which
    would cast its hidden states to the weight's type).

    `weight`: int8 [out_features, in_features], the bits of float8_e4m3fn. `scale`: float32, [] or
    [out_features, 1].
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor):
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight.view(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale.float().reshape((-1, 1) if scale.numel() > 1 else ()))
        # Scales that are powers of two, as `quantize_weight` makes them, multiply exactly in any precision.
        self._scale_is_exact = bool((torch.frexp(self.scale).mantissa == 0.5).all())

    multiplies_in_float8 = False
    """Whether the input is rounded to float8 too, a scale for each token, and the product computed in it."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.multiplies_in_float8:
            return self._multiply_in_float8(hidden_states)
        dtype = hidden_states.dtype if self._scale_is_exact else torch.float32
        weight = self.weight.view(FLOAT8).to(dtype) * self.scale.to(dtype)
        return functional.linear(hidden_states, weight.to(hidden_states.dtype), self.bias)

    def _multiply_in_float8(self, hidden_states: torch.Tensor) -> torch.Tensor:
        rows = hidden_states.flatten(0, -2)
        largest = rows.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12)
        scale = largest / FLOAT8_MAX
        rows = (rows / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)
        weight_scale = self.scale.expand(self.out_features, 1).contiguous()
        product = float8_product(rows, scale, self.weight.view(FLOAT8), weight_scale)
        product = product.unflatten(0, hidden_states.shape[:-1]).to(hidden_states.dtype)
        return product if self.bias is None else product + self.bias


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [out, in] as float8, and its scales [out, 1]: the smallest powers of two that keep the rows in
    range."""
    largest = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    scale = torch.exp2(torch.ceil(torch.log2(largest / FLOAT8_MAX)))
    return (weight.float() / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8), scale


def expand(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """The values of a float8 tensor of any shape, float32; its scale is [] or [1] or one per first
    dimension."""
    if scale is None:
        return weight.float()
    return weight.float() * (
        scale.float().reshape(-1, *[1] * (weight.ndim - 1)) if scale.numel() > 1 else scale.float()
    )
