"""What the user says about the limbs of a rig; it is kept with the armature."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, PointerProperty

_SWITCH = (
    ("AUTO", "Automatic", "Let the rig's make-up decide"),
    ("DRAW", "Draw", "Always a limb of the drawing"),
    ("SKIP", "Skip", "Never a limb of the drawing; its flesh goes to the nearest drawn bone up the chain"),
)


class PoseAnythingArmature(bpy.types.PropertyGroup):
    face: BoolProperty(
        name="Face",
        description="Draw the bones of the face and hair too; pose models are rarely trained with them",
    )
    digits: EnumProperty(
        name="Fingers and Toes",
        description="How fingers, toes, feathers and other bundles of small bones are drawn",
        items=(
            ("SKIP", "Off", "Hands and feet end where their fingers and toes begin"),
            ("MERGE", "One Limb Each", "Each finger or toe is one limb that bends at its joints"),
            ("DRAW", "Every Bone", "Each bone of a finger or toe is a limb of its own"),
        ),
    )


class PoseAnythingBone(bpy.types.PropertyGroup):
    limb: EnumProperty(name="Limb", description="Whether this bone is drawn; overrides its collections", items=_SWITCH)


class PoseAnythingBoneCollection(bpy.types.PropertyGroup):
    limb: EnumProperty(name="Limbs", description="Whether the bones of this collection are drawn", items=_SWITCH)


CLASSES = (PoseAnythingArmature, PoseAnythingBone, PoseAnythingBoneCollection)
_OWNERS = (bpy.types.Armature, bpy.types.Bone, bpy.types.BoneCollection)


def register() -> None:
    for group, owner in zip(CLASSES, _OWNERS):
        bpy.utils.register_class(group)
        owner.poseanything = PointerProperty(type=group)


def unregister() -> None:
    for group, owner in zip(reversed(CLASSES), reversed(_OWNERS)):
        del owner.poseanything
        bpy.utils.unregister_class(group)
