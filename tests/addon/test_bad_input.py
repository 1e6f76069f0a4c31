"""What the user can get wrong, or the world: one clear sentence, nothing lost, and the next try works."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import bpy
import pytest

from tests.addon.scenes import make_rig, newest_job, strip_of

WRONG_PICTURES = {
    "text.png": b"this is no picture",
    "empty.png": b"",
    "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
}


def refusal(**arguments) -> str:
    """Why Generate is refused."""
    with pytest.raises(RuntimeError) as error:
        bpy.ops.poseanything.generate(**arguments)
    sentence = str(error.value).removeprefix("Error: ").strip()
    assert "\n" not in sentence and "Traceback" not in sentence
    return sentence


def generates():
    """The same scene, after it was put right."""
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    assert newest_job().state == "DONE"


def test_no_armature(shot, served):
    served()
    bpy.data.objects.remove(bpy.data.objects["Rig"])
    assert "Add an armature" in refusal()
    make_rig()
    generates()


def test_no_camera(shot, served):
    served()
    camera, shot.camera = shot.camera, None
    assert "Add a camera to the scene, or choose the viewport as view" in refusal()
    shot.camera = camera
    generates()


def test_viewport_where_there_is_none(shot, served):
    shot.poseanything.view = "VIEWPORT"
    for area in bpy.context.screen.areas if bpy.context.screen else ():
        area.type = "TEXT_EDITOR"
    assert "Open a 3D view, or choose the camera as view" in refusal()


def test_empty_frame_range(shot, served):
    served()
    settings = shot.poseanything
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 10, 5
    assert "The frame range is empty: its end (5) comes before its start (10)" in refusal()
    settings.frame_end = 12
    generates()


@pytest.mark.parametrize("name", [*WRONG_PICTURES, "absent.png", ""])
def test_wrong_picture(shot, served, tmp_path, name):
    served()
    for file, content in WRONG_PICTURES.items():
        (tmp_path / file).write_bytes(content)
    settings = shot.poseanything
    settings.first_frame_source, settings.first_frame_path = "PICTURE", str(tmp_path / name) if name else ""
    sentence = refusal()
    assert "picture" in sentence.lower() and (not name or name in sentence)
    assert not (tmp_path / "takes").exists(), "no empty take is left behind"
    settings.first_frame_source = "RENDER"
    generates()


def test_too_many_frames(shot, served):
    served()
    settings = shot.poseanything
    settings.use_custom_range, settings.frame_end = True, 5000
    assert (
        refusal()
        == "The range has 5000 frames but Draft makes at most 1024; shorten the range or raise the step."
    )


def test_clip_too_large(shot, served):
    served()
    settings = shot.poseanything
    settings.long_side = 2048
    shot.render.resolution_x = shot.render.resolution_y = 2048
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 1, 1000
    assert "too large; choose a smaller size or fewer frames" in refusal()


def test_engine_that_is_not_ready(shot, served):
    served()
    generates()
    shot.poseanything.engine = "poseanything"
    assert refusal() == "PoseAnything can't run: Its weights are not here."
    shot.poseanything.engine = "AUTO"
    generates()


def test_file_not_saved(shot, served, addon):
    """Takes of a file that is nowhere yet go to the extension's own folder."""
    served()
    bpy.ops.wm.read_homefile(use_empty=True)
    make_rig()
    scene = bpy.context.scene
    scene.render.engine, scene.frame_end, scene.poseanything.long_side = "BLENDER_WORKBENCH", 5, 128
    bpy.ops.poseanything.frame_subject()
    generates()
    folder = newest_job().take.folder
    assert folder.parent == Path(bpy.utils.extension_path_user(addon.__name__, path="takes"))
    assert newest_job().take.frames_on_disk() == 5


def test_output_folder_that_can_not_be_written(shot, served, tmp_path):
    served()
    (tmp_path / "file").touch()
    shot.poseanything.output_folder = str(tmp_path / "file" / "takes")
    assert "can't be written to: Not a directory; choose another output folder." in refusal()
    shot.poseanything.output_folder = ""
    generates()


def test_no_server(shot, preferences, fake_server):
    address = preferences.address = fake_server()
    fake_server.kill()
    preferences.autostart = False
    assert refusal() == f"No server answers at {address}; start it in the Server panel."
    fake_server(address=address)
    generates()


def test_no_server_and_no_folder_to_start_one_from(shot, preferences):
    with socket.create_server(("127.0.0.1", 0)) as free:
        preferences.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    preferences.autostart = True
    assert "Set the Server Folder in the extension's preferences" in refusal()


def test_server_elsewhere_while_blender_is_offline(shot, preferences):
    preferences.address = "tcp://192.0.2.7:47847"
    system = bpy.context.preferences.system
    online = system.use_online_access
    system.use_online_access = False
    try:
        assert "Blender is set to stay offline; allow online access in Preferences > System" in refusal()
    finally:
        system.use_online_access = online


@pytest.mark.parametrize(
    "address", ["127.0.0.1:47847", "localhost", "tcp://127.0.0.1:port", "http://127.0.0.1:1", ""]
)
def test_address_that_is_none(shot, preferences, address):
    preferences.address = address
    assert "write it as tcp://127.0.0.1:47847" in refusal()


def test_server_of_another_release(shot, served, fake_server, preferences):
    served("other_version")
    assert "install the same release of the extension and of the server" in refusal()
    preferences.address = fake_server()
    generates()


def test_something_else_at_the_address(shot, served, fake_server, preferences):
    served("garbage")
    assert "is not a PoseAnything server; choose another address" in refusal()
    preferences.address = fake_server()
    generates()


@pytest.mark.any_blender
@pytest.mark.parametrize("behaviour", ["dies", "engine_fails", "skips_frames", "bad_frame", "ends_early"])
def test_clip_that_breaks_off(shot, served, fake_server, preferences, behaviour):
    """The frames that came are on disk and in the sequencer, and the next clip is whole."""
    served(behaviour)
    sentence = refusal(wait=True)
    broken = newest_job()
    kept = broken.take.frames_on_disk()
    assert kept in (3, 4) and len(strip_of(broken).elements) == kept
    assert broken.state == "FAILED" and broken.sentence == sentence
    preferences.address = fake_server()
    generates()
    assert newest_job().take.name != broken.take.name and broken.take.frames_on_disk() == kept


def test_disk_that_fills_up(shot, served, tmp_path):
    served()
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", disk], capture_output=True, timeout=240
    ).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        filler = disk / "filler"
        shot.poseanything.output_folder = str(disk / "takes")
        generates()
        room = os.statvfs(disk)
        filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - 24576))
        sentence = refusal(wait=True)
        assert "is full" in sentence or "No space left" in sentence
        filler.unlink()
        generates()
    finally:
        subprocess.run(["umount", disk], check=True, timeout=240)


def test_damaged_take(shot, served, tmp_path):
    with pytest.raises(RuntimeError, match="holds no take"):
        bpy.ops.poseanything.add_take(directory=str(tmp_path))
    (tmp_path / "take.json").write_text("{]")
    with pytest.raises(RuntimeError, match="can't be read"):
        bpy.ops.poseanything.add_take(directory=str(tmp_path))
