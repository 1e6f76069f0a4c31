"""What is drawn: an armature of the scene, or one that a collection instance brings along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import bpy
import numpy as np

from ..errors import ExportError
from .limbs import LimbChoice, choose_limbs


@dataclass(frozen=True, eq=False)
class Subject:
    """An `armature`, whose limbs are `choice`, placed as itself or, within a collection, by an
    `instancer`."""

    armature: bpy.types.Object
    instancer: bpy.types.Object | None
    choice: LimbChoice

    @property
    def objects(self) -> Iterable[bpy.types.Object]:
        """Every object that is placed as the armature is."""
        if self.instancer is not None:
            return self.instancer.instance_collection.all_objects
        return bpy.data.objects

    def placement(self, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
        """[4, 4] what the world matrices of `objects` are multiplied with to be where they are seen."""
        if self.instancer is None:
            return np.eye(4)
        placed = np.array(self.instancer.evaluated_get(depsgraph).matrix_world, np.float64)
        placed[:3, 3] -= placed[:3, :3] @ np.array(self.instancer.instance_collection.instance_offset)
        return placed


def find_subjects(objects: Iterable[bpy.types.Object]) -> Iterator[Subject]:
    """The subjects that armatures and collection instances stand for, one after the other, since choosing a
    rig's limbs takes a while. Raises `ExportError` when there is none."""
    found = False
    for obj in objects:
        for armature, instancer in _armatures(obj):
            found = True
            yield Subject(armature, instancer, choose_limbs(armature))
    if not found:
        raise ExportError("No armature is chosen; select the armature of the subject to animate.")


def _armatures(obj: bpy.types.Object) -> list[tuple[bpy.types.Object, bpy.types.Object | None]]:
    if obj.type == "ARMATURE":
        return [(obj, None)]
    if obj.instance_type == "COLLECTION" and obj.instance_collection is not None:
        return [(inner, obj) for inner in obj.instance_collection.all_objects if inner.type == "ARMATURE"]
    return []
