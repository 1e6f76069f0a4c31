"""A real Blender window, used as an animator does. Skipped unless the environment names one; see `window`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from inference_server.broker.keys import KeyRing
from shared.keys import keys_folder
from tests.desktop.window import display, inside, open_window, skip_without_window, wait_for
from tests.server.processes import Output


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    """A window with a rig, a sequencer below the 3D view, and a server that makes three frames a second."""
    skip_without_window()
    folder = tmp_path_factory.mktemp("desktop")
    fake = Path(__file__).parents[1] / "addon" / "fake_server.py"
    server = subprocess.Popen(
        [sys.executable, fake, "--frames-per-second", "3"], stdout=subprocess.PIPE, text=True
    )
    address = Output(server.stdout).line("listening on ").split()[-1]
    token = str(KeyRing(keys_folder()).invite(uuid.uuid4().hex, address))
    keys = str(inside(Path(os.environ["POSEANYTHING_KEYS"])))
    try:
        with open_window(folder, token, POSEANYTHING_KEYS=keys) as window:
            window.server = server
            yield window
    finally:
        server.kill()
        server.wait()


def test_escape_ends_an_export_and_puts_everything_back(desktop):
    desktop.press_generate("VIEW_3D")
    wait_for(lambda: desktop.ask("answer = exporting()"), 30)
    display("xdotool", "key", "Escape")
    wait_for(lambda: not desktop.ask("answer = exporting()"), 30)
    assert desktop.jobs() == []
    assert desktop.ask("answer = bpy.context.scene.frame_current") == 1


def test_button_to_strip_while_the_user_works_on(desktop):
    """Generate is clicked; while frames come, steps are undone and redone, and the file is saved."""
    desktop.ask(
        "with bpy.context.temp_override(window=window()):\n"
        "    for i in range(3):\n"
        "        bpy.data.objects['Light'].location.x += 1\n"
        "        bpy.ops.ed.undo_push(message='move')\n"
    )
    before = desktop.photograph("before.png").read_bytes()
    desktop.press_generate("VIEW_3D")
    wait_for(lambda: any(job["frames"] for job in desktop.jobs()), 90)
    first = desktop.jobs()[0]
    assert first["state"] == "RUNNING" and first["shown"] and first["shown"] < 60
    light = "answer = bpy.data.objects['Light'].location.x"
    moved = desktop.ask(light)
    desktop.keys("ctrl+z", "ctrl+z")
    assert desktop.ask(light) == pytest.approx(moved - 1), "one step for the strip, one for the light"
    wait_for(lambda: desktop.jobs()[0]["shown"], 10)  # the strip was undone too, and is added again
    desktop.keys("ctrl+shift+z", "ctrl+s")
    assert desktop.ask(light) == pytest.approx(moved)
    assert desktop.photograph("during.png").read_bytes() != before
    during = desktop.jobs()[0]
    assert during["state"] == "RUNNING" and during["shown"] > first["shown"]
    wait_for(lambda: desktop.jobs()[0]["state"] == "DONE", 60)
    wait_for(lambda: desktop.jobs()[0]["shown"] == 60, 10)
    desktop.keys("ctrl+z")
    # A timer adds again what undoing something else took away.
    wait_for(lambda: desktop.jobs()[0]["shown"] == 60, 10)
    desktop.photograph("after.png")
    assert desktop.ask("answer = bpy.context.workspace.sequencer_scene.name == 'Shots'")


def test_the_live_picture_follows_the_pose(desktop):
    """Switched on, the rig moved with the mouse's keys, played, switched off."""
    live = "live = import_module(f'{MODULE}.live.view').get()\n"
    state = f"{live}answer = [live.on, live.ready, live._number, len(live._sent), live.sentence]"
    press = (
        "with bpy.context.temp_override(window=window(), area=area_of('VIEW_3D')):\n"
        "    bpy.ops.poseanything.live('INVOKE_DEFAULT')\n"
    )

    def drawn(before: int) -> int:
        on, ready, number, waiting, sentence = desktop.ask(state)
        assert on, sentence
        return ready and number > before and not waiting and number

    desktop.ask("area_of('VIEW_3D').spaces.active.region_3d.view_perspective = 'CAMERA'")
    without = desktop.photograph("without.png").read_bytes()
    desktop.ask(press)
    wait_for(lambda: desktop.ask(state)[0], 60)
    number = wait_for(lambda: drawn(0), 60)
    still = desktop.photograph("live.png").read_bytes()
    assert still != without
    desktop.keys("g", "1", "Return")
    number = wait_for(lambda: drawn(number), 30)
    assert desktop.photograph("live_moved.png").read_bytes() != still
    desktop.keys("ctrl+z")
    number = wait_for(lambda: drawn(number), 30)
    desktop.ask(
        "with bpy.context.temp_override(window=window(), area=area_of('VIEW_3D')):\n"
        "    bpy.ops.screen.animation_play()\n"
    )
    wait_for(lambda: desktop.ask(state)[2] > number + 5, 30)
    desktop.ask(
        "with bpy.context.temp_override(window=window()): bpy.ops.screen.animation_cancel()\n" + press
    )
    assert desktop.ask(f"{live}answer = [live.on, live.picture.width]") == [False, 0]
    desktop.ask("area_of('VIEW_3D').spaces.active.region_3d.view_perspective = 'PERSP'")


def test_button_in_the_sequencer_and_rendering_meanwhile(desktop):
    desktop.press_generate("SEQUENCE_EDITOR")
    wait_for(lambda: len(desktop.jobs()) == 2 and desktop.jobs()[1]["frames"], 90)
    desktop.ask(
        "bpy.context.scene.render.resolution_percentage = 10\n"
        "with bpy.context.temp_override(window=window()):\n"
        "    bpy.ops.render.render('INVOKE_DEFAULT', animation=False)\n"
    )
    wait_for(lambda: desktop.jobs()[1]["shown"] == 60, 90)
    assert desktop.jobs()[1]["state"] == "DONE"


def test_a_long_first_frame_is_rendered_beside_the_user(desktop):
    """Cycles with far more samples than anybody waits for: the window lives, and Esc ends it."""
    known, size = (
        len(desktop.jobs()),
        "answer = [bpy.context.scene.render.resolution_x, bpy.context.scene.frame_current]",
    )
    before = desktop.ask(size)
    desktop.ask(
        "scene = bpy.context.scene\n"
        "scene.render.engine, scene.cycles.samples = 'CYCLES', 100000\n"
        "scene.cycles.use_adaptive_sampling = scene.cycles.use_denoising = False\n"
    )
    desktop.press_generate("VIEW_3D")
    wait_for(lambda: "Rendering" in desktop.ask("answer = step()[0]"), 60)
    wait_for(lambda: desktop.ask("answer = step()[1]") > 0, 60)
    began = time.monotonic()
    desktop.ask("bpy.data.objects['Light'].location.x += 1")
    assert time.monotonic() - began < 5, "Blender answers while it renders"
    desktop.photograph("rendering.png")
    display("xdotool", "key", "Escape")
    wait_for(lambda: not desktop.ask("answer = exporting()"), 60)
    assert len(desktop.jobs()) == known
    assert desktop.ask("answer = [scene.name for scene in bpy.data.scenes if 'First' in scene.name]") == []
    assert desktop.ask(size) == before, "nothing of the scene was set"
    assert not desktop.ask("answer = bpy.app.is_job_running('RENDER')")


def test_the_viewport_s_picture_is_the_first_frame(desktop):
    known = len(desktop.jobs())
    desktop.ask(
        "scene = bpy.context.scene\n"
        "scene.poseanything.first_frame_source = 'VIEWPORT'\n"
        "scene.poseanything.take_name = 'viewport'\n"
        "system = bpy.context.preferences.system\n"
        "system.viewport_aa = system.bl_rna.properties['viewport_aa'].default\n"
    )
    desktop.press_generate("VIEW_3D")
    wait_for(lambda: len(desktop.jobs()) > known and desktop.jobs()[known]["frames"], 60)
    picture = (desktop.folder / "takes" / "viewport_001" / "first_frame.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 2000, "a cube in the light, not one colour"
    assert desktop.ask("answer = area_of('VIEW_3D').spaces.active.overlay.show_overlays")
    desktop.ask("bpy.ops.poseanything.cancel()\nbpy.context.preferences.system.viewport_aa = 'OFF'")
    desktop.ask(
        "bpy.context.scene.poseanything.first_frame_source = 'RENDER'\n"
        "bpy.context.scene.render.engine = 'BLENDER_WORKBENCH'\n"
        "bpy.context.scene.poseanything.take_name = ''\n"
    )


def test_frames_that_are_gone_do_not_end_blender(desktop):
    takes = desktop.folder / "takes"
    wait_for(lambda: all(job["state"] in ("DONE", "CANCELLED") for job in desktop.jobs()), 60)
    takes.rename(desktop.folder / "elsewhere")
    scrub = "bpy.context.workspace.sequencer_scene.frame_set({})"
    desktop.ask(
        "with bpy.context.temp_override(window=window(), area=area_of('SEQUENCE_EDITOR')):\n"
        "    bpy.ops.sequencer.refresh_all()\n"  # or pictures of before would be shown
    )
    for frame in range(1, 60, 3):
        desktop.ask(scrub.format(frame))
    desktop.photograph("missing.png")
    assert desktop.process.poll() is None
    (desktop.folder / "elsewhere").rename(takes)


IN_VIEW = (
    "area = area_of('VIEW_3D')\n"
    "region = next(region for region in area.regions if region.type == 'WINDOW')\n"
    "with bpy.context.temp_override(window=window(), area=area, region=region):\n"
    "    answer = list({})"
)


def test_control_videos_are_written_beside_the_user(desktop):
    desktop.ask(
        "control = bpy.context.scene.poseanything_control\n"
        "for name in ('poses', 'openpose', 'cylinders', 'parts', 'mask', 'depth', 'first_frame'):\n"
        "    setattr(control, name, name in ('openpose', 'cylinders', 'mask', 'depth'))\n"
        "bpy.context.scene.frame_end = 9\n"
    )
    desktop.ask(IN_VIEW.format("bpy.ops.poseanything.export_control_videos('INVOKE_DEFAULT')"))
    began = time.monotonic()
    desktop.ask("bpy.data.objects['Light'].location.x += 1")
    assert time.monotonic() - began < 5, "Blender answers meanwhile"
    written = desktop.folder / "takes"
    wait_for(lambda: list(written.glob("*control_001")) and not desktop.ask("answer = exporting()"), 240)
    [folder] = (desktop.folder / "takes").glob("*control_001")
    assert sorted(path.name for path in folder.iterdir()) == ["cylinders.mp4", "depth.mp4", "mask.mp4"], (
        "a cube is no person"
    )
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())


def test_a_flight_through_the_view_is_replayed_by_the_camera(desktop):
    desktop.ask("bpy.context.scene.frame_end = 360")
    record = "bpy.ops.poseanything.record_camera('INVOKE_DEFAULT', smoothing=0, delay=0)"
    assert desktop.ask(IN_VIEW.format(record)) == ["RUNNING_MODAL"]
    drag = ["mousemove", "500", "300", "sleep", "1", "mousedown", "2"]
    for step in range(1, 11):
        drag += ["mousemove", str(500 + 20 * step), str(300 - 4 * step), "sleep", "0.3"]
    display("xdotool", *drag, "mouseup", "2")
    keys = (
        "camera = bpy.context.scene.camera\n"
        "keyed_frames = import_module(f'{MODULE}.rig.animation').keyed_frames\n"
        "answer = len(set(keyed_frames(camera))) if camera.animation_data else 0"
    )
    wait_for(lambda: desktop.ask(keys) == 360, 90)
    moved, apart = desktop.ask(
        "scene, camera = bpy.context.scene, bpy.context.scene.camera\n"
        "view = area_of('VIEW_3D').spaces.active.region_3d.view_matrix.inverted().translation\n"
        "scene.frame_set(1)\n"
        "first = camera.matrix_world.translation.copy()\n"
        "scene.frame_set(360)\n"
        "last = camera.matrix_world.translation.copy()\n"
        "scene.frame_set(1)\n"
        "answer = [(last - first).length, (last - view).length]"
    )
    assert moved > 1 and apart < 0.01
    desktop.photograph("flown.png")


def test_every_operator_in_a_second_window_that_shows_another_scene(desktop):
    """Each does its work or says in a sentence why not, and what the first window shows stays as it is."""
    state = "answer = import_module(f'{MODULE}.settings').record(bpy.data.scenes['Scene'].poseanything)"
    before = desktop.ask(state)
    ran, wrong = desktop.ask(
        "with bpy.context.temp_override(window=window()):\n"
        "    bpy.ops.wm.window_new_main()\n"
        "second = bpy.context.window_manager.windows[-1]\n"
        "second.scene = bpy.data.scenes.new('Second')\n"
        "area = max(second.screen.areas, key=lambda area: area.width * area.height)\n"
        "area.type = 'VIEW_3D'\n"
        "region = next(region for region in area.regions if region.type == 'WINDOW')\n"
        "ran, wrong = [], []\n"
        "for name in set(dir(bpy.ops.poseanything)) - {'example_shot', 'open_take', 'use_this_computer'}:\n"
        "    operator = getattr(bpy.ops.poseanything, name)\n"
        "    with bpy.context.temp_override(window=second, area=area, region=region):\n"
        "        if not operator.poll():\n"
        "            continue\n"
        "        try:\n"
        "            operator()\n"
        "        except RuntimeError as error:\n"
        "            if 'Traceback' in str(error):\n"
        "                wrong.append(str(error))\n"
        "        ran.append(name)\n"
        "answer = [ran, wrong]\n"
    )
    log = (desktop.folder / "blender.log").read_text()
    assert not wrong and "Traceback" not in log and len(ran) > 12, (ran, log[-2000:])
    desktop.photograph("two_windows.png")
    assert desktop.ask(state) == before
    desktop.ask(
        "bpy.ops.poseanything.cancel()\n"
        "with bpy.context.temp_override(window=bpy.context.window_manager.windows[-1]):\n"
        "    bpy.ops.wm.window_close()\n"
    )


def test_closing_in_the_middle(desktop):
    known = len(desktop.jobs())
    desktop.ask("with bpy.context.temp_override(window=window()): bpy.ops.poseanything.generate()")
    wait_for(lambda: desktop.jobs()[known]["frames"], 90)
    name = desktop.jobs()[known]["take"]
    frames = desktop.folder / "takes" / name
    (desktop.folder / "ask.py").write_text("bpy.ops.wm.quit_blender()")
    assert desktop.process.wait(60) == 0, (desktop.folder / "blender.log").read_text()[-2000:]
    kept = len(list(frames.glob(f"{name}_*.png")))
    time.sleep(1)
    assert 0 < kept == len(list(frames.glob(f"{name}_*.png"))) < 60
    assert "Traceback" not in (desktop.folder / "blender.log").read_text()
