"""Which objects render, and which of them move with the subjects' rigs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import bpy

from ..buttons import LEAVE_EDIT_MODE
from ..errors import ExportError
from ..rig.animation import followed, followers
from ..rig.skin import FLESH_TYPES, carrying_bone, is_bound, is_rendered, metaball_family
from ..rig.strands import has_hair
from ..rig.subjects import Rig
from ..texts import say
from .shapes import NOTHING, Shape, ShapeReader
from .visibility import is_enabled, is_shown


@dataclass(frozen=True, eq=False)
class Surface:
    """One object of a rig, or, by its `kind`, what it instances or the hair that grows on it; `subject` is
    the rig's number among all. All of it belongs to `bone` where that is set."""

    obj: bpy.types.Object
    rig: Rig
    subject: int
    bone: str = ""
    kind: Literal["OBJECT", "INSTANCES", "HAIR"] = "OBJECT"

    @property
    def is_weighted(self) -> bool:
        """Whether vertex groups tell whose its vertices are."""
        return self.obj.type == "MESH" and self.kind == "OBJECT" and not self.bone

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
            bone = "" if bound else _carrier(obj, rig.armature, along)
            if obj.type == "META":
                family = metaball_family(obj)
                bones = {_carrier(member, rig.armature, along) for member in family} - {""}
                bone = bones.pop() if len(bones) == 1 else ""
                bound = bool(bones)  # the nearest limbs own what melts together of several bones
            others = any(is_bound(obj, other) for other in armatures - {rig.armature})
            if key in taken or not (bound or bone or (obj in along and not others)):
                continue
            if obj.mode == "EDIT":
                raise ExportError(
                    say("The mesh {mesh} is in Edit Mode; leave it first.", mesh=obj.name), *LEAVE_EDIT_MODE
                )
            taken.add(key)
            if obj.type in FLESH_TYPES:
                surfaces.append(Surface(obj, rig, number, bone))
            if has_hair(obj):
                surfaces.append(Surface(obj, rig, number, bone, "HAIR"))
            if is_instancer(obj) and rig.instancer is None:
                surfaces.append(Surface(obj, rig, number, bone, "INSTANCES"))
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


def _carrier(obj: bpy.types.Object, armature: bpy.types.Object, along) -> str:
    """The bone that carries an object rigidly, also through lattices, curves and other objects it follows."""
    seen, waiting = set(), [obj]
    while waiting:
        one = waiting.pop()
        if one in seen or is_bound(one, armature):
            continue
        seen.add(one)
        if bone := carrying_bone(one, armature):
            return bone
        waiting.extend(link for link in followed(one) if link in along)
    return ""


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
    """The lights of the scene that render in some frame."""
    return [obj for obj in _rendered_in(depsgraph.scene) if obj.type == "LIGHT" and is_rendered(obj)]


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
