"""Which scene's sequencer takes go to.

Strips in the sequencer of the scene that is filmed are what F12 renders instead of that scene. Takes
therefore go to an edit scene, unless the user edits elsewhere or wants it otherwise.
"""

from __future__ import annotations

import bpy

from . import strips

NAME = "Shots"
MARK = "poseanything_edit_scene"
"""The custom property by which the edit scene is known under any name."""

AUTO, EDIT_SCENE, THIS_SCENE = "AUTO", "EDIT_SCENE", "SCENE"


def find_edit_scene() -> bpy.types.Scene | None:
    """The edit scene of this file, if there is one."""
    return next((scene for scene in bpy.data.scenes if MARK in scene and scene.library is None), None)


def uses_own_sequencer(context, choice: str) -> bool:
    """Whether takes of the context's scene go to its own sequencer, so that F12 renders them."""
    shown = strips.sequencer_scene(context)
    if shown != context.scene:
        return False
    used = MARK in shown or len(strips.all_strips(shown)) > 0
    return choice == THIS_SCENE or (choice == AUTO and used)


def target_scene(context, choice: str) -> bpy.types.Scene:
    """The scene that takes go to. The edit scene is made when it is wanted and not there; a workspace that
    shows no other sequencer is made to show the one that is chosen.

    choice: `AUTO` (the scene's own sequencer where it has strips, else the edit scene), `EDIT_SCENE` or
        `THIS_SCENE`.
    """
    shown = strips.sequencer_scene(context)
    if shown != context.scene:
        return shown
    chosen = (
        context.scene
        if uses_own_sequencer(context, choice)
        else find_edit_scene() or make_edit_scene(context.scene)
    )
    show(context, chosen)
    return chosen


def make_edit_scene(source: bpy.types.Scene) -> bpy.types.Scene:
    """An empty scene for editing, of the source's rate, size and range, which shows pictures unchanged."""
    scene = bpy.data.scenes.new(NAME)
    scene[MARK] = True
    for name in (
        "fps",
        "fps_base",
        "resolution_x",
        "resolution_y",
        "resolution_percentage",
        "pixel_aspect_x",
        "pixel_aspect_y",
    ):
        setattr(scene.render, name, getattr(source.render, name))
    scene.frame_start, scene.frame_end = source.frame_start, source.frame_end
    try:
        scene.view_settings.view_transform = "Standard"
    except TypeError:
        pass  # a studio's colour configuration without that name
    return scene


def show(context, scene: bpy.types.Scene) -> None:
    """Make the workspace's sequencer show a scene, where it can show another than the window's."""
    workspace = context.workspace
    if workspace is not None and hasattr(workspace, "sequencer_scene"):
        workspace.sequencer_scene = scene


def make_room(scene: bpy.types.Scene, start: int, end: int) -> None:
    """Lengthen the edit scene's range until it holds frames `start` to `end` - 1."""
    if MARK in scene:
        scene.frame_start, scene.frame_end = min(scene.frame_start, start), max(scene.frame_end, end - 1)
