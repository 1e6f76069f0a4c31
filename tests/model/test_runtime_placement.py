"""The memory plan: what it promises holds, it explains itself, and whatever it does to the model changes no
frame."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

from inference_server.poseanything.checkpoints import (
    find_weights,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from inference_server.poseanything.checkpoints.float8 import FLOAT8, Float8Linear, quantize_weight
from inference_server.poseanything.checkpoints.text_encoder import WAN_T5_KEYS, config_from_shapes
from inference_server.poseanything.checkpoints.vae import config_from_wan
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime.card import GIB, Card
from inference_server.poseanything.runtime.placement import (
    CPU_RUNGS,
    CUDA_RUNGS,
    RESERVE_BYTES,
    MemoryPlan,
    Rung,
    ladder,
    plan,
)
from inference_server.poseanything.runtime.requirements import (
    FLOAT8_BYTES_PER_VALUE,
    TEXT_BYTES,
    ModelSizes,
    Shape,
    decoding_bytes,
    denoising_bytes,
    encoding_bytes,
)
from inference_server.poseanything.runtime.streaming import PINNED_SLOTS, BlockStream, keep_embedding_on_host
from tests.model.checkpoint_files import (
    random_tensors,
    save_release,
    transformer_shapes,
    wan_t5_shapes,
    wan_vae_shapes,
)
from tests.model.live_bytes import LiveBytes
from tests.model.tiny_transformer import tiny_inputs, tiny_parts, tiny_transformer

RELEASED = ModelSizes()
CLIP = Shape(832, 480, 81)


def cuda_card(gigabytes: float, host: float = 32, bfloat16: bool = True) -> Card:
    """A card as sold, with what a desktop and CUDA itself take of it."""
    return Card(
        f"a card of {gigabytes} GB",
        torch.device("cuda"),
        int(gigabytes * GIB - 0.75 * GIB),
        int(host * GIB),
        bfloat16,
    )


def cpu_card(gigabytes: float) -> Card:
    return Card("the processor", torch.device("cpu"), int(gigabytes * GIB), int(gigabytes * GIB))


cards = st.one_of(
    st.builds(cuda_card, st.floats(2, 100), st.floats(4, 128), st.booleans()),
    st.builds(cpu_card, st.floats(4, 128)),
)
shapes = st.builds(
    Shape,
    st.sampled_from([256, 480, 832, 1280]),
    st.sampled_from([256, 480, 704]),
    st.sampled_from([1, 41, 81, 121]),
    st.sampled_from([1, 2, 4]),
)


def rounds_nothing(chosen: MemoryPlan) -> bool:
    return all(
        chosen.load_options(name).get("quantization") is None
        for name in ("transformer", "vae", "text_encoder")
    )


def test_a_24_gb_card_keeps_the_transformer_and_rounds_nothing():
    chosen = plan(cuda_card(24), RELEASED, CLIP)
    assert chosen.fits and rounds_nothing(chosen) and not chosen.vae_tiling
    assert (chosen.transformer, chosen.text_encoder) == ("resident", "streamed")
    assert "float8" not in chosen.reason
    # All of it in bfloat16 is more than such a card has.
    everything = 2 * (RELEASED.transformer + RELEASED.text_layers + RELEASED.vae)
    assert everything + 4 * GIB > chosen.card.free_bytes
    assert plan(cuda_card(32), RELEASED, CLIP).text_encoder == "resident"


@pytest.mark.parametrize("gigabytes, blocks", [(16, 15), (12, 5)])
def test_12_and_16_gb_cards_round_nothing_and_keep_what_blocks_they_can(gigabytes, blocks):
    chosen = plan(cuda_card(gigabytes), RELEASED, CLIP)
    assert chosen.fits and rounds_nothing(chosen) and not chosen.vae_tiling
    assert blocks <= chosen.resident_blocks < RELEASED.blocks
    assert 0.8 * chosen.card.free_bytes < chosen.peak_bytes <= 0.85 * chosen.card.free_bytes
    streamed = RELEASED.blocks - chosen.resident_blocks
    assert chosen.held_bytes == streamed * 2 * RELEASED.block
    assert f"{chosen.resident_blocks} of the transformer's 30 blocks" in chosen.reason


def test_a_small_host_gets_float8_on_the_card_before_it_runs_out():
    chosen = plan(cuda_card(12, host=6), RELEASED, CLIP)
    assert (chosen.transformer, chosen.quantization, chosen.fits) == ("resident", "fp8", True)


def test_an_8_gb_card_still_makes_the_clip():
    assert plan(cuda_card(8), RELEASED, CLIP).fits


def test_loras_take_room_on_the_card():
    with_loras = dataclasses.replace(RELEASED, adapter_bytes=3 * GIB)
    chosen, without = (plan(cuda_card(16), sizes, CLIP) for sizes in (with_loras, RELEASED))
    assert chosen.fits and chosen.resident_blocks < without.resident_blocks


def test_a_card_without_bfloat16_gets_float16_where_that_is_wide_enough():
    chosen = plan(cuda_card(16, bfloat16=False), RELEASED, CLIP)
    dtypes = {
        name: chosen.load_options(name)["torch_dtype"] for name in ("transformer", "vae", "text_encoder")
    }
    assert dtypes == {"transformer": torch.float16, "vae": torch.float32, "text_encoder": torch.bfloat16}


@given(cards, shapes, st.lists(st.sampled_from(["card", "host"]), min_size=12, max_size=12))
def test_stepping_down_ends_and_takes_less_of_what_ran_out(card, shape, places):
    chosen = plan(card, RELEASED, shape)
    rungs = ladder(card, RELEASED, shape)
    assert not any(rung.fits for rung in rungs[: rungs.index(chosen)])
    for where in places:
        lower = chosen.step_down(where)
        if lower is None:
            break
        assert rungs.index(lower) > rungs.index(chosen)
        if where == "card" or card.device.type == "cpu":
            assert lower.peak_bytes < chosen.peak_bytes and lower.host_bytes <= card.host_bytes
        else:
            assert lower.host_bytes < chosen.host_bytes
        chosen = lower
    else:
        pytest.fail("it never ends")


def test_a_host_that_runs_out_is_spared_by_float8_that_stays_on_the_card():
    """It takes more of the card than streaming does, and nothing of the host."""
    streaming = plan(cuda_card(12), RELEASED, CLIP)
    while streaming.resident_blocks:
        streaming = streaming.step_down("card")
    lower = streaming.step_down("host")
    assert (lower.transformer, lower.quantization, lower.fits) == ("resident", "fp8", True)
    assert lower.peak_bytes > streaming.peak_bytes
    assert streaming.step_down("card").peak_bytes < streaming.peak_bytes


@pytest.mark.parametrize(
    "total, free, host, said",
    [
        (8, 7.3, 32, "which has 8.0 in all; choose a smaller size or fewer frames, or use a larger card."),
        (40, 3, 32, "which has 3.0 free while other programs hold 37.0; close other programs"),
        (24, 20, 1, "of the machine's memory, which has 1.0 free; close other programs"),
    ],
)
def test_a_shortage_says_what_to_do(total, free, host, said):
    card = Card("a card", torch.device("cuda"), int(free * GIB), int(host * GIB), True, total * GIB)
    last = ladder(card, RELEASED, Shape(1280, 704, 81, batch_size=4))[-1]
    assert said in last.shortage and last.shortage.startswith("A clip of 1280 x 704 x 81 takes")


def test_float8_that_was_asked_for_goes_with_the_next_request():
    asked = plan(cuda_card(80), RELEASED, CLIP, float8=True)
    assert asked.quantization == "fp8" and asked.load_options("text_encoder")["quantization"] is None
    assert rounds_nothing(plan(cuda_card(80), RELEASED, CLIP, asked))
    assert plan(cuda_card(80), RELEASED, CLIP, asked, float8=True).placement == asked.placement
    lower = asked
    while lower:
        assert lower.quantization == "fp8"
        lower = lower.step_down()


def test_a_card_that_others_hold_is_told_where_it_costs_something():
    crowded = dataclasses.replace(cuda_card(12), total_bytes=24 * GIB)
    assert "11.2 GiB free, while other programs hold 12.8, and" in plan(crowded, RELEASED, CLIP).reason
    roomy = dataclasses.replace(cuda_card(80), total_bytes=96 * GIB)
    assert "other programs" not in plan(roomy, RELEASED, CLIP).reason


def test_memory_that_runs_out_against_the_estimate_is_not_explained_by_it():
    chosen = plan(cuda_card(12), RELEASED, CLIP)
    assert chosen.fits and "seemed to be enough" in chosen.shortage


def test_what_is_loaded_stays_while_other_programs_take_a_little():
    loaded = plan(cuda_card(16), RELEASED, CLIP)
    for gigabytes in (15.9, 18, 40):
        chosen = plan(cuda_card(gigabytes), RELEASED, CLIP, loaded)
        assert chosen.placement == loaded.placement and chosen.fits
    assert plan(cuda_card(12), RELEASED, CLIP, loaded).resident_blocks < loaded.resident_blocks


@given(cards, shapes, st.floats(0, 40))
def test_more_memory_never_makes_it_worse(card, shape, more):
    larger = Card(
        card.name,
        card.device,
        card.free_bytes + int(more * GIB),
        card.host_bytes + int(more * GIB),
        card.bfloat16,
    )
    order = CPU_RUNGS if card.device.type == "cpu" else CUDA_RUNGS
    before, after = (plan(one, RELEASED, shape) for one in (card, larger))
    if before.rung == after.rung:
        assert after.resident_blocks >= before.resident_blocks
    else:
        assert order.index(after.rung) < order.index(before.rung)


@given(cards, shapes)
def test_a_plan_explains_itself_in_sentences(card, shape):
    reason = plan(card, RELEASED, shape).reason
    assert (
        reason.startswith(card.name)
        and reason.endswith(".")
        and not any(mark in reason for mark in (": ", "..", "  "))
        and "\n" not in reason
    )
    assert f"{card.free_bytes / GIB:.1f} GiB free" in reason and f"{shape.width} x {shape.height}" in reason


def test_a_quantised_file_is_planned_at_its_size_and_never_quantised_again():
    small = ModelSizes(stored="gguf", stored_bytes_per_value=0.6)
    chosen = plan(cuda_card(12), small, CLIP)
    assert chosen.transformer == "resident" and chosen.quantization is None
    assert all(rung.quantization is None for rung in ladder(cuda_card(12), small, CLIP))
    assert "gguf weights as in the file" in chosen.reason


def real_transformer(layers: int) -> PoseAnythingTransformer3DModel:
    model = PoseAnythingTransformer3DModel(num_layers=layers)
    for name, parameter in model.named_parameters():
        kept = any(part in model._keep_in_fp32_modules for part in name.split("."))
        parameter.data = parameter.data.to(torch.float32 if kept else torch.bfloat16)
    return model.eval()


def real_vae() -> AutoencoderKLWan:
    return (
        AutoencoderKLWan.from_config(config_from_wan(wan_vae_shapes(160, 256), "here"))
        .to(torch.bfloat16)
        .eval()
    )


def real_text_encoder(layers: int) -> UMT5EncoderModel:
    theirs = wan_t5_shapes(256384, 4096, 4096, 10240, 64, layers)
    config = config_from_shapes({WAN_T5_KEYS.to_ours(name): shape for name, shape in theirs.items()}, "here")
    encoder = UMT5EncoderModel(UMT5Config(**config)).to(torch.bfloat16).eval()
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    return encoder


def test_the_sizes_planned_with_are_the_released_models():
    with torch.device("meta"):
        transformer, vae, text_encoder = PoseAnythingTransformer3DModel(), real_vae(), real_text_encoder(24)

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert RELEASED.transformer == count(transformer) and RELEASED.block == count(transformer.blocks[0])
    assert RELEASED.vae == count(vae)
    assert RELEASED.text_layers == count(text_encoder) - text_encoder.shared.weight.numel()


def assert_close_above(promised: int, counted: int):
    """What is promised is enough, and not so much more that a rung would be missed."""
    assert counted <= promised <= 1.2 * counted, (
        f"{promised / GIB:.3f} GiB promised, {counted / GIB:.3f} counted"
    )


@pytest.mark.parametrize("shape", [CLIP, Shape(1280, 704, 121), Shape(832, 480, 81, batch_size=2)])
def test_a_step_needs_the_memory_that_the_plan_says(shape):
    latent_frames, height, width = 1 + (shape.num_frames - 1) // 4, shape.height // 16, shape.width // 16
    with torch.device("meta"):
        model = real_transformer(layers=2)
        latents = torch.empty(shape.batch_size, 48, latent_frames, height, width, dtype=torch.bfloat16)
        timestep = torch.empty(shape.batch_size, latent_frames, dtype=torch.bfloat16)
        text = torch.empty(shape.batch_size, 512, 4096, dtype=torch.bfloat16)
    with torch.no_grad(), LiveBytes([*model.parameters(), *model.buffers(), latents, timestep, text]) as live:
        model(latents, timestep, text, latents)
    assert_close_above(denoising_bytes(RELEASED, shape, 2, expands=False), live.peak)


@pytest.mark.parametrize("width, height, tiling", [(832, 480, False), (832, 480, True), (1280, 704, False)])
def test_decoding_needs_the_memory_that_the_plan_says(width, height, tiling):
    with torch.device("meta"):
        vae = real_vae()
        latents = torch.empty(1, 48, 2, height // 16, width // 16)
    if tiling:
        vae.enable_tiling()
    with torch.no_grad(), LiveBytes([*vae.parameters(), latents]) as live:
        for _ in decode_frames(vae, latents):
            pass
    assert_close_above(decoding_bytes(Shape(width, height, 81), 2, tiling), live.peak)


def test_encoding_needs_the_memory_that_the_plan_says():
    with torch.device("meta"):
        vae = real_vae()
        video = torch.empty(1, 3, 9, 480, 832)
    with torch.no_grad(), LiveBytes([*vae.parameters(), video]) as live:
        for _ in encode_frames(vae, video):
            pass
    assert_close_above(encoding_bytes(CLIP, 2), live.peak)


def test_reading_a_prompt_needs_no_more_memory_than_the_plan_says():
    with torch.device("meta"):
        encoder = real_text_encoder(layers=2)
        ids = torch.empty(1, 512, dtype=torch.int64)
    with torch.no_grad(), LiveBytes([*encoder.parameters(), ids]) as live:
        encoder(ids)
    assert live.peak <= TEXT_BYTES <= 2 * live.peak


def placed(place: str, quantization=None, tiling: bool = False, blocks: int | None = None) -> MemoryPlan:
    """A plan for the processor that keeps the model as one for a card would. `blocks`: how many stay."""
    if blocks is None:
        blocks = RELEASED.blocks if place == "resident" else 0
    rung = Rung("all" if place == "resident" else "none", place, quantization, tiling, torch.float32)
    return MemoryPlan(cpu_card(64), RELEASED, CLIP, rung, blocks)


def predict(model):
    with torch.no_grad():
        return model(**tiny_inputs(), parts=tiny_parts()).sample


@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("quantization", [None, "fp8"])
def test_streaming_changes_nothing_of_what_the_transformer_computes(tmp_path, quantization, blocks):
    tiny_transformer().save_pretrained(tmp_path)
    chosen = placed("streamed", quantization, blocks=blocks)
    options = chosen.load_options("transformer")
    wanted = predict(load_transformer(tmp_path, **options))
    model = load_transformer(tmp_path, **options)
    (stream,) = chosen.apply({"transformer": model})
    assert len(stream.blocks) == len(model.blocks) - blocks
    for _ in range(3):
        assert torch.equal(predict(model), wanted)
        stream.park()
    assert any(isinstance(module, Float8Linear) for module in model.modules()) == (quantization == "fp8")


@pytest.mark.parametrize("rung", [rung for rung in CUDA_RUNGS if rung.quantization is None], ids=str)
def test_the_released_model_holds_the_bytes_that_the_plan_counts(rung):
    """Its own parts are placed as on a card, without storage, and their tensors counted."""
    card = dataclasses.replace(cuda_card(16), device=torch.device("meta"))
    chosen = next(one for one in ladder(card, RELEASED, CLIP) if one.rung == rung)
    with torch.device("meta"):
        transformer, vae, text_encoder = real_transformer(30), real_vae(), real_text_encoder(24)
        streams = chosen.apply({"transformer": transformer, "vae": vae})
        if chosen.text_encoder == "streamed":
            text = BlockStream(text_encoder.encoder.block, card.device, pin=False)
            on_card = 0
        else:
            on_card = sum(tensor.nbytes for tensor in held(text_encoder.encoder.block))
    streamed = {id(tensor) for stream in streams for block in stream.blocks for tensor in held(block.module)}
    on_card += sum(
        tensor.nbytes for model in (transformer, vae) for tensor in held(model) if id(tensor) not in streamed
    )
    on_card += sum(PINNED_SLOTS * stream.blocks[0].nbytes for stream in streams)
    assert chosen._weights_bytes - RESERVE_BYTES == pytest.approx(on_card, rel=0.02)
    assert chosen.held_bytes == pytest.approx(sum(stream.host_bytes for stream in streams), rel=0.002)
    if chosen.text_encoder == "streamed":
        assert chosen._text_bytes - TEXT_BYTES == pytest.approx(text.blocks[0].nbytes, rel=0.01)


def test_a_float8_layer_holds_the_bytes_that_the_plan_counts():
    layer = Float8Linear(*quantize_weight(torch.randn(3072, 1024)))
    values = 3072 * 1024
    assert FLOAT8_BYTES_PER_VALUE * values == pytest.approx(sum(t.nbytes for t in held(layer)), rel=0.005)


def held(model: torch.nn.Module) -> list[torch.Tensor]:
    return list({id(t): t for t in [*model.parameters(), *model.buffers()]}.values())


def test_a_streamed_gguf_computes_what_a_resident_one_does(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "wan")
    for name, tensor in random_tensors(transformer_shapes()).items():
        if name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    latents, text = torch.randn(2, 1, 4, 2, 8, 8), torch.randn(1, 5, 16)
    outputs = []
    for place in ("resident", "streamed"):
        model = load_transformer(tmp_path / "model.gguf", torch_dtype=torch.float32)
        placed(place).apply({"transformer": model})
        with torch.no_grad():
            outputs.append(model(latents[0], torch.tensor([500.0]), text, latents[1]).sample)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("place", ["resident", "streamed"])
def test_the_text_encoder_reads_the_same_with_its_table_left_behind(tmp_path, place):
    weights = find_weights(save_release(tmp_path))
    plain, tokenizer = load_text_encoder(weights.text_encoder, tokenizer=weights.tokenizer)
    ids = tokenizer("deer runs", return_tensors="pt").input_ids
    encoder, _ = load_text_encoder(weights.text_encoder, tokenizer=weights.tokenizer)
    placed(place).apply({"text_encoder": encoder, "tokenizer": tokenizer, "transformer": None})
    assert sum(p.numel() for p in encoder.parameters()) + plain.shared.weight.numel() == sum(
        p.numel() for p in plain.parameters()
    )
    with torch.no_grad():
        assert torch.equal(encoder(ids).last_hidden_state, plain(ids).last_hidden_state)
        keep_embedding_on_host(encoder)  # again: nothing more to do
        assert torch.equal(encoder(ids).last_hidden_state, plain(ids).last_hidden_state)


def test_tiles_are_switched_as_planned(tmp_path):
    vae = load_vae(find_weights(save_release(tmp_path)).vae)
    placed("resident", tiling=True).apply({"vae": vae})
    assert vae.use_tiling
    placed("resident").apply({"vae": vae})
    assert not vae.use_tiling


def test_the_sizes_of_files_are_read_from_their_headers(tmp_path):
    weights = find_weights(save_release(tmp_path))
    sizes = ModelSizes.of(weights)
    model = load_transformer(weights.transformer)
    assert sizes.transformer == sum(parameter.numel() for parameter in model.parameters())
    assert (sizes.blocks, sizes.dim, sizes.ffn_dim, sizes.stored) == (2, 128, 64, "plain")
    assert (sizes.latent_pixels, sizes.patch_pixels) == (16, 2)

    tensors = random_tensors(transformer_shapes(), torch.bfloat16)
    layers = [name for name, tensor in tensors.items() if name.startswith("blocks.") and tensor.ndim == 2]
    save_file(tensors | {name: tensors[name].to(FLOAT8) for name in layers}, tmp_path / "fp8.safetensors")
    assert ModelSizes.of(find_weights(tmp_path, transformer="fp8.safetensors")).stored == "fp8"


def test_this_machine_is_described_as_it_is():
    card = Card.of("cpu")
    assert card.device.type == "cpu" and 0 < card.free_bytes == card.host_bytes
    assert plan(
        card,
        ModelSizes(transformer=10**6, blocks=1, block=10**5, vae=10**5, text_layers=10**5),
        Shape(64, 64, 5),
    ).fits
