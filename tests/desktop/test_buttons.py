"""Every button that the extension draws, pressed with the mouse where it means something, and photographed.

A button that is drawn somewhere in the code and was never pressed makes this fail, unless it is named below
with the reason. The photographs and a sheet of all of them go to POSEANYTHING_DESKTOP_ALBUM, a folder of the
system's temporary one by default. Needs what `window.py` says.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.desktop.test_video import drag, write_video
from tests.desktop.walk import PRESSED, Walk, sites
from tests.desktop.window import HEIGHT, ROOT, inside, open_window, skip_without_window, wait_for


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    skip_without_window()
    folder = tmp_path_factory.mktemp("buttons")
    album = Path(os.environ.get("POSEANYTHING_DESKTOP_ALBUM", folder / "album"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with open_window(folder, address, "beside", POSEANYTHING_KEYS=str(inside(folder) / "keys")) as desktop:
        yield Walk(desktop, album, address, LEFT_OUT)
        desktop.ask("bpy.ops.poseanything.stop_server() if bpy.ops.poseanything.stop_server.poll() else None")


SETTINGS = "scene = bpy.context.scene\nsettings = scene.poseanything\n"
LEFT_OUT = {
    "poseanything.example_shot": "takes half a minute; test_first_use presses it",
    "poseanything.open_take": "opens another program",
    "wm.path_open": "opens another program; test_register_panels",
    "poseanything.cancel_search": "is there for less time than a hand needs",
    "poseanything.use_range": "needs a camera that cuts; test_request_review",
    "poseanything.draw_digits": "needs a hand; test_request_review",
}
"""What is not pressed, and why."""
PANELS = (
    "rig",
    "shot",
    "camera",
    "prompt",
    "engine",
    "output",
    "takes",
    "control",
    "server",
)
"""Whose photographs are taken in other looks, too."""
NARROWER = 70
"""Pixels that a narrow sidebar lacks."""
PREFERENCES = "preferences.addon_show"
MAIN, LIVE = "POSEANYTHING_PT_main", "POSEANYTHING_PT_live"
LIMBS = "for bone in bpy.data.armatures[0].bones:\n    bone.poseanything.limb = {!r}"
RUN = "with bpy.context.temp_override(window=window(), area=area_of({!r})):\n    {}\n"


def panel(name: str) -> str:
    """What the panel's draw functions begin with."""
    return f"POSEANYTHING_PT_{name}."


def look_into(walk: Walk, name: str, **options) -> None:
    """Press what is in a panel."""
    with walk.opened(name):
        walk.stop(name, panel(name), **options)


def wait_for_clips(walk: Walk, count: int) -> None:
    ended = ("DONE", "FAILED", "CANCELLED")
    wait_for(lambda: [job["state"] in ended for job in walk.desktop.jobs()] == [True] * count, 120)


def test_what_is_missing_at_first(walk):
    for title, broken, text in (
        ("no rig", "settings.subjects = 'COLLECTION'", "Use All Visible Armatures"),
        ("no camera", "scene.camera = None", "Add Camera"),
        (
            "no frames",
            "settings.use_custom_range, settings.frame_start, settings.frame_end = True, 9, 3",
            "Use the Scene's Range",
        ),
        ("no picture", "settings.first_frame_source = 'PICTURE'", "Render It Instead"),
        ("another first frame", "settings.first_frame_source = 'VIDEO'", "Render It Instead"),
    ):
        walk.cure(title, SETTINGS + broken, text)
    with walk.opened("shot", "prompt"):
        walk.stop("first look", MAIN, "VIEW3D_HT", panel("shot"), panel("prompt"))


def test_panels_that_need_no_server(walk):
    for name in ("rig", "camera", "output", "control"):
        look_into(walk, name)


def test_servers_that_do_not_answer(walk):
    prefs = "prefs = bpy.context.preferences.addons[MODULE].preferences\n"
    walk.desktop.ask(f"{prefs}before = prefs.address\nprefs.address = 'tcp://10.0.0.9:47800'")
    walk.cure("offline", "pass", "Allow Online Access")
    walk.cure(
        "offline still", "bpy.context.preferences.system.use_online_access = False", "Use This Computer"
    )
    walk.desktop.ask(f"{prefs}prefs.address = 'nonsense'")
    walk.stop("nonsense", MAIN)
    python = os.environ.get("POSEANYTHING_SERVER_PYTHON", sys.executable)
    walk.desktop.ask(
        f"{prefs}prefs.address = {walk.address!r}\n"
        f"prefs.server_folder, prefs.server_python = {str(ROOT)!r}, {python!r}\n"
        "prefs.autostart = False"
    )
    walk.cure("no server", "pass", "Start Server")
    wait_for(lambda: walk.connected(), 120)


def test_the_server(walk):
    look_into(walk, "server", leave={"poseanything.stop_server", PREFERENCES})
    wait_for(lambda: walk.connected(), 120)
    walk.cure("too long", SETTINGS + "scene.frame_end = 4000", "Use Step 4")
    walk.desktop.ask(SETTINGS + "scene.frame_end, settings.frame_step = 60, 1")


def test_engines(walk):
    walk.desktop.ask(SETTINGS + "settings.engine_name = 'poseanything'")
    with walk.opened("engine"):
        walk.stop("engine", panel("engine"))
        look_into(walk, "advanced")
    walk.cure("not ready", "pass", "Use the Best Available")


def test_shots(walk):
    """What the Shot panel shows by choice."""
    picture = str(inside(walk.desktop.folder / "now.ppm"))
    with walk.opened("shot"):
        for title, code in (
            ("range", "settings.use_custom_range, settings.frame_end, settings.pacing = True, 60, 'RATE'"),
            ("every n-th pose", "settings.pose_density = 'NTH'"),
            ("poses by hand", "settings.pose_density = 'HAND'"),
            ("picture", f"settings.first_frame_source, settings.first_frame_path = 'PICTURE', {picture!r}"),
        ):
            walk.desktop.ask(SETTINGS + code)
            walk.stop(title, panel("shot"))
    walk.desktop.ask(
        SETTINGS + "settings.use_custom_range, settings.pacing = False, 'STEP'\n"
        "settings.pose_density, settings.first_frame_source = 'ALL', 'RENDER'"
    )


def test_bones(walk):
    walk.desktop.ask(RUN.format("VIEW_3D", "bpy.ops.object.mode_set(mode='POSE')"))
    walk.desktop.ask("bpy.ops.pose.select_all(action='SELECT')")
    with walk.opened("rig"):
        look_into(walk, "bones")
    walk.desktop.ask(RUN.format("VIEW_3D", "bpy.ops.object.mode_set(mode='OBJECT')"))
    walk.desktop.ask(LIMBS.format("AUTO"))


def test_limbs_that_cannot_be_drawn(walk):
    edit_mode = RUN.format("VIEW_3D", "bpy.ops.object.mode_set(mode='EDIT')")
    walk.cure("edit mode", edit_mode, "Leave Edit Mode")
    walk.cure("no bone left", LIMBS.format("SKIP"), "Choose Bones Anew")


def test_a_look_that_does_not_suit(walk):
    walk.desktop.ask(SETTINGS + "settings.pose_look = 'TRAINED'")
    with walk.opened("rig"):
        walk.photograph("look that does not suit")
        drawn = walk.press_one("wm.context_set_enum", panel("rig"), text="Use What Suits")
    assert not any(one["text"] == "Use What Suits" for one in drawn)


def test_a_subject_that_is_small(walk):
    known = len(walk.desktop.jobs())
    walk.desktop.ask("bpy.context.scene.camera.location *= 20")
    walk.press_one("poseanything.generate", MAIN)
    wait_for_clips(walk, known + 1)
    walk.press_offered("Frame Subject")
    walk.press_one("poseanything.generate", MAIN)
    wait_for_clips(walk, known + 2)
    assert not any(one["text"] == "Frame Subject" for one in walk.drawn(MAIN))


def test_a_take_that_was_left(walk):
    """The server goes on with it, and it is fetched."""
    known = len(walk.desktop.jobs())
    walk.desktop.ask("bpy.context.scene.frame_end = 500")  # long enough to be left
    walk.press_one("poseanything.generate", MAIN)
    wait_for(lambda: len(walk.desktop.jobs()) > known, 60)
    walk.desktop.ask("import_module(f'{MODULE}.session').get().bridge.disconnect('Away.')")
    walk.photograph("left")
    walk.press_one("poseanything.fetch_unfinished", MAIN)
    wait_for(lambda: walk.desktop.jobs()[-1]["state"] == "DONE", 180)
    walk.desktop.ask("bpy.context.scene.frame_end = 60")


def test_takes(walk):
    known = len(walk.desktop.jobs())
    walk.desktop.ask("bpy.context.scene.frame_end = 500")  # long enough to be cancelled
    walk.press_one("poseanything.generate", MAIN)
    wait_for(lambda: len(walk.desktop.jobs()) > known, 60)
    walk.press_one("poseanything.cancel", MAIN)
    wait_for_clips(walk, known + 1)
    walk.desktop.ask("bpy.context.scene.frame_end = 60")
    for count in (known + 2, known + 3):
        walk.press_one("poseanything.generate", MAIN)
        wait_for_clips(walk, count)
    walk.stop("done", MAIN)
    with walk.opened("takes"):
        walk.desktop.ask("bpy.context.scene.poseanything_takes.index = 0")
        walk.stop("takes", panel("takes"))
        walk.desktop.ask("(folder / 'takes').rename(folder / 'moved')")
        walk.stop("takes that are gone", panel("takes"))
        walk.desktop.ask("(folder / 'moved').rename(folder / 'takes')")
    walk.stop("strip", panel("strip"))
    walk.desktop.ask(SETTINGS + "settings.use_custom_range, scene.frame_end = False, 60")


def test_live(walk):
    walk.desktop.ask("area_of('VIEW_3D').spaces.active.region_3d.view_perspective = 'CAMERA'")
    walk.press_one("poseanything.live", "VIEW3D_HT")
    live = "live = import_module(f'{MODULE}.live.view').get()\n"
    wait_for(lambda: walk.desktop.ask(f"{live}answer = bool(live.ready)"), 120)

    button, arrow = walk.find(LIVE, "VIEW3D_HT")
    walk.press(button, arrow, escape=False)

    def reopen():
        walk.escape()
        walk.click_at(*arrow)

    walk.stop("live", f"{LIVE}.", reopen=reopen)
    walk.escape()
    walk.press_one("poseanything.live", "VIEW3D_HT")


def test_video(walk):
    path = str(inside(write_video(walk.desktop.folder)))
    with walk.opened("video"):
        walk.stop("video", panel("video"))
        walk.desktop.ask(RUN.format("SEQUENCE_EDITOR", f"bpy.ops.poseanything.open_video(filepath={path!r})"))
        walk.stop("video that is open", panel("video"), leave={"poseanything.find_poses"})
        walk.press_one("poseanything.find_poses", panel("video"))
        found = "answer = bpy.context.scene.poseanything_video.poses is not None"
        wait_for(lambda: walk.desktop.ask(found), 120)
        walk.stop("poses that were found", panel("video"))
        walk.desktop.ask(SETTINGS + "settings.pose_source, settings.first_frame_source = 'RIG', 'RENDER'")


def test_other_looks(walk):
    """The whole sidebar in a light theme, narrow, and twice as large."""
    desktop, edge = walk.desktop, "next(each for each in area_of('VIEW_3D').regions if each.type == 'UI')"
    with walk.opened(*PANELS):
        desktop.ask(
            "folders = bpy.utils.preset_paths('interface_theme')\n"
            "light = next(file for folder in folders for file in Path(folder).rglob('*ight*.xml'))\n"
            "bpy.ops.script.execute_preset(\n"
            "    filepath=str(light), menu_idname='USERPREF_MT_interface_theme_presets'\n"
            ")"
        )
        walk.photograph_sidebar("light")
        desktop.ask("bpy.ops.preferences.reset_default_theme()")
        x, y = desktop.ask(f"region = {edge}\nanswer = [region.x, region.y + region.height // 2]")
        drag((x, HEIGHT - y), (x + 40, HEIGHT - y), (x + NARROWER, HEIGHT - y))
        walk.photograph_sidebar("narrow")
        drag((x + NARROWER, HEIGHT - y), (x + 40, HEIGHT - y), (x, HEIGHT - y))
        desktop.ask("bpy.context.preferences.view.ui_scale = 2.0")
        walk.photograph_sidebar("twice as large")
        desktop.ask("bpy.context.preferences.view.ui_scale = 1.0")


def test_menus(walk):
    """A right click on the rig and on time lines."""
    for kind, owner in (("VIEW_3D", "VIEW3D_MT"), ("DOPESHEET_EDITOR", "DOPESHEET_MT")):
        x, y = walk.desktop.ask(
            f"region = next(each for each in area_of({kind!r}).regions if each.type == 'WINDOW')\n"
            "answer = [region.x + region.width // 4, region.y + region.height // 2]"
        )

        def right_click(x=x, y=y):
            walk.escape()
            walk.click_at(x, HEIGHT - y, number=3)

        walk.stop(f"right click in {kind}", owner, reopen=right_click)
        walk.escape()


def test_preferences(walk):
    own = "BridgePreferences."
    with walk.opened("server"):
        walk.press_one(PREFERENCES, panel("server"))
        wait_for(lambda: walk.drawn(own), 30)
        walk.stop("preferences", own, leave={"poseanything.restart_server", "poseanything.stop_server"})
        walk.escape()
        walk.press_one("poseanything.stop_server", panel("server"))
        walk.stop("stopped", panel("server"), leave={PREFERENCES})


def test_a_server_that_fails(walk):
    """Its Python ends at once."""
    python = walk.desktop.folder / "python"
    python.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    python.chmod(0o755)
    walk.desktop.ask(
        "bpy.ops.poseanything.stop_server() if bpy.ops.poseanything.stop_server.poll() else None\n"
        f"bpy.context.preferences.addons[MODULE].preferences.server_python = {str(inside(python))!r}"
    )
    walk.press_offered("Start Server")
    walk.press_offered("Show Log")
    assert walk.desktop.ask("answer = any('broken' in text.as_string() for text in bpy.data.texts)")


def test_a_file_that_is_not_saved(walk):
    walk.desktop.ask("bpy.ops.wm.read_homefile(load_ui=False)")
    look_into(walk, "output")


def test_nothing_was_left_out(walk):
    """Last of all: what was said, what was never reached."""
    walk.check_reports()
    walk.write_sheet()
    assert not walk.wrong, "\n".join(walk.wrong)
    places = {tuple(site.rsplit(":", 1)) for site, *_ in walk.pressed}
    unreached = [
        f"{file}:{lines.start} {sorted(words)}"
        for file, lines, words in sites(walk.desktop.folder / "extension.zip", PRESSED)
        if not words & LEFT_OUT.keys() and not any((file, str(line)) in places for line in lines)
    ]
    ran = {what for _, what, _ in walk.pressed}
    unreached += [name for name in walk.recorder("operators()") if name not in ran | LEFT_OUT.keys()]
    assert unreached == [], "press it above, or say in LEFT_OUT why not"
