"""What the user says about the limbs of a rig; it is kept with the armature."""

from __future__ import annotations

import bpy
from bpy.app.handlers import persistent
from bpy.props import BoolProperty, EnumProperty, PointerProperty

_SWITCH = (
    ("AUTO", "Automatic", "Let the rig's make-up decide"),
    ("DRAW", "Draw", "Always a limb of the drawing"),
    ("SKIP", "Skip", "Never a limb of the drawing; its flesh goes to the nearest drawn bone up the chain"),
)


def _note(owner: bpy.types.PropertyGroup, context: bpy.types.Context) -> None:
    """Have the limbs that are counted and drawn chosen anew: Blender tells nobody of such a property."""
    owner.id_data.update_tag()


class PoseAnythingArmature(bpy.types.PropertyGroup):
    face: BoolProperty(
        name="Face",
        description="Draw the bones of the face, hair and cloth too; pose models are rarely trained with "
        "them",
        override={"LIBRARY_OVERRIDABLE"},
        update=_note,
    )
    digits: EnumProperty(
        name="Digits",
        description="How fingers, toes, feathers and other bundles of small bones are drawn",
        items=(
            ("AUTO", "Automatic", "Drawn where they are the subject, as in the picture of a hand", 3),
            ("SKIP", "Off", "Hands and feet end where their fingers and toes begin", 0),
            ("MERGE", "One Limb Each", "Each finger or toe is one limb that bends at its joints", 1),
            ("DRAW", "Every Bone", "Each bone of a finger or toe is a limb of its own", 2),
        ),
        default="AUTO",
        override={"LIBRARY_OVERRIDABLE"},
        update=_note,
    )


class PoseAnythingBone(bpy.types.PropertyGroup):
    limb: EnumProperty(
        name="Limb",
        description="Whether this bone is drawn; overrides its collections",
        items=_SWITCH,
        override={"LIBRARY_OVERRIDABLE"},
        update=_note,
    )


class PoseAnythingBoneCollection(bpy.types.PropertyGroup):
    limb: EnumProperty(
        name="Limbs",
        description="Whether the bones of this collection are drawn",
        items=_SWITCH,
        override={"LIBRARY_OVERRIDABLE"},
        update=_note,
    )


def record(armature: bpy.types.Armature) -> dict:
    """What the user said about an armature's limbs, as JSON-able values, without what is left to the rig's
    make-up."""
    settings = armature.poseanything
    return {
        "face": settings.face,
        "digits": settings.digits,
        "bones": _switches(armature.bones),
        "collections": _switches(armature.collections_all),
    }


def restore(armature: bpy.types.Armature, kept: dict) -> None:
    """Say of an armature's limbs again what `record` found said."""
    armature.poseanything.face = kept["face"]
    armature.poseanything.digits = kept["digits"]
    for owners, switches in (
        (armature.bones, kept["bones"]),
        (armature.collections_all, kept["collections"]),
    ):
        for owner in owners:
            owner.poseanything.limb = switches.get(owner.name, "AUTO")


def _switches(owners) -> dict[str, str]:
    return {owner.name: owner.poseanything.limb for owner in owners if owner.poseanything.limb != "AUTO"}


@persistent
def _keep_overrides(*_) -> None:
    """Before a file is saved: Blender forgets with it what is set in a library override where nothing is set
    in the linked armature, which gets what it has by default."""
    for armature in bpy.data.armatures:
        linked = armature.override_library.reference if armature.override_library is not None else None
        if linked is not None and not linked.poseanything.is_property_set("face"):
            restore(linked, record(linked))


CLASSES = (PoseAnythingArmature, PoseAnythingBone, PoseAnythingBoneCollection)
_OWNERS = (bpy.types.Armature, bpy.types.Bone, bpy.types.BoneCollection)


def register() -> None:
    for group, owner in zip(CLASSES, _OWNERS, strict=False):
        bpy.utils.register_class(group)
        owner.poseanything = PointerProperty(type=group, override={"LIBRARY_OVERRIDABLE"})
    bpy.app.handlers.save_pre.append(_keep_overrides)


def unregister() -> None:
    bpy.app.handlers.save_pre.remove(_keep_overrides)
    for group, owner in zip(reversed(CLASSES), reversed(_OWNERS), strict=False):
        del owner.poseanything
        bpy.utils.unregister_class(group)
