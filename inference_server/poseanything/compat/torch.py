"""Names of torch below its public interface. Checked with 2.11 and 2.13."""

from __future__ import annotations

from torch.distributed import _functional_collectives as collectives
from torch.nn.attention.varlen import AuxRequest, varlen_attn

# collectives.all_reduce: a sum over processes that gradients and compilation go through
# (tests/model/test_models_transformer.py).
# varlen_attn: attention of ragged rows by the flash kernel, new in torch 2.10. Watch how the log-sum-exp is
# asked for, and its layout (tests/model/test_on_card.py).
__all__ = ["AuxRequest", "collectives", "varlen_attn"]
