"""Rigs that grow at random, are spoilt as importers and riggers leave them, and move in any of the ways that
Blender has; and what is seen of them, by rays."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from hypothesis import strategies as st
from mathutils import Matrix

from tests.addon.rigs import add_camera, flesh, make_armature
from tests.addon.servers import module

SPOILS = ("guessed tails", "empty groups", "controls", "IK", "names", "corrective", "twist", "masked")
PLACES = ("as it is", "small", "turned", "mirrored", "instanced", "nested", "large")
MOVES = ("action", "NLA", "drivers", "another armature")
MADE = ("one mesh", "subdivided", "boxes on bones", "through nodes")
LAST = 3
"""The last frame; the rig stands at rest in the first."""
GRID = (48, 30)
LETTERS = st.characters(categories=("Lu", "Ll", "Lo"), exclude_characters="lrLR")


def branch(draw, bones, parent, head, length, depth):
    """Grow a chain of bones from a place, with branches."""
    direction = np.array([draw(st.floats(-1, 1)) for _ in range(3)])
    direction[draw(st.integers(0, 2))] += 2
    direction /= np.linalg.norm(direction)
    for _ in range(draw(st.integers(1, 3))):
        name = f"bone{len(bones)}"
        tail = head + direction * length
        bones[name] = (tuple(head), tuple(tail), parent)
        if depth and draw(st.booleans()):
            branch(draw, bones, name, tail, length * 0.8, depth - 1)
        parent, head = name, tail


@st.composite
def skeletons(draw):
    """{bone: (head, tail, parent or "")}; every bone has flesh and moves."""
    bones = {}
    branch(draw, bones, "", np.array([0.0, 0.0, 1.0]), 0.5, 2)
    return bones


@dataclass(frozen=True)
class Plan:
    """How a skeleton is spoilt, where it stands, what moves it, and what its bones are called. Importers
    guess tails `guess` times too long; a helper moves a `share` of the flesh of the `chosen` bone."""

    bones: dict
    spoils: frozenset[str]
    place: str
    move: str
    made: str
    guess: float
    chosen: str
    share: float
    names: tuple[str, ...]


@st.composite
def plans(draw):
    bones = draw(skeletons())
    names = st.lists(
        st.text(LETTERS, min_size=2, max_size=9), min_size=len(bones), max_size=len(bones), unique=True
    )
    spoils = draw(st.sets(st.sampled_from(SPOILS), max_size=4))
    return Plan(
        bones,
        frozenset(spoils),
        draw(st.sampled_from(PLACES)),
        draw(st.sampled_from(MOVES)),
        draw(st.sampled_from(MADE)),
        draw(st.sampled_from((0.02, 30.0))),
        draw(st.sampled_from(list(bones))),
        draw(st.sampled_from((0.3, 0.5, 0.6))),
        tuple(draw(names)) if "names" in spoils else tuple(bones),
    )


class Built:
    """A plan's scene. `real` are the bones that move flesh, as they are called; `subject` is what is
    exported; `owners` has for each mesh the bone that each of its faces is on."""

    def __init__(self, plan: Plan):
        spoilt, extra = _spoil(plan)
        self.rig = make_armature("Rig", spoilt)
        masked = {"extra_masked": spoilt["extra_masked"]} if "masked" in plan.spoils else {}
        shape = make_armature("Shape", plan.bones | masked)
        self.mesh = flesh(shape)
        if masked:  # flesh that nobody sees
            mask = self.mesh.modifiers.new("Mask", "MASK")
            mask.vertex_group, mask.invert_vertex_group = "extra_masked", True
        self.mesh.modifiers[0].object = self.mesh.parent = self.rig
        bpy.data.objects.remove(shape)
        faces = [
            self.mesh.vertex_groups[self.mesh.data.vertices[face.vertices[0]].groups[0].group].name
            for face in self.mesh.data.polygons
        ]
        if "twist" in plan.spoils:
            self._share(plan, "extra_twist")
        if "empty groups" in plan.spoils:
            for name in extra:
                if name not in self.mesh.vertex_groups:
                    self.mesh.vertex_groups.new(name=name)
        faces = [name for name in faces if name in plan.bones]
        called = dict(zip(plan.bones, plan.names))
        for old, new in called.items():
            self.rig.data.bones[old].name = new
        self.real = list(called.values())
        faces = [called[name] for name in faces]
        # Where a mesh is instanced, Blender 4.5, and 4.2 once it has rendered, cast rays at what it is before
        # subdivision.
        caged = bpy.app.version < (5, 0) and plan.place in ("instanced", "nested")
        if plan.made == "subdivided" and not caged:
            smooth = self.mesh.modifiers.new("Smooth", "SUBSURF")
            smooth.levels = smooth.render_levels = 1
            faces = [name for name in faces for _ in range(4)]
        self.owners = {self.mesh.name: faces}
        self.parts = [self.mesh]
        if plan.made == "boxes on bones":
            self._cut(faces)
        if plan.made == "through nodes":
            self._take()
        self._move(plan)
        if "IK" in plan.spoils:
            self._aim(called)
        self.subject = self._place(plan.place)
        self._look()

    def _share(self, plan: Plan, helper: str) -> None:
        """Some of what a bone moves in its middle is moved by one that lies there, too."""
        group, other = self.mesh.vertex_groups[plan.chosen], self.mesh.vertex_groups.new(name=helper)
        own = [v.index for v in self.mesh.data.vertices if v.groups[0].group == group.index]
        group.add(own[4:12], 1 - plan.share, "REPLACE")  # the rings between its ends
        other.add(own[4:12], plan.share, "REPLACE")

    def _cut(self, faces: list[str]) -> None:
        """Make an object of each bone's flesh, that hangs on its bone."""
        whole, self.parts, self.owners = self.mesh, [], {}
        bpy.context.view_layer.update()
        for name in self.real:
            data = bpy.data.meshes.new(name)
            kept = [face for face, owner in zip(whole.data.polygons, faces) if owner == name]
            corners = [whole.data.vertices[v].co for v in sorted({v for f in kept for v in f.vertices})]
            first = min(v for face in kept for v in face.vertices)
            data.from_pydata(corners, [], [[v - first for v in face.vertices] for face in kept])
            part = bpy.data.objects.new(f"on {name}", data)
            bpy.context.scene.collection.objects.link(part)
            bone = self.rig.data.bones[name]
            part.parent, part.parent_type, part.parent_bone = self.rig, "BONE", name
            part.matrix_parent_inverse = (
                bone.matrix_local @ Matrix.Translation((0, bone.length, 0))
            ).inverted()
            self.owners[part.name] = [name] * len(kept)
            self.parts.append(part)
        bpy.data.objects.remove(whole)

    def _take(self) -> None:
        """Render what nodes take of the body, in its stead."""
        nodes = bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
        nodes.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
        info = nodes.nodes.new("GeometryNodeObjectInfo")
        info.transform_space, info.inputs["Object"].default_value = "RELATIVE", self.mesh
        nodes.links.new(info.outputs["Geometry"], nodes.nodes.new("NodeGroupOutput").inputs[0])
        shell = bpy.data.objects.new("Shell", bpy.data.meshes.new("Shell"))
        bpy.context.scene.collection.objects.link(shell)
        shell.modifiers.new("Nodes", "NODES").node_group = nodes
        self.mesh.hide_render = True
        self.owners[shell.name] = self.owners[self.mesh.name]
        self.parts.append(shell)

    def _move(self, plan: Plan) -> None:
        mover = self.rig
        if plan.move == "another armature":
            mover = bpy.data.objects.new("Mover", self.rig.data.copy())
            bpy.context.scene.collection.objects.link(mover)
            bpy.context.view_layer.update()
            for name in self.real:
                copy = self.rig.pose.bones[name].constraints.new("COPY_ROTATION")
                copy.target, copy.subtarget = mover, name
                copy.owner_space = copy.target_space = "LOCAL"
        for name in self.real:
            bone = mover.pose.bones[name]
            bone.rotation_mode = "XYZ"
            if plan.move == "drivers":
                bone.driver_add("rotation_euler", 0).driver.expression = f"(frame - 1) * {0.4 / (LAST - 1)}"
                continue
            for frame, angle in ((1, 0.0), (LAST, 0.4)):
                bone.rotation_euler[0] = angle
                bone.keyframe_insert("rotation_euler", index=0, frame=frame)
        if plan.move == "NLA":
            animation = self.rig.animation_data
            action, slot = animation.action, getattr(animation, "action_slot", None)
            strip = animation.nla_tracks.new().strips.new("swing", 1, action)
            if slot is not None:
                strip.action_slot = slot
            animation.action = None

    def _aim(self, called) -> None:
        """Controls of inverse kinematics, switched off as those of a rig that is animated forwards."""
        leaf = self.rig.pose.bones[self.real[-1]]
        aim = leaf.constraints.new("IK")
        aim.target, aim.subtarget, aim.chain_count, aim.influence = self.rig, "extra_aim", 2, 0.0

    def _place(self, place: str) -> bpy.types.Object:
        scene, rig = bpy.context.scene, self.rig
        rig.scale = ({"small": 0.01, "large": 100.0}.get(place, 1.0),) * 3
        if place == "turned":  # as what is Y up, or comes from another axis convention
            rig.matrix_world = Matrix.Rotation(1.5708, 4, "X") @ Matrix.Rotation(-1.5708, 4, "Z")
        if place == "mirrored":
            rig.scale.x = -1
        subject = rig
        for level in range({"instanced": 1, "nested": 2}.get(place, 0)):
            inner = bpy.data.collections.new(f"Part{level}")
            for obj in [subject, *self.parts] if level == 0 else [subject]:
                scene.collection.objects.unlink(obj)
                inner.objects.link(obj)
            subject = bpy.data.objects.new(f"Instance{level}", None)
            subject.instance_type, subject.instance_collection = "COLLECTION", inner
            scene.collection.objects.link(subject)
            subject.location, subject.rotation_euler = (0.7, 0.2, 0.1), (0, 0, 0.4)
        return subject

    def _look(self) -> None:
        """A camera that sees the whole."""
        bpy.context.scene.frame_set(1)
        rig = module("rig.subjects").find_rigs([self.subject])[0]
        world = Matrix(rig.placement(bpy.context.evaluated_depsgraph_get()))
        corners = np.array(
            [world @ part.matrix_world @ v.co for part in self.parts for v in part.data.vertices]
        )
        size = float(np.linalg.norm(np.ptp(corners, axis=0)))
        add_camera(corners.mean(axis=0), (1, -1, 0.5), 2.5 * size, clip_start=size / 100)

    def seen(self, clip) -> tuple[np.ndarray, list[str]]:
        """Pixels [n, 2] of the first frame, (row, column), and the bone whose flesh each shows, "" for
        none."""
        bpy.context.scene.frame_set(1)
        fit = clip.projector.fit
        column, row = np.meshgrid(
            (np.arange(GRID[0]) * fit.width // GRID[0]) + 2, (np.arange(GRID[1]) * fit.height // GRID[1]) + 2
        )
        pixels = np.column_stack([column.ravel(), row.ravel()])
        starts, rays = module("view.rays").rays_through(clip.projector, pixels + 0.5)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        found = []
        for start, ray in zip(starts, rays):
            hit, _, _, face, obj, _ = bpy.context.scene.ray_cast(depsgraph, start, ray)
            found.append(self.owners[obj.name][face] if hit and obj.name in self.owners else "")
        return pixels[:, ::-1], found


def _spoil(plan: Plan) -> tuple[dict, list[str]]:
    """The bones as an importer or a rigger leaves them, and those added, which move no flesh by
    themselves."""
    bones, extra = dict(plan.bones), {}
    last, first = list(bones)[-1], next(iter(bones))
    if "guessed tails" in plan.spoils:
        bones = {
            name: (head, tuple(np.array(head) + (np.array(tail) - head) * plan.guess), parent)
            for name, (head, tail, parent) in bones.items()
        }
    tip = np.array(plan.bones[last][1])
    if "controls" in plan.spoils:
        extra |= {f"extra_{i}": (tuple(tip + i + 1), tuple(tip + i + 1.2), "") for i in range(3)}
        extra["extra_root"] = ((0, 0, 0), (0, 0, 0.3), "")
        bones[first] = (*bones[first][:2], "extra_root")
    if "IK" in plan.spoils:
        extra["extra_aim"] = (tuple(tip + 0.1), tuple(tip + (0.1, 0.1, 0.4)), "")
    if "masked" in plan.spoils:
        extra["extra_masked"] = (tuple(tip), tuple(tip + (0, 0, 0.5)), last)
    head, tail = (np.array(end) for end in plan.bones[plan.chosen][:2])
    if "corrective" in plan.spoils:
        extra["extra_fix"] = (tuple(head + 0.01), tuple(head + 0.03), plan.chosen)
    if "twist" in plan.spoils:
        extra["extra_twist"] = (
            tuple(head + (tail - head) * 0.3),
            tuple(head + (tail - head) * 0.8),
            plan.chosen,
        )
    before = {name: bone for name, bone in extra.items() if not bone[2]}
    after = {name: bone for name, bone in extra.items() if bone[2]}
    return {**before, **bones, **after}, list(extra)
