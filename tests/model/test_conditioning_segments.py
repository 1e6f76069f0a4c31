"""Segments, their dilation and their tokens: the official code's figures, and the rules on any drawing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2")
skeletonize = pytest.importorskip("skimage.morphology").skeletonize
convolve = pytest.importorskip("scipy.ndimage").convolve

from inference_server.poseanything.conditioning.parts import (  # noqa: E402
    dilate,
    dilation_alpha,
    plan_parts,
    split_segments,
    subject_from_cutout,
    token_masks,
)
from tests.golden import official_sample, recordings  # noqa: E402

CROSS = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))


class RecordedSegments:
    """What the official code made of some frames of a sample: `NAME` of `segments_NAME.npz`."""

    def __init__(self, path):
        self.sample = path.stem.removeprefix("segments_")
        self.arrays = np.load(path)
        described = json.loads(path.with_suffix(".json").read_text())
        self.alpha = described["alpha"]
        self.frames = {int(frame): facts for frame, facts in described["frames"].items()}

    def masks(self, frame, kind):
        """bool [parts, height, width]: the parts `undilated`, `dilated` or, at tokens' size, `latent`."""
        return self.arrays[f"frame_{frame:03d}_{kind}"]

    @property
    def size(self):
        height, width = self.frames[min(self.frames)]["resized_hw"]
        return width, height

    def pose(self, frame):
        path = official_sample(self.sample) / "skeleton" / f"{frame:03d}.png"
        return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)

    def pose_at_clip_size(self, frame):
        return cv2.resize(self.pose(frame), self.size, interpolation=cv2.INTER_LINEAR)

    def subject(self):
        cutout = cv2.imread(str(official_sample(self.sample) / "subject.png"))
        return subject_from_cutout(cv2.cvtColor(cutout, cv2.COLOR_BGR2RGB), *self.size)


@pytest.fixture
def recorded(request):
    return RecordedSegments(request.param)


every_recording = pytest.mark.parametrize("recorded", recordings("segments_*.npz"), indirect=True)


@every_recording
def test_recorded_segments_are_dilated_as_recorded(recorded):
    for frame, facts in recorded.frames.items():
        dilated = dilate(recorded.masks(frame, "undilated"), recorded.alpha)
        expected = recorded.masks(frame, "dilated")
        if facts["used_id_mask"]:  # cut off at a subject that the recording does not hold
            dilated &= expected.any(0)
        np.testing.assert_array_equal(dilated, expected)


@every_recording
def test_recorded_segments_have_the_recorded_tokens(recorded):
    for frame, facts in recorded.frames.items():
        width, height = facts["token_wh"]
        tokens = token_masks(recorded.masks(frame, "dilated"), height, width)
        np.testing.assert_array_equal(tokens, recorded.masks(frame, "latent"))


@every_recording
def test_segments_of_the_official_sample_are_the_official_ones(recorded):
    for frame in recorded.frames:
        segments = split_segments(recorded.pose_at_clip_size(frame))
        np.testing.assert_array_equal(segments, recorded.masks(frame, "undilated"))


@every_recording
def test_alpha_is_the_official_one(recorded):
    assert dilation_alpha(recorded.pose_at_clip_size(0), recorded.subject()) == recorded.alpha


@every_recording
def test_plan_has_the_official_token_masks(recorded):
    poses = {frame: recorded.pose(frame) for frame in recorded.frames}
    plan = plan_parts(poses, recorded.subject(), *recorded.size)
    np.testing.assert_array_equal(plan.first, recorded.masks(0, "latent"))
    assert set(plan.candidates) == set(recorded.frames) - {0}
    for frame, masks in plan.candidates.items():
        np.testing.assert_array_equal(masks, recorded.masks(frame, "latent"))


points = st.tuples(st.integers(0, 95), st.integers(0, 63))
strokes = st.lists(st.tuples(points, points, st.integers(1, 3)), max_size=9)


def draw(lines, height=64, width=96):
    image = np.zeros((height, width), np.uint8)
    for start, end, thickness in lines:
        cv2.line(image, start, end, 255, thickness)
    return image


def pieces_by_the_book(skeleton):
    """The release's rules, pixel by pixel: sets of points between junctions and end points, in scan order."""
    height, width = skeleton.shape
    lit = {(y, x) for y in range(height) for x in range(width) if skeleton[y, x]}

    def around(y, x):
        return {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx} & lit

    inside = {(y, x) for y, x in lit if 0 < y < height - 1 and 0 < x < width - 1}
    lines = lit - {point for point in inside if len(around(*point)) not in (0, 2)}
    pieces, seen = [], set()
    for point in sorted(lines):
        if point not in seen:
            piece, edge = {point}, [point]
            while edge:
                for neighbour in (around(*edge.pop()) & lines) - piece:
                    piece.add(neighbour)
                    edge.append(neighbour)
            seen |= piece
            pieces.append(piece)
    return [piece for piece in pieces if len(piece) > 1]


def merged_by_the_book(pieces):
    pieces = [set(piece) for piece in pieces]
    while len(pieces) > 1 and (len(pieces) > 5 or min(map(len, pieces)) < 20):
        lengths = [len(piece) for piece in pieces]
        shortest = pieces.pop(lengths.index(min(lengths)))
        gaps = [min((y - v) ** 2 + (x - u) ** 2 for y, x in piece for v, u in shortest) for piece in pieces]
        pieces[gaps.index(min(gaps))] |= shortest
    return pieces


@given(strokes)
def test_segments_of_any_drawing_follow_the_rules(lines):
    image = draw(lines)
    segments = split_segments(image)
    expected = merged_by_the_book(pieces_by_the_book(skeletonize(image > 127)))
    assert [set(map(tuple, np.argwhere(segment).tolist())) for segment in segments] == expected
    assert len(segments) <= 5
    assert len(segments) <= 1 or segments.sum((1, 2)).min() >= 20


@given(strokes)
def test_a_skeleton_pixel_is_in_one_segment_unless_it_is_a_key_point_or_alone(lines):
    image = draw(lines)
    skeleton = skeletonize(image > 127)
    neighbours = convolve(skeleton.astype(int), np.ones((3, 3), int), mode="constant") - 1
    owners = split_segments(image).sum(0)
    assert not owners[~skeleton].any()
    assert owners.max(initial=0) <= 1
    ownerless = skeleton & (owners == 0)
    on_a_line = neighbours == 2
    # A line pixel goes without an owner only between two key points, as a piece of one pixel.
    line_neighbours = convolve((skeleton & on_a_line).astype(int), np.ones((3, 3), int), mode="constant") - 1
    assert not (ownerless & on_a_line & (line_neighbours > 0))[2:-2, 2:-2].any()


@given(st.lists(st.integers(22, 90), min_size=1, max_size=5, unique=True))
def test_mirrored_bars_give_mirrored_segments(lengths):
    """Thinning itself prefers a side, so only drawings that are thin already can be mirrored."""
    image = np.zeros((64, 96), np.uint8)
    for row, length in enumerate(lengths):
        image[5 + 10 * row, 2 : 2 + length] = 255
    segments = split_segments(image)
    mirrored = split_segments(np.ascontiguousarray(image[:, ::-1]))
    assert len(segments) == len(lengths)
    assert {segment.tobytes() for segment in segments} == {segment[:, ::-1].tobytes() for segment in mirrored}


@given(strokes, st.integers(1, 100))
def test_dilation_is_that_many_passes_of_the_ellipse(lines, alpha):
    segments = split_segments(draw(lines))
    expected = [cv2.dilate(segment.astype(np.uint8), CROSS, iterations=alpha) > 0 for segment in segments]
    np.testing.assert_array_equal(dilate(segments, alpha), np.reshape(expected, segments.shape).astype(bool))


@given(strokes, st.tuples(points, points))
def test_alpha_is_the_first_look_at_which_the_subject_is_covered(lines, box):
    image, subject = draw(lines), np.zeros((64, 96), bool)
    (x0, y0), (x1, y1) = box
    subject[min(y0, y1) : max(y0, y1) + 1, min(x0, x1) : max(x0, x1) + 1] = True
    drawn, looks = (image > 127).astype(np.uint8), 1
    while looks < 100 and (subject & (drawn == 0)).any():
        drawn, looks = cv2.dilate(drawn, CROSS), looks + 1
    assert dilation_alpha(image, subject) == looks
    assert dilation_alpha(image[:, ::-1], subject[:, ::-1]) == looks
    assert dilation_alpha(image[::-1], subject[::-1]) == looks


def test_without_a_subject_parts_are_barely_dilated():
    image = draw([((5, 5), (80, 50), 1)])
    assert dilation_alpha(image, None) == dilation_alpha(image, np.zeros(image.shape, bool)) == 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_tokens_are_sampled_as_opencv_samples_nearest(height, width, seed):
    masks = np.random.default_rng(seed).random((3, 32 * height, 32 * width)) < 0.5
    for mask, tokens in zip(masks, token_masks(masks, height, width)):
        sampled = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(tokens, sampled.reshape(height, width) > 0)


def test_first_frame_parts_stay_within_the_subject_and_later_ones_need_not():
    image = draw([((10, 32), (80, 32), 1)])
    subject = np.zeros((64, 96), bool)
    subject[:, :48] = True
    plan = plan_parts({0: image, 3: image}, subject, 96, 64, stride=8)
    assert plan.first.shape == (1, 8, 12)
    assert plan.first[0, :, :6].all() and not plan.first[0, :, 6:].any()
    assert plan.candidates[3][0, :, 6:].any()


def test_a_clip_whose_first_frame_has_no_pose_has_no_parts():
    plan = plan_parts({4: draw([((10, 32), (80, 32), 1)])}, None, 96, 64)
    assert plan.first.shape == (0, 2, 3) and not plan.candidates and plan.rows.size == 0
