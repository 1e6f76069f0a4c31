"""The loop: it learns, it goes on exactly after a kill, and what ends it is said in a sentence."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from inference_server.poseanything.checkpoints import load_lora, load_transformer  # noqa: E402
from inference_server.poseanything.models.linear_vae import AutoencoderLinear  # noqa: E402
from inference_server.poseanything.models.streaming_vae import encode_frames  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.synthesis.pool import Pool, camera_poses  # noqa: E402
from inference_server.training.beginning import initialise  # noqa: E402
from inference_server.training.errors import TrainingError  # noqa: E402
from inference_server.training.objective import (  # noqa: E402
    Batch,
    Objective,
    predict,
    release_weights,
    sample,
    sigmas,
)
from inference_server.training.pool_batches import PoolBatches, encode, fit_vae, to_video  # noqa: E402
from inference_server.training.settings import STAGES, TrainingSettings  # noqa: E402
from inference_server.training.sparse_poses import sample_pose_frames  # noqa: E402
from inference_server.training.trainer import Trainer  # noqa: E402
from tests.golden import GOLDEN  # noqa: E402

TINY = {
    "patch_size": (1, 1, 1),
    "num_attention_heads": 1,
    "attention_head_dim": 32,
    "in_channels": 48,
    "out_channels": 24,
    "text_dim": 8,
    "ffn_dim": 64,
    "num_layers": 2,
    "rope_max_seq_len": 32,
    "part_attention_empty": "excluded",
    "text_conditioning": False,
}
SETTINGS = {
    "batch_size": 2,
    "steps": 6,
    "warmup_steps": 2,
    "log_steps": 1,
    "mixed_precision": "no",
    "checkpoint_seconds": 1e9,
    "learning_rate": 3e-3,
    "part_dropout": 0.0,
    "sparse_poses": 0.5,
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    pool = Pool.create(tmp_path_factory.mktemp("pool"), 8, ClipSettings(64, 64, 5))
    for row in range(8):
        pool.write(row, make_clip(row, pool.settings))
    return pool


@pytest.fixture(scope="module")
def vae(pool):
    return fit_vae(pool, pool.rows()[2:], 24)


@pytest.fixture
def make(pool, vae, tmp_path):
    def make(name="run", transformer=None, **changes):
        settings = TrainingSettings(**SETTINGS | changes)
        if transformer is None:
            torch.manual_seed(0)
            config = TINY | ({"part_attention": False} if settings.part_masks == "none" else {})
            transformer = PoseAnythingTransformer3DModel(**config)
            initialise(transformer)
            if settings.distilled_steps or settings.trainable != "all":  # a model that has learned something
                torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
        drafts = transformer.config.init == "draft"
        batches = PoolBatches(pool, vae, settings, 8, torch.device("cpu"), drafts=drafts, held_out=2)
        batches.take_in()
        lines = []
        trainer = Trainer(tmp_path / name, settings, transformer, batches, lines.append, cpu=True)
        trainer.lines = lines
        return trainer

    return make


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_the_weights_over_timesteps_are_the_releases():
    recorded = json.loads((GOLDEN / "scheduler.json").read_text())["train1000"]
    timesteps, bell = sigmas(recorded["shift_kept"]) * 1000, release_weights(recorded["shift_kept"])
    assert timesteps[:5].tolist() == pytest.approx(recorded["first5_timesteps"], rel=1e-5)
    assert timesteps[-5:].tolist() == pytest.approx(recorded["last5_timesteps"], rel=1e-5)
    for index, weight in recorded["weights_at"].items():
        assert bell[int(index)].item() == pytest.approx(weight, abs=1e-4), index


def test_poses_are_thinned_in_the_papers_shares():
    random = np.random.default_rng(0)
    counts = np.array([sample_pose_frames(random, 81).sum() for _ in range(4000)])
    assert all(sample_pose_frames(random, 17)[0] for _ in range(50))
    assert counts.min() == 1 and counts.max() == 81
    assert (counts > 21).mean() == pytest.approx(0.35, abs=0.03)
    assert (counts < 11).mean() == pytest.approx(0.45 * 10 / 11, abs=0.04)


def test_videos_are_coded_as_the_pipeline_codes_them(pool, vae):
    video = to_video(torch.from_numpy(np.array(pool.arrays["frames"][:2])))
    assert encode(vae, video) == pytest.approx(torch.cat(list(encode_frames(vae, video)), 2), abs=1e-4)
    lossless = fit_vae(pool, pool.rows(), 768)
    latents = encode(lossless, video)
    assert isinstance(lossless, AutoencoderLinear) and latents.square().mean() == pytest.approx(1, abs=0.3)


def test_it_learns(make):
    trainer = make(steps=120, part_masks="mixed")
    trainer.run()
    errors = [line["clean_error"] for line in trainer.lines]
    assert np.mean(errors[-5:]) < 0.6 * np.mean(errors[:5])


def test_the_last_thing_exported_loads_as_any_checkpoint(make, tmp_path):
    trainer = make(camera_poses=0.25)
    trainer.run()
    trainer.export(tmp_path / "transformer")
    loaded = load_transformer(tmp_path / "transformer", torch_dtype=torch.float32)
    assert loaded.config.part_attention_empty == "excluded" and not loaded.config.text_conditioning
    assert loaded.config.camera_condition == "with_background"
    with trainer.averaged():
        for name, value in trainer.model.state_dict().items():
            assert loaded.state_dict()[name] == pytest.approx(value, abs=2e-3), name


@pytest.mark.parametrize(
    "changes",
    [
        {"part_masks": "none"},
        {"part_masks": "mixed", "camera_poses": 0.5},
        {"part_masks": "whole", "distilled_steps": 4},
        {"part_masks": "known", "trainable": "lora", "lora_rank": 4},
        {"part_masks": "attention", "trainable": "part_attention", "gradient_checkpointing": True},
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_a_killed_run_goes_on_bit_for_bit(make, changes):
    whole = make("whole", **changes)
    began = weights(whole)
    whole.run()
    assert any(not torch.equal(value, began[name]) for name, value in weights(whole).items())

    class Killed(Exception):
        pass

    cut = make("cut", **changes)
    train = cut._train

    def until_third(batch, progress):
        if cut.step == 3:
            cut.save()
            cut.step += 1000  # what happened after the checkpoint is lost
            raise Killed
        return train(batch, progress)

    cut._train = until_third
    with pytest.raises(Killed):
        cut.run()
    again = make("cut", **changes)
    again.run()
    assert again.step == whole.step
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    for ours, theirs in zip(whole.ema.shadow_params, again.ema.shadow_params):
        assert torch.equal(ours, theirs)


def test_a_run_killed_between_two_halves_of_a_step_goes_on_bit_for_bit(make):
    """What is gathered of a step's gradients is in no checkpoint, so there is none in its midst."""
    changes = {"accumulation": 2, "checkpoint_seconds": 0.0, "part_masks": "attention"}
    whole, cut = make("whole", **changes), make("cut", **changes)
    whole.run()
    train = cut._train

    def until_fourth(batch, progress):
        if cut.step == 3:
            raise KeyboardInterrupt
        return train(batch, progress)

    cut._train = until_fourth
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    assert cut.last_checkpoint().name == "step-00000002"
    again = make("cut", **changes)
    again.run()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_a_distilled_model_says_its_steps_and_has_moved(make, tmp_path):
    trainer = make(distilled_steps=4)
    trainer.run()
    trainer.export(tmp_path / "transformer")
    config = load_transformer(tmp_path / "transformer").config
    assert config.distilled_timesteps == [1000.0, 937.5, 833.333, 625.0] and config.num_inference_steps == 4
    taught, teacher = weights(trainer), trainer.objective.teacher.state_dict()
    assert not torch.equal(taught["proj_out.weight"], teacher["proj_out.weight"])
    batch = trainer.batches.held_out_batch(0, 2)
    made = sample(trainer.model, batch, 4, torch.Generator().manual_seed(0), renoise=True)
    assert made.shape == batch.clean.shape and torch.equal(made[:, :, 0], batch.clean[:, :, 0])


def test_a_lora_file_makes_of_the_base_what_training_made(make, tmp_path):
    trainer = make(trainable="lora", lora_rank=4, part_masks="known")
    trainer.run()
    trainer.export_lora(tmp_path / "lora.safetensors")
    base = make("base", distilled_steps=4).objective.teacher
    batch, sigma = trainer.batches.held_out_batch(0, 2), torch.full((2,), 0.7)
    with torch.no_grad(), trainer.averaged():
        plain = predict(base, batch.clean, sigma, batch)
        load_lora(base, tmp_path / "lora.safetensors")
        found, wanted = (predict(model, batch.clean, sigma, batch) for model in (base, trainer.model))
    assert (found - wanted).norm() < 0.02 * (wanted - plain).norm()
    layers = list((trainer.output / "checkpoints").glob("*/model.safetensors"))
    assert max(path.stat().st_size for path in layers) < 0.5 * sum(p.numel() for p in base.parameters()) * 4


def test_stage_three_moves_part_attention_alone(make):
    trainer = make(trainable="part_attention", part_masks="known")
    before = weights(trainer)
    trainer.run()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert moved and all("part_attn" in name or "norm_part" in name for name in moved)


def test_only_who_matches_by_attention_makes_another_pass(make):
    def passes(**changes):
        trainer, made = make(trainable="part_attention", **changes), []
        trainer.model.register_forward_hook(
            lambda model, args, kwargs, output: made.append(
                (kwargs["parts"] is not None, output[0].requires_grad)
            ),
            with_kwargs=True,
        )
        return made, trainer._train(trainer.batches.batch(0, 2), 0.0)[0]

    known, matched, drawn = (passes(part_masks=masks) for masks in ("known", "attention", "drawn"))
    assert known[0] == drawn[0] == [(True, True)] and matched[0] == [(False, False), (True, True)]
    # Parts are projected to nothing yet: the losses tell that timesteps and noise are the same.
    assert known[1] == matched[1] == drawn[1]


def test_checkpointed_gradients_are_the_same(make):
    runs = [make(str(on), gradient_checkpointing=on, steps=2) for on in (False, True)]
    for run in runs:
        run.run()
    first, second = map(weights, runs)
    for name in first:
        assert first[name] == pytest.approx(second[name], abs=1e-5), name


def test_a_bridge_starts_at_the_draft_and_ends_at_its_answer(pool, vae):
    config = TINY | {"init": "draft", "part_attention": False}
    transformer = PoseAnythingTransformer3DModel(**config)
    initialise(transformer)
    settings = TrainingSettings(**SETTINGS | {"part_masks": "none"})
    batches = PoolBatches(pool, vae, settings, 8, torch.device("cpu"), drafts=True, held_out=2)
    batches.take_in()
    batch = batches.held_out_batch(0, 2)
    generator = torch.Generator()
    latents = sample(transformer, batch, 2, generator)  # it predicts no flow yet
    assert torch.equal(latents[:, :, 1:], batch.draft[:, :, 1:])
    assert torch.equal(latents[:, :, :1], batch.clean[:, :, :1])
    loss, clean_error = Objective(transformer.config, "uniform", start_share=1.0).loss(
        transformer, batch, generator
    )
    expected = (batch.draft - batch.clean)[:, :, 1:].square().mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert clean_error.item() == pytest.approx(expected, rel=1e-5)


def test_some_examples_go_on_from_clean_frames_which_teach_nothing(pool, vae):
    """A model that is right about the frames that are made has no loss, whatever it says of those it is
    given; these are clean and at timestep 0."""
    config = PoseAnythingTransformer3DModel(**TINY | {"held_latents": 2, "prediction_type": "sample"}).config
    clean = torch.randn(64, 24, 5, 2, 2)
    batch, counts = Batch(clean, torch.zeros_like(clean), torch.zeros(64, 1, 8)), []

    def right(noisy, timestep, *conditions, **options):
        given = timestep == 0
        counts.extend(given.sum(1).tolist())
        assert torch.equal(noisy.movedim(1, 2)[given], clean.movedim(1, 2)[given])
        return (torch.where(given[:, None, :, None, None], 7.0, clean),)

    right.config = config
    objective = Objective(config, held_share=0.5)
    loss, clean_error = objective.loss(right, batch, torch.Generator().manual_seed(0))
    assert loss == clean_error == 0 and set(counts) == {1, 2, 3} and 20 < counts.count(1) < 44
    wrong = Objective(config, held_share=0.5)
    right = lambda noisy, timestep, *conditions, **options: (clean + 1,)  # noqa: E731
    right.config = config
    assert wrong.loss(right, batch, torch.Generator().manual_seed(0))[0] == pytest.approx(1)


def test_a_pose_of_the_camera_moves_with_the_background():
    clip = next(clip for clip in map(make_clip, range(50)) if clip.request.camera_motion is not None)
    drawn, path = camera_poses(clip.request), clip.request.camera_motion
    still = camera_poses(dataclasses.replace(clip.request, camera_motion=None))
    assert (still == still[0]).all() and still.any()
    for frame in (0, 8, 16):
        moved = cv2.warpPerspective(drawn[0], path[frame].astype(float), drawn[0].shape[::-1])
        assert np.corrcoef(moved.ravel(), drawn[frame].ravel())[0, 1] > 0.5, frame


def test_a_loss_that_is_no_number_ends_it_in_a_sentence(make):
    trainer = make()
    trainer.save()
    with torch.no_grad():
        trainer.model.proj_out.bias.fill_(float("nan"))
    trainer.last_checkpoint = lambda: None
    with pytest.raises(TrainingError, match="The loss is no number at step 1, .* lower learning_rate"):
        trainer.run()


def test_a_full_disk_ends_it_in_a_sentence_and_keeps_the_last_checkpoint(make, monkeypatch):
    trainer = make()
    trainer.save()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.accelerator, "save_state", full)
    trainer.step = 5
    with pytest.raises(TrainingError, match="free some space"):
        trainer.save()
    assert trainer.last_checkpoint().name == "step-00000000"


def test_a_damaged_checkpoint_is_named(make):
    trainer = make()
    trainer.save()
    (trainer.last_checkpoint() / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="step-00000000 can't be gone on with"):
        trainer.run()


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_loss_that_is_no_number_is_gone_back_from_at_half_the_rate(make, accumulation):
    trainer = make(learning_rate_halvings=1, accumulation=accumulation)
    trainer.save()
    whole, loss_of, lost = weights(trainer), trainer.objective.loss, []

    def once(*arguments):
        loss, clean_error = loss_of(*arguments)
        if trainer.step == 2 and not lost:
            lost.append(1)
            return loss * float("nan"), clean_error
        return loss, clean_error

    trainer.objective.loss = once
    trainer.run()
    assert trainer.step == 6 and trainer.learning_rate == SETTINGS["learning_rate"] / 2
    assert "half the learning rate" in "".join(line.get("note", "") for line in trainer.lines)
    assert any(not torch.equal(value, whole[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize("stage", STAGES)
def test_the_papers_stages_are_settings(stage, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f'stage = "{stage}"\nsteps = 7\n')
    settings = TrainingSettings.read(file)
    assert settings.steps == 7
    assert (settings.loss_weights == "release") == (
        stage != "bridge"
    )  # a bridge is trained at its start most
    assert (settings.trainable == "part_attention") == (stage == "parts")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("step = 3", "no setting 'step'"),
        ('steps = "x"', "must be of type int"),
        ('stage = "none"', "no stage 'none'"),
        ('trainable = "some"', "choose one of all, part_attention"),
        ("steps = ", "can't be read"),
    ],
)
def test_wrong_settings_are_named(text, sentence, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(TrainingError, match=sentence):
        TrainingSettings.read(file)
