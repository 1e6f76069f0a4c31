"""A whole shot: what it gives, what it leaves as it was, and what it says when it can't."""

from __future__ import annotations

import gc
import types
import weakref

import bpy
import numpy as np
import pytest

from tests.addon.rigs import (
    LEGGED,
    add_camera,
    append_rig,
    export,
    flesh,
    import_fox,
    make_armature,
    needs_fox,
    options,
    run,
    swing,
)
from tests.addon.servers import PACKAGE, module

BLENDERS = (bpy.types.bpy_struct, bpy.types.bpy_prop_collection, bpy.types.bpy_prop_array)


@pytest.fixture
def rig(clean_scene):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    swing(rig, "thigh.L", angle=1.0, frames=21)
    add_camera(direction=(1, 0, 0))
    return rig


def steps(rig, **given):
    return module("request.export").export_clip(bpy.context, options([rig], **given))


def error():
    return module("request.export").ExportError


def limb_points(clip, frame, name):
    index = [limb.name for limb in clip.pose.limbs].index(name)
    return [polyline.points for polyline in clip.pose.frame(frame) if polyline.limb == index]


def test_a_clip_is_a_request_the_contract_takes(rig):
    clip = export([rig], num_frames=5, pose_frames=(0, 4))
    request = module("shared.messages").GenerationRequest(
        job="a",
        engine="draft",
        width=256,
        height=160,
        num_frames=5,
        fps=24.0,
        first_frame=clip.first_frame,
        pose=clip.pose,
        pose_frames=clip.pose_frames,
        subject_mask=clip.subject_mask,
        first_labels=clip.first_labels,
        part_maps=clip.part_maps,
        camera_motion=clip.camera_motion,
    )
    wire = module("shared.wire")
    again = wire.decode([bytes(part) for part in wire.encode(request)])
    assert (again.first_labels == clip.first_labels).all() and (again.pose.points == clip.pose.points).all()
    assert again.conditioned_frames() == (0, 4) and clip.warnings == ()


def test_frames_are_taken_at_the_shots_step(rig):
    clip = export([rig], frame_start=1, num_frames=3, frame_step=10)
    for index, frame in enumerate((1, 11, 21)):
        alone = export([rig], frame_start=frame, num_frames=1)
        assert limb_points(clip, index, "shin.L")[0] == pytest.approx(limb_points(alone, 0, "shin.L")[0])
    assert np.abs(limb_points(clip, 0, "shin.L")[0] - limb_points(clip, 2, "shin.L")[0]).max() > 10


def test_strokes_are_drawn_frame_by_frame_and_rigs_read_one_by_one(rig):
    other = make_armature("Other", LEGGED)
    subjects, pauses = run(module("rig.subjects").find_subjects([rig, other]))
    assert [subject.armature for subject in subjects] == [rig, other] and pauses == 2
    projection, view = module("view.projection"), module("view").SceneCamera()
    scene, pose = bpy.context.scene, module("shared.pose")
    lens = view.lens(scene, bpy.context.evaluated_depsgraph_get())
    projector = projection.Projector([lens] * 9, module("view").fit(*view.frame_size(scene), 256, 160))
    points = np.zeros((9, 2, 3)) + [[0, 0, 0], [0, 0, 1]]
    strokes, pauses = run(projector.strokes(points, np.array([2]), [pose.Limb("limb", 0)], ["part"]))
    assert pauses == strokes.num_frames == 9


def test_a_camera_that_turns_round_does_not_mirror_the_background(rig):
    camera = bpy.context.scene.camera
    camera.rotation_mode = "XYZ"
    start = camera.rotation_euler.z
    for frame, angle in ((1, 0.0), (10, 2 * np.pi)):
        camera.rotation_euler.z = start + angle
        camera.keyframe_insert("rotation_euler", frame=frame)
    clip = export([rig], num_frames=10)
    corners = np.array([[0, 0, 1], [256, 0, 1], [0, 160, 1], [256, 160, 1]]).T
    seen = clip.camera_motion @ corners
    assert (seen[:, 2] > 0).all() and (np.linalg.det(clip.camera_motion) > 0).all()
    assert "from frame" in clip.warnings[-1] and "stands still" in clip.warnings[-1]
    assert clip.camera_motion[5] == pytest.approx(clip.camera_motion[6]), "with its back to it"
    assert clip.camera_motion[-1] == pytest.approx(np.eye(3), abs=1e-3), "and back again"


@needs_fox
def test_strokes_lie_on_the_fox_in_every_frame(clean_scene):
    rig, _ = import_fox("Run")
    add_camera(target=(0, 0, 40), direction=(1, -0.3, 0.1), distance=280)
    clip = export([rig], num_frames=6, frame_step=3)
    inside = []
    for index in range(6):
        for polyline in clip.pose.frame(index):
            middle = polyline.points[-2:, :2].mean(axis=0)
            column, row = (middle // 8).astype(int)
            inside.append(clip.part_maps[index, row, column] > 0)
    assert np.mean(inside) > 0.95


def test_a_generated_rig_goes_all_the_way(clean_scene):
    rig = append_rig("Animals.horse")
    flesh(rig)
    add_camera(target=(0, 0, 1.2), direction=(1, -0.5, 0.1), distance=6)
    rig.pose.bones["torso"].location.x = 0.2
    clip = export([rig])
    assert len({limb.part for limb in clip.pose.limbs}) == len(clip.pose.parts)
    assert set(np.unique(clip.first_labels)) - {0} <= set(range(1, len(clip.pose.limbs) + 1))
    assert len(np.unique(clip.first_labels)) > 25


def test_the_scene_is_as_it_was_afterwards(rig):
    scene = bpy.context.scene
    scene.frame_set(9, subframe=0.25)
    export([rig])
    assert (scene.frame_current, scene.frame_subframe) == (9, 0.25)


def test_an_instanced_rig_keeps_its_unkeyed_pose(rig):
    scene, store = bpy.context.scene, bpy.data.collections.new("Store")
    scene.collection.objects.unlink(rig)
    store.objects.link(rig)
    place = bpy.data.objects.new("Place", None)
    place.instance_type, place.instance_collection = "COLLECTION", store
    scene.collection.objects.link(place)
    [bone] = [bone for bone in rig.pose.bones if bone.name == "thigh.L"]
    bone.rotation_mode = "XYZ"
    bone.keyframe_insert("rotation_euler", frame=1)
    bone.rotation_euler.x = 0.7
    export([place])
    assert bone.rotation_euler.x == pytest.approx(0.7)


def test_nothing_of_blenders_is_let_go_of_in_another_thread(rig):
    """The garbage that is collected may be Blender's, and the thread works while the scene is evaluated."""
    work, seen = steps(rig), set()
    export_ = module("request.export")
    pause, export_.PAUSE = export_.PAUSE, 0.0
    try:
        for _ in work:
            seen.add(gc.isenabled())
    finally:
        export_.PAUSE = pause
    assert seen == {True, False} and gc.isenabled()


def everything_in(root):
    """All that is reached from an object, but what belongs to its program: modules, classes and functions."""
    waiting, seen = [root], {}
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            inner = gc.get_referents(one)
            if isinstance(one, types.FunctionType):
                inner = [*(one.__closure__ or ()), one.__defaults__]
            elif isinstance(one, (types.ModuleType, type)):
                inner = ()
            waiting.extend(inner)
    return seen.values()


def test_what_the_thread_works_on_holds_nothing_of_blenders(rig, monkeypatch):
    """Its memory may go away, and what was evaluated changes, while the thread works."""
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0.5, 0, 0.5))
    bpy.context.object.parent = rig
    bpy.ops.mesh.primitive_cube_add(size=0.3, location=(3, 0, 0.5))
    bpy.ops.object.light_add(type="SUN")
    background = module("request.background").Background
    add, held, pieces = background.add, set(), []

    def watched(self, work):
        pieces.append(work.__qualname__)
        held.update(repr(one) for one in everything_in(work) if isinstance(one, BLENDERS))
        return add(self, work)

    monkeypatch.setattr(background, "add", watched)
    export([rig])
    assert pieces == ["_pack", "Labeller.draw_first", "_draw", "_finish"] and not held


@pytest.mark.parametrize("after", [20, 10_000], ids=["closed on the way", "whole"])
def test_nothing_of_an_export_waits_for_the_garbage_collector(rig, monkeypatch, after):
    """It may come in the middle of anything, and let go of what is Blender's there."""
    bpy.ops.mesh.primitive_plane_add(size=20)
    bpy.ops.object.light_add(type="SUN")
    monkeypatch.setattr(module("request.export"), "PAUSE", 0.0)
    gc.collect()
    gc.disable()
    try:
        work = steps(rig)
        for _ in zip(range(after), work):
            pass
        work.close()
        del work
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [
            repr(one)
            for one in gc.garbage
            if isinstance(one, BLENDERS) or type(one).__module__.startswith(PACKAGE)
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


def test_work_that_is_left_keeps_nothing(addon):
    def endless():
        while True:
            yield

    background = module("request.background").Background()
    run(background.add(endless()))
    background.close()
    gc.disable()
    try:
        left = weakref.ref(background)
        del background
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("after", [1, 5])
def test_closing_it_halfway_leaves_the_scene_as_it_was(rig, after):
    scene = bpy.context.scene
    other = scene.camera.copy()
    scene.collection.objects.link(other)
    scene.timeline_markers.new("cut", frame=2).camera = other
    scene.frame_set(1)
    camera = scene.camera
    scene.frame_set(40)
    scene.camera = camera
    work = steps(rig, num_frames=30)
    export_ = module("request.export")
    pause, export_.PAUSE = export_.PAUSE, 0.0
    try:
        for _ in range(after):
            next(work)
    finally:
        export_.PAUSE = pause
    work.close()
    assert scene.frame_current == 40 and scene.camera == camera and gc.isenabled()


def test_progress_only_grows_and_every_step_says_what_it_does(rig):
    export_ = module("request.export")
    pause, export_.PAUSE = export_.PAUSE, 0.0
    try:
        told = list(steps(rig, num_frames=4))
    finally:
        export_.PAUSE = pause
    fractions = [step.fraction for step in told]
    assert (
        len(told) > 20
        and fractions == sorted(fractions)
        and fractions[-1] < 1
        and all(step.text for step in told)
    )


def test_an_armature_that_goes_away_meanwhile_is_one_sentence(rig):
    export_ = module("request.export")
    pause, export_.PAUSE = export_.PAUSE, 0.0
    try:
        work = steps(rig, num_frames=30)
        for _ in range(40):
            next(work)
        bpy.data.objects.remove(rig)
        with pytest.raises(error(), match="removed from the scene; export again"):
            for _ in work:
                pass
    finally:
        export_.PAUSE = pause


def test_an_armature_out_of_view_all_along_is_refused(rig):
    bpy.context.scene.camera.location = (0, 0, -50)
    with pytest.raises(error(), match="No limb of Rig is in view in any frame from 1 to 3; move the camera"):
        export([rig])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"armatures": ()}, "No armature is chosen; select"),
        ({"num_frames": 0}, "The frame range is empty; set its end"),
        ({"frame_step": 0}, "The frame range is empty; set its end"),
        ({"num_frames": 5000}, "The range has 5000 frames but at most 1024"),
        ({"first_frame": "/nowhere/picture.png"}, "The picture /nowhere/picture.png can't be read; choose"),
    ],
)
def test_bad_input_is_one_sentence(rig, given, sentence):
    scene = bpy.context.scene
    scene.frame_set(5)
    armatures = given.pop("armatures", (rig,))
    with pytest.raises(error(), match=f"^{sentence}[^.]*(picture.png[^.]*)?\\.$"):
        export(armatures, **given)
    assert scene.frame_current == 5


def test_a_place_that_is_no_number_is_one_sentence(rig):
    head = rig.pose.bones["head"]
    for frame, value in ((1, 0.0), (2, float("nan"))):
        head.location.x = value
        head.keyframe_insert("location", frame=frame)
    with pytest.raises(error(), match="^Rig is at a place that is no number in frame 2; look for a key"):
        export([rig])


def test_no_camera_is_one_sentence_before_anything_is_done(rig):
    bpy.data.objects.remove(bpy.context.scene.camera)
    with pytest.raises(error(), match="no camera; add one"):
        export([rig])


def test_bones_beyond_the_edge_are_cut_not_dropped(rig):
    camera = bpy.context.scene.camera
    camera.location = (1.2, 0, 1.5)
    clip = export([rig])
    assert len(clip.pose.frame(0)) >= 3
    assert np.abs(clip.pose.points[:, :2]).max() < 256 + 33
    assert "Only 2 of 7 limbs are in view in the first frame" in clip.warnings[0]


def test_armatures_with_more_limbs_than_labels_share_them(clean_scene):
    """Those that move most of the picture are drawn, whosever they are, and one of each armature at least."""
    comb = {f"b{k}": ((k / 10, 0, 0), (k / 10, 0, 1), "") for k in range(100)}
    rigs = [make_armature(f"Rig{k}", comb) for k in range(3)]
    for k, (rig, moving) in enumerate(zip(rigs, (0, 90, 100), strict=True)):
        rig.location.z = 1.2 * k
        flesh(rig, thickness=0.08)
        for bone in list(comb)[:moving]:
            swing(rig, bone, angle=1.0, frames=3)
    add_camera(target=(5, 0, 1.7), direction=(0, -1, 0), distance=16)
    clip = export(rigs, width=832, height=480)
    drawn = [{limb.name for limb in clip.pose.limbs if limb.subject == k} for k in range(3)]
    assert len(clip.pose.limbs) == 255 == clip.first_labels.max() and drawn[0]
    assert set(list(comb)[:90]) <= drawn[1] and len(drawn[2]) == 100
    assert clip.warnings[-1].startswith(
        "The armatures have more limbs together than the 255 that can be drawn: 45 that move little of the "
        "picture are left out, "
    )


def test_more_armatures_than_labels_are_drawn_by_what_moves(clean_scene):
    rig = make_armature("Rig", {"bone": ((0, 0, 0), (0, 0, 1), "")})
    flesh(rig)
    others = [rig.copy() for _ in range(256)]
    for other in others:
        clean_scene.collection.objects.link(other)
    subjects, _ = run(module("rig.subjects").find_subjects([*others, rig]))
    limbs, parts = module("rig.subjects").limb_tables(subjects)
    assert len(limbs) == len(parts) == 255 and limbs[-1].subject == limbs[-1].part == 254
    assert sum(subject.choice.left_out for subject in subjects) == 2
