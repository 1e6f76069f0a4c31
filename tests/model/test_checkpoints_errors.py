"""Wrong weights: whatever is in the file, the user gets one sentence on what is wrong and what to do."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from inference_server.poseanything.checkpoints import (
    CheckpointError,
    find_weights,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from inference_server.poseanything.checkpoints.inspection import inspect_weights
from tests.model.checkpoint_files import (
    random_tensors,
    save_release,
    save_shards,
    save_tokenizer,
    transformer_shapes,
    wan_t5_shapes,
    wan_vae_shapes,
)


def complaint_of(load, *args, **kwargs) -> str:
    """The sentence that `load` refuses with: one line, ended, and telling what to do."""
    with pytest.raises(CheckpointError) as caught:
        load(*args, **kwargs)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("."), sentence
    assert re.search(r"\b(get|Get|choose|give|name|put|keep|delete|install)\b", sentence), sentence
    return sentence


def save(tensors, path: Path) -> Path:
    save_file(tensors, path)
    return path


@pytest.fixture
def tensors():
    return random_tensors(transformer_shapes(dim=128, layers=1))


@pytest.mark.parametrize(
    "dim, channels, name",
    [
        (3072, (48, 48), "plain Wan2.2-TI2V-5B"),
        (5120, (36, 16), "14B image-to-video"),
        (5120, (16, 16), "14B text-to-video"),
        (1536, (16, 16), "1.3B text-to-video"),
        (128, (4, 4), "another Wan transformer"),
    ],
)
def test_another_wan_transformer_is_called_by_its_name(tmp_path, dim, channels, name):
    shapes = {
        "patch_embedding.weight": (dim, channels[0], 1, 2, 2),
        "head.head.weight": (4 * channels[1], dim),
        "text_embedding.0.weight": (dim, 8),
        "time_embedding.0.weight": (dim, 8),
        "blocks.0.ffn.0.weight": (8, dim),
    }
    tensors = {key: torch.zeros(shape, dtype=torch.uint8) for key, shape in shapes.items()}
    sentence = complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))
    assert name in sentence and f"takes {channels[0]} channels" in sentence


def test_a_plain_wan_folder_of_diffusers_is_refused_too(tmp_path):
    WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8,
        ffn_dim=8, num_layers=1,
    ).save_pretrained(tmp_path)  # fmt: skip
    assert "plain Wan transformer" in complaint_of(load_transformer, tmp_path)


def test_missing_tensors_are_counted_and_the_first_are_named(tmp_path, tensors):
    for name in [name for name in tensors if ".cross_attn." in name]:
        del tensors[name]
    sentence = complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))
    assert "lacks 10 tensor(s)" in sentence and "blocks.0.attn2." in sentence and "and 6 more" in sentence


def test_unknown_tensors_are_never_dropped(tmp_path, tensors):
    tensors |= {f"blocks.0.cross_attn.{part}_img.weight": torch.zeros(1) for part in "kv"}
    sentence = complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))
    assert "2 tensor(s)" in sentence and "blocks.0.cross_attn.k_img.weight" in sentence


def test_half_of_part_attention_is_missing_tensors_not_a_model_without_it(tmp_path, tensors):
    del tensors["blocks.0.norm4.weight"]
    assert "norm_part" in complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path, tensors):
    tensors["blocks.0.norm3.bias"] = torch.zeros(7)
    sentence = complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))
    assert "(7,)" in sentence and "(128,)" in sentence


def test_a_variant_that_there_is_not_is_named(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps({"part_attention_empty": "guessed"}))
    assert "guessed" in complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))


def test_a_shard_that_is_missing_is_named_with_and_without_an_index(tmp_path, tensors):
    for folder, index in [(tmp_path / "indexed", True), (tmp_path / "bare", False)]:
        paths = save_shards(tensors, folder, shards=3, index=index)
        paths[1].unlink()
        assert paths[1].name in complaint_of(load_transformer, folder)
        assert paths[1].name in complaint_of(load_transformer, find_transformer(folder))


def find_transformer(folder: Path) -> Path:
    """What `find_weights` would hand on of a folder that has the other components."""
    save_tokenizer(folder / "wan" / "tokenizer")
    for name in ("Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"):
        (folder / "wan" / name).touch()
    return find_weights(folder).transformer


def test_two_checkpoints_in_one_folder_are_not_mixed(tmp_path, tensors):
    save(tensors, tmp_path / "one.safetensors")
    save(tensors, tmp_path / "two.safetensors")
    assert "one, two" in complaint_of(load_transformer, tmp_path)
    assert "one.safetensors, two.safetensors" in complaint_of(find_transformer, tmp_path)


def test_shards_that_repeat_a_tensor_are_not_mixed(tmp_path, tensors):
    paths = save_shards(tensors, tmp_path, shards=2, index=False)
    save(tensors, paths[0])
    assert "repeats the tensor" in complaint_of(load_transformer, tmp_path)


def test_a_name_that_damage_gave_is_named(tmp_path, tensors):
    tensors["blocks. .norm3.bias"] = tensors.pop("blocks.0.norm3.bias")
    sentence = complaint_of(load_transformer, save(tensors, tmp_path / "model.safetensors"))
    assert "blocks. .norm3.bias" in sentence


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_called_damaged(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    whole = save_shards(random_tensors(transformer_shapes(layers=1)), folder, index=False)[1]
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    sentence = complaint_of(load_transformer, folder)
    assert str(whole) in sentence and "cut off" in sentence


@settings(max_examples=60)
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_header_is_a_sentence_or_harmless(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("damaged")
    path = save(random_tensors(transformer_shapes(layers=1)), folder / "model.safetensors")
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    try:
        load_transformer(path, torch_dtype=torch.float32)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_a_web_page_saved_as_weights_is_called_damaged(tmp_path):
    (tmp_path / "model.safetensors").write_text("<!doctype html><title>Sign in</title>" * 20)
    assert "damaged" in complaint_of(load_transformer, tmp_path / "model.safetensors")


def test_what_is_no_checkpoint_at_all_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    assert "no kind of checkpoint" in complaint_of(load_transformer, tmp_path / "notes.txt")
    assert "no .safetensors" in complaint_of(load_transformer, tmp_path / "empty")
    assert "There is no" in complaint_of(load_transformer, tmp_path / "nowhere.safetensors")


def test_a_config_that_cannot_be_read_is_named(tmp_path, tensors):
    save(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    assert "config.json can't be read" in complaint_of(load_transformer, tmp_path / "model.safetensors")


def test_a_width_of_no_whole_heads_asks_for_the_config(tmp_path):
    path = save(random_tensors(transformer_shapes(dim=48)), tmp_path / "model.safetensors")
    assert "num_heads" in complaint_of(load_transformer, path)


def test_a_gguf_file_that_is_damaged_says_so(tmp_path):
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and then nothing that makes sense")
    assert "damaged" in complaint_of(load_transformer, tmp_path / "model.gguf")


def test_a_gguf_file_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "pip install gguf" in complaint_of(load_transformer, tmp_path / "model.gguf")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_code_in_a_pth_file_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"decoder.conv1.weight": torch.zeros(1), "harm": Harmful()}, "Wan2.2_VAE.pth")
    assert "more than weights" in complaint_of(load_vae, tmp_path / "Wan2.2_VAE.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Harmful()))
    complaint_of(load_vae, tmp_path / "old.pth")
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_pth_file_cut_off_is_called_damaged(tmp_path, share):
    path = tmp_path / "Wan2.2_VAE.pth"
    torch.save(random_tensors(wan_vae_shapes(4, 4)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "cut off" in complaint_of(load_vae, path)


def test_the_wrong_vae_is_called_by_its_name(tmp_path):
    torch.save(random_tensors(wan_vae_shapes(4, 4, latent_channels=16)), tmp_path / "Wan2.1_VAE.pth")
    assert "Wan 2.1's VAE" in complaint_of(load_vae, tmp_path / "Wan2.1_VAE.pth")
    torch.save(random_tensors(wan_t5_shapes(40, 16, 16, 24, 2, 1)), tmp_path / "t5.pth")
    assert "no Wan VAE" in complaint_of(load_vae, tmp_path / "t5.pth")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "trainer.pth")
    assert "no plain dictionary of tensors" in complaint_of(load_vae, tmp_path / "trainer.pth")


def test_the_wrong_text_encoder_is_told_what_is_needed(tmp_path):
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    torch.save(random_tensors(wan_vae_shapes(4, 4)), tmp_path / "vae.pth")
    assert "no UMT5 encoder" in complaint_of(load_text_encoder, tmp_path / "vae.pth", tokenizer=tokenizer)


def test_a_missing_tokenizer_is_asked_for(tmp_path):
    torch.save(random_tensors(wan_t5_shapes(40, 16, 16, 24, 2, 1)), tmp_path / "t5.pth")
    assert "google/umt5-xxl" in complaint_of(load_text_encoder, tmp_path / "t5.pth")
    (tmp_path / "tokenizer").mkdir()
    assert "no tokenizer that can be read" in complaint_of(load_text_encoder, tmp_path / "t5.pth")


def test_what_a_folder_of_weights_lacks_is_listed_with_names_and_places(tmp_path):
    folder = save_release(tmp_path)
    (folder / "Wan2.2-TI2V-5B" / "Wan2.2_VAE.pth").unlink()
    sentence = complaint_of(find_weights, folder)
    assert "lack vae (Wan2.2_VAE.pth" in sentence and str(folder) in sentence
    assert "transformer" not in sentence and "tokenizer" not in sentence
    assert sentence.endswith("Get them with python build.py weights.")
    assert "There is no folder" in complaint_of(find_weights, folder / "nowhere")


def test_the_plain_wan_transformer_is_not_taken_for_the_one_that_is_missing(tmp_path):
    folder = save_release(tmp_path)
    plain = random_tensors(transformer_shapes(in_channels=4, part_attention=False))
    save_shards(plain, folder / "Wan2.2-TI2V-5B")
    assert find_weights(folder).transformer == folder / "PoseAnything"
    for path in (folder / "PoseAnything").iterdir():
        path.unlink()
    assert f"{folder / 'Wan2.2-TI2V-5B'} holds the plain Wan transformer" in complaint_of(
        find_weights, folder
    )


def test_one_of_several_transformers_can_be_chosen(tmp_path):
    folder = save_release(tmp_path)
    (folder / "PoseAnything" / "tiktok").mkdir()
    variant = save(
        random_tensors(transformer_shapes(part_attention=False)),
        folder / "PoseAnything" / "tiktok" / "t.safetensors",
    )
    chosen = find_weights(folder, transformer="PoseAnything/tiktok/t.safetensors")
    assert (
        chosen.transformer == variant and load_transformer(chosen.transformer).config.part_attention is False
    )
    assert "t.pth" in complaint_of(find_weights, folder, transformer="PoseAnything/tiktok/t.pth")


def test_several_transformers_are_named_and_one_within_the_folder_is_chosen(tmp_path):
    folder = save_release(tmp_path / "weights")
    save(random_tensors(transformer_shapes()), tmp_path / "outside.safetensors")
    converted = folder / "converted" / "model.safetensors"
    converted.parent.mkdir()
    save(random_tensors(transformer_shapes()), converted)
    found = find_weights(folder)
    sentence = complaint_of(lambda: found.transformer)
    assert "(PoseAnything, converted); choose one by the engine's option" in sentence
    assert found.choose("converted/model.safetensors").transformer == converted
    told = inspect_weights(found)
    assert all(any(str(path) in line for line in told[:2]) for path in found.transformers) and len(told) == 5
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "nothing"):
        assert "choose among PoseAnything, converted" in complaint_of(found.choose, name)


def test_a_text_encoder_of_gguf_is_no_transformer(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    folder = save_release(tmp_path)
    for name, architecture in [("umt5-xxl-encoder", "t5encoder"), ("model", "wan")]:
        writer = gguf.GGUFWriter(folder / f"{name}.gguf", architecture)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
    assert find_weights(folder).transformers == (folder / "model.gguf", folder / "PoseAnything")


def test_an_index_that_is_no_index_is_named(tmp_path, tensors):
    save_shards(tensors, tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps([1, 2]))
    assert "index.json can't be read" in complaint_of(load_transformer, tmp_path)
