"""A clip's time: at a rate of its own, between frames, slowed down, stretched by the scene."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.addon.rigs import export, read_png
from tests.addon.scenes import make_take, names, newest_job, settle, span, strip_of
from tests.addon.servers import module, overridden


@given(
    scene=st.sampled_from([24, 25, 30, 50, 60]),
    clip=st.sampled_from([8, 12, 16, 24, 25, 30, 48]),
    duration=st.integers(1, 200),
    first=st.integers(-50, 2000),
    edit=st.sampled_from([24, 25, 30, 50]),
    half=st.booleans(),
)
def test_a_clip_of_any_rate_lasts_as_long_as_its_range(addon, scene, clip, duration, first, edit, half):
    """Checked in fractions, which round nothing: each frame of an edit shows what was filmed at its time."""
    times = module("times")
    step, speed = Fraction(scene, clip), Fraction(1, 2) if half else Fraction(1)
    step *= speed
    frames = times.frames_in(duration, float(step))
    assert (frames - 1) * step < duration <= frames * step, "no frame too few or too many"
    clip_times = times.ClipTimes(first, float(step), frames, duration, float(speed))
    for index in (0, frames // 2, frames - 1):
        assert clip_times.at(index) == pytest.approx(float(first + index * step))
        assert clip_times.index_at(clip_times.at(index)) == index
    take = module("takes.take").Take(Path("x"), "fox_001", clip_times, {})
    rate = Fraction(edit, scene)
    names = take.element_names(frames, float(rate))
    assert abs(len(names) - duration / speed * rate) <= max(Fraction(1, 2), 1 - duration / speed * rate)
    pace = step / speed * rate
    assert names == [f"fox_001_{min(int(i / pace), frames - 1) + 1:04d}.png" for i in range(len(names))]


def test_lengths_are_the_engine_s(addon):
    times = module("times")
    assert [times.frames_in(80, 1, 4), times.frames_in(80, 50 / 24, 4), times.frames_in(40, 0.5, 4)] == [
        81,
        41,
        81,
    ]


def test_a_part_begins_with_a_frame_of_the_whole_and_lies_where_that_is_shown(addon):
    """Half as fast, of a scene of 50 frames a second, at 24: each clip frame is 1.04 scene frames later."""
    times = module("times")
    whole = times.ClipTimes(11, 25 / 24, 96, 100, 0.5)
    part = whole.part(40, 60, 4)
    begin = whole.index_at(40)
    assert part.start == whole.at(begin) <= 40 < whole.at(begin + 1)
    assert part.end == pytest.approx(60) and part.num_frames % 4 == 1
    assert part.shown_from == pytest.approx(11 + 2 * (part.start - 11)), "shown half as fast as it was filmed"
    assert whole.part(0, 1000).end == whole.end


def test_a_take_is_read_by_earlier_releases_where_it_has_nothing_new(addon, tmp_path):
    takes = module("takes.take")
    plain = json.loads(takes.to_json(make_take(tmp_path, frame_step=2)))
    assert set(plain) == {"name", "num_frames", "frame_start", "frame_step", "duration", "record"}
    assert isinstance(plain["frame_step"], int)
    for new in ({}, {"speed": 0.25, "place": 7.5, "frame_step": 25 / 12}):
        take = make_take(tmp_path, **new)
        assert takes.from_json(takes.to_json(take), tmp_path) == take
    later = takes.to_json(take).replace('"name"', '"of a later release": 1, "name"')
    assert takes.from_json(later, tmp_path) == take


def test_poses_are_those_of_moments_between_frames(shot):
    rig = bpy.data.objects["Rig"]
    clip = export([rig], frame_start=5, frame_step=0.5, num_frames=4)
    for index in range(4):
        alone = export([rig], frame_start=5 + index / 2, num_frames=1).pose
        assert np.allclose(clip.pose.frame(index)[-1].points, alone.frame(0)[-1].points, atol=1e-3)
    ends = [clip.pose.frame(index)[-1].points[-1, :2] for index in range(4)]
    assert all((one != other).any() for one, other in zip(ends, ends[1:])), "it moves in every one of them"


def test_a_clip_of_its_own_rate_in_slow_motion_from_the_button_to_a_range_made_again(shot, served, sent):
    """Twelve frames at 50 a second, shown half as fast at 24 a second, in an edit of 25 a second."""
    served()
    edit = bpy.data.scenes.new("Edit")
    shot.render.fps, edit.render.fps = 50, 25
    settings = shot.poseanything
    settings.pacing, settings.clip_rate, settings.speed = "RATE", 24.0, 0.5
    strips = module("sequencer.strips")
    with overridden(scene=shot):
        bpy.ops.poseanything.generate(wait=True)
        whole = newest_job()
        settle(whole)
        assert sent[-1].fps == pytest.approx(24)
        assert sent[-1].num_frames == 12, "0.48 seconds of 24"
        strip = strip_of(whole)
        assert span(strip) == (5, 5 + 24), "12 frames are shown for 24 of the scene's, from the fifth on"
        bpy.ops.poseanything.retake_range(take_id=whole.id, frame_start=11, frame_end=16, wait=True)
    part = newest_job()
    settle(part)
    begin = whole.take.times.index_at(11)
    shown = [int(name[-8:-4]) - 1 for name in names(strip)]
    assert span(strip_of(part)) == (5 + shown.index(begin), 5 + 24), "above what it takes the place of"
    assert read_png(sent[-1].first_frame).shape[:2] == (sent[0].height, sent[0].width)
    strips.show_frames(edit, "again", whole.take, 12)
    start, end = span(strips.find_strip("again")[1])
    assert (start, end - start) == (round(5 / 2), 12), "as many seconds in an edit of another rate"


def test_a_key_pose_is_set_where_the_sequencer_s_playhead_is(shot):
    """Of an edit of half the frame rate, in which the shot of frames 5 to 16 begins at the second frame."""
    edit, [window] = bpy.data.scenes.new("Edit"), bpy.context.window_manager.windows
    shot.render.fps, edit.render.fps = 48, 24
    edit.frame_set(5)
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    with overridden(window=window, area=area, region=area.regions[-1]):
        if not hasattr(bpy.context, "sequencer_scene"):
            pytest.skip("before Blender 5.0 a sequencer shows its window's scene")
        bpy.context.workspace.sequencer_scene = edit
        bpy.ops.poseanything.toggle_key_pose()
    assert module("request.range").key_poses(shot.poseanything) == [11], (
        "3 frames of the edit after the first"
    )
    times = module("request.range").clip_range(bpy.context, shot.poseanything, None).times
    assert times.moment_in(0.5, 6) == 5 and times.index_in(0.5, 5) == 6


@pytest.fixture
def stretched(shot):
    """A scene that plays its animation half as fast: what is keyed at 20 is seen at 40."""
    shot.render.frame_map_old, shot.render.frame_map_new = 100, 200
    shot.frame_start, shot.frame_end = 1, 60
    return shot


def test_keys_and_markers_are_where_time_stretching_plays_them(stretched):
    settings, ranges = stretched.poseanything, module("request.range")
    planned = ranges.clip_range(bpy.context, settings, None)
    settings.pose_density = "KEYS"  # at 1 and 20
    assert ranges.pose_frames(bpy.context, settings, planned) == (0, 1, 39, 59)
    settings.pose_density = "MARKERS"
    for frame in (10, 25):
        stretched.timeline_markers.new("a", frame=frame).select = True
    assert ranges.pose_frames(bpy.context, settings, planned) == (0, 19, 49, 59)
    found = {span.label: (span.first, span.last) for span in module("request.spans").spans(bpy.context)}
    assert found["Selected Markers"] == (20, 50) and found["Selected Keys"] == (2, 40)


def test_a_camera_s_keys_play_what_was_flown_under_time_stretching(stretched):
    moves, flight = module("operators.camera_moves"), module("camera.flight").Flight()
    places = {}
    for frame in range(1, 21):
        places[frame] = camera_at(stretched, frame, (frame, -8, frame / 5))
        flight.add(frame, places[frame], 2.0)
    moves.keep_flight(bpy.context, flight, 1, 20)
    for frame, placed in places.items():
        stretched.frame_set(frame)
        apart = (stretched.camera.matrix_world.translation - placed.translation).length
        assert apart < 1e-3, "at the scene's frame, whatever the animation's is"


def camera_at(scene, frame, place):
    matrix = scene.camera.matrix_world.copy()
    matrix.translation = place
    return matrix
