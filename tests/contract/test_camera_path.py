"""Camera paths: what each move does to the background, and the rectangle that goes against it (paper section
4.3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import camera, raster
from shared.schema import MessageError

WIDTH, HEIGHT, FRAMES = 832, 480, 9

moves = st.dictionaries(st.sampled_from(camera.MOVES), st.floats(0, 0.5), max_size=4)
paths = st.builds(lambda moves: camera.camera_path(moves, FRAMES, WIDTH, HEIGHT), moves)


def moved(path, points):
    """[F, K, 2]: pixels of the first frame, followed through the path."""
    points = np.concatenate([np.asarray(points, float), np.ones((len(points), 1))], 1) @ path.transpose(
        0, 2, 1
    ).astype(float)
    return points[..., :2] / points[..., 2:]


CORNERS = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]


@given(paths)
def test_a_path_starts_at_rest(path):
    camera.check_path(path)
    np.testing.assert_array_equal(path[0], np.eye(3))
    assert path.dtype == np.float32


@pytest.mark.parametrize(
    "move, goes",
    [
        # what a background point right of and below the centre does while the camera moves
        ("pan_left", (1, 0)),
        ("pan_right", (-1, 0)),
        ("tilt_up", (0, 1)),
        ("tilt_down", (0, -1)),
        ("zoom_in", (1, 1)),
        ("zoom_out", (-1, -1)),
        ("roll_clockwise", (1, -1)),
        ("roll_counterclockwise", (-1, 1)),
    ],
)
def test_the_background_goes_against_the_camera_and_the_rectangle_against_the_background(move, goes):
    path = camera.camera_path({move: 0.05}, FRAMES, WIDTH, HEIGHT)
    step = np.diff(moved(path, [(WIDTH / 2 + 100, HEIGHT / 2 + 100)])[:, 0], axis=0)
    np.testing.assert_array_equal(np.sign(step.round(6)), np.broadcast_to(goes, step.shape))
    rectangle = camera.rectangle_condition(path, WIDTH, HEIGHT)
    corner = np.array([[line.points[0, :2] for line in rectangle.frame(i)][2] for i in range(FRAMES)])
    assert np.sign(corner[0] - np.mean([line.points[0, :2] for line in rectangle.frame(0)], 0)).tolist() == [
        1,
        1,
    ]
    step = np.diff(corner, axis=0)
    np.testing.assert_array_equal(np.sign(step.round(2)), np.broadcast_to(goes, step.shape) * -1.0)
    along = camera.rectangle_condition(path, WIDTH, HEIGHT, with_background=True)
    corner = np.array([along.frame(i)[2].points[0, :2] for i in range(FRAMES)])
    np.testing.assert_allclose(corner, moved(path, corner[:1])[:, 0], atol=0.01)


def test_amounts_are_fractions_of_the_picture():
    for move, amount, expected in (("pan_left", 0.25, (208, 0)), ("tilt_down", 0.5, (0, -240))):
        last = moved(camera.camera_path({move: amount}, FRAMES, WIDTH, HEIGHT), CORNERS)[-1]
        np.testing.assert_allclose(last - CORNERS, np.broadcast_to(expected, (4, 2)), atol=0.01)
    last = moved(camera.camera_path({"zoom_in": 1}, FRAMES, WIDTH, HEIGHT), CORNERS)[-1]
    np.testing.assert_allclose(last[2] - last[0], (2 * WIDTH, 2 * HEIGHT), atol=0.01)
    last = moved(camera.camera_path({"roll_counterclockwise": 0.25}, FRAMES, 100, 100), [(100, 0)])[-1]
    np.testing.assert_allclose(last[0], (100, 100), atol=0.01)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(camera.MOVES), st.floats(0, 0.2), max_size=3))
def test_the_rectangle_of_a_moderate_move_stays_whole_and_in_view(moves):
    path = camera.camera_path(moves, FRAMES, WIDTH, HEIGHT)
    rectangle = camera.rectangle_condition(path, WIDTH, HEIGHT)
    motion = np.linalg.inv(path.astype(float))
    assert rectangle.num_frames == FRAMES and len(rectangle.lengths) == 4 * FRAMES
    assert (rectangle.points[:, :2] >= 0).all() and (rectangle.points[:, :2] <= (WIDTH, HEIGHT)).all()
    corners = np.array([[line.points[0, :2] for line in rectangle.frame(i)] for i in range(FRAMES)])
    np.testing.assert_allclose(corners, moved(motion, corners[0]), atol=0.1)
    width, height = corners[0].max(0) - corners[0].min(0)
    assert width >= 0.2 * WIDTH - 0.1 and height >= 0.2 * HEIGHT - 0.1
    assert all(image.any() for image in raster.draw_poses(rectangle, 104, 60))


def test_a_move_too_long_for_the_picture_starts_in_view_and_leaves_it():
    rectangle = camera.rectangle_condition(
        camera.camera_path({"pan_left": 3}, FRAMES, WIDTH, HEIGHT), WIDTH, HEIGHT
    )
    whiteness = raster.draw_poses(rectangle).mean((1, 2))
    assert whiteness[0] > 0 and whiteness[-1] == 0
    assert rectangle.points[:, 0].min() > -0.05 * WIDTH


elements = (
    st.floats(-2, 2, width=32) | st.floats(-1e9, 1e9, width=32) | st.sampled_from([0.0, 1.0, np.nan, np.inf])
)


@settings(deadline=None)
@given(st.lists(st.lists(elements, min_size=9, max_size=9), max_size=3))
def test_any_homographies_give_a_rectangle_or_one_sentence(values):
    path = np.array(values, np.float32).reshape(-1, 3, 3)
    try:
        rectangle = camera.rectangle_condition(path, WIDTH, HEIGHT)
    except MessageError as error:
        assert str(error).endswith(".")
    else:
        assert rectangle.num_frames == len(path)
        raster.draw_poses(rectangle)


def test_a_background_that_turns_behind_the_camera_is_cut_where_it_leaves_the_view():
    path = np.repeat(np.eye(3, dtype=np.float32)[None], 3, 0)
    path[1:, 2, 0] = -1 / 300, -1 / 100  # pixels right of x = 300, then 100, are behind the camera
    rectangle = camera.rectangle_condition(np.linalg.inv(path), WIDTH, HEIGHT)
    assert raster.draw_poses(rectangle)[0].any()
    limit = 0.05 * WIDTH
    assert (rectangle.points[:, :2] > -limit).all() and (
        rectangle.points[:, :2] < (WIDTH + limit, HEIGHT + limit)
    ).all()


@pytest.mark.parametrize(
    "arguments, names",
    [
        (({"dolly": 1}, 5, 64, 64), "dolly"),
        (({"pan_left": -1}, 5, 64, 64), "pan_left"),
        (({"pan_left": float("nan")}, 5, 64, 64), "pan_left"),
        (({}, 0, 64, 64), "frame"),
    ],
)
def test_bad_moves_get_a_sentence_that_names_them(arguments, names):
    with pytest.raises(MessageError, match=names):
        camera.camera_path(*arguments)


def test_a_path_that_does_not_start_at_rest_is_refused():
    with pytest.raises(MessageError, match="first homography"):
        camera.check_path(camera.camera_path({"pan_left": 0.5}, 5, 64, 64)[1:])
