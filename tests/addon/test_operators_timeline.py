"""Generating from time lines: what is meant by what is selected, and takes that last as long everywhere."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.rigs import write_picture
from tests.addon.scenes import make_take, names, newest_job, settle, span, strip_of
from tests.addon.servers import module, overridden


def meant(**context):
    with overridden(**context):
        return {span.label: (span.first, span.last) for span in module("request.spans").spans(bpy.context)}


def test_what_is_selected_says_what_is_meant(shot):
    for key in [key for curve in curves() for key in curve.keyframe_points]:
        key.select_control_point = False
    assert meant() == {"Scene": (5, 16)}
    first, second = (shot.timeline_markers.new(name, frame=frame) for name, frame in (("a", 7), ("b", 12)))
    first.select, second.select = True, False
    shot.frame_set(13)
    assert meant() == {"From Marker": (7, 11), "Shot at the Playhead": (12, 16), "Scene": (5, 16)}
    second.select, shot.use_preview_range = True, True
    shot.frame_preview_start, shot.frame_preview_end = 6, 9
    for key in [key for curve in curves() for key in curve.keyframe_points]:
        key.select_control_point = True
    assert meant() == {
        "Selected Keys": (1, 20),
        "Selected Markers": (7, 12),
        "Shot at the Playhead": (12, 16),
        "Preview Range": (6, 9),
        "Scene": (5, 16),
    }


def curves():
    rig = bpy.data.objects["Rig"]
    return list(module("rig.animation").all_curves(rig))


def test_a_range_is_generated_and_the_settings_stay(shot, served, sent):
    served()
    before = module("settings").record(shot.poseanything)
    shot.poseanything.take_name = "range"
    assert bpy.ops.poseanything.generate_range(frame_start=7, frame_end=11, wait=True) == {"FINISHED"}
    assert sent[-1].num_frames == 5
    settle(newest_job())
    assert span(strip_of(newest_job())) == (7, 12)
    after = module("settings").record(shot.poseanything)
    assert {name for name in before if before[name] != after[name]} <= {"seed", "take_name"}
    record = newest_job().take.record
    assert (record["settings"]["frame_start"], record["settings"]["frame_end"]) == (7, 11)
    assert record["seed"] == record["settings"]["seed"] == sent[-1].seed


def test_a_strip_begins_where_the_playhead_is(shot, served, sent):
    served()
    shot.poseanything.strips_go_to = "SCENE"
    shot.frame_set(40)
    bpy.ops.poseanything.generate_range(frame_start=7, frame_end=11, at_playhead=True, wait=True)
    settle(newest_job())
    assert span(strip_of(newest_job())) == (40, 45)
    shot.frame_set(60)
    assert bpy.ops.poseanything.place_take(take_id=newest_job().id) == {"FINISHED"}
    strips = module("sequencer.strips")
    placed = sorted(span(strip) for strip in strips.all_strips(shot))
    assert placed == [(40, 45), (60, 65)]
    module("sequencer.take_list").enter_strips()
    assert len(shot.poseanything_takes.items) == 1, "it is the same take in both places"
    folder = str(newest_job().take.folder)
    assert bpy.ops.poseanything.add_take(directory=folder, dropped_at=80) == {"FINISHED"}
    assert len(shot.poseanything_takes.items) == 1 and span(strips.all_strips(shot)[-1]) == (80, 85)
    strips.strips_of(shot).remove(strips.all_strips(shot)[-1])
    compare = module("sequencer.compare")
    for shown in (False, True):
        compare.set_shown(shot, newest_job().id, shown)
        assert [strip.mute for strip in strips.all_strips(shot)] == [not shown] * 2


@pytest.mark.parametrize(
    ("there", "shown"),
    [
        (50, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
        (30, [0, 0, 1, 2, 3, 4]),
        (12.5, [0, 2]),
        (25, [0, 1, 2, 3, 4]),
    ],
)
def test_a_strip_lasts_as_long_as_the_shot_in_an_edit_of_any_frame_rate(
    addon, clean_scene, tmp_path, there, shown
):
    for index in range(5):
        write_picture(tmp_path / f"fox_001_{index + 1:04d}.png", np.zeros((8, 8, 3), np.uint8))
    take = make_take(tmp_path, frame_start=100, record={"fps": 25.0})
    clean_scene.render.fps, clean_scene.render.fps_base = round(there * 2), 2.0
    strips = module("sequencer.strips")
    for count in (1, 3, 5):
        strips.show_frames(clean_scene, "job", take, count)
    strip = strips.find_strip("job")[1]
    assert [int(name[8:12]) - 1 for name in names(strip)] == shown
    start, end = span(strip)
    assert start == round(100 * there / 25) and (end - start) / there == pytest.approx(
        5 / 25, abs=0.51 / there
    )


@pytest.mark.parametrize(
    ("pacing", "speed", "label"),
    [("STEP", 1.0, "Use Step 5"), ("STEP", 0.5, "Use Step 9"), ("RATE", 0.5, "Use 2.9 Frames a Second")],
)
def test_a_range_that_is_too_long_for_the_engine_has_a_button(shot, pacing, speed, label):
    """The step or rate that brings it within what the engine makes, whatever that engine counts by."""
    shot.poseanything.pacing, shot.poseanything.speed = pacing, speed
    engine = module("shared.engines").EngineDescription(
        "film", "Film", "", neural=True, size_multiple=32, frame_step=4, max_frames=121
    )
    blockers = module("request.blockers")
    assert not blockers.size_blockers(bpy.context, engine)
    shot.frame_start, shot.frame_end = 1, 500
    [finding] = blockers.size_blockers(bpy.context, engine)
    assert "makes at most 121" in finding.sentence and finding.label == label
    category, name = finding.operator.split(".")
    assert getattr(getattr(bpy.ops, category), name)(**dict(finding.properties)) == {"FINISHED"}
    assert not blockers.size_blockers(bpy.context, engine)
    planned = module("request.range").clip_range(bpy.context, shot.poseanything, engine)
    assert planned.num_frames <= 121 and planned.num_frames % 4 == 1 and planned.times.duration == 500
