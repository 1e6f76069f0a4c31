"""Every button that the extension draws, pressed with the mouse where it means something, and photographed.

A button that is drawn somewhere in the code and was never pressed makes this fail, unless it is named below
with the reason. The photographs and a sheet of all of them go to POSEANYTHING_DESKTOP_ALBUM, a folder of the
system's temporary one by default. Needs what `window.py` says.
"""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from tests.desktop.test_video import drag, write_video
from tests.desktop.walk import PRESSED, Walk, sites
from tests.desktop.window import HEIGHT, ROOT, inside, open_window, skip_without_window, wait_for


@pytest.fixture(scope="module")
def whole_walk(tmp_path_factory):
    """All parts, in one window."""
    skip_without_window()
    folder = tmp_path_factory.mktemp("buttons")
    album = Path(os.environ.get("POSEANYTHING_DESKTOP_ALBUM", folder / "album"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    python = os.environ.get("POSEANYTHING_SERVER_PYTHON", sys.executable)
    with open_window(folder, address, "beside", POSEANYTHING_KEYS=str(inside(folder) / "keys")) as desktop:
        walk = Walk(desktop, album, (address, str(ROOT), python), LEFT_OUT)
        walk.begin()
        yield walk
        walk.stop_server()


@pytest.fixture
def walk(whole_walk):
    """A part of the walk, which begins with all as it was at first."""
    whole_walk.reset()
    yield whole_walk
    whole_walk.check()


@pytest.fixture
def served(walk):
    """A part of the walk that has a server."""
    walk.serve()
    return walk


BRIDGE = "bridge = import_module(f'{MODULE}.session').get().bridge\n"
PREFS = "prefs = bpy.context.preferences.addons[MODULE].preferences\n"
SETTINGS = "scene = bpy.context.scene\nsettings = scene.poseanything\n"
MODEL = (
    SETTINGS + "settings.engine_name = 'poseanything'\n"
    "engine_settings = import_module(f'{MODULE}.engine_settings')\n"
    "group = engine_settings.group_of(scene, 'poseanything')\n"
)
LEFT_OUT = {
    "poseanything.example_shot": "takes half a minute; test_first_use presses it",
    "poseanything.cancel_search": "is there for less time than a hand needs",
    "poseanything.draw_digits": "needs a hand; test_rig_evidence",
    "poseanything.override_armature": "needs a linked rig; test_operators_refusal",
    "poseanything.add_strength": "needs a LoRA beside the weights; test_engine_settings",
    "poseanything.remove_strength": "needs a LoRA beside the weights; test_engine_settings",
    "strength": "needs a LoRA beside the weights; test_engine_settings",
    "poseanything.cancel_weights": "stops what fetches 26 GB; test_connection_weights",
}
"""What is not pressed, and why."""
ELSEWHERE = {
    ("ui/menus.py", "The Scene, at the Playhead"): "no time line of a sequencer has room beside the sidebars",
    ("ui/menus.py", "poseanything.place_take"): "the same; the Takes panel has it, too",
    (
        "ui/live.py",
        "poseanything.refresh_live",
    ): "in the header only while the first frame is stale; test_live",
    (
        "ui/preferences.py",
        "output_folder",
    ): "below the edge of the preferences' window; as in the Output panel",
    ("ui/preferences.py", "token"): "a click shows a cursor alone in it",
    ("ui/takes.py", "wipe"): "a slider that is full does not show the color of errors; test_choosing_takes",
    ("ui/engine.py", "STOP"): "a slider that is full does not show the color of errors",
    ("ui/panels.py", "pose_source"): "the Rig panel's, while the Video panel has the same",
}
"""Places in the code whose buttons are pressed elsewhere or not at all, by a word in them, and why."""
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
STRIP = (
    "strips = import_module(f'{MODULE}.sequencer.strips')\n"
    "strip = strips.active_take_strip(bpy.context.workspace.sequencer_scene)\n"
)
SEEDED = (
    "from dataclasses import replace\n"
    "generate = import_module(f'{MODULE}.operators.generate')\n"
    "generate.before = usable = generate.usable_engine\n"
    "generate.usable_engine = lambda name: replace(usable(name), uses_seed=True)\n"
)
"""Has the draft take a seed, of which it makes nothing."""
UNSEEDED = (
    "generate = import_module(f'{MODULE}.operators.generate')\ngenerate.usable_engine = generate.before\n"
)
LIMBS = "for bone in bpy.data.armatures[0].bones:\n    bone.poseanything.limb = {!r}"
RUN = "with bpy.context.temp_override(window=window(), area=area_of({!r})):\n    {}\n"


def panel(name: str) -> str:
    """What the panel's draw functions begin with."""
    return f"POSEANYTHING_PT_{name}."


def look_into(walk: Walk, name: str, **options) -> None:
    """Press what is in a panel."""
    walk.open(name)
    walk.stop(name, panel(name), **options)


def popover_of(walk: Walk, name: str, owner: str) -> Callable[[], None]:
    """What opens a popover anew, by the button that a class draws."""
    _, place = walk.find(name, owner)

    def reopen():
        walk.escape()
        walk.click_at(*place)

    return reopen


def wait_for_clips(walk: Walk, count: int) -> None:
    ended = ("DONE", "FAILED", "CANCELLED")
    wait_for(lambda: [job["state"] in ended for job in walk.desktop.jobs()] == [True] * count, 120)


def make_clips(walk: Walk, count: int) -> None:
    known = len(walk.desktop.jobs())
    for made in range(known + 1, known + count + 1):
        walk.press_one("poseanything.generate", MAIN)
        wait_for_clips(walk, made)


def make_long(walk: Walk) -> None:
    """Have a clip take about a minute, long enough to be met before its end."""
    walk.desktop.ask(SETTINGS + "scene.frame_end, settings.long_side = 900, 832")


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


def test_the_first_look(walk):
    walk.open("shot", "prompt")
    walk.stop("first look", MAIN, "VIEW3D_HT", panel("shot"), panel("prompt"))


@pytest.mark.parametrize("name", ["rig", "camera", "output", "control"])
def test_a_panel_that_needs_no_server(walk, name):
    look_into(walk, name)


def test_a_view_without_perspective(walk):
    walk.desktop.ask("area_of('VIEW_3D').spaces.active.region_3d.view_perspective = 'ORTHO'")
    walk.open("camera")
    walk.press_one("poseanything.record_camera", panel("camera"))
    walk.press_offered("Use Perspective")
    assert walk.desktop.ask("answer = area_of('VIEW_3D').spaces.active.region_3d.is_perspective")


def test_presets(walk):
    """What is in the presets' popovers."""
    walk.open("control")
    for name, owner in (("presets", MAIN), ("control_presets", panel("control"))):
        popover = f"POSEANYTHING_PT_{name}"
        walk.stop(name, f"{popover}.", reopen=popover_of(walk, popover, owner))
        walk.escape()


def test_subjects_by_choice(walk):
    walk.open("rig")
    walk.desktop.ask(SETTINGS + "settings.subjects = 'COLLECTION'")
    walk.stop("collection", panel("rig"))


def test_a_port_that_is_taken(walk):
    """By a program that says nothing: the server is started at another one."""
    walk.stop_server()
    with socket.create_server(("127.0.0.1", int(walk.where[0].rpartition(":")[2]))):
        walk.desktop.ask(f"{PREFS}prefs.autostart = False")
        walk.press_offered("Start Server")
        walk.press_offered("Use Another Port")
        wait_for(walk.connected, 120)
    assert walk.desktop.ask(f"{PREFS}answer = prefs.address") != walk.where[0]


class Stranger(socketserver.BaseRequestHandler):
    """Speaks as a web server does."""

    def handle(self):
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class StrangeServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


def test_a_port_that_a_stranger_has(walk):
    """By a program that answers: that is said before anybody presses."""
    walk.stop_server()
    port = int(walk.where[0].rpartition(":")[2])
    with StrangeServer(("127.0.0.1", port), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        walk.open("server")
        walk.offered("Use Another Port")
        walk.photograph("a stranger")
        walk.press_one("poseanything.use_other_port", panel("server"))
        wait_for(walk.connected, 120)
        stranger.shutdown()


def test_folders_that_are_missing(served):
    nowhere = served.desktop.folder / "file"
    nowhere.touch()
    served.desktop.ask(SETTINGS + f"settings.output_folder = {str(inside(nowhere))!r}")
    served.press_one("poseanything.generate", MAIN)
    served.offered("Choose Output Folder")
    served.stop("no output folder", MAIN)
    served.stop_server()
    served.desktop.ask(f"{PREFS}prefs.server_folder = ''")
    served.offered("Choose Server Folder")
    served.stop("no server folder", MAIN)


def test_servers_that_do_not_answer(walk):
    walk.stop_server()
    walk.desktop.ask(f"{PREFS}prefs.address = 'tcp://10.0.0.9:47800'")
    walk.cure("offline", "pass", "Allow Online Access")
    walk.cure(
        "offline still", "bpy.context.preferences.system.use_online_access = False", "Use This Computer"
    )
    walk.desktop.ask(f"{PREFS}prefs.address = 'nonsense'")
    walk.stop("nonsense", MAIN)
    walk.desktop.ask(f"{PREFS}prefs.address, prefs.autostart = {walk.where[0]!r}, False")
    walk.cure("no server", "pass", "Start Server")
    wait_for(walk.connected, 120)


def test_the_server(served):
    restart = "poseanything.restart_server"
    look_into(served, "server", leave={"poseanything.stop_server", restart, PREFERENCES})
    served.press_one(restart, panel("server"))
    wait_for(served.connected, 120)
    served.cure("too long", SETTINGS + "scene.frame_end = 4000", "Use Step 4")


def test_engines(served):
    served.desktop.ask(MODEL)
    look_into(served, "engine")
    look_into(served, "advanced")
    served.cure("not ready", "pass", "Use the Best Available")


def test_guidance(served):
    """What an engine's guidance adds to the panels."""
    served.desktop.ask(f"{MODEL}group.guider, settings.pose_density = 'classifier_free', 'NTH'")
    look_into(served, "engine", leave={"POSEANYTHING_PG_poseanything.guidance_stop"})
    served.turn("engine", False)
    look_into(served, "shot")
    by_number = "engine_settings.parameter_property('classifier_free', 'scale_by_density')"
    served.desktop.ask(f"{MODEL}setattr(group, {by_number}, False)")
    served.stop("strength by hand", panel("shot"))
    served.turn("shot", False)
    look_into(served, "camera")
    served.desktop.ask(
        f"{MODEL}group.guider = 'subject_camera'\n"
        "settings.camera_source, scene.poseanything_shown.rectangle = 'MOVE', True"
    )
    served.stop("camera move", panel("camera"))
    served.desktop.ask(SETTINGS + "settings.camera_source = 'SCENE'")
    served.stop("camera's rectangle", panel("camera"))


def test_weights(served):
    """The dialog that asks before they are fetched."""
    served.desktop.ask(f"{MODEL}bpy.context.preferences.system.use_online_access = True")
    try:
        served.offered("Get the Weights")
        served.stop("weights", MAIN)
    finally:
        served.desktop.ask("bpy.context.preferences.system.use_online_access = False")


def test_shots(walk):
    """What the Shot panel shows by choice."""
    picture = str(inside(walk.desktop.photograph("picture.png")))
    walk.open("shot")
    for title, code in (
        ("range", "settings.use_custom_range, settings.frame_end, settings.pacing = True, 60, 'RATE'"),
        ("every n-th pose", "settings.pose_density = 'NTH'"),
        ("poses by hand", "settings.pose_density = 'HAND'"),
        ("picture", f"settings.first_frame_source, settings.first_frame_path = 'PICTURE', {picture!r}"),
    ):
        walk.desktop.ask(SETTINGS + code)
        walk.stop(title, panel("shot"))


def test_bones(walk):
    walk.desktop.ask(RUN.format("VIEW_3D", "bpy.ops.object.mode_set(mode='POSE')"))
    walk.desktop.ask("bpy.ops.pose.select_all(action='SELECT')")
    walk.open("rig")
    look_into(walk, "bones")


def test_limbs_that_cannot_be_drawn(walk):
    edit_mode = RUN.format("VIEW_3D", "bpy.ops.object.mode_set(mode='EDIT')")
    walk.cure("edit mode", edit_mode, "Leave Edit Mode")
    walk.cure("no bone left", LIMBS.format("SKIP"), "Choose Bones Anew")


def test_a_look_that_does_not_suit(served):
    served.desktop.ask(SETTINGS + "settings.pose_look = 'TRAINED'")
    served.open("rig")
    served.photograph("look that does not suit")
    drawn = served.press_one("wm.context_set_enum", panel("rig"), text="Use What Suits")
    assert not any(one["text"] == "Use What Suits" for one in drawn)


def test_a_subject_that_is_small(served):
    served.desktop.ask("bpy.context.scene.camera.location *= 20")
    make_clips(served, 1)
    served.press_offered("Frame Subject")
    make_clips(served, 1)
    assert not any(one["text"] == "Frame Subject" for one in served.drawn(MAIN))


def test_a_camera_that_jumps(served):
    served.desktop.ask(
        "from mathutils import Vector\n"
        "camera = bpy.context.scene.camera\n"
        "camera.keyframe_insert('location', frame=30)\n"
        "camera.location += camera.matrix_world.to_3x3() @ Vector((2.5, 0, 0))\n"
        "camera.keyframe_insert('location', frame=31)"
    )
    make_clips(served, 1)
    served.press_offered("Use 1 to 30")
    assert served.desktop.ask(SETTINGS + "answer = [settings.use_custom_range, settings.frame_end]") == [
        True,
        30,
    ]


def test_a_take_that_was_left(served):
    """The server goes on with it, and it is fetched."""
    make_long(served)
    served.open("takes")
    served.press_one("poseanything.generate", MAIN)
    wait_for(lambda: [job["state"] for job in served.desktop.jobs()] == ["RUNNING"], 60)
    served.desktop.ask(f"{BRIDGE}bridge.disconnect('Away.')")
    served.photograph("left")
    served.press_one("poseanything.fetch_unfinished", MAIN)
    wait_for(lambda: served.desktop.jobs()[-1]["state"] == "RUNNING", 60)
    served.desktop.ask(f"{BRIDGE}bridge.disconnect('Away.')\nbridge.jobs.clear()")
    served.press_one("poseanything.fetch_unfinished", panel("takes"))
    wait_for(lambda: served.desktop.jobs()[-1]["frames"], 60)


def test_a_take_that_failed(served):
    fail = f"{BRIDGE}job = [*bridge.jobs.values()][-1]\njob.state, job.sentence = 'FAILED', 'Broken.'"
    make_clips(served, 1)
    served.desktop.ask(fail)
    served.press_one("poseanything.show_server_log", MAIN)  # before Try Again, after which it is gone
    served.stop("failed", MAIN)
    served.stop_server()
    wait_for(lambda: not served.connected(), 30)
    served.desktop.ask(fail)
    served.photograph("failed, and no server")
    served.press_one("poseanything.start_server", MAIN)
    wait_for(served.connected, 120)


def test_strips_in_the_scene_s_own_sequencer(served):
    served.desktop.ask(
        SETTINGS + "settings.strips_go_to, scene.view_settings.view_transform = 'SCENE', 'AgX'"
    )
    make_clips(served, 1)
    served.stop("in the scene", MAIN)


def test_a_take_that_is_cancelled(served):
    make_long(served)
    served.press_one("poseanything.generate", MAIN)
    wait_for(
        lambda: [job for job in served.desktop.jobs() if job["frames"]], 60
    )  # its panel stands still then
    served.press_one("poseanything.cancel", MAIN)
    wait_for_clips(served, 1)


def test_takes(served):
    make_clips(served, 2)
    served.stop("done", MAIN)
    served.open("takes")
    chosen = "kept = bpy.context.scene.poseanything_takes\nkept.index, kept.other = 0, kept.items[1].name\n"
    served.desktop.ask(chosen)
    for what in ("poseanything.switch_take", "poseanything.solo_take"):
        served.press_one(what, panel("takes"))
    seeded = f"{chosen}item = kept.items[0]\nitem.neural, item.seed = True, '5'\n"
    served.desktop.ask(f"{seeded}{SEEDED}")
    served.press_one("poseanything.new_seeds", panel("takes"))
    wait_for_clips(served, 3)
    served.desktop.ask(f"{seeded}{UNSEEDED}")
    served.stop("takes", panel("takes"), leave={"PoseAnythingTakeList.wipe"})
    served.stop("strip", panel("strip"))
    served.desktop.ask(f"{STRIP}strip[strips.TAKE] = 'nonsense'")
    served.stop("strip that can't be read", panel("strip"))
    takes, elsewhere = served.desktop.folder / "takes", served.desktop.folder / "moved"
    takes.rename(elsewhere)
    try:
        served.stop("takes that are gone", panel("takes"))
    finally:
        elsewhere.rename(takes)


def test_live(served):
    served.desktop.ask("area_of('VIEW_3D').spaces.active.region_3d.view_perspective = 'CAMERA'")
    picture = str(inside(served.desktop.photograph("picture.png")))
    served.desktop.ask(  # before, else Refresh comes into the header and closes the popover
        f"{SETTINGS}settings.first_frame_source, settings.first_frame_path = 'PICTURE', {picture!r}\n"
        "scene.poseanything_shown.first_frame = scene.poseanything_shown.onion = True"
    )
    served.press_one("poseanything.live", "VIEW3D_HT")
    live = "live = import_module(f'{MODULE}.live.view').get()\n"
    wait_for(lambda: served.desktop.ask(f"{live}answer = bool(live.ready)"), 120)
    served.stop("live", f"{LIVE}.", reopen=popover_of(served, LIVE, MAIN))
    served.escape()
    served.press_one("poseanything.live", "VIEW3D_HT")


def test_video(served):
    film, walking = write_video(served.desktop.folder), served.desktop.folder / "walking.png"
    cv2.imwrite(str(walking), cv2.VideoCapture(str(film)).read()[1])
    path, picture = str(inside(film)), str(inside(walking))
    served.open("video")
    served.stop("video", panel("video"))
    served.desktop.ask(RUN.format("SEQUENCE_EDITOR", f"bpy.ops.poseanything.open_video(filepath={path!r})"))
    served.stop("video that is open", panel("video"), leave={"poseanything.find_poses"})
    served.press_one("poseanything.find_poses", panel("video"))
    found = "answer = bpy.context.scene.poseanything_video.poses is not None"
    wait_for(lambda: served.desktop.ask(found), 120)
    forget = "poseanything.forget_poses"
    served.desktop.ask(
        f"{SETTINGS}video = scene.poseanything_video\n"
        f"settings.first_frame_source, settings.first_frame_path = 'PICTURE', {picture!r}\n"
        "video.picture_pick, video.picture_place = 'CLICK', (0.31, 0.36, 0, 0)"
    )
    served.open("shot")
    served.press_one("poseanything.find_subject", panel("shot"))
    found = "answer = bpy.context.scene.poseanything_video.mask is not None"
    wait_for(lambda: served.desktop.ask(found), 120)
    served.stop("poses that were found", panel("video"), leave={forget})
    served.press_one(forget, panel("video"))
    served.press_one(forget, panel("shot"))


def test_other_looks(walk):
    """The whole sidebar in a light theme, narrow, and twice as large."""
    desktop, edge = walk.desktop, "next(each for each in area_of('VIEW_3D').regions if each.type == 'UI')"
    walk.open(*PANELS)
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


@pytest.mark.parametrize(
    "kind, owner", [("VIEW_3D", "VIEW3D_MT"), ("DOPESHEET_EDITOR", "DOPESHEET_MT")], ids=str.lower
)
def test_a_right_click(walk, kind, owner):
    """On the rig and on a time line."""
    x, y = walk.desktop.ask(
        f"region = next(each for each in area_of({kind!r}).regions if each.type == 'WINDOW')\n"
        "answer = [region.x + region.width // 4, region.y + region.height // 2]"
    )

    def right_click():
        walk.escape()
        walk.click_at(x, HEIGHT - y, number=3)

    walk.stop(f"right click in {kind}", owner, reopen=right_click)
    walk.escape()


def test_generate_from_a_time_line(served):
    """The menu within the right click's."""
    x, y = served.desktop.ask(
        "region = next(each for each in area_of('DOPESHEET_EDITOR').regions if each.type == 'WINDOW')\n"
        "answer = [region.x + region.width // 4, region.y + region.height // 2]"
    )
    menu = "POSEANYTHING_MT_generate_range"

    def reopen():
        served.escape()
        served.click_at(x, HEIGHT - y, number=3)
        _, place = served.find(menu)
        served.click_at(*place)

    served.stop("range", f"{menu}.", reopen=reopen)
    served.escape()


def test_preferences(served):
    own = "BridgePreferences."
    served.open("server")

    def reopen():
        if not served.drawn(own):
            served.press_one(PREFERENCES, panel("server"))
            wait_for(lambda: served.drawn(own), 30)

    below_the_edge = {"BridgePreferences.output_folder", "wm.url_open", "wm.context_set_boolean"}
    out_of_reach = {"BridgePreferences.token", *below_the_edge}
    leave = {"poseanything.restart_server", "poseanything.stop_server", *out_of_reach}
    served.stop("preferences", own, leave=leave, reopen=reopen)
    served.escape()
    served.press_one("poseanything.stop_server", panel("server"))
    served.stop("stopped", panel("server"), leave={PREFERENCES})


def test_a_server_that_fails(walk):
    """Its Python ends at once."""
    walk.stop_server()
    python = walk.desktop.folder / "python"
    python.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    python.chmod(0o755)
    walk.desktop.ask(f"{PREFS}prefs.autostart, prefs.server_python = False, {str(inside(python))!r}")
    walk.press_offered("Start Server")
    walk.press_offered("Show Log")
    walk.open("server")
    walk.press_one("poseanything.show_server_log", panel("server"))
    assert walk.desktop.ask("answer = any('broken' in text.as_string() for text in bpy.data.texts)")


def test_a_file_that_a_script_opens(walk):
    """In a timer, and the extension's own comes next, before Blender has a window again."""
    walk.desktop.ask(
        "bpy.ops.wm.open_mainfile(filepath=str(folder / 'film.blend'))\n"
        "assert bpy.context.window is None\n"
        "import_module(f'{MODULE}.ui.refresh').redraw()"
    )
    assert walk.desktop.ask("answer = bpy.data.is_saved")


def test_a_file_that_is_not_saved(walk):
    walk.desktop.ask("bpy.ops.wm.read_homefile(load_ui=False)")
    look_into(walk, "output")


def test_nothing_was_left_out(walk):
    """Last of all: what was never reached."""
    walk.write_sheet()
    places = {tuple(site.rsplit(":", 1)) for site, *_ in walk.pressed}
    unreached = [
        f"{file}:{lines.start} {sorted(words)}"
        for file, lines, words in sites(walk.desktop.folder / "extension.zip", PRESSED)
        if not words & LEFT_OUT.keys()
        and not any((file, word) in ELSEWHERE for word in words)
        and not any((file, str(line)) in places for line in lines)
    ]
    ran = {what for _, what, _ in walk.pressed}
    unreached += [name for name in walk.recorder("operators()") if name not in ran | LEFT_OUT.keys()]
    assert not unreached, "\n".join(["press it above, or say in LEFT_OUT why not:", *unreached])
