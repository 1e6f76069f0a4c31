"""The linear VAE: frame by frame as the pipeline codes videos, saved and loaded as any checkpoint's VAE."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from inference_server.poseanything.checkpoints import load_vae  # noqa: E402
from inference_server.poseanything.models.linear_vae import AutoencoderLinear  # noqa: E402
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames  # noqa: E402


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def random_video(frames: int = 13) -> torch.Tensor:
    return torch.rand(2, 3, frames, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fitted(video: torch.Tensor, z_dim: int, frames: int = 4) -> AutoencoderLinear:
    vae = AutoencoderLinear(
        z_dim=z_dim, patch_size=8, scale_factor_temporal=frames, latents_std=[2.0] * z_dim
    )
    samples = vae.patches(video).movedim(1, -1).flatten(0, -2)
    mean = samples.mean(0)
    components = torch.linalg.svd(samples - mean, full_matrices=True).Vh
    vae.set_basis(components[:z_dim], mean)
    return vae


def coded(vae: AutoencoderLinear, video: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    latents = torch.cat(list(encode_frames(vae, video)), dim=2)
    return latents, list(decode_frames(vae, latents))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_with_all_components_nothing_is_lost(group: int):
    video = random_video()
    vae = fitted(video, 3 * group * 64, group)
    latents, decoded = coded(vae, video)
    assert latents.shape == (2, vae.config.z_dim, 1 + 12 // group, 2, 3)
    assert [frame.shape[2] for frame in decoded] == [1] + [group] * (12 // group)
    torch.testing.assert_close(torch.cat(decoded, dim=2), video, rtol=0, atol=1e-5)


def test_with_fewer_the_nearest_of_their_span_is_kept():
    video = random_video()
    vae = fitted(video, 12)
    patches = vae.patches(video)
    basis, mean = vae.encoder.mid_block.weight.flatten(1), vae.decoder.mid_block.bias[:, None, None, None]
    nearest = torch.einsum("kd,ke,befhw->bdfhw", basis, basis, patches - mean) + mean
    latents, decoded = coded(vae, video)
    kept = vae.patches(torch.cat(decoded, dim=2))
    inside = nearest.abs().amax(1, keepdim=True) < 1  # decoding clips at black and white
    assert inside[:, :, 1:].float().mean() > 0.1
    torch.testing.assert_close(kept[:, :, 1:] * inside[:, :, 1:], nearest[:, :, 1:] * inside[:, :, 1:])
    expected = torch.einsum("kd,bdfhw->bkfhw", basis, patches - mean) / 2
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


def test_frames_are_coded_one_after_the_other_as_together():
    video, vae = random_video(), fitted(random_video(), 48)
    latents, decoded = coded(vae, video)
    beginning, begun = coded(vae, video[:, :, :5])
    torch.testing.assert_close(latents[:, :, :2], beginning)
    torch.testing.assert_close(torch.cat(decoded[:2], dim=2), torch.cat(begun, dim=2))


def test_it_is_saved_and_loaded_by_diffusers_and_by_the_checkpoints_loader(tmp_path: Path):
    video, vae = random_video(), fitted(random_video(), 48)
    vae.save_pretrained(tmp_path / "vae")
    latents, decoded = coded(vae, video)
    for loaded in (
        AutoencoderLinear.from_pretrained(tmp_path / "vae"),
        load_vae(tmp_path / "vae", torch_dtype=torch.float32),
    ):
        assert loaded.config.latents_std == [2.0] * 48 and loaded.config.scale_factor_spatial == 8
        again, pictures = coded(loaded, video)
        torch.testing.assert_close(again, latents, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat(pictures, dim=2), torch.cat(decoded, dim=2), rtol=0, atol=0)


def test_a_latent_pixel_is_a_patch():
    with pytest.raises(ValueError, match="scale_factor_spatial is 16 where patch_size is 8"):
        AutoencoderLinear(patch_size=8, scale_factor_spatial=16)
