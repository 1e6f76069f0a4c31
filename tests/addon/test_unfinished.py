"""Takes that were being generated when Blender ended: completed by the next Blender that opens the file."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import bpy
import pytest

from tests.addon.relay import Relay
from tests.addon.servers import PACKAGE, module, own_goodbyes, wait_for
from tests.server.client import ServerProcess
from tests.server.processes import Output

FRAMES = 12


@pytest.fixture
def server(server_python, tmp_path):
    if subprocess.run(
        [server_python, "-c", "import cv2, zmq, msgpack"], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("POSEANYTHING_SERVER_PYTHON names no Python that has the server's packages")
    engines = {"plain": "tests.server.engines:Plain"}
    with ServerProcess(engines, python=server_python, jobs=str(tmp_path / "jobs")) as process:
        yield process


def generate_and_die(shot, address: str, number: signal.Signals) -> None:
    """Another Blender opens the file, generates, and ends in the middle; it has not saved."""
    shot.poseanything.engine_name = "plain"
    bpy.ops.wm.save_mainfile()
    script = f"""
        import dataclasses, time, bpy
        from importlib import import_module
        bpy.ops.preferences.addon_enable(module="{PACKAGE}")
        session = import_module("{PACKAGE}.session")
        preferences = bpy.context.preferences.addons["{PACKAGE}"].preferences
        preferences.autostart, preferences.address = False, {address!r}
        bpy.ops.wm.open_mainfile(filepath={bpy.data.filepath!r})
        build = import_module("{PACKAGE}.operators.generate")
        whole = build.build_request
        build.build_request = lambda *a: dataclasses.replace(whole(*a), engine_options={{"pause": 0.2}})
        bpy.ops.poseanything.generate()
        (job,) = session.get().bridge.jobs.values()
        while job.frames < 3:
            session.get().poll()
            time.sleep(0.01)
        print("three frames", flush=True)
        while True:
            session.get().poll()
            time.sleep(0.01)
    """
    blender = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    try:
        Output(blender.stdout).line("three frames")
    finally:
        blender.send_signal(number)
        blender.wait()


def wait_until_settled() -> None:
    """Until the server has confirmed that it keeps nothing of what is over here."""

    def settled() -> bool:
        module("session").get().poll()
        return not own_goodbyes().jobs()

    wait_for(settled)


def completed() -> tuple:
    """The take in the sequencer and on the disk."""
    (item,) = [item for scene in bpy.data.scenes for item in scene.poseanything_takes.items]
    assert item.state == "DONE", item.sentence
    scene, strip = module("sequencer.strips").find_strip(item.take_id)
    folder = module("sequencer.take_list").folder_of(item)
    assert [e.filename for e in strip.elements] == sorted(path.name for path in folder.glob("*_0*.png"))
    return item, len(strip.elements), folder


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_take_is_completed_after_blender_was_killed(shot, server, preferences):
    generate_and_die(shot, server.address, signal.SIGKILL)
    preferences.autostart, preferences.address = False, server.address
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    (folder,) = Path(bpy.path.abspath("//takes")).glob("*")
    frames = sorted(folder.glob("*_0*.png"))
    before = [(frame.name, frame.stat().st_mtime_ns) for frame in frames]
    last = frames[-1]
    last.write_bytes(last.read_bytes()[:-20])  # as a power failure leaves it

    assert bpy.ops.poseanything.fetch_unfinished(wait=True) == {"FINISHED"}
    item, shown, _ = completed()
    assert (item.state, item.frames, shown) == ("DONE", FRAMES, FRAMES)
    wait_until_settled()
    assert item.unfinished == "" and not (folder / "unfinished.json").exists()
    kept = [(frame.name, frame.stat().st_mtime_ns) for frame in frames]
    assert kept[:-1] == before[:-1], "what was there was not sent again"
    assert last.read_bytes().endswith(b"IEND\xaeB`\x82"), "what was cut off was"
    assert not bpy.ops.poseanything.fetch_unfinished.poll()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_take_is_completed_on_another_computer(shot, server, preferences, tmp_path):
    """The same key and the saved file are all that it has."""
    generate_and_die(shot, server.address, signal.SIGTERM)
    preferences.autostart, preferences.address = False, server.address
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    unfinished = module("operators.unfinished")
    (job,) = unfinished.pick_up(bpy.context)
    module("session").get().poll()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bpy.ops.wm.save_mainfile()
    shutil.copy(bpy.data.filepath, elsewhere)
    module("session").get().bridge.disconnect("Off to another computer.")
    assert job.state == "LEFT" and "It goes on at" in job.sentence
    module("session").get().bridge.jobs.clear()
    shutil.rmtree(tmp_path / "takes")

    bpy.ops.wm.open_mainfile(filepath=str(elsewhere / "film.blend"))
    assert bpy.ops.poseanything.fetch_unfinished(wait=True) == {"FINISHED"}
    item, shown, folder = completed()
    assert (item.state, shown, folder.parent.parent) == ("DONE", FRAMES, elsewhere)


@pytest.fixture
def slow_shot(shot, monkeypatch):
    """A saved shot that takes some seconds; gives a function that generates it until the first frame is
    there."""
    build, session = module("operators.generate"), module("session").get()
    whole = build.build_request
    pause = {"engine_options": {"pause": 0.5}}
    monkeypatch.setattr(build, "build_request", lambda *a: dataclasses.replace(whole(*a), **pause))
    shot.poseanything.engine_name = "plain"
    bpy.ops.wm.save_mainfile()

    def begin():
        bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
        bpy.ops.poseanything.generate()
        (job,) = session.bridge.jobs.values()
        wait_for(lambda: session.poll() and job.frames)
        return job

    return begin


def end_blender(session) -> None:
    """As far as its jobs are concerned."""
    session.bridge.disconnect()
    session.poll()
    session.bridge.jobs.clear()


def test_a_cancel_without_a_connection_outlives_blender_and_the_take(slow_shot, server, preferences):
    """The server makes the clip on, until the next Blender can tell it; the file and the take's folder need
    not say so."""
    session = module("session").get()
    with Relay(server.address) as relay:
        preferences.autostart, preferences.address = False, relay.address
        job = slow_shot()
        bpy.ops.wm.save_mainfile()
        relay.down = True
        relay.cut()
        wait_for(lambda: session.poll() and job.state == "INTERRUPTED")
        session.cancel(job)
        wait_for(lambda: session.poll() and job.state == "CANCELLED")
        end_blender(session)
        shutil.rmtree(job.take.folder)
        with server.client(user="witness") as witness:
            assert witness.welcome().jobs == 1
            bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
            assert not bpy.ops.poseanything.fetch_unfinished.poll(), "there is nothing to fetch"
            relay.down = False
            assert module("operators.unfinished").pick_up(bpy.context) == []
            wait_until_settled()
            assert witness.welcome().jobs == 0


def test_a_take_that_is_deleted_before_it_is_complete_is_not_made_on(
    slow_shot, server, preferences, monkeypatch
):
    session = module("session").get()
    monkeypatch.setattr(module("takes.trash"), "send2trash", shutil.rmtree)
    preferences.autostart, preferences.address = False, server.address
    job = slow_shot()
    end_blender(session)
    with server.client(user="witness") as witness:
        assert witness.welcome().jobs == 1
        assert bpy.ops.poseanything.delete_take(take_id=job.id) == {"FINISHED"}
        assert module("operators.unfinished").pick_up(bpy.context) == []
        wait_until_settled()
        assert witness.welcome().jobs == 0


def test_what_another_server_has_is_left_alone(shot, server, preferences):
    preferences.autostart, preferences.address = False, server.address
    record = module("takes.unfinished")
    left = record.Unfinished("job", "00" * 32, 64, 32, bpy.data.filepath, "Scene", "Scene", None, False, "{}")
    folder = Path(bpy.path.abspath("//takes")) / "x_001"
    folder.mkdir(parents=True)
    record.leave(folder, left)
    assert module("operators.unfinished").pick_up(bpy.context) == []
    assert record.find(folder.parent) == [(folder, left)]
    (folder / record.UNFINISHED).write_text('{"job": 1}')
    assert record.find(folder.parent) == []
    wait_for(lambda: module("session").get().bridge.client is not None)
