"""Poses from a video in a real window: the subject is clicked on in the sequencer's preview, its skeleton
lies over the video, is moved by its handle, and drives a clip. Needs what `window.py` says."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import cv2
import pytest

from inference_server.broker.keys import KeyRing
from shared.keys import keys_folder
from tests.desktop.window import HEIGHT, Desktop, display, inside, open_window, skip_without_window, wait_for
from tests.server.client import ServerProcess
from tests.server.test_poses import walker

COUNT = 17
LAY_OUT = """
scene = bpy.context.scene
bpy.ops.wm.save_as_mainfile(filepath=str(folder / "film.blend"))
scene.poseanything.long_side = 256
with bpy.context.temp_override(window=window(), area=area_of("VIEW_3D")):
    bpy.ops.screen.area_split(direction="VERTICAL", factor=0.6)
area = min((a for a in window().screen.areas if a.type == "VIEW_3D"), key=lambda a: a.x)
area.ui_type = "SEQUENCE_EDITOR"
area.spaces.active.view_type = "SEQUENCER_PREVIEW"
with bpy.context.temp_override(window=window(), area=area):
    answer = list(bpy.ops.poseanything.open_video(filepath={path!r}))
"""
PREVIEW = """
area = area_of("SEQUENCE_EDITOR")
region = next(region for region in area.regions if region.type == "PREVIEW")
"""
CAMERA = """
area = area_of("VIEW_3D")
region = next(region for region in area.regions if region.type == "WINDOW")
"""


def write_video(folder: Path) -> Path:
    """Something that walks."""
    path, (pictures, _) = folder / "walk.avi", walker(COUNT)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 24, (2 * width, 2 * height))
    for picture in pictures:
        writer.write(cv2.resize(picture[..., ::-1], (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC))
    writer.release()
    return path


@pytest.fixture(scope="module")
def desktop(tmp_path_factory):
    """A window that is connected to the server itself, and a video of something that walks."""
    skip_without_window()
    folder = tmp_path_factory.mktemp("video")
    write_video(folder)
    with ServerProcess({"draft": "inference_server.engines.draft:DraftEngine"}) as server:
        token = str(KeyRing(keys_folder()).invite(uuid.uuid4().hex, server.address))
        keys = str(inside(Path(os.environ["POSEANYTHING_KEYS"])))
        with open_window(folder, token, "bare", POSEANYTHING_KEYS=keys) as window:
            yield window


def in_region(where: str, call: str) -> str:
    override = "with bpy.context.temp_override(window=window(), area=area, region=region):\n"
    return f"{where}{override}    answer = list({call})"


def to_screen(desktop: Desktop, code: str) -> tuple[int, int]:
    """Window coordinates, y down, of the place that code assigns to `answer`, y up."""
    x, y = desktop.ask(code)
    return int(x), int(HEIGHT - y)


def drag(begin: tuple[int, int], *along: tuple[int, int]) -> None:
    """As a hand does, which rests on what it takes."""
    steps = ["mousemove", str(begin[0] - 3), str(begin[1] - 3), "sleep", "0.8"]
    steps += ["mousemove", str(begin[0]), str(begin[1]), "sleep", "1", "mousedown", "1", "sleep", "0.5"]
    for x, y in along:
        steps += ["mousemove", str(x), str(y), "sleep", "0.6"]
    display("xdotool", *steps, "mouseup", "1", "sleep", "0.5")


def test_a_filmed_subject_drives_a_clip(desktop):
    path = str(inside(Path(desktop.folder / "walk.avi")))
    assert desktop.ask(LAY_OUT.format(path=path)) == ["FINISHED"]
    wait_for(lambda: desktop.ask(f"{PREVIEW}answer = min(region.width, region.height)") > 100, 30)
    video = "video = bpy.context.scene.poseanything_video\n"
    # The first frame fills the preview; a click beside it is answered with a word, one on the body is taken.
    desktop.ask(in_region(PREVIEW, "bpy.ops.poseanything.pick_subject('INVOKE_DEFAULT')"))
    corner = to_screen(desktop, f"{PREVIEW}answer = [region.x + 3, region.y + region.height / 2]")
    display("xdotool", "mousemove", *map(str, corner), "sleep", "0.5", "click", "1", "sleep", "0.5")
    assert desktop.ask(f"{video}answer = video.pick") == "NONE"
    body = to_screen(
        desktop,
        f"{PREVIEW}picking = import_module(f'{{MODULE}}.ui.picking')\n"
        "box = picking.picture_box((region.width, region.height), (320, 224))\n"
        "answer = [region.x + box[0] + (box[2] - box[0]) * 50 / 160,\n"
        "          region.y + box[3] - (box[3] - box[1]) * 40 / 112]",
    )
    display("xdotool", "mousemove", *map(str, body), "sleep", "0.5", "click", "1", "sleep", "0.5")
    wait_for(lambda: desktop.ask(f"{video}answer = video.pick") == "CLICK", 30)
    x, y = desktop.ask(f"{video}answer = list(video.place[:2])")
    assert (x, y) == (
        pytest.approx(50 / 160, abs=0.02),
        pytest.approx(40 / 112, abs=0.02),
    )

    desktop.ask(in_region(PREVIEW, "bpy.ops.poseanything.find_poses('INVOKE_DEFAULT')"))
    wait_for(lambda: desktop.ask(f"{video}answer = video.poses is not None"), 120)
    undo = "with bpy.context.temp_override(window=window()): bpy.ops.ed.{}()\n"
    there = f"{video}answer = video.poses is not None and video.pick == 'CLICK'"
    assert not desktop.ask(undo.format("undo") + there) and desktop.ask(undo.format("redo") + there)
    scrub = "bpy.context.workspace.sequencer_scene.frame_set(9); bpy.context.scene.frame_set(9)\n"
    shown = "bpy.context.scene.poseanything_shown.video_poses = {}\narea_of('SEQUENCE_EDITOR').tag_redraw()"
    photographs = []
    for value in (False, True):
        desktop.ask(scrub + shown.format(value))
        display("sleep", "1.5")
        photographs.append(cv2.imread(str(desktop.photograph(f"poses_{value}.png"))).astype(int))
    changed = (abs(photographs[0] - photographs[1]).max(axis=2) > 60).sum()
    assert changed > 300, "the skeleton lies over the video"

    # The handle in the subject's middle moves the poses, the one at its corner scales them.
    desktop.ask(
        f"{CAMERA}area.spaces.active.region_3d.view_perspective = 'CAMERA'\n"
        "area.spaces.active.show_region_ui = False\n"
        "bpy.context.scene.poseanything_shown.first_frame = True\n"
        "with bpy.context.temp_override(window=window(), area=area, region=region):\n"
        "    bpy.ops.view3d.view_center_camera()\n"
    )
    display("sleep", "1.5")
    handles = (
        f"{CAMERA}align = import_module(MODULE + '.ui.alignment')\n"
        "frame = align.frame\n"
        "with bpy.context.temp_override(window=window(), area=area, region=region,\n"
        "                               space_data=area.spaces.active):\n"
        "    placed = frame.clip_fit(bpy.context)\n"
        "    box = frame.box_of(bpy.context, placed)\n"
        "    left, bottom, right, top = align._subject(bpy.context.scene, placed)\n"
        "x, y = {}\n"
        "answer = [region.x + box[0] + x * (box[2] - box[0]), region.y + box[1] + y * (box[3] - box[1])]"
    )
    middle = to_screen(desktop, handles.format("(left + right) / 2, (bottom + top) / 2"))
    drag(middle, (middle[0] + 15, middle[1]), (middle[0] + 40, middle[1]))
    moved = desktop.ask(f"{video}answer = [video.scale, video.x, video.y]")
    assert moved[0] == 1 and moved[1] > 0.02 and moved[2] == pytest.approx(0, abs=0.01)
    corner = to_screen(desktop, handles.format("right, top"))
    drag(corner, (corner[0] + 10, corner[1] - 10), (corner[0] + 30, corner[1] - 25))
    assert desktop.ask(f"{video}answer = video.scale") > 1.1
    desktop.photograph("placed.png")

    desktop.ask(f"{video}video.scale, video.x, video.y = 1, 0, 0")
    desktop.ask(in_region(CAMERA, "bpy.ops.poseanything.generate('INVOKE_DEFAULT')"))
    wait_for(lambda: [job["state"] for job in desktop.jobs()] == ["DONE"], 120)
    assert desktop.jobs()[0]["shown"] == COUNT
