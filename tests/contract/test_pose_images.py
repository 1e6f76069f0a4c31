"""The renderer against the official sample, whose look the released weights know, and against the L1 norm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import raster
from shared.pose import Limb, Polyline, PoseSequence
from tests.golden import DEER

FRAMES = (0, 33, 80, 144)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def sequence(polylines, width=512, height=288):
    limbs = [Limb("limb", 0)]
    drawn = [[Polyline(0, np.column_stack([points, np.ones(len(points))])) for points in polylines]]
    return PoseSequence.from_frames(width, height, ["part"], limbs, drawn)


@pytest.fixture(scope="module")
def official():
    cv2 = pytest.importorskip("cv2")
    if not DEER.is_dir():
        pytest.skip(f"the official sample is not at {DEER}")
    return [cv2.imread(str(DEER / "skeleton" / f"{frame:03d}.png"), cv2.IMREAD_GRAYSCALE) for frame in FRAMES]


def thin_line(image):
    """The official stroke's own centre line: what is left when the cross it was dilated with is taken off
    again."""
    import cv2

    return cv2.erode(image, CROSS) > 0


def trace(image):
    """Polylines through the centre line's runs of pixels, smoothed to within a pixel as bones would run."""
    import cv2

    left = thin_line(image)
    polylines = []
    while left.any():
        y, x = np.argwhere(left)[0]
        chain = [(x, y)]
        for end in (-1, 0):  # grow at one end, then at the other
            while True:
                x, y = chain[end]
                left[y, x] = False
                near = np.argwhere(left[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2])
                if not len(near):
                    break
                y, x = near[0] + (max(y - 1, 0), max(x - 1, 0))
                chain.insert(0 if end == 0 else len(chain), (x, y))
        points = cv2.approxPolyDP(np.array(chain, np.int32)[:, None], 0.75, False)[:, 0] + 0.5
        polylines.append(points if len(points) > 1 else np.repeat(points, 2, 0))
    return polylines


def overlap(one, other):
    return ((one > 0) & (other > 0)).sum() / ((one > 0) | (other > 0)).sum()


def test_official_frames_are_redrawn_pixel_for_pixel_from_their_centre_line(official):
    for image in official:
        pixels = np.argwhere(thin_line(image))[:, ::-1] + 0.5
        drawn = raster.draw_pose(sequence([[point, point] for point in pixels]), 0)
        np.testing.assert_array_equal(drawn, image)


@pytest.mark.parametrize("weight", [2 / 512, 2.5 / 512, 3 / 512, 3.5 / 512, 4 / 512])
def test_official_frames_are_redrawn_from_polylines_with_the_same_weight_and_no_other(
    official, weight, monkeypatch
):
    monkeypatch.setattr(raster, "LINE_WEIGHT", weight)
    fits = []
    for image in official:
        drawn = raster.draw_pose(sequence(trace(image)), 0)
        whiteness = (drawn > 0).sum() / (image > 0).sum()
        fits.append(overlap(drawn, image) > 0.88 and 0.97 < whiteness < 1.03)
    assert all(fits) if weight == 3 / 512 else not any(fits)


def test_condition_images_equal_the_official_frames_scaled_as_the_release_does(official):
    import cv2

    for image in official:
        pixels = np.argwhere(thin_line(image))[:, ::-1] + 0.5
        ours = raster.condition_images(sequence([[point, point] for point in pixels]), 832, 468)[0]
        theirs = cv2.resize(image, (832, 468), interpolation=cv2.INTER_LINEAR)
        assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1280, 704), (300, 170), (700, 1000)])
def test_bilinear_scaling_agrees_with_pillow(size):
    pillow = pytest.importorskip("PIL.Image")
    image = (np.random.default_rng(0).random((295, 512)) > 0.8).astype(np.uint8) * 255
    theirs = np.asarray(pillow.fromarray(image).resize(size, pillow.Resampling.BILINEAR)).astype(int)
    assert np.abs(raster.resize_bilinear(image, *size) - theirs).max() <= 1


coordinate = st.floats(-60, 160, width=32) | st.sampled_from([0.0, 0.5, 1.0, 50.0, 1e7, -1e7])
point = st.tuples(coordinate, coordinate)


@settings(deadline=None)
@given(
    st.lists(st.lists(point, min_size=2, max_size=4), max_size=4), st.integers(8, 200), st.integers(8, 200)
)
def test_a_pixel_is_white_when_its_centre_is_within_the_brush(polylines, width, height):
    pose = sequence(polylines, 100, 100)
    drawn = raster.draw_pose(pose, 0, width, height)
    assert set(np.unique(drawn)) <= {0, 255}
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.full((height, width), np.inf)
    for polyline in pose.frame(0):
        points = polyline.points[:, :2].astype(float) * (width / 100, height / 100)
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            # the L1 distance along a stroke is convex and bent only where x or y is met, and at the ends
            for t in (0, 1, (x - x0) / (x1 - x0) if x1 != x0 else 0, (y - y0) / (y1 - y0) if y1 != y0 else 0):
                t = np.clip(t, 0, 1)
                distance = np.minimum(
                    distance, np.abs(x0 + t * (x1 - x0) - x) + np.abs(y0 + t * (y1 - y0) - y)
                )
    radius = max(max(width, height) * 1.5 / 512, 0.5)
    assert (drawn[distance < radius - 1e-6] == 255).all()
    assert (drawn[distance > radius + 1e-6] == 0).all()


@pytest.mark.parametrize("width", [512, 704, 768, 832, 1280])
def test_stroke_weight_goes_with_the_picture(width):
    height = width // 2
    level = raster.draw_pose(sequence([[(50, 100.3), (400, 120.1)]]), 0, width, height)
    columns = (level[:, width // 4 : width // 2] > 0).sum(0)
    assert abs(columns.mean() - 3 * width / 512) < 0.1


def test_frames_without_a_pose_are_black():
    limbs = [Limb("limb", 0)]
    line = Polyline(0, np.array([[10, 10, 1], [50, 50, 1]], np.float32))
    pose = PoseSequence.from_frames(64, 64, ["part"], limbs, [[line], [line], [], [line]])
    for images in (
        raster.draw_poses(pose, frames=(0, 2)),
        raster.condition_images(pose, 64, 64, frames=(0, 2)),
    ):
        assert images.shape == (4, 64, 64)
        assert [bool(image.any()) for image in images] == [True, False, False, False]
    assert [bool(image.any()) for image in raster.draw_poses(pose)] == [True, True, False, True]


def test_a_picture_full_of_strokes_across_it_is_drawn_in_bounded_memory():
    import tracemalloc

    ends = np.random.default_rng(0).uniform(0, 288, (1_500, 1, 2)) * (0, 1)
    pose = sequence(np.concatenate([ends, ends + (512, 5)], 1))
    tracemalloc.start()
    drawn = raster.draw_pose(pose, 0, 2048, 2048)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (drawn > 0).mean() > 0.8
    assert peak < 200 << 20
