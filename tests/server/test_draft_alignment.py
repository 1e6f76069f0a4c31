"""A picture that does not show the subject in the first pose: found where it stands, or said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shared.messages import NO_FLOW

from .draft_figures import WALKER, ask, bones, draw, ground, pose_of, shoot

ANGLES = (0, -40, 90, 95, 70, 80)


def figure(x, y=110.0, scale=1.0, angles=ANGLES):
    ends = bones(WALKER, angles, (x, y), scale)
    return ends, *draw(WALKER, ends, ground(), scale)


@pytest.mark.parametrize(("x", "y", "scale"), [(120, 110, 1.0), (75, 120, 1.0), (110, 115, 0.85)])
def test_the_subject_is_found_beside_its_pose_and_comes_to_it(x, y, scale):
    poses, labels = [], None
    for step in range(20):
        ends, _, label = figure(90 + step)
        labels = label if labels is None else labels
        poses.append(ends)
    _, picture, there = figure(x, y, scale)
    frames, note = shoot(ask(picture, pose_of(WALKER, poses), first_labels=labels))
    assert "shows the subject elsewhere" in note and (frames[0] == picture).all()
    _, truth, shown = figure(109)
    left = (there > 0) & (shown == 0)
    assert np.abs(frames[-1][left].astype(int) - ground()[left]).mean() < 14, (
        "nothing of it is left where it stood"
    )
    colour = np.abs(frames[-1].astype(int) - truth).mean(axis=2)[shown > 0]
    assert np.median(colour) < 30 and (colour > 60).mean() < 0.2


def test_a_picture_of_the_first_pose_itself_is_not_looked_for():
    """A subject that hardly stands out beside something that does, as a lamp before a wall of books."""
    _, first, labels = figure(90)
    *_, label = figure(109)
    poses = [figure(90 + step)[0] for step in range(20)]
    y, x = np.mgrid[: first.shape[0], : first.shape[1]]
    books = np.where((x // 9 + y // 7) % 2 > 0, 250, 5).astype(np.uint8)[..., None].repeat(3, 2)
    wall = np.where(labels[..., None] > 0, (0.06 * first + 110).astype(np.uint8), 118)
    busy = np.where((x > 0.7 * first.shape[1])[..., None], books, wall).astype(np.uint8)
    request = ask(busy, pose_of(WALKER, poses), first_labels=labels)
    frames, note = shoot(request)
    assert "does not show the subject in the first pose" in note and (frames[-1] == busy).all()
    frames, note = shoot(dataclasses.replace(request, first_frame_in_pose=True))
    assert "first pose" not in note
    moved = (labels > 0) & (label == 0)
    assert np.abs(frames[-1][moved].astype(int) - busy[moved]).mean() > 2


@pytest.mark.parametrize("flow", [False, True])
def test_limbs_that_the_picture_shows_elsewhere_come_to_their_poses(flow):
    """The head and a leg of the picture are turned by 25 degrees; nothing of them stays where they were."""
    ends, truth, labels = figure(90)
    _, picture, there = figure(90, angles=(0, -65, 90, 95, 45, 55))
    small = labels[2::4, 2::4]
    known = dict(part_maps=np.stack([small] * 20))
    if flow:
        known["surface_flow"] = np.where(small > 0, 0, NO_FLOW).astype(np.int16)[None, None].repeat(20, 0)
        known["surface_flow"] = known["surface_flow"].repeat(2, 1)
    frames, note = shoot(ask(picture, pose_of(WALKER, [ends] * 20), first_labels=labels, **known))
    assert "of the limbs elsewhere" in note and (frames[0] == picture).all()
    left = (there > 0) & (labels == 0)
    assert np.abs(frames[-1][left].astype(int) - ground()[left]).mean() < 14
    colour = np.abs(frames[-1].astype(int) - truth).mean(axis=2)[labels > 0]
    assert np.median(colour) < 12 and (colour > 60).mean() < 0.1


def test_a_subject_that_stands_well_is_not_moved():
    ends, picture, labels = figure(90)
    pose = pose_of(WALKER, [ends] * 3)
    frames, note = shoot(ask(picture, pose, first_labels=labels))
    assert "elsewhere" not in note and "does not show" not in note
    assert (frames[2] == picture).all()


def test_a_picture_without_the_subject_is_told():
    ends, _, labels = figure(90)
    frames, note = shoot(ask(ground(), pose_of(WALKER, [ends] * 3), first_labels=labels))
    assert "does not show the subject in the first pose" in note and (frames[2] == ground()).all()
