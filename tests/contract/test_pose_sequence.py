"""A pose sequence gives back what was put in, whole or in part, at any canvas size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.pose import MAX_FRAMES, Limb, Polyline, PoseSequence
from shared.schema import MessageError
from tests.contract.strategies import assert_one_sentence, bits, poses

LIMBS = [Limb("spine", 0), Limb("shin", 1), Limb("shin", 1, 1)]
points = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 5), st.just(3)), elements=st.floats(-1e4, 1e4, width=32)
)
polylines = st.builds(Polyline, st.integers(0, len(LIMBS) - 1), points)
drawn_frames = st.lists(st.lists(polylines, max_size=4), max_size=6)


def sequence(frames):
    return PoseSequence.from_frames(100, 50, ["body", "leg"], LIMBS, frames)


def contents(polylines):
    return [(polyline.limb, polyline.points.tobytes()) for polyline in polylines]


@given(drawn_frames)
def test_each_frame_holds_the_polylines_it_was_made_of(frames):
    pose = sequence(frames)
    assert pose.num_frames == len(frames)
    for index, polylines in enumerate(frames):
        assert contents(pose.frame(index)) == contents(polylines)
        joined, lengths = pose.frame_points(index)
        assert lengths.tolist() == [len(polyline.points) for polyline in polylines]
        assert joined.tobytes() == b"".join(polyline.points.tobytes() for polyline in polylines)
        assert all(np.shares_memory(polyline.points, pose.points) for polyline in pose.frame(index))


@given(drawn_frames)
def test_frames_count_from_the_end_like_a_list_and_not_beyond(frames):
    pose = sequence(frames)
    for index in range(1, len(frames) + 1):
        assert contents(pose.frame(-index)) == contents(frames[-index])
    for index in (len(frames), -len(frames) - 1):
        with pytest.raises(IndexError):
            pose.frame(index)


@given(drawn_frames, st.sets(st.integers(-2, 8)))
def test_a_sparse_sequence_keeps_the_frames_named_and_empties_the_others(frames, named):
    pose = sequence(frames).only(named)
    assert pose.num_frames == len(frames)
    for index, polylines in enumerate(frames):
        assert contents(pose.frame(index)) == (contents(polylines) if index in named else [])


@given(poses(), st.integers(1, 4096), st.integers(1, 4096))
def test_scaling_moves_points_with_the_canvas_and_leaves_depth(pose, width, height):
    try:
        scaled = pose.scaled(width, height)
    except MessageError as error:  # carried off beyond what a pose may hold
        assert_one_sentence(error)
        return
    assert (scaled.width, scaled.height, scaled.limbs) == (width, height, pose.limbs)
    np.testing.assert_allclose(scaled.points[:, 0] / width, pose.points[:, 0] / pose.width, rtol=1e-5)
    np.testing.assert_allclose(scaled.points[:, 1] / height, pose.points[:, 1] / pose.height, rtol=1e-5)
    assert bits(scaled.points[:, 2]) == bits(pose.points[:, 2])
    assert bits(pose.scaled(pose.width, pose.height)) == bits(pose)


@given(poses())
def test_limb_labels_become_the_labels_of_their_parts(pose):
    table = pose.part_lookup()
    assert table.shape == (256,) and table.dtype == np.uint8
    assert table[0] == 0 and not table[len(pose.limbs) + 1 :].any()
    assert [pose.parts[label - 1] for label in table[1 : len(pose.limbs) + 1]] == [
        pose.parts[limb.part] for limb in pose.limbs
    ]


line = np.array([[0, 0, 1], [5, 5, 1]], np.float32)


@pytest.mark.parametrize(
    "frames, words",
    [
        ([[Polyline(3, line)]], "belongs to no limb"),
        ([[Polyline(-1, line)]], "belongs to no limb"),
        ([[Polyline(256, line)]], "belongs to no limb"),
        ([[Polyline(0, line[:1])]], "do not cover its points"),
        ([[Polyline(0, line * np.nan)]], "not a number"),
        ([[]] * (MAX_FRAMES + 1), "offsets"),
    ],
)
def test_what_is_no_pose_is_refused(frames, words):
    with pytest.raises(MessageError, match=words) as caught:
        sequence(frames)
    assert_one_sentence(caught.value)


@given(poses(), st.sampled_from(["lengths", "owners", "offsets"]), st.data())
def test_tables_that_contradict_each_other_are_refused_or_still_readable(pose, name, data):
    table = getattr(pose, name)
    bounds = np.iinfo(table.dtype)
    values = st.integers(0, 5) | st.integers(int(bounds.min), int(bounds.max))
    other = data.draw(hnp.arrays(table.dtype, st.integers(0, len(table) + 1), elements=values))
    try:
        pose = dataclasses.replace(pose, **{name: other})
    except MessageError as error:
        assert_one_sentence(error)
    else:
        read = [polyline for index in range(pose.num_frames) for polyline in pose.frame(index)]
        assert sum(len(polyline.points) for polyline in read) == len(pose.points)
        assert all(polyline.limb < len(pose.limbs) for polyline in read)
