"""Label maps at the model's token resolution."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.pose import Limb, PoseSequence
from shared.raster import part_maps_to_tokens

maps = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 5)
)


@given(maps, st.integers(1, 4), st.integers(1, 4))
def test_a_map_blown_up_by_whole_cells_comes_back(tokens, rows, columns):
    blown = tokens.repeat(rows, 1).repeat(columns, 2)
    np.testing.assert_array_equal(part_maps_to_tokens(blown, *tokens.shape[1:]), tokens)


@given(maps, st.integers(1, 9), st.integers(1, 9))
def test_any_size_gives_labels_of_the_map(labels, height, width):
    tokens = part_maps_to_tokens(labels, height, width)
    assert tokens.shape == (len(labels), height, width) and tokens.dtype == np.uint8
    for frame, token in zip(labels, tokens):
        assert set(token.ravel()) <= set(frame.ravel()) | {0}


def test_the_label_that_covers_most_wins_where_the_subject_covers_enough():
    cell = np.zeros((1, 4, 4), np.uint8)
    cell[0, 0] = 7  # a quarter
    cell[0, 1] = [9, 9, 9, 0]  # three sixteenths
    assert part_maps_to_tokens(cell, 1, 1, coverage=0.5) == 0
    assert part_maps_to_tokens(cell, 1, 1, coverage=7 / 16) == 7
    cell[0, 2] = 9
    assert part_maps_to_tokens(cell, 1, 1) == 9


def test_an_empty_cell_stays_empty_at_any_coverage():
    assert not part_maps_to_tokens(np.zeros((2, 8, 8), np.uint8), 2, 2, coverage=0).any()


def test_parts_are_decided_by_majority_over_their_limbs():
    limbs = [Limb("upper", 0), Limb("lower", 0), Limb("tail", 1)]
    pose = PoseSequence.from_frames(8, 8, ["leg", "tail"], limbs, [[]])
    labels = np.array([[[1, 1, 2, 2, 3, 3, 3, 0]]], np.uint8)
    assert part_maps_to_tokens(labels, 1, 1) == 3
    assert part_maps_to_tokens(pose.part_lookup()[labels], 1, 1) == 1
