"""Conversion: there and back again, every tensor bit for bit and of its own type."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from inference_server.cli import main
from inference_server.poseanything.checkpoints import (
    CheckpointError,
    find_weights,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from inference_server.poseanything.checkpoints.conversion import convert, write_shards
from inference_server.poseanything.checkpoints.float8 import FLOAT8
from inference_server.poseanything.checkpoints.readers import open_tensors
from inference_server.poseanything.models.transformer import TRAINED_WITH, PoseAnythingTransformer3DModel
from tests.model.checkpoint_files import (
    random_tensors,
    save_release,
    save_shards,
    save_tokenizer,
    transformer_shapes,
    wan_t5_shapes,
    wan_vae_shapes,
)
from tests.model.tiny_transformer import tiny_transformer


def bits(tensors) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_transformer_goes_to_diffusers_and_back(tmp_path, dtype):
    tensors = random_tensors(transformer_shapes(), dtype)
    tensors["blocks.0.modulation"] = tensors["blocks.0.modulation"].float()  # types may be mixed
    save_shards(tensors, tmp_path / "release")
    convert(tmp_path / "release", tmp_path / "diffusers", "diffusers")
    convert(tmp_path / "diffusers", tmp_path / "back", "official")
    assert bits(open_tensors(tmp_path / "back")) == bits(tensors)
    stock = PoseAnythingTransformer3DModel.from_pretrained(tmp_path / "diffusers", torch_dtype=torch.float32)
    ours = load_transformer(tmp_path / "release", torch_dtype=torch.float32)
    assert bits(stock.state_dict()) == bits(ours.state_dict())


def test_heads_of_another_width_survive_the_way_through_wans_own_config(tmp_path):
    model = PoseAnythingTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=8, out_channels=4, text_dim=8, freq_dim=8,
        ffn_dim=8, num_layers=1, eps=1e-5,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "diffusers")
    convert(tmp_path / "diffusers", tmp_path / "official", "official")
    config = load_transformer(tmp_path / "official").config
    assert (config.num_attention_heads, config.attention_head_dim, config.eps) == (4, 12, 1e-5)


@pytest.mark.parametrize(
    "variant",
    [
        {"part_attention_empty": "excluded"},
        {"pose_injection": "width", "in_channels": 4},
        {"pose_injection": "width", "in_channels": 4, "part_attention": False},
        {"pose_injection": "mlp", "in_channels": 4},
        {
            "init": "draft",
            "max_parts": 10,
            "part_attention_threshold": 0.0,
            "sample_frames": 17,
            "pose_canvas": None,
        },
    ],
    ids=str,
)
def test_the_papers_variants_survive_the_way_through_wans_own_config(tmp_path, variant):
    tiny_transformer(**variant).save_pretrained(tmp_path / "diffusers")
    convert(tmp_path / "diffusers", tmp_path / "official", "official")
    convert(tmp_path / "official", tmp_path / "back", "diffusers")
    wanted = load_transformer(tmp_path / "diffusers").config
    for folder in ("official", "back"):
        config = load_transformer(tmp_path / folder).config
        names = ("pose_injection", "part_attention", "part_attention_empty", "in_channels", *TRAINED_WITH)
        assert {name: config[name] for name in names} == {name: wanted[name] for name in names}


@pytest.mark.parametrize("part_attention", [True, False])
def test_a_width_model_is_found_under_either_names(tmp_path, part_attention):
    save_release(tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights" / "PoseAnything")
    model = tiny_transformer(pose_injection="width", in_channels=4, part_attention=part_attention)
    model.save_pretrained(tmp_path / "weights" / "diffusers")
    assert find_weights(tmp_path / "weights").transformer == tmp_path / "weights" / "diffusers"
    convert(tmp_path / "weights" / "diffusers", tmp_path / "official", "official")
    shutil.rmtree(tmp_path / "weights" / "diffusers")
    (tmp_path / "official").rename(tmp_path / "weights" / "official")
    assert find_weights(tmp_path / "weights").transformer == tmp_path / "weights" / "official"


def test_an_fp8_file_keeps_its_scales_and_marks(tmp_path):
    tensors = random_tensors(transformer_shapes(), torch.bfloat16)
    layer = "blocks.1.self_attn.q"
    tensors |= {
        f"{layer}.weight": tensors[f"{layer}.weight"].to(FLOAT8),
        f"{layer}.scale_weight": torch.tensor(0.37),
        f"{layer}.scale_input": torch.tensor(1.5),
        "scaled_fp8": torch.zeros(2, dtype=FLOAT8),
    }
    save_file(tensors, tmp_path / "fp8.safetensors")
    convert(tmp_path / "fp8.safetensors", tmp_path / "diffusers", "diffusers")
    convert(tmp_path / "diffusers", tmp_path / "back", "official")
    assert bits(open_tensors(tmp_path / "back")) == bits(tensors)
    model = load_transformer(tmp_path / "diffusers", torch_dtype=torch.float32)
    assert model.blocks[1].attn1.to_q.scale.item() == pytest.approx(0.37)


def test_the_vae_goes_to_diffusers_and_back(tmp_path):
    tensors = random_tensors(wan_vae_shapes(4, 4))
    torch.save(tensors, tmp_path / "Wan2.2_VAE.pth")
    convert(tmp_path / "Wan2.2_VAE.pth", tmp_path / "vae", "diffusers")
    convert(tmp_path / "vae", tmp_path / "back.pth", "official")
    assert bits(torch.load(tmp_path / "back.pth", weights_only=True)) == bits(tensors)
    assert bits(load_vae(tmp_path / "vae").state_dict()) == bits(
        load_vae(tmp_path / "Wan2.2_VAE.pth").state_dict()
    )


def test_the_text_encoder_goes_to_transformers_and_back(tmp_path):
    tensors = random_tensors(wan_t5_shapes(40, 16, 16, 24, 2, 2), torch.bfloat16)
    torch.save(tensors, tmp_path / "t5.pth")
    convert(tmp_path / "t5.pth", tmp_path / "text_encoder", "diffusers")
    convert(tmp_path / "text_encoder", tmp_path / "back.pth", "official")
    assert bits(torch.load(tmp_path / "back.pth", weights_only=True)) == bits(tensors)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    encoder, _ = load_text_encoder(tmp_path / "text_encoder", tokenizer=tokenizer)
    assert (encoder.config.d_kv, encoder.config.num_layers) == (8, 2)


def test_large_checkpoints_are_split_and_indexed_and_read_as_one(tmp_path):
    tensors = random_tensors(transformer_shapes())
    write_shards(tensors, tmp_path, "diffusion_pytorch_model", shard_bytes=300_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size < 600_000 for file in files)
    assert (tmp_path / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert bits(open_tensors(tmp_path)) == bits(tensors)


def test_nothing_is_overwritten_and_nothing_half_made_is_left(tmp_path, monkeypatch):
    save_shards(random_tensors(transformer_shapes()), tmp_path / "release")
    (tmp_path / "taken").mkdir()
    with pytest.raises(CheckpointError, match="is there already"):
        convert(tmp_path / "release", tmp_path / "taken", "diffusers")

    def no_room(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inference_server.poseanything.checkpoints.conversion.save_file", no_room)
    with pytest.raises(CheckpointError, match="No space left"):
        convert(tmp_path / "release", tmp_path / "new", "diffusers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release", "taken"]


def test_a_damaged_checkpoint_is_not_converted(tmp_path):
    tensors = random_tensors(transformer_shapes())
    del tensors["blocks.0.ffn.2.bias"]
    save_shards(tensors, tmp_path / "release")
    with pytest.raises(CheckpointError, match=r"ffn\.net\.2\.bias"):
        convert(tmp_path / "release", tmp_path / "new", "diffusers")
    assert not (tmp_path / "new").exists()


def test_the_command_says_what_it_made_or_what_is_wrong(tmp_path, capsys):
    torch.save(random_tensors(wan_vae_shapes(4, 4)), tmp_path / "Wan2.2_VAE.pth")
    words = ["convert", str(tmp_path / "Wan2.2_VAE.pth"), str(tmp_path / "vae"), "--to", "diffusers"]
    assert main(words) == 0
    assert f"The VAE is in {tmp_path / 'vae'}." in capsys.readouterr().out
    assert main(words) == 1
    assert "is there already" in capsys.readouterr().err
