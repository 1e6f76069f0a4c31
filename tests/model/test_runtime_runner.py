"""The maker and the machine's memory: what it reads, when it reads it again, and what it does when memory
runs out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from inference_server.poseanything.checkpoints import CheckpointError, find_weights
from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime.memory import GIB, ModelSizes
from inference_server.poseanything.runtime.runner import ClipRunner
from inference_server.poseanything.sampling.decoding import Frames
from inference_server.poseanything.sampling.request import SamplingRequest
from shared.engines import Guidance
from tests.model.checkpoint_files import random_tensors, save_release, save_shards, transformer_shapes


@pytest.fixture
def maker(tmp_path) -> ClipRunner:
    """Of a tiny model, planned for as if it were the released one."""
    save_release(tmp_path)
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16), tmp_path / "PoseAnything")
    maker = ClipRunner(find_weights(tmp_path), "cpu")
    maker.sizes = ModelSizes()
    return maker


def give_host(monkeypatch, maker: ClipRunner, gigabytes: float) -> None:
    """Let the machine have so much free, less what the maker holds by then."""

    def memory():
        held = maker._plan.held_bytes if maker._plan else 0
        return SimpleNamespace(available=int(gigabytes * GIB) - held, total=64 * GIB)

    monkeypatch.setattr(psutil, "virtual_memory", memory)


def order(size: int = 64, num_frames: int = 5, clip: dict | None = None, **options) -> SamplingRequest:
    picture = np.full((size, size, 3), 120, np.uint8)
    poses = np.zeros((num_frames, size, size), np.uint8)
    poses[:, 8:10, 8:40] = 255
    told = {"pose_frames": tuple(range(num_frames)), "prompt": "deer runs"} | (clip or {})
    return SamplingRequest.of(Conditions(picture, poses, **told), Guidance(guider="none"), 7, 1, options)


def make(maker: ClipRunner, asked: SamplingRequest) -> tuple[list, str, np.ndarray]:
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
    give_host(monkeypatch, maker, 54)
    stages, note, first = make(maker, order())
    assert "loading" in stages and "(float32)" in note
    stages, note, second = make(maker, order())
    assert "loading" not in stages and "(float32)" in note
    assert np.array_equal(first, second)


def test_a_seed_keeps_its_frames_while_other_programs_come_and_go(maker, monkeypatch):
    give_host(monkeypatch, maker, 30)
    _, note, first = make(maker, order())
    assert "(bfloat16)" in note
    give_host(monkeypatch, maker, 60)
    stages, note, second = make(maker, order())
    assert "loading" not in stages and "(bfloat16)" in note
    assert np.array_equal(first, second)


def run_out(monkeypatch, fail, when) -> list[torch.dtype]:
    """Let the transformer fail when told, by the types it was called in up to then; they are returned."""
    forward, calls = PoseAnythingTransformer3DModel.forward, []

    def fail_or_compute(self, *inputs, **options):
        calls.append(self.dtype)
        if when(calls):
            fail()
        return forward(self, *inputs, **options)

    monkeypatch.setattr(PoseAnythingTransformer3DModel, "forward", fail_or_compute)
    return calls


def say_pinning_failed():
    raise RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`.")


@pytest.mark.parametrize(
    "fail", [lambda: torch.empty(1 << 50), lambda: np.empty(1 << 60, np.uint8), say_pinning_failed]
)
def test_the_hosts_memory_running_out_leads_a_rung_lower(maker, monkeypatch, fail):
    give_host(monkeypatch, maker, 60)
    calls = run_out(monkeypatch, fail, lambda calls: calls[-1] == torch.float32)
    _, note, frames = make(maker, order())
    assert calls == [torch.float32, torch.bfloat16] and frames.shape[1] == 5
    assert "(bfloat16)" in note and "Memory ran out" in note


def test_another_fault_is_no_want_of_memory(maker, monkeypatch):
    def fail():
        raise RuntimeError("The size of tensor a must match the size of tensor b.")

    calls = run_out(monkeypatch, fail, lambda calls: True)
    with pytest.raises(RuntimeError, match="tensor a"):
        make(maker, order())
    assert len(calls) == 1


def test_what_was_too_much_is_so_for_its_size_and_until_memory_is_freed(maker, monkeypatch):
    give_host(monkeypatch, maker, 50)
    calls = run_out(monkeypatch, lambda: torch.empty(1 << 50), lambda calls: len(calls) == 1)
    make(maker, order())
    make(maker, order())
    assert calls == [torch.float32, torch.bfloat16, torch.bfloat16]
    maker._forget()
    make(maker, order(size=96))
    assert calls[3:] == [torch.float32]
    make(maker, order())
    assert calls[4:] == [torch.bfloat16]
    maker._forget()
    give_host(monkeypatch, maker, 60)
    make(maker, order())
    assert calls[5:] == [torch.float32]


@pytest.mark.parametrize("part", range(3))
def test_loading_is_left_between_two_tensors_and_begun_anew(maker, part):
    class Cancelled(Exception):
        pass

    left = None

    def check():
        nonlocal left
        if left is not None:
            left -= 1
            if not left:
                raise Cancelled

    events = maker.make(order(), check)
    for step in range(part + 1):
        assert next(events).step == step
    left = 3
    with pytest.raises(Cancelled):
        next(events)
    assert make(maker, order())[0][:4] == ["loading"] * 4


def test_of_several_transformers_the_order_chooses_one(maker, monkeypatch):
    give_host(monkeypatch, maker, 60)
    folder = maker.weights.folder
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16, seed=1), folder / "dancers")
    maker = ClipRunner(find_weights(folder), "cpu")
    with pytest.raises(CheckpointError, match=r"several .*\(PoseAnything, dancers\); choose one"):
        make(maker, order())
    _, _, animals = make(maker, order(transformer="PoseAnything"))
    _, _, dancers = make(maker, order(transformer="dancers"))
    assert not np.array_equal(animals, dancers)
    assert np.array_equal(make(maker, order(transformer="PoseAnything"))[2], animals)


def test_loading_says_at_once_how_the_memory_is_used(maker, monkeypatch):
    give_host(monkeypatch, maker, 60)
    events = maker.make(order())
    first = next(events)
    events.close()
    assert (first.stage, first.step) == ("loading", 0)
    assert "60.0 GiB free" in first.note and "(float32)" in first.note


UNKNOWN = np.zeros((5, 4, 4), np.uint8)


@pytest.mark.parametrize(
    "clip, threshold, said",
    [
        ({}, 975.0, None),
        ({"pose_frames": ()}, 975.0, "The first frame has no pose"),
        ({"pose_frames": (2,)}, 975.0, "The first frame has no pose"),
        ({"pose_frames": (), "part_maps": UNKNOWN}, 975.0, None),
        ({"pose_frames": ()}, 1000.0, None),
    ],
)
def test_the_note_says_why_there_was_no_part_aware_attention(maker, clip, threshold, said):
    note = make(maker, order(clip=clip, part_attention_threshold=threshold))[1]
    assert ("part-aware" in note) == (said is not None) and (said or "") in note


def test_a_checkpoint_without_part_aware_attention_is_told(maker):
    shapes = transformer_shapes(in_channels=96, out_channels=48, part_attention=False)
    save_shards(random_tensors(shapes, torch.bfloat16), maker.weights.folder / "plain")
    maker = ClipRunner(find_weights(maker.weights.folder), "cpu")
    note = make(maker, order(transformer="plain"))[1]
    assert "checkpoint is one without part-aware attention" in note
