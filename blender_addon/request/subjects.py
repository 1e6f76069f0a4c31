"""Which armatures are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from ..rig.subjects import find_armatures, instances_collection
from ..texts import say


def find_subjects(context, settings) -> tuple[bpy.types.Object, ...]:
    """The armatures that the settings name, and the collection instances that bring one along; none when
    they name none."""
    there = context.view_layer.objects
    if settings.subjects == "COLLECTION":
        chosen = set(settings.collection.all_objects) if settings.collection is not None else set()
    elif settings.subjects == "VISIBLE":
        chosen = {obj for obj in there if obj.visible_get()}
    else:
        selected = list(there.selected)
        chosen = set(selected) | {obj.find_armature() for obj in selected} - {None}
    # Asked for in every redraw: of a scene of many objects only those that are chosen are looked at.
    places = {obj: there.find(obj.name) for obj in chosen if _brings_armature(obj)}
    found = sorted((obj for obj, place in places.items() if place >= 0), key=places.__getitem__)
    if not found and settings.subjects == "SELECTED":
        carriers = [obj for obj in there if _brings_armature(obj)]
        return tuple(carriers) if len(carriers) == 1 else ()
    return tuple(found)


def _brings_armature(obj: bpy.types.Object) -> bool:
    return obj.type == "ARMATURE" or (instances_collection(obj) and any(find_armatures([obj])))


def why_none(context, settings) -> str:
    """What stands in the way where `find_subjects` finds none, in a few words."""
    if settings.subjects == "COLLECTION":
        return say("Put an armature into the collection")
    layer = context.view_layer
    if any(_brings_armature(obj) for obj in layer.objects):
        return say("Select an armature")
    excluded = {}
    for collection in _excluded(layer.layer_collection):
        for obj in collection.all_objects:
            if obj.name not in layer.objects:
                excluded |= {armature: collection for armature, _ in find_armatures([obj])}
    if not excluded:
        return say("Add an armature to the scene")
    rig, collection = next(iter(excluded.items()))
    return say(
        "The armature {rig} lies in the collection {collection}, which is excluded from the view "
        "layer {layer}; include it or use another view layer",
        rig=rig.name,
        collection=collection.name,
        layer=layer.name,
    )


def _excluded(layer: bpy.types.LayerCollection) -> Iterator[bpy.types.Collection]:
    for child in layer.children:
        if child.exclude:
            yield child.collection
        yield from _excluded(child)
