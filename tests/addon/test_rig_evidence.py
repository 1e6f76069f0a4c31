"""Bones count by the flesh that they move and by their motion, then by structure, then by name."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from mathutils import Vector

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature, swing, watch
from tests.addon.servers import module

HUMAN = {
    "hips": ((0, 0, 1), (0, 0, 1.2), ""),
    "spine": ((0, 0, 1.2), (0, 0, 1.5), "hips"),
    "head": ((0, 0, 1.5), (0, 0, 1.8), "spine"),
    **{
        f"{name}.{side}": (
            (x * head[0], 0, head[1]),
            (x * tail[0], 0, tail[1]),
            f"{parent}.{side}" if parent in ("arm", "thigh") else parent,
        )
        for side, x in (("L", 1), ("R", -1))
        for name, head, tail, parent in (
            ("arm", (0.15, 1.45), (0.45, 1.45), "spine"),
            ("fore", (0.45, 1.45), (0.75, 1.45), "arm"),
            ("thigh", (0.1, 1), (0.12, 0.5), "hips"),
            ("shin", (0.12, 0.5), (0.12, 0.05), "thigh"),
        )
    },
}


def drawn(rig, **shot):
    """The limbs that are drawn of a rig in a shot of nine frames."""
    if bpy.context.scene.camera is None:
        add_camera(**{"target": (0, 0, 1), "direction": (0, -1, 0.1), "distance": 6, **shot})
    motion = watch(rig)
    choice = module("rig.limbs").choose_limbs(rig, motion)
    return {limb.name for limb in choice.limbs}, choice


def test_tails_that_an_importer_guessed_do_not_count(clean_scene):
    """Tails a hundred times too long, or next to none: sizes come from heads and flesh."""
    body = HUMAN | {
        "hand.L": ((0.75, 0, 1.45), (0.85, 0, 1.45), "fore.L"),
        "foot.L": ((0.12, 0, 0.05), (0.12, -0.15, 0.02), "shin.L"),
    }
    for scale in (100.0, 0.01):
        guessed = {
            name: (head, tuple(np.array(head) + (np.array(tail) - head) * scale), parent)
            for name, (head, tail, parent) in body.items()
        }
        rig, shape = make_armature("Rig", guessed), make_armature("Shape", body)
        mesh = flesh(shape)
        mesh.modifiers[0].object = mesh.parent = rig
        bpy.data.objects.remove(shape)
        names, choice = drawn(rig)
        assert names == set(body)
        ends = {limb.name: limb for limb in choice.limbs}
        assert len(ends) == len(body)


def test_vertex_groups_that_weigh_nothing_are_no_flesh(clean_scene):
    controls = {
        "kneeIK.L": ((0.1, -0.6, 0.5), (0.1, -0.6, 0.7), ""),
        "FK copy": ((0.5, 0, 1), (0.5, 0, 1.4), ""),
    }
    rig = make_armature("Rig", HUMAN | controls)
    mesh = flesh(rig, bones=HUMAN)
    for name in controls:
        mesh.vertex_groups.new(name=name)
    mesh.vertex_groups["kneeIK.L"].add([0, 9, 40], 0.02, "REPLACE")  # a brush that slipped
    names, choice = drawn(rig)
    assert names == set(HUMAN)
    assert choice.reasons["FK copy"] == "skipped: it moves no flesh"


def squat(point):
    """A place of the legs, shortened."""
    x, y, z = point
    return (x, y, 1 - (1 - z) * 0.2)


def test_flesh_that_modifiers_make_and_take_counts_as_it_renders(clean_scene):
    """The mesh has the left half alone, and a stump that nobody sees; the rig is posed."""
    stump = {"stump": ((0, 0, 1.9), (0, 0, 2.4), "head")}
    rig = make_armature("Rig", LEGGED | stump)
    body = flesh(rig, bones=[name for name in (*LEGGED, *stump) if not name.endswith(".R")])
    for name in ("thigh.R", "shin.R"):
        body.vertex_groups.new(name=name)
        swing(rig, name, angle=1.0)
    body.modifiers.new("Mirror", "MIRROR")
    body.modifiers.move(1, 0)
    mask = body.modifiers.new("Mask", "MASK")
    mask.vertex_group, mask.invert_vertex_group = "stump", True
    clean_scene.frame_set(9)
    limbs, choice = drawn(rig)
    assert limbs == set(LEGGED), choice.reasons
    left, right = (next(k for k, made in enumerate(choice.limbs) if made.name == f"shin.{s}") for s in "LR")
    joints = choice.counts.cumsum()
    assert choice.joint_offsets[joints[right] - 1] == pytest.approx(choice.joint_offsets[joints[left] - 1])


def by_nodes(rig):
    """A shell that takes, by its nodes, a body that does not render."""
    body, nodes = flesh(rig), bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
    body.hide_render = True
    nodes.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    info = nodes.nodes.new("GeometryNodeObjectInfo")
    info.transform_space, info.inputs["Object"].default_value = "RELATIVE", body
    nodes.links.new(info.outputs["Geometry"], nodes.nodes.new("NodeGroupOutput").inputs[0])
    shell = bpy.data.objects.new("Shell", bpy.data.meshes.new("Shell"))
    bpy.context.scene.collection.objects.link(shell)
    shell.modifiers.new("Nodes", "NODES").node_group = nodes


def by_constraints(rig):
    """A block that goes where each bone goes."""
    for name in LEGGED:
        bpy.ops.mesh.primitive_cube_add(size=0.25)
        for kind in ("COPY_LOCATION", "COPY_ROTATION"):
            constraint = bpy.context.object.constraints.new(kind)
            constraint.target, constraint.subtarget = rig, name


def by_hooks(rig):
    """A mesh of which hooks move a part with each bone."""
    body = flesh(rig)
    for group in body.vertex_groups:
        hook = body.modifiers.new(group.name, "HOOK")
        hook.object, hook.subtarget, hook.vertex_group = rig, group.name, group.name
    body.modifiers.remove(body.modifiers["Armature"])
    body.parent = None


@pytest.mark.parametrize("lead", [by_nodes, by_constraints, by_hooks])
def test_flesh_counts_that_only_follows_what_the_rig_moves(clean_scene, lead):
    """Beside eyes that hang on a bone, and a statue that is bound but not bent in renders."""
    extra = {"statue": ((2, 0, 0), (2, 0, 1), ""), "spare": ((0, 0, 1.9), (0, 0, 2.4), "head")}
    rig = make_armature("Rig", LEGGED | extra)
    flesh(rig, bones=["statue"], name="statue").modifiers[0].show_render = False
    bpy.data.objects["statue"].parent = None
    for name in extra:
        rig.data.bones[name].use_deform = False
    lead(rig)
    bpy.ops.mesh.primitive_cube_add(size=0.1)
    eyes = bpy.context.object
    eyes.parent, eyes.parent_type, eyes.parent_bone = rig, "BONE", "head"
    bpy.context.view_layer.update()
    limbs, choice = drawn(rig)
    assert limbs == set(LEGGED), choice.reasons


def test_short_legs_that_stand_still_are_limbs_and_a_bag_is_rigid_with_what_carries_it(clean_scene):
    legs = {n: (squat(h), squat(t), p) for n, (h, t, p) in HUMAN.items() if n[:5] in ("thigh", "shin.")}
    rig = make_armature("Rig", HUMAN | legs | {"bag": ((0, 0.15, 1.4), (0, 0.22, 1.4), "spine")})
    flesh(rig, bones=HUMAN.keys() - legs.keys())
    flesh(rig, bones=legs, thickness=1.2, name="boots")
    flesh(rig, bones=["bag"], thickness=4, name="bag")
    swing(rig, "arm.L")
    names, choice = drawn(rig)
    assert names == set(HUMAN)
    assert choice.reasons["bag"] == "skipped: rigid with spine"


def test_the_neck_goes_on_beyond_a_trunk_whose_tail_ends_too_early(clean_scene):
    bones = HUMAN | {"spine": ((0, 0, 1.2), (0, 0, 1.35), "hips")}
    bones["head"] = ((0, 0, 1.5), (0, 0, 1.6), "spine")
    rig = make_armature("Rig", bones)
    flesh(rig)
    swing(rig, "arm.L")
    assert drawn(rig)[0] == set(bones)


def test_a_skeleton_without_flesh_keeps_its_legs_when_all_tails_point_up(clean_scene):
    bones = {
        name: (head, tuple(np.add(head, (0, 0.3, 0))), parent) for name, (head, _, parent) in LEGGED.items()
    }
    choice = module("rig.limbs").choose_limbs(make_armature("Rig", bones))
    assert {limb.name for limb in choice.limbs} == set(LEGGED)


def test_a_root_that_is_joined_to_the_hips_is_no_third_leg(clean_scene):
    bones = {name: (head, tail, parent or "origin") for name, (head, tail, parent) in HUMAN.items()}
    up = ((0, 0, 0), (0, 0, 1), "")
    for name, roots in (
        ("origin", {"origin": up}),
        ("joint7", {"joint7": up}),
        ("node", {"base": ((0, 0, 0), (0, 0, 0.5), ""), "node": ((0, 0, 0.5), (0, 0, 1), "base")}),
        ("beside", {"beside": ((0, 1.5, 0), (0, 1.5, 0.3), "")}),
    ):
        renamed = {bone: (h, t, name if p == "origin" else p) for bone, (h, t, p) in bones.items()}
        rig = make_armature("Rig", roots | renamed)
        assert {limb.name for limb in module("rig.limbs").choose_limbs(rig).limbs} == set(HUMAN)


INSECT = {
    "abdomen": ((-1.2, 0, 0.5), (-0.2, 0, 0.5), ""),
    "thorax": ((-0.2, 0, 0.5), (0.8, 0, 0.5), "abdomen"),
    "head": ((0.8, 0, 0.5), (1.2, 0, 0.5), "thorax"),
    **{
        f"leg{i}_{part}.{side}": (
            (x, y * (0.2 if part == "a" else 0.5), 0.5),
            (x, y * (0.5 if part == "a" else 0.9), 0.55 if part == "a" else 0),
            "thorax" if part == "a" else f"leg{i}_a.{side}",
        )
        for side, y in (("L", -1), ("R", 1))
        for i, x in enumerate((0, 0.3, 0.6))
        for part in "ab"
    },
}


def test_three_equal_chains_are_fingers_only_at_a_limbs_end_and_when_they_are_small(clean_scene):
    rig = make_armature("Rig", INSECT)
    flesh(rig, thickness=0.3)
    assert drawn(rig, target=(0, 0, 0.5))[0] == set(INSECT)


def test_wheels_that_turn_are_limbs_and_a_door_that_does_not_is_rigid_with_its_car(clean_scene):
    wheels = {
        f"wheel{place}.{side}": ((0.8 * x, y, 0.35), (1.0 * x, y, 0.35), "chassis")
        for side, x in (("L", 1), ("R", -1))
        for place, y in (("F", -1.2), ("B", 1.2))
    }
    car = {
        "chassis": ((0, 1.8, 0.5), (0, -1.8, 0.5), ""),
        "door.L": ((0.85, -0.2, 0.7), (0.85, 0.2, 0.7), "chassis"),
    }
    rig = make_armature("Rig", car | wheels)
    flesh(rig, bones=["chassis"], thickness=0.3, name="body")
    flesh(rig, bones=wheels, thickness=2.0, name="wheels")
    flesh(rig, bones=["door.L"], name="door")
    for wheel in list(wheels)[:3]:
        swing(rig, wheel, axis=1, angle=6)
    names, choice = drawn(rig, direction=(1, -1, 0.4), target=(0, 0, 0.5), distance=7)
    assert names == {"chassis", *wheels}, choice.reasons
    assert choice.reasons["door.L"] == "skipped: rigid with chassis"
    assert "drawn: moves" in choice.reasons["wheelF.L"] and "of the picture" in choice.reasons["wheelF.L"]


@pytest.mark.parametrize("name", ["tail_tip", "claw.L", "Hebel_Ende", "twist_left"])
def test_a_name_does_not_drop_a_bone_that_moves_flesh_as_long_as_others(clean_scene, name):
    bones = {
        "body": ((0, 0, 1), (1, 0, 1), ""),
        "base": ((0, 0, 1), (-0.5, 0, 1), "body"),
        "mid": ((-0.5, 0, 1), (-1, 0, 1), "base"),
        name: ((-1, 0, 1), (-1.5, 0, 1.1), "mid"),
    }
    rig = make_armature("Rig", bones)
    flesh(rig)
    swing(rig, name)
    names, choice = drawn(rig)
    assert name in names or name in {b for limb in choice.limbs for b in limb.bones}


DETAILS = {
    "bicep.L": ((0.3, -0.05, 1.45), (0.38, -0.08, 1.45), "arm.L"),
    "knee_fix.L": ((0.12, -0.05, 0.52), (0.12, -0.12, 0.52), "shin.L"),
    "X17": ((0.1, 0.05, 1.3), (0.16, 0.1, 1.3), "spine"),
    "arm_twist.L": ((0.25, 0, 1.45), (0.35, 0, 1.45), "arm.L"),
}


def test_correctives_are_rigid_with_what_carries_them_whatever_their_names(clean_scene):
    rig = make_armature("Rig", HUMAN | DETAILS)
    flesh(rig)
    swing(rig, "arm.L")
    names, choice = drawn(rig)
    assert names == set(HUMAN)
    assert choice.reasons["X17"] == "skipped: rigid with spine"
    rig.data.bones["X17"].poseanything.limb = "DRAW"
    again, choice = drawn(rig)
    assert "X17" in again and choice.reasons["X17"] == "drawn: as you say"


@pytest.mark.parametrize(
    "words",
    [
        ("左目", "右胸", "前髪1", "スカート_0_1"),
        ("Auge.L", "Brust.L breast", "Haare", "Rock"),
        ("ojo_izq", "bust.R", "cabello", "falda"),
        ("eye_l", "breast_l", "ponytail", "scarf.001"),
        ("глаз.L", "грудь", "волосы1", "юбка2"),
    ],
)
def test_faces_hair_and_cloth_are_known_in_other_languages(clean_scene, words):
    eye, breast, hair, skirt = words
    extra = {
        eye: ((0.04, -0.08, 1.65), (0.04, -0.12, 1.65), "head"),
        breast: ((0.07, -0.08, 1.35), (0.07, -0.14, 1.34), "spine"),
        hair: ((0, 0.1, 1.7), (0, 0.14, 1.3), "head"),
        skirt: ((0, 0.15, 0.95), (0, 0.25, 0.6), "hips"),
    }
    rig = make_armature("Rig", HUMAN | extra)
    flesh(rig)
    swing(rig, "arm.L")
    assert drawn(rig)[0] == set(HUMAN)


def test_many_small_limbs_of_one_make_are_drawn_where_together_they_move_much(clean_scene):
    bones = {"seg0": ((0, 0, 0.15), (0.1, 0, 0.15), "")}
    for i in range(1, 20):
        bones[f"seg{i}"] = ((0.1 * i, 0, 0.15), (0.1 * i + 0.1, 0, 0.15), f"seg{i - 1}")
    legs = {
        f"leg{i}.{side}": ((0.1 * i + 0.05, 0.04 * y, 0.15), (0.1 * i + 0.05, 0.15 * y, 0), f"seg{i}")
        for i in range(20)
        for side, y in (("L", -1), ("R", 1))
    }
    rig = make_armature("Rig", bones | legs)
    flesh(rig, bones, 0.8)
    flesh(rig, legs, 0.15)
    add_camera(target=(1, 0, 0), direction=(0, -1, 1), distance=4)
    assert not drawn(rig)[0] & set(legs), "rigid"
    for name in legs:
        swing(rig, name, axis=2)
    assert drawn(rig)[0] == set(bones | legs)


def test_hair_and_cloth_that_are_the_subject_are_drawn(clean_scene):
    """A jellyfish whose tentacles are named as a skirt's, and a body whose first bone is named hair_root."""
    bones = {"bell": ((0, 0, 1), (0, 0, 1.4), "")}
    for k in range(6):
        x, y = 0.3 * np.cos(k), 0.3 * np.sin(k)
        bones[f"skirt_{k}_a"] = ((x, y, 1), (x, y, 0.6), "bell")
        bones[f"skirt_{k}_b"] = ((x, y, 0.6), (x, y, 0.2), f"skirt_{k}_a")
    jelly = make_armature("Jelly", bones)
    flesh(jelly)
    for k in range(6):
        swing(jelly, f"skirt_{k}_b", angle=0.2)
    assert drawn(jelly)[0] == set(bones)

    named = {n: (h, t, {"": "", "hips": "hair_root"}.get(p, p)) for n, (h, t, p) in HUMAN.items()}
    named["hair_root"] = named.pop("hips")
    rig = make_armature("Rig", dict(sorted(named.items(), key=lambda one: one[0] != "hair_root")))
    flesh(rig)
    assert drawn(rig)[0] == set(named)


def hand():
    bones = {"wrist": ((0, 0, 0.6), (0, 0, 0.8), "")}
    for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky")):
        parent, x = "wrist", (number - 2) * 0.12
        for joint, (low, high) in enumerate(((0.8, 1.1), (1.1, 1.3), (1.3, 1.5))):
            name = f"{finger}_{joint}"
            bones[name] = ((x, 0, low), (x, 0, high), parent)
            parent = name
    return bones


def test_fingers_that_are_the_subject_are_drawn(clean_scene):
    rig = make_armature("Rig", hand())
    flesh(rig)
    names, _ = drawn(rig, target=(0, 0, 1), distance=3)
    assert names == set(hand())
    rig.data.poseanything.digits = "SKIP"
    assert drawn(rig)[0] == {"wrist"}


def test_fingers_that_move_but_are_not_drawn_are_told(clean_scene):
    bones = dict(HUMAN)
    for number in range(4):
        y = -0.03 + 0.02 * number
        bones[f"finger{number}.L"] = ((0.75, y, 1.45), (0.85, y, 1.45), "fore.L")
    rig = make_armature("Rig", bones)
    flesh(rig, thickness=0.3)
    for number in range(4):
        swing(rig, f"finger{number}.L", frames=3)
    add_camera(target=(0.75, 0, 1.45), direction=(0, -1, 0), distance=1.2)
    clip = export([rig])
    assert any("Fingers and toes of Rig move" in finding.sentence for finding in clip.findings)
    [finding] = [one for one in clip.findings if one.operator == "poseanything.draw_digits"]
    assert bpy.ops.poseanything.draw_digits(**dict(finding.properties)) == {"FINISHED"}
    assert "finger0.L" in {limb.name for limb in export([rig]).pose.limbs}


@pytest.mark.parametrize("guess", [1, 30])
def test_a_rope_of_more_bones_than_labels_is_drawn_over_its_whole_length(clean_scene, guess):
    bones = {
        f"b{i:03}": ((i * 0.02, 0, 1), (i * 0.02 + 0.02, 0, 1), f"b{i - 1:03}" if i else "")
        for i in range(300)
    }
    rope = make_armature("Rope", bones)
    rig = make_armature(
        "Guessed",
        {n: (h, (h[0] + (t[0] - h[0]) * guess, *t[1:]), p) for n, (h, t, p) in bones.items()},
    )
    body = flesh(rope, thickness=3)
    body.parent = body.modifiers[0].object = rig
    choice = module("rig.limbs").choose_limbs(rig)
    assert len(choice.limbs) <= 255 and sum(len(limb.bones) for limb in choice.limbs) == 300
    rest = [
        rig.data.bones[int(bone)].matrix_local @ Vector(offset)
        for bone, offset in zip(choice.joint_bones, choice.joint_offsets)
    ]
    assert min(p.x for p in rest) == pytest.approx(0, abs=1e-4)
    assert max(p.x for p in rest) == pytest.approx(6, abs=1e-4)


def test_what_is_said_of_every_bone_begins_with_what_becomes_of_it(clean_scene):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    _, choice = drawn(rig)
    assert set(choice.reasons) == set(LEGGED)
    assert all(reason.startswith(("drawn: ", "skipped: ")) for reason in choice.reasons.values())
