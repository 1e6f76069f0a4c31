"""The runner and the machine's memory: what it reads, when it reads it again, and what it does when memory
runs out."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from inference_server.poseanything.checkpoints import CheckpointError, find_weights
from inference_server.poseanything.compat.diffusers import attention_backends
from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.models.streaming_vae import FrameDecoder
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime import runner as runner_module
from inference_server.poseanything.runtime.acceleration import set_attention_backend
from inference_server.poseanything.runtime.card import GIB, DeviceError
from inference_server.poseanything.runtime.out_of_memory import NotEnoughMemory
from inference_server.poseanything.runtime.requirements import ModelSizes
from inference_server.poseanything.runtime.runner import ClipRunner
from inference_server.poseanything.runtime.streaming import HostEmbedding
from inference_server.poseanything.sampling.decoding import Frames
from inference_server.poseanything.sampling.request import SamplingRequest
from shared.engines import Guidance
from tests.model.checkpoint_files import random_tensors, save_release, save_shards, transformer_shapes
from tests.model.tiny_transformer import tiny_transformer


@pytest.fixture
def runner(tmp_path) -> ClipRunner:
    """Of a tiny model, planned for as if it were the released one."""
    save_release(tmp_path)
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16), tmp_path / "PoseAnything")
    runner = ClipRunner(find_weights(tmp_path), "cpu")
    runner.sizes = ModelSizes()
    return runner


def give_host(monkeypatch, runner: ClipRunner, gigabytes: float) -> None:
    """Let the machine have so much free, less what the runner holds by then."""

    def memory():
        held = runner._plan.held_bytes if runner._plan else 0
        return SimpleNamespace(available=int(gigabytes * GIB) - held, total=64 * GIB)

    monkeypatch.setattr(psutil, "virtual_memory", memory)


def request(
    size: int = 64, num_frames: int = 5, clip: dict | None = None, steps: int = 1, **options
) -> SamplingRequest:
    picture = np.full((size, size, 3), 120, np.uint8)
    poses = np.zeros((num_frames, size, size), np.uint8)
    poses[:, 8:10, 8:40] = 255
    told = {"pose_frames": tuple(range(num_frames)), "prompt": "deer runs"} | (clip or {})
    return SamplingRequest.of(Conditions(picture, poses, **told), Guidance(guider="none"), 7, steps, options)


def make(runner: ClipRunner, asked: SamplingRequest) -> tuple[list, str, np.ndarray]:
    """Stages other than denoising's, the runner's note, and the frames."""
    stages, frames, events = [], [], runner.make(asked)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return stages, end.value, np.concatenate(frames, axis=1)
        if isinstance(event, Frames):
            frames.append(event.images)
        else:
            stages.append(event.stage)


def test_the_weights_it_holds_are_not_missing_to_the_next_clip(runner, monkeypatch):
    give_host(monkeypatch, runner, 54)
    stages, note, first = make(runner, request())
    assert "loading" in stages and "(float32)" in note
    stages, note, second = make(runner, request())
    assert "loading" not in stages and "(float32)" in note
    assert np.array_equal(first, second)


def test_a_seed_keeps_its_frames_while_other_programs_come_and_go(runner, monkeypatch):
    give_host(monkeypatch, runner, 30)
    _, note, first = make(runner, request())
    assert "(bfloat16)" in note
    give_host(monkeypatch, runner, 60)
    stages, note, second = make(runner, request())
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
def test_the_hosts_memory_running_out_leads_a_rung_lower(runner, monkeypatch, fail):
    give_host(monkeypatch, runner, 60)
    calls = run_out(monkeypatch, fail, lambda calls: calls[-1] == torch.float32)
    _, note, frames = make(runner, request())
    assert calls == [torch.float32, torch.bfloat16] and frames.shape[1] == 5
    assert "(bfloat16)" in note and "Memory ran out" in note


def test_another_fault_is_no_want_of_memory(runner, monkeypatch):
    def fail():
        raise RuntimeError("The size of tensor a must match the size of tensor b.")

    calls = run_out(monkeypatch, fail, lambda calls: True)
    with pytest.raises(RuntimeError, match="tensor a"):
        make(runner, request())
    assert len(calls) == 1


@pytest.mark.parametrize("options", [{}, {"cache": "first_block"}, {"compile": "on"}])
def test_the_old_model_is_gone_before_the_next_one_is_read(runner, monkeypatch, options):
    """The rescue would run out itself where both are alive. Nothing but the runner may collect here."""
    give_host(monkeypatch, runner, 60)
    load, old = runner_module.load_text_encoder, []  # the first to be read

    def load_text_encoder(*inputs, **keywords):
        assert all(model() is None for model in old)
        return load(*inputs, **keywords)

    def note_transformer_and_fail():
        old[:] = [weakref.ref(runner.pipeline.transformer), weakref.ref(runner.pipeline.vae)]
        torch.empty(1 << 50)

    monkeypatch.setattr(runner_module, "load_text_encoder", load_text_encoder)
    monkeypatch.setattr(torch, "compile", lambda forward, **options: forward)
    calls = run_out(monkeypatch, note_transformer_and_fail, lambda calls: len(calls) == 3)
    gc.collect()
    gc.disable()
    try:
        make(runner, request(steps=3, **options))
    finally:
        gc.enable()
    assert len(old) == 2 and calls[-1] == torch.bfloat16


def test_the_attention_backend_is_the_requests_own_whatever_ran_before(runner):
    make(runner, request())
    set_attention_backend(tiny_transformer(), "_native_math")  # another model of the same process
    seen = []
    runner.pipeline.transformer.register_forward_pre_hook(
        lambda module, inputs: seen.append(attention_backends(module))
    )
    make(runner, request())
    set_attention_backend(runner.pipeline.transformer, "_native_math")  # what a job of another choice leaves
    make(runner, request())
    assert seen == [{"native"}, {"native"}]


def test_memory_that_is_never_enough_is_a_sentence_and_leaves_nothing_behind(runner, monkeypatch):
    give_host(monkeypatch, runner, 60)
    calls = run_out(monkeypatch, lambda: torch.empty(1 << 50), lambda calls: True)
    with pytest.raises(NotEnoughMemory, match="seemed to be enough .*; choose a smaller size"):
        make(runner, request())
    assert len(calls) == 3 and runner.pipeline.transformer is None
    monkeypatch.undo()
    assert make(runner, request())[2].shape[1] == 5


@pytest.mark.parametrize(
    "said, what",
    [
        ("CUDA error: an illegal memory access was encountered", "The card failed"),
        ("CUDA error: unspecified launch failure", "The card stopped answering"),
        ("CUDA error: uncorrectable ECC error encountered", "memory is faulty"),
    ],
)
def test_a_card_that_is_lost_ends_the_clip_with_a_sentence(runner, monkeypatch, said, what):
    def fail():
        raise RuntimeError(f"{said}\nCUDA kernel errors might be asynchronously reported")

    calls = run_out(monkeypatch, fail, lambda calls: True)
    with pytest.raises(DeviceError, match=what) as caught:
        make(runner, request())
    assert len(calls) == 1 and "\n" not in str(caught.value) and "again" in str(caught.value)


def test_decoding_in_tiles_is_told(runner, monkeypatch):
    """It differs slightly from the whole picture, and is only gone over to where memory runs out."""
    give_host(monkeypatch, runner, 60)
    decode, calls = FrameDecoder.decode, []

    def run_out_once(self, latents):
        calls.append(runner.pipeline.vae.use_tiling)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, latents)

    monkeypatch.setattr(FrameDecoder, "decode", run_out_once)
    note = make(runner, request())[1]
    assert calls == [False, True] and note.endswith("the last frames were decoded in tiles.")
    assert "tiles" not in make(runner, request())[1] and calls[-1] is False


def test_what_was_too_much_is_so_for_its_size_and_until_memory_is_freed(runner, monkeypatch):
    give_host(monkeypatch, runner, 50)
    calls = run_out(monkeypatch, lambda: torch.empty(1 << 50), lambda calls: len(calls) == 1)
    make(runner, request())
    make(runner, request())
    assert calls == [torch.float32, torch.bfloat16, torch.bfloat16]
    runner._forget()
    make(runner, request(size=96))
    assert calls[3:] == [torch.float32]
    make(runner, request())
    assert calls[4:] == [torch.bfloat16]
    runner._forget()
    give_host(monkeypatch, runner, 60)
    make(runner, request())
    assert calls[5:] == [torch.float32]


@pytest.mark.parametrize("part", range(3))
def test_loading_is_left_between_two_tensors_and_begun_anew(runner, part):
    class Cancelled(Exception):
        pass

    left = None

    def check():
        nonlocal left
        if left is not None:
            left -= 1
            if not left:
                raise Cancelled

    events = runner.make(request(), check)
    for step in range(part + 1):
        assert next(events).step == step
    left = 3
    with pytest.raises(Cancelled):
        next(events)
    assert make(runner, request())[0][:4] == ["loading"] * 4


def test_of_several_transformers_the_request_chooses_one(runner, monkeypatch):
    give_host(monkeypatch, runner, 60)
    folder = runner.weights.folder
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16, seed=1), folder / "dancers")
    runner = ClipRunner(find_weights(folder), "cpu")
    with pytest.raises(CheckpointError, match=r"several .*\(PoseAnything, dancers\); choose one"):
        make(runner, request())
    _, _, animals = make(runner, request(transformer="PoseAnything"))
    _, _, dancers = make(runner, request(transformer="dancers"))
    assert not np.array_equal(animals, dancers)
    assert np.array_equal(make(runner, request(transformer="PoseAnything"))[2], animals)


def test_the_token_table_gives_its_room_up_before_the_transformer_is_loaded(runner, monkeypatch):
    load, seen = runner_module.load_transformer, []

    def look_and_load(*arguments, **options):
        seen.append(type(runner.pipeline.text_encoder.shared))
        return load(*arguments, **options)

    monkeypatch.setattr(runner_module, "load_transformer", look_and_load)
    make(runner, request())
    assert seen == [HostEmbedding]


def test_loading_says_at_once_how_the_memory_is_used(runner, monkeypatch):
    give_host(monkeypatch, runner, 60)
    events = runner.make(request())
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
def test_the_note_says_why_there_was_no_part_aware_attention(runner, clip, threshold, said):
    note = make(runner, request(clip=clip, part_attention_threshold=threshold))[1]
    assert ("part-aware" in note) == (said is not None) and (said or "") in note


def test_a_checkpoint_without_part_aware_attention_is_told(runner):
    shapes = transformer_shapes(in_channels=96, out_channels=48, part_attention=False)
    save_shards(random_tensors(shapes, torch.bfloat16), runner.weights.folder / "plain")
    runner = ClipRunner(find_weights(runner.weights.folder), "cpu")
    note = make(runner, request(transformer="plain"))[1]
    assert "checkpoint is one without part-aware attention" in note
