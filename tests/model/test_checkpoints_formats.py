"""Every form that weights come in, saved as it really is and loaded the one way there is."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from inference_server.poseanything.checkpoints import (
    WeightSet,
    find_weights,
    load_text_encoder,
    load_transformer,
    load_vae,
    to_official_state_dict,
)
from inference_server.poseanything.checkpoints.conversion import convert
from inference_server.poseanything.checkpoints.readers import SafetensorsFiles
from inference_server.poseanything.checkpoints.vae import LATENTS_MEAN, LATENTS_STD
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from tests.model.checkpoint_files import (
    random_tensors,
    save_release,
    save_shards,
    save_tokenizer,
    transformer_shapes,
    wan_t5_shapes,
    wan_vae_shapes,
)
from tests.model.tiny_transformer import CONFIG, tiny_inputs, tiny_transformer


def assert_same_tensors(found, wanted):
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def as_single_file(tensors, folder):
    save_file(tensors, folder / "anything.safetensors")
    return folder / "anything.safetensors"


def as_shards(tensors, folder):
    return save_shards(tensors, folder, index=False)[0].parent


def as_one_of_its_shards(tensors, folder):
    return save_shards(tensors, folder, shards=3, index=False)[1]


def as_indexed_shards(tensors, folder):
    return save_shards(tensors, folder, shards=3)[0].parent


def as_index(tensors, folder):
    save_shards(tensors, folder)
    return folder / "diffusion_pytorch_model.safetensors.index.json"


def as_pth(tensors, folder):
    torch.save(tensors, folder / "model.pth")
    return folder / "model.pth"


def with_comfyui_prefix(tensors, folder):
    return as_single_file(
        {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}, folder
    )


def with_diffsynth_prefix(tensors, folder):
    return as_single_file({f"pipe.dit.{name}": tensor for name, tensor in tensors.items()}, folder)


@pytest.mark.parametrize(
    "save",
    [
        as_single_file,
        as_shards,
        as_one_of_its_shards,
        as_indexed_shards,
        as_index,
        as_pth,
        with_comfyui_prefix,
        with_diffsynth_prefix,
    ],
)
def test_the_releases_transformer_loads_from_any_arrangement_of_files(tmp_path, save):
    tensors = random_tensors(transformer_shapes())
    model = load_transformer(save(tensors, tmp_path), torch_dtype=torch.float32)
    assert model.config.part_attention and model.config.pose_injection == "channel"
    assert not model.training
    assert_same_tensors(to_official_state_dict(model), tensors)


def test_a_release_without_part_attention_makes_a_model_without_it(tmp_path):
    tensors = random_tensors(transformer_shapes(part_attention=False))
    model = load_transformer(as_single_file(tensors, tmp_path), torch_dtype=torch.float32)
    assert model.config.part_attention is False
    assert_same_tensors(to_official_state_dict(model), tensors)


def test_a_release_with_projected_poses_is_told_by_its_projection(tmp_path):
    shapes = transformer_shapes(in_channels=4, part_attention=False)
    tensors = random_tensors(shapes | {"condition_proj.weight": (4, 4), "condition_proj.bias": (4,)})
    model = load_transformer(as_single_file(tensors, tmp_path), torch_dtype=torch.float32)
    assert model.config.pose_injection == "mlp"
    assert_same_tensors(to_official_state_dict(model), tensors)


def test_heads_of_another_width_come_from_the_config_beside_the_file(tmp_path):
    path = as_single_file(random_tensors(transformer_shapes(dim=48)), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 2, "eps": 1e-5}))
    config = load_transformer(path).config
    assert (config.num_attention_heads, config.attention_head_dim, config.eps) == (2, 24, 1e-5)


@pytest.mark.parametrize(
    "config", [{}, {"part_attention": False}, {"in_channels": 4, "pose_injection": "width"}]
)
def test_a_diffusers_folder_computes_what_the_saved_model_did(tmp_path, config):
    model = tiny_transformer(**config)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    loaded = load_transformer(tmp_path, torch_dtype=torch.float32)
    assert {name: loaded.config[name] for name in CONFIG | config} == CONFIG | config
    assert_same_tensors(loaded.state_dict(), model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(loaded(**tiny_inputs()).sample, model(**tiny_inputs()).sample)


def test_a_stock_wan_folder_with_channels_for_poses_is_welcome(tmp_path):
    names = ("num_attention_heads", "attention_head_dim", "text_dim", "freq_dim", "ffn_dim", "num_layers")
    config = {name: tiny_transformer().config[name] for name in names}
    stock = WanTransformer3DModel(**config, in_channels=8, out_channels=4)
    stock.save_pretrained(tmp_path)
    model = load_transformer(tmp_path, torch_dtype=torch.float32)
    assert model.config.part_attention is False
    assert_same_tensors(model.state_dict(), stock.state_dict())


def test_precision_is_kept_where_diffusers_keeps_it(tmp_path):
    tiny_transformer().save_pretrained(tmp_path)
    ours = load_transformer(tmp_path, torch_dtype=torch.bfloat16)
    theirs = PoseAnythingTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert_same_tensors(ours.state_dict(), theirs.state_dict())
    assert {tensor.dtype for tensor in ours.state_dict().values()} == {torch.bfloat16, torch.float32}


def test_loading_reads_each_tensor_once_and_leaves_nothing_without_storage(tmp_path, monkeypatch):
    reads = []
    read = SafetensorsFiles.__getitem__
    monkeypatch.setattr(
        SafetensorsFiles, "__getitem__", lambda self, name: reads.append(name) or read(self, name)
    )
    tensors = random_tensors(transformer_shapes())
    model = load_transformer(as_shards(tensors, tmp_path))
    assert sorted(reads) == sorted(tensors)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_wans_own_vae_file_and_its_safetensors_twin_load(tmp_path):
    tensors = random_tensors(wan_vae_shapes(4, 4))
    torch.save(tensors, tmp_path / "Wan2.2_VAE.pth")
    save_file(tensors, tmp_path / "wan2.2_vae.safetensors")
    vae = load_vae(tmp_path / "Wan2.2_VAE.pth", torch_dtype=torch.float32)
    assert_same_tensors(
        vae.state_dict(),
        load_vae(tmp_path / "wan2.2_vae.safetensors", torch_dtype=torch.float32).state_dict(),
    )
    # One convolution near each end, found by its place in the network.
    assert torch.equal(
        vae.encoder.down_blocks[2].resnets[0].conv_shortcut.weight,
        tensors["encoder.downsamples.2.downsamples.0.shortcut.weight"],
    )
    assert torch.equal(
        vae.decoder.up_blocks[1].upsampler.time_conv.weight,
        tensors["decoder.upsamples.1.upsamples.3.time_conv.weight"],
    )
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 5, 32, 32)).latent_dist.mode()
        assert latents.shape == (1, 48, 2, 2, 2)
        assert vae.decode(latents).sample.shape == (1, 3, 5, 32, 32)


def test_a_diffusers_vae_folder_loads_with_its_statistics(tmp_path):
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=4, z_dim=48, is_residual=True, in_channels=12, out_channels=12,
        patch_size=2, scale_factor_spatial=16, latents_mean=LATENTS_MEAN, latents_std=LATENTS_STD,
    )  # fmt: skip
    vae.save_pretrained(tmp_path)
    loaded = load_vae(tmp_path, torch_dtype=torch.float32)
    assert_same_tensors(loaded.state_dict(), vae.state_dict())
    assert loaded.config.latents_mean == LATENTS_MEAN and loaded.config.latents_std == LATENTS_STD


def test_wans_own_text_encoder_computes_with_its_tokenizer(tmp_path):
    tensors = random_tensors(wan_t5_shapes(40, 16, 16, 24, 2, 2), torch.bfloat16)
    torch.save(tensors, tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    save_tokenizer(tmp_path / "google" / "umt5-xxl")
    encoder, tokenizer = load_text_encoder(tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight
    assert torch.equal(encoder.shared.weight, tensors["token_embedding.weight"])
    ids = tokenizer("deer runs", return_tensors="pt").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["\u2581deer", "\u2581runs", "</s>"]
    hidden_states = encoder(ids).last_hidden_state
    assert hidden_states.shape == (1, 3, 16) and hidden_states.dtype == torch.bfloat16


@pytest.mark.parametrize("kept", ["both", "shared.weight", "encoder.embed_tokens.weight"])
def test_a_transformers_text_encoder_loads_whichever_embedding_was_saved(tmp_path, kept):
    config = UMT5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    saved = UMT5EncoderModel(config).eval()
    saved.save_pretrained(tmp_path / "text_encoder")
    path = tmp_path / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    embedding = saved.shared.weight.detach()
    tensors |= {"shared.weight": embedding, "encoder.embed_tokens.weight": embedding.clone()}
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        if kept not in ("both", name):
            del tensors[name]
    save_file(tensors, path)
    encoder, _ = load_text_encoder(
        tmp_path / "text_encoder", torch_dtype=torch.float32, tokenizer=save_tokenizer(tmp_path / "tokenizer")
    )
    ids = torch.tensor([[3, 9, 1]])
    saved.encoder.embed_tokens.weight = saved.shared.weight
    with torch.no_grad():
        assert torch.equal(encoder(ids).last_hidden_state, saved(ids).last_hidden_state)


def test_a_whole_release_is_found_and_every_part_of_it_loads(tmp_path):
    found = find_weights(save_release(tmp_path))
    assert load_transformer(found.transformer).config.part_attention
    assert load_vae(found.vae).config.z_dim == 48
    _, tokenizer = load_text_encoder(found.text_encoder, tokenizer=found.tokenizer)
    assert tokenizer("deer").input_ids[-1] == tokenizer.eos_token_id


def test_a_whole_model_laid_out_as_diffusers_does_is_found_and_loads(tmp_path):
    release = find_weights(save_release(tmp_path / "release"))
    folder = tmp_path / "diffusers"
    for component in ("transformer", "vae", "text_encoder"):
        convert(getattr(release, component), folder / component, "diffusers")
    release.tokenizer.rename(folder / "tokenizer")
    found = find_weights(folder)
    others = {name: folder / name for name in ("vae", "text_encoder", "tokenizer")}
    others["preview_decoder"] = None
    assert found == WeightSet(folder, (folder / "transformer",), others)
    assert load_transformer(found.transformer).config.part_attention
    assert load_vae(found.vae).config.z_dim == 48
    encoder, tokenizer = load_text_encoder(found.text_encoder)
    assert encoder.config.vocab_size == 40 and tokenizer("deer").input_ids
