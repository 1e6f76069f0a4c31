"""Fetching weights from Blender, by the server's own command from a hub on this machine."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import bpy
import pytest

from tests.addon.conftest import ROOT
from tests.addon.servers import module, wait_for
from tests.addon.test_register_panels import draw_all
from tests.model.hub_server import Hub

TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"
FILES = {
    "Ryan241005/PoseAnything/diffusion_pytorch_model-00001-of-00001.safetensors": 30_000,
    "Wan-AI/Wan2.2-TI2V-5B/Wan2.2_VAE.pth": 30_000,
    f"Wan-AI/Wan2.2-TI2V-5B/{TEXT_ENCODER}": 25_000_000,
    "Wan-AI/Wan2.2-TI2V-5B/google/umt5-xxl/tokenizer.json": 100,
}
TOTAL = sum(FILES.values())


@pytest.fixture
def hub(tmp_path, server_python, monkeypatch):
    if subprocess.run(
        [server_python, "-c", "import huggingface_hub, httpx2"], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("POSEANYTHING_SERVER_PYTHON names no Python that has the model's packages")
    for name, size in FILES.items():
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_bytes(bytes(range(250)) * (size // 250) + b"x" * (size % 250))
    hub = Hub(tmp_path / "hub")
    for name, value in (
        ("HF_ENDPOINT", hub.endpoint),
        ("NO_PROXY", "127.0.0.1"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with hub.running():
        yield hub


@pytest.fixture
def lacking(shot, served, preferences, server_python, tmp_path):
    """A connected server whose best engine lacks its weights."""
    served()
    bpy.ops.poseanything.generate(wait=True)
    bridge = module("session").get().bridge
    part = module("shared.engines").WeightsPart
    lacks = {
        "weights": (
            part("Transformer", "https://example.org", "", 12_300_000_000, False),
            part("Video VAE", "https://example.org", "apache-2.0", 2_800_000_000, True),
        ),
        "weights_folder": str(tmp_path / "weights"),
    }
    bridge.engines = tuple(
        replace(engine, **lacks) if engine.name == "poseanything" else engine for engine in bridge.engines
    )
    preferences.server_folder, preferences.server_python = str(ROOT), server_python
    yield shot
    module("session").get().weights.cancel()
    bpy.context.preferences.system.use_online_access = False


@pytest.mark.any_blender
def test_weights_come_are_cancelled_and_go_on(addon, hub, server_python, tmp_path):
    fetch, weights = module("connection.weights").WeightsFetch(), module("connection.weights")
    folder = tmp_path / "weights"
    hub.stall_after[TEXT_ENCODER] = 22_000_000
    fetch.start(str(ROOT), server_python, str(folder))
    wait_for(lambda: fetch.done > 10_000_000, 60)
    assert fetch.is_running and fetch.total == TOTAL and fetch.file == TEXT_ENCODER
    assert 0.3 < fetch.fraction < 1
    process = fetch._process
    fetch.cancel()
    process.wait(20)
    assert fetch.state == weights.IDLE and list(folder.rglob("*.part"))
    hub.stall_after.clear()
    hub.requests.clear()
    fetch.start(str(ROOT), server_python, str(folder))
    wait_for(lambda: not fetch.is_running, 60)
    assert fetch.state == weights.IDLE and fetch.done == fetch.total == TOTAL, fetch.sentence
    assert hub.ranges(TEXT_ENCODER)[0].startswith("bytes="), "it went on where it stopped"
    assert not list(folder.rglob("*.part"))


@pytest.mark.any_blender
def test_why_weights_do_not_come_is_said(addon, hub, server_python, tmp_path, monkeypatch):
    fetch = module("connection.weights").WeightsFetch()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    fetch.start(str(ROOT), server_python, str(tmp_path / "weights"))
    wait_for(lambda: not fetch.is_running, 60)
    assert fetch.state == "FAILED" and "can't be reached" in fetch.sentence


def test_missing_weights_have_a_button_where_it_helps(lacking, preferences):
    settings, blockers = lacking.poseanything, module("operators.serving").server_blockers
    system = bpy.context.preferences.system
    settings.engine = "poseanything"
    assert [found.label for found in blockers(bpy.context)] == [
        "Allow Online Access",
        "Use the Best Available",
    ]
    system.use_online_access = True
    found, _ = blockers(bpy.context)
    assert found.sentence == "PoseAnything needs its weights: 12.3 GB are to be fetched"
    assert found.operator == "poseanything.get_weights"
    texts = draw_all()
    assert {"Transformer, 12 GB", "Video VAE, 3 GB", "apache-2.0", "License?"} <= set(texts)
    fetch = module("session").get().weights
    fetch.state, fetch.done, fetch.total, fetch.stage = "RUNNING", 3_000_000_000, 12_300_000_000, "fetching"
    assert "3.0 GB of 12.3 GB" in draw_all()
    fetch.state, fetch.sentence = "FAILED", "The disk is full; free some."
    assert "The disk is full; free some." in draw_all()
    preferences.address = "tcp://192.0.2.7:47847"
    text = " ".join(draw_all())
    assert "run 'python build.py weights' on its computer" in text
    with pytest.raises(RuntimeError, match="on its computer"):
        bpy.ops.poseanything.get_weights(engine="poseanything")
