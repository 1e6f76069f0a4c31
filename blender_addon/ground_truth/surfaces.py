"""Which objects render, and which of them move with the subjects' rigs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import bpy

from ..buttons import LEAVE_EDIT_MODE
from ..errors import ExportError
from ..rig.animation import followed, followers
from ..rig.skin import FLESH_TYPES, carriers, carrying_bone, is_bound, is_rendered, metaball_family
from ..rig.strands import has_hair
from ..rig.subjects import Rig
from ..texts import say
from .shapes import NOTHING, Shape, ShapeReader
from .visibility import is_enabled, is_hole, is_shown


@dataclass(frozen=True, eq=False)
class Surface:
    """One object of a rig, or, by its `kind`, what it instances or the hair that grows on it; `subject` is
    the rig's number among all. All of it belongs to `bone` where that is set. Where `passed_on` is set, the
    object or one that it follows passes from bone to bone, and it belongs to whichever holds it."""

    obj: bpy.types.Object
    rig: Rig
    subject: int
    bone: str = ""
    kind: Literal["OBJECT", "INSTANCES", "HAIR"] = "OBJECT"
    passed_on: bpy.types.Object | None = None

    @property
    def is_weighted(self) -> bool:
        """Whether vertex groups tell whose its vertices are."""
        return self.obj.type == "MESH" and self.kind == "OBJECT" and not self.carrier

    @property
    def carrier(self) -> str:
        """The bone that all of it belongs to in the frame that is evaluated, "" for none."""
        return self.bone if self.passed_on is None else carrying_bone(self.passed_on, self.rig.armature)

    def is_shown(self, depsgraph: bpy.types.Depsgraph) -> bool:
        """Whether the camera sees it in the frame that is evaluated."""
        carried = all(is_enabled(instancer, depsgraph) for instancer in self.rig.instancers)
        return carried and is_shown(self.obj, depsgraph)

    def shape(self, shapes: ShapeReader, depsgraph: bpy.types.Depsgraph) -> Shape:
        """The shape in the frame that is evaluated, as it is placed in the scene."""
        if self.kind == "INSTANCES":
            return shapes.read_instances(depsgraph, {self.obj}).get(self.obj, NOTHING)
        read = shapes.read_hair if self.kind == "HAIR" else shapes.read
        shape = read(self.obj, depsgraph)
        return replace(shape, world=self.rig.placement(depsgraph) @ shape.world)


def find_surfaces(rigs: Sequence[Rig], depsgraph: bpy.types.Depsgraph) -> list[Surface]:
    """What renders and moves with a rig: skinned, carried by a bone, or following one of those. What is
    bound to one of the rigs is its alone.

    Raises `ExportError` when one is being edited."""
    surfaces, taken = [], set()
    armatures = {rig.armature for rig in rigs}
    for number, rig in enumerate(rigs):
        objects = rendered_objects(depsgraph, rig.instancer)
        along = followers(rig.armature, [*objects, *_invisible(objects, rig)])
        for obj in objects:
            key = (obj, rig.instancers)
            bound = is_bound(obj, rig.armature)
            held = None if bound else _held(obj, rig.armature, along)
            bone = carrying_bone(held, rig.armature) if held is not None else ""
            if obj.type == "META":
                family = [_held(member, rig.armature, along) for member in metaball_family(obj)]
                bones = {carrying_bone(member, rig.armature) for member in family if member is not None}
                bone = bones.pop() if len(bones) == 1 else ""
                bound = bool(bones)  # the nearest limbs own what melts together of several bones
            others = any(is_bound(obj, other) for other in armatures - {rig.armature})
            mine = bound or bone or (obj in along and not others)
            if key in taken or not mine or is_hole(obj, depsgraph):
                continue
            if obj.mode == "EDIT":
                raise ExportError(
                    say("The mesh {mesh} is in Edit Mode; leave it first.", mesh=obj.name), *LEAVE_EDIT_MODE
                )
            taken.add(key)
            passed_on = held if held is not None and _may_be_passed_on(held, rig.armature) else None
            surface = Surface(obj, rig, number, bone, passed_on=passed_on)
            if obj.type in FLESH_TYPES:
                surfaces.append(surface)
            if has_hair(obj):
                surfaces.append(replace(surface, kind="HAIR"))
            if is_instancer(obj) and rig.instancer is None:
                surfaces.append(replace(surface, kind="INSTANCES"))
    return surfaces


def find_volumes(rigs: Sequence[Rig]) -> list[bpy.types.Object]:
    """What renders and moves with a rig, but is a volume, without a surface."""
    found: dict[bpy.types.Object, None] = {}
    for rig in rigs:
        found |= followers(rig.armature, (obj for obj in rig.objects if obj.type == "VOLUME"))
    return [obj for obj in found if is_rendered(obj)]


def _invisible(objects: list[bpy.types.Object], rig: Rig) -> list[bpy.types.Object]:
    """Objects that may pass motion on without being rendered themselves: lattices, empties, other
    armatures."""
    known = set(objects)
    return [obj for obj in rig.objects if obj not in known and obj != rig.armature]


def _held(obj: bpy.types.Object, armature: bpy.types.Object, along) -> bpy.types.Object | None:
    """What of an object and all that it follows, lattices and curves too, hangs on a bone itself."""
    seen, waiting = set(), [obj]
    while waiting:
        one = waiting.pop()
        if one in seen or is_bound(one, armature):
            continue
        seen.add(one)
        if any(carriers(one, armature)):
            return one
        waiting.extend(link for link in followed(one) if link in along)
    return None


def _may_be_passed_on(held: bpy.types.Object, armature: bpy.types.Object) -> bool:
    """Whether not always the same bone holds an object."""
    held_by = list(carriers(held, armature))
    return len({bone for _, bone in held_by}) > 1 or held_by[0][0] < 1


def is_instancer(obj: bpy.types.Object) -> bool:
    """Whether an object may make instances of others."""
    return (
        obj.instance_type != "NONE"
        or any(modifier.type == "NODES" for modifier in obj.modifiers)
        or len(obj.particle_systems) > 0
    )


def rendered_objects(
    depsgraph: bpy.types.Depsgraph, instancer: bpy.types.Object | None = None
) -> list[bpy.types.Object]:
    """The objects with a surface, and those that instance some, of the scene, or of what an object
    instances, that render in some frame and are in the view layer that is evaluated."""
    if instancer is None:
        rendered = _rendered_in(depsgraph.scene)
    else:
        rendered = _rendered(instancer.instance_collection)
    return [
        obj
        for obj in rendered
        if (obj.type in FLESH_TYPES or is_instancer(obj))
        and is_rendered(obj)
        and not (obj.parent is not None and obj.parent.instance_type in {"VERTS", "FACES"})
        and obj.evaluated_get(depsgraph).is_evaluated
        and (obj.type != "META" or metaball_family(obj)[0] == obj)
    ]


def rendered_lights(depsgraph: bpy.types.Depsgraph) -> list[bpy.types.Object]:
    """The lights of the scene that render in some frame and are in the view layer that is evaluated."""
    return [
        obj
        for obj in _rendered_in(depsgraph.scene)
        if obj.type == "LIGHT" and is_rendered(obj) and obj.evaluated_get(depsgraph).is_evaluated
    ]


def is_still(obj: bpy.types.Object) -> bool:
    """Whether nothing moves, bends, changes or hides an object."""
    if obj.type in {"GREASEPENCIL", "GPENCIL"}:  # its frames are of its own
        return False
    moved = obj.parent or obj.animation_data or len(obj.constraints) or obj.rigid_body
    bent = len(obj.modifiers) or getattr(obj.data, "shape_keys", None)
    return not moved and not bent and getattr(obj.data, "animation_data", None) is None


def _rendered_in(scene: bpy.types.Scene) -> dict[bpy.types.Object, None]:
    """The objects of a scene, and of the scenes that are its background set."""
    objects: dict[bpy.types.Object, None] = {}
    shown: bpy.types.Scene | None = scene
    while shown is not None:
        objects |= _rendered(shown.collection)
        shown = shown.background_set
    return objects


def _rendered(collection: bpy.types.Collection) -> dict[bpy.types.Object, None]:
    """The objects of a collection and those in it, each once and in order, without collections that do not
    render."""
    if collection.hide_render:
        return {}
    objects = dict.fromkeys(collection.objects)
    for child in collection.children:
        objects |= _rendered(child)
    return objects
