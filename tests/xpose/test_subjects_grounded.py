"""Which mask is followed, by networks of random weights and by ones that see what a test says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_server.xpose.stages import Clip, Dropped, SubjectPrompt, Verdict, XPoseError, make_stage
from inference_server.xpose.subjects.grounded import Candidates, _pointed_at

from .tiny_models import save_grounding_dino, save_sam2, save_sam3

HEIGHT, WIDTH = 48, 80
pytestmark = pytest.mark.filterwarnings("error::DeprecationWarning", "error::FutureWarning")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    options = {
        "detector": str(save_grounding_dino(folder / "dino")),
        "segmenter": str(save_sam2(folder / "sam2")),
        "device": "cpu",
        "box_score": 0.0,
        "name_score": 0.0,
        "every": 2,
        "most": 2,
    }
    stage = make_stage("subject", "grounded", options)
    stage.load()
    return stage


def clip(frames=5, **prompt):
    pictures = np.random.default_rng(0).integers(0, 255, (frames, HEIGHT, WIDTH, 3), np.uint8)
    return Clip("clip", pictures, 24.0, SubjectPrompt(**prompt))


def box_mask(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def seen(*found):
    masks = [mask for _, mask in found]
    return Candidates(np.array(masks).reshape(-1, HEIGHT, WIDTH), [label for label, _ in found])


def test_real_formats_load_and_follow_what_they_find(stage):
    found = stage.find(clip(), Verdict(True, category="Horse."))
    assert found.masks.shape == (5, HEIGHT, WIDTH) and found.masks.dtype == bool
    assert found.masks.any() and "horse" in found.label and "[" not in found.label
    names = [name for _, name in stage._detect(clip().frames[0], "horse")]
    assert len(names) == 2 and all("horse" in name for name in names)


@pytest.mark.parametrize(
    "prompt",
    [
        {"box": (0.1, 0.2, 0.5, 0.6)},
        {"points": ((0.3, 0.4), (0.35, 0.5)), "background": ((0.9, 0.9),)},
        {"mask": box_mask(10, 10, 40, 30)},
    ],
)
def test_what_the_user_points_at_is_followed_and_nothing_is_detected(stage, monkeypatch, prompt):
    monkeypatch.setattr(stage, "_detect", lambda *_: pytest.fail("looked for what was pointed at"))
    found = stage.find(clip(3, text="deer", **prompt), Verdict(True))
    assert found.label == "deer" and found.masks.any()
    if "mask" in prompt:  # in its own frame a mask is itself
        overlap = (found.masks[0] & prompt["mask"]).sum() / (found.masks[0] | prompt["mask"]).sum()
        assert overlap > 0.8


def test_the_largest_is_chosen_and_then_the_same_name_that_overlaps_most(stage, monkeypatch):
    horse = [box_mask(10 + 3 * t, 10, 40 + 3 * t, 40) for t in range(5)]
    rider, other = box_mask(20, 4, 30, 20), box_mask(60, 10, 75, 30)
    frames = [
        seen(("man", rider), ("horse", horse[0]), ("horse", other)),
        seen(("horse", other), ("horse", horse[1]), ("man", box_mask(0, 0, 80, 48))),
        seen(("horse", other), ("man", rider)),  # nothing of its name overlaps: the frame is skipped
        seen(),
        seen(("horse", other), ("horse", horse[4])),
    ]
    monkeypatch.setattr(stage, "_see", lambda *_: iter(frames))
    found = stage.find(clip(), Verdict(True))
    assert found.label == "horse"
    expected = [horse[0], horse[1], 0 * other, 0 * other, horse[4]]
    assert all((mask == wanted).all() for mask, wanted in zip(found.masks, expected))


def test_a_subject_that_comes_late_is_found_and_none_is_a_reason(stage, monkeypatch):
    late = [seen(), seen(), seen(("bird", box_mask(5, 5, 30, 30)))]
    monkeypatch.setattr(stage, "_see", lambda *_: iter(late))
    found = stage.find(clip(3), Verdict(True))
    assert found.masks.any((1, 2)).tolist() == [False, False, True] and found.label == "bird"
    monkeypatch.setattr(stage, "_see", lambda *_: iter([seen()] * 3))
    with pytest.raises(Dropped, match="No otter was found"):
        stage.find(clip(3, text="otter"), Verdict(True))


def test_it_looks_again_and_goes_on_with_what_it_followed(stage, monkeypatch):
    asked, boxes = [], iter([[((0.1, 0.1, 0.5, 0.5), "horse")], [], [((0.5, 0.5, 0.9, 0.9), "horse")]])
    follow = stage._follow

    def note(frames, found):
        asked.append([(label, prompt.mask is not None) for prompt, label in found])
        return follow(frames, found)

    monkeypatch.setattr(stage, "_detect", lambda *_: next(boxes))
    monkeypatch.setattr(stage, "_follow", note)
    stage.find(clip(), Verdict(True))
    assert asked == [[("horse", False)], [("horse", True)], [("horse", True), ("horse", False)]]


def test_a_subject_that_is_found_twice_is_followed_once(stage):
    twice = [(SubjectPrompt(mask=box_mask(10, 10, 40, 30)), "deer")] * 2
    first = next(iter(stage._follow(clip(2).frames, twice)))
    assert sum(mask.any() for mask in first.masks) == 1


def cut_off(weights):
    weights.write_bytes(weights.read_bytes()[:1000])


def without_a_tensor(weights):
    tensors = load_file(weights)
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, weights, {"format": "pt"})


def of_another_size(weights):
    tensors = load_file(weights)
    tensors["mask_decoder.iou_token.weight"] = torch.zeros(3)
    save_file(tensors, weights, {"format": "pt"})


@pytest.mark.parametrize("damage", [cut_off, without_a_tensor, of_another_size])
def test_weights_that_are_not_whole_are_named(stage, tmp_path, damage):
    folder = save_sam2(tmp_path / "sam2")
    damage(folder / "model.safetensors")
    broken = make_stage("subject", "grounded", {"detector": stage.detector, "segmenter": str(folder)})
    with pytest.raises(XPoseError, match="can't be read .* get it again with: python build.py weights xpose"):
        broken.load()
    assert torch.is_grad_enabled()


# --- SAM 3


def test_sam3_loads_from_the_real_format_and_names_what_it_follows(tmp_path):
    third = make_stage("subject", "sam3", {"weights": str(save_sam3(tmp_path / "sam3")), "device": "cpu"})
    third.load()
    frames = list(third._see(clip(3), "deer"))
    assert len(list(third._see(clip(1), "deer " * 40))) == 1, "longer than its encoder takes"
    assert [each.masks.shape[1:] for each in frames] == [(HEIGHT, WIDTH)] * 3
    assert all(set(each.labels) == {"deer"} and len(each.labels) == len(each.masks) for each in frames)
    found = third.find(clip(3), Verdict(True, category="deer"))
    assert found.label == "deer" and found.masks[0].sum() == frames[0].masks.sum((1, 2)).max()


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ({"box": (0.0, 0.0, 0.4, 0.6)}, ["left"]),
        ({"mask": box_mask(45, 10, 70, 40)}, ["right"]),
        ({"points": ((0.7, 0.5), (0.8, 0.5))}, ["right"]),
        ({"points": ((0.5, 0.95),)}, []),
        ({}, ["left", "right"]),
    ],
)
def test_sam3_is_told_which_of_its_kind_is_meant(prompt, meant):
    both = seen(("left", box_mask(0, 0, 30, 30)), ("right", box_mask(40, 10, 75, 40)))
    assert _pointed_at(SubjectPrompt(**prompt), both).labels == meant
