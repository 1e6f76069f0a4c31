"""Names: ours and the others' stand one to one, at the real size, where nothing but shapes is made."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

from inference_server.poseanything.checkpoints import (
    CheckpointError,
    from_official_state_dict,
    to_official_state_dict,
)
from inference_server.poseanything.checkpoints.official import config_from_official
from inference_server.poseanything.checkpoints.text_encoder import WAN_T5_KEYS, config_from_shapes
from inference_server.poseanything.checkpoints.vae import WAN_VAE_KEYS, config_from_wan
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from tests.golden import recordings
from tests.model.checkpoint_files import random_tensors, transformer_shapes, wan_t5_shapes, wan_vae_shapes


@pytest.fixture
def official(request) -> dict:
    return json.loads(request.param.read_text())


every_release = pytest.mark.parametrize("official", recordings("official_keys*.json"), indirect=True)


def official_fingerprint(shapes: dict[str, tuple[int, ...]]) -> str:
    """The md5 by which the release recognises its own checkpoints: over the sorted names, with and without
    shape."""
    words = []
    for name, shape in shapes.items():
        words += [f"{name}:{'_'.join(map(str, shape))}", name]
    return hashlib.md5(",".join(sorted(words)).encode(), usedforsecurity=False).hexdigest()


def shapes_of(tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def tuples(shapes) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}


@every_release
@pytest.mark.parametrize("part_attention, keys", [(True, "keys_ptc"), (False, "keys_noptc")])
def test_the_full_model_exports_the_releases_names_and_shapes(official, part_attention, keys):
    with init_empty_weights():
        model = PoseAnythingTransformer3DModel(part_attention=part_attention)
    exported = shapes_of(to_official_state_dict(model))
    assert exported == tuples(official[keys])
    variant = official["variants"][f"in_dim96_ptc{part_attention}"]
    assert official_fingerprint(exported) == variant["md5"]
    assert sum(parameter.numel() for parameter in model.parameters()) == variant["n_params"]


@every_release
@pytest.mark.parametrize(
    "pose_injection, variant", [("mlp", "48+condition_proj Linear(48,48)"), ("width", "in_dim48_ptcFalse")]
)
def test_the_other_ways_of_injecting_poses_are_named_as_the_release_lists_them(
    official, pose_injection, variant
):
    with init_empty_weights():
        model = PoseAnythingTransformer3DModel(
            in_channels=48, pose_injection=pose_injection, part_attention=False
        )
    fingerprint = official_fingerprint(shapes_of(to_official_state_dict(model)))
    assert fingerprint == official["variants"][variant]["md5"]


@every_release
@pytest.mark.parametrize("part_attention, keys", [(True, "keys_ptc"), (False, "keys_noptc")])
def test_the_releases_shapes_give_the_releases_configuration(official, part_attention, keys):
    config = config_from_official(tuples(official[keys]), "here")
    with init_empty_weights():
        model = PoseAnythingTransformer3DModel.from_config(config)
        standard = PoseAnythingTransformer3DModel(part_attention=part_attention)
    assert dict(model.config) | {"_use_default_values": None} == dict(standard.config) | {
        "_use_default_values": None
    }


def test_renaming_there_and_back_keeps_every_tensor_itself():
    tensors = random_tensors(transformer_shapes())
    there = from_official_state_dict(tensors)
    back = to_official_state_dict(there)
    assert set(back) == set(tensors)
    assert all(back[name] is tensors[name] for name in tensors)


def test_a_name_of_neither_format_is_an_error_that_says_it():
    tensors = random_tensors(transformer_shapes())
    with pytest.raises(CheckpointError, match=r"blocks\.0\.cross_attn\.k_img\.weight"):
        from_official_state_dict(tensors | {"blocks.0.cross_attn.k_img.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"blocks\.1\.extra\.weight"):
        to_official_state_dict(from_official_state_dict(tensors) | {"blocks.1.extra.weight": torch.zeros(1)})


def test_wans_vae_at_full_size_maps_one_to_one_onto_diffusers():
    theirs = wan_vae_shapes(160, 256)
    assert len(theirs) == 196
    with init_empty_weights():
        vae = AutoencoderKLWan.from_config(config_from_wan(theirs, "here"))
    renamed = {WAN_VAE_KEYS.to_ours(name): shape for name, shape in theirs.items()}
    assert renamed == shapes_of(vae.state_dict())
    assert {WAN_VAE_KEYS.to_theirs(name): shape for name, shape in renamed.items()} == theirs
    assert sum(parameter.numel() for parameter in vae.parameters()) == 704_688_668
    assert (vae.config.scale_factor_spatial, vae.config.scale_factor_temporal, vae.config.z_dim) == (
        16,
        4,
        48,
    )


def test_wans_text_encoder_at_full_size_maps_one_to_one_onto_transformers():
    theirs = wan_t5_shapes(256384, 4096, 4096, 10240, 64, 24)
    renamed = {WAN_T5_KEYS.to_ours(name): shape for name, shape in theirs.items()}
    config = config_from_shapes(renamed, "here")
    with init_empty_weights():
        encoder = UMT5EncoderModel(UMT5Config(**config))
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    assert renamed == shapes_of(dict(encoder.named_parameters()))
    assert {WAN_T5_KEYS.to_theirs(name): shape for name, shape in renamed.items()} == theirs
    assert (config["d_kv"], config["num_layers"], config["num_heads"]) == (64, 24, 64)
