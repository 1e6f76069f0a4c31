"""Which bones become limbs, for rigs of every make, and how their strokes hang together."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.rigs import LEGGED, append_rig, flesh, import_fox, make_armature, needs_fox, strokes
from tests.addon.servers import module


def choose(rig):
    return module("rig.limbs").choose_limbs(rig)


def limb_names(rig):
    return [limb.name for limb in choose(rig).limbs]


def parts_of(rig):
    choice = choose(rig)
    return {limb.name: choice.parts[limb.part] for limb in choice.limbs}


def is_connected(rig) -> bool:
    """Whether every stroke but one begins or ends on another."""
    pieces = list(strokes(rig).values())
    size = np.linalg.norm(np.ptp(np.concatenate(pieces), axis=0))

    def touches(piece, other):
        ends = piece[[0, -1]][:, None]
        return np.linalg.norm(ends - _dense(other), axis=2).min() < 0.01 * size

    reached, waiting = {0}, [0]
    while waiting:
        current = waiting.pop()
        for index, piece in enumerate(pieces):
            if index not in reached and (touches(piece, pieces[current]) or touches(pieces[current], piece)):
                reached.add(index)
                waiting.append(index)
    return len(reached) == len(pieces)


def _dense(path):
    return np.concatenate([a + (b - a) * np.linspace(0, 1, 20)[:, None] for a, b in zip(path[:-1], path[1:])])


def is_symmetric(names) -> bool:
    flipped = [n.replace(".L", ".x").replace(".R", ".L").replace(".x", ".R") for n in names]
    return sorted(flipped) == sorted(names)


@needs_fox
def test_the_gltf_fox_is_drawn_from_joint_to_joint(clean_scene):
    rig, mesh = import_fox()
    names = limb_names(rig)
    assert len(names) == 22 and "_rootJoint" not in names and "b_Root_00" not in names
    assert sorted(set(parts_of(rig).values())) == [
        "b_Hip_01",
        "b_LeftLeg01_015",
        "b_LeftUpperArm_09",
        "b_Neck_04",
        "b_RightLeg01_019",
        "b_RightUpperArm_06",
        "b_Tail01_012",
    ]
    assert is_connected(rig)
    # The hips run from the tail to the spine, and the hind legs hang between.
    assert parts_of(rig)["b_Hip_01"] == parts_of(rig)["b_Spine02_03"]
    # Bone tails mean nothing here: the last strokes reach into the flesh, and strokes end where the next
    # begins.
    placed = strokes(rig)
    nose = np.array([v.co for v in mesh.data.vertices])
    head = placed["b_Head_05"]
    assert head[-1, 1] == pytest.approx(nose[:, 1].min(), abs=0.15 * float(np.ptp(nose[:, 1])))
    assert placed["b_RightForeArm_07"][0] == pytest.approx(placed["b_RightUpperArm_06"][-1])


@pytest.mark.parametrize(
    ("kind", "limbs", "parts"),
    [
        ("human", 22, 6),
        # One Blender is enough to see what Rigify calls things.
        *(
            pytest.param(*each, marks=pytest.mark.any_blender)
            for each in (
                ("Animals.wolf", 29, 7),
                ("Animals.horse", 45, 9),
                ("Animals.bird", 23, 8),
                ("Animals.shark", 22, 10),
                ("Basic.basic_quadruped", 28, 7),
            )
        ),
    ],
)
def test_generated_rigs_are_drawn_as_stick_figures(clean_scene, kind, limbs, parts):
    rig = append_rig(kind)
    choice = choose(rig)
    names = [limb.name for limb in choice.limbs]
    assert all(name.startswith("DEF-") for name in names)
    assert is_symmetric(names)
    assert is_connected(rig)
    assert abs(len(names) - limbs) <= 3 and abs(len(choice.parts) - parts) <= 2 and len(choice.parts) <= 10
    unwanted = (
        "lip",
        "brow",
        "eye",
        "tongue",
        "finger",
        "thumb",
        "index",
        "pinky",
        "palm",
        "breast",
        "feather",
    )
    assert not [name for name in names if any(word in name for word in unwanted)]


def test_the_generated_humans_limbs_bend_where_a_humans_do(clean_scene):
    rig = append_rig("human")
    by_name = {limb.name: limb for limb in choose(rig).limbs}
    assert by_name["DEF-upper_arm.L"].bones == ("DEF-upper_arm.L", "DEF-upper_arm.L.001")
    assert by_name["DEF-spine.001"].bones == ("DEF-spine.001",)
    parts = parts_of(rig)
    assert parts["DEF-hand.L"] == parts["DEF-shoulder.L"] != parts["DEF-hand.R"]
    assert parts["DEF-toe.R"] == parts["DEF-thigh.R"]
    assert parts["DEF-spine"] == parts["DEF-spine.003"] != parts["DEF-spine.006"]


@pytest.mark.any_blender
def test_a_wolfs_head_is_told_from_its_neck_and_its_tail_hangs_at_the_hips(clean_scene):
    rig = append_rig("Animals.wolf")
    placed = strokes(rig)
    nose = rig.data.bones["DEF-nose.002"].tail_local
    assert placed["DEF-spine.011"][-1] == pytest.approx(np.array(nose), abs=0.02)
    assert placed["DEF-spine.003"][-1] == pytest.approx(placed["DEF-spine.004"][0])


@pytest.mark.parametrize(("digits", "count", "bones"), [("MERGE", 10, {3, 4}), ("DRAW", 38, {1})])
def test_fingers_are_drawn_when_asked_for(clean_scene, digits, count, bones):
    rig = append_rig("human")
    off = choose(rig)
    rig.data.poseanything.digits = digits
    choice = choose(rig)
    fingers = [limb for limb in choice.limbs if limb.name.startswith(("DEF-palm", "DEF-f_", "DEF-thumb"))]
    assert len(fingers) == count and {len(limb.bones) for limb in fingers} == bones
    assert choice.parts == off.parts
    hands = {limb.name: limb.part for limb in choice.limbs}
    assert all(finger.part == hands[f"DEF-hand.{finger.name.split('.')[2]}"] for finger in fingers)
    assert is_connected(rig)


def test_a_face_is_drawn_when_asked_for(clean_scene):
    rig = append_rig("human")
    rig.data.poseanything.face = True
    assert "DEF-jaw" in limb_names(rig)


def test_a_bones_switch_goes_before_its_collections(clean_scene):
    rig = make_armature("Rig", LEGGED)
    legs = rig.data.collections.new("legs")
    for name in ("thigh.L", "shin.L"):
        legs.assign(rig.data.bones[name])
    legs.poseanything.limb = "SKIP"
    assert limb_names(rig) == ["hips", "chest", "head", "thigh.R", "shin.R"]
    rig.data.bones["thigh.L"].poseanything.limb = "DRAW"
    assert "thigh.L" in limb_names(rig) and "shin.L" not in limb_names(rig)
    rig.data.bones["thigh.L"].poseanything.limb = "AUTO"
    legs.poseanything.limb = "DRAW"
    rig.data.bones["thigh.L"].use_deform = rig.data.bones["shin.L"].use_deform = False
    assert {"thigh.L", "shin.L"} <= set(limb_names(rig))


def test_flesh_of_bones_that_are_not_drawn_goes_up_the_chain(clean_scene):
    rig = make_armature("Rig", LEGGED)
    rig.data.bones["shin.L"].poseanything.limb = "SKIP"
    choice = choose(rig)
    assert choice.limbs[choice.owners["shin.L"]].name == "thigh.L"
    human = append_rig("human")
    choice = choose(human)
    owner = {bone: choice.limbs[limb].name for bone, limb in choice.owners.items()}
    assert owner["DEF-f_index.03.L"] == "DEF-hand.L"
    assert owner["DEF-lip.T.L"] == "DEF-spine.006"
    assert owner["DEF-upper_arm.L.001"] == "DEF-upper_arm.L"
    assert owner["DEF-pelvis.L"] == "DEF-spine"


def with_controls(deform: bool):
    """A leg with an inverse kinematics target and a pole, all flagged alike."""
    bones = LEGGED | {
        "goal": ((0.2, 0, 0), (0.2, 0.3, 0), ""),
        "knee": ((0.2, -1, 0.5), (0.2, -1.2, 0.5), ""),
    }
    rig = make_armature("Rig", bones)
    ik = rig.pose.bones["shin.L"].constraints.new("IK")
    ik.target, ik.subtarget, ik.pole_target, ik.pole_subtarget = rig, "goal", rig, "knee"
    for bone in rig.data.bones:
        bone.use_deform = deform
    return rig


@pytest.mark.parametrize("deform", [True, False])
def test_targets_of_inverse_kinematics_are_no_limbs(clean_scene, deform):
    assert set(limb_names(with_controls(deform))) == set(LEGGED)


def test_vertex_groups_tell_limbs_from_controls_when_all_bones_deform(clean_scene):
    rig = make_armature("Rig", LEGGED | {"steer": ((1, 0, 1), (1, 0, 2), "")})
    assert "steer" in limb_names(rig)
    flesh(rig, bones=LEGGED)
    assert set(limb_names(rig)) == set(LEGGED)


def test_a_root_bone_is_no_limb(clean_scene):
    bones = {name: (head, tail, parent or "root") for name, (head, tail, parent) in LEGGED.items()}
    rig = make_armature("Rig", {"root": ((0, 0, 0), (0, 0.5, 0), "")} | bones)
    assert set(limb_names(rig)) == set(LEGGED)
    # Whatever its name, as long as no flesh hangs on it.
    rig.data.bones["root"].name = "Bone"
    flesh(rig, bones=LEGGED)
    assert set(limb_names(rig)) == set(LEGGED)


def test_a_leg_is_tied_to_the_hips_by_a_stroke(clean_scene):
    rig = make_armature("Rig", LEGGED)
    thigh = strokes(rig)["thigh.L"]
    assert thigh == pytest.approx(np.array([(0, 0, 1.0), (0.2, 0, 1.0), (0.2, -0.05, 0.5)]))


def test_twist_bones_bend_with_the_limb_they_twist(clean_scene):
    bones = LEGGED | {
        "shin.L": ((0.2, -0.05, 0.5), (0.2, -0.03, 0.25), "thigh.L"),
        "shin_twist.L": ((0.2, -0.03, 0.25), (0.2, 0, 0), "shin.L"),
        "foot.L": ((0.2, 0, 0), (0.2, -0.2, 0), "shin_twist.L"),
        "thigh_twist.R": ((-0.2, -0.02, 0.8), (-0.2, -0.05, 0.5), "thigh.R"),
    }
    rig = make_armature("Rig", bones)
    choice = choose(rig)
    owner = {bone: choice.limbs[limb].name for bone, limb in choice.owners.items()}
    assert owner["shin_twist.L"] == "shin.L" and owner["thigh_twist.R"] == "thigh.R"
    assert strokes(rig)["foot.L"][0] == pytest.approx((0.2, 0, 0), abs=1e-6)
    assert is_connected(rig)


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Spine
  {
    OFFSET 0 10 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT Head
    {
      OFFSET 0 40 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 20 0
      }
    }
  }
  JOINT LeftUpLeg
  {
    OFFSET 10 -5 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT LeftLeg
    {
      OFFSET 0 -40 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 -40 0
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
0 90 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
0 90 0 0 0 0 0 0 0 0 0 0 0 90 0 0 0 0
"""


def test_a_motion_capture_file_is_drawn(clean_scene, tmp_path):
    path = tmp_path / "walk.bvh"
    path.write_text(BVH)
    bpy.ops.import_anim.bvh(filepath=str(path), global_scale=0.01)
    rig = bpy.context.object
    assert set(limb_names(rig)) == {"Hips", "Spine", "Head", "LeftUpLeg", "LeftLeg"}
    assert is_connected(rig)
    heights = [np.concatenate(list(strokes(rig).values()))[:, 2]]
    clean_scene.frame_set(2)
    heights.append(np.concatenate(list(strokes(rig).values()))[:, 2])
    assert heights[0].max() == pytest.approx(1.6, abs=0.01) and heights[0].min() == pytest.approx(
        0.05, abs=0.01
    )
    assert heights[1].min() > 0.4


def test_of_more_limbs_than_labels_those_with_most_of_the_picture_are_drawn(clean_scene):
    """But first what the user asks for; the flesh of the others belongs to the limb beside it."""
    rig = make_armature("Comb", {f"b{i}": ((i, 0, 0), (i, 0, 1 + i / 100), "") for i in range(300)})
    flesh(rig)
    rig.data.bones["b0"].poseanything.limb = "DRAW"
    choice = choose(rig)
    drawn = [limb.name for limb in choice.limbs]
    assert drawn == ["b0", *(f"b{i}" for i in range(46, 300))] and choice.left_out == 45
    assert choice.reasons["b45"] == "skipped: others move more of the picture"
    assert choice.owners["b45"] == drawn.index("b46") and choice.owners["b1"] == drawn.index("b0")


def test_no_limb_left_is_one_sentence(clean_scene):
    rig = make_armature("Rig", LEGGED)
    for bone in rig.data.bones:
        bone.poseanything.limb = "SKIP"
    with pytest.raises(module("errors").ExportError, match="has no bone left to draw; turn on Deform"):
        choose(rig)
    empty = bpy.data.objects.new("Empty", bpy.data.armatures.new("Empty"))
    clean_scene.collection.objects.link(empty)
    with pytest.raises(module("errors").ExportError, match="Empty has no bone"):
        choose(empty)


def test_edit_mode_is_one_sentence(clean_scene):
    rig = make_armature("Rig", LEGGED)
    bpy.ops.object.mode_set(mode="EDIT")
    try:
        with pytest.raises(module("errors").ExportError, match="Edit Mode; leave it"):
            choose(rig)
    finally:
        bpy.ops.object.mode_set(mode="OBJECT")


@pytest.mark.parametrize("owner", ["Armature", "Bone", "BoneCollection"])
def test_what_is_said_of_limbs_can_be_said_in_a_library_override(addon, owner):
    group = getattr(bpy.types, owner).bl_rna.properties["poseanything"]
    said = [prop for prop in group.fixed_type.properties if prop.identifier not in {"rna_type", "name"}]
    assert group.is_overridable and said and all(prop.is_overridable for prop in said)
