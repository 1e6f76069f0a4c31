"""Which tokens of a clip belong to which part of the subject, as indices to gather them by."""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
import torch.nn.functional as F

from ..compat.torch import collectives


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
        return values[
            self.groups, torch.arange(len(self.rows), device=values.device) - self.offsets[self.groups]
        ]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Ragged:
        return _moved(self, device, non_blocking)


@dataclasses.dataclass(frozen=True, eq=False)
class PartTokens:
    """Which tokens belong to which part: gather indices made once per clip, used by every block and step.

    Tokens are counted over the flattened `[B * L]` sequence. The tokens of later frames that lie in some
    part, T of them, are gathered, projected and written back. Each part has a group of query rows, its own of
    these tokens and a closing row that stands for all the tokens outside of it. A part that frame 0 doesn't
    show gives every token the same result: it has no group. S is the number of groups over the batch, R that
    of their rows.
    """

    first_masks: torch.Tensor  # bool [B, P, N], over the N tokens of frame 0
    later_masks: torch.Tensor  # bool [B, P, L - N], over those of the frames after it
    first_length: int  # tokens of frame 0 in this rank's piece of the sequence, N on a single one
    tokens: torch.Tensor  # [T], the gathered tokens of later frames
    samples: torch.Tensor  # [T], the sample each belongs to
    token_rows: torch.Tensor  # [R - S], the query rows of one such token after the other
    token_groups: torch.Tensor  # [R - S], the group each of these rows is in
    token_offsets: torch.Tensor  # [T], where each one's begin in `token_rows`
    queries: Ragged  # [R] by part, into the gathered tokens; T in the closing rows
    first_tokens: torch.Tensor  # [K], the tokens of frame 0 in some part
    first_held: torch.Tensor | None  # bool [K, 1], those of this rank; None on a single one
    keys: Ragged  # by part, into `first_tokens`
    log_outside: torch.Tensor  # [S], log of the number of frame 0's tokens outside the part
    shown: torch.Tensor  # [S], which of the B * P parts have a group: those that frame 0 shows
    group: dist.ProcessGroup | None = None  # the ranks that share the sequence

    @classmethod
    def from_masks(cls, first: torch.Tensor, frames: torch.Tensor, batch_size: int = 1) -> PartTokens:
        """Indices for P parts from their masks on the token grid (tensors or arrays).

        Args:
            first: bool `[P, h, w]` or `[B, P, h, w]`, the parts in frame 0.
            frames: bool `[F - 1, P, h, w]` or `[B, F - 1, P, h, w]`, the same parts in the later latent
                frames.
            batch_size: how often masks without a batch dimension are repeated (2 where CFG runs as one
                batch).

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
                f"Part masks of shape {tuple(first.shape)} for frame 0 and {tuple(frames.shape)} for the "
                "later frames don't belong together; give [P, h, w] and [F - 1, P, h, w]."
            )
        if first.shape[1] == 0:
            raise ValueError("There is no part in the masks; pass parts=None to run without part attention.")
        return cls._index(first.flatten(2), frames.transpose(1, 2).flatten(2))

    @classmethod
    def _index(
        cls, first: torch.Tensor, later: torch.Tensor, group: dist.ProcessGroup | None = None
    ) -> PartTokens:
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
        token_rows = rows.argsort(stable=True)[: len(rows) - len(parts)]
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
            samples=tokens // length,
            token_rows=token_rows,
            token_groups=queries.groups[token_rows],
            token_offsets=rows_per_token.cumsum(0) - rows_per_token,
            queries=queries,
            first_tokens=torch.where(here, key_samples * length + key_places - held.start, 0),
            first_held=None if group is None else here.unsqueeze(1),
            keys=Ragged.from_lengths(key_rows, first_members.sum(1)),
            log_outside=(~first_members).sum(1).float().log(),
            shown=parts,
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
        """From `[B, L, dim]`, the `[T, dim]` tokens of later frames that ask and the `[K, dim]` of frame 0's
        asked."""
        hidden_states = hidden_states.flatten(0, 1)
        first = hidden_states[self.first_tokens]
        if self.group is not None:
            first = collectives.all_reduce(first.where(self.first_held, 0), "sum", self.group)
        return hidden_states[self.tokens], first

    def sum_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """`[T, dim]`, each of these tokens' query rows added up over the parts it is in, in a fixed order."""
        return F.embedding_bag(self.token_rows, rows, self.token_offsets, mode="sum")

    def sum_parts(self, values: torch.Tensor) -> torch.Tensor:
        """`[T, dim]` from `[S, dim]`, for each of these tokens the sum over the parts it is in, in a fixed
        order."""
        return F.embedding_bag(self.token_groups, values, self.token_offsets, mode="sum")

    def write_(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, outside: torch.Tensor | None
    ) -> torch.Tensor:
        """Puts `[T, dim]` tokens back in place and adds `[B, dim]` to all the others of later frames."""
        if outside is not None:
            hidden_states[:, self.first_length :] += outside.unsqueeze(1)
        hidden_states.view(-1, hidden_states.shape[-1]).index_copy_(0, self.tokens, tokens)
        return hidden_states


def sequence_share(length: int, group: dist.ProcessGroup) -> slice:
    """This rank's piece of a sequence that is split over the ranks of `group`, as `torch.tensor_split`
    splits."""
    rank, (size, longer) = dist.get_rank(group), divmod(length, dist.get_world_size(group))
    begin = rank * size + min(rank, longer)
    return slice(begin, begin + size + (rank < longer))


def _moved(indices, device: torch.device | str, non_blocking: bool):
    """A copy of a dataclass of tensors, on another device."""
    fields = {field.name: getattr(indices, field.name) for field in dataclasses.fields(indices)}
    moved = {
        name: value.to(device, non_blocking=non_blocking)
        for name, value in fields.items()
        if isinstance(value, (torch.Tensor, Ragged))
    }
    return dataclasses.replace(indices, **moved)
