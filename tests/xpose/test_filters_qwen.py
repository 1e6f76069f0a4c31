"""The language model's answers as verdicts, and the model that is asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from inference_server.poseanything.checkpoints.float8 import Float8Linear
from inference_server.xpose.filters import qwen
from inference_server.xpose.filters.answer import read_answer
from inference_server.xpose.stages import Clip, Verdict, XPoseError, make_stage

from .tiny_models import save_qwen

pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning", "error::FutureWarning")

KEPT = {
    "subjects": 1,
    "human": False,
    "moves": True,
    "keep": True,
    "reason": "A single horse walks and is fully visible.",
    "category": "Horse",
    "motion_type": "Walking",
    "body_part": ["legs", "head"],
    "caption": 'A brown horse walks over a meadow.\nThe camera "follows" it.',
}
HORSE = Verdict(
    True, "", "horse", "walking", "legs, head", 'A brown horse walks over a meadow. The camera "follows" it.'
)
PLAIN = json.dumps(KEPT, indent=2)


@pytest.mark.parametrize(
    "answer",
    [
        PLAIN,
        f"```json\n{PLAIN}\n```",
        f"Sure! Here is the analysis of the video:\n\n{PLAIN}\n\nLet me know if you need anything else.",
        str(KEPT),  # single quotes and True
        PLAIN.replace("\n}", ",\n}").replace('"moves": true,', '"moves": true,  // it walks'),
        PLAIN.replace("true", "True").replace("false", "False"),
        PLAIN.replace('"keep": true', '"keep": "yes"').replace('"body_part"', '"Body part"'),
        PLAIN.removesuffix("\n}"),
        "The set {horse, meadow} is described by:\n" + PLAIN,
        PLAIN + "\n" + PLAIN.replace("Horse", "Dog"),
        json.dumps({**KEPT, "keep": None, "kept": True}).replace('"keep": null, ', ""),
    ],
)
def test_answers_that_can_be_read(answer):
    assert read_answer(answer) == HORSE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "can't be read"),
        ("The video shows a horse that walks.", "can't be read"),
        ("I'm sorry, but I can't assist with that request.", "refused"),
        ("I am unable to process videos directly. Please describe it.", "refused"),
        ("As an AI language model, I cannot see the video.", "refused"),
        ("{}", "can't be read"),
        ("[1, 2", "can't be read"),
        ("{" * 3000, "can't be read"),
        ('{"category": "horse", "caption": "A horse."}', "does not say whether"),
        (PLAIN.replace('"keep": true', '"keep": false'), "A single horse walks"),
        (json.dumps({"keep": False}), "gave no reason"),
        (PLAIN.replace('"subjects": 1', '"subjects": 3'), "There are 3 main subjects"),
        (PLAIN.replace('"subjects": 1', '"subjects": 0'), "There is no main subject"),
        (PLAIN.replace('"human": false', '"human": true'), "is human"),
        (PLAIN.replace('"Horse"', '"Young woman"'), "is human"),
        (PLAIN.replace('"moves": true', '"moves": false'), "does not move"),
        (PLAIN.replace('"Horse"', '"N/A"'), "gave no category"),
        (PLAIN[: PLAIN.index('"caption"')], "gave no caption"),  # cut off
    ],
)
def test_what_is_not_kept_has_a_reason(answer, reason):
    verdict = read_answer(answer)
    assert not verdict.kept and reason in verdict.reason


def test_an_answer_that_was_cut_off_keeps_what_was_whole():
    cut = PLAIN[: PLAIN.index("over a meadow")].replace('"keep": true', '"keep": false')
    verdict = read_answer(cut)
    assert (verdict.category, verdict.motion_type, verdict.reason) == ("horse", "walking", KEPT["reason"])


# --- the model


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("models") / "qwen")


def make(weights, **options):
    made = make_stage("filter", "qwen", {"weights": str(weights), "device": "cpu", "longest": 6, **options})
    made.load()
    return made


def clip(seed, frames=9, size=(60, 90)):
    pictures = np.random.default_rng(seed).integers(0, 255, (frames, *size, 3), np.uint8)
    return Clip(f"clip {seed}", pictures, 8.0)


@pytest.fixture(scope="module")
def stage(weights):
    return make(weights, frames=4)


def test_real_formats_answer_and_a_batch_answers_as_each_alone(stage):
    clips = [clip(0), clip(1, 17, (90, 60)), clip(2, 5)]
    together = stage._ask(clips)
    assert together == [stage._ask([each])[0] for each in clips]
    assert all(not verdict.kept and "can't be read" in verdict.reason for verdict in stage.judge(clips))


def test_pairs_of_frames_are_what_the_model_sees(stage):
    shown = clip(0, 4)
    patches, grid, seconds = stage._show(shown)
    assert grid[0] == 2 and len(patches) == np.prod(grid) and seconds == pytest.approx(2 / 8.0)
    still = Clip("still", shown.frames[[1, 1, 1, 1]], 8.0)
    size = {"shortest_edge": 56 * 56, "longest_edge": stage.frame_pixels}
    alone = stage._pictures(images=[shown.frames[1]], size=size, return_tensors="np")["pixel_values"]
    assert np.allclose(stage._show(still)[0], np.concatenate([alone, alone]))
    # The first half of a pair is the earlier frame.
    channels = patches.reshape(len(patches), 3, 2, 14, 14)
    other = stage._pictures(images=[shown.frames[0]], size=size, return_tensors="np")["pixel_values"]
    first = other.reshape(len(other), 3, 2, 14, 14)[:, :, 0]
    assert np.allclose(channels[: len(other), :, 0], first)


def test_answers_become_verdicts_and_a_batch_that_is_too_large_is_halved(stage, monkeypatch):
    sizes = []

    def generate(input_ids, **_):
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        answer = stage._tokenizer(PLAIN, return_tensors="pt").input_ids
        return torch.cat([input_ids, answer], dim=1)

    monkeypatch.setattr(stage._model, "generate", generate)
    assert stage.judge([clip(n, 5) for n in range(3)]) == [HORSE] * 3
    assert sizes == [3, 1, 2, 1, 1]


def test_float8_halves_the_language_model_and_hardly_changes_what_it_says(weights, stage):
    small = make(weights, frames=4, precision="float8")
    layers = [m for m in small._model.model.language_model.modules() if isinstance(m, Float8Linear)]
    assert len(layers) == 2 * 7 and not any(
        isinstance(m, Float8Linear) for m in small._model.model.visual.modules()
    )
    ids = torch.arange(40)[None] % 250
    with torch.inference_mode():
        full, rounded = (each._model(input_ids=ids).logits for each in (stage, small))
    assert 0 < (full - rounded).norm() / full.norm() < 0.1


@pytest.mark.parametrize(("free", "rounds"), [(10**12, False), (0.75, True), (0.1, None)])
def test_precision_follows_the_card(stage, monkeypatch, free, rounds):
    needed = qwen.ROOM * sum(w.numel() * w.element_size() for w in stage._model.parameters())
    card = type("Card", (), {"free_bytes": free * needed})
    monkeypatch.setattr(qwen.Card, "of", lambda _: card)
    if rounds is None:
        with pytest.raises(XPoseError, match="GB of the card"):
            stage._needs_float8(stage._model, True)
    else:
        assert stage._needs_float8(stage._model, True) is rounds
