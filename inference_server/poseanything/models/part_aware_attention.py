"""The Part-aware Temporal Coherence Module (paper, section 4.2, Eq. 9), exact at the cost of its parts alone.

For every part, the tokens of later frames inside the part's masks attend to the tokens of frame 0 inside its
first mask; the parts' results are summed and projected once. Masks zero features, they take nothing out of
the softmax: a masked-out token stays there as the key `norm_k(b_k)` with the value `b_v`, and asks with the
query `norm_q(b_q)`. All these keys are one and the same, and so are the queries: one key weighted by their
number and one query whose result they share stand for them exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..compat.diffusers import (
    AttentionBackendName,
    WanAttention,
    active_attention_backend,
    dispatch_attention_fn,
)
from ..compat.torch import AuxRequest, varlen_attn
from .part_tokens import PartTokens

# The others take no bias, or no float32.
_TAKES_BIAS = {
    AttentionBackendName.NATIVE,
    AttentionBackendName._NATIVE_EFFICIENT,
    AttentionBackendName._NATIVE_MATH,
    AttentionBackendName.XFORMERS,
}


class PartAttnProcessor:
    """Attention of every part's rows over that part's keys, and the sum over the parts.

    Where torch has its ragged flash kernel, that runs over all parts and the weighted key is merged by
    log-sum-exp, whichever fast backend the rest of the model has; elsewhere, with a backend that is a
    reference or for other cards, and where gradients are wanted, parts are padded to the longest and go
    through diffusers' dispatch, with the logarithm of the weight as a bias.
    """

    _attention_backend = None

    def __call__(
        self, attn: PartAwareCrossAttention, tokens: torch.Tensor, first: torch.Tensor, parts: PartTokens
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # A row of zeros at the end stands for every token that a mask takes out.
        tokens, first = F.pad(tokens, (0, 0, 0, 1)), F.pad(first, (0, 0, 0, 1))
        query, key, value = attn.norm_q(attn.to_q(tokens)), attn.norm_k(attn.to_k(first)), attn.to_v(first)
        query, key, value = (x.unflatten(-1, (attn.heads, -1)) for x in (query, key, value))

        rows = query[parts.queries.rows]
        if len(rows):
            attend = self._attend_ragged if self._has_ragged_kernel(query) else self._attend_padded
            rows = attend(rows, key, value, parts, weigh_empty=attn.empty == "shared")
        rows = rows.flatten(1).float()

        # The sum is ragged and of fixed order: a seed gives the same frames every time.
        summed, shared = parts.sum_rows(rows), None
        if attn.empty == "shared":
            closing = rows[parts.queries.offsets[1:] - 1]
            per_part = value[-1].flatten().float().repeat(parts.first_masks.shape[:2].numel(), 1)
            shared = per_part.index_copy(0, parts.shown, closing).unflatten(0, (parts.batch_size, -1)).sum(1)
            # A token gets what those outside of every part get, less the closing rows of its own parts.
            summed -= parts.sum_parts(closing)
            summed += F.embedding(parts.samples, shared)  # whose gradient is quicker than an index's
        to_out = attn.to_out[0]
        return to_out(summed.type_as(tokens)), None if shared is None else to_out(shared.type_as(tokens))

    def _attend_ragged(
        self, rows: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: PartTokens, weigh_empty: bool
    ) -> torch.Tensor:
        out, log_sum = varlen_attn(
            rows,
            key[parts.keys.rows],
            value[parts.keys.rows],
            parts.queries.offsets,
            parts.keys.offsets,
            parts.queries.longest,
            parts.keys.longest,
            return_aux=AuxRequest(lse=True),
        )
        if not weigh_empty:
            return out
        logit = (rows * key[-1].float()).sum(-1) * rows.shape[-1] ** -0.5
        share = torch.sigmoid(logit + parts.log_outside[parts.queries.groups, None] - log_sum.T)
        return out + share.unsqueeze(-1) * (value[-1].float() - out)

    def _attend_padded(
        self, rows: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: PartTokens, weigh_empty: bool
    ) -> torch.Tensor:
        # In float32: the weight's logarithm is a bias of several units, and the work is small.
        rows, key, value = rows.float(), key.float(), value.float()
        asking, _ = parts.queries.padded()
        answering, own = parts.keys.padded()
        answering, bias = parts.keys.rows[answering], torch.where(own, 0.0, -torch.inf)
        if weigh_empty:
            answering = F.pad(answering, (0, 1), value=-1)
            bias = torch.cat([bias, parts.log_outside.unsqueeze(1)], dim=1)
        out = dispatch_attention_fn(
            rows[asking],
            key[answering],
            value[answering],
            attn_mask=bias[:, None, None],
            backend=self._backend if self._backend in _TAKES_BIAS else AttentionBackendName.NATIVE,
        )
        return parts.queries.unpadded(out)

    @property
    def _backend(self) -> AttentionBackendName:
        return self._attention_backend or active_attention_backend()

    def _has_ragged_kernel(self, query: torch.Tensor) -> bool:
        return (
            query.is_cuda
            and query.dtype in (torch.float16, torch.bfloat16)
            and not query.requires_grad
            and (self._backend == AttentionBackendName.NATIVE or self._backend not in _TAKES_BIAS)
            and query.shape[-1] % 8 == 0
            and query.shape[-1] <= 256
            and torch.backends.cuda.is_flash_attention_available()
            and torch.cuda.get_device_capability(query.device) >= (8, 0)
        )


class PartAwareCrossAttention(WanAttention):
    """Cross-attention from the parts of later frames to the same parts of frame 0 (Eq. 9).

    Args:
        dim: features of a token, `heads` times `dim_head`.
        empty: what becomes of the tokens outside a part. `"shared"`, as released: they stay, as empty keys
            and queries. `"excluded"`, as the paper reads: they take no part.
    """

    _default_processor_cls = PartAttnProcessor
    _available_processors = [PartAttnProcessor]
    _supports_qkv_fusion = False  # the queries and the keys are of different tokens, few of either

    def __init__(self, dim: int, heads: int, dim_head: int, eps: float = 1e-6, empty: str = "shared"):
        if empty not in ("shared", "excluded"):
            raise ValueError(f"Empty tokens of part attention are 'shared' or 'excluded', not {empty!r}.")
        super().__init__(
            dim, heads, dim_head, eps, cross_attention_dim_head=dim_head, processor=PartAttnProcessor()
        )
        self.empty = empty

    def forward(
        self, tokens: torch.Tensor, first: torch.Tensor, parts: PartTokens
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The module's output for what `parts.gather` gathers, after the norm.

        Args:
            tokens: `[T, dim]`, tokens of later frames in some part.
            first: `[K, dim]`, tokens of frame 0 in some part.
            parts: the indices they were gathered by.

        Returns:
            `[T, dim]` for these tokens, and `[B, dim]`, the one output of all other tokens of the later
            frames (None when empty tokens are excluded: they get nothing).
        """
        return self.processor(self, tokens, first, parts)
