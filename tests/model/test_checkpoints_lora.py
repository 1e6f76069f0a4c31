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

    torch._dynamo.reset()
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


VIDEO_CHANNELS = CONFIG["out_channels"]
# What step-distilled files hold besides pairs: our parameter, and the piece's name in Wan's words and in
# ours.
DIFFERENCES = {
    "blocks.0.norm2.weight": ("blocks.0.norm3.diff", "blocks.0.norm2.diff"),
    "blocks.0.norm2.bias": ("blocks.0.norm3.diff_b", "blocks.0.norm2.diff_b"),
    "blocks.1.attn1.norm_q.weight": ("blocks.1.self_attn.norm_q.diff", "blocks.1.attn1.norm_q.diff"),
    "blocks.1.attn1.to_q.bias": ("blocks.1.self_attn.q.diff_b", "blocks.1.attn1.to_q.lora_B.bias"),
    "blocks.2.scale_shift_table": ("blocks.2.diff_m", "blocks.2.diff_m"),
    "scale_shift_table": ("head.diff_m", "head.diff_m"),
    "proj_out.weight": ("head.head.diff", "proj_out.diff"),
    "proj_out.bias": ("head.head.diff_b", "proj_out.diff_b"),
    "patch_embedding.bias": ("patch_embedding.diff_b", "patch_embedding.diff_b"),
    "condition_embedder.time_proj.bias": (
        "time_projection.1.diff_b",
        "condition_embedder.time_proj.diff_b",
    ),
}
NAMINGS = {
    "comfyui": lambda theirs, ours: f"diffusion_model.{theirs}",
    "diffusers": lambda theirs, ours: f"transformer.{ours}",
    "official": lambda theirs, ours: theirs,
    # Dots within the layer's name alone are flattened.
    "kohya": lambda theirs, ours: (
        "lora_unet_" + theirs.rpartition(".")[0].replace(".", "_") + "." + theirs.rpartition(".")[2]
    ),
}


def differences(model, seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(model.get_parameter(name).shape, generator=generator) for name in DIFFERENCES
    }


def patch_difference(seed: int = 6) -> torch.Tensor:
    """Of plain Wan's patch embedding, which knows the video's channels alone."""
    return 0.1 * torch.randn(DIM, VIDEO_CHANNELS, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def save_distilled(path, naming: str):
    """A step-distilled LoRA in full: pairs, and whole differences of what is small."""
    pairs = {"comfyui": comfyui, "diffusers": diffusers, "official": diffsynth, "kohya": kohya}[naming]
    tensors = {}
    for layer, (down, up) in halves().items():
        tensors |= pairs(layer, LAYERS[layer][0], down, up)
    for name, difference in differences(tiny_transformer()).items():
        tensors[NAMINGS[naming](*DIFFERENCES[name])] = difference
    tensors[NAMINGS[naming]("patch_embedding.diff", "patch_embedding.diff")] = patch_difference()
    save_file(tensors, path)
    return path


def merge_distilled(model, strength: float) -> None:
    """The same by hand."""
    for layer, (down, up) in halves().items():
        model.get_submodule(layer).weight.data += strength * (ALPHA / RANK) * up @ down
    for name, difference in differences(model).items():
        model.get_parameter(name).data += strength * difference
    model.patch_embedding.weight.data[:, :VIDEO_CHANNELS] += strength * patch_difference()


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_step_distilled_lora_does_what_merging_it_by_hand_does(tmp_path, naming, strength):
    model, merged = tiny_transformer(), tiny_transformer()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = save_distilled(tmp_path / "distilled.safetensors", naming)
    load_lora(model, path, strength=strength)
    merge_distilled(merged, strength)
    torch.testing.assert_close(predict(model), predict(merged), rtol=1e-4, atol=1e-4)
    pose = model.patch_embedding.weight[:, VIDEO_CHANNELS:]
    assert torch.equal(pose, kept["patch_embedding.weight"][:, VIDEO_CHANNELS:])
    unload_loras(model)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_several_loras_add_up_each_with_its_strength(tmp_path):
    model, merged = tiny_transformer().bfloat16(), tiny_transformer()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distilled = save_distilled(tmp_path / "distilled.safetensors", "comfyui")
    style = save_lora(tmp_path / "style.safetensors", kohya)
    for number, (path, strength) in enumerate([(distilled, 0.7), (style, -0.4), (distilled, 0.2)]):
        load_lora(model, path, name=f"lora{number}", strength=strength)
    merge_distilled(merged, 0.9)
    for layer, (down, up) in halves().items():
        merged.get_submodule(layer).weight.data -= 0.4 * (ALPHA / RANK) * up @ down
    inside = {name.replace(".base_layer", ""): parameter for name, parameter in model.named_parameters()}
    for name in DIFFERENCES:
        torch.testing.assert_close(
            inside[name].float(), merged.get_parameter(name).data, rtol=0.02, atol=0.02
        )
    unload_loras(model)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_differences_reach_weights_that_stream(tmp_path):
    model, merged = tiny_transformer(), tiny_transformer()
    plain = predict(model)
    stream = BlockStream(model.blocks, torch.device("cpu"), pin=True)
    assert torch.equal(predict(model), plain)
    stream.park()
    load_lora(model, save_distilled(tmp_path / "distilled.safetensors", "comfyui"))
    merge_distilled(merged, 1.0)
    for _ in range(2):
        torch.testing.assert_close(predict(model), predict(merged), rtol=1e-4, atol=1e-4)
    stream.park()
    unload_loras(model)
    assert torch.equal(predict(model), plain)


@pytest.mark.parametrize("channels", [VIDEO_CHANNELS, 2 * VIDEO_CHANNELS])
def test_a_pair_of_the_patch_embedding_is_its_product(tmp_path, channels):
    generator = torch.Generator().manual_seed(7)
    down = torch.randn(RANK, channels, 1, 2, 2, generator=generator)
    up = torch.randn(DIM, RANK, 1, 1, 1, generator=generator)
    name = "diffusion_model.patch_embedding"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "pair.safetensors")
    model, plain = tiny_transformer(), tiny_transformer()
    load_lora(model, tmp_path / "pair.safetensors", strength=0.5)
    change = (model.patch_embedding.weight - plain.patch_embedding.weight).detach()
    wanted = 0.5 * torch.einsum("or,rcdhw->ocdhw", up[:, :, 0, 0, 0], down)
    torch.testing.assert_close(change[:, :channels], wanted, rtol=1e-4, atol=1e-5)
    assert not change[:, channels:].any()


def test_a_whole_weight_can_not_be_added_to_a_quantised_one(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "model")
    model = load_transformer(tmp_path / "model", torch_dtype=torch.float32, quantization="fp8")
    plain = predict(model)
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {f"{name}.diff": torch.ones(DIM, DIM), f"{name}.diff_b": torch.ones(DIM)},
        tmp_path / "lora.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn1\.to_q, which is quantised"):
        load_lora(model, tmp_path / "lora.safetensors")
    assert torch.equal(predict(model), plain)


@pytest.mark.parametrize(
    "shape, said",
    [((DIM, 3, 1, 2, 2), "24 x 3 x 1 x 2 x 2"), ((32, VIDEO_CHANNELS, 1, 2, 2), "32 x 4 x 1 x 2 x 2")],
)
def test_a_patch_embedding_of_another_model_is_named(tmp_path, shape, said):
    save_file({"diffusion_model.patch_embedding.diff": torch.zeros(shape)}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=f"patch_embedding.weight as {said} where it is 24 x 8"):
        load_lora(tiny_transformer(), tmp_path / "lora.safetensors")
