"""The engine on a small checkpoint saved as a pipeline of diffusers: from a draft, on a grid of its own."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from inference_server.cli import main  # noqa: E402
from inference_server.engines.base import EngineError, JobCancelled, Picture  # noqa: E402
from inference_server.engines.draft.clip import Clip  # noqa: E402
from inference_server.engines.poseanything.engine import PoseAnythingEngine  # noqa: E402
from inference_server.engines.poseanything.request import sampling_request  # noqa: E402
from inference_server.poseanything.checkpoints.lora import DECLARED  # noqa: E402
from shared.messages import Progress  # noqa: E402
from shared.raster import draw_poses  # noqa: E402
from tests.model.tiny_pipeline import linear_vae  # noqa: E402
from tests.model.tiny_transformer import tiny_transformer  # noqa: E402

from .test_engine import request  # noqa: E402

SIZE = {"width": 80, "height": 56, "num_frames": 9, "num_inference_steps": 1}


def save_small(folder: Path, **config) -> None:
    transformer = tiny_transformer(
        patch_size=(1, 1, 1),
        in_channels=384,
        out_channels=192,
        text_conditioning=False,
        sample_frames=9,
        sample_size=80,
        num_inference_steps=1,
        pose_canvas=None,
        pose_look="bones",
        **config,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    transformer.save_pretrained(folder / "small" / "transformer")
    vae = linear_vae(z_dim=192, patch_size=8, scale_factor_temporal=1, latents_std=None)
    vae.save_pretrained(folder / "small" / "vae")


@pytest.fixture
def bridge(tmp_path, monkeypatch) -> PoseAnythingEngine:
    """One whose flow is nothing, so that it gives the draft back."""
    save_small(tmp_path, init="draft")
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path))
    engine = PoseAnythingEngine()
    list(engine.load())
    return engine


def test_it_describes_itself_as_it_was_trained(bridge):
    about = bridge.describe()
    assert about.ready, about.reason
    assert (about.size_multiple, about.frame_step, about.default_steps) == (8, 1, 1)
    assert not about.uses_prompt and about.pose_look == "bones"


def test_the_engine_makes_the_draft_that_the_checkpoint_starts_from(bridge):
    asked = request(**SIZE)
    events = list(bridge.generate(asked, lambda: False))
    made = np.stack([event.image for event in events if isinstance(event, Picture)])
    draft = Clip(asked)
    expected = np.stack([draft.frame(index) for index in range(9)])
    assert np.abs(made.astype(int) - expected).max() <= 3  # the VAE's rounding
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))
    assert stages == ["drawing", "loading", "encoding", "denoising", "decoding"]


def test_a_lora_that_starts_from_the_draft_has_the_engine_make_one(tmp_path, monkeypatch):
    """Of a model from noise whose flow is nothing."""
    save_small(tmp_path)
    (tmp_path / "loras").mkdir()
    layer = "transformer.blocks.0.attn1.to_v"
    pair = {f"{layer}.lora_A.weight": torch.zeros(1, 24), f"{layer}.lora_B.weight": torch.zeros(24, 1)}
    save_file(pair, tmp_path / "loras" / "bridge.safetensors", {DECLARED: '{"init": "draft"}'})
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path))
    engine = PoseAnythingEngine()
    list(engine.load())

    def made(**loras):
        asked = request(**SIZE, engine_options={"loras": loras})
        events = engine.generate(asked, lambda: False)
        return np.stack([event.image for event in events if isinstance(event, Picture)]).astype(int)

    draft = Clip(request(**SIZE))
    expected = np.stack([draft.frame(index) for index in range(9)])
    noise = made()
    assert np.abs(noise - expected).max() > 100
    assert np.abs(made(**{"bridge.safetensors": 1.0}) - expected).max() <= 3  # the VAE's rounding
    assert np.array_equal(made(**{"bridge.safetensors": 0.0}), noise)
    assert np.array_equal(made(), noise)


def test_poses_are_drawn_as_in_training(bridge):
    asked = request(**SIZE)
    config = bridge._runner.config()
    drawn = sampling_request(asked, config).conditions.pose_images
    assert np.array_equal(drawn, draw_poses(asked.pose, 80, 56))
    assert not np.array_equal(drawn, sampling_request(asked).conditions.pose_images)


def test_a_cancelled_draft_ends_the_job(bridge):
    looks = []
    with pytest.raises(JobCancelled):
        list(bridge.generate(request(**SIZE), lambda: len(looks) > 3 or looks.append(1)))
    assert len(looks) == 4


def test_sizes_of_another_grid_are_named(bridge):
    with pytest.raises(EngineError, match="multiples of 8; choose 80 x 56"):
        list(bridge.generate(request(**SIZE | {"width": 78}), lambda: False))


@pytest.mark.parametrize("config", [{}, {"init": "draft"}])
def test_pose_images_on_the_command_line_are_scaled_as_in_training(tmp_path, monkeypatch, config):
    save_small(tmp_path / "weights", **config)
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "poses").mkdir()
    for frame in range(12):
        image = np.zeros((70, 100), np.uint8)
        cv2.line(image, (20, 10 + frame), (80, 60), 255, 2)
        cv2.imwrite(str(tmp_path / "poses" / f"{frame:02d}.png"), image)
    command = ["generate", "--poses", str(tmp_path / "poses"), "--output", str(tmp_path / "clip")]
    status = main([*command, "--first-frame", str(tmp_path / "poses" / "00.png")])
    made = sorted((tmp_path / "clip").glob("*.png"))
    assert status == 0 and len(made) == 9 and cv2.imread(str(made[0])).shape == (56, 80, 3)
