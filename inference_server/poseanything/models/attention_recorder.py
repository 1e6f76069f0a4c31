"""How the first frame attends to the whole clip, by which parts are matched (paper, Eq. 8 and 11, section
C)."""

from __future__ import annotations

import torch

from ..compat.diffusers import PartitionAnythingSharder, WanAttention, apply_rotary_emb, parallel_mesh


class FirstFrameAttention:
    """Records the self-attention weights of frame 0's tokens in one block, while a normal forward runs
    through it.

    Of the weights only the wanted rows are computed, head by head, never the full matrix.

    Args:
        block: index of the block (27 for matching, at timesteps above 975).
        rows: long `[R]`, the tokens of frame 0 whose rows are wanted; all of them by default.
        on: `"input"` for the weights that the block attends with; `"own_output"` for those it would have,
            were it run once more on its own output, by which the release matches.

    Attributes:
        weights: float32 `[B, R, L]`, summed over the heads, once the block has run; None before that or where
            a cache skips the block.
    """

    def __init__(self, block: int, rows: torch.Tensor | None = None, on: str = "input"):
        if on not in ("input", "own_output"):
            raise ValueError(
                f"Attention is recorded on the block's 'input' or its 'own_output', not on {on!r}."
            )
        self.block = block
        self.rows = rows
        self.on = on
        self.weights: torch.Tensor | None = None

    @torch.no_grad()
    def record(
        self, attn: WanAttention, hidden_states: torch.Tensor, rotary_emb: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        """Computes the weights of `attn` for `hidden_states`, its normed and modulated `[B, L, dim]`
        input."""
        if (mesh := parallel_mesh(getattr(attn.processor, "_parallel_config", None))) is not None:
            hidden_states, *rotary_emb = (
                PartitionAnythingSharder.unshard_anything(x, 1, mesh) for x in (hidden_states, *rotary_emb)
            )
        cos, sin = (x[0, :, 0] for x in rotary_emb)
        rows = self.rows.to(hidden_states.device)

        query = attn.norm_q(attn.to_q(hidden_states[:, rows])).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        query = apply_rotary_emb(query, (cos[rows], sin[rows]), sequence_dim=1) * query.shape[-1] ** -0.5
        key = apply_rotary_emb(key, (cos, sin), sequence_dim=1)

        self.weights = sum(
            torch.softmax(head_query @ head_key.mT, dim=-1, dtype=torch.float32)
            for head_query, head_key in zip(query.unbind(2), key.unbind(2))
        )
