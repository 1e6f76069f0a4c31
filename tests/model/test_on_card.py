"""What only a CUDA card can show."""

from __future__ import annotations

from unittest import mock

import pytest

torch = pytest.importorskip("torch")

from inference_server.poseanything.models import part_aware_attention  # noqa: E402
from inference_server.poseanything.models.part_tokens import PartTokens  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card"),
]


@torch.no_grad()
@pytest.mark.parametrize("empty", ["shared", "excluded"])
def test_the_ragged_kernel_gives_what_padded_parts_give(empty):
    """In bfloat16, which it needs, against the padded parts' float32."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(4, 3, 6, 8, generator=generator) < 0.4
    hidden_states = torch.randn(1, 4 * 6 * 8, 128, generator=generator).to("cuda", torch.bfloat16)
    parts = PartTokens.from_masks(masks[0], masks[1:]).to("cuda")
    attention = part_aware_attention.PartAwareCrossAttention(128, 2, 64, 1e-6, empty).to(
        "cuda", torch.bfloat16
    )
    processor = attention.processor
    tokens, first = parts.gather(hidden_states)
    if not processor._has_ragged_kernel(tokens.unflatten(-1, (2, 64))):
        pytest.skip("this card or torch has no ragged kernel")
    ragged = processor(attention, tokens, first, parts)
    with mock.patch.object(
        part_aware_attention.PartAttnProcessor, "_has_ragged_kernel", lambda self, query: False
    ):
        padded = processor(attention, tokens, first, parts)
    for one, other in zip(ragged, padded):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
