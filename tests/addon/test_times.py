"""A clip's time: at a rate of its own, between frames, slowed down, stretched by the scene."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import bpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.addon.scenes import make_take
from tests.addon.servers import module


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
