"""The maker and the machine's memory: what it reads, when it reads it again, and what it does when memory runs out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from inference_server.poseanything.checkpoints import find_weights
from inference_server.poseanything.clip import Clip
from inference_server.poseanything.decoding import Frames
from inference_server.poseanything.maker import ClipMaker
from inference_server.poseanything.memory import GIB, ModelSizes
from inference_server.poseanything.order import Order
from shared.messages import Guidance
from tests.model.checkpoint_files import random_tensors, save_release, save_shards, transformer_shapes


@pytest.fixture
def maker(tmp_path) -> ClipMaker:
    """Of a tiny model, planned for as if it were the released one."""
    save_release(tmp_path)
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16), tmp_path / "PoseAnything")
    maker = ClipMaker(find_weights(tmp_path), "cpu")
    maker.sizes = ModelSizes()
    return maker


def give_host(monkeypatch, gigabytes: float) -> None:
    memory = SimpleNamespace(available=int(gigabytes * GIB), total=64 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def order(size: int = 64, num_frames: int = 5, **options) -> Order:
    picture = np.full((size, size, 3), 120, np.uint8)
    poses = np.zeros((num_frames, size, size), np.uint8)
    poses[:, 8:10, 8:40] = 255
    clip = Clip(picture, poses, tuple(range(num_frames)), prompt="deer runs")
    return Order.of(clip, Guidance(guider="none"), 7, 1, options)


def make(maker: ClipMaker, asked: Order) -> tuple[list, str, np.ndarray]:
    """Stages other than denoising's, the maker's note, and the frames."""
    stages, frames, events = [], [], maker.make(asked)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return stages, end.value, np.concatenate(frames, axis=1)
        if isinstance(event, Frames):
            frames.append(event.images)
        else:
            stages.append(event.stage)


def test_the_weights_it_holds_are_not_missing_to_the_next_clip(maker, monkeypatch):
    give_host(monkeypatch, 54)
    stages, note, first = make(maker, order())
    assert "loading" in stages and "(float32)" in note
    give_host(monkeypatch, 54 - maker._plan.held_bytes / GIB)  # as the machine would tell with them loaded
    stages, note, second = make(maker, order())
    assert "loading" not in stages and "(float32)" in note
    assert np.array_equal(first, second)


def test_a_seed_keeps_its_frames_while_other_programs_come_and_go(maker, monkeypatch):
    give_host(monkeypatch, 30)
    _, note, first = make(maker, order())
    assert "(bfloat16)" in note
    give_host(monkeypatch, 60)
    stages, note, second = make(maker, order())
    assert "loading" not in stages and "(bfloat16)" in note
    assert np.array_equal(first, second)
