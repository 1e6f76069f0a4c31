"""Quantised transformers: fp8 files of both conventions, GGUF files, and float8 made on loading."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from inference_server.poseanything.checkpoints import CheckpointError, load_text_encoder, load_transformer
from inference_server.poseanything.checkpoints.float8 import FLOAT8, FLOAT8_MAX, Float8Linear, quantize_weight
from tests.model.checkpoint_files import (
    random_tensors,
    save_tokenizer,
    transformer_shapes,
    wan_t5_shapes,
)

SHAPES = transformer_shapes()
LAYERS = sorted(
    name.removesuffix(".weight")
    for name, shape in SHAPES.items()
    if name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2
)


def predict(model):
    generator = torch.Generator().manual_seed(1)
    video, pose = torch.randn(2, 1, 4, 2, 8, 8, generator=generator)
    text = torch.randn(1, 5, 16, generator=generator)
    timestep = torch.tensor([[0.0, 600.0]])
    with torch.no_grad():
        return model(video, timestep, text, pose).sample


def relative_error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


def save_fp8(tensors, path, *, scale_name=None, per_row=False, extras=False):
    """As ComfyUI's converters write fp8: the layers of the blocks in float8, with the scale under either
    name."""
    saved = dict(tensors)
    for layer in LAYERS:
        weight = tensors[f"{layer}.weight"]
        scale = torch.ones(())
        if scale_name:
            largest = weight.abs().amax(dim=1, keepdim=True) if per_row else weight.abs().max()
            scale = largest / FLOAT8_MAX
            saved[f"{layer}.{scale_name}"] = scale
        saved[f"{layer}.weight"] = (weight / scale).to(FLOAT8)
        if extras:
            saved[f"{layer}.scale_input"] = torch.ones(())
    if extras:
        saved["scaled_fp8"] = torch.zeros(2, dtype=FLOAT8)
    save_file(saved, path)
    return path


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"scale_name": "scale_weight", "extras": True},
        {"scale_name": "weight_scale"},
        {"scale_name": "scale_weight", "per_row": True},
    ],
    ids=["without scales", "scale_weight", "weight_scale", "a scale per row"],
)
def test_fp8_files_stay_fp8_and_compute_what_they_mean(tmp_path, form):
    tensors = random_tensors(SHAPES)
    path = save_fp8(tensors, tmp_path / "fp8.safetensors", **form)
    kept = load_transformer(path, torch_dtype=torch.float32)
    expanded = load_transformer(path, torch_dtype=torch.float32, quantization="none")
    assert sum(isinstance(module, Float8Linear) for module in kept.modules()) == len(LAYERS)
    assert not any(isinstance(module, Float8Linear) for module in expanded.modules())
    torch.testing.assert_close(predict(kept), predict(expanded), rtol=1e-5, atol=1e-5)
    # e4m3 has three bits of mantissa: half a step is 1/16 of the value at most, or half the smallest value
    # there is.
    original = tensors["blocks.0.ffn.0.weight"]
    error = (expanded.blocks[0].ffn.net[0].proj.weight - original).abs()
    smallest = 2**-9 * (original.abs().max() / FLOAT8_MAX if form else 1.0)
    assert (error <= (original.abs() / 16).clamp_min(smallest / 2) * 1.001).all()


@pytest.mark.parametrize("quantization", [None, "none", "fp8"])
def test_e5m2_weights_mean_what_their_scales_say(tmp_path, quantization):
    meant = random_tensors(SHAPES)
    saved = dict(meant)
    for layer in LAYERS:
        saved[f"{layer}.weight"] = (16 * meant[f"{layer}.weight"]).to(torch.float8_e5m2)
        saved[f"{layer}.weight_scale"] = torch.tensor(1 / 16)
        meant[f"{layer}.weight"] = saved[f"{layer}.weight"].float() / 16
    save_file(saved, tmp_path / "e5m2.safetensors")
    save_file(meant, tmp_path / "model.safetensors")
    model = load_transformer(
        tmp_path / "e5m2.safetensors", torch_dtype=torch.float32, quantization=quantization
    )
    reference = predict(load_transformer(tmp_path / "model.safetensors", torch_dtype=torch.float32))
    assert relative_error(predict(model), reference) < 1e-3
    assert any(isinstance(module, Float8Linear) for module in model.modules()) == (quantization == "fp8")


@pytest.mark.parametrize("scaled", [True, False])
def test_int8_weights_are_refused(tmp_path, scaled):
    tensors, layer = random_tensors(SHAPES), LAYERS[0]
    tensors[f"{layer}.weight"] = (100 * tensors[f"{layer}.weight"]).to(torch.int8)
    if scaled:
        tensors[f"{layer}.weight_scale"] = torch.tensor(0.01)
    save_file(tensors, tmp_path / "int8.safetensors")
    with pytest.raises(CheckpointError, match="(no fp8 weight|as int8).*choose"):
        load_transformer(tmp_path / "int8.safetensors")


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale", "input_scale", "comfy_quant"])
@pytest.mark.parametrize("layer", ["blocks.0.nonsense", "blocks.0.ffn.0"])
def test_what_scales_no_fp8_weight_is_refused(tmp_path, suffix, layer):
    tensors = random_tensors(SHAPES, torch.bfloat16) | {f"{layer}.{suffix}": torch.ones(())}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{layer}.{suffix}.*no fp8 weight.*choose"):
        load_transformer(tmp_path / "model.safetensors")


def test_float8_made_on_loading_takes_half_the_bytes_and_stays_close(tmp_path):
    save_file(random_tensors(SHAPES, torch.bfloat16), tmp_path / "model.safetensors")
    plain = load_transformer(tmp_path / "model.safetensors", torch_dtype=torch.bfloat16)
    quantised = load_transformer(
        tmp_path / "model.safetensors", torch_dtype=torch.bfloat16, quantization="fp8"
    )

    def bytes_of(model):
        return sum(tensor.nbytes for name, tensor in model.state_dict().items() if name.startswith("blocks."))

    assert bytes_of(quantised) < 0.55 * bytes_of(plain)
    assert quantised.condition_embedder.time_proj.weight.dtype == torch.bfloat16
    reference = predict(load_transformer(tmp_path / "model.safetensors", torch_dtype=torch.float32))
    in_float32 = load_transformer(
        tmp_path / "model.safetensors", torch_dtype=torch.float32, quantization="fp8"
    )
    assert 0 < relative_error(predict(in_float32), reference) < 0.1


def test_quantised_weights_survive_what_casts_the_rest_of_the_model(tmp_path):
    save_file(random_tensors(SHAPES, torch.bfloat16), tmp_path / "model.safetensors")
    model = load_transformer(tmp_path / "model.safetensors", torch_dtype=torch.float32, quantization="fp8")
    wanted = predict(model)
    model.blocks.to(torch.bfloat16).to(torch.float32)
    torch.testing.assert_close(predict(model), wanted)  # the file is bfloat16, nothing was lost on the way
    layer = model.blocks[0].ffn.net[2]
    assert layer.weight.dtype == torch.int8 and layer.weight.nbytes == layer.in_features * layer.out_features


def test_rows_scaled_by_powers_of_two_beat_a_bare_cast_on_weights_as_small_as_real_ones():
    weight = 0.01 * torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    quantised, scale = quantize_weight(weight)
    assert torch.equal(torch.exp2(torch.log2(scale).round()), scale)
    ours = relative_error(quantised.float() * scale, weight)
    bare = relative_error(weight.to(FLOAT8).float(), weight)
    assert ours < 0.03 < bare
    assert torch.equal(quantize_weight(torch.zeros(2, 3))[0].float(), torch.zeros(2, 3))


def test_the_text_encoder_computes_in_float8(tmp_path):
    path = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save(random_tensors(wan_t5_shapes(40, 32, 32, 48, 2, 2)), path)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    plain, _ = load_text_encoder(path, torch_dtype=torch.float32, tokenizer=tokenizer)
    quantised, _ = load_text_encoder(path, torch_dtype=torch.float32, tokenizer=tokenizer, quantization="fp8")
    assert sum(isinstance(module, Float8Linear) for module in quantised.modules()) == 2 * 7
    ids = torch.tensor([[3, 9, 1]])
    with torch.no_grad():
        error = relative_error(quantised(ids).last_hidden_state, plain(ids).last_hidden_state)
    assert 0 < error < 0.1


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason="the package gguf is not installed")


def save_gguf(gguf, tensors, path, kind, *, five_dimensions):
    """As city96's converter writes Wan: layers quantised, the rest float32, the patch embedding told by its
    field."""
    writer = gguf.GGUFWriter(path, "wan")
    for name, tensor in tensors.items():
        array = tensor.numpy()
        if name.removesuffix(".weight") in LAYERS:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        elif array.ndim == 5 and not five_dimensions:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(array.shape))
            writer.add_tensor(name, array.reshape(array.shape[0], -1))
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "kind, five_dimensions, tolerance", [("Q8_0", False, 0.02), ("Q5_0", True, 0.1), ("BF16", False, 0.02)]
)
def test_gguf_files_stay_quantised_and_compute_what_they_mean(
    tmp_path, gguf, kind, five_dimensions, tolerance
):
    tensors = random_tensors(SHAPES)
    save_file(tensors, tmp_path / "model.safetensors")
    kind = gguf.GGMLQuantizationType[kind]
    path = save_gguf(gguf, tensors, tmp_path / "model.gguf", kind, five_dimensions=five_dimensions)
    reference = predict(load_transformer(tmp_path / "model.safetensors", torch_dtype=torch.float32))
    kept = load_transformer(path, torch_dtype=torch.float32)
    assert relative_error(predict(kept), reference) < tolerance
    expanded = load_transformer(path, torch_dtype=torch.float32, quantization="none")
    torch.testing.assert_close(predict(expanded), predict(kept), rtol=1e-4, atol=1e-4)
    if kind.name != "BF16":
        layer = kept.blocks[1].attn2.to_k
        assert layer.weight.nbytes < 1.1 * layer.in_features * layer.out_features
