"""The scene as it renders, though Blender evaluates what the viewport shows: while an export lasts, what
renders is shown, and what does not render is left out frame by frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import bpy

from ..rig.animation import all_curves
from ..rig.skin import is_rendered

DENSE = frozenset({"SUBSURF", "MULTIRES"})
"""Modifiers that only refine a surface: the viewport's levels will do."""


@contextlib.contextmanager
def as_rendered(view_layer: bpy.types.ViewLayer) -> Iterator[None]:
    """Let the viewport show every object of a view layer that renders, and the modifiers that it renders
    with; all is put back at the end."""
    with contextlib.ExitStack() as restored:
        _show_collections(restored, view_layer.layer_collection)
        for obj in view_layer.objects:
            if is_rendered(obj):
                if obj.hide_get(view_layer=view_layer):
                    obj.hide_set(False, view_layer=view_layer)
                    restored.callback(_put_back, obj.hide_set, True, view_layer=view_layer)
                _show(restored, obj)
        for obj in _instanced(view_layer.objects):
            if is_rendered(obj):
                _show(restored, obj)
        view_layer.update()
        yield


def is_shown(obj: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bool:
    """Whether an object renders in the frame that is evaluated."""
    evaluated = obj.evaluated_get(depsgraph)
    return evaluated.is_evaluated and not evaluated.hide_render


def _show_collections(restored: contextlib.ExitStack, layer: bpy.types.LayerCollection) -> None:
    if layer.exclude or layer.collection.hide_render:
        return
    _set(restored, layer, "hide_viewport", False)
    _set(restored, layer.collection, "hide_viewport", False)
    for child in layer.children:
        _show_collections(restored, child)


def _show(restored: contextlib.ExitStack, obj: bpy.types.Object) -> None:
    for curve in all_curves(obj):
        if curve.data_path == "hide_viewport":
            _set(restored, curve, "mute", True)
    _set(restored, obj, "hide_viewport", False)
    for modifier in obj.modifiers:
        if modifier.type not in DENSE:
            _set(restored, modifier, "show_viewport", modifier.show_render)


def _instanced(objects) -> dict[bpy.types.Object, None]:
    """The objects in the collections that others instance, however deep."""
    found: dict[bpy.types.Object, None] = {}
    waiting = [obj for obj in objects if obj.instance_type == "COLLECTION" and obj.instance_collection]
    seen = set()
    while waiting:
        collection = waiting.pop().instance_collection
        if collection in seen:
            continue
        seen.add(collection)
        for obj in collection.all_objects:
            found[obj] = None
            if obj.instance_type == "COLLECTION" and obj.instance_collection is not None:
                waiting.append(obj)
    return found


def _put_back(change, *values, **keywords) -> None:
    with contextlib.suppress(ReferenceError):  # it was removed meanwhile
        change(*values, **keywords)


def _set(restored: contextlib.ExitStack, owner, name: str, value) -> None:
    before = getattr(owner, name)
    if before != value:
        restored.callback(_put_back, setattr, owner, name, before)
        setattr(owner, name, value)
