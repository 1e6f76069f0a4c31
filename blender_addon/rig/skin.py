"""Which meshes an armature moves, and what of them belongs to which bone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import bpy
import numpy as np

from .skeleton import Skeleton

SAMPLES = 6000
"""Vertices looked at to learn where a bone's flesh is: reading weights takes about a microsecond each."""


def is_bound(obj: bpy.types.Object, armature: bpy.types.Object) -> bool:
    """Whether the armature deforms this mesh."""
    if obj.type != "MESH":
        return False
    if obj.parent == armature and obj.parent_type == "ARMATURE":
        return True
    return any(modifier.type == "ARMATURE" and modifier.object == armature for modifier in obj.modifiers)


def carrying_bone(obj: bpy.types.Object, armature: bpy.types.Object) -> str:
    """The bone that carries an object rigidly, itself or through the object's parents; "" when none does."""
    while obj is not None:
        if obj.parent == armature and obj.parent_type == "BONE":
            return obj.parent_bone
        for constraint in obj.constraints:
            if constraint.type in {"CHILD_OF", "COPY_TRANSFORMS"} and constraint.target == armature:
                return constraint.subtarget
            if constraint.type == "ARMATURE":
                targets = [
                    target for target in constraint.targets if target.target == armature and target.subtarget
                ]
                if targets:
                    return max(targets, key=lambda target: target.weight).subtarget
        obj = obj.parent
    return ""


def read_points(mesh: bpy.types.Mesh) -> np.ndarray:
    """[V, 3] float32 vertices in object space. The attribute is copied as a block, `vertices` one by one."""
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.attributes["position"].data.foreach_get("vector", points)
    return points.reshape(-1, 3)


def _strongest(groups, bones: list[int]) -> int:
    """The bone with the largest weight in a vertex's groups, -1 when none has any."""
    strongest, most = -1, 0.0
    for group in groups:
        if group.weight > most and group.group < len(bones) and bones[group.group] >= 0:
            strongest, most = bones[group.group], group.weight
    return strongest


@dataclass(frozen=True, eq=False)
class Skin:
    """What an armature moves: the `groups` of its meshes, the bones that carry (`carriers`), and a sample
    of vertices, each with the bone that owns it most (`owners` [V] int, `points` [V, 3] in armature space
    at rest)."""

    groups: frozenset[str]
    carriers: frozenset[str]
    owners: np.ndarray
    points: np.ndarray

    @classmethod
    def read(
        cls, armature: bpy.types.Object, skeleton: Skeleton, objects: Iterable[bpy.types.Object]
    ) -> Skin:
        objects = [obj for obj in objects if obj.type != "ARMATURE"]
        meshes = [obj for obj in objects if is_bound(obj, armature)]
        index = {name: i for i, name in enumerate(skeleton.names)}
        at_rest = [obj for obj in meshes if obj.mode != "EDIT"]
        stride = max(1, sum(len(obj.data.vertices) for obj in at_rest) // SAMPLES)
        to_armature = armature.matrix_world.inverted_safe()
        owners, points = [], []
        for obj in at_rest:
            bones = [index.get(group.name, -1) for group in obj.vertex_groups]
            vertices = obj.data.vertices
            owned = [_strongest(vertices[i].groups, bones) for i in range(0, len(vertices), stride)]
            to_space = np.array(to_armature @ obj.matrix_world)
            points.append(read_points(obj.data)[::stride] @ to_space[:3, :3].T + to_space[:3, 3])
            owners.append(np.array(owned, np.int64))
        owners = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        points = np.concatenate(points) if points else np.zeros((0, 3))
        return cls(
            groups=frozenset(
                group.name for obj in meshes for group in obj.vertex_groups if group.name in index
            ),
            carriers=frozenset(filter(None, (carrying_bone(obj, armature) for obj in objects))),
            owners=owners[owners >= 0],
            points=points[owners >= 0],
        )

    def owns(self, bone: int) -> bool:
        return bool((self.owners == bone).any())

    def reach(self, skeleton: Skeleton, bone: int, incoming: np.ndarray | None) -> np.ndarray | None:
        """How far the flesh of a last bone goes from its head, along the way the flesh lies (or the limb
        comes in, where that is hardly told): the true end of a bone whose tail an importer guessed. None
        without flesh."""
        along = self.points[self.owners == bone] - skeleton.heads[bone]
        if len(along) < 3:
            return None
        direction = along.mean(axis=0)
        spread = np.linalg.norm(along, axis=1).max()
        if np.linalg.norm(direction) < 0.2 * spread and incoming is not None:
            direction = incoming
        direction = direction / max(np.linalg.norm(direction), 1e-12)
        length = np.percentile(along @ direction, 95)
        return skeleton.heads[bone] + direction * length if length > skeleton.near else None
