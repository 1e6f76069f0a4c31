"""What a run is said to take of a card."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from accelerate import init_empty_weights  # noqa: E402

from inference_server.poseanything.models.part_tokens import PartTokens  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel  # noqa: E402
from inference_server.poseanything.runtime.requirements import Shape  # noqa: E402
from inference_server.training.planning import (  # noqa: E402
    SAVED_BYTES_PER_DIM,
    SAVED_BYTES_PER_FFN,
    plan_training,
)
from inference_server.training.settings import TrainingSettings  # noqa: E402
from inference_server.training.trainer import freeze  # noqa: E402
from tests.benchmarks._random_weights import FULL  # noqa: E402

GIB = 2**30


def test_what_a_block_keeps_for_its_backward_pass_is_what_was_counted():
    dim, ffn_dim, frames, rows = 384, 1792, 5, 8
    config = {"num_attention_heads": 3, "ffn_dim": ffn_dim, "num_layers": 1, "text_dim": 8, "freq_dim": 8}
    model = PoseAnythingTransformer3DModel(**config).bfloat16()
    freeze(model, "lora", 1)
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(frames, 4, rows, rows, generator=generator) < 0.15
    parts = PartTokens.from_masks(masks[0], masks[1:])
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = frames * rows * rows
    inputs = torch.randn(1, tokens, dim, dtype=torch.bfloat16, requires_grad=True)
    text, modulation = torch.randn(1, 4, dim, dtype=torch.bfloat16), torch.randn(1, frames, 6, dim)
    rotary = model.rope(torch.zeros(1, 48, frames, 2 * rows, 2 * rows))
    autocast = torch.autocast("cpu", torch.bfloat16)
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.blocks[0](inputs, text, modulation, rotary, parts, None)
    estimate = tokens * (SAVED_BYTES_PER_DIM * dim + SAVED_BYTES_PER_FFN * ffn_dim)
    assert 0.85 * estimate < sum(kept.values()) < estimate


def test_a_lora_of_the_released_model_is_planned_for_24_gib():
    model, vae = FULL.open_transformer().bfloat16(), FULL.open_vae()
    settings = TrainingSettings.of("lora")
    with init_empty_weights():
        freeze(model, settings.trainable, settings.lora_rank)
    short, long = (plan_training(model, vae, settings, Shape(832, 480, frames)) for frames in (33, 81))
    assert 18 * GIB < short.peak_bytes < 23.25 * GIB < long.peak_bytes
    plain = plan_training(
        model, vae, TrainingSettings.of("lora", gradient_checkpointing=False), Shape(832, 480, 33)
    )
    assert plain.parts["activations"] > 10 * short.parts["activations"]
    print(short)
