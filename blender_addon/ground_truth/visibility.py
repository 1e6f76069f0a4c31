"""The scene as it renders, though Blender evaluates what the viewport shows: while an export lasts, what
renders is shown, and what does not render is left out frame by frame."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import bpy

from ..rig.animation import all_curves
from ..rig.skin import is_rendered
from ..rig.subjects import instanced_objects

DENSE = frozenset({"SUBSURF", "MULTIRES"})
"""Modifiers that only refine a surface: of a dense one the viewport's levels will do."""
CHEAP = 20_000
"""Faces that a surface is refined to whatever the viewport shows."""
CLEAR = 0.99
"""What lets through this fraction of the light does not show."""


@contextlib.contextmanager
def as_rendered(view_layer: bpy.types.ViewLayer) -> Iterator[list[bpy.types.Modifier]]:
    """Let the viewport show every object of a view layer that renders, and the modifiers that it renders
    with; all is put back at the end. Gives the modifiers that do not render in every frame: of each frame
    the viewport has to be told (`show_as_rendered`)."""
    keyed: list[bpy.types.Modifier] = []
    with contextlib.ExitStack() as restored:
        _simplify(restored, view_layer.id_data.render)
        _show_collections(restored, view_layer.layer_collection)
        for obj in view_layer.objects:
            if is_rendered(obj):
                if obj.hide_get(view_layer=view_layer):
                    obj.hide_set(False, view_layer=view_layer)
                    restored.callback(_put_back, obj.hide_set, True, view_layer=view_layer)
                keyed += _show(restored, obj)
        for obj in instanced_objects(view_layer.objects):
            if is_rendered(obj):
                keyed += _show(restored, obj)
        view_layer.update()
        yield keyed


def show_as_rendered(modifiers: list[bpy.types.Modifier]) -> bool:
    """Let the viewport show modifiers as this frame renders them; whether that changed any."""
    changed = [modifier for modifier in modifiers if modifier.show_viewport != modifier.show_render]
    for modifier in changed:
        modifier.show_viewport = modifier.show_render
    return bool(changed)


def is_enabled(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether an object takes part in the render of the frame that is evaluated."""
    evaluated = obj.evaluated_get(depsgraph)
    return evaluated.is_evaluated and not evaluated.hide_render


def is_shown(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether the camera sees an object in the frame that is evaluated; only its shadow or its reflection may
    be seen."""
    return is_enabled(obj, depsgraph) and meets_camera(obj.evaluated_get(depsgraph), depsgraph)


def meets_camera(evaluated: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether an evaluated object's rays may meet the camera, by its own settings and its collections'.
    Workbench knows neither."""
    if depsgraph.scene.render.engine == "BLENDER_WORKBENCH":
        return True
    return evaluated.visible_camera and not evaluated.original.indirect_only_get(
        view_layer=depsgraph.view_layer
    )


def is_hole(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether an object renders as a hole in the picture, by its own setting or its collections'. Workbench
    knows no holes."""
    if depsgraph.scene.render.engine == "BLENDER_WORKBENCH":
        return False
    return obj.is_holdout or obj.holdout_get(view_layer=depsgraph.view_layer)


def is_clear(material: bpy.types.Material | None, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether nothing of a surface shows that has a material, since all light goes through it in every frame.
    Workbench knows no such surface."""
    nodes = material.node_tree if material is not None else None
    if nodes is None or nodes.animation_data or depsgraph.scene.render.engine == "BLENDER_WORKBENCH":
        return False
    output = nodes.get_output_node("ALL")
    if output is None or not output.inputs["Surface"].is_linked:
        return False
    surface = output.inputs["Surface"].links[0].from_node
    if surface.type == "BSDF_TRANSPARENT":
        color = surface.inputs["Color"]
        return not color.is_linked and min(color.default_value[:3]) >= CLEAR
    alpha = surface.inputs["Alpha"] if surface.type == "BSDF_PRINCIPLED" else None
    return alpha is not None and not alpha.is_linked and alpha.default_value <= 1 - CLEAR


def _simplify(restored: contextlib.ExitStack, render: bpy.types.RenderSettings) -> None:
    """Let the viewport's limits be those of rendering; without Simplify there are none."""
    if render.use_simplify:
        _set(restored, render, "simplify_subdivision", render.simplify_subdivision_render)
        _set(restored, render, "simplify_child_particles", render.simplify_child_particles_render)


def _show_collections(restored: contextlib.ExitStack, layer: bpy.types.LayerCollection) -> None:
    if layer.exclude or layer.collection.hide_render:
        return
    _set(restored, layer, "hide_viewport", False)
    _set(restored, layer.collection, "hide_viewport", False)
    for child in layer.children:
        _show_collections(restored, child)


def _show(restored: contextlib.ExitStack, obj: bpy.types.Object) -> list[bpy.types.Modifier]:
    """Let the viewport show an object as it renders now. Gives its modifiers that do not always render."""
    paths = set()
    for curve in all_curves(obj):
        paths.add(curve.data_path)
        if curve.data_path == "hide_viewport" or curve.data_path.endswith(".show_viewport"):
            _set(restored, curve, "mute", True)
    _set(restored, obj, "hide_viewport", False)
    if obj.type == "META":  # drops are lost at a coarse resolution
        data = obj.data
        _set(restored, data, "resolution", max(data.render_resolution, data.resolution / 2))
    keyed = []
    for modifier in obj.modifiers:
        if modifier.type in DENSE:
            _refine(restored, obj, modifier)
            continue
        if f"{modifier.path_from_id()}.show_render" in paths:
            keyed.append(modifier)
            restored.callback(_put_back, setattr, modifier, "show_viewport", modifier.show_viewport)
        _set(restored, modifier, "show_viewport", modifier.show_render)
    return keyed


def _refine(restored: contextlib.ExitStack, obj: bpy.types.Object, modifier: bpy.types.Modifier) -> None:
    """Let a modifier refine a surface as rendering does, as far as that is cheap."""
    wanted = modifier.render_levels if modifier.show_render else 0
    faces = len(obj.data.polygons) if obj.type == "MESH" else CHEAP
    cheap = int(math.log(max(CHEAP / max(faces, 1), 1), 4))
    level = min(wanted, max(cheap, modifier.levels if modifier.show_viewport else 0))
    _set(restored, modifier, "levels", level)
    _set(restored, modifier, "show_viewport", level > 0)


def _put_back(change, *values, **keywords) -> None:
    with contextlib.suppress(ReferenceError):  # it was removed meanwhile
        change(*values, **keywords)


def _set(restored: contextlib.ExitStack, owner, name: str, value) -> None:
    before = getattr(owner, name)
    if before != value:
        restored.callback(_put_back, setattr, owner, name, before)
        setattr(owner, name, value)
