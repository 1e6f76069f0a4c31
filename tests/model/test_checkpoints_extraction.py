"""A LoRA of what one checkpoint changes in another: it adds the same to PoseAnything."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_server.cli import main
from inference_server.poseanything.checkpoints import (
    CheckpointError,
    from_official_state_dict,
    load_lora,
    load_transformer,
    unload_loras,
)
from inference_server.poseanything.checkpoints.extraction import extract, low_rank
from inference_server.poseanything.models.transformer import TRAINED_WITH
from tests.model.checkpoint_files import random_tensors, save_shards, transformer_shapes
from tests.model.tiny_transformer import tiny_transformer

CHANNELS, RANK = 48, 4
PLAIN = transformer_shapes(in_channels=CHANNELS, out_channels=CHANNELS, part_attention=False)
OURS = transformer_shapes(in_channels=2 * CHANNELS, out_channels=CHANNELS)


@pytest.fixture
def plain(tmp_path) -> dict[str, torch.Tensor]:
    tensors = random_tensors(PLAIN)
    save_shards(tensors, tmp_path / "plain")
    return tensors


def distilled(plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a few-step training might leave: large weights change by a low rank, small ones as they like."""
    generator = torch.Generator().manual_seed(3)
    changed = {}
    for name, tensor in plain.items():
        if tensor.ndim == 2:
            left, right = (torch.randn(size, RANK, generator=generator) for size in tensor.shape)
            change = 0.05 * left @ right.T
        else:
            change = 0.05 * torch.randn(tensor.shape, generator=generator)
        changed[name] = tensor + change
    changed["text_embedding.0.bias"] = plain["text_embedding.0.bias"]  # which isn't trained
    return changed


@pytest.mark.parametrize("naming", ["official", "diffusers"])
def test_what_is_extracted_adds_to_poseanything_what_was_changed_in_plain_wan(tmp_path, plain, naming):
    changed = distilled(plain)
    source = tmp_path / "distilled.safetensors"
    save_file(changed if naming == "official" else from_official_state_dict(changed), source)
    made = extract(source, tmp_path / "plain", tmp_path / "loras" / "few.safetensors", rank=RANK)
    assert made.pairs > 10 and made.whole > 10 and made.kept > 0.999
    assert not any(
        "text_embedding.0.diff" in name for name in load_file(tmp_path / "loras" / "few.safetensors")
    )

    save_shards(random_tensors(OURS, seed=5), tmp_path / "ours")
    model = load_transformer(tmp_path / "ours", torch_dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_lora(model, tmp_path / "loras" / "few.safetensors", strength=0.5)
    for theirs, tensor in plain.items():
        (name,) = from_official_state_dict({theirs: tensor})
        change = 0.5 * (changed[theirs] - tensor)
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        if hasattr(module, "get_delta_weight"):
            found = module.get_delta_weight("default") if leaf == "weight" else None
            module = module.base_layer
        else:
            found = None
        if found is None:
            found = getattr(module, leaf).data - before[name]
        if theirs == "patch_embedding.weight":
            assert not found[:, CHANNELS:].any()
            found = found[:, :CHANNELS]
        torch.testing.assert_close(found, change, rtol=0.02, atol=2e-3)  # kept in bfloat16
    unload_loras(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_of_few_steps_stays_one_as_a_lora(tmp_path):
    few = {"distilled_timesteps": [1000.0, 600.0], "num_inference_steps": 2}
    changed = tiny_transformer(**few)
    changed.proj_out.bias.data += 1
    changed.save_pretrained(tmp_path / "changed")
    tiny_transformer().save_pretrained(tmp_path / "plain")
    extract(tmp_path / "changed", tmp_path / "plain", tmp_path / "few.safetensors")
    model = load_transformer(tmp_path / "plain")
    before = {name: model.config[name] for name in TRAINED_WITH}
    load_lora(model, tmp_path / "few.safetensors")
    assert {name: model.config[name] for name in TRAINED_WITH} == before | few
    unload_loras(model)
    assert model.config.distilled_timesteps is None


def test_a_low_rank_is_the_nearest_one_and_always_the_same():
    matrix = torch.randn(90, 60, generator=torch.Generator().manual_seed(1))
    down, up = low_rank(matrix, 20)
    assert (down.shape, up.shape) == ((20, 60), (90, 20))
    left, values, right = torch.linalg.svd(matrix)
    nearest = (left[:, :20] * values[:20]) @ right[:20]
    assert (matrix - up @ down).norm() < 1.02 * (matrix - nearest).norm()
    assert all(map(torch.equal, low_rank(matrix, 20), (down, up)))


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda t: t, "changes nothing"),
        (lambda t: {name: tensor for name, tensor in t.items() if "ffn" not in name}, r"lacks \d+ tensor"),
        (lambda t: t | {"head.head.bias": torch.zeros(7)}, r"differ in the shape of head\.head\.bias"),
    ],
    ids=["the same", "less", "another shape"],
)
def test_a_checkpoint_that_is_no_change_of_the_other_is_named(tmp_path, plain, change, complaint, capsys):
    save_file(change(plain), tmp_path / "changed.safetensors")
    target = tmp_path / "lora.safetensors"
    assert main(["extract", str(tmp_path / "changed.safetensors"), str(tmp_path / "plain"), str(target)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(complaint, said) and not target.exists()


def test_a_whole_model_among_the_loras_says_how_to_make_one_of_it(tmp_path, plain):
    save_shards(random_tensors(OURS), tmp_path / "ours")
    model = load_transformer(tmp_path / "ours", torch_dtype=torch.float32)
    save_file(distilled(plain), tmp_path / "FastWan.safetensors")
    with pytest.raises(CheckpointError, match="whole model, not a LoRA; .* extract"):
        load_lora(model, tmp_path / "FastWan.safetensors")


def test_the_command_makes_the_file_and_says_what_is_in_it(tmp_path, plain, capsys):
    save_file(distilled(plain), tmp_path / "distilled.safetensors")
    target = tmp_path / "loras" / "few.safetensors"
    arguments = [str(tmp_path / name) for name in ("distilled.safetensors", "plain")]
    assert main(["extract", *arguments, str(target), "--rank", str(RANK)]) == 0
    assert target.exists() and "pairs of rank 4" in capsys.readouterr().out
