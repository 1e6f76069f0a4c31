"""What the draft engine makes of a pose: of figures whose every frame is known, and of anything a request may
hold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from inference_server.engines.base import EngineError, JobCancelled, Picture
from inference_server.engines.draft import DraftEngine
from shared.camera import check_path
from shared.messages import Preview, Progress
from shared.pose import Limb, Polyline, PoseSequence
from shared.schema import MessageError

from .draft_figures import HEIGHT, WALKER, WIDTH, Stick, ask, bones, draw, ground, pose_of, shoot, walk

CANVAS = np.array([WIDTH, HEIGHT])


def seen(picture: np.ndarray) -> np.ndarray:
    """[h, w] bool, where a figure hides the ground."""
    return np.abs(picture.astype(int) - ground()).max(-1) > 40


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Signal to noise, in decibels, of one picture against another."""
    return 10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9))


@pytest.mark.parametrize(
    "truth, outline, likeness", [("labels", 0.96, 25), ("mask", 0.95, 23), ("nothing", 0.93, 21.5)]
)
def test_a_walker_walks_as_it_should(truth, outline, likeness):
    poses, pictures, labels = walk(13, travel=100)
    fields = {
        "labels": {"first_labels": labels[0]},
        "mask": {"subject_mask": (labels[0] > 0).astype(np.uint8)},
    }
    drawn, _ = shoot(ask(pictures[0], pose_of(WALKER, poses), **fields.get(truth, {})))
    around = [cv2.dilate((label > 0).astype(np.uint8), np.ones((9, 9))) > 0 for label in labels]
    frames = range(1, len(drawn))
    assert np.mean([overlap(seen(drawn[i]), labels[i] > 0) for i in frames]) > outline
    assert np.mean([difference(drawn[i][around[i]], pictures[i][around[i]]) for i in frames]) > likeness
    for i in frames:
        away = cv2.dilate(((labels[i] > 0) | (labels[0] > 0)).astype(np.uint8), np.ones((31, 31))) == 0
        assert (drawn[i][away] == pictures[0][away]).all(), "what the subject never covers stays as it was"


def test_the_first_frame_is_the_first_frame():
    poses, pictures, labels = walk(3)
    drawn, note = shoot(
        ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0], prompt="in the rain")
    )
    assert (drawn[0] == pictures[0]).all()
    assert "prompt" in note and "no effect" in note


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-180, 180), min_size=6, max_size=6), st.floats(0.5, 1.3), st.integers(0, 2))
def test_a_pose_that_stays_changes_nothing(angles, scale, truth):
    ends = bones(WALKER, angles, CANVAS / 2, scale)
    picture, labels = draw(WALKER, ends, ground(), scale)
    fields = [{"first_labels": labels}, {"subject_mask": (labels > 0).astype(np.uint8)}, {}][truth]
    drawn, _ = shoot(ask(picture, pose_of(WALKER, [ends] * 3), **fields))
    assert all((frame == picture).all() for frame in drawn)


@settings(max_examples=15, deadline=None)
@given(st.integers(-70, 70), st.integers(-40, 40))
def test_a_pose_that_moves_moves_its_subject(across, down):
    angles = (10, -30, 70, 90, 110, 120)
    rest = bones(WALKER, angles, CANVAS / 2 - (20, 10))
    moved = [ends + [across, down, 0] for ends in rest]
    picture, labels = draw(WALKER, rest, ground())
    (_, drawn), _ = shoot(ask(picture, pose_of(WALKER, [rest, moved]), first_labels=labels))
    wanted, inside = draw(WALKER, moved, ground())
    body = cv2.erode((inside > 0).astype(np.uint8), np.ones((7, 7))) > 0
    assert np.abs(drawn[body].astype(int) - wanted[body]).mean() < 2
    assert overlap(seen(drawn), inside > 0) > 0.97
    away = cv2.dilate(((labels > 0) | (inside > 0)).astype(np.uint8), np.ones((15, 15))) == 0
    assert (drawn[away] == picture[away]).all()


def test_what_comes_nearer_grows():
    rest = bones(WALKER, (0, -40, 80, 90, 100, 110), CANVAS / 2 - (30, 20))
    near = [(ends - [*CANVAS / 2, 0]) * [1.5, 1.5, 1 / 1.5] + [*CANVAS / 2, 0] for ends in rest]
    picture, labels = draw(WALKER, rest, ground())
    (_, drawn), _ = shoot(ask(picture, pose_of(WALKER, [rest, near]), first_labels=labels))
    _, wanted = draw(WALKER, near, ground(), 1.5)
    assert overlap(seen(drawn), wanted > 0) > 0.96


@pytest.mark.parametrize("bend", [60, 110, -110])
def test_a_bent_knee_does_not_open(bend):
    leg = (Stick("thigh", None, 80, 16, (200, 60, 60), 5), Stick("shin", 0, 80, 14, (200, 120, 60), 5))
    straight, bent = bones(leg, (90, 90), (160, 30)), bones(leg, (90, 90 + bend), (160, 30))
    picture, labels = draw(leg, straight, ground())
    (_, drawn), _ = shoot(ask(picture, pose_of(leg, [straight, bent]), first_labels=labels))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for start, end in (ends[:, :2] for ends in bent):
        t = np.clip(((x - start[0]) * (end - start)[0] + (y - start[1]) * (end - start)[1]) / 80**2, 0, 1)
        core = np.hypot(x - start[0] - t * (end - start)[0], y - start[1] - t * (end - start)[1]) < 6
        assert seen(drawn)[core].mean() > 0.99


@pytest.mark.parametrize("front", [0, 1])
def test_the_nearer_limb_is_drawn_over_the_farther(front):
    arms = (Stick("a", None, 140, 12, (220, 40, 40), 5), Stick("b", None, 140, 12, (40, 40, 220), 5))
    depths = [6.0, 6.0]
    depths[front] = 4.0
    first = [
        bones([arm], (0,), (90, y))[0] * [1, 1, 0] + [0, 0, z] for arm, y, z in zip(arms, (60, 180), depths)
    ]
    then = [
        bones([arm], (angle,), place)[0] * [1, 1, 0] + [0, 0, z]
        for arm, angle, place, z in zip(arms, (0, 90), ((90, 120), (160, 50)), depths)
    ]
    picture, labels = draw(arms, first, ground())
    (_, drawn), _ = shoot(ask(picture, pose_of(arms, [first, then]), first_labels=labels))
    crossing = drawn[114:126, 154:166].reshape(-1, 3).mean(0)
    assert (crossing[0] > crossing[2]) == (front == 0)


def test_a_hidden_leg_borrows_its_twin_and_says_so():
    legs = (
        Stick("leg.L", None, 100, 14, (220, 60, 60), 4.9),
        Stick("leg.R", None, 100, 14, (60, 60, 220), 5.1),
    )
    first = [
        ends * [1, 1, 0] + [0, 0, leg.depth] for leg, ends in zip(legs, bones(legs, (90, 90), (160, 70)))
    ]
    apart = [
        ends * [1, 1, 0] + [0, 0, leg.depth] for leg, ends in zip(legs, bones(legs, (130, 50), (160, 70)))
    ]
    picture, labels = draw(legs, first, ground())
    assert not (labels == 2).any()
    (_, drawn), note = shoot(ask(picture, pose_of(legs, [first, apart]), first_labels=labels))
    _, wanted = draw(legs, apart, ground())
    assert overlap(seen(drawn), wanted > 0) > 0.93
    assert "mirror" in note


def test_part_maps_let_scenery_hide_the_subject_and_close_its_holes():
    poses, pictures, labels = walk(5, travel=60)
    maps = np.stack([label[4::8, 4::8] for label in labels])
    maps[2:, :, 22:] = 0  # a wall that the picture does not know
    drawn, _ = shoot(ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0], part_maps=maps))
    assert not seen(drawn[4])[:, 22 * 8 + 16 :].any()
    assert overlap(seen(drawn[4])[:, :168], (labels[4] > 0)[:, :168]) > 0.93

    maps = np.stack([label[4::8, 4::8] for label in labels])
    only_spine = np.where(
        labels[0] == 1, labels[0], 0
    )  # the head is nobody's pixel, and so part of the scenery
    without, _ = shoot(ask(pictures[0], pose_of(WALKER, poses), first_labels=only_spine))
    patched, _ = shoot(ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0], part_maps=maps))
    assert overlap(seen(patched[4]), labels[4] > 0) > overlap(seen(without[4]), labels[4] > 0)


def sparse(frames, keep, angles_at):
    leg = (Stick("thigh", None, 70, 14, (200, 60, 60), 5), Stick("shin", 0, 70, 12, (90, 200, 60), 5))
    poses = [bones(leg, angles_at(i), (160, 50)) for i in range(frames)]
    picture, labels = draw(leg, poses[0], ground())
    return leg, poses, ask(picture, pose_of(leg, poses), first_labels=labels, pose_frames=keep)


def test_between_posed_frames_limbs_turn_at_their_length():
    leg, poses, request = sparse(9, (0, 8), lambda i: (90 + 45 * (i >= 8), 90 - 45 * (i >= 8)))
    drawn, _ = shoot(request)
    middle = bones(leg, (112.5, 67.5), (160, 50))
    _, wanted = draw(leg, middle, ground())
    assert overlap(seen(drawn[4]), wanted > 0) > 0.9


def test_frames_that_carry_no_pose_do_not_follow_it():
    _, poses, request = sparse(5, (0, 4), lambda i: (90, 90 + (170 if i == 2 else 0)))
    drawn, _ = shoot(request)
    assert all((frame == drawn[0]).all() for frame in drawn)


def pan(*steps):
    motion = np.tile(np.eye(3, dtype=np.float32), (len(steps), 1, 1))
    motion[:, :2, 2] = steps
    return motion


def empty(frames):
    return PoseSequence.from_frames(WIDTH, HEIGHT, [], [], [[]] * frames)


@settings(max_examples=15, deadline=None)
@given(st.integers(-WIDTH + 20, WIDTH - 20), st.integers(-HEIGHT + 20, HEIGHT - 20))
def test_a_pan_by_whole_pixels_moves_the_background_exactly(across, down):
    picture = ground()
    (_, drawn), _ = shoot(ask(picture, empty(2), camera_motion=pan((0, 0), (across, down))))
    here = np.s_[max(down, 0) : HEIGHT + min(down, 0), max(across, 0) : WIDTH + min(across, 0)]
    there = np.s_[max(-down, 0) : HEIGHT + min(-down, 0), max(-across, 0) : WIDTH + min(-across, 0)]
    assert (drawn[here] == picture[there]).all()
    assert drawn.min() > 0, "beyond the border the picture goes on"


def test_a_zoom_is_about_the_pixels_centres():
    """Twice as large about the middle: the corner of the picture's middle half comes to the picture's
    corner."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2, 0] = 255
    zoom = np.array([[2, 0, -WIDTH / 2], [0, 2, -HEIGHT / 2], [0, 0, 1]], np.float32)
    (_, drawn), _ = shoot(ask(picture, empty(2), camera_motion=np.stack([np.eye(3, dtype=np.float32), zoom])))
    wanted = cv2.resize(picture[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4], (WIDTH, HEIGHT))
    assert np.abs(drawn[2:-2, 2:-2].astype(int) - wanted[2:-2, 2:-2]).max() <= 1


def test_a_pose_beside_the_picture_is_said_not_drawn():
    away = [[Polyline(0, np.array([[900, 900, 5], [950, 950, 5]], np.float32) + 5 * i)] for i in range(3)]
    picture = ground()
    drawn, note = shoot(ask(picture, PoseSequence.from_frames(WIDTH, HEIGHT, ["a"], [Limb("a", 0)], away)))
    assert all((frame == picture).all() for frame in drawn)
    assert "not lie over the first frame" in note


def test_a_limb_that_turns_up_later_is_left_out_and_said():
    poses, pictures, labels = walk(4)
    pose = pose_of(WALKER, poses)
    late = [
        [*pose.frame(i), *([Polyline(6, np.array([[10, 10, 5], [60, 60, 5]], np.float32))] if i else [])]
        for i in range(4)
    ]
    limbs = [*pose.limbs, Limb("wing", 0)]
    request = ask(
        pictures[0], PoseSequence.from_frames(WIDTH, HEIGHT, pose.parts, limbs, late), first_labels=labels[0]
    )
    assert "1 limb is not seen in the first frame" in shoot(request)[1]


def test_a_subject_that_leaves_goes_on_out_of_the_picture():
    poses, pictures, labels = walk(16, travel=300)
    frames = [
        [Polyline(i, ends) for i, ends in enumerate(pose)] if k < 11 else [] for k, pose in enumerate(poses)
    ]
    limbs = [Limb(stick.name, 0) for stick in WALKER]
    pose = PoseSequence.from_frames(WIDTH, HEIGHT, ["walker"], limbs, frames)
    drawn, _ = shoot(ask(pictures[0], pose, first_labels=labels[0]))
    areas = [seen(frame).sum() for frame in drawn]
    assert areas[12] < 1.1 * areas[10] and areas[-1] <= areas[12]


def test_the_same_request_gives_the_same_clip():
    poses, pictures, _ = walk(4, travel=20)
    request = ask(pictures[0], pose_of(WALKER, poses))
    first, second = shoot(request)[0], shoot(request)[0]
    assert all((a == b).all() for a, b in zip(first, second))


def test_cancelling_ends_it_at_the_next_frame():
    poses, pictures, labels = walk(30)
    request = ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0])
    came = []
    with pytest.raises(JobCancelled):
        for event in DraftEngine().generate(request, lambda: len(came) >= 3):
            if isinstance(event, Picture):
                came.append(event)
    assert len(came) == 3


def test_it_tells_how_far_it_is_and_shows_previews():
    poses, pictures, labels = walk(4)
    request = ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0], preview_interval=1e-6)
    events = list(DraftEngine().generate(request, lambda: False))
    steps = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in steps] == [1, 2, 3, 4]
    assert all(event.stage == "drawing" and event.total == 4 for event in steps)
    previews = [event for event in events if isinstance(event, Preview)]
    assert [event.index for event in previews] == [1, 2, 3]
    assert all(max(event.image.shape) <= 256 for event in previews)


def single(pose: PoseSequence, frame: int, without: int | None = None) -> PoseSequence:
    lines = [line for line in pose.frame(frame) if line.limb != without]
    return PoseSequence.from_frames(pose.width, pose.height, pose.parts, pose.limbs, [lines])


def test_a_live_session_draws_what_a_clip_shows_without_knowing_it_before():
    poses, pictures, labels = walk(13, travel=100)
    path = pan((0, 0), *[(2, 0)] * 12)
    whole = ask(pictures[0], pose_of(WALKER, poses), first_labels=labels[0], camera_motion=path)
    clip, _ = shoot(whole)
    for shown, likeness in ((poses[::6], 40), (poses[:1], 27)):
        live = DraftEngine().open_live(ask(pictures[0], pose_of(WALKER, shown), first_labels=labels[0]))
        for frame in (9, 4):
            assert difference(live.draw(single(whole.pose, frame), path[frame]), clip[frame]) > likeness
        assert (live.draw(single(whole.pose, 0), None) == pictures[0]).all()
    hidden = live.draw(single(whole.pose, 4, without=0), None)
    assert overlap(seen(hidden), labels[4] > 0) > 0.8, "what is out of view hangs on to its joints"
    gone = live.draw(PoseSequence.from_frames(WIDTH, HEIGHT, whole.pose.parts, whole.pose.limbs, [[]]), None)
    assert not seen(gone).any()


def test_a_damaged_picture_is_said():
    poses, pictures, _ = walk(2)
    request = ask(pictures[0], pose_of(WALKER, poses))
    object.__setattr__(request, "first_frame", bytes(request.first_frame[:60]))
    with pytest.raises(EngineError, match="choose another picture"):
        list(DraftEngine().generate(request, lambda: False))


coordinates = st.one_of(
    st.floats(-1e7, 1e7, width=32), st.floats(-40, 120, width=32), st.sampled_from([0.0, 64.0, 48.0])
)
lines = st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=2, max_size=12)


@st.composite
def requests(draw_):
    width, height, frames = draw_(st.sampled_from([(64, 48), (32, 32), (34, 90)])) + (
        draw_(st.integers(1, 4)),
    )
    limbs = draw_(st.integers(1, 4))
    stack = []
    for _ in range(frames):
        mine = draw_(st.lists(st.tuples(st.integers(0, limbs - 1), lines), max_size=5))
        stack.append([Polyline(limb, np.array(points, np.float32)) for limb, points in mine])
    table = [Limb(f"limb.{'LR'[i % 2]}", 0, draw_(st.integers(0, 1))) for i in range(limbs)]
    rng = np.random.default_rng(draw_(st.integers(0, 9)))
    fields = {}
    if draw_(st.booleans()):
        fields["first_labels"] = (rng.random((height, width)) * (limbs + 1)).astype(np.uint8)
    if draw_(st.booleans()):
        fields["subject_mask"] = (
            rng.random((height, width)) < draw_(st.sampled_from([0.0, 0.3, 1.0]))
        ).astype(np.uint8)
    if draw_(st.booleans()):
        fields["part_maps"] = (rng.random((frames, height // 8, width // 8)) * (limbs + 1)).astype(np.uint8)
    if draw_(st.booleans()):
        motion = np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1))
        entries = st.floats(-1e6, 1e6, width=32) | st.floats(-2, 2, width=32)
        motion[1:] = np.reshape(
            draw_(st.lists(entries, min_size=9 * frames - 9, max_size=9 * frames - 9)), (-1, 3, 3)
        )
        try:
            check_path(motion)
        except MessageError:
            reject()
        fields["camera_motion"] = motion
    if draw_(st.booleans()):
        fields["pose_frames"] = tuple(sorted(draw_(st.sets(st.integers(0, frames - 1), min_size=1))))
    canvas = draw_(st.sampled_from([(64, 48), (1, 1), (4096, 4096)]))
    pose = PoseSequence.from_frames(*canvas, ["part"], table, stack)
    picture = (rng.random((height, width, 3)) * 255).astype(np.uint8)
    return ask(picture, pose, **fields)


@settings(max_examples=70, deadline=None)
@given(requests())
def test_every_valid_request_gets_its_frames(request):
    with np.errstate(all="raise", under="ignore"):
        drawn, note = shoot(request)
        last = single(request.pose, request.num_frames - 1)
        live = DraftEngine().open_live(request).draw(last, None)
    assert len(drawn) == request.num_frames and note
    assert live.shape == drawn[0].shape and live.dtype == np.uint8
