"""Where takes go: F12 must render the scene that is filmed."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.scenes import newest_job, poll_until, session, settle, strip_of
from tests.addon.servers import module


def scene_of(job):
    return module("sequencer.strips").find_strip(job.id)[0]


def generate():
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    return newest_job()


def test_takes_go_to_one_edit_scene(shot, served):
    served()
    shot.render.fps, shot.render.fps_base = 30, 1.001
    first, second = generate(), generate()
    edit = scene_of(first)
    assert edit == scene_of(second) == bpy.data.scenes["Shots"] != shot
    assert shot.sequence_editor is None or not len(module("sequencer.strips").all_strips(shot))
    for name in ("fps", "fps_base", "resolution_x", "resolution_y"):
        assert getattr(edit.render, name) == getattr(shot.render, name)
    assert edit.view_settings.view_transform == "Standard"
    assert edit.frame_start <= 5 and edit.frame_end >= 16
    edit.name = "Film"
    assert scene_of(generate()).name == "Film" and len(bpy.data.scenes) == 2


def test_f12_renders_the_scene_after_generating(shot, served, tmp_path):
    def picture(name):
        shot.render.filepath = str(tmp_path / name)
        shot.render.image_settings.file_format = "PNG"
        shot.frame_set(5)
        bpy.ops.render.render(write_still=True, scene=shot.name)
        image = bpy.data.images.load(str(tmp_path / f"{name}.png"))
        pixels = np.array(image.pixels)
        bpy.data.images.remove(image)
        return pixels

    served()
    before = picture("before")
    generate()
    assert np.array_equal(picture("after"), before)


@pytest.mark.parametrize("choice", ["AUTO", "SCENE"])
def test_the_scene_s_own_sequencer_is_used_where_it_is_in_use_or_wanted(shot, served, choice):
    served()
    shot.poseanything.strips_go_to = choice
    if choice == "AUTO":
        arguments = {"length": 5} if bpy.app.version >= (5, 0, 0) else {"frame_end": 6}
        module("sequencer.strips").strips_of(shot).new_effect(
            name="mine", type="COLOR", channel=1, frame_start=1, **arguments
        )
    assert scene_of(generate()) == shot and "Shots" not in bpy.data.scenes


def test_a_new_strip_is_the_active_one(shot, served):
    served()
    for _ in range(2):
        job = generate()
        editor = scene_of(job).sequence_editor
        assert editor.active_strip == strip_of(job)
        assert [
            strip.name for strip in module("sequencer.strips").all_strips(scene_of(job)) if strip.select
        ] == [strip_of(job).name]


def test_an_edit_scene_that_was_undone_is_made_again(shot, served):
    served(pace=60)
    bpy.ops.poseanything.generate()
    job = newest_job()
    poll_until(lambda: job.frames > 2)
    arrival = session().arrival
    arrival.before_undo()
    bpy.data.scenes.remove(bpy.data.scenes["Shots"])
    arrival.after_undo()
    settle(job)
    assert scene_of(job).name == "Shots" and len(strip_of(job).elements) == 12
