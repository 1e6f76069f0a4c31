"""What is drawn: an armature of the scene, or one that a collection instance brings along."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import bpy
import numpy as np

from ..errors import ExportError
from ..shared.pose import Limb
from .limbs import LimbChoice, make_figure, share_labels
from .motion import Motion
from .skin import Skin


@dataclass(frozen=True, eq=False)
class Rig:
    """An `armature`, placed as itself or, within a collection that is instanced, by `instancers`, the
    outermost first."""

    armature: bpy.types.Object
    instancers: tuple[bpy.types.Object, ...]

    @property
    def instancer(self) -> bpy.types.Object | None:
        """The innermost instancer."""
        return self.instancers[-1] if self.instancers else None

    @property
    def objects(self) -> Iterable[bpy.types.Object]:
        """Every object that is placed as the armature is."""
        if self.instancer is not None:
            return self.instancer.instance_collection.all_objects
        return bpy.data.objects

    def placement(self, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
        """[4, 4] what the world matrices of `objects` are multiplied with to be where they are seen."""
        return placement(self.instancers, depsgraph)


@dataclass(frozen=True, eq=False)
class Subject(Rig):
    """What is drawn of a rig: the limbs of `choice`."""

    choice: LimbChoice


def placement(instancers: Iterable[bpy.types.Object], depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """[4, 4] from the space of what the last of nested instancers instances to the world."""
    whole = np.eye(4)
    for instancer in instancers:
        placed = np.array(instancer.evaluated_get(depsgraph).matrix_world, np.float64)
        placed[:3, 3] -= placed[:3, :3] @ np.array(instancer.instance_collection.instance_offset)
        whole = whole @ placed
    return whole


def limb_tables(subjects: Iterable[Subject]) -> tuple[list[Limb], list[str]]:
    """The limbs and the parts of all subjects, one after the other. Subjects of which nothing is drawn have
    no number."""
    limbs: list[Limb] = []
    parts: list[str] = []
    drawn = [subject.choice for subject in subjects if subject.choice.limbs]
    for number, choice in enumerate(drawn):
        limbs += [Limb(limb.name, len(parts) + limb.part, number) for limb in choice.limbs]
        parts += choice.parts
    return limbs, parts


def find_subjects(
    objects: Iterable[bpy.types.Object],
    motions: dict[bpy.types.Object, Motion] | None = None,
    look: str = "bones",
    before: dict[bpy.types.Object, Skin] | None = None,
) -> Generator[None, None, list[Subject]]:
    """The subjects that armatures and collection instances stand for, as the generator's return value, since
    choosing a rig's limbs takes a while; by their `motions` in a shot where those are known, in a `look` and
    with what they moved `before`, as `make_figure` has them. Together they have no more limbs than there are
    labels. Raises `ExportError` when there is none."""
    rigs, figures = find_rigs(objects), []
    for rig in rigs:
        motion, skin = ((known or {}).get(rig.armature) for known in (motions, before))
        figures.append(make_figure(rig.armature, motion, look, skin))
        yield
    choices = share_labels(figures)
    return [Subject(rig.armature, rig.instancers, choice) for rig, choice in zip(rigs, choices, strict=True)]


def find_rigs(objects: Iterable[bpy.types.Object]) -> list[Rig]:
    """The rigs that armatures and collection instances stand for. Raises `ExportError` when there is none."""
    found = [Rig(*one) for one in find_armatures(objects)]
    if not found:
        raise ExportError("No armature is chosen; select the armature of the subject to animate.")
    return found


def find_armatures(
    objects: Iterable[bpy.types.Object],
) -> Iterator[tuple[bpy.types.Object, tuple[bpy.types.Object, ...]]]:
    """Each armature among objects and in what they instance, however deep, with its instancers, the outermost
    first."""
    waiting = [(obj, ()) for obj in objects][::-1]
    while waiting:
        obj, instancers = waiting.pop()
        if obj.type == "ARMATURE":
            yield obj, instancers
        elif instances_collection(obj) and obj not in instancers:
            inner = obj.instance_collection.all_objects
            waiting.extend((one, (*instancers, obj)) for one in reversed(list(inner)))


def instances_collection(obj: bpy.types.Object) -> bool:
    """Whether an object instances a collection."""
    return obj.instance_type == "COLLECTION" and obj.instance_collection is not None


def instanced_objects(objects: Iterable[bpy.types.Object]) -> dict[bpy.types.Object, None]:
    """The objects in the collections that others instance, however deep, each once."""
    found: dict[bpy.types.Object, None] = {}
    waiting = [obj for obj in objects if instances_collection(obj)]
    seen = set()
    while waiting:
        collection = waiting.pop().instance_collection
        if collection in seen:
            continue
        seen.add(collection)
        for obj in collection.all_objects:
            found[obj] = None
            if instances_collection(obj):
                waiting.append(obj)
    return found
