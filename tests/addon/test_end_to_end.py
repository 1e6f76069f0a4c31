"""The whole way: Blender, the server's own process, the draft engine's, and back into the sequencer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.addon.conftest import ROOT
from tests.addon.rigs import read_png
from tests.addon.scenes import names, newest_job, poll_until, settle, span, strip_of
from tests.addon.servers import module


@pytest.fixture
def film(shot, preferences, server_python):
    """The shot at 256 x 144, and a server that Generate starts when it is needed; gives the scene."""
    if subprocess.run(
        [server_python, "-c", "import cv2, zmq, msgpack"], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("POSEANYTHING_SERVER_PYTHON names no Python that has the server's packages")
    preferences.server_folder, preferences.server_python = str(ROOT), server_python
    preferences.autostart, preferences.address = True, "tcp://127.0.0.1:0"
    shot.frame_start, shot.frame_end = 1, 25
    shot.poseanything.long_side, shot.poseanything.take_name = 256, "fox"
    shot.poseanything.engine_name = "draft"  # whatever weights this machine has
    return shot


def generate_whole(frames: int):
    """Generate, and check that the take is complete on disk and in the sequencer; gives its job."""
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    job = newest_job()
    assert job.state == "DONE" and job.take.frames_on_disk() == frames
    assert names(strip_of(job)) == job.take.element_names(frames)
    return job


def begin_long(scene):
    """A long clip of which frames arrive; gives its job."""
    scene.frame_end = 400
    assert bpy.ops.poseanything.generate() == {"FINISHED"}
    job = newest_job()
    poll_until(lambda: job.frames > 2, 60)
    return job


def see_it_go_on(job) -> None:
    """More frames come, and the strip has all of them; then it is cancelled."""
    before = job.frames
    poll_until(lambda: job.ended or job.frames > before + 20, 60)
    assert job.state in ("RUNNING", "DONE"), job.sentence
    module("session").get().bridge.cancel(job)
    settle(job)
    kept = job.take.frames_on_disk()
    assert kept > before + 20 and len(strip_of(job).elements) == kept


def worker_of(server: int) -> int:
    """The process id of a server's engine."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return next(int(pid) for pid in children if b".worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_scene_becomes_a_strip_that_moves(film, monkeypatch):
    job = generate_whole(25)
    assert span(strip_of(job)) == (1, 26) and not job.neural
    frames = [read_png((job.take.folder / name).read_bytes()).astype(int) for name in names(strip_of(job))]
    first = read_png((job.take.folder / "first_frame.png").read_bytes()).astype(int)
    assert first.shape == frames[0].shape == (144, 256, 3)
    assert np.abs(frames[0] - first).mean() < 1, "it begins with the scene's render"
    assert np.abs(frames[19] - first).max() > 30, "and follows the armature"
    own, translation = module("texts.de").TEXTS, module("texts.translation")
    monkeypatch.setattr(translation, "_translate", lambda text: own.get(text, text))
    assert translation.shown(job.sentence).startswith("Ein Entwurf biegt den ersten Frame nach der Pose;")


@pytest.mark.any_blender
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the worker in /proc")
def test_a_killed_engine_costs_nothing(film):
    session = module("session").get()
    job = begin_long(film)
    server = session.bridge.server._process.pid
    os.kill(worker_of(server), signal.SIGKILL)
    see_it_go_on(job)
    assert session.bridge.server._process.pid == server


@pytest.mark.any_blender
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals")
def test_a_killed_server_costs_nothing(film, preferences, tmp_path, monkeypatch):
    """It is started again, and goes on from what it kept."""
    monkeypatch.setenv("POSEANYTHING_JOBS", str(tmp_path / "jobs"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        preferences.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    session = module("session").get()
    job = begin_long(film)
    session.bridge.server._process.kill()
    poll_until(lambda: job.state == "INTERRUPTED")
    see_it_go_on(job)
    film.frame_end = 25
    assert generate_whole(25).take.folder != job.take.folder


@pytest.fixture
def tiny_model(tmp_path, monkeypatch) -> Path:
    """Weights of a tiny model with two LoRAs, which declares a default of its own, for the server that is
    started next; gives their folder."""
    pytest.importorskip("torch", reason="the model's packages are not installed beside this Blender")
    from tests.model.checkpoint_files import save_loras, save_sampling_release

    folder = tmp_path / "weights"
    save_sampling_release(folder)
    save_loras(folder)
    (shard,) = folder.rglob("diffusion*00001-of*.safetensors")
    shard.with_name("config.json").write_text('{"subject_strength": 1.25}')
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(folder))
    return folder


@pytest.mark.any_blender
def test_every_option_of_the_model_is_set_in_blender_and_reaches_it(film, tiny_model):
    """Preset, guidance, cache, scheduler, matching and LoRAs; a take made again is the same, bit for bit."""
    settings, engine_settings = film.poseanything, module("engine_settings")
    film.frame_end, settings.long_side, settings.engine_name = 5, 96, "poseanything"
    assert bpy.ops.poseanything.start_server() == {"FINISHED"}
    session = module("session").get()
    poll_until(lambda: session.bridge.engine("poseanything"), 60)
    engine = session.engine("poseanything")
    assert engine.ready and engine.runs_on, engine.reason

    bpy.ops.poseanything.use_preset(preset="release")
    group = engine_settings.group_of(film, "poseanything")
    strength = engine_settings.parameter_property("subject_camera_separate", "guidance_scale")
    assert getattr(group, strength) == 1.25
    group.steps = 3
    settings.new_seed = False
    plain = generate_whole(5)
    assert plain.neural and "processor" in plain.sentence

    bpy.ops.poseanything.use_preset(preset="fast")
    group.steps, group.guider = 3, "classifier_free"
    wanted = {"matching": "two_pass", "parts": "images", "cache_threshold": 0.5, "attention": "native"}
    for name, value in wanted.items():
        setattr(group, engine_settings.option_property(name), value)
    for name in ("fur.safetensors", "film.safetensors"):
        bpy.ops.poseanything.add_strength(engine="poseanything", option="loras", choice=name)
    changed = generate_whole(5)
    kept = changed.take.record["engine_settings"]
    wanted |= {"scheduler": "unipc", "cache": "first_block"}
    assert kept["options"].items() >= wanted.items() and kept["guidance"]["guider"] == "classifier_free"
    assert kept["options"]["loras"] == {"fur.safetensors": 1.0, "film.safetensors": 1.0}
    assert last_frame(changed) != last_frame(plain)

    bpy.ops.poseanything.use_preset(preset="release")
    bpy.ops.poseanything.make_again(take_id=plain.id)
    again = newest_job()
    settle(again)
    assert again is not plain and last_frame(again) == last_frame(plain)
    bpy.ops.poseanything.make_again(take_id=changed.id)
    again = newest_job()
    settle(again)
    assert last_frame(again) == last_frame(changed)


def last_frame(job) -> bytes:
    return read_png((job.take.folder / names(strip_of(job))[-1]).read_bytes()).tobytes()
