"""Part-aware attention over gathered tokens: the release's output, whatever the masks, at a fraction of the
work."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from inference_server.poseanything.models import part_aware_attention, part_tokens  # noqa: E402
from inference_server.poseanything.models.part_tokens import PartTokens  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformerBlock  # noqa: E402
from tests.benchmarks.ptcm import flops, runs  # noqa: E402
from tests.golden import recordings  # noqa: E402
from tests.model.masked_part_attention import MaskedPartProcessor, MaskedParts  # noqa: E402
from tests.model.recordings import Recording, relative_error  # noqa: E402
from tests.model.tiny_transformer import tiny_parts, tiny_transformer  # noqa: E402

DIM = 24
Masks = tuple["torch.Tensor", "torch.Tensor"]


def make_masks(densities: list[float], batch_size: int = 1, frames: int = 4, seed: int = 0) -> Masks:
    """`[B, P, h, w]` and `[B, F - 1, P, h, w]`, each part on about that share of the tokens."""
    masks = torch.rand(
        batch_size, frames, len(densities), 5, 7, generator=torch.Generator().manual_seed(seed)
    )
    masks = masks < torch.tensor(densities)[:, None, None]
    return masks[:, 0], masks[:, 1:]


def make_block(empty: str = "shared") -> PoseAnythingTransformerBlock:
    return tiny_transformer(num_layers=1, part_attention_empty=empty).blocks[0]


def make_hidden_states(masks: Masks) -> torch.Tensor:
    batch_size, frames, _, height, width = masks[1].shape
    return torch.randn(
        batch_size, (frames + 1) * height * width, DIM, generator=torch.Generator().manual_seed(7)
    )


def masked(block: PoseAnythingTransformerBlock, hidden_states: torch.Tensor, masks: Masks) -> torch.Tensor:
    """The release's arithmetic, on a copy."""
    processor = block.part_attn.processor
    block.part_attn.set_processor(MaskedPartProcessor())
    try:
        return block.attend_parts_(hidden_states.clone(), MaskedParts(*masks))
    finally:
        block.part_attn.set_processor(processor)


def gathered(block: PoseAnythingTransformerBlock, hidden_states: torch.Tensor, masks: Masks) -> torch.Tensor:
    """Ours, on a copy."""
    return block.attend_parts_(hidden_states.clone(), PartTokens.from_masks(*masks))


def assert_same_as_masked(empty: str, masks: Masks) -> None:
    block, hidden_states = make_block(empty), make_hidden_states(masks)
    with torch.no_grad():
        ours, theirs = (attend(block, hidden_states, masks) for attend in (gathered, masked))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("recording", recordings("*_io.npz"), indirect=True)
def test_recorded_output(recording: Recording):
    block, parts = recording.transformer.blocks[1], recording.parts
    hidden_states = recording["block1_pre_norm4"]
    norm_hidden_states = block.norm_part(hidden_states)
    assert relative_error(norm_hidden_states, recording["block1_norm4_out"]) < 1e-4
    with torch.no_grad():
        tokens, shared = block.part_attn(*parts.gather(norm_hidden_states), parts)
    output = parts.write_(torch.zeros_like(hidden_states), tokens, shared)
    assert relative_error(output[:, parts.first_length :], recording["block1_ptcm_out"]) < 1e-4


@pytest.mark.parametrize("recording", recordings("*_io.npz"), indirect=True)
def test_recorded_output_of_single_parts(recording: Recording):
    block = recording.transformer.blocks[1]
    norm_hidden_states = recording["block1_norm4_out"]
    for part, recorded in enumerate(recording["block1_ptcm_single"]):
        parts = PartTokens.from_masks(
            recording["first_masks"][[part]], recording["union_mask"][:, [part]], len(norm_hidden_states)
        )
        with torch.no_grad():
            tokens, shared = block.part_attn(*parts.gather(norm_hidden_states), parts)
        output = parts.write_(torch.zeros_like(norm_hidden_states), tokens, shared)
        assert relative_error(output[:, parts.first_length :], recorded) < 1e-4


@pytest.mark.parametrize("recording", recordings("cost*.json"))
def test_recorded_arithmetic(recording):
    """The block of the real size, and what the release's way of part-aware attention adds to it."""
    recorded = json.loads(recording.read_text())["flop_counter_meta_real"]
    with torch.no_grad():
        made = runs(3072, 14336, "meta")
        assert flops(made["without"]) == recorded["without"]
        assert flops(made["as released"]) == recorded["with"]


densities = st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0]), min_size=1, max_size=10)


@pytest.mark.parametrize("empty", ["shared", "excluded"])
@given(densities, st.integers(1, 2), st.integers(2, 4), st.integers(0, 99))
def test_equals_masking_everything(
    empty: str, densities: list[float], batch_size: int, frames: int, seed: int
):
    assert_same_as_masked(empty, make_masks(densities, batch_size, frames, seed))


@pytest.mark.parametrize("empty", ["shared", "excluded"])
@pytest.mark.parametrize(
    "densities",
    [[0.0], [1.0], [0.2], [0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.3], [0.1] * 10],
    ids=["empty", "full", "one", "all empty", "overlapping", "mixed", "ten"],
)
def test_equals_masking_everything_at_the_edges(empty: str, densities: list[float]):
    assert_same_as_masked(empty, make_masks(densities))


@pytest.mark.parametrize("empty", ["shared", "excluded"])
@pytest.mark.parametrize("frame", ["first", "later"])
def test_a_part_that_is_gone_from_some_frames(empty: str, frame: str):
    first, later = make_masks([0.3, 0.3, 0.3])
    (first if frame == "first" else later.transpose(0, 2))[0, 1] = False
    assert_same_as_masked(empty, (first, later))


def test_frame_0_stays_and_tokens_outside_all_parts_share_one_output():
    masks = make_masks([0.2, 0.2])
    hidden_states = make_hidden_states(masks)
    with torch.no_grad():
        added = gathered(make_block(), hidden_states, masks) - hidden_states
    outside = ~masks[1].any(2).flatten(1)
    assert not added[:, :35].any()
    assert added[:, 35:].any()
    shared = added[:, 35:][outside]
    torch.testing.assert_close(shared, shared[:1].expand_as(shared), rtol=0, atol=1e-5)


def test_excluded_tokens_get_nothing():
    masks = make_masks([0.2, 0.2])
    hidden_states = make_hidden_states(masks)
    with torch.no_grad():
        added = gathered(make_block("excluded"), hidden_states, masks) - hidden_states
    inside = masks[1].any(2).flatten(1)
    assert not added[:, 35:][~inside].any()
    assert added[:, 35:][inside].abs().amax(-1).all()


def test_masks_without_a_batch_serve_every_sample():
    (first, later), block = make_masks([0.3, 0.5]), make_block()
    hidden_states = torch.randn(2, 4 * 35, DIM)
    parts = PartTokens.from_masks(first[0].numpy(), later[0].numpy(), batch_size=2)
    with torch.no_grad():
        together = block.attend_parts_(hidden_states.clone(), parts)
        apart = [gathered(block, sample, (first, later)) for sample in hidden_states.split(1)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_masking_everything():
    masks, block = make_masks([0.3, 1.0, 0.0, 0.4]), make_block()
    hidden_states = make_hidden_states(masks)

    def gradients(attend: Callable) -> dict[str, torch.Tensor]:
        block.zero_grad()
        inputs = hidden_states.clone().requires_grad_()
        attend(block, inputs, masks).square().mean().backward()
        return {"input": inputs.grad} | {n: p.grad for n, p in block.named_parameters() if p.grad is not None}

    ours, theirs = gradients(gathered), gradients(masked)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("backend", ["native", "_native_math", "flash", "sage"])
def test_every_backend_gives_the_same(backend: str):
    masks, block = make_masks([0.3, 0.5, 0.0]), make_block()
    hidden_states = make_hidden_states(masks)
    with torch.no_grad():
        default = gathered(block, hidden_states, masks)
        block.part_attn.set_attention_backend(backend)
        torch.testing.assert_close(gathered(block, hidden_states, masks), default, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("empty", ["shared", "excluded"])
@pytest.mark.parametrize("densities", [[0.3, 0.1, 0.6], [1.0, 0.3], [0.0, 0.2]])
def test_the_ragged_kernel_gives_the_same(empty: str, densities: list[float]):
    """The kernel runs on CUDA alone: here its contract stands in for it, the merging of the weighted key is
    ours."""

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, return_aux):
        assert return_aux.lse
        assert (max_q, max_k) == (cu_seq_q.diff().max(), cu_seq_k.diff().max())
        outputs, log_sums = [], []
        for q, k, v in zip(
            query.tensor_split(cu_seq_q[1:-1].long()),
            key.tensor_split(cu_seq_k[1:-1].long()),
            value.tensor_split(cu_seq_k[1:-1].long()),
        ):
            logits = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
            outputs.append(torch.einsum("hqk,khd->qhd", logits.softmax(-1), v))
            log_sums.append(logits.logsumexp(-1))
        return torch.cat(outputs), torch.cat(log_sums, dim=1)

    with (
        mock.patch.object(part_aware_attention, "varlen_attn", varlen_attn),
        mock.patch.object(
            part_aware_attention.PartAttnProcessor, "_has_ragged_kernel", lambda self, query: True
        ),
    ):
        assert_same_as_masked(empty, make_masks(densities, batch_size=2))


@given(densities, st.integers(2, 6), st.integers(0, 99))
def test_pieces_of_the_sequence_make_the_whole(densities: list[float], ranks: int, seed: int):
    masks = make_masks(densities, batch_size=2, frames=2, seed=seed)
    whole, hidden_states = PartTokens.from_masks(*masks), make_hidden_states(masks)
    tokens, keys = whole.gather(hidden_states)
    found_keys, written = torch.zeros_like(keys), []
    for rank in range(ranks):
        with (
            mock.patch("torch.distributed.get_rank", lambda group, rank=rank: rank),
            mock.patch("torch.distributed.get_world_size", lambda group: ranks),
            mock.patch.object(part_tokens.collectives, "all_reduce", lambda tensor, op, group: tensor),
        ):
            piece = hidden_states[:, part_tokens.sequence_share(whole.sequence_length, "all")].clone()
            parts = whole.shard("all")
            piece_tokens, piece_keys = parts.gather(piece)
        found_keys += piece_keys
        written.append(parts.write_(piece, 2 * piece_tokens, torch.ones(2, DIM)))
    torch.testing.assert_close(found_keys, keys)
    expected = whole.write_(hidden_states.clone(), 2 * tokens, torch.ones(2, DIM))
    torch.testing.assert_close(torch.cat(written, dim=1), expected)


def test_moves_to_another_device_whole():
    parts = tiny_parts().to("meta")
    indices = [parts.queries.rows, parts.keys.offsets, parts.tokens, parts.log_outside, parts.first_masks]
    assert {index.device.type for index in indices} == {"meta"}


def test_costs_at_most_four_percent_of_a_block():
    """At the size of 832x480x81, five parts over a third of the tokens; the release's own way costs a third
    more."""
    with torch.no_grad():
        counted = {name: flops(run) for name, run in runs(3072, 14336, "meta").items()}
    assert counted["ours"] <= 1.04 * counted["without"]
    assert counted["as released"] > 1.3 * counted["without"]


@pytest.mark.parametrize(
    ("first", "frames", "message"),
    [
        ((2, 5, 7), (3, 3, 5, 7), "don't belong together"),
        ((2, 5, 7), (3, 2, 7, 5), "don't belong together"),
        ((1, 2, 5, 7), (2, 3, 2, 5, 7), "don't belong together"),
        ((5, 7), (3, 2, 5, 7), "don't belong together"),
        ((0, 5, 7), (3, 0, 5, 7), "no part"),
    ],
)
def test_masks_that_make_no_sense(first: tuple, frames: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        PartTokens.from_masks(torch.ones(first, dtype=torch.bool), torch.ones(frames, dtype=torch.bool))


def test_an_unknown_choice_for_empty_tokens():
    with pytest.raises(ValueError, match="'shared', 'excluded'"):
        make_block("dropped")


@pytest.mark.parametrize("dim_head, fits", [(128, True), (8, True), (12, False), (264, False)])
def test_the_ragged_kernel_is_used_for_heads_that_it_takes_only(dim_head: int, fits: bool):
    """A card refused heads of 12 features: the kernel takes multiples of 8 up to 256."""
    query = mock.Mock(is_cuda=True, dtype=torch.bfloat16, requires_grad=False, shape=(1, 4, 2, dim_head))
    with (
        mock.patch("torch.backends.cuda.is_flash_attention_available", lambda: True),
        mock.patch("torch.cuda.get_device_capability", lambda device: (9, 0)),
    ):
        assert part_aware_attention.PartAttnProcessor()._has_ragged_kernel(query) is fits
