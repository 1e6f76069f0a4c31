"""The Part-aware Temporal Coherence Module (paper, section 4.2, Eq. 9), exact at the cost of its parts alone.

For every part, the tokens of later frames inside the part's masks attend to the tokens of frame 0 inside its first
mask; the parts' results are summed and projected once. Masks zero features, they take nothing out of the softmax: a
masked-out token stays there as the key `norm_k(b_k)` with the value `b_v`, and asks with the query `norm_q(b_q)`. All
these keys are one and the same, and so are the queries: one key weighted by their number and one query whose result
they share stand for them exactly.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from diffusers.models.transformers.transformer_wan import WanAttention
from torch.distributed import _functional_collectives as collectives
from torch.nn.attention.varlen import AuxRequest, varlen_attn


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Indices of rows in consecutive groups of different lengths."""

    rows: torch.Tensor  # long [R]
    groups: torch.Tensor  # [R], the group each is in
    offsets: torch.Tensor  # int32 [G + 1], where each group begins, and the end
    longest: int

    @classmethod
    def from_lengths(cls, rows: torch.Tensor, lengths: torch.Tensor) -> Ragged:
        groups = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        return cls(rows, groups, F.pad(lengths.cumsum(0), (1, 0)).int(), max(lengths.tolist(), default=0))

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Places among the R, `[G, longest]`, and which of them are the group's own."""
        places = self.offsets[:-1, None] + torch.arange(self.longest, device=self.offsets.device)
        return places.clamp(max=len(self.rows) - 1), places < self.offsets[1:, None]

    def unpadded(self, values: torch.Tensor) -> torch.Tensor:
        """`[R, ...]` from `[G, longest, ...]`."""
        return values[self.groups, torch.arange(len(self.rows), device=values.device) - self.offsets[self.groups]]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Ragged:
        return _moved(self, device, non_blocking)


@dataclasses.dataclass(frozen=True, eq=False)
class PartTokens:
    """Which tokens belong to which part: gather indices made once per clip, used by every block and step.

    Tokens are counted over the flattened `[B * L]` sequence. The tokens of later frames that lie in some part, T of
    them, are gathered, projected and written back. Each part has a group of query rows, its own of these tokens and
    a closing row that stands for all the tokens outside of it. A part that frame 0 doesn't show gives every token
    the same result: it has no group. S is the number of groups over the batch, R that of their rows.
    """

    first_masks: torch.Tensor  # bool [B, P, N], over the N tokens of frame 0
    later_masks: torch.Tensor  # bool [B, P, L - N], over those of the frames after it
    first_length: int  # tokens of frame 0 in this rank's piece of the sequence, N on a single one
    tokens: torch.Tensor  # [T], the gathered tokens of later frames
    token_samples: torch.Tensor  # [T], the sample each is of
    token_rows: torch.Tensor  # [R - S], the query rows of one such token after the other
    token_offsets: torch.Tensor  # [T], where each one's begin in `token_rows`
    queries: Ragged  # [R] by part, into the gathered tokens; T in the closing rows
    first_tokens: torch.Tensor  # [K], the tokens of frame 0 in some part
    first_held: torch.Tensor | None  # bool [K, 1], those of this rank; None on a single one
    keys: Ragged  # by part, into `first_tokens`
    log_outside: torch.Tensor  # [S], log of the number of frame 0's tokens outside the part
    parts: torch.Tensor  # [S], which of the B * P parts have a group
    group: dist.ProcessGroup | None = None  # the ranks that share the sequence

    @classmethod
    def from_masks(cls, first: torch.Tensor, frames: torch.Tensor, batch_size: int = 1) -> PartTokens:
        """Indices for P parts from their masks on the token grid (tensors or arrays).

        Args:
            first: bool `[P, h, w]` or `[B, P, h, w]`, the parts in frame 0.
            frames: bool `[F - 1, P, h, w]` or `[B, F - 1, P, h, w]`, the same parts in the later latent frames.
            batch_size: how often masks without a batch dimension are repeated (2 where CFG runs as one batch).

        Raises:
            ValueError: the two differ in batch, parts or grid, or there is no part.
        """
        first, frames = torch.as_tensor(first).bool(), torch.as_tensor(frames).bool()
        if first.ndim == 3:
            first = first.expand(batch_size, *first.shape)
        if frames.ndim == 4:
            frames = frames.expand(batch_size, *frames.shape)
        if first.ndim != 4 or frames.ndim != 5 or first.shape != (frames.shape[0], *frames.shape[2:]):
            raise ValueError(
                f"Part masks of shape {tuple(first.shape)} for frame 0 and {tuple(frames.shape)} for the later frames"
                " don't belong together; give [P, h, w] and [F - 1, P, h, w]."
            )
        if first.shape[1] == 0:
            raise ValueError("There is no part in the masks; pass parts=None to run without part attention.")
        return cls._index(first.flatten(2), frames.transpose(1, 2).flatten(2))

    @classmethod
    def _index(cls, first: torch.Tensor, later: torch.Tensor, group: dist.ProcessGroup | None = None) -> PartTokens:
        batch_size, num_parts, frame_length = first.shape
        masks = torch.cat([torch.zeros_like(first), later], dim=-1)
        held = slice(0, masks.shape[-1]) if group is None else sequence_share(masks.shape[-1], group)
        masks, length = masks[..., held], held.stop - held.start

        parts = first.any(-1).flatten().nonzero().squeeze(1)
        samples = parts // num_parts
        first_members = first.flatten(0, 1)[parts]
        members = masks.flatten(0, 1)[parts]

        gathered = (masks & first.any(-1, keepdim=True)).any(1)
        tokens = gathered.flatten().nonzero().squeeze(1)
        places = (gathered.flatten().cumsum(0) - 1).view(batch_size, length)[samples]
        rows = F.pad(places, (0, 1), value=len(tokens))[F.pad(members, (0, 1), value=True)]
        queries = Ragged.from_lengths(rows, members.sum(1) + 1)
        rows_per_token = rows.bincount(minlength=len(tokens) + 1)[:-1]

        shown = first.any(1)
        key_samples, key_places = shown.nonzero(as_tuple=True)
        here = (held.start <= key_places) & (key_places < held.stop)
        key_rows = (shown.flatten().cumsum(0) - 1).view_as(shown)[samples][first_members]

        return cls(
            first_masks=first,
            later_masks=later,
            first_length=min(max(frame_length - held.start, 0), length),
            tokens=tokens,
            token_samples=tokens // length,
            token_rows=rows.argsort(stable=True)[: len(rows) - len(parts)],
            token_offsets=rows_per_token.cumsum(0) - rows_per_token,
            queries=queries,
            first_tokens=torch.where(here, key_samples * length + key_places - held.start, 0),
            first_held=None if group is None else here.unsqueeze(1),
            keys=Ragged.from_lengths(key_rows, first_members.sum(1)),
            log_outside=(~first_members).sum(1).float().log(),
            parts=parts,
            group=group,
        )

    @property
    def batch_size(self) -> int:
        return self.first_masks.shape[0]

    @property
    def sequence_length(self) -> int:
        """L, over all ranks."""
        return self.first_masks.shape[-1] + self.later_masks.shape[-1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PartTokens:
        return _moved(self, device, non_blocking)

    def shard(self, group: dist.ProcessGroup) -> PartTokens:
        """The same parts for this rank's piece of a sequence that is split over the ranks of `group`."""
        return self._index(self.first_masks, self.later_masks, group)

    def gather(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The `[T, dim]` tokens of later frames that ask and the `[K, dim]` tokens of frame 0 that answer."""
        hidden_states = hidden_states.flatten(0, 1)
        first = hidden_states[self.first_tokens]
        if self.group is not None:
            first = collectives.all_reduce(first.where(self.first_held, 0), "sum", self.group)
        return hidden_states[self.tokens], first

    def write_(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, outside: torch.Tensor | None
    ) -> torch.Tensor:
        """Puts the `[T, dim]` tokens back in place, and adds `outside` `[B, dim]` to all others of the later frames."""
        if outside is not None:
            hidden_states[:, self.first_length :] += outside.unsqueeze(1)
        hidden_states.view(-1, hidden_states.shape[-1]).index_copy_(0, self.tokens, tokens)
        return hidden_states


class PartAttnProcessor:
    """Attention of every part's rows over that part's keys, and the sum over the parts.

    Where torch has its ragged flash kernel, that runs over all parts and the weighted key is merged by its log-sum-exp;
    elsewhere, and where gradients are wanted, parts are padded to the longest and go through diffusers' dispatch with
    the logarithm of the weight as a bias.
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
        if attn.empty == "excluded":
            summed, shared = _sum_rows(rows, parts), None
        else:
            closing = rows[parts.queries.offsets[1:] - 1]
            per_part = value[-1].flatten().float().repeat(parts.first_masks.shape[:2].numel(), 1)
            shared = per_part.index_copy(0, parts.parts, closing).unflatten(0, (parts.batch_size, -1)).sum(1)
            summed = shared[parts.token_samples] + _sum_rows(rows - closing[parts.queries.groups], parts)
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
        logit = (rows.float() * key[-1].float()).sum(-1) * rows.shape[-1] ** -0.5
        share = torch.sigmoid(logit + parts.log_outside[parts.queries.groups, None] - log_sum.T)
        return torch.lerp(out.float(), value[-1].float(), share.unsqueeze(-1))

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
        return self._attention_backend or _AttentionBackendRegistry.get_active_backend()[0]

    def _has_ragged_kernel(self, query: torch.Tensor) -> bool:
        return (
            query.is_cuda
            and query.dtype in (torch.float16, torch.bfloat16)
            and not query.requires_grad
            and ("flash" in self._backend.value or self._backend == AttentionBackendName.NATIVE)
            and torch.backends.cuda.is_flash_attention_available()
            and torch.cuda.get_device_capability(query.device) >= (8, 0)
        )


class PartAwareCrossAttention(WanAttention):
    """Cross-attention from the parts of later frames to the same parts of frame 0 (Eq. 9).

    Args:
        dim: features of a token, `heads` times `dim_head`.
        empty: what becomes of the tokens outside a part. `"shared"`, as released: they stay as empty keys and queries.
            `"excluded"`, as the paper reads: they take no part.
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
            `[T, dim]` for these tokens, and `[B, dim]`, the one output of all other tokens of the later frames
            (None when empty tokens are excluded: they get nothing).
        """
        return self.processor(self, tokens, first, parts)


_TAKES_BIAS = {
    AttentionBackendName.NATIVE,
    AttentionBackendName._NATIVE_EFFICIENT,
    AttentionBackendName._NATIVE_MATH,
    AttentionBackendName.XFORMERS,
}


def _sum_rows(rows: torch.Tensor, parts: PartTokens) -> torch.Tensor:
    """`[T, dim]`: every gathered token's rows, one for each part it is in, added up."""
    return F.embedding_bag(parts.token_rows, rows, parts.token_offsets, mode="sum")


def sequence_share(length: int, group: dist.ProcessGroup) -> slice:
    """This rank's piece of a sequence that is split over the ranks of `group`, as `torch.tensor_split` splits."""
    rank, (size, longer) = dist.get_rank(group), divmod(length, dist.get_world_size(group))
    begin = rank * size + min(rank, longer)
    return slice(begin, begin + size + (rank < longer))


def _moved(indices, device: torch.device | str, non_blocking: bool):
    """A copy of a dataclass of tensors, on another device."""
    fields = {field.name: getattr(indices, field.name) for field in dataclasses.fields(indices)}
    movable = {name: value for name, value in fields.items() if isinstance(value, (torch.Tensor, Ragged))}
    return dataclasses.replace(indices, **{name: x.to(device, non_blocking=non_blocking) for name, x in movable.items()})
