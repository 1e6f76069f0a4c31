"""The engine on a tiny model saved as the real one is: through the worker's interface, and through the
command line."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")


from inference_server.cli import main  # noqa: E402
from inference_server.engines import ENGINES, find_engine  # noqa: E402
from inference_server.engines.base import EngineError, JobCancelled, Picture  # noqa: E402
from inference_server.engines.poseanything import engine as engine_module  # noqa: E402
from inference_server.engines.poseanything import machine  # noqa: E402
from inference_server.engines.poseanything.request import draw_camera, sampling_request  # noqa: E402
from inference_server.poseanything.checkpoints.float8 import Float8Linear  # noqa: E402
from inference_server.poseanything.compat import diffusers as compat  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel  # noqa: E402
from inference_server.poseanything.runtime.placement import MemoryPlan  # noqa: E402
from inference_server.poseanything.sampling.guiders import (  # noqa: E402
    ClassifierFreePoseGuidance,
    NoGuidance,
    SubjectCameraGuidance,
    SubjectCameraSeparateGuidance,
    suggest_guidance_scale,
)
from shared.camera import camera_path  # noqa: E402
from shared.engines import Guidance  # noqa: E402
from shared.messages import Cancelled, Done, Failed, Frame, GenerationRequest, Preview, Progress  # noqa: E402
from shared.pose import Limb, Polyline, PoseSequence  # noqa: E402
from shared.release import RELEASE  # noqa: E402
from shared.request_file import write_request  # noqa: E402
from tests.golden import DEER  # noqa: E402
from tests.server.client import ServerProcess  # noqa: E402

from .checkpoint_files import save_loras, save_sampling_release  # noqa: E402

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, FRAMES = 96, 64, 9


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Files of the names, formats and layouts that the weights command gets, of a tiny model."""
    return save_sampling_release(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def engine(weights):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSEANYTHING_WEIGHTS", str(weights))
        engine = find_engine("poseanything")()
        list(engine.load())
        yield engine


def request(**fields) -> GenerationRequest:
    """A cross of two limbs that turns, with all that the scene knows."""
    num_frames, (height, width) = (
        fields.get("num_frames", FRAMES),
        (fields.get("height", HEIGHT), fields.get("width", WIDTH)),
    )
    frames, centre = [], np.array([WIDTH, HEIGHT]) / 2
    for frame in range(num_frames):
        polylines = []
        for limb in range(2):
            angle = 0.1 * frame + np.pi / 2 * limb
            along = np.array([np.cos(angle), np.sin(angle)])
            for aside in (-1, 0, 1):  # three strokes beside each other: one would pale at this size
                middle = centre + aside * along[::-1] * (-1, 1)
                ends = [np.append(middle + sign * 0.45 * HEIGHT * along, 3.0) for sign in (-1, 1)]
                polylines.append(Polyline(limb, ends))
        frames.append(polylines)
    pose = PoseSequence.from_frames(
        WIDTH, HEIGHT, ["body", "tail"], [Limb("spine", 0), Limb("tail", 1)], frames
    )
    picture = np.full((height, width, 3), (160, 90, 40), np.uint8)
    picture[height // 4 : -height // 4, width // 4 : -width // 4] = (60, 150, 200)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : -height // 4, width // 4 : width // 2] = 1
    labels[height // 4 : -height // 4, width // 2 : -width // 4] = 2
    base = {
        "job": "job",
        "engine": "poseanything",
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": 24.0,
        "first_frame": cv2.imencode(".png", picture)[1].tobytes(),
        "pose": pose,
        "prompt": "deer runs",
        "num_inference_steps": 3,
        "first_labels": labels,
        "part_maps": np.stack([labels[::8, ::8]] * num_frames),
        "subject_mask": (labels > 0).astype(np.uint8),
        "camera_motion": camera_path({"pan_left": 0.2}, num_frames, width, height),
        "preview_interval": 0.001,
    }
    return GenerationRequest(**base | fields)


def generate(engine, asked: GenerationRequest, cancelled=lambda: False) -> tuple[list, str]:
    """All events of a request and the engine's note."""
    events, stream = [], engine.generate(asked, cancelled)
    while True:
        try:
            events.append(next(stream))
        except StopIteration as end:
            return events, end.value


def pictures(events: list) -> np.ndarray:
    return np.stack([event.image for event in events if isinstance(event, Picture)])


def test_a_request_becomes_frames_previews_and_progress(engine):
    events, note = generate(engine, request())
    made = [event for event in events if isinstance(event, Picture)]
    assert [picture.index for picture in made] == list(range(FRAMES))
    assert {picture.image.shape for picture in made} == {(HEIGHT, WIDTH, 3)} and made[
        0
    ].image.dtype == np.uint8
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))
    assert stages == ["loading", "reading the prompt", "encoding", "denoising", "decoding"]
    steps = [event for event in events if isinstance(event, Progress) and event.stage == "denoising"]
    assert [(step.step, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    previews = [event for event in events if isinstance(event, Preview)]
    assert previews and all(preview.image.shape == (HEIGHT // 16, WIDTH // 16, 3) for preview in previews)
    assert note.startswith("The processor has") and note.endswith(".")


def test_a_seed_gives_the_same_clip_and_the_model_stays_loaded(engine):
    first, _ = generate(engine, request(seed=3))
    again, _ = generate(engine, request(seed=3))
    other, _ = generate(engine, request(seed=4))
    assert np.array_equal(pictures(first), pictures(again))
    assert not np.array_equal(pictures(first), pictures(other))
    assert not [event for event in again if isinstance(event, Progress) and event.stage == "loading"]


class Watched:
    """What the model was asked for while a clip was made.

    calls: of the transformer, each whether with parts and whether its attention was recorded.
    blocks: how often the last block was computed.
    """

    def __init__(self, engine, **fields):
        self.calls, self.blocks = [], 0
        model = PoseAnythingTransformer3DModel
        forward = model.forward

        def watch(transformer, *inputs, **options):
            given = options["parts"] is not None, options["attention_recorder"] is not None
            self.calls.append(given)
            handle = transformer.blocks[-1].attn1.register_forward_hook(self._count)
            try:
                return forward(transformer, *inputs, **options)
            finally:
                handle.remove()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "forward", watch)
            events, self.note = generate(engine, request(**fields))
        self.clip = pictures(events)
        self.stages = {event.stage for event in events if isinstance(event, Progress)}
        self.scheduler = engine._runner.pipeline.scheduler
        self.sigmas = self.scheduler.sigmas.tolist()
        assert self.clip.shape == (fields.get("num_frames", FRAMES), HEIGHT, WIDTH, 3)

    def _count(self, *_):
        self.blocks += 1

    @property
    def with_parts(self) -> int:
        return sum(parts for parts, _ in self.calls)

    @property
    def recorded(self) -> int:
        return sum(recorded for _, recorded in self.calls)


def options_say(engine, options, **fields) -> tuple[Watched, Watched]:
    """A clip without these options, and one with them."""
    return Watched(engine, **fields), Watched(engine, engine_options=options, **fields)


def cache_leaves_steps_out(engine, weights):
    """Each cache computes fewer blocks, in the steps after the 3 part-aware ones alone."""
    plain = Watched(engine, num_inference_steps=20)
    for name in ("first_block", "taylorseer", "mag"):
        asked = {"cache": name, "cache_threshold": 1.0}
        if name == "mag":
            assert Watched(engine, num_inference_steps=20, engine_options=asked).blocks == 20, (
                "it is measured"
            )
        made = Watched(engine, num_inference_steps=20, engine_options=asked)
        assert 3 < made.blocks < 0.8 * plain.blocks, name
        assert not np.array_equal(made.clip, plain.clip)


def cache_threshold_is_how_much(engine, weights):
    """A higher one leaves out more."""
    strict, lax = (
        Watched(
            engine,
            num_inference_steps=20,
            engine_options={"cache": "first_block", "cache_threshold": threshold},
        )
        for threshold in (1e-6, 1.0)
    )
    assert lax.blocks < strict.blocks == 20


def part_attention_is_on_above_the_threshold(engine, weights):
    """The timesteps are 1000, 909 and 714."""
    for threshold, steps in ((-1.0, 1), (0.0, 3), (800.0, 2), (1000.0, 0)):
        made = Watched(engine, engine_options={"part_attention_threshold": threshold})
        assert made.with_parts == steps and len(made.calls) == 3


def matching_in_passes_begins_anew(engine, weights):
    """The release denoises five steps first only to match the parts; two passes have them from the start."""
    paper, two_pass, release = (
        Watched(engine, num_inference_steps=50, engine_options={"parts": "images", "matching": matching})
        for matching in ("paper", "two_pass", "release")
    )
    assert len(paper.calls) == 50 and len(release.calls) == 6 + 50 and len(two_pass.calls) > 50
    assert paper.recorded >= 1 and two_pass.recorded >= 1 and release.recorded == 1
    assert release.calls[5] == (False, True) and not any(parts for parts, _ in release.calls[:6])
    assert paper.with_parts == 5 and two_pass.with_parts == release.with_parts == 6


def scheduler_is_the_named_one(engine, weights):
    classes = {
        "auto": "FlowMatchEulerDiscreteScheduler",
        "euler": "FlowMatchEulerDiscreteScheduler",
        "unipc": "UniPCMultistepScheduler",
        "lcm": "FlowMatchLCMScheduler",
    }
    (option,) = [about for about in engine.describe().options if about.name == "scheduler"]
    made = {
        choice.name: Watched(engine, engine_options={"scheduler": choice.name}) for choice in option.choices
    }
    assert {name: type(watched.scheduler).__name__ for name, watched in made.items()} == classes
    assert len({watched.clip.tobytes() for watched in made.values()}) == 3


def shift_moves_the_schedule(engine, weights):
    trained, shifted, higher = (Watched(engine, engine_options={"shift": shift}) for shift in (0.0, 5.0, 9.0))
    assert np.array_equal(trained.clip, shifted.clip) and not np.array_equal(trained.clip, higher.clip)
    assert higher.sigmas[1] == pytest.approx(9 * (2 / 3) / (1 + 8 * (2 / 3)))


def parts_of_images_are_matched(engine, weights):
    """By the attention that is recorded; the scene's are known from the first step on."""
    scene, images = options_say(engine, {"parts": "images"}, num_inference_steps=50)
    assert scene.recorded == 0 and scene.with_parts == 6
    assert images.recorded >= 1 and images.with_parts == 5


def transformer_is_the_named_one(engine, weights):
    Watched(engine, num_inference_steps=1, engine_options={"transformer": "PoseAnything"})
    assert engine._runner.weights.transformer == weights / "PoseAnything"
    with pytest.raises(EngineError, match="no transformer 'elsewhere'"):
        generate(engine, request(engine_options={"transformer": "elsewhere"}))


def attention_is_diffusers_own(engine, weights):
    """A kernel whose package is not installed is refused by diffusers; every choice is a backend of its."""
    (option,) = [about for about in engine.describe().options if about.name == "attention"]
    backends = {backend.value for backend in compat.AttentionBackendName}
    assert {choice.name for choice in option.choices} <= backends | {"auto"}
    with pytest.raises(EngineError, match="'sage' can't be used here .*choose native"):
        generate(engine, request(engine_options={"attention": "sage"}))


def compile_compiles_every_block(engine, weights):
    """And what all the VAE's norms share."""
    compiled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda forward, **_: compiled.append(forward) or forward)
        made = Watched(engine, engine_options={"compile": "on"})
    assert len(compiled) == len(engine._runner.pipeline.transformer.blocks) + 1 and made.note
    assert "compiling" in made.stages  # it takes so long that it must be said
    Watched(engine, engine_options={"compile": "off"})
    assert not engine._runner._compilation.in_use


def precision_is_of_weights_and_products(engine, weights):
    plain, rounded = (
        Watched(engine, engine_options={"precision": precision}) for precision in ("auto", "float8")
    )
    layers = [m for m in engine._runner.pipeline.transformer.blocks.modules() if isinstance(m, Float8Linear)]
    assert layers and all(layer.multiplies_in_float8 for layer in layers)
    assert "float8" in rounded.note and "float8" not in plain.note
    assert not np.array_equal(plain.clip, rounded.clip)
    Watched(engine)
    assert not any(isinstance(m, Float8Linear) for m in engine._runner.pipeline.transformer.modules())


def between_poses_is_what_is_drawn_there(engine, weights):
    """By itself what the checkpoint declares; the release's has nothing there."""
    cross = request().pose
    strokes = [cross.frame(index)[1::3] for index in range(FRAMES)]
    pose = PoseSequence.from_frames(WIDTH, HEIGHT, cross.parts, cross.limbs, strokes)
    asked, drawn = request(pose=pose, pose_frames=(0, 4)), {}
    for between in ("auto", "empty", "interpolated"):
        drawn[between] = sampling_request(
            replace(asked, engine_options={"between_poses": between})
        ).conditions
    declared = sampling_request(asked, {"between_poses": "interpolated"}).conditions
    assert drawn["empty"].pose_frames == drawn["auto"].pose_frames == (0, 4)
    assert drawn["interpolated"].pose_frames == declared.pose_frames == (0, 1, 2, 3, 4)
    assert np.array_equal(drawn["interpolated"].pose_images, declared.pose_images)
    for frame in range(FRAMES):
        given = frame in (0, 4)
        assert drawn["auto"].pose_images[frame].any() == drawn["empty"].pose_images[frame].any() == given
        assert declared.pose_images[frame].any() == (frame <= 4)


def windows_are_chained(engine, weights):
    """Each is denoised on its own."""
    whole, windows = options_say(engine, {"window_frames": 9}, num_frames=13)
    assert (len(whole.calls), len(windows.calls)) == (3, 2 * 3)
    assert not np.array_equal(whole.clip, windows.clip)


SAYS = {
    "cache": cache_leaves_steps_out,
    "cache_threshold": cache_threshold_is_how_much,
    "part_attention_threshold": part_attention_is_on_above_the_threshold,
    "matching": matching_in_passes_begins_anew,
    "shift": shift_moves_the_schedule,
    "scheduler": scheduler_is_the_named_one,
    "between_poses": between_poses_is_what_is_drawn_there,
    "parts": parts_of_images_are_matched,
    "transformer": transformer_is_the_named_one,
    "attention": attention_is_diffusers_own,
    "compile": compile_compiles_every_block,
    "precision": precision_is_of_weights_and_products,
    "window_frames": windows_are_chained,
    "cards": None,  # tests/model/test_runtime_team.py
    "loras": None,  # test_loras_of_the_weights_folder_are_offered_put_on_together_and_taken_off
}


@pytest.mark.parametrize("name", [option.name for option in find_engine("poseanything").describe().options])
def test_each_option_does_what_it_says(engine, weights, name):
    check = SAYS[name]
    if check is not None:
        check(engine, weights)


@pytest.mark.parametrize(
    ("fields", "evaluations"),
    [
        ({"pose_frames": (0, 4)}, 3),
        ({"part_maps": None, "first_labels": None, "subject_mask": None}, 3 + 1),  # to match the parts
        ({"guidance": Guidance("classifier_free", {"guidance_scale": 2.0})}, 6),
        ({"guidance": Guidance("classifier_free", {"guidance_scale": 4.0})}, 6),
        ({"guidance": Guidance("classifier_free", {"guidance_scale": 4.0, "text_negative": False})}, 6),
        ({"guidance": Guidance("classifier_free", {"guidance_scale": 4.0, "pose_negative": False})}, 6),
        ({"guidance": Guidance("classifier_free", {"scale_by_density": True}), "pose_frames": (0, 4)}, 6),
        ({"guidance": Guidance("classifier_free", {"guidance_scale": 4.0}, stop=0.4)}, 4),
        ({"guidance": Guidance("subject_camera")}, 6),
        ({"guidance": Guidance("subject_camera_separate", {"camera_guidance_scale": 0.5})}, 9),
    ],
    ids=str,
)
def test_what_guides_has_a_say_and_costs_its_evaluations(engine, said, fields, evaluations):
    made = Watched(engine, negative_prompt="blur", **fields)
    assert len(made.calls) == evaluations
    assert made.clip.tobytes() not in said, "it is like none before"
    said.add(made.clip.tobytes())


@pytest.fixture(scope="module")
def said(engine) -> set[bytes]:
    """The clips that were made so far."""
    return {Watched(engine, negative_prompt="blur").clip.tobytes()}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_frames": 8}, "8 frames .* choose 5 or 9"),
        ({"width": 100}, "multiples of 32; choose 96 x 64"),
        ({"engine_options": {"speed": 3}}, "no option 'speed'; it has cache"),
        ({"engine_options": {"cache": "all"}}, "choose one of none, first_block"),
        (
            {"engine_options": {"loras": {"../../secret.safetensors": 1.0}}},
            "no LoRA '../../secret.safetensors'",
        ),
        ({"engine_options": {"attention": "telepathy"}}, "Attention is 'telepathy'; choose one of auto"),
        (
            {"guidance": Guidance("subject_camera"), "camera_motion": None},
            "camera's motion",
        ),
        (
            {"guidance": Guidance("classifier_free", {"text_negative": False, "pose_negative": False})},
            "no opposite",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:50],
)
def test_what_can_not_be_made_is_said_in_a_sentence(engine, fields, sentence):
    with pytest.raises(EngineError, match=sentence) as raised:
        generate(engine, request(**fields))
    assert raised.value.code == "invalid" and "\n" not in str(raised.value)
    events, _ = generate(engine, request())
    assert len(pictures(events)) == FRAMES


def test_what_mag_cache_measured_is_kept_beside_the_weights(weights, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    (weights / "mag_ratios.json").unlink(missing_ok=True)  # another test's
    asked = request(engine_options={"cache": "mag"}, num_inference_steps=12)
    evaluations = []
    for _ in range(3):  # as in three processes
        engine = find_engine("poseanything")()
        list(engine.load())
        blocks, load = [], engine._runner._load

        def count(*arguments, engine=engine, blocks=blocks, load=load):
            yield from load(*arguments)
            engine._runner.pipeline.transformer.blocks[-2].register_forward_hook(lambda *_: blocks.append(1))

        engine._runner._load = count
        _, note = generate(engine, asked)
        evaluations.append(("calibrated" in note, len(blocks)))
        if len(evaluations) == 2:  # another checkpoint under the same name
            file = next((weights / "PoseAnything").glob("*.safetensors"))
            os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 10**9))
    assert [calibrated for calibrated, _ in evaluations] == [True, False, True]
    assert evaluations[1][1] <= evaluations[0][1] == evaluations[2][1] == 12
    assert engine._runner.pipeline.mag_ratios and (weights / "mag_ratios.json").exists()


@pytest.fixture(scope="module")
def loras(weights) -> tuple[str, ...]:
    return save_loras(weights)


def test_loras_of_the_weights_folder_are_offered_put_on_together_and_taken_off(engine, loras, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(engine._runner.weights.folder))
    (option,) = [about for about in engine.describe().options if about.name == "loras"]
    assert tuple(choice.name for choice in option.choices) == loras

    def made(**strengths):
        chosen = {f"{name}.safetensors": strength for name, strength in strengths.items()}
        return pictures(generate(engine, request(engine_options={"loras": chosen}))[0])

    plain = made()
    film, fur, both = made(film=2), made(fur=1), made(film=2, fur=1)
    stronger = made(film=2, fur=2)
    every = [plain, film, fur, both, stronger]
    assert len({clip.tobytes() for clip in every}) == len(every), "each has a say, and so have the strengths"
    assert np.array_equal(made(fur=1, film=2), both) and np.array_equal(made(), plain)


def test_a_damaged_first_frame_is_said_to_be_one(engine):
    damaged = request().first_frame[:60] + bytes(200)
    with pytest.raises(EngineError, match="first frame can't be read"):
        generate(engine, request(first_frame=damaged))


def test_cancelling_leaves_within_a_step_and_the_next_job_runs(engine):
    blocks = []
    transformer = (
        engine._runner.pipeline.transformer
        or generate(engine, request())
        and engine._runner.pipeline.transformer
    )
    handles = [block.register_forward_hook(lambda *_: blocks.append(1)) for block in transformer.blocks]
    with pytest.raises(JobCancelled):
        generate(engine, request(num_inference_steps=50), cancelled=lambda: len(blocks) >= 3)
    assert len(blocks) == 3
    for handle in handles:
        handle.remove()
    assert len(pictures(generate(engine, request())[0])) == FRAMES


def test_when_memory_runs_out_it_goes_on_a_rung_lower(weights, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    engine = find_engine("poseanything")()
    list(engine.load())
    asked = request(num_frames=13, num_inference_steps=2, engine_options={"window_frames": 9})
    forward, calls = PoseAnythingTransformer3DModel.forward, []

    def run_out(self, *inputs, **options):
        calls.append(self.dtype)
        if (
            self.dtype == torch.float32 and len(calls) > 2
        ):  # in the second window: frames have been shown already
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *inputs, **options)

    monkeypatch.setattr(PoseAnythingTransformer3DModel, "forward", run_out)
    events, note = generate(engine, asked)
    assert [event.index for event in events if isinstance(event, Picture)] == list(range(13))
    assert calls == [torch.float32] * 3 + [torch.bfloat16] * 4
    assert "bfloat16" in note and note.endswith("Memory ran out with more at once.")

    calls.clear()  # the next job doesn't try again what was too much
    events, note = generate(engine, asked)
    assert calls == [torch.bfloat16] * 4 and "ran out" not in note

    monkeypatch.setattr(MemoryPlan, "step_down", lambda self, where: None)
    monkeypatch.setattr(PoseAnythingTransformer3DModel, "dtype", torch.float32)
    with pytest.raises(EngineError, match="seemed to be enough") as caught:
        generate(engine, asked)
    assert caught.value.code == "memory" and not caught.value.needs_restart


def test_a_card_that_is_lost_asks_for_another_process(engine, monkeypatch):
    def fail(self, *inputs, **options):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(PoseAnythingTransformer3DModel, "forward", fail)
    with pytest.raises(EngineError, match="stopped answering") as caught:
        generate(engine, request())
    assert caught.value.needs_restart


def test_a_checkpoint_says_how_it_was_trained(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(shutil.copytree(weights, tmp_path / "weights")))
    describe = find_engine("poseanything").describe
    released = describe()
    assert released.ready and released.guiders and released.presets
    assert (released.default_steps, released.max_parts, released.pose_look) == (50, 5, "trained")
    (folder,) = [path.parent for path in (tmp_path / "weights").rglob("diffusion*00001-of*.safetensors")]
    trained = {"num_inference_steps": 4, "max_parts": 12, "text_conditioning": False, "pose_look": "bones"}
    trained |= {"camera_condition": "with_background", "subject_strength": 1.0}
    (folder / "config.json").write_text(json.dumps(trained))
    about = describe()
    assert (about.default_steps, about.max_parts, about.uses_prompt, about.pose_look) == (
        4,
        12,
        False,
        "bones",
    )
    assert (released.camera_condition, about.camera_condition) == ("against_background", "with_background")
    strengths = [one.guider("subject_camera_separate").parameters[0].default for one in (released, about)]
    assert strengths == [2.0, 1.0]


def test_an_engine_of_the_same_classes_with_other_weights_is_a_few_lines(weights, tmp_path, monkeypatch):
    class Small(find_engine("poseanything")):
        about = replace(RELEASE, name="small", label="Small")

        @classmethod
        def weights_folder(cls):
            return tmp_path

    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    about = Small.describe()
    assert (about.name, about.ready, about.weights_folder) == ("small", False, str(tmp_path))
    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    assert Small.describe().ready
    small = Small()
    list(small.load())
    assert small._runner.weights.folder == tmp_path
    assert len(pictures(generate(small, request(engine="small", num_inference_steps=1))[0])) == FRAMES


def imported_by_the_model() -> set[str]:
    """The packages that the model's modules import as they are imported."""
    files = (ROOT / "inference_server" / "poseanything").rglob("*.py")
    found = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"shared", "inference_server"}


def test_the_engine_is_ready_only_with_all_that_it_imports(weights, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    fetching = {"httpx2", "huggingface_hub"}  # for the weights command
    needed = imported_by_the_model() - fetching - {"numpy"}  # the server's own
    assert needed <= set(engine_module.PACKAGES), "a package is imported that nobody looks for"
    find = engine_module.find_spec
    for name, package in engine_module.PACKAGES.items():
        monkeypatch.setattr(
            engine_module, "find_spec", lambda asked, name=name: None if asked == name else find(asked)
        )
        about = find_engine("poseanything").describe()
        assert not about.ready and f"PoseAnything needs {package}; install" in about.reason
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    reason = find_engine("poseanything").describe().reason
    assert all(package in reason for package in engine_module.PACKAGES.values())


REPORT = b"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>525.85</driver_version><cuda_version>%s</cuda_version>
<gpu id="0"><product_name>NVIDIA GeForce RTX 4090</product_name>
<fb_memory_usage><total>24564 MiB</total></fb_memory_usage></gpu></nvidia_smi_log>"""


@pytest.mark.parametrize(
    ("cuda", "torch_cuda", "ready", "words"),
    [
        (b"12.8", (12, 6), True, "Runs on NVIDIA GeForce RTX 4090, 26 GB."),
        (b"12.0", (12, 8), True, "Runs on NVIDIA"),
        (
            b"12.4",
            (13, 0),
            False,
            "needs CUDA 13.0 but the driver of NVIDIA GeForce RTX 4090 supports 12.4; update",
        ),
        (
            b"12.4",
            None,
            False,
            "PyTorch can't use NVIDIA GeForce RTX 4090; run python build.py setup --model",
        ),
        (None, None, True, "Runs on the processor: a clip takes hours."),
        (None, (12, 8), True, "Runs on the processor"),
        (b"damaged", (12, 8), True, "Runs on the processor"),
    ],
)
def test_it_says_what_it_runs_on_and_refuses_a_card_that_can_not_be_used(
    weights, monkeypatch, cuda, torch_cuda, ready, words
):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    cards = machine.read_report(REPORT % cuda) if cuda else ()
    monkeypatch.setattr(machine, "find_cards", lambda: cards)
    monkeypatch.setattr(machine, "torch_cuda", lambda: torch_cuda)
    about = find_engine("poseanything").describe()
    assert about.ready == ready and words in (about.runs_on if ready else about.reason)


@pytest.mark.parametrize(
    ("visible", "name"),
    [(None, "a"), ("1", "b"), ("1,0", "b"), ("GPU-8932f937", "a"), ("7", None), ("-1", None), ("", None)],
)
def test_the_card_is_the_one_that_cuda_shows(monkeypatch, visible, name):
    cards = [machine.NvidiaCard(name, 1 << 34, (12, 8)) for name in "ab"]
    monkeypatch.setattr(machine, "find_cards", lambda: cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    card = machine.find_card()
    assert (card and card.name) == name


def test_the_build_of_torch_is_told_without_importing_it():
    told = machine.torch_cuda()
    assert told == (tuple(map(int, torch.version.cuda.split("."))) if torch.version.cuda else None)


def test_it_says_what_it_lacks_and_needs_nothing_heavy_to_say_it(weights, tmp_path):
    code = (
        "import sys; from inference_server.engines import find_engine;"
        "about = find_engine('poseanything').describe();"
        "print(about.ready, len(about.missing_weights), about.reason);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', 'cv2')))"
    )
    for folder, expected in [
        (weights, "True 0 "),
        (tmp_path, "False 3 Its weights are missing;"),
        (tmp_path / "no", "False 3 Its weights are missing;"),
    ]:
        environ = {**os.environ, "POSEANYTHING_WEIGHTS": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(expected)


def test_the_server_makes_the_frames_and_cancels_within_a_step(weights, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    with ServerProcess({"poseanything": ENGINES["poseanything"]}) as server, server.client() as client:
        assert [(engine.name, engine.ready) for engine in client.welcome().engines] == [
            ("poseanything", True)
        ]
        client.send(request(job="first", frame_format="raw"))
        done = client.ending("first")
        assert isinstance(done, Done) and "processor" in done.note, done
        frames = client.of(Frame, job="first")
        assert [frame.index for frame in frames] == list(range(FRAMES))
        assert client.of(Preview, job="first")

        client.send(request(job="endless", num_inference_steps=1000))
        client.wait_for(Preview, job="endless")
        client.cancel("endless")
        assert isinstance(client.ending("endless"), Cancelled)
        assert not client.of(Frame, job="endless")

        client.send(request(job="wrong", num_frames=6))
        failed = client.ending("wrong")
        assert isinstance(failed, Failed) and failed.code == "invalid" and "choose 5 or 9" in failed.message
        client.send(request(job="again"))
        assert isinstance(client.ending("again"), Done)


def test_the_command_line_makes_a_movie_of_a_folder_of_poses(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    poses = tmp_path / "poses"
    poses.mkdir()
    for frame in range(7):
        image = np.zeros((72, 128), np.uint8)
        if frame != 3:
            cv2.line(image, (20 + frame, 60), (100, 10 + frame), 255, 1)
        cv2.imwrite(str(poses / f"{frame:03d}.png"), image)
    cv2.imwrite(str(tmp_path / "first.png"), np.full((90, 90, 3), 128, np.uint8))
    (tmp_path / "prompt.txt").write_text("deer runs\n")
    command = [
        "generate",
        "--poses",
        str(poses),
        "--first-frame",
        str(tmp_path / "first.png"),
        "--longer-side",
        "128",
    ]
    command += ["--prompt", str(tmp_path / "prompt.txt"), "--steps", "1", "--option", "cache=taylorseer"]
    movie = tmp_path / "made" / "clip.mp4"
    assert main([*command, "--output", str(movie)]) == 0
    capture = cv2.VideoCapture(str(movie))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and capture.get(cv2.CAP_PROP_FPS) == 24
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (128, 64)
    assert os.listdir(movie.parent) == ["clip.mp4"]

    before = movie.read_bytes()
    assert main([*command, "--output", str(movie)]) == 1
    assert "there already" in capsys.readouterr().err and movie.read_bytes() == before
    assert main([*command, "--frames", "13", "--output", str(tmp_path / "more.mp4")]) == 1
    assert "holds 7 pose images; 13 are needed" in capsys.readouterr().err
    assert main([*command, "--option", "speed", "--output", str(tmp_path / "more.mp4")]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err and not (tmp_path / "more.mp4").exists()


def test_the_command_line_makes_pictures_of_a_request_file(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    file = tmp_path / "shot.poserequest"
    write_request(file, request(num_inference_steps=1))
    assert (
        main(["generate", "--request", str(file), "--seed", "9", "--output", str(tmp_path / "frames")]) == 0
    )
    assert sorted(os.listdir(tmp_path / "frames")) == [f"{index:05d}.png" for index in range(FRAMES)]
    assert cv2.imread(str(tmp_path / "frames" / "00004.png")).shape == (HEIGHT, WIDTH, 3)


def test_a_failure_leaves_no_half_movie(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path))
    file = tmp_path / "shot.poserequest"
    write_request(file, request())
    assert main(["generate", "--request", str(file), "--output", str(tmp_path / "clip.mp4")]) == 1
    assert "PoseAnything can't run: Its weights are missing" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["shot.poserequest"]


@pytest.fixture
def from_poses(weights, tmp_path, monkeypatch) -> list[str]:
    """A command line on a folder of five poses, the last three black, for everything but the output."""
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(weights))
    (tmp_path / "poses").mkdir()
    for frame in range(5):
        image = np.zeros((64, 96), np.uint8)
        if frame < 2:
            cv2.line(image, (20 + frame, 60), (80, 10 + frame), 255, 2)
        cv2.imwrite(str(tmp_path / "poses" / f"{frame}.png"), image)
    cv2.imwrite(str(tmp_path / "first.png"), np.full((64, 96, 3), 128, np.uint8))
    files = ["--poses", str(tmp_path / "poses"), "--first-frame", str(tmp_path / "first.png")]
    return ["generate", *files, "--longer-side", "96", "--prompt", "deer runs", "--steps", "2"]


@pytest.mark.parametrize(
    ("words", "guider"),
    [
        ("", NoGuidance()),
        ("--guidance-scale 3", ClassifierFreePoseGuidance(3.0)),
        (
            "--guidance-scale 3 --no-text-negative --guidance-interval 0.2 0.5",
            ClassifierFreePoseGuidance(3.0, text_negative=False, start=0.2, stop=0.5),
        ),
        ("--scale-by-density", ClassifierFreePoseGuidance(suggest_guidance_scale(2 / 5))),
        (
            "--preset follow_pose",
            ClassifierFreePoseGuidance(suggest_guidance_scale(2 / 5), text_negative=False),
        ),
        (
            "--preset follow_pose --no-scale-by-density --guidance-scale 2",
            ClassifierFreePoseGuidance(2.0, text_negative=False),
        ),
        ("--camera pan_left=0.2", SubjectCameraGuidance(2.0)),
        (
            "--guider subject_camera_separate --camera zoom_in=0.3 --camera tilt_up=0.1 --guidance-scale 4"
            " --camera-guidance-scale 0.5",
            SubjectCameraSeparateGuidance(4.0, 0.5),
        ),
    ],
)
def test_the_command_line_guides_as_it_is_told(from_poses, tmp_path, monkeypatch, words, guider):
    orders = []
    make = find_engine("poseanything").make
    note = lambda self, order, cancelled: orders.append(order) or make(self, order, cancelled)  # noqa: E731
    monkeypatch.setattr(find_engine("poseanything"), "make", note)
    assert main([*from_poses, *words.split(), "--output", str(tmp_path / "frames")]) == 0
    (order,) = orders
    assert order.guider == guider
    camera = order.conditions.camera_images
    if "camera" not in words:
        assert camera is None
    else:
        moves = dict(word.split("=") for word in words.split() if "=" in word)
        path = camera_path({name: float(amount) for name, amount in moves.items()}, 5, 96, 64)
        assert np.array_equal(camera, draw_camera(path, 96, 64)) and (camera[0] != camera[-1]).any()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--steps 0", "number of steps is 0; it must lie between 1 and 1000"),
        ("--seed -1", "The seed is -1"),
        ("--fps 0", "The frame rate is 0"),
        ("--frames 0", "has 0 frames .* choose 5"),
        ("--camera dolly=1", "no camera move 'dolly'; choose among pan_left"),
        ("--guider subject_camera", "camera's motion"),
        (
            "--camera pan_left=0.2 --scale-by-density",
            "Subject and Camera has no option 'scale_by_density'",
        ),
        ("--guidance-interval 0.5 0.2 --guidance-scale 2", "stops before it starts"),
        ("--guidance-scale strong", "Strength must be a number"),
        ("--guidance-scale 31", "Strength is 31; it must lie between 0 and 30"),
        ("--guider strong", "no guidance 'strong'; choose one of none, "),
        ("--preset slow", "no preset 'slow'; choose one of release, fast, follow_pose"),
        ("--option cache=all", "Cache is 'all'; choose one of none, first_block"),
        ("--option compile=perhaps", "Compile is 'perhaps'; choose one of auto, on, off"),
        ("--option window_frames=1025", "Window is 1025; it must lie between 0 and 1024"),
        ("--option loras=gone.safetensors:0.5", "LoRAs has no 'gone.safetensors'"),
    ],
)
def test_the_command_line_says_in_a_sentence_what_can_not_be(from_poses, tmp_path, capsys, words, sentence):
    assert main([*from_poses, *words.split(), "--output", str(tmp_path / "clip.mp4")]) == 1
    said = capsys.readouterr().err.strip()
    assert re.search(sentence, said) and said.endswith(".") and "\n" not in said
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("engine", ["draft", "mini"])
def test_engines_that_need_limbs_take_them_from_pose_images(from_poses, tmp_path, engine):
    picture = np.full((64, 96, 3), 128, np.uint8)
    cv2.line(picture, (20, 60), (80, 10), (30, 60, 200), 7)
    cv2.imwrite(str(tmp_path / "first.png"), picture)
    cv2.imwrite(str(tmp_path / "subject.png"), np.where(picture == 128, 255, picture).astype(np.uint8))
    poses = tmp_path / "poses"
    for frame in range(5):
        image = np.zeros((64, 96), np.uint8)
        cv2.line(image, (20, 60), (80, 10 + 8 * frame), 255, 2)
        cv2.imwrite(str(poses / f"{frame}.png"), image)
    words = [
        "--engine",
        engine,
        "--subject",
        str(tmp_path / "subject.png"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([word for word in from_poses if word not in ("--steps", "2")] + words) == 0
    last = cv2.imread(str(sorted((tmp_path / "out").iterdir())[-1]))
    red = (last[..., 2] > 170) & (last[..., 0] < 90)
    rows, columns = np.nonzero(red)
    assert red[:, 70:].any() and abs(rows[columns >= 75].mean() - 42) < 6  # where the line ends by then
    assert len(list((tmp_path / "out").iterdir())) == 5

    for file in poses.iterdir():
        cv2.imwrite(str(file), np.zeros((64, 96), np.uint8))
    assert main([*from_poses, "--engine", engine, "--output", str(tmp_path / "none")]) == 1


def test_the_command_line_names_packages_that_are_missing(from_poses, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "inference_server.engines.poseanything.engine.PACKAGES",
        {"torch": "torch", "no_such": "no_such_package"},
    )
    file = tmp_path / "shot.poserequest"
    write_request(file, request())
    for command in (from_poses, ["generate", "--request", str(file)]):
        assert main([*command, "--output", str(tmp_path / "clip.mp4")]) == 1
        assert "no_such_package; install them with: python build.py" in capsys.readouterr().err


def test_the_command_line_says_that_memory_ran_out(from_poses, tmp_path, monkeypatch, capsys):
    """The clip is tried down the ladder, until there is no rung below."""
    tried = []

    def run_out(self, *inputs, **options):
        tried.append(self.dtype)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PoseAnythingTransformer3DModel, "forward", run_out)
    assert main([*from_poses, "--output", str(tmp_path / "clip.mp4")]) == 1
    assert len(tried) > 1 and tried[0] == torch.float32 and tried[-1] != torch.float32
    said = capsys.readouterr()
    assert said.err.strip().endswith("choose a smaller size or fewer frames.")
    assert "Traceback" not in said.err and not (tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(not DEER.exists(), reason="the official sample is not there")
def test_the_official_sample_is_read_as_the_release_reads_it():
    from inference_server.poseanything.conditioning.files import read_conditions
    from inference_server.poseanything.conditioning.parts import dilation_alpha
    from inference_server.poseanything.conditioning.windows import plan_windows

    clip = read_conditions(DEER / "first_frame.png", DEER / "skeleton", subject=DEER / "subject.png")
    assert clip.size == (448, 832) and clip.num_frames == 81 and len(clip.pose_frames) == 81
    assert dilation_alpha(clip.pose_images[0], clip.subject_mask) == 66
    long = read_conditions(DEER / "first_frame.png", DEER / "skeleton", num_frames=145)
    windows = plan_windows(37, 21)
    assert [len(long.of_window(window, 4).pose_frames) for window in windows] == [81, 81]
