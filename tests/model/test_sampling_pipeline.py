"""The pipeline on a tiny model: what it samples, how often it asks the model, and how it is left."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from inference_server.poseanything.conditioning.conditions import Conditions, LatentGrid  # noqa: E402
from inference_server.poseanything.conditioning.files import read_conditions  # noqa: E402
from inference_server.poseanything.conditioning.parts import plan  # noqa: E402
from inference_server.poseanything.conditioning.windows import Window, plan_windows  # noqa: E402
from inference_server.poseanything.models.streaming_vae import (  # noqa: E402
    Images,
    decode_frames,
    encode_frames,
    encode_images,
    to_video,
)
from inference_server.poseanything.sampling.decoding import ClipDecoder  # noqa: E402
from inference_server.poseanything.sampling.denoising import Start  # noqa: E402
from inference_server.poseanything.sampling.guiders import (  # noqa: E402
    ClassifierFreePoseGuidance,
    NoGuidance,
    SubjectCameraGuidance,
    SubjectCameraSeparateGuidance,
)
from inference_server.poseanything.sampling.latent_preview import LatentPreview  # noqa: E402
from inference_server.poseanything.sampling.options import Settings  # noqa: E402
from inference_server.poseanything.sampling.pipeline import (  # noqa: E402
    PROMPTS_KEPT,
    DenoisingStep,
    Frames,
    PoseAnythingPipeline,
)
from inference_server.poseanything.sampling.schedulers import SCHEDULERS, make_scheduler, set_timesteps  # noqa: E402
from tests.benchmarks.ptcm import flops  # noqa: E402
from tests.benchmarks.ptcm import runs as block_runs  # noqa: E402
from tests.golden import recordings  # noqa: E402

from .tiny_pipeline import psnr, tiny_clip, tiny_pipeline, tiny_vae  # noqa: E402


class Calls:
    """What the transformer is called with, call by call."""

    def __init__(self, pipeline: PoseAnythingPipeline):
        self.calls: list[dict] = []
        self.blocks = 0
        pipeline.transformer.register_forward_pre_hook(self._note, with_kwargs=True)
        pipeline.transformer.blocks[-2].attn1.register_forward_pre_hook(self._count)

    def _note(self, module, inputs, options):
        by_frame = inputs[1][0].tolist()
        self.calls.append({"timestep": by_frame[-1], "timestep_by_frame": by_frame, **options})

    def _count(self, module, inputs):
        self.blocks += 1

    @property
    def with_parts(self) -> list[bool]:
        return [call["parts"] is not None for call in self.calls]


def part_maps(frames: int, height: int, width: int) -> np.ndarray:
    maps = np.zeros((frames, height // 8, width // 8), np.uint8)
    maps[:, 2:5, 2:6] = 1
    maps[:, 4:7, 5:9] = 2
    return maps


@pytest.mark.parametrize("recording", recordings("scheduler*.json"))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_both_schedulers_have_the_releases_sigmas(name, recording):
    recorded = json.loads(recording.read_text())
    for num_steps in filter(str.isdigit, recorded):
        scheduler = make_scheduler(name)
        set_timesteps(scheduler, int(num_steps), "cpu")
        expected = torch.tensor(recorded[num_steps]["sigmas"] + [0.0])
        if name == "euler":
            assert torch.equal(scheduler.sigmas, expected)
            assert torch.equal(scheduler.timesteps, torch.tensor(recorded[num_steps]["timesteps"]))
        else:  # UniPC must not begin at infinity
            torch.testing.assert_close(scheduler.sigmas, expected, rtol=0, atol=1.1e-6)


@torch.no_grad()
def test_a_whole_clip_is_what_a_loop_written_out_makes_of_it():
    pipeline, clip, num_steps = tiny_pipeline(vae=tiny_vae()), tiny_clip(), 5
    calls = Calls(pipeline)
    made = pipeline.sample(
        clip, seeds=[7], settings=Settings(num_inference_steps=num_steps, part_attention_threshold=1000)
    )

    vae, mean, std = pipeline.vae, 0.1, 0.7
    first = torch.from_numpy(clip.first_frame).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    pose = torch.from_numpy(clip.pose_images)[None, None].expand(-1, 3, -1, -1, -1) / 127.5 - 1
    first, pose = ((vae.encode(video).latent_dist.mode() - mean) / std for video in (first, pose))
    tokens = pipeline.tokenizer([clip.prompt], max_length=512)
    text = pipeline.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    text[:, int(tokens.attention_mask.sum()) :] = 0
    x = torch.randn(1, 48, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    sigmas = [5 * s / (1 + 4 * s) for s in (1 - i / num_steps for i in range(num_steps + 1))]
    for sigma, next_sigma in zip(sigmas, sigmas[1:]):
        x[:, :, :1] = first
        timestep = torch.tensor([[0.0, 1000 * sigma, 1000 * sigma]])
        velocity = pipeline.transformer(x, timestep, text, pose).sample
        x = x + velocity * (next_sigma - sigma)
    x[:, :, :1] = first
    expected = vae.decode(x * std + mean).sample[0].permute(1, 2, 3, 0)
    expected = ((expected + 1) * 127.5).round().clamp(0, 255).numpy()

    assert made.shape == (1, 9, 64, 96, 3) and made.dtype == np.uint8
    assert np.abs(made[0] - expected).max() <= 1
    assert [call["timestep"] for call in calls.calls[:num_steps]] == pytest.approx(
        [1000 * s for s in sigmas[:-1]]
    )


def test_the_model_in_bfloat16_is_told_the_timesteps_it_was_trained_with():
    pipeline = tiny_pipeline()
    pipeline.transformer.to(torch.bfloat16)
    calls = Calls(pipeline)
    events = pipeline.stream(tiny_clip(), settings=Settings(num_inference_steps=50))
    while len(calls.calls) < 2:
        next(events)
    assert [call["timestep"] for call in calls.calls] == [1000.0, 996.0]


@torch.no_grad()
@pytest.mark.parametrize("tiled", [False, True])
def test_frame_by_frame_is_what_the_vae_makes_of_the_whole(tiled):
    vae = tiny_vae()
    if tiled:
        vae.enable_tiling(64, 64, 48, 48)
    latents = torch.randn(2, 48, 4, 6, 9)
    frames = list(decode_frames(vae, latents))
    assert [frame.shape[2] for frame in frames] == [1, 4, 4, 4]
    torch.testing.assert_close(torch.cat(frames, dim=2), vae.decode(latents * 0.7 + 0.1).sample)
    vae.use_tiling = False
    video = torch.rand(2, 3, 13, 64, 96) * 2 - 1
    encoded = torch.cat(list(encode_frames(vae, video)), dim=2)
    torch.testing.assert_close(encoded, (vae.encode(video).latent_dist.mode() - 0.1) / 0.7)
    images = np.random.default_rng(0).integers(0, 256, (13, 64, 96), np.uint8)
    by_image = torch.cat(list(encode_images(vae, images, "cpu")), dim=2)
    torch.testing.assert_close(by_image, torch.cat(list(encode_frames(vae, to_video(images)[None])), dim=2))


def test_decoding_goes_on_in_tiles_when_memory_runs_out():
    pipeline, clip, settings = (
        tiny_pipeline(vae=tiny_vae()),
        tiny_clip(height=320, width=288),
        Settings(num_inference_steps=1),
    )
    whole = pipeline.sample(clip, settings=settings)
    calls = []

    def run_out(module, inputs):
        calls.append(inputs[0].shape[-2:])
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    pipeline.vae.decoder.conv_in.register_forward_pre_hook(run_out)
    made = pipeline.sample(clip, settings=settings)
    assert made.shape == whole.shape and np.array_equal(made[:, 0], whole[:, 0])
    assert pipeline.vae.use_tiling and calls[0] != calls[-1]
    assert psnr(made, whole) > psnr(np.full_like(whole, whole.mean()), whole) + 3


def test_frames_are_handed_on_while_the_next_one_is_decoded(monkeypatch):
    """As on a card, where frames are copied to the host behind what is computed."""
    latents, vae, log = torch.randn(1, 48, 4, 4, 6), tiny_vae(), []
    plain = [event.images for event in ClipDecoder(vae).decode(latents)]
    vae.decoder.register_forward_hook(lambda *_: log.append("decoded"))
    monkeypatch.setattr(Images, "on_their_way", True)
    decoder, made = ClipDecoder(vae), []
    for part in latents.split([3, 1], dim=2):  # two windows
        for event in decoder.decode(part):
            log.append(event.index)
            made.append(event.images)
    assert all(np.array_equal(one, other) for one, other in zip(made, plain, strict=True))
    assert log == ["decoded", "decoded", 0, "decoded", 1, 5, "decoded", 9]


@pytest.mark.parametrize(
    ("guider", "evaluations"),
    [
        (NoGuidance(), 8),
        (ClassifierFreePoseGuidance(3.0), 16),
        (ClassifierFreePoseGuidance(1.0), 8),
        (ClassifierFreePoseGuidance(3.0, stop=0.5), 12),
        (SubjectCameraGuidance(2.0, start=0.25), 14),
        (SubjectCameraSeparateGuidance(2.0, 0.5), 24),
        (SubjectCameraSeparateGuidance(2.0, 1.0), 16),  # the empty pose cancels out
    ],
)
def test_a_step_evaluates_the_model_once_for_each_condition_that_counts(guider, evaluations):
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    clip = tiny_clip(camera_images=np.roll(tiny_clip().pose_images, 5, axis=2), negative_prompt="blurred")
    settings = Settings(num_inference_steps=8, part_attention_threshold=1000)
    pipeline.sample(clip, guider=guider, settings=settings)
    assert len(calls.calls) == evaluations


def expected_latents(clip, guider=None, num_steps=3) -> torch.Tensor:
    """The clean latents that the last step leads to."""
    events = tiny_pipeline().stream(clip, guider=guider, settings=Settings(num_inference_steps=num_steps))
    return [event.clean for event in events if isinstance(event, DenoisingStep)][-1]


def test_guidance_steers_by_what_its_conditions_differ_in():
    plain = expected_latents(tiny_clip())
    by_text = ClassifierFreePoseGuidance(6.0, pose_negative=False)
    same = expected_latents(tiny_clip(negative_prompt="a wheel turns"), by_text)
    torch.testing.assert_close(same, plain, rtol=1e-3, atol=1e-3)
    other = expected_latents(tiny_clip(negative_prompt="nothing moves here at all"), by_text)
    assert (other - plain).abs().max() > 0.01
    by_pose = ClassifierFreePoseGuidance(6.0, text_negative=False)
    assert (expected_latents(tiny_clip(), by_pose) - plain).abs().max() > 0.01


def test_camera_guidance_without_a_camera_says_so():
    with pytest.raises(ValueError, match="camera's motion"):
        tiny_pipeline().sample(tiny_clip(), guider=SubjectCameraGuidance(2.0))


@pytest.mark.parametrize(("num_steps", "part_aware"), [(50, 6), (20, 3), (10, 2), (4, 1)])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_known_parts_are_there_above_the_checkpoints_threshold(scheduler, num_steps, part_aware):
    """Timesteps above 975 of 1000, whatever the solver and the number of steps."""
    pipeline = tiny_pipeline(scheduler)
    calls = Calls(pipeline)
    events = pipeline.stream(
        tiny_clip(part_maps=part_maps(9, 64, 96)), settings=Settings(num_inference_steps=num_steps)
    )
    while len(calls.calls) < min(num_steps, part_aware + 2):
        next(events)
    assert calls.with_parts == [call["timestep"] > 975 for call in calls.calls]
    assert sum(calls.with_parts) == part_aware
    assert all(call["attention_recorder"] is None for call in calls.calls)
    assert calls.calls[0]["parts"].first_masks.shape[1] == 2


def test_another_checkpoint_has_another_threshold_and_a_request_its_own():
    for threshold, settings, expected in [
        (850.0, Settings(num_inference_steps=10), 5),
        (0.0, Settings(num_inference_steps=10), 10),
        (850.0, Settings(num_inference_steps=10, part_attention_threshold=960.0), 2),
        (850.0, Settings(num_inference_steps=10, part_attention_threshold=1000.0), 0),
    ]:
        pipeline = tiny_pipeline(part_attention_threshold=threshold)
        calls = Calls(pipeline)
        pipeline.sample(tiny_clip(part_maps=part_maps(9, 64, 96)), settings=settings)
        assert calls.with_parts == [True] * expected + [False] * (10 - expected)


def test_more_parts_than_the_checkpoint_knows_are_merged():
    pipeline = tiny_pipeline(max_parts=3)
    calls = Calls(pipeline)
    maps = np.zeros((9, 8, 12), np.uint8)
    maps[:, 1:7, 1:11] = np.arange(1, 7).repeat(10).reshape(6, 10)
    next(event for event in pipeline.stream(tiny_clip(part_maps=maps)) if isinstance(event, DenoisingStep))
    assert calls.calls[0]["parts"].first_masks.shape[1] == 3
    covered = tiny_pipeline(max_parts=10)
    calls_all = Calls(covered)
    next(event for event in covered.stream(tiny_clip(part_maps=maps)) if isinstance(event, DenoisingStep))
    assert calls_all.calls[0]["parts"].first_masks.shape[1] == 6
    for name in ("first_masks", "later_masks"):
        merged, apart = (getattr(one.calls[0]["parts"], name).any(1) for one in (calls, calls_all))
        assert torch.equal(merged, apart)


def test_parts_are_matched_while_denoising_and_no_step_is_thrown_away():
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    pipeline.sample(tiny_clip(), settings=Settings(num_inference_steps=50))
    assert calls.with_parts == [False] + [True] * 5 + [False] * 44
    recorded = [call["attention_recorder"] for call in calls.calls]
    assert [recorder is not None for recorder in recorded] == [True] * 5 + [False] * 45
    parts = [call["parts"] for call in calls.calls[1:6]]
    assert all(part.first_masks.any() and part.later_masks.any() for part in parts)


@pytest.mark.parametrize(("matching", "on"), [("two_pass", "input"), ("release", "own_output")])
def test_matching_in_two_passes_repeats_its_steps(matching, on):
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    pipeline.sample(tiny_clip(), settings=Settings(num_inference_steps=50, matching=matching))
    assert calls.with_parts == [False] * 6 + [True] * 6 + [False] * 44
    assert [call["timestep"] for call in calls.calls[:6]] == [call["timestep"] for call in calls.calls[6:12]]
    assert calls.calls[5]["attention_recorder"].on == on
    used = [call["parts"] for call in calls.calls[6:12]]
    assert all(torch.equal(part.later_masks, used[0].later_masks) for part in used)


@pytest.mark.parametrize("matching", ["paper", "two_pass"])
def test_in_a_few_steps_the_only_one_with_parts_has_them_matched_before(matching):
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    pipeline.sample(tiny_clip(), settings=Settings(num_inference_steps=4, matching=matching))
    assert calls.with_parts == [False, True, False, False, False]
    assert [call["timestep"] for call in calls.calls[:2]] == [1000, 1000]


@pytest.mark.parametrize("known", [True, False])
def test_the_releases_matching_throws_no_step_away_where_there_is_nothing_to_match(known):
    pipeline = tiny_pipeline(part_attention=known)
    clip = tiny_clip(part_maps=part_maps(9, 64, 96) if known else None)
    calls = Calls(pipeline)
    pipeline.sample(clip, settings=Settings(num_inference_steps=8, matching="release"))
    assert calls.with_parts == [known] + [False] * 7


def test_nothing_is_recorded_of_a_negative_condition_that_stands_alone():
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    guider, settings = ClassifierFreePoseGuidance(0.0), Settings(num_inference_steps=20, cache="mag")
    pipeline.sample(tiny_clip(), guider=guider, settings=settings)
    assert len(calls.calls) == 20 and all(call["attention_recorder"] is None for call in calls.calls)
    assert pipeline.mag_ratios is None


def test_guidance_that_begins_late_meets_the_cache_at_its_own_step():
    pipeline = tiny_pipeline()
    # From step 15 on, ratios that leave nothing out; before, such as leave everything out.
    pipeline.mag_ratios = [1.0] * 9 + [5.0] * 15
    calls = Calls(pipeline)
    guider = ClassifierFreePoseGuidance(2.0, start=0.5)
    settings = Settings(num_inference_steps=30, cache="mag")
    pipeline.sample(tiny_clip(), guider=guider, settings=settings)
    assert len(calls.calls) == 30 + 15
    assert calls.blocks == 6 + 2 + 15 + 15  # with parts, and of 9 the first and the sixth


def test_parts_change_the_clip():
    pipeline, settings = tiny_pipeline(), Settings(num_inference_steps=6)
    with_parts = pipeline.sample(tiny_clip(part_maps=part_maps(9, 64, 96)), settings=settings)
    without = pipeline.sample(
        tiny_clip(), settings=Settings(num_inference_steps=6, part_attention_threshold=1000)
    )
    assert np.abs(with_parts[:, 1:].astype(int) - without[:, 1:]).max() > 1


def test_the_camera_and_empty_conditions_have_no_parts():
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    clip = tiny_clip(part_maps=part_maps(9, 64, 96), camera_images=tiny_clip().pose_images)
    pipeline.sample(
        clip, guider=SubjectCameraSeparateGuidance(2.0, 0.5), settings=Settings(num_inference_steps=2)
    )
    assert calls.with_parts == [True, False, False] + [False] * 3


def test_poses_beside_the_picture_have_their_parts_matched_too():
    pipeline = tiny_pipeline(pose_injection="width", in_channels=48)
    calls = Calls(pipeline)
    made = pipeline.sample(tiny_clip(), settings=Settings(num_inference_steps=3))
    assert made.shape == (1, 9, 64, 96, 3)
    masks = calls.calls[1]["parts"].later_masks.unflatten(-1, (2, 2, 6))
    assert masks[..., :3].any() and not masks[..., 3:].any()


def test_a_clip_without_poses_or_a_model_without_parts_goes_without():
    clip = tiny_clip(pose_frames=[4])
    for pipeline, made_of in [(tiny_pipeline(), clip), (tiny_pipeline(part_attention=False), tiny_clip())]:
        calls = Calls(pipeline)
        pipeline.sample(made_of, settings=Settings(num_inference_steps=3))
        assert calls.with_parts == [False] * 3


def test_what_comes_of_a_seed_does_not_depend_on_the_others():
    pipeline, settings = tiny_pipeline(), Settings(num_inference_steps=4)
    together = pipeline.sample(tiny_clip(13), seeds=[5, 6], settings=settings, window_frames=9)
    alone = [
        pipeline.sample(tiny_clip(13), seeds=[seed], settings=settings, window_frames=9)[0] for seed in (5, 6)
    ]
    for one, other in zip(together, alone):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1


def test_a_long_clip_is_made_in_windows_that_continue_each_other():
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    settings = Settings(num_inference_steps=3, part_attention_threshold=1000)
    events = list(pipeline.stream(tiny_clip(33), settings=settings, window_frames=17))
    frames = [event for event in events if isinstance(event, Frames)]
    made = np.concatenate([event.images for event in frames], axis=1)
    assert made.shape[1] == 33
    assert [event.index for event in frames] == list(
        np.cumsum([0] + [event.images.shape[1] for event in frames])[:-1]
    )
    steps = [event for event in events if isinstance(event, DenoisingStep)]
    count = len(steps) // 3
    assert [step.step for step in steps] == list(range(1, 3 * count + 1)) and steps[0].total == 3 * count
    # Each window has the user's picture, and then, in the end, what the one before ended with.
    for before, after in zip(steps[2::3], steps[5::3]):
        assert torch.equal(after.latents[:, :, 0], steps[0].latents[:, :, 0])
        shared = [frame for frame in after.frames[1:] if frame in before.frames]
        held = after.frames.index(shared[0]), before.frames.index(shared[0])
        assert len(shared) == 2
        assert torch.equal(after.latents[:, :, held[0]], before.latents[:, :, held[1]])
    assert all(not call["timestep_by_frame"][0] for call in calls.calls)
    # No other frame is clean: a model is trained with none.
    assert all(len(set(call["timestep_by_frame"][1:])) == 1 for call in calls.calls)


class Oracle:
    """In place of the transformer's forward: the exact flow towards known latents of the whole clip."""

    def __init__(self, truth: torch.Tensor, windows: list):
        self.truth, self.windows = truth, iter(windows)
        self.frames: list[int] = []

    def __call__(self, hidden_states, timestep, *conditions, **options):
        sigma = timestep[0, -1] / 1000
        if sigma == 1:
            self.frames = next(self.windows).frames
        return ((hidden_states - self.truth[:, :, self.frames]) / sigma,)


@torch.no_grad()
def test_windows_are_joined_without_a_seam(monkeypatch):
    """Where the model is right about every frame, the clip made in five windows is the clip decoded whole."""
    pipeline, conditions = tiny_pipeline(vae=tiny_vae()), tiny_clip(49)
    truth = torch.randn(1, 48, 13, 4, 6, generator=torch.Generator().manual_seed(0))
    (truth[:, :, :1],) = encode_frames(pipeline.vae, to_video(conditions.first_frame[None])[None])
    whole = torch.cat(list(decode_frames(pipeline.vae, truth)), dim=2)
    whole = ((whole[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
    windows = plan_windows(13, 5, 4)
    assert len(windows) == 5
    monkeypatch.setattr(pipeline.transformer, "forward", Oracle(truth, windows))
    settings = Settings(num_inference_steps=4, part_attention_threshold=1000)
    made = pipeline.sample(conditions, settings=settings, window_frames=17)[0]
    assert np.abs(made.astype(int) - whole).max() <= 1


@given(st.integers(1, 120), st.integers(1, 30), st.integers(0, 12))
def test_windows_cover_the_clip_and_are_as_equal_as_can_be(later, at_once, overlap):
    windows = plan_windows(1 + later, at_once, overlap)
    lengths = [window.stop - window.start for window in windows]
    room = max(at_once - 1, 2)
    assert windows[0].start == 1 and windows[-1].stop == 1 + later
    assert max(lengths) <= room and max(lengths) - min(lengths) <= 1
    assert len(windows[0].frames) == len(windows[0].weights) and windows[0].held == windows[0].blended == 0
    assert windows[0].final == 0 and sum(windows[0].weights) == 1
    for before, after in zip(windows, windows[1:]):
        assert before.stop - after.start == after.held + after.blended <= room // 2
        assert after.held >= 1 and after.stop > before.stop
        assert after.weights == sorted(after.weights, reverse=True) and len(after.weights) == len(
            after.frames
        )
        assert sum(weight == 1 for weight in after.weights) == 1 + after.held
        assert sum(0 < weight < 1 for weight in after.weights) == after.blended
        assert before.final < after.final == after.start + after.held
        assert before.place(before.stop - 1) == len(before.frames) - 1


def test_the_conditions_of_a_window_are_those_of_its_frames_and_the_first():
    maps = part_maps(21, 64, 96) + np.arange(21, dtype=np.uint8)[:, None, None]
    conditions = tiny_clip(21, part_maps=maps, pose_frames=[0, 4, 9, 20])
    window = conditions.of_window(Window(3, 5), 4)
    frames = [0, *range(9, 17)]
    assert np.array_equal(window.pose_images, conditions.pose_images[frames])
    assert np.array_equal(window.part_maps, maps[frames])
    assert window.pose_frames == [0, 1] and window.num_frames == 9
    assert window.subject_mask is conditions.subject_mask


def test_windows_without_a_posed_frame_keep_their_parts():
    pipeline = tiny_pipeline()
    calls = Calls(pipeline)
    conditions = tiny_clip(33, pose_frames=[0, 2])
    pipeline.sample(conditions, settings=Settings(num_inference_steps=20), window_frames=17)
    later = calls.calls[-20:]
    assert [call["parts"] is not None for call in later[:3]] == [False, True, True]
    assert later[1]["parts"].first_masks.any() and not later[1]["parts"].later_masks.any()


class Stop(Exception):
    pass


def test_cancelling_ends_a_step_in_its_middle_and_decodes_nothing():
    pipeline = tiny_pipeline()
    blocks, decoded = [], []
    for block in pipeline.transformer.blocks:
        block.register_forward_hook(lambda *_: blocks.append(1))
    pipeline.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))

    def check():
        if len(blocks) == 4:  # after the first block of the second step
            raise Stop

    with pytest.raises(Stop):
        list(pipeline.stream(tiny_clip(), check=check))
    assert len(blocks) == 4 and not decoded
    assert pipeline.sample(tiny_clip(), settings=Settings(num_inference_steps=2)).shape[1] == 9


def test_cancelling_ends_the_search_for_parts(monkeypatch):
    searched = []
    split = plan.split_segments
    monkeypatch.setattr(plan, "split_segments", lambda *given: searched.append(1) or split(*given))

    def check():
        if len(searched) >= 2:
            raise Stop

    with pytest.raises(Stop):
        list(tiny_pipeline().stream(tiny_clip(81), settings=Settings(num_inference_steps=1), check=check))
    assert len(searched) == 2


def test_cancelling_ends_decoding_within_a_frame():
    pipeline = tiny_pipeline(vae=tiny_vae())
    decoded, stop = [], []
    pipeline.vae.decoder.up_blocks[0].register_forward_hook(lambda *_: decoded.append(len(stop)))

    def check():
        if stop:
            raise Stop

    settings = Settings(num_inference_steps=1)
    stream = pipeline.stream(tiny_clip(33), settings=settings, window_frames=17, check=check)
    for event in stream:
        if isinstance(event, Frames):
            stop.append(1)
            break
    with pytest.raises(Stop):
        list(stream)
    assert not any(decoded)
    assert not pipeline.vae.decoder.up_blocks[0]._forward_pre_hooks


def test_previews_show_the_pictures_colours():
    pipeline = tiny_pipeline()
    events = pipeline.stream(tiny_clip(), settings=Settings(num_inference_steps=2))
    index, image = next(event for event in events if isinstance(event, DenoisingStep)).preview()
    assert index == 4 and image.shape == (4, 6, 3) and image.dtype == np.uint8


def test_a_preview_is_fitted_once_for_a_vae_and_only_when_asked_for(monkeypatch):
    fits = []
    fit = LatentPreview.__init__
    monkeypatch.setattr(LatentPreview, "__init__", lambda self, *args: fits.append(1) or fit(self, *args))
    pipeline, settings = tiny_pipeline(), Settings(num_inference_steps=1)

    def steps():
        events = pipeline.stream(tiny_clip(), settings=settings)
        return (event for event in events if isinstance(event, DenoisingStep))

    list(steps())
    assert not fits
    for _ in range(2):
        next(steps()).preview()
        assert len(fits) == 1
    pipeline.register_modules(vae=tiny_vae())
    next(steps()).preview()
    assert len(fits) == 2 and len(pipeline._previews) == 1


@torch.no_grad()
def test_the_fitted_preview_is_much_nearer_than_the_mean_colour():
    vae, picture = tiny_vae(base_dim=24), tiny_clip(height=256, width=256).first_frame
    preview = LatentPreview(vae, picture[None], "cpu")
    (latents,) = encode_frames(vae, to_video(picture[None])[None])
    wanted = picture.reshape(16, 16, 16, 16, 3).mean((1, 3))
    error = np.abs(preview(latents[0, :, 0]) - wanted).mean()
    assert error < 0.6 * np.abs(wanted - wanted.mean((0, 1))).mean()


@pytest.mark.parametrize(("cache", "threshold"), [("first_block", 0.9), ("mag", 0.5), ("taylorseer", 0.0)])
def test_caches_leave_out_evaluations_after_the_part_aware_steps(cache, threshold):
    pipeline, num_steps = tiny_pipeline(), 30
    clip, guider = tiny_clip(part_maps=part_maps(9, 64, 96)), ClassifierFreePoseGuidance(1.5, stop=0.4)
    calls = Calls(pipeline)
    plain = pipeline.sample(clip, guider=guider, settings=Settings(num_inference_steps=num_steps))
    every = calls.blocks
    settings = Settings(num_inference_steps=num_steps, cache=cache, cache_threshold=threshold)
    if cache == "mag":
        calibrating = pipeline.sample(clip, guider=guider, settings=settings)
        assert np.array_equal(calibrating, plain) and calls.blocks == 2 * every
        assert len(pipeline.mag_ratios) == num_steps - 4
    calls.blocks = 0
    made = pipeline.sample(clip, guider=guider, settings=settings)
    print(f"{cache}: {calls.blocks} of {every} evaluations, PSNR {psnr(made, plain):.1f} dB against uncached")
    assert 12 <= calls.blocks <= 0.8 * every
    assert not pipeline.transformer.is_cache_enabled
    again = pipeline.sample(clip, guider=guider, settings=Settings(num_inference_steps=num_steps))
    assert np.array_equal(again, plain)


def test_a_prompt_in_use_is_not_forgotten_for_others():
    pipeline = tiny_pipeline()
    guider, settings = ClassifierFreePoseGuidance(2.0), Settings(num_inference_steps=1)
    for number in range(40):
        prompts = [f"prompt {number}", "a negative prompt"]
        list(pipeline.encode_prompts(prompts))
        assert pipeline.prompt_embeds.keys() >= set(prompts)
    assert len(pipeline.prompt_embeds) == PROMPTS_KEPT
    clip = tiny_clip(prompt="one more", negative_prompt=next(iter(pipeline.prompt_embeds)))
    assert pipeline.sample(clip, guider=guider, settings=settings).shape[1] == 9


@torch.no_grad()
def test_a_guided_sample_with_mag_cache_takes_half_of_the_releases_arithmetic():
    """The default threshold, on a tiny model: how much is left out of the real one depends on its weights."""
    evaluation = {name: flops(run) for name, run in block_runs(3072, 14336, "meta").items()}
    ours, released = (evaluation[name] / evaluation["without"] - 1 for name in ("ours", "as released"))
    # To match, the release denoises 5 steps and goes through 28 of 30 blocks, one of them twice.
    release = 5 + 29 / 30 + 50 + 6 * released

    pipeline = tiny_pipeline()
    for parameter in pipeline.transformer.parameters():
        parameter.mul_(0.5)  # a smoother model, nearer to a trained one
    clip, guider = tiny_clip(part_maps=part_maps(9, 64, 96)), ClassifierFreePoseGuidance(2.0, stop=0.2)
    settings = Settings(num_inference_steps=50, cache="mag")
    pipeline.sample(clip, guider=guider, settings=settings)  # measures the ratios
    calls = Calls(pipeline)
    pipeline.sample(clip, guider=guider, settings=settings)
    assert len(calls.calls) == 60 and sum(calls.with_parts) == 12
    assert calls.blocks + 12 * ours <= release / 2


def test_unipc_comes_to_the_same_clip():
    clip = tiny_clip()
    fine = tiny_pipeline().sample(
        clip, settings=Settings(num_inference_steps=40, part_attention_threshold=1000)
    )
    made = tiny_pipeline("unipc").sample(
        clip, settings=Settings(num_inference_steps=40, part_attention_threshold=1000)
    )
    assert psnr(made, fine) > 20 > psnr(np.full_like(fine, fine.mean()), fine)


def test_compiled_blocks_do_the_same():
    from inference_server.poseanything.runtime.acceleration import compile_blocks

    clip, settings = tiny_clip(), Settings(num_inference_steps=8, cache="taylorseer")
    pipeline = tiny_pipeline()
    eager = pipeline.sample(clip, settings=settings)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_blocks(pipeline.transformer, backend=backend)
    assert np.abs(pipeline.sample(clip, settings=settings).astype(int) - eager).max() <= 1
    assert 1 <= len(graphs) <= 4  # without parts, and before and after them


def test_the_pipeline_is_saved_and_loaded_as_any_of_diffusers(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.register_modules(tokenizer=None)
    pipeline.encode_prompts(["a wheel turns"])
    pipeline.save_pretrained(tmp_path)
    loaded = PoseAnythingPipeline.from_pretrained(tmp_path, tokenizer=None)
    assert type(loaded.vae) is type(pipeline.vae)
    settings = Settings(num_inference_steps=2)
    embeds = {"a wheel turns": torch.zeros(1, 512, 16)}
    pipeline.prompt_embeds.update(embeds)
    loaded.prompt_embeds.update(embeds)
    assert np.array_equal(
        loaded.sample(tiny_clip(), settings=settings), pipeline.sample(tiny_clip(), settings=settings)
    )


@pytest.mark.parametrize(
    ("grid", "size", "sentence"),
    [
        (LatentGrid(), (100, 64, 9), "multiples of 32; choose 96 x 64"),
        (LatentGrid(), (64, 10, 9), "choose 64 x 32"),
        (LatentGrid(), (64, 64, 80), "makes 5, 9, 13 and so on; choose 77 or 81"),
        (LatentGrid(), (64, 64, 1), "choose 5"),
        (LatentGrid(), (64, 64, 0), "choose 5"),
        (LatentGrid(8, 2, 1), (60, 64, 9), "multiples of 8; choose 64 x 64"),
        (LatentGrid(8, 2, 1), (64, 64, 8), "makes 3, 5, 7 and so on; choose 7 or 9"),
    ],
)
def test_sizes_the_model_can_not_make_name_the_nearest(grid, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        grid.check_size(*size)


def test_the_pipeline_refuses_a_size_that_its_grid_can_not_make():
    conditions = Conditions(np.zeros((48, 64, 3), np.uint8), np.zeros((9, 48, 64), np.uint8))
    with pytest.raises(ValueError, match="choose 64 x 64"):
        tiny_pipeline().sample(conditions)


def test_thin_lines_of_large_pose_images_are_still_there(tmp_path):
    for frame in range(5):
        image = np.zeros((1104, 1913), np.uint8)  # 2.3 times the clip's size
        cv2.line(image, (200 + 10 * frame, 100), (1700, 1000), 255, 1)
        cv2.imwrite(str(tmp_path / f"{frame}.png"), image)
    clip = read_conditions(tmp_path / "0.png", tmp_path)
    assert clip.size == (480, 832)
    assert all((image > 127).sum() > 150 for image in clip.pose_images)


def test_the_releases_sizes():
    grid = LatentGrid()
    assert grid.fit_size(512, 288) == (832, 448)
    assert grid.fit_size(480, 832) == (480, 832)
    assert grid.fit_size(1920, 1080) == (832, 448)


def test_a_window_keeps_what_it_holds_and_fades_into_what_it_shares():
    known, drawn, made = (
        torch.full((1, 1, 5, 1, 1), 2.0),
        torch.zeros(1, 1, 5, 1, 1),
        torch.ones(1, 1, 5, 1, 1),
    )
    start = Start(drawn, known, torch.tensor([1.0, 1.0, 0.75, 0.25, 0.0]))
    assert start.keep(made, 0.0).flatten().tolist() == [2.0, 2.0, 1.75, 1.25, 1.0]
    # Early, what is known is mostly noise, but for the user's picture.
    assert start.keep(made, 0.75).flatten().tolist() == [2.0, 0.5, 0.625, 0.875, 1.0]
    trained = dataclasses.replace(start, clean=2)  # to go on from clean frames
    assert trained.keep(made, 0.75).flatten().tolist() == [2.0, 2.0, 0.625, 0.875, 1.0]


def test_held_frames_are_clean_where_the_checkpoint_was_trained_so():
    for held_latents, expected in ((0, 1), (2, 3)):
        pipeline = tiny_pipeline(held_latents=held_latents)
        calls = Calls(pipeline)
        settings = Settings(num_inference_steps=1, part_attention_threshold=1000)
        pipeline.sample(tiny_clip(49), settings=settings, window_frames=33)
        first, later = (np.array(call["timestep_by_frame"]) for call in calls.calls)
        assert (first == 0).sum() == 1 and (later == 0).sum() == expected
