"""Matching of parts by attention, and parts known from the scene."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("skimage")

from inference_server.poseanything.conditioning.parts import (
    PartPlan,
    match_parts,
    merge_parts,
    parts_from_truth,
)  # noqa: E402
from tests.golden import recordings  # noqa: E402

HEIGHT, WIDTH = 3, 4
TOKENS = HEIGHT * WIDTH


@pytest.mark.parametrize("recording", recordings("*_io.npz"))
def test_release_mode_matches_as_the_official_code_did(recording):
    recorded = np.load(recording)
    if "match_union_mask_official" not in recorded:
        pytest.skip(f"{recording.name} has no matching in it")
    frames, counts = recorded["match_condition_index"].tolist(), recorded["match_counts"].tolist()
    masks = [found[:count] for found, count in zip(recorded["match_binary_masks"], counts)]
    plan = PartPlan(masks[0], dict(zip(frames[1:], masks[1:])))
    for weights in recorded["attn_last_block_headsum"]:
        matched = match_parts(plan, weights, mode="release")
        np.testing.assert_array_equal(matched, recorded["match_union_mask_official"])
        from_few_rows = match_parts(plan, weights[plan.rows], plan.rows, mode="release")
        np.testing.assert_array_equal(from_few_rows, matched)


@st.composite
def matching_problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_later, num_parts = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    density = draw(st.sampled_from([0.1, 0.5, 0.9]))
    first = rng.random((num_parts, HEIGHT, WIDTH)) < density
    posed = draw(st.sets(st.integers(1, 4 * num_later)))
    candidates = {frame: rng.random((draw(st.integers(0, 3)), HEIGHT, WIDTH)) < density for frame in posed}
    weights = rng.random((TOKENS, (num_later + 1) * TOKENS)).astype(np.float32)
    return PartPlan(first, candidates), weights


@given(matching_problems())
def test_paper_mode_unites_the_best_candidates_of_a_latent_frame(problem):
    plan, weights = problem
    later = weights.shape[1] // TOKENS - 1
    expected = np.zeros((later, *plan.first.shape), bool)
    for latent in range(1, later + 1):
        on_this_frame = weights[:, latent * TOKENS : (latent + 1) * TOKENS].astype(np.float64)
        for frame in range(4 * latent - 3, 4 * latent + 1):
            for p, part in enumerate(plan.first):
                options = [mask for mask in plan.candidates.get(frame, ()) if mask.any()]
                if part.any() and options:
                    means = [on_this_frame[np.ix_(part.ravel(), mask.ravel())].mean() for mask in options]
                    expected[latent - 1, p] |= options[int(np.argmax(means))]
    np.testing.assert_array_equal(match_parts(plan, weights), expected)
    np.testing.assert_array_equal(match_parts(plan, weights[plan.rows], plan.rows), expected)


def test_a_part_follows_the_tokens_it_attends_to():
    """Two parts swap sides; the weights know, and a release-like reading of the frame before would not."""
    left, right = np.zeros((2, HEIGHT, WIDTH), bool)
    left[:, :2], right[:, 2:] = True, True
    weights = np.full((TOKENS, 2 * TOKENS), 0.01)
    weights[np.ix_(left.ravel(), np.r_[np.zeros(TOKENS, bool), right.ravel()])] = 1
    weights[np.ix_(right.ravel(), np.r_[np.zeros(TOKENS, bool), left.ravel()])] = 1
    plan = PartPlan(np.stack([left, right]), {2: np.stack([left, right])})
    np.testing.assert_array_equal(match_parts(plan, weights)[0], [right, left])


def test_assigned_parts_share_no_candidate_as_long_as_there_are_enough():
    """Every part attends most to the left; the right one attends to the right a little more than others."""
    left, right = np.zeros((2, HEIGHT, WIDTH), bool)
    left[:, :2], right[:, 2:] = True, True
    weights = np.full((TOKENS, 2 * TOKENS), 0.1)
    weights[:, TOKENS:][:, left.ravel()] = 0.9
    weights[np.ix_(right.ravel(), np.r_[np.zeros(TOKENS, bool), right.ravel()])] = 0.2
    both = np.stack([left, right])
    for candidates in (both, both[::-1]):
        plan = PartPlan(both, {2: candidates})
        np.testing.assert_array_equal(match_parts(plan, weights)[0], [left, left])
        np.testing.assert_array_equal(match_parts(plan, weights, mode="assigned")[0], [left, right])
    alone = match_parts(PartPlan(both, {2: left[None]}), weights, mode="assigned")
    np.testing.assert_array_equal(alone[0], [left, left])


def test_attention_outweighs_a_short_way():
    """Two parts change places, and attention tells so clearly."""
    one, other = np.zeros((2, 4, 12), bool)
    one[:2, 2:5], other[:2, 7:10] = True, True
    weights = np.full((48, 96), 1e-4)
    for source, target in ((one, other), (other, one)):
        weights[np.ix_(source.ravel(), np.r_[np.zeros(48, bool), target.ravel()])] = 0.9
    plan = PartPlan(np.stack([one, other]), {1: np.stack([one, other])})
    np.testing.assert_array_equal(match_parts(plan, weights, mode="assigned")[0], [other, one])


def test_parts_that_pass_each_other_are_followed_from_frame_to_frame():
    """Where nothing tells them apart, but that they were elsewhere a frame before."""
    frames = np.zeros((5, 2, 4, 12), bool)
    for frame in range(5):
        frames[frame, 0, 0, 2 * frame : 2 * frame + 3] = True
        frames[frame, 1, 3, 8 - 2 * frame : 11 - 2 * frame] = True
    plan = PartPlan(frames[0], {frame: frames[frame] for frame in range(1, 5)})
    weights = np.full((48, 5 * 48), 0.1)
    np.testing.assert_array_equal(match_parts(plan, weights, None, "assigned", 1), frames[1:])


def plan_of_one():
    return PartPlan(np.ones((1, HEIGHT, WIDTH), bool), {1: np.ones((1, HEIGHT, WIDTH), bool)})


@pytest.mark.parametrize(
    ("shape", "rows", "mode", "says"),
    [
        ((TOKENS, TOKENS + 1), None, "paper", "do not fit"),
        ((TOKENS - 1, 2 * TOKENS), None, "paper", "do not fit"),
        ((TOKENS, TOKENS), None, "paper", "do not fit"),
        ((2, 2 * TOKENS), np.array([0, 1]), "paper", "lack rows"),
        ((TOKENS, 2 * TOKENS), None, "official", "choose"),
    ],
)
def test_weights_of_another_clip_are_refused(shape, rows, mode, says):
    with pytest.raises(ValueError, match=says):
        match_parts(plan_of_one(), np.ones(shape), rows, mode)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([1, 4]), st.sampled_from([0.02, 0.6]))
def test_true_parts_cover_their_pixels_in_every_latent_frame(seed, num_later, scale, density):
    rng = np.random.default_rng(seed)
    maps = rng.integers(1, 5, (1 + 4 * num_later, HEIGHT * scale, WIDTH * scale), np.uint8)
    maps[rng.random(maps.shape) > density] = 0
    first, frames = parts_from_truth(maps, HEIGHT, WIDTH)
    shown = sorted(set(maps[0].ravel().tolist()) - {0})
    assert first.shape == (len(shown), HEIGHT, WIDTH)
    assert frames.shape == (num_later, len(shown), HEIGHT, WIDTH)

    def cell(frame, y, x):
        return set(maps[frame, y * scale : (y + 1) * scale, x * scale : (x + 1) * scale].ravel().tolist())

    for p, part in enumerate(shown):
        for y, x in np.ndindex(HEIGHT, WIDTH):
            assert first[p, y, x] == (part in cell(0, y, x))
            for latent in range(num_later):
                pixel_frames = range(4 * latent + 1, 4 * latent + 5)
                assert frames[latent, p, y, x] == any(part in cell(frame, y, x) for frame in pixel_frames)


def test_a_finer_first_map_replaces_the_first_frame_of_the_part_maps():
    maps = np.zeros((5, HEIGHT, WIDTH), np.uint8)
    maps[1:, 1, 1] = 7
    fine = np.zeros((HEIGHT * 32, WIDTH * 32), np.uint8)
    fine[40, 70] = 7
    first, frames = parts_from_truth(maps, HEIGHT, WIDTH, first_map=fine)
    assert np.argwhere(first).tolist() == [[0, 1, 2]]
    assert np.argwhere(frames).tolist() == [[0, 0, 1, 1]]


def test_part_maps_that_do_not_fill_latent_frames_are_refused():
    with pytest.raises(ValueError, match="give 5"):
        parts_from_truth(np.zeros((7, HEIGHT, WIDTH), np.uint8), HEIGHT, WIDTH)


def body_map(legs_apart: int) -> np.ndarray:
    """uint8 [40, 40]: a trunk 1, a head 2, arms 3 and 4, each with a hand 5 and 6, legs 7 and 8."""
    image = np.zeros((40, 40), np.uint8)
    image[10:25, 15:25] = 1
    image[4:10, 17:23] = 2
    image[11:14, 6:15], image[11:14, 25:34] = 3, 4
    image[11:14, 3:6], image[11:14, 34:37] = 5, 6
    image[25:38, 15 - legs_apart : 19 - legs_apart], image[25:38, 21 + legs_apart : 25 + legs_apart] = 7, 8
    image[24:26, 13:27][image[24:26, 13:27] == 0] = 1
    return image


def test_parts_are_merged_along_the_body_and_left_stays_apart_from_right():
    """In the first frame the legs touch, and hands are nearer to nothing than to their arms."""
    first = body_map(0)
    first[25:38, 19:21] = 7
    maps = np.stack([first, *(body_map(apart) for apart in (1, 2, 1, 0))])
    merged = merge_parts(maps, first, 5)
    groups = {}
    for part in range(1, 9):
        groups.setdefault(merged[part], set()).add(part)
    assert sorted(map(sorted, groups.values())) == [[1, 2], [3, 5], [4, 6], [7], [8]]
    assert merged[0] == 0 and merged[200] == 200
    assert np.array_equal(merge_parts(maps, first, 8), np.arange(256))
    assert len(set(merge_parts(maps, first, 1)[1:9])) == 1
