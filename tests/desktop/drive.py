"""Runs inside the windowed Blender: installs the extension, lays out a scene, and does what the test outside
asks for.

    blender --python drive.py -- FOLDER EXTENSION_ZIP TOKEN [bare]

Code dropped into FOLDER/ask.py is run by a timer, and what it assigns to `answer` is written to
FOLDER/answer.json. `bare` leaves Blender's own scene and window as they are.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path

import bpy

MODULE = "bl_ext.user_default.poseanything_bridge"
given = sys.argv[sys.argv.index("--") + 1 :]
folder, package, token = Path(given[0]), Path(given[1]), given[2]


def window():
    return bpy.context.window_manager.windows[0]


def area_of(kind):
    return max((a for a in window().screen.areas if a.type == kind), key=lambda a: a.width * a.height)


def sidebar_top(kind):
    """Window coordinates, y up, of the middle of the sidebar's upper edge."""
    region = next(r for r in area_of(kind).regions if r.type == "UI")
    return region.x + region.width / 2, region.y + region.height


def jobs():
    strips = import_module(f"{MODULE}.sequencer.strips")
    bridge = import_module(f"{MODULE}.session").get().bridge
    result = []
    for job in bridge.jobs.values():
        found = strips.find_strip(job.id)
        shown = len(found[1].elements) if found else None
        result.append({"state": job.state, "frames": job.frames, "shown": shown, "sentence": job.sentence})
    return result


def exporting():
    return import_module(f"{MODULE}.session").get().exporting is not None


def step():
    """What an operator is doing and how far it is."""
    exporting = import_module(f"{MODULE}.session").get().exporting
    return (exporting.text, exporting.fraction) if exporting is not None else ("", 0.0)


def install():
    with bpy.context.temp_override(window=window()):
        bpy.ops.extensions.package_install_files(
            filepath=str(package), repo="user_default", enable_on_install=True
        )
    bpy.context.preferences.addons[MODULE].preferences.token = token


def lay_out_bare():
    install()
    area_of("VIEW_3D").spaces.active.show_region_ui = True
    bpy.app.timers.register(open_tabs, first_interval=2.0)


def lay_out():
    scene = bpy.context.scene
    install()
    with bpy.context.temp_override(window=window()):
        cube = bpy.data.objects["Cube"]
        bpy.ops.object.armature_add()
        rig = bpy.context.object
        cube.modifiers.new("Armature", "ARMATURE").object = rig
        group = cube.vertex_groups.new(name=rig.data.bones[0].name)
        group.add(range(8), 1.0, "REPLACE")
        rig.keyframe_insert("location", frame=1)
        rig.location.x = 1
        rig.keyframe_insert("location", frame=60)
        scene.frame_end, scene.render.engine = 60, "BLENDER_WORKBENCH"
        scene.poseanything.long_side, scene.poseanything.show_limbs = 256, True
        bpy.ops.wm.save_as_mainfile(filepath=str(folder / "film.blend"))
        view = area_of("VIEW_3D")
        view.spaces.active.show_region_ui = True
        with bpy.context.temp_override(area=view):
            bpy.ops.screen.area_split(direction="HORIZONTAL", factor=0.45)
    lower = min((a for a in window().screen.areas if a.type == "VIEW_3D"), key=lambda a: a.y)
    lower.ui_type = "SEQUENCE_EDITOR"
    lower.spaces.active.view_type = "SEQUENCER_PREVIEW"
    lower.spaces.active.show_region_ui = True
    bpy.app.timers.register(open_tabs, first_interval=2.0)


def open_tabs():
    for kind in {area.type for area in window().screen.areas} & {"VIEW_3D", "SEQUENCE_EDITOR"}:
        next(r for r in area_of(kind).regions if r.type == "UI").active_panel_category = "PoseAnything"
    (folder / "ready").touch()


def listen():
    ask = folder / "ask.py"
    if ask.exists():
        code = ask.read_text()
        ask.unlink()
        names = dict(globals())
        try:
            exec(code, names)
        except Exception:
            traceback.print_exc()
            names["answer"] = {"error": traceback.format_exc()}
        part = folder / "answer.part"
        part.write_text(json.dumps(names.get("answer")))
        part.rename(folder / "answer.json")
    return 0.05


bpy.context.preferences.view.show_splash = False
bpy.app.timers.register(lay_out_bare if "bare" in given else lay_out, first_interval=1.0)
bpy.app.timers.register(listen, persistent=True)
