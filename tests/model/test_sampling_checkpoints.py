"""Checkpoints of other kinds than the released one: from drafts, of few steps, of other grids, without
prompts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from inference_server.poseanything.conditioning.conditions import InputError  # noqa: E402
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames, to_video  # noqa: E402
from inference_server.poseanything.sampling.guiders import ClassifierFreePoseGuidance  # noqa: E402
from inference_server.poseanything.sampling.options import Settings  # noqa: E402
from inference_server.poseanything.sampling.pipeline import DenoisingStep, Latents  # noqa: E402
from inference_server.poseanything.sampling.schedulers import (  # noqa: E402
    make_scheduler,
    schedule,
    scheduler_for,
    set_timesteps,
)
from tests.model.tiny_pipeline import linear_vae, tiny_clip, tiny_pipeline  # noqa: E402

FEW = Settings(num_inference_steps=2, part_attention_threshold=1000)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def with_draft(conditions, seed: int = 0):
    shape = (conditions.num_frames, *conditions.size, 3)
    draft = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return dataclasses.replace(conditions, draft=draft)


def steps_of(pipeline, conditions, **options) -> list[DenoisingStep]:
    return [event for event in pipeline.stream(conditions, **options) if isinstance(event, DenoisingStep)]


def told(pipeline, flow: float = 0.0):
    """What the transformer is called with; it answers with `flow` everywhere."""
    calls = []

    def forward(hidden_states, timestep, *conditions, **options):
        calls.append((hidden_states, timestep, *conditions))
        return (torch.full_like(hidden_states, flow),)

    pipeline.transformer.forward = forward
    return calls


# From a draft


def test_a_bridge_starts_from_the_draft_and_no_seed_changes_it():
    pipeline, conditions = tiny_pipeline(init="draft"), with_draft(tiny_clip())
    calls = told(pipeline)
    made = pipeline.sample(conditions, seeds=[3], settings=FEW)
    draft = torch.cat(list(encode_frames(pipeline.vae, to_video(conditions.draft)[None])), dim=2)
    (first,) = encode_frames(pipeline.vae, to_video(conditions.first_frame[None])[None])
    started = calls[0][0]
    torch.testing.assert_close(started[:, :, 1:], draft[:, :, 1:])
    torch.testing.assert_close(started[:, :, :1], first)
    assert np.array_equal(made, pipeline.sample(conditions, seeds=[4], settings=FEW))
    # Where the flow is none, the draft is left as it is.
    kept = torch.cat(list(decode_frames(pipeline.vae, torch.cat([first, draft[:, :, 1:]], dim=2))), dim=2)
    kept = ((kept[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
    assert np.abs(made[0].astype(int) - kept).max() <= 1


def test_a_bridge_follows_its_flow_to_the_truth():
    """The flow of a bridge is the draft less the truth."""
    pipeline, conditions = tiny_pipeline(init="draft"), with_draft(tiny_clip())
    told(pipeline, flow=0.25)
    (latents,) = [
        event.latents
        for event in pipeline.stream(conditions, settings=FEW, decode=False)
        if isinstance(event, Latents)
    ]
    draft = torch.cat(list(encode_frames(pipeline.vae, to_video(conditions.draft)[None])), dim=2)
    torch.testing.assert_close(latents[:, :, 1:], draft[:, :, 1:] - 0.25)


def test_noise_on_the_draft_is_the_seeds():
    pipeline, conditions = tiny_pipeline(init="draft", init_noise=0.5), with_draft(tiny_clip())
    calls = told(pipeline)
    for seed in (3, 3, 4):
        pipeline.sample(conditions, seeds=[seed], settings=FEW)
    first, again, other = (calls[index][0] for index in (0, 2, 4))
    assert torch.equal(first, again) and (first - other)[:, :, 1:].std() == pytest.approx(
        0.5 * 2**0.5, rel=0.1
    )


@pytest.mark.parametrize(
    "config", [{"init": "draft"}, {"prediction_type": "sample", "prediction_base": "draft"}]
)
def test_without_a_draft_a_checkpoint_that_needs_one_says_so(config):
    with pytest.raises(InputError, match="starts from a draft"):
        tiny_pipeline(**config).sample(tiny_clip(), settings=FEW)


def test_a_bridge_is_not_made_noisy_again():
    with pytest.raises(InputError, match="choose euler"):
        tiny_pipeline("lcm", init="draft").sample(with_draft(tiny_clip()), settings=FEW)


# Of the sample


@pytest.mark.parametrize("base", [None, "first_frame", "draft"])
def test_a_prediction_of_the_sample_is_counted_from_its_base(base):
    pipeline = tiny_pipeline(prediction_type="sample", prediction_base=base)
    conditions = with_draft(tiny_clip())
    told(pipeline, flow=0.1)
    still = np.stack([conditions.first_frame] * conditions.num_frames)
    pictures = {None: None, "first_frame": still, "draft": conditions.draft}[base]
    expected = torch.full((1, 48, 3, 4, 6), 0.1)
    if pictures is not None:
        expected = expected + torch.cat(list(encode_frames(pipeline.vae, to_video(pictures)[None])), dim=2)
    for guider in (None, ClassifierFreePoseGuidance(3.0)):
        for step in steps_of(pipeline, conditions, settings=FEW, guider=guider):
            torch.testing.assert_close(step.clean[:, :, 1:], expected[:, :, 1:], rtol=1e-4, atol=1e-4)


# Few steps


def test_given_timesteps_are_met_whatever_the_shift():
    timesteps = (1000.0, 757.0, 522.0)
    for name in ("euler", "lcm"):
        for shift in (1.0, 5.0, 8.0):
            scheduler = make_scheduler(name, shift)
            set_timesteps(scheduler, timesteps, "cpu")
            torch.testing.assert_close(scheduler.timesteps, torch.tensor(timesteps))
            torch.testing.assert_close(scheduler.sigmas, torch.tensor([*timesteps, 0.0]) / 1000)


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("name", ["euler", "unipc", "lcm"])
def test_any_shift_bends_the_schedule(name, shift):
    scheduler = make_scheduler(name, shift)
    set_timesteps(scheduler, 4, "cpu")
    unshifted = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    expected = shift * unshifted / (1 + (shift - 1) * unshifted)
    torch.testing.assert_close(scheduler.sigmas, expected, rtol=0, atol=1e-5)


def test_a_distilled_checkpoint_is_sampled_at_its_own_timesteps():
    config = tiny_pipeline(distilled_timesteps=[1000.0, 600.0], flow_shift=3.0).transformer.config
    assert (
        schedule(Settings(), config) == schedule(Settings(num_inference_steps=2), config) == [1000.0, 600.0]
    )
    assert schedule(Settings(num_inference_steps=3), config) == 3
    assert schedule(Settings(timesteps=(900.0,)), config) == (900.0,)
    assert type(scheduler_for(config)).__name__ == "FlowMatchLCMScheduler"
    assert scheduler_for(config).config.shift == 3 and scheduler_for(config, shift=7.0).config.shift == 7
    config = tiny_pipeline(num_inference_steps=4).transformer.config
    assert schedule(Settings(), config) == 4
    assert type(scheduler_for(config)).__name__ == "FlowMatchEulerDiscreteScheduler"
    assert scheduler_for(config).config.shift == 5


def test_noise_is_added_anew_by_the_seed_and_whatever_else_is_in_the_batch():
    pipeline = tiny_pipeline("lcm")
    settings = Settings(timesteps=(1000.0, 757.0, 522.0), part_attention_threshold=1000)
    together = steps_of(pipeline, tiny_clip(), seeds=[5, 6], settings=settings)
    alone = steps_of(pipeline, tiny_clip(), seeds=[6], settings=settings)
    for both, one in zip(together, alone):
        torch.testing.assert_close(both.latents[1:], one.latents, rtol=1e-4, atol=1e-4)
    # Each step but the last leaves the clean latents and fresh noise of the next level.
    for step, sigma in zip(alone, (0.757, 0.522)):
        noise = (step.latents - (1 - sigma) * step.clean)[:, :, 1:] / sigma
        assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(alone[-1].latents[:, :, 1:], alone[-1].clean[:, :, 1:])


# Other grids, and no prompts


def test_a_small_checkpoint_of_another_grid_runs_without_a_text_encoder():
    vae = linear_vae(z_dim=12, patch_size=8, scale_factor_temporal=2, latents_std=None)
    pipeline = tiny_pipeline(
        vae=vae,
        in_channels=24,
        out_channels=12,
        patch_size=(1, 1, 1),
        text_conditioning=False,
        sample_frames=7,
        num_inference_steps=2,
    )
    pipeline.register_modules(text_encoder=None, tokenizer=None)
    maps = np.zeros((13, 3, 5), np.uint8)
    maps[:, 1, 1:4] = (1, 2, 2)
    conditions = tiny_clip(13, 24, 40, part_maps=maps)
    calls = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, inputs, given: calls.append(given), with_kwargs=True
    )
    steps = steps_of(pipeline, conditions)
    assert [step.latents.shape for step in steps] == [(1, 12, n, 3, 5) for n in (4, 4, 4, 4, 3, 3)]
    assert steps[-1].frames == [0, 10, 12] and steps[0].total == 2 * 3
    assert calls[0]["parts"].first_masks.sum((0, 2)).tolist() == [1, 2]
    assert pipeline.sample(conditions).shape == (1, 13, 24, 40, 3)
    with pytest.raises(InputError, match="multiples of 8"):
        pipeline.sample(tiny_clip(13, 28, 40))


# What was encoded before


def test_another_prompt_seed_or_strength_encodes_no_picture_again():
    pipeline, conditions = tiny_pipeline(), tiny_clip(negative_prompt="blurred")
    encoded = []
    pipeline.vae.encoder.register_forward_hook(lambda *_: encoded.append(1))

    def count(conditions, scale, **options) -> int:
        encoded.clear()
        pipeline.sample(conditions, guider=ClassifierFreePoseGuidance(scale), settings=FEW, **options)
        return len(encoded)

    assert (
        count(conditions, 2.0) == 1 + 3 + 3
    )  # the picture, the poses, and the first of them in place of each
    assert count(dataclasses.replace(conditions, prompt="another"), 3.0, seeds=[9]) == 0
    assert count(dataclasses.replace(conditions, first_frame=255 - conditions.first_frame), 2.0) == 1
    assert count(dataclasses.replace(conditions, pose_images=conditions.pose_images[::-1]), 2.0) == 6
    assert count(conditions, 2.0) == 0
    pipeline.register_modules(vae=linear_vae())
    pipeline.vae.encoder.register_forward_hook(lambda *_: encoded.append(1))
    assert count(conditions, 2.0) == 7


# As diffusers' pipelines are called


def pictures(conditions) -> dict:
    poses = [Image.fromarray(pose) for pose in conditions.pose_images]
    return {"image": Image.fromarray(conditions.first_frame), "poses": poses, "prompt": conditions.prompt}


def test_it_is_called_as_diffusers_pipelines_are():
    pipeline, conditions = tiny_pipeline(), tiny_clip(subject_mask=None)
    size = {"height": 64, "width": 96, "num_inference_steps": 2}
    expected = pipeline.sample(conditions, seeds=[7], settings=Settings(num_inference_steps=2))

    def call(**options):
        generator = torch.Generator().manual_seed(7)
        return pipeline(**pictures(conditions) | size | {"generator": generator} | options)

    frames = call().frames
    assert frames.dtype == np.float32 and np.array_equal((frames * 255).round().astype(np.uint8), expected)
    assert torch.equal(call(output_type="pt").frames, torch.from_numpy(frames).movedim(-1, 2))
    (film,) = call(output_type="pil", return_dict=False)[0]
    assert np.array_equal(np.stack(film), expected[0])
    latents = call(output_type="latent").frames
    decoded = torch.cat(list(decode_frames(pipeline.vae, latents)), dim=2)
    assert np.abs(((decoded + 1) * 127.5).numpy()[0].transpose(1, 2, 3, 0) - expected[0]).max() < 0.6
    tensors = {
        "image": torch.from_numpy(conditions.first_frame).movedim(-1, 0) / 255,
        "poses": conditions.pose_images,
    }
    assert np.array_equal(call(**tensors).frames, frames)
    assert np.array_equal(
        call(guidance_scale=3.0).frames, call(guider=ClassifierFreePoseGuidance(3.0)).frames
    )
    assert not np.array_equal(call(guidance_scale=3.0).frames, frames)
    pair = call(
        num_videos_per_prompt=2, generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)]
    ).frames
    assert pair.shape[0] == 2 and np.abs(pair[0] - frames[0]).max() <= 1.01 / 255
    assert call(num_frames=5).frames.shape[1] == 5


def test_sizes_come_from_the_poses_and_the_checkpoint():
    pipeline = tiny_pipeline(sample_size=128, num_inference_steps=1)
    assert pipeline(**pictures(tiny_clip(10))).frames.shape == (1, 9, 64, 128, 3)
    with pytest.raises(InputError, match="There are 10 poses for 13 frames"):
        pipeline(**pictures(tiny_clip(10)), num_frames=13)
    with pytest.raises(ValueError, match="choose np, pt, pil or latent"):
        pipeline(**pictures(tiny_clip()), output_type="gif")


def test_a_callback_sees_each_step_and_may_change_the_latents():
    pipeline, conditions = tiny_pipeline(), tiny_clip()
    seen = []

    def look(pipe, step, timestep, given):
        seen.append((step, timestep, given["latents"].shape))

    options = pictures(conditions) | {"height": 64, "width": 96, "num_inference_steps": 3}
    options |= {"output_type": "latent"}
    plain = pipeline(**options, generator=torch.Generator().manual_seed(1), callback_on_step_end=look).frames
    assert [step for step, *_ in seen] == [0, 1, 2] and seen[0][1:] == (1000.0, plain.shape)

    def clear(pipe, step, timestep, given):
        return {"latents": torch.zeros_like(given["latents"])} if step == 2 else None

    cleared = pipeline(
        **options, generator=torch.Generator().manual_seed(1), callback_on_step_end=clear
    ).frames
    assert plain.any() and not cleared.any()
    with pytest.raises(ValueError, match="can be given latents"):
        pipeline(**options, callback_on_step_end_tensor_inputs=["prompt_embeds"])
