"""Runs inside the windowed Blender: installs the extension, lays out a scene, and does what the test outside
asks for.

    blender --python drive.py -- FOLDER EXTENSION_ZIP TOKEN [bare | fresh | beside]

Code dropped into FOLDER/ask.py is run by a timer, and what it assigns to `answer` is written to
FOLDER/answer.json; a function is called for it, once Blender has drawn what the code has changed. `bare`
leaves Blender's own scene as it is and opens the extension's tab, `fresh` does nothing but install the
extension, `beside` puts the sequencer beside the 3D view and not below it.
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
LISTENING = 0.01
"""Seconds between two looks for something that is asked."""
ROUNDS = 3
"""How often Blender goes through its loop, and draws in each, before it has drawn what code has changed."""
awaited = None
"""The function that gives the answer."""
rounds = 0
"""How often Blender has gone through its loop since it was asked."""


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
        seen = {"state": job.state, "frames": job.frames, "shown": shown, "sentence": job.sentence}
        result.append({"take": job.take.name, **seen})
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
    if token.startswith("tcp:"):
        bpy.context.preferences.addons[MODULE].preferences.address = token
    else:
        bpy.context.preferences.addons[MODULE].preferences.token = token


def put_human():
    """In place of all that is in the scene: Rigify's human metarig, animated, and a mesh bound to it."""
    import addon_utils
    import bmesh
    from mathutils import Matrix

    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    addon_utils.enable("rigify", default_set=False)
    with bpy.context.temp_override(window=window()):
        bpy.ops.object.armature_human_metarig_add()
        rig = bpy.context.object
    mesh, made = bmesh.new(), {}
    for bone in rig.data.bones:
        across = max(min(bone.length * 0.22, 0.12), 0.012)
        along = bone.tail_local - bone.head_local
        turn = along.to_track_quat("Z", "Y").to_matrix().to_4x4()
        placed = Matrix.Translation((bone.head_local + bone.tail_local) / 2) @ turn
        size = {"radius1": across, "radius2": across * 0.9, "depth": bone.length}
        made[bone.name] = bmesh.ops.create_cone(mesh, cap_ends=True, segments=12, matrix=placed, **size)[
            "verts"
        ]
    mesh.verts.index_update()
    bound = {name: [vertex.index for vertex in vertices] for name, vertices in made.items()}
    data = bpy.data.meshes.new("Body")
    mesh.to_mesh(data)
    mesh.free()
    body = bpy.data.objects.new("Body", data)
    bpy.context.scene.collection.objects.link(body)
    for name, vertices in bound.items():
        body.vertex_groups.new(name=name).add(vertices, 1.0, "REPLACE")
    body.modifiers.new("Armature", "ARMATURE").object = rig
    bpy.context.scene.render.engine = "BLENDER_WORKBENCH"  # the window may have no graphics card
    arm = rig.pose.bones["upper_arm.L"]
    arm.rotation_mode = "XYZ"
    for frame, angle in ((1, 0.0), (30, -1.2), (60, 0.0)):
        arm.rotation_euler.x = angle
        arm.keyframe_insert("rotation_euler", frame=frame)


def lay_out_fresh():
    install()
    (folder / "ready").touch()


def lay_out_bare():
    install()
    area_of("VIEW_3D").spaces.active.show_region_ui = True
    bpy.app.timers.register(open_tabs, first_interval=2.0)


def put_rig():
    """A bone that moves the cube, in a file that is saved."""
    scene = bpy.context.scene
    # Smooth edges cost software OpenGL a second of redraws for each change.
    bpy.context.preferences.system.viewport_aa = "OFF"
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


def put_sequencer(area):
    """Make an editor the sequencer, and open the sidebars with the panels."""
    area.ui_type = "SEQUENCE_EDITOR"
    area.spaces.active.view_type = "SEQUENCER_PREVIEW"
    area_of("VIEW_3D").spaces.active.show_region_ui = area.spaces.active.show_region_ui = True
    bpy.app.timers.register(open_tabs, first_interval=2.0)


def lay_out():
    install()
    put_rig()
    with bpy.context.temp_override(window=window(), area=area_of("VIEW_3D")):
        bpy.ops.screen.area_split(direction="HORIZONTAL", factor=0.45)
    put_sequencer(min((a for a in window().screen.areas if a.type == "VIEW_3D"), key=lambda a: a.y))


def lay_out_beside():
    install()
    put_rig()
    put_sequencer(area_of("PROPERTIES"))


def open_tabs():
    for kind in {area.type for area in window().screen.areas} & {"VIEW_3D", "SEQUENCE_EDITOR"}:
        next(r for r in area_of(kind).regions if r.type == "UI").active_panel_category = "PoseAnything"
    (folder / "ready").touch()


def listen():
    global awaited, rounds
    ask = folder / "ask.py"
    if awaited is None and not ask.exists():
        return LISTENING
    rounds = rounds + 1 if awaited is not None else 0
    if awaited is not None and rounds < ROUNDS:
        return 0.0
    try:
        answer = awaited() if awaited is not None else run(ask)
    except Exception:
        traceback.print_exc()
        answer = {"error": traceback.format_exc()}
    awaited = answer if callable(answer) else None
    if awaited is not None:
        return 0.0
    part = folder / "answer.part"
    part.write_text(json.dumps(answer))
    part.rename(folder / "answer.json")
    return LISTENING


def run(ask):
    code = ask.read_text()
    ask.unlink()
    names = dict(globals())
    exec(code, names)
    return names.get("answer")


bpy.context.preferences.view.show_splash = False
ways = {"bare": lay_out_bare, "fresh": lay_out_fresh, "beside": lay_out_beside}
first = ways.get(given[-1], lay_out)
bpy.app.timers.register(first, first_interval=1.0)
bpy.app.timers.register(listen, persistent=True)
