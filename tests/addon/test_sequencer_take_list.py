"""The list of takes: kept in the file, whatever happens to strips and folders."""

from __future__ import annotations

from pathlib import Path

import bpy
import pytest

from tests.addon.scenes import make_take, newest_job, poll_until, session, settle, span, strip_of
from tests.addon.servers import module


def listed(scene):
    return [(item.name, item.frames, item.state) for item in scene.poseanything_takes.items]


def generate():
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    return newest_job()


def reopen(tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    session().bridge.jobs.clear()
    session().arrival.placements.clear()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    return bpy.context.scene


def test_takes_are_there_after_reopening(shot, served, tmp_path):
    served()
    generate()
    job = generate()
    assert listed(shot) == [("Scene_001", 12, "DONE"), ("Scene_002", 12, "DONE")]
    shot.poseanything_takes.items[1].rating = 4
    scene = reopen(tmp_path)
    assert listed(scene) == [("Scene_001", 12, "DONE"), ("Scene_002", 12, "DONE")]
    item = scene.poseanything_takes.items[1]
    assert item.rating == 4 and item.made and scene.poseanything_takes.index == 1
    assert module("sequencer.take_list").take_of(item) == job.take
    assert bpy.ops.poseanything.make_again(take_id=item.take_id, wait=True) == {"FINISHED"}
    assert len(scene.poseanything_takes.items) == 3


def test_a_clip_that_fails_is_listed_with_its_reason(shot, served, tmp_path):
    served("dies")
    with pytest.raises(RuntimeError):
        bpy.ops.poseanything.generate(wait=True)
    [item] = reopen(tmp_path).poseanything_takes.items
    assert (item.frames, item.num_frames, item.state) == (3, 12, "FAILED")
    sentence_of = module("sequencer.take_list").sentence_of
    assert "went away in the middle" in item.sentence and sentence_of(item) == item.sentence
    assert sentence_of(item).template.startswith("The server at {address} went away in the middle")
    for other in ("", "[", '["{address.x}", {"address": "x"}]'):  # of an earlier release, or damaged
        item.sentence_parts = other
        assert sentence_of(item) == item.sentence


def test_takes_of_earlier_releases_are_listed_at_load(clean_scene, tmp_path):
    strips = module("sequencer.strips")
    for number in (1, 2):
        take = make_take(tmp_path / "takes" / f"fox_00{number}", name=f"fox_00{number}", record={"seed": 7})
        take.folder.mkdir(parents=True)
        for index in range(5):
            (take.folder / f"{take.name}_{index + 1:04d}.png").touch()
        strips.show_frames(clean_scene, f"id{number}", take, 5)
    scene = reopen(tmp_path)
    assert listed(scene) == [("fox_001", 5, ""), ("fox_002", 5, "")]
    assert reopen(tmp_path) and len(bpy.context.scene.poseanything_takes.items) == 2, "once"


def test_undo_does_not_lose_a_take(shot, served):
    served(pace=60)
    bpy.ops.poseanything.generate()
    job = newest_job()
    poll_until(lambda: job.frames > 2)
    session().arrival.before_undo()
    shot.poseanything_takes.items.clear()
    session().arrival.after_undo()
    settle(job)
    assert listed(shot) == [("Scene_001", 12, "DONE")]


def test_showing_a_take_brings_back_its_strip(shot, served):
    served()
    job = generate()
    scene, strip = module("sequencer.strips").find_strip(job.id)
    module("sequencer.strips").strips_of(scene).remove(strip)
    assert bpy.ops.poseanything.show_take(take_id=job.id) == {"FINISHED"}
    strip = strip_of(job)
    assert len(strip.elements) == 12 and scene.sequence_editor.active_strip == strip
    assert scene.frame_current == span(strip)[0]


def test_a_folder_that_was_moved_is_found_again(shot, served, tmp_path):
    served()
    job, other = generate(), generate()
    moved = tmp_path / "elsewhere" / job.take.name
    moved.parent.mkdir()
    job.take.folder.rename(moved)
    scene = reopen(tmp_path)
    with pytest.raises(RuntimeError, match="holds Scene_002; choose the folder of Scene_001"):
        bpy.ops.poseanything.relink_take(take_id=job.id, directory=str(other.take.folder))
    assert bpy.ops.poseanything.relink_take(take_id=job.id, directory=str(moved)) == {"FINISHED"}
    item = scene.poseanything_takes.items[0]
    assert item.folder == strip_of(job).directory == "//elsewhere/Scene_001/"
    assert module("sequencer.take_list").take_of(item).frames_on_disk() == 12


@pytest.mark.parametrize("copy", [False, True])
def test_takes_and_the_picture_are_found_from_where_a_file_is_saved_next(shot, served, tmp_path, copy):
    """Blender makes its own paths follow, but not those of an extension."""
    served()
    job, next_file = generate(), str(tmp_path / "elsewhere" / "film.blend")
    (tmp_path / "elsewhere").mkdir()
    shot.poseanything.first_frame_path = "//takes/picture.png"
    bpy.ops.wm.save_as_mainfile(filepath=next_file, copy=copy)
    take_list = module("sequencer.take_list")
    for _ in range(2):
        scene = bpy.context.scene
        [item] = scene.poseanything_takes.items
        assert item.folder.startswith("//") and item.folder.endswith("/")
        assert take_list.take_of(item) == job.take
        picture = bpy.path.abspath(scene.poseanything.first_frame_path)
        assert Path(picture).resolve() == tmp_path / "takes" / "picture.png"
        bpy.ops.wm.open_mainfile(filepath=next_file)
