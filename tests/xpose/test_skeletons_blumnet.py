"""BlumNet against numbers recorded from its own code."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from inference_server.poseanything.checkpoints import CheckpointError
from inference_server.xpose.skeletons.blumnet.checkpoint import config_of, load_blumnet, rename_swin
from inference_server.xpose.skeletons.blumnet.model import BlumNet, BlumNetOutput, SwinSizes
from inference_server.xpose.skeletons.blumnet.reconstruction import reconstruct
from inference_server.xpose.skeletons.blumnet.stage import DEVIATION, MEAN
from inference_server.xpose.stages import XPoseError, make_stage

from ..golden import GOLDEN

KEYS = json.loads((GOLDEN / "blumnet_keys.json").read_text())


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "blumnet_tiny.npz") as file:
        return dict(file)


def save_tiny(recorded, path, kind="swin", **changed):
    """A checkpoint as BlumNet's training saves it."""
    state = {
        name.removeprefix(f"{kind}/"): torch.tensor(value.astype(np.int64 if "index" in name else np.float32))
        for name, value in recorded.items()
        if name.startswith(f"{kind}/")
    }
    for name, value in changed.items():
        state.pop(name) if value is None else state.update({name: value})
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    arguments = argparse.Namespace(backbone="swin_small", lr_backbone_names=["backbone.0"], npt=2)
    torch.save({"model": state, "optimizer": optimizer, "epoch": 199, "args": arguments}, path)
    return path


def picture(height=100, width=148):
    """What the recording was made from."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(0.13 * x * (c + 1) + 0.07 * y) + np.cos(0.11 * y - 0.05 * c * x) for c in range(3)]
    return torch.tensor(np.stack(waves), dtype=torch.float32)[None]


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["swin", "vgg"])
def test_outputs_are_those_of_its_own_code(recorded, tmp_path, kind):
    model = load_blumnet(save_tiny(recorded, tmp_path / "checkpoint.pth", kind))
    with torch.no_grad():
        out = model(picture())
    ours = {
        "curves_logits": out.line_logits,
        "curves_boxes": out.lines.flatten(2),
        "curves_gids": out.line_graphs[..., None],
        "pts_logits": out.point_logits,
        "pts_boxes": out.points,
        "pts_gids": out.point_graphs[..., None],
    }
    for name, tensor in ours.items():
        theirs = recorded[f"{kind}_out/{name}"]
        assert np.abs(tensor[0].numpy() - theirs).max() < 1e-5 * max(np.abs(theirs).max(), 1), name


@pytest.mark.golden
@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_tensor_of_the_published_sizes_has_its_place(name):
    shapes = {key: tuple(shape) for key, shape in KEYS[name].items()}
    config = config_of(shapes)
    with torch.device("meta"):
        model = BlumNet(config)
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
    if name != "vgg16":
        assert config.backbone == SwinSizes(
            *(
                (128, (2, 2, 18, 2), (4, 8, 16, 32))
                if name == "swin_base"
                else (96, (2, 2, 18, 2), (3, 6, 12, 24))
            ),
            window_size=7,
        )
        state = rename_swin(state)
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == ours


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"transformer.decoder.layers.1.norm3.bias": None}, "lacks transformer.decoder.layers.1.norm3.bias"),
        ({"mask_head.weight": torch.zeros(2)}, "has no place for mask_head.weight"),
        ({"gid_embed.1.bias": torch.zeros(7)}, "has another shape of gid_embed.1.bias"),
        ({"query_embed.weight": None}, "is no checkpoint of BlumNet"),
    ],
)
def test_what_does_not_fit_is_named(recorded, tmp_path, changed, sentence):
    path = save_tiny(recorded, tmp_path / "checkpoint.pth", **changed)
    with pytest.raises(CheckpointError, match=sentence):
        load_blumnet(path)


class TestReconstruct:
    @staticmethod
    def short_lines(*branches):
        """Lines of ten pixels that overlap, as the network finds them, a little beside the branch."""
        rng, lines = np.random.default_rng(0), []
        for start, end in branches:
            start, end = np.array(start, float), np.array(end, float)
            step = (end - start) / np.linalg.norm(end - start)
            for along in np.arange(0, np.linalg.norm(end - start) - 9, 6):
                lines.append(start + step * [[along], [along + 10]] + rng.normal(0, 0.7, (2, 2)))
        return np.array(lines)

    branches = [((40, 150), (250, 150)), ((250, 150), (400, 60)), ((250, 150), (330, 270))]
    tips, middle = np.array([[40.0, 150], [400, 60], [330, 270]]), np.array([[250.0, 150]])
    inside = np.ones((288, 512), bool)

    def test_short_lines_become_curves_between_key_points(self):
        stray = np.array([[[20.0, 20], [27, 25]]])
        lines = np.concatenate([self.short_lines(*self.branches), stray])
        curves = reconstruct(lines, self.tips + 3, self.middle - 2, self.inside)
        assert len(curves) == 3
        ends = np.concatenate([curve[[0, -1]] for curve in curves])
        for place in [*(self.tips + 3), *(self.middle - 2)]:
            assert np.linalg.norm(ends - place, axis=1).min() < 1e-9
        assert (np.linalg.norm(ends - (self.middle - 2), axis=1) < 1e-9).sum() == 3

    def test_curves_beside_the_subject_or_without_a_key_point_are_none(self):
        other = self.short_lines(((60, 240), (180, 260)))
        lines = np.concatenate([self.short_lines(*self.branches), other])
        assert len(reconstruct(lines, self.tips, self.middle, self.inside)) == 3
        ends = np.concatenate([self.tips, [[60.0, 240]]])
        assert len(reconstruct(lines, ends, self.middle, self.inside)) == 4
        mask = self.inside.copy()
        mask[200:, :220] = False
        assert len(reconstruct(lines, ends, self.middle, mask)) == 3
        assert reconstruct(np.zeros((0, 2, 2)), ends, self.middle, mask) == []


@pytest.fixture(scope="module")
def stage(recorded, tmp_path_factory):
    path = save_tiny(recorded, tmp_path_factory.mktemp("blumnet") / "checkpoint.pth")
    stage = make_stage("skeleton", "blumnet", {"weights": str(path), "device": "cpu", "at_once": 2})
    stage.load()
    return stage


def test_the_stage_scales_what_the_network_sees_back_to_the_clip(stage, monkeypatch):
    """With a network that sees an upright line in the middle of every picture."""
    frames = np.full((3, 90, 160, 3), 77, np.uint8)
    masks = np.zeros((3, 90, 160), bool)
    masks[[0, 2], 20:70, 60:100] = True
    seen = []

    def see(images):
        seen.append(images)
        y = torch.linspace(0.2, 0.8, 40)
        lines = torch.stack([torch.full((40, 2), 0.5), torch.stack([y, y + 0.02], 1)], -1)
        count = len(images)
        return BlumNetOutput(
            lines.expand(count, -1, -1, -1),
            torch.tensor([9.0, -9]).expand(count, 40, 2),
            torch.tensor([[0.5, 0.2]]).expand(count, 1, 2),
            torch.tensor([9.0, -9, -9]).expand(count, 1, 3),
            None,
            None,
        )

    monkeypatch.setattr(stage, "_model", see)
    first, none, last = stage.trace(frames, masks)
    assert none == [] and len(first) == len(last) == 1
    assert [tuple(images.shape) for images in seen] == [(2, 3, 288, 512)]
    assert first[0].dtype == np.float32 and np.abs(first[0][:, 0] - 80).max() < 1
    assert first[0][:, 1].min() == pytest.approx(18, abs=1) and first[0][:, 1].max() == pytest.approx(
        74, abs=2
    )
    corner, centre = seen[0][0, :, 5, 5], seen[0][0, :, 144, 256]
    assert torch.allclose(corner, (1 - torch.tensor(MEAN)) / torch.tensor(DEVIATION), atol=1e-5)
    assert torch.allclose(centre, (77 / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION), atol=1e-5)


def test_a_real_checkpoint_traces_and_a_missing_one_says_what_to_do(stage, tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3), np.uint8)
    (curves,) = stage.trace(frames, np.ones((1, 64, 96), bool))
    assert all(curve.shape[1:] == (2,) and np.isfinite(curve).all() for curve in curves)
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path))
    with pytest.raises(XPoseError, match="get them with: python build.py weights xpose"):
        make_stage("skeleton", "blumnet").load()


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save({"model": {"a": torch.zeros(1)}, "args": Evil()}, tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match="more than weights"):
        load_blumnet(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "made").exists()
