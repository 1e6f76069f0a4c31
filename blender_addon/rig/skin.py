"""Which meshes an armature moves, and what of them belongs to which bone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from .animation import followed
from .skeleton import Skeleton
from .strands import STRAND_TYPES, read_strands

SAMPLES = 6000
"""Vertices looked at to learn where a bone's flesh is: reading weights takes about a microsecond each."""
SOME = 2000
"""Points looked at to learn which bones have a weight in them at all."""
GROWING = frozenset({"MIRROR", "MASK", "NODES", "SKIN", "BOOLEAN"})
"""Modifiers by which bones have flesh that the mesh itself lacks, or lack what it has."""
FLESH_TYPES = frozenset({"MESH", "CURVE", "SURFACE", "FONT", "META"}) | STRAND_TYPES
"""Types of objects that have a surface to render; volumes have none."""


CARRYING = frozenset({"CHILD_OF", "COPY_TRANSFORMS", "COPY_LOCATION"})
"""Constraints by which an object goes where a bone goes; one of an armature names its bones by itself."""


def is_bound(obj: bpy.types.Object, armature: bpy.types.Object) -> bool:
    """Whether the armature deforms this mesh or curve."""
    if obj.type not in FLESH_TYPES:
        return False
    if obj.parent == armature and obj.parent_type == "ARMATURE":
        return True
    return any(
        modifier.type == "ARMATURE" and modifier.object == armature and modifier.show_render
        for modifier in obj.modifiers
    )


def carrying_bone(obj: bpy.types.Object, armature: bpy.types.Object) -> str:
    """The bone that carries an object rigidly in the frame that is evaluated, itself or through the object's
    parents; "" when none does."""
    while obj is not None:
        holding = [bone for influence, bone in carriers(obj, armature) if influence >= 0.5]
        if holding:
            return holding[-1]  # constraints go before the parent, the last one before those above it
        obj = obj.parent
    return ""


def carriers(obj: bpy.types.Object, armature: bpy.types.Object) -> Iterator[tuple[float, str]]:
    """The bones that an object itself hangs on, its parent first, and with what influence now."""
    if obj.parent == armature and obj.parent_type == "BONE":
        yield 1.0, obj.parent_bone
    for constraint in obj.constraints:
        if constraint.mute:
            continue
        bone = ""
        if constraint.type in CARRYING and constraint.target == armature:
            bone = constraint.subtarget
        elif constraint.type == "ARMATURE":
            targets = [one for one in constraint.targets if one.target == armature and one.subtarget]
            bone = max(targets, key=lambda one: one.weight).subtarget if targets else ""
        if bone:
            yield constraint.influence, bone


def metaball_family(obj: bpy.types.Object) -> list[bpy.types.Object]:
    """The metaball objects that melt together with one: those whose names differ in their numbers alone. The
    first has the surface of them all."""

    def split(name: str) -> tuple[str, int]:
        stem, dot, number = name.rpartition(".")
        return (stem, int(number)) if dot and number.isdigit() else (name, 0)

    stem = split(obj.name)[0]
    members = [other for other in bpy.data.objects if other.type == "META" and split(other.name)[0] == stem]
    return sorted(members, key=lambda member: split(member.name)[1])


def read_points(mesh: bpy.types.Mesh) -> np.ndarray:
    """[V, 3] float32 vertices in object space. The attribute is copied as a block, `vertices` one by one."""
    if not len(mesh.vertices):  # it may lack the attribute
        return np.zeros((0, 3), np.float32)
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.attributes["position"].data.foreach_get("vector", points)
    return points.reshape(-1, 3)


def read_corners(mesh: bpy.types.Mesh) -> np.ndarray:
    """[C] int32 the vertices of all faces' corners, face by face."""
    vertices = np.empty(len(mesh.loops), np.int32)
    if ".corner_vert" in mesh.attributes:
        mesh.attributes[".corner_vert"].data.foreach_get("value", vertices)
    return vertices


def read_triangles(mesh: bpy.types.Mesh, kept: np.ndarray | None = None) -> np.ndarray:
    """[T, 3] int32 vertices of the triangulated faces, or of those that are `kept` [P] bool. Triangles and
    quads are split here, from arrays that are copied as blocks; Blender's own triangulation, read one by one,
    is needed for faces with more corners alone."""
    vertices = read_corners(mesh)
    begins = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_start", begins)
    corners = np.diff(begins, append=len(vertices))
    if (corners <= 4).all():
        if kept is not None:
            begins, corners = begins[kept], corners[kept]
        quads = begins[corners == 4]
        return vertices[np.concatenate([begins[:, None] + (0, 1, 2), quads[:, None] + (0, 2, 3)])]
    mesh.calc_loop_triangles()
    triangles = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", triangles)
    if kept is None:
        return triangles.reshape(-1, 3)
    faces = np.empty(len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("polygon_index", faces)
    return triangles.reshape(-1, 3)[kept[faces]]


def vertex_areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """[V] the third of the area of the triangles around each vertex."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(triangles.ravel(), np.repeat(area, 3), len(points))


def is_rendered(obj: bpy.types.Object) -> bool:
    """Whether an object shows in renders, now or, where that is animated, perhaps in other frames."""
    if not obj.hide_render:
        return True
    animation = obj.animation_data
    if animation is None:
        return False
    keyed = animation.action is not None or any(track.strips for track in animation.nla_tracks)
    return keyed or any(driver.data_path == "hide_render" for driver in animation.drivers)


def may_change(armature: bpy.types.Object, objects: Iterable[bpy.types.Object]) -> bool:
    """Whether an armature may move other flesh in another frame: modifiers make some and take some."""
    return any(
        is_bound(obj, armature) and any(modifier.type in GROWING for modifier in obj.modifiers)
        for obj in objects
    )


@dataclass(frozen=True, eq=False)
class Skin:
    """What an armature moves, as a sample of V surface points: `points` [V, 3] in armature space at rest, the
    bone that owns each most (`owners` [V] int) and the surface it stands for (`areas` [V], in armature
    space). `shares` [N] is how much of that surface each bone moves, by its weights, all bones together
    moving 1.
    """

    owners: np.ndarray
    points: np.ndarray
    areas: np.ndarray
    shares: np.ndarray

    @classmethod
    def read(
        cls, armature: bpy.types.Object, skeleton: Skeleton, objects: Iterable[bpy.types.Object]
    ) -> Skin:
        """From what is rendered of the objects, bound or led by what the armature moves; from all that are
        bound when none of them is."""
        index = {name: i for i, name in enumerate(skeleton.names)}
        found, led = [], []
        for obj in objects:
            if obj.type in FLESH_TYPES and obj.mode != "EDIT":
                bound = is_bound(obj, armature)
                bone = "" if bound else carrying_bone(obj, armature)
                if bound or bone in index:
                    found.append((obj, index.get(bone, -1)))
                elif is_rendered(obj) and (leaders := _leaders(obj, armature) & index.keys()):
                    led.append((obj, np.array([index[name] for name in sorted(leaders)])))
        rendered = [(obj, bone) for obj, bone in found if is_rendered(obj)]
        own = rendered if rendered or led else found
        pieces = [_read_flesh(armature, skeleton, index, obj, bone) for obj, bone in own]
        pieces += [_read_led(armature, index, obj, bones) for obj, bones in led]
        pieces = [piece for piece in pieces if piece is not None]
        if not pieces:
            return cls(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0), np.zeros(len(index)))
        return cls(*_thin_out(armature, skeleton, index, pieces))

    def joined(self, other: Skin) -> Skin:
        """What the armature moves in two frames, of which each counts as much as the other."""
        if not (len(self.owners) and len(other.owners)):
            return self if len(self.owners) else other
        return Skin(
            np.concatenate([self.owners, other.owners]),
            np.concatenate([self.points, other.points]),
            np.concatenate([self.areas, other.areas]) / 2,
            (self.shares + other.shares) / 2,
        )

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


@dataclass(frozen=True, eq=False)
class _Flesh:
    """Points [V, 3] of one object in armature space, with areas [V], at rest or `posed`. Of the bones `among`
    [n] the nearest owns each point; where there are none, weights of the `vertices` tell, in vertex groups
    named `groups`."""

    points: np.ndarray
    areas: np.ndarray
    posed: bool
    among: np.ndarray
    groups: tuple[str, ...] = ()
    vertices: Sequence[bpy.types.MeshVertex] = ()


def _read_flesh(armature, skeleton, index, obj, bone: int) -> _Flesh | None:
    """The flesh of an object that is bound, or that a bone carries where that is not -1."""
    if bone < 0:
        source = _grown(obj) or obj
        groups = tuple(group.name for group in source.vertex_groups) if obj.type == "MESH" else ()
        if not index.keys() & groups:
            return None
        points, triangles = read_points(source.data), read_triangles(source.data)
        placed, areas = _placed(armature, obj, points, vertex_areas(points, triangles))
        if not areas.any():
            return None
        return _Flesh(placed, areas, source != obj, np.zeros(0, int), groups, source.data.vertices)
    surface = _surface(obj, evaluated=obj.type != "MESH")
    if surface is None:
        return None
    posed = np.array(armature.pose.bones[skeleton.names[bone]].matrix)
    placed, areas = _placed(armature, obj, *surface, skeleton.matrices[bone] @ np.linalg.pinv(posed))
    return _Flesh(placed, areas, False, np.array([bone]))


def _read_led(armature, index, obj: bpy.types.Object, bones: np.ndarray) -> _Flesh | None:
    """The flesh of an object that follows what some bones move; nodes may leave it the weights of that."""
    surface = _surface(obj, evaluated=True)
    if surface is None:
        return None
    placed, areas = _placed(armature, obj, *surface)
    evaluated = obj.evaluated_get(bpy.context.view_layer.depsgraph)
    if obj.type == "MESH" and evaluated.is_evaluated:
        groups, vertices = tuple(group.name for group in evaluated.vertex_groups), evaluated.data.vertices
        if index.keys() & groups and any(len(vertex.groups) for vertex in vertices):
            return _Flesh(placed, areas, True, np.zeros(0, int), groups, vertices)
    return _Flesh(placed, areas, True, bones)


def _surface(obj: bpy.types.Object, evaluated: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Points [V, 3] of an object in its own space and their areas [V], None without any."""
    source = obj.evaluated_get(bpy.context.view_layer.depsgraph) if evaluated else obj
    if not source.is_evaluated:  # it lies outside of the view layer
        source = obj
    if obj.type == "META":
        points, areas = _balls(obj.data)
    elif obj.type in STRAND_TYPES:
        points, triangles, _ = read_strands(source)
        areas = vertex_areas(points, triangles)
    else:
        mesh = source.data if obj.type == "MESH" else source.to_mesh()
        if mesh is None:
            return None
        points = read_points(mesh)
        areas = vertex_areas(points, read_triangles(mesh))
        source.to_mesh_clear()
    return (points, areas) if areas.any() else None


def _placed(
    armature: bpy.types.Object, obj: bpy.types.Object, points: np.ndarray, areas: np.ndarray, then=None
) -> tuple[np.ndarray, np.ndarray]:
    """Points [V, 3] and areas [V] of an object in armature space, where a matrix may take them further."""
    to_space = np.array(armature.matrix_world.inverted_safe() @ obj.matrix_world)
    if then is not None:
        to_space = then @ to_space
    areas = areas * abs(np.linalg.det(to_space[:3, :3])) ** (2 / 3)
    return points @ to_space[:3, :3].T + to_space[:3, 3], areas


def _leaders(obj: bpy.types.Object, armature: bpy.types.Object) -> set[str]:
    """The bones that move an object without being its own: through hooks, or through what it follows, such
    as a lattice, a curve or the mesh that its nodes take."""
    found, seen, waiting = _hooked(obj, armature), {obj, armature}, list(followed(obj))
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        bones = _hooked(one, armature) | _weighing(one, armature)
        if not bones and (bone := carrying_bone(one, armature)):
            bones = {bone}
        found |= bones
        if not bones:
            waiting.extend(followed(one))
    return found


def _hooked(obj: bpy.types.Object, armature: bpy.types.Object) -> set[str]:
    hooks = (modifier for modifier in obj.modifiers if modifier.type == "HOOK")
    return {hook.subtarget for hook in hooks if hook.object == armature} - {""}


def _weighing(obj: bpy.types.Object, armature: bpy.types.Object) -> set[str]:
    """The bones that a mesh or a lattice which the armature deforms has a weight for."""
    deformed = obj.parent == armature and obj.parent_type == "ARMATURE"
    deformed |= any(modifier.type == "ARMATURE" and modifier.object == armature for modifier in obj.modifiers)
    points = {"MESH": "vertices", "LATTICE": "points"}.get(obj.type)
    if not deformed or points is None:
        return set()
    every = getattr(obj.data, points)
    some = range(0, len(every), max(1, len(every) // SOME))
    _, group, weight = read_weights(map(every.__getitem__, some))
    names = [one.name for one in obj.vertex_groups]
    return {names[k] for k in np.unique(group[weight > 0]) if k < len(names)}


def _grown(obj: bpy.types.Object) -> bpy.types.Object | None:
    """An object as modifiers make it where they add or take flesh and leave it its weights."""
    if not any(modifier.type in GROWING and modifier.show_viewport for modifier in obj.modifiers):
        return None
    evaluated = obj.evaluated_get(bpy.context.view_layer.depsgraph)
    if not evaluated.is_evaluated or len(evaluated.data.vertices) == len(obj.data.vertices):
        return None
    weighted = any(len(vertex.groups) for vertex in evaluated.data.vertices)
    return evaluated if weighted else None


def _balls(data: bpy.types.MetaBall) -> tuple[np.ndarray, np.ndarray]:
    """Points around each element of a metaball, which has no surface of its own, and their areas."""
    ways = np.concatenate([np.eye(3), -np.eye(3)])
    elements = [element for element in data.elements if not element.use_negative]
    points = [np.array(element.co) + element.radius / 2 * ways for element in elements]
    areas = [np.full(len(ways), np.pi * element.radius**2 / len(ways)) for element in elements]
    return np.concatenate([np.zeros((0, 3)), *points]), np.concatenate([np.zeros(0), *areas])


def _thin_out(armature: bpy.types.Object, skeleton: Skeleton, index: dict[str, int], pieces: list[_Flesh]):
    """The fields of a `Skin`, of at most about `SAMPLES` vertices, chosen evenly by area: large parts of few
    vertices count as much as small ones of many."""
    count = sum(len(piece.points) for piece in pieces)
    step = sum(float(piece.areas.sum()) for piece in pieces) / SAMPLES
    owners, points, areas = [], [], []
    shares = np.zeros(len(index))
    for piece in pieces:
        chosen, area = np.arange(len(piece.points)), piece.areas
        if count > SAMPLES and step > 0:
            drawn = np.floor(np.cumsum(area) / step + 0.5).astype(np.int64)
            chosen = np.flatnonzero(np.diff(drawn, prepend=0))
            area = np.diff(drawn, prepend=0)[chosen] * step
        placed = piece.points[chosen]
        if len(piece.among):
            owned = _nearest(armature, skeleton, piece.among, placed)
            shares += np.bincount(owned, area, len(index))
        else:
            vertex, bone, weight = _weights(skeleton, index, piece, chosen.tolist())
            total = np.bincount(vertex, weight, len(chosen))
            shares += np.bincount(bone, area[vertex] * weight / total[vertex], len(index))
            owned = np.full(len(chosen), -1, np.int64)
            # Of a vertex written several times the last stays: the strongest, of equal ones the parent.
            order = np.lexsort((-bone, weight))
            owned[vertex[order]] = bone[order]
        known = owned >= 0
        owners.append(owned[known])
        placed = placed[known]
        points.append(_at_rest(armature, skeleton, owned[known], placed) if piece.posed else placed)
        areas.append(area[known])
    shares /= max(float(shares.sum()), 1e-30)
    return np.concatenate(owners), np.concatenate(points), np.concatenate(areas), shares


def _nearest(
    armature: bpy.types.Object, skeleton: Skeleton, bones: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """[V] which of some bones lies nearest to each of the points [V, 3] in the pose."""
    if len(bones) == 1:
        return np.full(len(points), bones[0])
    away = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), np.int64)
    for bone in bones.tolist():
        posed = armature.pose.bones[skeleton.names[bone]]
        head, step = np.array(posed.head), np.array(posed.tail - posed.head)
        along = np.clip((points - head) @ step / max(float(step @ step), 1e-18), 0, 1)
        distance = ((points - head - along[:, None] * step) ** 2).sum(axis=1)
        nearer = distance < away
        away[nearer], nearest[nearer] = distance[nearer], bone
    return nearest


def _at_rest(
    armature: bpy.types.Object, skeleton: Skeleton, owners: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """[V, 3] where posed points [V, 3] are at rest, each as the bone that owns it goes."""
    if not len(owners):
        return points
    used, places = np.unique(owners, return_inverse=True)
    poses = np.array([armature.pose.bones[skeleton.names[bone]].matrix for bone in used.tolist()])
    back = (skeleton.matrices[used] @ np.linalg.pinv(poses))[places]
    return np.einsum("vij,vj->vi", back[:, :3, :3], points) + back[:, :3, 3]


def _weights(skeleton: Skeleton, index: dict[str, int], piece: _Flesh, chosen: list[int]):
    """Which of the chosen vertices [n], bone [n] and weight [n] of all weights above 0."""
    bones = [index.get(name, -1) for name in piece.groups]
    bones = np.array([bone if bone >= 0 and skeleton.deforming[bone] else -1 for bone in bones])
    vertex, group, weight = read_weights(map(piece.vertices.__getitem__, chosen))
    if not len(vertex):
        return vertex, group, weight
    bone = bones.take(group, mode="clip")
    known = (bone >= 0) & (weight > 0) & (group < len(bones))
    return vertex[known], bone[known], weight[known]


def read_weights(
    vertices: Iterable[bpy.types.MeshVertex],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of the vertices [n] int64, in which vertex group [n] int64, with which weight [n] float64, for
    all weights that they have. They come one by one, more than half a microsecond each."""
    vertex: list[int] = []
    group: list[int] = []
    weight: list[float] = []
    for number, one in enumerate(vertices):
        for element in one.groups:
            vertex.append(number)
            group.append(element.group)
            weight.append(element.weight)
    return np.array(vertex, np.int64), np.array(group, np.int64), np.array(weight, np.float64)
