"""Faster blocks: which attention is chosen, when compiling pays, and what float8 products cost."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from inference_server.poseanything.checkpoints import load_transformer
from inference_server.poseanything.checkpoints.float8 import Float8Linear, quantize_weight
from inference_server.poseanything.conditioning.conditions import InputError
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames
from inference_server.poseanything.runtime import acceleration
from inference_server.poseanything.runtime.acceleration import (
    Compilation,
    CompileChoice,
    candidates,
    choose,
    compile_blocks,
    compile_vae,
    fastest_attention,
    fastest_vae_layout,
    pad_in_convolutions,
    set_float8_products,
    set_vae_layout,
)
from tests.model.tiny_pipeline import tiny_vae
from tests.model.tiny_transformer import CONFIG, tiny_inputs, tiny_parts, tiny_transformer

CARD = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POSEANYTHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hopper(monkeypatch):
    """A card by its name alone; nothing computes on it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a Hopper card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(acceleration.platform, "system", lambda: "Linux")
    monkeypatch.setattr(acceleration, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    "seconds, chosen",
    [
        ({"native": 1.0, "_native_cudnn": 0.7, "flash": 0.8}, "_native_cudnn"),
        ({"native": 1.0, "_native_cudnn": 0.99}, "native"),  # no change for so little
        ({"native": 1.0, "_native_cudnn": None}, "native"),
        ({"native": None, "flash": 2.0}, "flash"),
        ({}, "native"),
    ],
)
def test_the_fastest_attention_is_chosen_where_something_is_gained(seconds, chosen):
    assert choose(seconds) == chosen


def test_what_rounds_to_8_bits_is_tried_on_ada_alone():
    assert "sage" in candidates((8, 9)) and not {"sage"} & {*candidates((9, 0)), *candidates((8, 6))}


def test_a_trial_is_remembered_for_its_machine_and_shape(hopper, monkeypatch):
    tried = []

    def trial(name, device, dtype, heads, head_dim, tokens):
        tried.append((name, tokens))
        return {"native": 2.0, "_native_cudnn": 1.0}.get(name)

    monkeypatch.setattr(acceleration, "_trial", trial)
    asked = (CARD, torch.bfloat16, 24, 128)
    assert fastest_attention(*asked, 8190) == "_native_cudnn"
    assert [name for name, _ in tried] == ["native", "_native_cudnn"]  # no other is installed here
    assert fastest_attention(*asked, 8191) == "_native_cudnn" and len(tried) == 2
    fastest_attention(*asked, 30_000)
    assert len(tried) == 4
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another card")
    fastest_attention(*asked, 8190)
    assert len(tried) == 6
    assert fastest_attention(torch.device("cpu"), torch.float32, 24, 128, 8190) == "native"
    assert len(tried) == 6


def test_compiling_pays_from_the_second_clip_on_and_then_from_every_first(hopper):
    choice = CompileChoice(CARD, "model")
    assert not choice.pays()
    choice.clip_made(compiled=False)
    assert choice.pays() and not CompileChoice(CARD, "model").pays()
    choice.clip_made(compiled=True)
    assert CompileChoice(CARD, "model").pays() and not CompileChoice(CARD, "another model").pays()


def test_compiling_never_pays_without_a_card_or_a_compiler(hopper, monkeypatch):
    choices = [CompileChoice(torch.device("cpu"), "model")]
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    choices.append(CompileChoice(CARD, "model"))
    for choice in choices:
        choice.clip_made(compiled=True)
        assert not choice.pays()


def test_a_cache_folder_that_can_not_be_written_to_costs_only_time(hopper, cache, monkeypatch):
    cache.write_text("a file where the folder would be")
    monkeypatch.setattr(acceleration, "_trial", lambda *asked: 1.0)
    assert fastest_attention(CARD, torch.bfloat16, 24, 128, 100) == "native"


@torch.no_grad()
def test_blocks_go_on_eagerly_where_compiling_fails(caplog):
    from torch._dynamo.exc import BackendCompilerFailed

    tries = []

    def backend(graph, inputs):
        tries.append(1)
        raise RuntimeError("no C compiler")

    model = tiny_transformer()
    wanted = model(**tiny_inputs()).sample
    compile_blocks(model, backend=backend)
    for _ in range(2):
        assert torch.equal(model(**tiny_inputs()).sample, wanted)
    assert len(tries) == 1 and "can't be compiled" in caplog.text and BackendCompilerFailed


@torch.no_grad()
def test_what_goes_wrong_within_a_compiled_block_is_not_taken_for_the_compilers_fault():
    def backend(graph, inputs):
        def run(*inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return run

    model = tiny_transformer()
    compile_blocks(model, backend=backend)
    with pytest.raises(torch.OutOfMemoryError):
        model(**tiny_inputs())


@torch.no_grad()
@pytest.mark.parametrize("scale", ["rows", "whole"])
def test_a_float8_product_is_that_of_what_was_rounded(scale):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 5, 64, generator=generator)
    inputs[0, 0] *= 1000  # each token has a scale of its own
    weight, rows = quantize_weight(torch.randn(48, 64, generator=generator) * 0.02)
    layer = Float8Linear(weight, rows if scale == "rows" else torch.tensor(0.003))
    layer.bias = torch.nn.Parameter(torch.randn(48, generator=generator))
    wanted = layer(inputs)
    layer.multiplies_in_float8 = True
    found = layer(inputs)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert 0 < error.max() < 0.06


@torch.no_grad()
def test_float8_products_are_switched_for_a_whole_model(tmp_path):
    tiny_transformer(attention_head_dim=16).save_pretrained(tmp_path)
    model = load_transformer(tmp_path, torch_dtype=torch.bfloat16, quantization="fp8")
    inputs = {name: tensor.bfloat16() for name, tensor in tiny_inputs().items()} | {"parts": tiny_parts()}
    rounded = model(**inputs).sample
    set_float8_products(model, True)
    assert not torch.equal(model(**inputs).sample, rounded)
    set_float8_products(model, False)
    assert torch.equal(model(**inputs).sample, rounded)
    assert CONFIG["num_layers"] * 14 == sum(isinstance(module, Float8Linear) for module in model.modules())


def test_a_card_without_float8_units_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an Ampere card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    layer = Float8Linear(*quantize_weight(torch.randn(16, 16)))
    monkeypatch.setattr(type(layer.scale), "device", CARD, raising=False)
    with pytest.raises(InputError, match="an Ampere card has no float8 units"):
        set_float8_products(layer, True)


def test_the_vaes_layout_is_tried_once_and_changes_no_more_than_rounding(hopper, monkeypatch):
    tried, times = [], {"contiguous": 1.0, "channels_last": 0.8}

    def trial(vae, device):
        weight = vae.decoder.conv_in.weight
        last = weight.is_contiguous(memory_format=torch.channels_last_3d)
        tried.append("channels_last" if last and not weight.is_contiguous() else "contiguous")
        return times[tried[-1]]

    monkeypatch.setattr(acceleration, "_decoding_trial", trial)
    vae, latents = tiny_vae(), torch.randn(1, 48, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = torch.cat(list(decode_frames(vae, latents)), dim=2)
        assert fastest_vae_layout(vae, CARD) == "channels_last"
        assert tried == ["contiguous", "channels_last"]
        assert fastest_vae_layout(tiny_vae(), CARD) == "channels_last" and len(tried) == 2
        set_vae_layout(vae, "channels_last")
        found = torch.cat(list(decode_frames(vae, latents)), dim=2)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        set_vae_layout(vae, "contiguous")
        assert torch.equal(torch.cat(list(decode_frames(vae, latents)), dim=2), wanted)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another card")
    times["channels_last"] = 0.99
    assert fastest_vae_layout(vae, CARD) == "contiguous"
    assert fastest_vae_layout(vae, torch.device("cpu")) == "contiguous"


@torch.no_grad()
def test_convolutions_that_pad_themselves_change_nothing_but_rounding():
    vae, latents = tiny_vae(), torch.randn(1, 48, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    wanted = torch.cat(list(decode_frames(vae, latents)), dim=2)
    encoded = torch.cat(list(encode_frames(vae, wanted)), dim=2)
    with mock.patch.object(torch.nn.functional, "pad", wraps=torch.nn.functional.pad) as padded:
        pad_in_convolutions(vae)
        decoded = torch.cat(list(decode_frames(vae, latents)), dim=2)
        found = torch.cat(list(encode_frames(vae, wanted)), dim=2)
    torch.testing.assert_close(decoded, wanted)
    torch.testing.assert_close(found, encoded)
    assert not any(call.args[1][0] for call in padded.call_args_list if len(call.args[1]) == 6)


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_compiled_vae_encodes_and_decodes_what_it_did(dtype, tolerance):
    vae, compilation, runs = tiny_vae().to(dtype), Compilation(), []
    latents = torch.randn(1, 48, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    wanted = torch.cat(list(decode_frames(vae, latents)), dim=2)
    encoded = torch.cat(list(encode_frames(vae, wanted)), dim=2)

    def backend(graph, inputs):
        return lambda *inputs: runs.append(1) or graph.forward(*inputs)

    compile_vae(vae, compilation, backend=backend, fullgraph=True)
    decoded = torch.cat(list(decode_frames(vae, latents)), dim=2)
    assert runs and (decoded - wanted).norm() < tolerance * wanted.norm()
    found = torch.cat(list(encode_frames(vae, wanted)), dim=2)
    assert (found - encoded).norm() < tolerance * encoded.norm()
    runs.clear()
    compilation.enabled = False
    assert torch.equal(torch.cat(list(decode_frames(vae, latents)), dim=2), wanted) and not runs


@torch.no_grad()
def test_one_program_serves_every_norm_and_size_of_the_vae():
    torch._dynamo.reset()
    vae, compiled = tiny_vae(), []

    def backend(graph, inputs):
        compiled.append(1)
        return graph.forward

    compile_vae(vae, Compilation(), backend=backend)
    for height, width in ((4, 6), (8, 5), (3, 7)):
        list(decode_frames(vae, torch.randn(1, 48, 3, height, width)))
    assert len(compiled) <= 4  # a single frame is another program than several, and so are other strides


@torch.no_grad()
def test_a_vae_goes_on_where_compiling_fails():
    def backend(graph, inputs):
        raise RuntimeError("no C compiler")

    torch._dynamo.reset()
    vae, latents, compilation = tiny_vae(), torch.randn(1, 48, 2, 4, 6), Compilation()
    wanted = torch.cat(list(decode_frames(vae, latents)), dim=2)
    compile_vae(vae, compilation, backend=backend)
    assert torch.equal(torch.cat(list(decode_frames(vae, latents)), dim=2), wanted)
    assert compilation.enabled and not compilation.in_use


@torch.no_grad()
def test_what_was_compiled_can_be_left_out():
    runs = []

    def backend(graph, inputs):
        return lambda *inputs: runs.append(1) or graph.forward(*inputs)

    model = tiny_transformer()
    wanted = model(**tiny_inputs()).sample
    compilation = compile_blocks(model, backend=backend)
    for enabled, count in ((True, CONFIG["num_layers"]), (False, 0), (True, CONFIG["num_layers"])):
        runs.clear()
        compilation.enabled = enabled
        torch.testing.assert_close(model(**tiny_inputs()).sample, wanted)
        assert len(runs) == count


@torch.no_grad()
def test_what_was_compiled_serves_parts_of_other_lengths():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model, clips = tiny_transformer(), [tiny_inputs() | {"parts": tiny_parts(number)} for number in (3, 1, 5)]
    wanted = [model(**clip).sample for clip in clips]
    compile_blocks(model, backend=backend)
    for clip, eager in zip(clips, wanted):
        torch.testing.assert_close(model(**clip).sample, eager)
    assert len(graphs) == 2  # before the parts, and after them
