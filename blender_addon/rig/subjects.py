"""What is drawn: an armature of the scene, or one that a collection instance brings along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import bpy
import numpy as np

from ..errors import ExportError
from .limbs import LimbChoice, choose_limbs


@dataclass(frozen=True, eq=False)
class Subject:
    """An `armature`, whose limbs are `choice`, placed as itself or, within a collection, by an `instancer`."""

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


def find_subjects(objects: Iterable[bpy.types.Object]) -> list[Subject]:
    """The subjects that armatures and collection instances stand for. Raises `ExportError` when there is none."""
    subjects = []
    for obj in objects:
        if obj.type == "ARMATURE":
            subjects.append(Subject(obj, None, choose_limbs(obj)))
        elif obj.instance_type == "COLLECTION" and obj.instance_collection is not None:
            for inner in obj.instance_collection.all_objects:
                if inner.type == "ARMATURE":
                    subjects.append(Subject(inner, obj, choose_limbs(inner)))
    if not subjects:
        raise ExportError("No armature is chosen; select the armature of the subject to animate.")
    return subjects
