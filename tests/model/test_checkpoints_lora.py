"""LoRAs under every name they are trained with: the same change to the same layers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from inference_server.poseanything.checkpoints import (
    CheckpointError,
    load_lora,
    load_transformer,
    unload_loras,
)
from inference_server.poseanything.runtime.acceleration import compile_blocks
from inference_server.poseanything.runtime.streaming import BlockStream
from tests.model.tiny_transformer import CONFIG, tiny_inputs, tiny_parts, tiny_transformer

pytest.importorskip("peft", reason="the package peft is not installed")

RANK, ALPHA = 4, 2.0
DIM, FFN = 24, CONFIG["ffn_dim"]
# Layers by our names and by Wan's, with what goes in and out.
LAYERS = {
    "blocks.0.attn1.to_q": ("blocks.0.self_attn.q", DIM, DIM),
    "blocks.1.attn2.to_out.0": ("blocks.1.cross_attn.o", DIM, DIM),
    "blocks.1.part_attn.to_k": ("blocks.1.cross_attn_instance.k", DIM, DIM),
    "blocks.2.ffn.net.0.proj": ("blocks.2.ffn.0", DIM, FFN),
    "condition_embedder.text_embedder.linear_2": ("text_embedding.2", DIM, DIM),
}


def halves():
    generator = torch.Generator().manual_seed(3)
    return {
        ours: (torch.randn(RANK, into, generator=generator), torch.randn(out, RANK, generator=generator))
        for ours, (_, into, out) in LAYERS.items()
    }


def diffusers(layer, theirs, down, up):
    return {
        f"transformer.{layer}.lora_A.weight": down,
        f"transformer.{layer}.lora_B.weight": up * (ALPHA / RANK),
    }


def peft(layer, theirs, down, up):
    name = f"base_model.model.{layer}"
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * (ALPHA / RANK)}


def comfyui(layer, theirs, down, up):
    name = f"diffusion_model.{theirs}"
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(ALPHA),
    }


def diffsynth(layer, theirs, down, up):
    return {f"{theirs}.lora_A.default.weight": down, f"{theirs}.lora_B.default.weight": up * (ALPHA / RANK)}


def kohya(layer, theirs, down, up):
    name = "lora_unet_" + theirs.replace(".", "_")
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(ALPHA),
    }


def save_lora(path, naming):
    tensors = {}
    for layer, (down, up) in halves().items():
        tensors |= naming(layer, LAYERS[layer][0], down, up)
    save_file(tensors, path)
    return path


def predict(model):
    with torch.no_grad():
        return model(**tiny_inputs(), parts=tiny_parts()).sample


@pytest.mark.parametrize("naming", [diffusers, peft, comfyui, diffsynth, kohya])
@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_a_lora_of_any_naming_does_what_merging_it_by_hand_does(tmp_path, naming, strength):
    merged = tiny_transformer()
    for layer, (down, up) in halves().items():
        merged.get_submodule(layer).weight.data += strength * (ALPHA / RANK) * up @ down
    model = tiny_transformer()
    load_lora(model, save_lora(tmp_path / "lora.safetensors", naming), strength=strength)
    torch.testing.assert_close(predict(model), predict(merged), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if "lora" in name)


def test_loras_add_up_and_come_off_again(tmp_path):
    model = tiny_transformer()
    plain = predict(model)
    path = save_lora(tmp_path / "lora.safetensors", comfyui)
    load_lora(model, path, name="first", strength=0.75)
    changed = predict(model)
    load_lora(model, path, name="second", strength=-0.75)
    torch.testing.assert_close(predict(model), plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(changed, plain, rtol=1e-2)
    unload_loras(model)
    assert torch.equal(predict(model), plain)
    load_lora(model, path, name="first", strength=0.75)  # the names are free again
    torch.testing.assert_close(predict(model), changed)


def test_a_lora_works_on_float8_weights(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "model")
    model = load_transformer(tmp_path / "model", torch_dtype=torch.float32, quantization="fp8")
    plain = predict(model)
    load_lora(model, save_lora(tmp_path / "lora.safetensors", comfyui), strength=0.1)
    layer = model.blocks[2].ffn.net[0].proj
    down, up = halves()["blocks.2.ffn.net.0.proj"]
    inputs = torch.randn(5, DIM, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        change = layer(inputs) - layer.base_layer(inputs)
    torch.testing.assert_close(change, 0.1 * (ALPHA / RANK) * inputs @ down.T @ up.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(predict(model), plain)


def test_a_lora_can_be_attached_to_a_transformer_that_streams_and_come_off_again(tmp_path):
    resident = tiny_transformer()
    plain = predict(resident)
    path = save_lora(tmp_path / "lora.safetensors", comfyui)
    load_lora(resident, path)
    model = tiny_transformer()
    BlockStream(model.blocks, torch.device("cpu"), pin=True)
    assert torch.equal(predict(model), plain)
    load_lora(model, path)
    torch.testing.assert_close(predict(model), predict(resident))
    unload_loras(model)
    assert torch.equal(predict(model), plain)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda t: t | {"diffusion_model.blocks.0.norm1.diff": torch.zeros(DIM)}, r"norm1\.diff"),
        (
            lambda t: t | {"diffusion_model.blocks.9.self_attn.q.lora_up.weight": torch.zeros(DIM, RANK)},
            r"blocks\.9",
        ),
        (
            lambda t: {k: v for k, v in t.items() if k != "diffusion_model.blocks.2.ffn.0.lora_up.weight"},
            "half",
        ),
        (
            lambda t: t | {"diffusion_model.blocks.0.self_attn.q.lora_up.weight": torch.zeros(40, RANK)},
            "40 x 24",
        ),
    ],
    ids=["a norm that has no weight", "a layer too many", "half a layer", "another width"],
)
def test_a_lora_that_does_not_fit_is_refused_whole_and_says_where(tmp_path, change, complaint):
    tensors = {}
    for layer, (down, up) in halves().items():
        tensors |= comfyui(layer, LAYERS[layer][0], down, up)
    save_file(change(tensors), tmp_path / "lora.safetensors")
    model = tiny_transformer()
    plain = predict(model)
    with pytest.raises(CheckpointError, match=complaint):
        load_lora(model, tmp_path / "lora.safetensors")
    assert torch.equal(predict(model), plain)


def test_a_transformer_that_streams_stays_compiled_when_its_lora_changes(tmp_path):
    runs = []

    def backend(graph, inputs):
        return lambda *inputs: runs.append(1) or graph.forward(*inputs)

    def predict(model):
        with torch.no_grad():
            return model(**tiny_inputs()).sample

    model = tiny_transformer()
    plain = predict(model)
    BlockStream(model.blocks, torch.device("cpu"), pin=True)
    compile_blocks(model, backend=backend, fullgraph=True)  # a hook within would break the graph
    torch.testing.assert_close(predict(model), plain)
    assert len(runs) == CONFIG["num_layers"]
    load_lora(model, save_lora(tmp_path / "lora.safetensors", comfyui))
    changed = predict(model)
    unload_loras(model)
    torch.testing.assert_close(predict(model), plain)
    assert len(runs) == 3 * CONFIG["num_layers"] and not torch.allclose(changed, plain)
