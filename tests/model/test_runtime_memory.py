"""The memory plan: what it promises holds, it explains itself, and whatever it does to the model changes no
frame."""

from __future__ import annotations

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
from inference_server.poseanything.checkpoints.float8 import FLOAT8, Float8Linear
from inference_server.poseanything.checkpoints.text_encoder import WAN_T5_KEYS, config_from_shapes
from inference_server.poseanything.checkpoints.vae import config_from_wan
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime.memory import (
    GIB,
    TEXT_BYTES,
    Card,
    MemoryPlan,
    ModelSizes,
    Shape,
    keep_embedding_on_host,
    ladder,
    plan,
)
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


def test_a_24_gb_card_holds_everything():
    chosen = plan(cuda_card(24), RELEASED, CLIP)
    assert (chosen.transformer, chosen.text_encoder, chosen.vae_tiling) == ("resident", "resident", False)
    assert chosen.dtype == torch.bfloat16 and chosen.quantization is None and chosen.fits


@pytest.mark.parametrize("gigabytes, share", [(16, 0.6), (12, 0.75)])
def test_12_and_16_gb_cards_compute_the_model_as_released_with_room_to_spare(gigabytes, share):
    card = cuda_card(gigabytes)
    chosen = plan(card, RELEASED, CLIP)
    assert chosen.quantization is None and not chosen.vae_tiling and chosen.fits
    assert chosen.peak_bytes < share * card.free_bytes
    assert chosen.transformer == "streamed" and chosen.host_bytes < 16 * GIB


def test_a_12_gb_card_in_a_small_host_keeps_float8_on_the_card():
    chosen = plan(cuda_card(12, host=12), RELEASED, CLIP)
    assert (chosen.transformer, chosen.quantization, chosen.fits) == ("resident", "fp8", True)


def test_an_8_gb_card_still_makes_the_clip():
    assert plan(cuda_card(8), RELEASED, CLIP).fits


def test_a_card_without_bfloat16_gets_float16_where_that_is_wide_enough():
    chosen = plan(cuda_card(16, bfloat16=False), RELEASED, CLIP)
    dtypes = {
        name: chosen.load_options(name)["torch_dtype"] for name in ("transformer", "vae", "text_encoder")
    }
    assert dtypes == {"transformer": torch.float16, "vae": torch.float32, "text_encoder": torch.bfloat16}


@given(cards, shapes)
def test_what_fits_fits_and_stepping_down_ends_and_takes_less_each_time(card, shape):
    chosen = plan(card, RELEASED, shape)
    assert not any(
        rung.fits for rung in ladder(card, RELEASED, shape)[: ladder(card, RELEASED, shape).index(chosen)]
    )
    seen = [chosen]
    while lower := seen[-1].step_down():
        assert lower.peak_bytes < seen[-1].peak_bytes and lower.host_bytes <= card.host_bytes
        seen.append(lower)
    assert len(seen) <= len(ladder(card, RELEASED, shape))


@given(cards, shapes, st.floats(0, 40))
def test_more_memory_never_makes_it_worse(card, shape, more):
    larger = Card(
        card.name,
        card.device,
        card.free_bytes + int(more * GIB),
        card.host_bytes + int(more * GIB),
        card.bfloat16,
    )
    rungs = ladder(card, RELEASED, shape)
    richer = ladder(larger, RELEASED, shape)
    assert richer.index(plan(larger, RELEASED, shape)) <= rungs.index(plan(card, RELEASED, shape))


@given(cards, shapes)
def test_a_plan_explains_itself_in_one_sentence(card, shape):
    reason = plan(card, RELEASED, shape).reason
    assert (
        reason.startswith(card.name)
        and reason.endswith(".")
        and reason.count(": ") == 1
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
    assert_close_above(plan(cuda_card(24), RELEASED, shape)._denoising_bytes, live.peak)


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
    rung = next(
        rung
        for rung in ladder(cuda_card(24), RELEASED, Shape(width, height, 81))
        if rung.vae_tiling == tiling
    )
    assert_close_above(rung._decoding_bytes, live.peak)


def test_encoding_needs_the_memory_that_the_plan_says():
    with torch.device("meta"):
        vae = real_vae()
        video = torch.empty(1, 3, 9, 480, 832)
    with torch.no_grad(), LiveBytes([*vae.parameters(), video]) as live:
        for _ in encode_frames(vae, video):
            pass
    assert_close_above(plan(cuda_card(24), RELEASED, CLIP)._encoding_bytes, live.peak)


def test_reading_a_prompt_needs_no_more_memory_than_the_plan_says():
    with torch.device("meta"):
        encoder = real_text_encoder(layers=2)
        ids = torch.empty(1, 512, dtype=torch.int64)
    with torch.no_grad(), LiveBytes([*encoder.parameters(), ids]) as live:
        encoder(ids)
    largest = 4096 * 10240 * 2  # of two layers on their way through the card
    assert live.peak + 2 * largest <= TEXT_BYTES <= 2 * (live.peak + 2 * largest)


def placed(transformer: str, quantization=None, tiling: bool = False) -> MemoryPlan:
    card = cpu_card(64)
    return MemoryPlan(
        card, RELEASED, CLIP, transformer, transformer, quantization, quantization, tiling, torch.float32
    )


def predict(model):
    with torch.no_grad():
        return model(**tiny_inputs(), parts=tiny_parts()).sample


@pytest.mark.parametrize("quantization", [None, "fp8"])
def test_streaming_changes_nothing_of_what_the_transformer_computes(tmp_path, quantization):
    tiny_transformer().save_pretrained(tmp_path)
    options = placed("streamed", quantization).load_options("transformer")
    wanted = predict(load_transformer(tmp_path, **options))
    model = load_transformer(tmp_path, **options)
    placed("streamed", quantization).apply({"transformer": model})
    for _ in range(3):  # the order of blocks is learnt in the first
        assert torch.equal(predict(model), wanted)
    assert any(isinstance(module, Float8Linear) for module in model.modules()) == (quantization == "fp8")


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
