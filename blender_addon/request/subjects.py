"""Which armatures are drawn."""

from __future__ import annotations

import bpy


def find_subjects(context, settings) -> tuple[bpy.types.Object, ...]:
    """The armatures that the settings name, and the collection instances that bring one along; none when
    they name none."""
    if settings.subjects == "COLLECTION":
        chosen = set(settings.collection.all_objects) if settings.collection is not None else set()
    elif settings.subjects == "VISIBLE":
        chosen = {obj for obj in context.view_layer.objects if obj.visible_get()}
    else:
        selected = list(context.view_layer.objects.selected)
        chosen = set(selected) | {obj.find_armature() for obj in selected if obj.type == "MESH"}
    carriers = [obj for obj in context.view_layer.objects if _brings_armature(obj)]
    found = tuple(obj for obj in carriers if obj in chosen)
    if not found and settings.subjects == "SELECTED" and len(carriers) == 1:
        return tuple(carriers)
    return found


def _brings_armature(obj: bpy.types.Object) -> bool:
    if obj.type == "ARMATURE":
        return True
    if obj.instance_type != "COLLECTION" or obj.instance_collection is None:
        return False
    return any(inner.type == "ARMATURE" for inner in obj.instance_collection.all_objects)
