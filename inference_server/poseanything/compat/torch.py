"""Names of torch below its public interface. Checked with 2.11 and 2.13."""

from __future__ import annotations

import torch
from torch.distributed import _functional_collectives as collectives
from torch.nn.attention.varlen import AuxRequest, varlen_attn

# collectives.all_reduce: a sum over processes that gradients and compilation go through
# (tests/model/test_models_transformer.py).
# varlen_attn: attention of ragged rows by the flash kernel, new in torch 2.10. Watch how the log-sum-exp is
# asked for, and its layout (tests/model/test_on_card.py).
# float8_product: torch.nn.functional.scaled_mm is the public one, but torch 2.11 can't compile it. Watch the
# shapes of the scales (tests/model/test_checkpoints_quantized.py).
__all__ = ["AuxRequest", "collectives", "float8_product", "varlen_attn"]


def float8_product(
    rows: torch.Tensor, row_scale: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor
) -> torch.Tensor:
    """bfloat16 `[M, N]`: float8 `rows` `[M, K]` times `weight` `[N, K]`, each row of them times its scale,
    float32 `[M, 1]` and `[N, 1]`."""
    return torch._scaled_mm(
        rows, weight.t(), scale_a=row_scale, scale_b=weight_scale.t(), out_dtype=torch.bfloat16
    )
