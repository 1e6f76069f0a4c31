"""Subjects and skeletons without weights: the paper's equations, and how near they come to a known truth."""

import cv2
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("webdataset")

from inference_server.poseanything.conditioning.limbs.medial import medial_curves  # noqa: E402
from inference_server.xpose.pipeline import identity_changes  # noqa: E402
from inference_server.xpose.segments import limb_map, segment_counts  # noqa: E402
from inference_server.xpose.skeletons.carried import CarriedSkeletoniser  # noqa: E402
from inference_server.xpose.skeletons.matching import match_segments  # noqa: E402
from inference_server.xpose.skeletons.medial import MedialSkeletoniser  # noqa: E402
from inference_server.xpose.stages import Clip, Dropped, Subject, SubjectPrompt, Verdict, complexity_of  # noqa: E402
from inference_server.xpose.subjects.background import Background  # noqa: E402
from inference_server.xpose.subjects.first_frame import find_mask  # noqa: E402
from inference_server.xpose.subjects.flow import FlowSubjectFinder  # noqa: E402
from inference_server.xpose.subjects.outline import faint_share  # noqa: E402
from inference_server.xpose.subjects.selection import check_area, iou, largest_mask, next_mask  # noqa: E402

from .footage import HEIGHT, WIDTH, lizard  # noqa: E402


def block(left, right, size=100):
    mask = np.zeros((size, size), bool)
    mask[:, left:right] = True
    return mask


def test_the_target_is_the_largest_and_then_the_same_label_with_the_best_iou():
    masks = [block(0, 10), block(20, 60), block(70, 75)]
    assert largest_mask(masks) == 1 and largest_mask([block(0, 0)]) is None
    last = block(22, 62)
    assert next_mask(masks, ["cat", "dog", "dog"], "dog", last) == 1
    assert next_mask([block(0, 90), *masks], ["cat", "dog", "dog", "dog"], "dog", last) == 2
    assert next_mask(masks, ["dog", "cat", "dog"], "dog", last) is None  # the frame is skipped


@pytest.mark.parametrize(
    "width, rule, kept",
    [
        (20, "paper", False),
        (21, "paper", True),
        (79, "paper", True),
        (80, "paper", False),
        (1, "release", False),
    ]
    + [(2, "release", True), (100, "release", True), (1, "any", True), (0, "any", False)],
)
def test_a_subject_has_the_size_that_the_rule_asks_for(width, rule, kept):
    masks = np.stack([block(0, width), block(0, 0)])  # a frame without a mask counts for nothing
    try:
        check_area(masks, rule)
    except Dropped as dropped:
        assert not kept and str(dropped).endswith(".")
    else:
        assert kept


def test_segments_sort_clips_as_in_the_paper():
    assert [complexity_of(n) for n in (0, 1, 3, 4, 6, 7, 10, 11)] == [
        *["", "simple", "simple", "medium", "medium", "complex", "complex"],
        "beyond ten",
    ]


def test_medial_follows_limbs_and_no_bumps_at_any_size():
    for scale in (1, 3):
        mask = lizard(3)[1][2].astype(np.uint8)
        mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) > 0
        bumpy = mask.copy()
        rows, columns = np.nonzero(mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3))).astype(bool))
        for row, column in zip(rows[:: 9 * scale], columns[:: 9 * scale]):
            cv2.circle(view := bumpy.view(np.uint8), (int(column), int(row)), scale, 1, -1)
            assert view is not None
        for shape in (mask, bumpy):
            curves = medial_curves(shape)
            ends = np.concatenate([curve[[0, -1]] for curve in curves])
            tips = [end for end in ends if (np.linalg.norm(ends - end, axis=1) < 0.5).sum() == 1]
            assert len(tips) == 6 and 6 <= len(curves) <= 9  # four legs, a tail and a head
            inside = np.concatenate(curves).astype(int)
            assert shape[inside[:, 1], inside[:, 0]].mean() > 0.98
    assert medial_curves(np.zeros((50, 50), bool)) == []


def test_a_limb_that_one_frame_hardly_shows_does_not_go_for_that_frame():
    masks = np.zeros((6, 100, 100), bool)
    masks[:, 30:60, 10:90] = True
    for mask, end in zip(masks, (66, 64, 66, 60, 64, 60)):
        mask[60:end, 46:54] = True
    medial = MedialSkeletoniser()
    alone = medial.trace(masks, masks)
    for found, legs in ((alone, [1, 0, 1, 0, 0, 0]), (medial.revise(alone, masks), [1, 1, 1, 0, 0, 0])):
        assert [max(curve[:, 1].max() for curve in curves) > 60 for curves in found] == legs


def line(*points):
    return np.array(points, np.float32)


def test_segments_keep_their_identity_where_junctions_come_and_go():
    masks = np.zeros((9, 100, 100), bool)
    frames = []
    for number in range(9):
        x = 10.0 + number
        masks[number, 20:80, int(x) : int(x) + 60] = True
        leg = [line((x + 30, 50), (x + 30 + number, 80))] if number != 4 else []
        spine = [line((x, 50), (x + 30, 50)), line((x + 60, 50), (x + 30, 50))]
        if number == 4:  # the leg is hidden: the spine is one curve, drawn from the other end
            spine = [line((x + 60, 50), (x, 50))]
        frames.append(spine[:: (-1) ** number] + leg)
    pose = match_segments(frames, masks)
    assert len(pose.limbs) == 3
    assert segment_counts(pose).tolist() == [3, 3, 3, 3, 2, 3, 3, 3, 3]
    assert identity_changes(pose) == 2 / 8
    centres = {}
    for frame in range(9):
        points, lengths = pose.frame_points(frame)
        for owner, end, length in zip(pose.owners[pose.offsets[frame] :], np.cumsum(lengths), lengths):
            own = points[end - length : end, :2]
            centres.setdefault(int(owner), []).append((own[0] + own[-1]) / 2 - (10 + frame, 0))
    for own in centres.values():
        assert np.ptp(np.array(own), axis=0).max() < 12  # left half, right half and leg stay themselves


def test_a_limb_map_covers_the_mask_with_the_nearest_segments():
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 5:35, 5:35] = True
    pose = match_segments([[line((8, 10), (30, 10)), line((8, 30), (30, 30))]], masks)
    labels = limb_map(pose, 0, masks[0])
    assert ((labels > 0) == masks[0]).all() and labels[8, 20] != labels[32, 20]


@pytest.fixture(scope="module")
def walking():
    frames, truth = lizard(21)
    return Clip("lizard", frames, 24.0), frames, truth


def box_of(mask):
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (left - 2) / WIDTH, (top - 2) / HEIGHT, (left + width + 2) / WIDTH, (top + height + 2) / HEIGHT


@pytest.mark.parametrize("said", ["box", "click", "scribble", "mask", "nothing"])
def test_a_subject_is_found_and_followed(walking, said):
    clip, frames, truth = walking
    prompt = {
        "box": SubjectPrompt(box=box_of(truth[0])),
        "click": SubjectPrompt(points=((50 / WIDTH, 62 / HEIGHT),)),
        "scribble": SubjectPrompt(points=((40 / WIDTH, 62 / HEIGHT), (60 / WIDTH, 62 / HEIGHT))),
        "mask": SubjectPrompt(mask=truth[0]),
        "nothing": SubjectPrompt(),  # it moves against a ground that stands still
    }[said]
    masks = FlowSubjectFinder().find(Clip("lizard", frames, 24.0, prompt), Verdict(True)).masks
    found = [iou(mask, true) for mask, true in zip(masks, truth)]
    assert np.mean(found) > 0.85 and min(found) > 0.7


def test_a_subject_is_followed_over_a_jolt_of_the_camera():
    frames, truth = lizard(9)
    for image in (frames, truth):
        image[5:] = np.roll(image[5:], 60, axis=2)
    masks = (
        FlowSubjectFinder()
        .find(Clip("jolt", frames, 24.0, SubjectPrompt(box=box_of(truth[0]))), Verdict(True))
        .masks
    )
    assert min(iou(mask, true) for mask, true in zip(masks, truth)) > 0.85


def test_a_second_animal_is_not_taken_along_when_they_touch():
    frames, truth = lizard(21)
    both = np.where(truth[..., None], frames, np.uint8([110, 130, 100]))
    other = np.zeros((21, HEIGHT, WIDTH), bool)
    for number in range(21):  # it comes near the head, and touches it
        left = 150 - 2 * number
        other[number, 40:72, left : left + 30] = True
    both[other & ~truth] = (200, 40, 30)
    clip = Clip("two", both, 24.0, SubjectPrompt(box=box_of(truth[0])))
    masks = FlowSubjectFinder().find(clip, Verdict(True)).masks
    assert (truth & other).any() and iou(masks[-1], truth[-1]) > 0.7


def test_ground_that_another_animal_hides_elsewhere_is_not_the_subject():
    ground = np.random.default_rng(0).integers(80, 140, (96, 128, 3)).astype(np.uint8)
    frames, other = [ground.copy() for _ in range(9)], np.zeros((9, 96, 128), bool)
    other[:4, 40:80, 60:100] = other[5:, 40:80, 60:100] = True  # it steps aside in the middle frame
    for frame, hidden in zip(frames, other):
        frame[hidden] = (200, 40, 30)
    nowhere = np.zeros_like(other)
    left = np.s_[50:70, 70:90]
    assert (Background(frames, nowhere, nowhere).cues(4).differs[left] > 0.5).all()
    assert (Background(frames, nowhere, other).cues(4).differs[left] == 0).all()


def test_dark_legs_are_found_and_shadows_left():
    """Both are darker than the ground; colours alone take either both or neither."""
    frames, truth = lizard(17)
    legs = truth & (np.arange(HEIGHT) > 76)[:, None]
    frames[~truth] = frames[~truth][:, :1] * np.float32([0.9, 1.0, 0.7])  # a ground of one hue
    frames = np.where(legs[..., None], np.uint8([30, 28, 26]), frames)
    shadow = np.roll(truth, (10, 6), (1, 2)) & ~truth & (np.arange(HEIGHT) > 66)[:, None]
    frames = np.where(shadow[..., None], (frames * np.float32([0.58, 0.62, 0.64])).astype(np.uint8), frames)
    prompt = SubjectPrompt(box=box_of(truth[0]))
    masks = FlowSubjectFinder().find(Clip("shadow", frames, 24.0, prompt), Verdict(True)).masks
    assert masks[legs].mean() > 0.8 and masks[shadow].mean() < 0.3


def test_a_click_on_a_dark_foot_takes_the_whole_animal():
    """Not the foot that has that colour, where it is seen that all of it moves."""
    [ground], [mask] = lizard(1, 1)
    ground[mask] = ground[:1, :1]
    ground, mask = (cv2.resize(image, None, fx=2, fy=2) for image in (ground, mask.astype(np.uint8)))
    random = np.random.default_rng(0)
    coat = np.uint8([170, 60, 50]) + random.integers(0, 60, (*mask.shape, 1), np.uint8)
    coat[np.abs(np.arange(len(mask)) - 2 * 62) > 2 * 16] //= 5
    ground += random.integers(0, 30, (*mask.shape, 1), np.uint8)
    frames = []
    for step in range(4):
        shown, animal = (np.roll(image, 3 * step, 1) for image in (mask, coat))
        frames.append(np.where(shown[..., None] > 0, animal, ground))
    assert iou(find_mask(frames, SubjectPrompt(points=((32 / WIDTH, 90 / HEIGHT),))), mask > 0) > 0.6


def test_a_click_takes_one_of_two_alike_animals_that_touch():
    [frame], [mask] = lizard(1)
    first = np.pad(mask, ((0, 0), (0, WIDTH)))
    second = np.roll(first, 86, axis=1)
    both = first | second
    assert cv2.connectedComponents(both.astype(np.uint8))[0] == 2
    ground = np.tile(np.where(mask[..., None], np.uint8([120, 120, 120]), frame), (1, 2, 1))
    picture = np.where(both[..., None], frame[mask][0], ground)
    for x, animal in ((50, first), (136, second)):
        click = SubjectPrompt(points=((x / (2 * WIDTH), 62 / HEIGHT),))
        assert iou(find_mask([picture], click), animal) > 0.8


def test_a_hill_of_its_colour_does_not_hide_a_subject_in_a_box():
    frames, truth = lizard(5)
    frames[:, :20] = frames[truth][0]
    frames[:, 60:64, 50:54] = 250  # the one thing that nothing around it looks like
    prompt = SubjectPrompt(box=box_of(truth[0]))
    for count in (5, 1):
        assert iou(find_mask(frames[:count], prompt), truth[0]) > 0.6


def test_where_nothing_is_it_says_so(walking):
    still = np.repeat(walking[1][:1], 9, 0)
    with pytest.raises(Dropped, match="moves"):
        FlowSubjectFinder().find(Clip("still", still, 24.0), Verdict(True))
    for prompt in (SubjectPrompt(box=(0.5, 0.5, 0.5, 0.9)), SubjectPrompt(mask=np.zeros((9, 9), bool))):
        with pytest.raises(Dropped, match="empty"):
            find_mask(still[:1], prompt)


def test_a_box_around_clouds_has_no_subject():
    noise = np.random.default_rng(2).normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 16)
    light = 8 * noise / noise.std() + np.linspace(0, 30, HEIGHT)[:, None]
    clouds = (np.float32([120, 160, 210]) + light[..., None]).astype(np.uint8)
    with pytest.raises(Dropped, match="No subject was found"):
        find_mask([clouds], SubjectPrompt(box=(0.25, 0.25, 0.75, 0.75)))
    [ground], [mask] = lizard(1)
    assert faint_share(ground, mask) < 0.1 and faint_share(clouds, mask) > 0.9


def test_skeletons_of_a_walk_reach_feet_head_and_tail(walking):
    clip, frames, truth = walking
    pose = MedialSkeletoniser().extract(clip, Subject(truth)).pose
    assert (segment_counts(pose) >= 6).all() and identity_changes(pose) < 0.3
    for frame in (0, 10, 20):
        points = pose.frame_points(frame)[0][:, :2]
        x, swing = 50 + 1.5 * frame, 10 * np.sin(frame * 0.7)
        for side, at in ((1, -18), (-1, -18), (-1, 18), (1, 18)):
            foot = (x + at + side * swing, 62 + 34 * side)
            assert np.linalg.norm(points - foot, axis=1).min() < 6


def test_a_carried_skeleton_keeps_its_limbs_on_the_body():
    frames, masks = lizard(21)
    curves = CarriedSkeletoniser().trace(frames, masks)
    assert {len(own) for own in curves} == {len(curves[0])} and len(curves[0]) >= 6
    lengths = np.array([[np.linalg.norm(np.diff(c, axis=0), axis=1).sum() for c in own] for own in curves])
    assert (abs(lengths / lengths[0] - 1) < 0.35).all(), "a limb stays as long as it is"
    points = [np.concatenate(own) for own in curves]
    inside = [
        masks[k][p[:, 1].astype(int), p[:, 0].astype(int).clip(0, WIDTH - 1)].mean()
        for k, p in enumerate(points)
    ]
    assert min(inside) > 0.85
    # The tip of the tail and the nose stay what they are.
    order = np.argsort(points[0][:, 0])
    for index, way in ((order[0], -45), (order[-1], 38)):
        for frame in (5, 10, 20):
            assert abs(points[frame][index, 0] - (50 + 1.5 * frame + way)) < 8
