"""Part-aware attention as the release computes it: masks times features, every token in every part's
attention.

`MaskedParts` in place of `PartTokens` and `MaskedPartProcessor` in place of `PartAttnProcessor` make a block
run so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from inference_server.poseanything.models.part_aware_attention import PartAwareCrossAttention


class MaskedParts:
    """Takes the masks that `PartTokens.from_masks` takes, with a batch dimension, and gathers every token."""

    def __init__(self, first: torch.Tensor, frames: torch.Tensor):
        self.first = first.flatten(2)  # [B, P, N]
        self.later = frames.transpose(1, 2).flatten(2)  # [B, P, L - N]

    def gather(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frame_length = self.first.shape[-1]
        return hidden_states[:, frame_length:], hidden_states[:, :frame_length]

    def write_(self, hidden_states: torch.Tensor, tokens: torch.Tensor, outside: None) -> torch.Tensor:
        return torch.cat([hidden_states[:, : self.first.shape[-1]], tokens], dim=1)


class MaskedPartProcessor:
    def __call__(
        self, attn: PartAwareCrossAttention, tokens: torch.Tensor, first: torch.Tensor, parts: MaskedParts
    ) -> tuple[torch.Tensor, None]:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        summed = torch.zeros_like(tokens)
        for kept, asking in zip(parts.first.unbind(1), parts.later.unbind(1)):
            query = heads(attn.norm_q(attn.to_q(tokens * asking.unsqueeze(-1))))
            key = heads(attn.norm_k(attn.to_k(first * kept.unsqueeze(-1))))
            value = heads(attn.to_v(first * kept.unsqueeze(-1)))
            if attn.empty == "shared":
                output = F.scaled_dot_product_attention(query, key, value)
            else:
                logits = (query @ key.mT * query.shape[-1] ** -0.5).masked_fill(
                    ~kept[:, None, None], -torch.inf
                )
                output = logits.softmax(-1).nan_to_num(0.0) @ value * asking[:, None, :, None]
            summed = summed + output.transpose(1, 2).flatten(2)
        output = attn.to_out[0](summed)
        if attn.empty == "excluded":
            answered = parts.later & parts.first.any(-1, keepdim=True)
            output = output * answered.any(1).unsqueeze(-1)
        return output, None
