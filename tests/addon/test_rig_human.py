"""People are recognised by their structure and drawn as OpenPose draws them; all others through the middle
of their flesh."""

from __future__ import annotations

import bmesh
import bpy
import numpy as np
import pytest

from tests.addon import people
from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature
from tests.addon.servers import module

BODY = {
    "shoulder": people.SHOULDER,
    "elbow": people.ELBOW,
    "wrist": people.WRIST,
    "hip": people.HIP,
    "knee": people.KNEE,
    "ankle": people.ANKLE,
}
NO_FLESH = ("IK", "ik_", "root", "Root", "全て", "センター", "グルーブ", "両目", "_End", "4")


def choose(rig, look="trained"):
    return module("rig.limbs").choose_limbs(rig, look=look)


def rig_of(convention, fleshed=True):
    bones = people.CONVENTIONS[convention]()
    rig = make_armature(convention, bones)
    if fleshed:
        flesh(rig, bones=[bone for bone in bones if not any(word in bone for word in NO_FLESH)])
    return rig


@pytest.mark.parametrize("fleshed", [True, False])
@pytest.mark.parametrize("convention", people.CONVENTIONS)
def test_a_person_is_recognised_whatever_its_bones_are_called(clean_scene, convention, fleshed):
    human = choose(rig_of(convention, fleshed)).human
    names = module("shared.openpose").BODY
    assert human.forward == pytest.approx((0, -1, 0)) and human.left == pytest.approx((1, 0, 0))
    for side, mirror in (("left", 1), ("right", -1)):
        for joint, place in BODY.items():
            found = human.body[names.index(f"{side} {joint}")].rest
            assert found == pytest.approx(np.array(place) * (mirror, 1, 1), abs=0.01), (side, joint)
        eye, ear = (human.body[names.index(f"{side} {what}")].rest for what in ("eye", "ear"))
        nose = human.body[0].rest
        assert 0 < eye[0] * mirror < ear[0] * mirror < 0.12
        assert nose[1] < eye[1] < ear[1] and 1.6 < nose[2] < eye[2] < 1.75
    if convention == "bvh":
        assert human.hands == (None, None)
        return
    for hand, mirror in zip(human.hands, (-1, 1), strict=True):
        found = np.array([point.rest for point in hand[1:]]).reshape(5, 4, 3)
        assert np.abs(found - np.array(list(people.FINGERS.values())) * (mirror, 1, 1)).max() < 0.015


def test_names_are_not_needed(clean_scene):
    bones = people.unreal()
    twists = [bone for bone in bones if "twist" in bone]
    numbers = {bone: f"joint{k}" for k, bone in enumerate(bones)}
    rig = make_armature(
        "Rig", {numbers[b]: (h, t, numbers.get(p, "")) for b, (h, t, p) in bones.items() if b not in twists}
    )
    human = choose(rig).human
    assert human.body[5].rest == pytest.approx(people.SHOULDER, abs=0.01)
    assert human.hands[1][4].rest == pytest.approx(people.FINGERS["thumb"][3], abs=0.015)


WINGED = LEGGED | {
    f"wing{part}.{side}": ((x * a, 0, 1.5), (x * b, 0, 1.5), parent and f"{parent}.{side}" or "chest")
    for side, x in (("L", 1), ("R", -1))
    for part, a, b, parent in (("1", 0.1, 0.4, ""), ("2", 0.4, 0.7, "wing1"), ("3", 0.7, 0.8, "wing2"))
}
BEAST = {  # a trunk across its legs, a head on a neck, four legs of three bones
    "hips": ((0, 0.8, 1), (0, 0.3, 1), ""),
    "spine": ((0, 0.3, 1), (0, -0.6, 1), "hips"),
    "neck": ((0, -0.6, 1), (0, -0.9, 1.4), "spine"),
    "head": ((0, -0.9, 1.4), (0, -1.2, 1.4), "neck"),
    **{
        f"{end}{k}.{side}": ((x, y, a), (x, y, b), f"{end}{k - 1}.{side}" if k else parent)
        for side, x in (("L", 0.2), ("R", -0.2))
        for end, y, parent in (("fore", -0.5, "spine"), ("hind", 0.7, "hips"))
        for k, (a, b) in enumerate(((0.9, 0.5), (0.5, 0.1), (0.1, 0.0)))
    },
}


@pytest.mark.parametrize("bones", [LEGGED, WINGED, BEAST], ids=["no arms", "wings", "beast"])
def test_what_is_no_person_is_drawn_as_its_bones(clean_scene, bones):
    rig = make_armature("Rig", bones)
    dense(flesh(rig, thickness=0.25))
    choice = choose(rig)
    assert choice.human is None and {limb.name for limb in choice.limbs} == set(bones)
    assert choice.joint_offsets == pytest.approx(choose(rig, "bones").joint_offsets)


def test_a_person_is_drawn_without_a_spine_and_from_the_neck(clean_scene):
    rig = rig_of("mixamo")
    add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=5)
    clip = export([rig], look="trained", num_frames=1)
    limbs = [limb.name for limb in clip.pose.limbs]
    assert limbs[:17] == [
        f"{module('shared.openpose').BODY[a]} to {module('shared.openpose').BODY[b]}"
        for a, b in module("shared.openpose").BODY_LIMBS
    ]
    lines = {limbs[line.limb]: line.points[:, :2] for line in clip.pose.frame(0)}
    neck = lines["neck to nose"][0]
    shoulders = lines["neck to right shoulder"][1], lines["neck to left shoulder"][1]
    assert neck == pytest.approx(np.mean(shoulders, axis=0), abs=0.01)
    for name in ("neck to right hip", "neck to left hip", "neck to left shoulder"):
        assert lines[name][0] == pytest.approx(neck, abs=0.01)
    assert lines["neck to right hip"][1][0] < neck[0] < lines["neck to left hip"][1][0]
    assert clip.pose.parts == module("shared.openpose").PARTS or set(clip.pose.parts) == set(
        module("shared.openpose").PARTS
    )
    # Flesh belongs to the limb that runs through it.
    labels = clip.first_labels
    for name in ("left shoulder to left elbow", "right knee to right ankle"):
        x, y = lines[name].mean(axis=0).astype(int)
        assert limbs[labels[y, x] - 1] == name


def test_what_a_detector_would_not_find_is_not_drawn(clean_scene):
    rig = rig_of("mixamo")

    def drawn(direction, target, distance):
        for camera in [obj for obj in bpy.data.objects if obj.type == "CAMERA"]:
            bpy.data.objects.remove(camera)
        add_camera(target=target, direction=direction, distance=distance)
        clip = export([rig], look="trained", num_frames=1)
        return {clip.pose.limbs[line.limb].name for line in clip.pose.frame(0)}

    front, side, back = (drawn(way, (0, 0, 1), 5) for way in ((0, -1, 0), (1, 0, 0), (0, 1, 0)))
    face = {
        "neck to nose",
        "nose to right eye",
        "right eye to right ear",
        "nose to left eye",
        "left eye to left ear",
    }
    assert front & face == face and not back & face
    assert side & face == {"neck to nose", "nose to left eye", "left eye to left ear"}
    assert not any("finger" in name or "thumb" in name for name in front)
    near = drawn((0, -1, 0.3), (0.8, 0, 1.45), 0.8)
    assert len([name for name in near if "finger" in name or "thumb" in name]) == 20


def test_bones_that_run_along_the_back_are_drawn_through_the_middle(clean_scene):
    bones = {name: (head, tail, parent) for name, (head, tail, parent) in BEAST.items()}
    rig = make_armature("Rig", bones)
    body = flesh(rig, thickness=0.2)
    group = body.vertex_groups["spine"].index
    for vertex in body.data.vertices:  # the belly hangs from the spine
        if any(share.group == group for share in vertex.groups) and vertex.co.z < 1:
            vertex.co.z -= 0.6
    dense(body, 15)
    plain, trained = choose(rig, "bones"), choose(rig)
    moved = np.abs(plain.joint_offsets - trained.joint_offsets).max(axis=1) > 1e-6
    names = np.repeat([limb.name for limb in plain.limbs], plain.counts)
    assert (
        {"spine"}
        <= set(names[moved])
        <= {"spine", "hips", "neck", "fore0.L", "fore0.R", "hind0.L", "hind0.R"}
    )
    joints = rest_joints(rig, trained)
    [spine] = [
        joints[k]
        for k in np.split(np.arange(len(names)), np.cumsum(trained.counts)[:-1])
        if names[k[0]] == "spine"
    ]
    assert spine[:, 2].min() < 0.7


def dense(body, cuts=7):
    """A mesh with as many vertices as a sculptor's."""
    made = bmesh.new()
    made.from_mesh(body.data)
    bmesh.ops.subdivide_edges(made, edges=made.edges, cuts=cuts, use_grid_fill=True)
    made.to_mesh(body.data)
    made.free()
    return body


def rest_joints(rig, choice):
    matrices = np.array([bone.matrix_local for bone in rig.data.bones])[choice.joint_bones]
    offsets = np.concatenate([choice.joint_offsets, np.ones((len(choice.joint_offsets), 1))], axis=1)
    return np.einsum("kij,kj->ki", matrices, offsets)[:, :3]


def test_people_of_a_crowd_lose_their_fingers_first(clean_scene):
    rig = rig_of("mixamo")
    limbs = module("rig.limbs")
    figures = [limbs.make_figure(rig, None, "trained") for _ in range(5)]
    crowd = limbs.share_labels(figures)
    body = [limb.name for limb in limbs.choose_limbs(rig, look="trained").limbs][:17]
    assert sum(len(choice.limbs) for choice in crowd) == 255
    for choice in crowd:
        assert [limb.name for limb in choice.limbs][:17] == body
        assert set(choice.owners.values()) <= set(range(len(choice.limbs)))
    figures += [limbs.make_figure(rig, None, "trained") for _ in range(11)]
    assert sum(len(choice.limbs) for choice in limbs.share_labels(figures)) == 255
