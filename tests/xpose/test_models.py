"""`weights xpose` against a hub on this machine."""

from __future__ import annotations

import pytest

from inference_server.cli import main
from inference_server.poseanything.checkpoints import find_weights
from inference_server.poseanything.checkpoints.errors import CheckpointError
from inference_server.xpose.models import FOLDER, MODELS
from inference_server.xpose.stages import STAGES, make_stage

from ..model.hub_server import Hub, weights
from .tiny_models import save_grounding_dino, save_sam2


@pytest.fixture
def hub(tmp_path):
    root = tmp_path / "hub"
    save_grounding_dino(root / "IDEA-Research" / "grounding-dino-base")
    save_sam2(root / "facebook" / "sam2.1-hiera-large")
    (root / "facebook" / "sam2.1-hiera-large" / "sam2.1_hiera_large.pt").write_bytes(b"0" * 50_000)
    hub = Hub(root)
    hub.licences = {"IDEA-Research/grounding-dino-base": "apache-2.0"}
    with hub.running():
        yield hub


def test_models_of_the_stages_come_whole_and_load(hub, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "weights"
    hub.cut_after["model.safetensors"] = [30_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000]
    words = ["xpose", folder, "--stages", "grounded", "blumnet"]
    first = weights(hub, *words)
    hub.cut_after.clear()
    done = weights(hub, *words)
    assert first.returncode == 1 and "goes on" in first.stderr and done.returncode == 0, done.stderr
    assert "licence: apache-2.0" in done.stdout and "about 0.9 GB" in done.stdout
    assert "BlumNet is still empty" in done.stdout
    assert not list(folder.rglob("*.part")) and not list(folder.rglob("*.pt"))
    with pytest.raises(CheckpointError):  # none of it is taken for the video model's
        find_weights(folder)
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(folder))
    make_stage("subject", "grounded", {"device": "cpu"}).load()
    assert main(["weights", "xpose", str(folder), "--list"]) == 0
    listed = capsys.readouterr().out
    assert "grounding-dino-base (there)" in listed and "Instruct (missing)" in listed
    assert main(["weights", "xpose", "--stages", "medial"]) == 1
    assert "there are qwen, grounded, sam3, blumnet" in capsys.readouterr().err


def test_every_stage_that_has_weights_says_where_from():
    stages = {name for kind in STAGES.values() for name in kind}
    assert set(MODELS) <= stages and stages - set(MODELS) == {"flow", "medial", "carried"}
    assert FOLDER and all(model.source or model.by_hand for models in MODELS.values() for model in models)
