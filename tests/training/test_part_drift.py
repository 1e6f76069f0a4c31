"""How a part looks is told by its own pixels, wherever they lie."""

from unittest import mock

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage")
torch = pytest.importorskip("torch")

from inference_server.evaluation import networks, run  # noqa: E402
from inference_server.evaluation.networks import Features, absent_measures  # noqa: E402
from inference_server.evaluation.parts import (  # noqa: E402
    Colour,
    Texture,
    drift_by_quarter,
    mean_drift,
    part_drifts,
)
from inference_server.synthesis import painting  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402

SETTINGS = ClipSettings(128, 96, 9)
SEEDS = range(8)
HOW = ("swapped", "plain", "another")
WIDTHS = (3, 12, 24, 32, 24, 24)
"""Of the tiny AlexNet's layers, the pictures' three channels before."""


def random_alexnet(path):
    """Random weights with the names and the kernels' sizes of torchvision's."""
    random, sides = torch.Generator().manual_seed(0), (11, 5, 3, 3, 3)
    held = {}
    for place, side, taken, given in zip(networks.CONVOLUTIONS, sides, WIDTHS, WIDTHS[1:]):
        spread = (2 / (taken * side * side)) ** 0.5
        held[f"features.{place}.weight"] = spread * torch.randn(given, taken, side, side, generator=random)
        held[f"features.{place}.bias"] = torch.zeros(given)
    held["classifier.1.weight"] = torch.zeros(2, 2)
    torch.save(held, path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torch's, with a tiny AlexNet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    random_alexnet(folder / "alexnet-owt-7be5be79.pth")
    return folder


def repainted(clip, seed, how):
    """The clip with frames 1 and on painted with other textures; every part keeps its mean colour in each.

    how: "swapped" between limbs, "plain", or "another" creature's.
    """
    skins = []

    class Skin(painting._Skin):
        def __init__(self, *words):
            super().__init__(*words)
            self.own = self.around
            skins.append(self)
            if how == "plain":
                self.wear(np.zeros_like(self.own))
            elif how == "another":
                random = np.random.default_rng((seed, len(skins)))
                palette = random.uniform(10, 245, (4, 3)).astype(np.float32)
                self.wear(painting.pattern(random, *self.own.shape[:2], palette))
            elif len(skins) % 2 == 0:
                self.wear(skins[-2].own)
                skins[-2].wear(self.own)

        def wear(self, texture):
            """As colourful as its own."""
            height, width = self.own.shape[:2]
            tiled = np.tile(texture, (-(-height // len(texture)), -(-width // texture.shape[1]), 1))
            spread = self.own.std((0, 1)) / np.maximum(tiled.std((0, 1)), 1)
            texture = (tiled[:height, :width] - tiled.mean((0, 1))) * spread + self.own.mean((0, 1))
            self.around = texture.clip(0, 255).astype(np.float32)
            self.still = self._surface(0.0)

    with mock.patch.object(painting, "_Skin", Skin):
        other = make_clip(seed, SETTINGS)
    frames = clip.frames.copy()
    for index in range(1, len(frames)):
        for part in np.unique(clip.labels[index]):
            inside = clip.labels[index] == part
            colours = other.frames[index][inside].astype(np.float32)
            colours += frames[index][inside].mean(0) - colours.mean(0)
            frames[index][inside] = np.rint(colours).clip(0, 255)
    return frames


def turned(clip):
    """Frame 0 and its labels, turned and moved from frame to frame, and mirrored in every second."""
    height, width = clip.labels.shape[1:]
    frames, labels = [clip.frames[0]], [clip.labels[0]]
    for index in range(1, 9):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 40 * index, 1)
        matrix[:, 2] += (0.4 * index, -0.3 * index)
        matrix[:, 0] *= (-1) ** index
        matrix[:, 2] += (-matrix[:, 0]) * width * (index % 2)
        frames.append(cv2.warpAffine(clip.frames[0], matrix, (width, height)))
        labels.append(cv2.warpAffine(clip.labels[0], matrix, (width, height), flags=cv2.INTER_NEAREST))
    return np.stack(frames), np.stack(labels)


@pytest.fixture(scope="module")
def clips():
    return {seed: make_clip(seed, SETTINGS) for seed in SEEDS}


@pytest.fixture(scope="module")
def cases(clips):
    """By name, frames and labels of each clip."""
    cases = {how: [(repainted(clip, seed, how), clip.labels) for seed, clip in clips.items()] for how in HOW}
    cases["truth"] = [(clip.frames, clip.labels) for clip in clips.values()]
    return cases | {"turned": [turned(clip) for clip in clips.values()]}


def drifts_of(cases, look, every=1):
    """By name, the mean drift of each clip."""
    return {
        name: np.array(
            [mean_drift(part_drifts(frames[::every], labels[::every], look)) for frames, labels in of]
        )
        for name, of in cases.items()
    }


def test_another_texture_of_the_same_colour_is_told_by_the_texture_alone(cases):
    drifts = drifts_of(cases, Texture())
    print({name: of.round(3) for name, of in drifts.items()})
    assert drifts["truth"].mean() < 0.2 and drifts["turned"].max() < 0.22
    for how, least in (("swapped", 0.1), ("another", 0.1), ("plain", 0.3)):
        beyond = drifts[how] - drifts["truth"]
        assert beyond.mean() > least and beyond.min() > 0.02
    colours = drifts_of(cases, Colour())
    for how in HOW:
        assert (colours[how] - colours["truth"]).mean() < 0.7, "which nobody sees"


def test_another_texture_is_told_by_the_features_of_a_network_too(cases, cache):
    drifts = drifts_of({name: of[:4] for name, of in cases.items()}, Features(), every=4)
    print({name: of.round(4) for name, of in drifts.items()})
    assert drifts["turned"].mean() < 0.7 * drifts["truth"].mean()
    for how, share in (("swapped", 1.1), ("another", 1.1), ("plain", 1.3)):
        assert drifts[how].mean() > share * drifts["truth"].mean()
        assert (drifts[how] > drifts["truth"]).all()


def test_what_lies_beside_a_part_and_its_mean_colour_say_nothing_of_its_texture(clips, cache):
    frame, labels = clips[1].frames[0], clips[1].labels[0]
    part = np.bincount(labels[labels > 0]).argmax()
    inside = labels == part
    beside = np.where(inside[..., None], frame, 255 - frame)
    redder = (frame * 0.8 + (40, 0, 0)).astype(np.uint8), (frame * 0.8).astype(np.uint8)
    for look, least in ((Texture(), 0.15), (Features(), 0.01)):
        assert look.distance(look.describe(frame, inside), look.describe(beside, inside)) < 1e-5
        assert look.distance(*(look.describe(each, inside) for each in redder)) < least
    assert Colour().distance(*(Colour().describe(each, inside) for each in redder)) > 5


def test_drift_is_told_by_quarter_and_from_where_a_part_is_first_seen():
    random = np.random.default_rng(0)
    pattern = random.integers(0, 255, (24, 24, 1), np.uint8).repeat(3, 2)
    frames, labels = np.stack([pattern] * 9), np.zeros((9, 24, 24), np.uint8)
    labels[:, :12], labels[3:, 12:] = 1, 2
    frames[:3, 12:] = 0  # where the second part is not seen yet
    frames[7:] = 128
    drifts = part_drifts(frames, labels, Texture())
    assert drifts.shape == (9, 2) and np.isnan(drifts[0]).all() and np.isnan(drifts[:4, 1]).all()
    assert drift_by_quarter(drifts) == pytest.approx([0, 0, 0, 1], abs=0.01)
    assert np.isnan(drift_by_quarter(drifts[:2])[1:]).all(), "clips too short to have them"


def test_an_evaluation_tells_drifts_beyond_the_truths_by_quarter(clips, cache, monkeypatch):
    monkeypatch.setattr(run, "absent_measures", lambda: {"lpips": "needs what is not tested here"})

    def fading(example):
        """The subject goes grey in the second half."""
        frames, late = example.frames.copy(), example.labels[5:] > 0
        frames[0] = 0  # which is given, whatever a source returns
        frames[5:][late] = frames[5:][late].mean(-1, keepdims=True)
        return frames

    examples = [clips[seed] for seed in (1, 3)]
    sources = {"fading": fading, "true": lambda example: example.frames}
    summary = run.summarise([measures for *_, measures in run.evaluate(examples, sources)])
    for drift in run.DRIFTS:
        means = {
            name: [of[f"{drift}, quarter {number}"]["mean"] for number in (1, 2, 3, 4)]
            for name, of in summary["measures"].items()
            if name != "truth"
        }
        assert means["true"] == means["fading"][:2] + [0, 0] == [0] * 4
        assert min(means["fading"][2:]) > 0
        whole = [summary["measures"][name][drift]["mean"] for name in ("fading", "truth")]
        assert whole[0] - whole[1] == pytest.approx(np.mean(means["fading"]), rel=0.3)
        assert summary["against"]["fading over true"][f"{drift}, quarter 4"]["wins"] == 0, "less is better"
        assert f"| fading | {drift} | 0 ± 0 | 0 ± 0 |" in run.table(summary)


def test_features_are_absent_without_their_network(cache):
    assert "part_feature_drift" not in absent_measures()
    next(cache.iterdir()).unlink()
    assert "needs AlexNet's weights" in absent_measures()["part_feature_drift"]
