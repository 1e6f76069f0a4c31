"""The tiny decoder of previews, from a file of random weights under TAEHV's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from inference_server.poseanything.checkpoints import (  # noqa: E402
    CheckpointError,
    find_weights,
    load_tiny_decoder,
)
from inference_server.poseanything.models.tiny_decoder import MEMORY  # noqa: E402
from inference_server.poseanything.sampling.options import Settings  # noqa: E402
from inference_server.poseanything.sampling.pipeline import DenoisingStep  # noqa: E402
from tests.model.checkpoint_files import save_release  # noqa: E402
from tests.model.tiny_pipeline import tiny_clip, tiny_pipeline  # noqa: E402


def taew2_2_shapes() -> dict[str, tuple[int, ...]]:
    """The decoder's tensors, written down from the original; the file has an encoder beside it."""
    shapes = {
        "decoder.1.weight": (256, 48, 3, 3),
        "decoder.1.bias": (256,),
        "encoder.0.weight": (64, 12, 3, 3),
    }
    for first, width, grown, following in ((3, 256, 1, 128), (9, 128, 2, 64), (15, 64, 2, 64)):
        for block in range(first, first + 3):
            for layer, inputs in ((0, 2 * width), (2, width), (4, width)):
                shapes[f"decoder.{block}.conv.{layer}.weight"] = (width, inputs, 3, 3)
                shapes[f"decoder.{block}.conv.{layer}.bias"] = (width,)
        shapes[f"decoder.{first + 4}.conv.weight"] = (grown * width, width, 1, 1)
        shapes[f"decoder.{first + 5}.weight"] = (following, width, 3, 3)
    return shapes | {"decoder.22.weight": (12, 64, 3, 3), "decoder.22.bias": (12,)}


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) * (2 / max(np.prod(shape[1:]), 1)) ** 0.5 / 2
        for name, shape in taew2_2_shapes().items()
    }
    path = tmp_path_factory.mktemp("preview") / "taew2_2.safetensors"
    save_file(tensors, path)
    return path


def test_a_frame_is_what_it_is_among_all_that_come_before_it(file):
    decoder = load_tiny_decoder(file, torch_dtype=torch.float32)
    latents = torch.randn(48, MEMORY + 4, 2, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = (decoder(latents).movedim(1, -1) * 255).round().byte().numpy()
    assert whole.shape == (MEMORY + 4, 16, 24, 3) and whole.std() > 1
    for frame in (0, 3, MEMORY + 3):
        assert np.abs(decoder.preview(latents, frame).astype(int) - whole[frame]).max() <= 1
    changed = latents.clone()
    changed[:, 2] += 1
    assert not np.array_equal(decoder.preview(changed, 3), whole[3])


def test_of_frames_that_one_becomes_the_last_is_taken(file):
    from safetensors.torch import load_file

    decoder = load_tiny_decoder(file, torch_dtype=torch.float32)
    grown = load_file(file)["decoder.13.conv.weight"]
    assert torch.equal(decoder.decoder[13].conv.weight, grown[128:])


def test_another_file_is_refused(tmp_path):
    save_file({"decoder.1.weight": torch.zeros(64, 16, 3, 3)}, tmp_path / "taew2_2.safetensors")
    with pytest.raises(CheckpointError, match="not TAEHV's decoder .*or remove it"):
        load_tiny_decoder(tmp_path / "taew2_2.safetensors")


def test_it_is_found_beside_the_weights_and_draws_the_previews(file, tmp_path):
    folder = save_release(tmp_path / "weights")
    assert find_weights(folder).preview_decoder is None
    beside = folder / "taew2_2.safetensors"
    beside.symlink_to(file)
    found = find_weights(folder)
    assert found.preview_decoder == beside and found.transformer == folder / "PoseAnything"

    pipeline = tiny_pipeline()
    pipeline.register_modules(preview_decoder=load_tiny_decoder(beside, torch_dtype=torch.float32))
    events = pipeline.stream(tiny_clip(), settings=Settings(num_inference_steps=1))
    index, image = next(event for event in events if isinstance(event, DenoisingStep)).preview()
    assert index == 4 and image.shape == (32, 48, 3) and not pipeline._previews
