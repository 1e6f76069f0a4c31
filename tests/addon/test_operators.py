"""The buttons, pressed as scripts press them, from scene to strip."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from shared.request_file import read_request
from tests.addon.scenes import make_rig, names, newest_job, poll_until, session, settle, span, strip_of
from tests.addon.servers import module, png


def test_generate_puts_a_strip_where_the_shot_is(shot, served, tmp_path):
    served()
    shot.poseanything.take_name, shot.poseanything.prompt = "fox", "a fox"
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    job = newest_job()
    strip = strip_of(job)
    assert span(strip) == (5, 17) and strip.directory == "//takes/fox_001/"
    frames = sorted((tmp_path / "takes" / "fox_001").glob("fox_001_*.png"))
    assert [path.name for path in frames] == names(strip) and len(frames) == 12
    first = (tmp_path / "takes" / "fox_001" / "first_frame.png").read_bytes()
    assert module("shared.messages").png_size(first) == (128, 72)
    assert shot.frame_current == 1 and not shot.render.filepath.startswith("//takes")
    record = json.loads((tmp_path / "takes" / "fox_001" / "take.json").read_text())["record"]
    assert (
        record["settings"]["prompt"] == "a fox" and record["engine"] == "draft" and record["neural"] is False
    )


def test_request_holds_what_the_settings_say(shot, served, sent):
    served()
    settings = shot.poseanything
    settings.prompt, settings.negative_prompt = "a fox", "blur"
    settings.new_seed, settings.seed = False, 77
    settings.frame_step, settings.pose_density, settings.pose_interval = 2, "NTH", 4
    shot.render.fps = 24
    bpy.ops.poseanything.generate(wait=True)
    request = sent[0]
    assert (request.prompt, request.negative_prompt, request.seed) == ("a fox", "blur", 77)
    assert (request.num_frames, request.fps, request.pose_frames) == (6, 12.0, (0, 4, 5))
    assert (request.width, request.height) == (128, 72) == (request.pose.width, request.pose.height)
    assert request.engine == "draft" and request.guidance.guider == "none"
    assert request.first_labels.shape == (72, 128) and len(request.part_maps) == 6
    assert request.first_frame_in_pose, "it was rendered just now"
    assert span(strip_of(newest_job())) == (5, 17), "as long as the range, whatever the step"


def test_camera_moves_go_on_top_of_what_the_camera_does(shot, served, sent):
    served()
    settings = shot.poseanything
    bpy.ops.poseanything.generate(wait=True)
    settings.camera_source, settings.camera_move, settings.camera_amount = "MOVE", "PAN_LEFT", 0.5
    bpy.ops.poseanything.generate(wait=True)
    shot.camera.keyframe_insert("rotation_euler", frame=5)
    shot.camera.rotation_euler.z += 0.1
    shot.camera.keyframe_insert("rotation_euler", frame=16)
    bpy.ops.poseanything.generate(wait=True)
    settings.camera_source = "SCENE"
    bpy.ops.poseanything.generate(wait=True)
    still, moved, both, turned = (request.camera_motion for request in sent)
    assert still is None
    middle = np.array([64, 36, 1])
    assert moved[-1] @ middle == pytest.approx([128, 36, 1], abs=1e-3), "half a picture to the right"
    shift = (turned[-1] @ middle)[:2] / (turned[-1] @ middle)[2]
    assert shift[0] > 70
    seen = (both[-1] @ middle)[:2] / (both[-1] @ middle)[2]
    assert seen == pytest.approx(shift + (64, 0), abs=1e-2)


def test_each_shot_between_camera_markers_is_a_clip_of_its_own(shot, served, sent, tmp_path):
    served()
    first, other = shot.camera, shot.camera.copy()
    shot.collection.objects.link(other)
    other.name, other.location, other.rotation_euler = "Other", (1.5, -4, 5), (0.65, 0, 0)
    for frame, camera in ((-3, other), (2, first), (8, first), (10, other), (12, other), (18, first)):
        shot.timeline_markers.new("cut", frame=frame).camera = camera
    bpy.ops.poseanything.generate(wait=True)
    jobs = list(session().bridge.jobs.values())
    assert [span(strip_of(job)) for job in jobs] == [(5, 10), (10, 17)], "strips in a row"
    assert [request.num_frames for request in sent] == [5, 7]
    assert [request.camera_motion for request in sent] == [None, None]
    heights = [np.ptp(request.pose.frame(0)[0].points[:, 1]) for request in sent]
    assert sent[0].first_frame != sent[1].first_frame and heights[1] != pytest.approx(heights[0], rel=0.1)
    assert "cuts at frame 10 (Other): each of 2 shots is a clip" in jobs[0].warnings[0]
    assert not jobs[1].warnings

    shot.poseanything.speed = 0.5
    bpy.ops.poseanything.generate_range(frame_start=9, frame_end=10, wait=True)
    later = list(session().bridge.jobs.values())[2:]
    assert [span(strip_of(job)) for job in later] == [(9, 11), (11, 13)], "in slow motion too"

    shot.poseanything.speed = 1
    assert bpy.ops.poseanything.export_skeleton(directory=str(tmp_path / "files")) == {"FINISHED"}
    exported = sorted((tmp_path / "files").glob("*/request*"))
    read = [read_request(path) for path in exported]
    assert [request.num_frames for request in read] == [5, 9]
    assert read[1].camera_motion is None, "what is filmed beyond the range is of the shot's camera"


def test_every_camera_move_of_the_contract_can_be_chosen(shot):
    moves = shot.poseanything.bl_rna.properties["camera_move"].enum_items
    assert tuple(name.lower() for name in moves.keys()) == module("shared.camera").MOVES


def test_second_generate_while_one_runs_is_queued(shot, served):
    served(pace=6)
    bpy.ops.poseanything.generate()
    first = newest_job()
    bpy.ops.poseanything.generate()
    second = newest_job()
    poll_until(lambda: second.state == "QUEUED")
    assert not first.ended
    settle(second)
    assert (first.state, second.state) == ("DONE", "DONE")
    assert first.take.folder != second.take.folder
    assert len(strip_of(first).elements) == len(strip_of(second).elements) == 12


def standing(scene):
    """What neither of the two ways to make a take again may change."""
    settings = scene.poseanything
    return (
        module("settings").record(settings),
        [obj.name for obj in bpy.context.selected_objects],
        scene.camera,
        scene.frame_current,
    )


@pytest.fixture
def made(shot, served):
    """A take, and after it everything about it changed in the scene."""
    served()
    settings = shot.poseanything
    settings.prompt = "a fox"
    bpy.ops.poseanything.generate(wait=True)
    settings.prompt, settings.seed, settings.frame_step, settings.new_seed = "a cat", 1, 5, True
    shot.frame_start, shot.frame_end = 1, 3
    bpy.ops.object.select_all(action="DESELECT")
    rig = bpy.data.objects["Rig"]
    rig.pose.bones["bone0"].rotation_euler = (0, 0, -0.6)
    rig.pose.bones["bone0"].keyframe_insert("rotation_euler", frame=1)
    shot.display.shading.color_type = "OBJECT"
    bpy.data.objects["Rig body"].color = (1, 0, 0, 1)
    return newest_job()


def test_repeat_exactly_asks_for_the_same_whatever_has_changed(shot, made, sent):
    first = module("takes.take").read_take_request(made.take)
    bpy.data.objects["Rig"].name = "Renamed"
    before = standing(shot)
    assert bpy.ops.poseanything.make_again(take_id=made.id, wait=True) == {"FINISHED"}
    assert standing(shot) == before
    new, request = newest_job(), sent[-1]
    assert new.take.folder != made.take.folder and made.take.frames_on_disk() == 12
    assert request.job != first.job
    for name in ("prompt", "seed", "num_frames", "width", "guidance", "engine_options", "first_frame"):
        assert getattr(request, name) == getattr(first, name), name
    for name in ("pose.points", "part_maps", "first_labels"):
        old, now = first, request
        for word in name.split("."):
            old, now = getattr(old, word), getattr(now, word)
        assert np.array_equal(old, now), name
    assert span(strip_of(new)) == span(strip_of(made))
    assert "changed since: Step, Prompt, Seed" in " ".join(new.warnings)


def test_retake_asks_for_the_present_animation_with_a_new_first_frame(shot, made, sent):
    first = module("takes.take").read_take_request(made.take)
    before = standing(shot)
    assert bpy.ops.poseanything.retake(take_id=made.id, wait=True) == {"FINISHED"}
    assert standing(shot) == before
    new, request = newest_job(), sent[-1]
    for name in ("prompt", "seed", "num_frames", "width", "height", "fps", "guidance", "engine_options"):
        assert getattr(request, name) == getattr(first, name), name
    assert not np.array_equal(request.pose.points, first.pose.points), "the animation has changed"
    assert request.first_frame != first.first_frame, "and so has the picture"
    assert span(strip_of(new)) == span(strip_of(made))


def test_a_take_is_made_again_from_a_file_opened_later(shot, served, tmp_path):
    served()
    bpy.ops.poseanything.generate(wait=True)
    job = newest_job()
    bpy.ops.wm.save_mainfile()
    session().bridge.jobs.clear()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    scene = bpy.context.scene
    scene.poseanything.prompt = "something else"
    bpy.ops.poseanything.use_take_settings(take_id=job.id)
    assert scene.poseanything.prompt == "" and scene.poseanything.new_seed is False
    bpy.ops.poseanything.make_again(take_id=job.id)
    again = newest_job()
    poll_until(lambda: again.ended)
    assert again.state == "DONE" and again.take.record["seed"] == job.take.record["seed"]


def test_retake_through_the_viewport_of_the_take(shot, served, sent, monkeypatch):
    served()
    view = module("view").Viewport
    lens = shot.camera.matrix_world.normalized().inverted()
    size, projection = (640, 320), [[2, 0, 0, 0], [0, 4, 0, 0], [0, 0, -1.002, -0.2], [0, 0, -1, 0]]
    kept = {"view": [list(row) for row in lens], "projection": projection, "near": 0.1, "perspective": True}
    seen = view.from_record({**kept, "width": size[0], "height": size[1]})
    monkeypatch.setattr(module("request.view"), "find_viewport", lambda context: (None, None))
    monkeypatch.setattr(view, "from_context", lambda *_: seen)
    shot.poseanything.view = "VIEWPORT"
    bpy.ops.poseanything.generate(wait=True)
    old = newest_job()
    monkeypatch.setattr(
        view, "from_context", lambda *_: view.from_record({**kept, "width": 320, "height": 320})
    )
    shot.poseanything.view = "CAMERA"
    bpy.ops.poseanything.retake(take_id=old.id, wait=True)
    a, b = sent
    assert a.first_frame == b.first_frame and np.array_equal(a.pose.points, b.pose.points)
    assert (a.width, a.height) == (b.width, b.height) == (128, 72), "the scene's aspect, not the region's"


def test_making_a_take_again_that_lacks_something_says_what(shot, served):
    served()
    bpy.ops.poseanything.generate(wait=True)
    job = newest_job()
    bpy.data.objects.remove(bpy.data.objects["Rig"])
    make_rig("Another")
    with pytest.raises(RuntimeError, match="was made of Rig, which is not in this scene any more"):
        bpy.ops.poseanything.retake(take_id=job.id)
    [told] = module("session").get().findings
    assert told.operator == "poseanything.generate", "of what is there"
    (job.take.folder / module("takes.take").REQUEST).unlink()
    for operator in (bpy.ops.poseanything.retake, bpy.ops.poseanything.make_again):
        with pytest.raises(RuntimeError, match="use its settings and generate"):
            operator(take_id=job.id)


def test_two_armatures_make_one_clip(shot, served, sent):
    served()
    second = make_rig("Second", x=0.5)
    bpy.data.objects["Rig"].select_set(True)
    bpy.ops.poseanything.generate(wait=True)
    assert {limb.subject for limb in sent[0].pose.limbs} == {0, 1}
    assert newest_job().take.record["armatures"] == ["Rig", second.name]


def test_armatures_are_found_as_people_select(shot):
    find, settings = module("request.subjects").find_subjects, shot.poseanything
    rig, body, camera = (bpy.data.objects[name] for name in ("Rig", "Rig body", "Camera"))
    context = bpy.context

    def select(*objects):
        for obj in context.view_layer.objects:
            obj.select_set(obj in objects)

    select(body)
    assert find(context, settings) == (rig,), "through the mesh it deforms"
    select(camera)
    assert find(context, settings) == (rig,), "the only one there is"
    second = make_rig("Second")
    select(camera)
    assert find(context, settings) == ()
    select(rig, second)
    assert set(find(context, settings)) == {rig, second}
    settings.subjects = "VISIBLE"
    second.hide_set(True)
    assert find(context, settings) == (rig,)
    settings.subjects, settings.collection = "COLLECTION", bpy.data.collections.new("Cast")
    assert find(context, settings) == ()
    settings.collection.objects.link(second)
    shot.collection.children.link(settings.collection)
    assert find(context, settings) == (second,)


def test_lengths_and_sizes_are_those_the_engine_takes(shot, addon):
    engine = module("shared.messages").EngineDescription(
        "poseanything", "PoseAnything", "", neural=True, size_multiple=32, frame_step=4, max_frames=121
    )
    plan, context, settings = module("request.range").clip_range, bpy.context, shot.poseanything
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 10, 89
    settings.long_side = 832
    made = plan(context, settings, engine)
    assert (made.num_frames, made.times.duration, made.times.start) == (81, 80, 10), (
        "81 of 80: the last is a handle"
    )
    assert made.width == 832 and made.height % 32 == 0
    settings.frame_end = 10
    assert plan(context, settings, engine).num_frames == 1
    shot.use_preview_range, shot.frame_preview_start, shot.frame_preview_end = True, 3, 7
    settings.use_custom_range = False
    planned = plan(context, settings, None)
    assert (planned.times.start, planned.num_frames) == (3, 5)
    settings.use_custom_range, settings.frame_end = True, 400
    with pytest.raises(
        module("errors").ExportError, match="at most 121; shorten the range or raise the step"
    ):
        plan(context, settings, engine)


def test_poses_only_where_the_animator_set_keys(shot, served, sent):
    served()
    settings = shot.poseanything
    settings.pose_density, shot.frame_start, shot.frame_end = "KEYS", 1, 24
    rig = bpy.data.objects["Rig"]
    rig.pose.bones["bone2"].keyframe_insert("location", frame=9)
    bpy.ops.poseanything.generate(wait=True)
    assert sent[-1].pose_frames == (0, 8, 19, 23), "keys at 1, 9 and 20; the last frame always has one"
    settings.frame_step = 4
    bpy.ops.poseanything.generate(wait=True)
    assert sent[-1].pose_frames == (0, 2, 5)


def test_poses_where_an_action_of_several_is_keyed_for_this_one(shot):
    rig = bpy.data.objects["Rig"]
    if not hasattr(rig.animation_data, "action_slot"):
        pytest.skip("actions have no slots in this Blender")
    other = make_rig("Other")
    settings, ranges = shot.poseanything, module("request.range")
    settings.pose_density, shot.frame_start, shot.frame_end = "KEYS", 1, 24
    action = rig.animation_data.action
    other.animation_data.action = action
    other.animation_data.action_slot = action.slots.new("OBJECT", "Other")
    other.keyframe_insert("location", frame=9)
    planned = ranges.clip_range(bpy.context, settings, None)
    assert ranges.pose_frames(bpy.context, settings, planned) == (0, 8, 23)
    other.select_set(False)
    rig.select_set(True)
    assert ranges.pose_frames(bpy.context, settings, planned) == (0, 19, 23)


def test_takes_in_a_linked_folder_stay_relative_to_the_file(shot, served, tmp_path):
    served()
    (tmp_path / "big disk").mkdir()
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "takes").symlink_to(tmp_path / "big disk", target_is_directory=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film" / "film.blend"))
    shot.poseanything.take_name = "fox"
    bpy.ops.poseanything.generate(wait=True)
    assert strip_of(newest_job()).directory == "//takes/fox_001/"
    assert len(list((tmp_path / "big disk" / "fox_001").glob("fox_*.png"))) == 12


class Waiting:
    """The window of a stepped operator that first waits, then works."""

    workspace = SimpleNamespace(status_text_set=lambda text: None)
    window = area = None

    def __init__(self):
        self.window_manager = self
        self.event_timer_add = self.event_timer_remove = self.modal_handler_add = lambda *_, **__: None


def test_blender_is_the_users_while_the_server_is_awaited(addon):
    stepped, step = module("operators.stepped"), module("request.export").ExportStep

    class Operator(stepped.SteppedOperator):
        report = print

        def steps(self, context):
            yield step(0.0, "Looking for the server", waiting=True)
            while True:
                time.sleep(stepped.BUDGET)
                yield step(0.5, "Frame 5 of 10")

    operator, context = Operator(), Waiting()
    timer, click = SimpleNamespace(type="TIMER"), SimpleNamespace(type="LEFTMOUSE", value="PRESS")
    operator.invoke(context, None)
    operator.modal(context, timer)
    assert operator.modal(context, click) == {"PASS_THROUGH"}
    operator.modal(context, timer)
    assert operator.modal(context, click) == {"RUNNING_MODAL"}, "the scene must stay as it is"
    assert operator.modal(context, SimpleNamespace(type="ESC", value="PRESS")) == {"CANCELLED"}
    assert session().exporting is None


def test_skeleton_is_exported_without_any_server(shot, preferences, tmp_path):
    preferences.address = "tcp://127.0.0.1:9"
    shot.poseanything.take_name = "fox"
    assert bpy.ops.poseanything.export_skeleton() == {"FINISHED"}
    folder = tmp_path / "takes" / "fox skeleton_001"
    pictures = sorted(path.name for path in (folder / "skeleton").iterdir())
    assert pictures == [f"{i:03d}.png" for i in range(13)], (
        "thirteen of twelve: as many as the released model takes"
    )
    size = module("shared.messages").png_size
    assert {size((folder / "skeleton" / name).read_bytes()) for name in pictures} == {(128, 64)}
    image = bpy.data.images.load(str(folder / "skeleton" / "000.png"))
    pixels = np.empty(128 * 64 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    assert set(np.unique(pixels.reshape(-1, 4)[:, :3])) == {0.0, 1.0}
    assert size((folder / "first_frame.png").read_bytes()) == (128, 64)
    request = read_request(folder / "request.poserequest")  # as the server's command line reads it
    assert request.num_frames == 13 and request.first_frame == (folder / "first_frame.png").read_bytes()
    bpy.ops.poseanything.export_skeleton(directory=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "fox skeleton_001" / "request.poserequest").exists()


def test_limbs_of_selected_bones_are_set_at_once(shot):
    rig = bpy.data.objects["Rig"]
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="POSE")
    for pose_bone in rig.pose.bones:
        if hasattr(pose_bone, "select"):
            pose_bone.select = pose_bone.name != "bone2"
        else:
            pose_bone.bone.select = pose_bone.name != "bone2"
    bpy.ops.poseanything.set_limb(limb="SKIP")
    assert [bone.poseanything.limb for bone in rig.data.bones] == ["SKIP", "SKIP", "AUTO"]
    bpy.ops.object.mode_set(mode="OBJECT")


def test_settings_of_a_later_release_are_passed_over(shot):
    settings = shot.poseanything
    kept = module("settings").record(settings)
    kept |= {"prompt": "kept", "view": "HOLOGRAM", "telepathy": 3}
    module("settings").restore(settings, kept)
    assert settings.prompt == "kept" and settings.view == "CAMERA"


def test_engine_choice_outlives_its_server(shot, served):
    served()
    settings = shot.poseanything
    bpy.ops.poseanything.generate(wait=True)
    settings.engine = "draft"
    session().bridge.disconnect()
    assert settings.engine == "draft"
    settings.engine = "AUTO"
    assert settings.engine_name == ""


def test_first_frame_is_saved_painted_over_and_used(shot, served, sent, tmp_path):
    served()
    settings = shot.poseanything
    assert bpy.ops.poseanything.save_first_frame() == {"FINISHED"}
    assert settings.first_frame_source == "PICTURE"
    assert settings.first_frame_path == "//takes/Scene first frame_001/Scene first frame_001.png"
    path = tmp_path / "takes" / "Scene first frame_001" / "Scene first frame_001.png"
    width, height = module("shared.messages").png_size(path.read_bytes())
    painted = png(np.full((height, width, 3), (200, 40, 90), np.uint8))
    path.write_bytes(painted)
    bpy.ops.poseanything.generate(wait=True)
    read = module("ground_truth.first_frame").read_picture
    used = newest_job().take.folder / "first_frame.png"
    assert (read(str(used)) == (200, 40, 90)).all()
