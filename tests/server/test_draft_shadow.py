"""The draft engine takes the first frame's shadow along with its subject, and leaves pictures without one
alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.engines.draft.live import LiveDraft

from .draft_figures import HEIGHT, WALKER, WIDTH, ask, bones, draw, ground, pose_of, shoot

CELL = 8
LIGHT = np.array([0.5, 0.55, 0.65])
"""What the shadow leaves of each colour."""


def shadow(x: float, side: int = 1) -> np.ndarray:
    """[HEIGHT, WIDTH] bool: an ellipse below the walker at x."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (round(x) + 40 * side, 215), (60, 14), 0, 0, 360, 1, -1)
    return mask > 0


def frames(steps, shaded: bool, shares=(1.0,)):
    """Pictures, poses, labels and shadow maps of a walker that slides along, its shadow in each of the
    lights holding back a share of all light."""
    pictures, poses, labels, maps = [], [], [], []
    for x in steps:
        behind = ground().astype(np.float64)
        fallen = sum(share * shadow(x, side) for share, side in zip(shares, (1, -1)))
        if shaded:
            behind *= 1 - fallen[..., None] * (1 - LIGHT)
        ends = bones(WALKER, (0, -40, 90, 95, 85, 90), (x, 110))
        picture, label = draw(WALKER, ends, behind.astype(np.uint8))
        pictures.append(picture)
        poses.append(ends)
        labels.append(label)
        size = (WIDTH // CELL, HEIGHT // CELL)
        maps.append(cv2.resize(np.rint(fallen * 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA))
    return pictures, poses, labels, np.stack(maps)


def error(picture, truth, where) -> float:
    return float(np.abs(picture[where].astype(float) - truth[where]).mean())


@pytest.mark.parametrize(("shares", "left"), [((1.0,), 0.35), ((0.55, 0.45), 0.5)], ids=["one light", "two"])
def test_a_shadow_goes_along(shares, left, steps=(60, 90, 150)):
    pictures, poses, labels, maps = frames(steps, shaded=True, shares=shares)
    pose, known = pose_of(WALKER, poses), dict(first_labels=labels[0])
    still, _ = shoot(ask(pictures[0], pose, **known))
    along, _ = shoot(ask(pictures[0], pose, **known, shadow_maps=maps))
    old = shadow(steps[0]) & ~shadow(steps[2]) & (labels[2] == 0)
    new = shadow(steps[2]) & ~shadow(steps[0]) & (labels[2] == 0)
    for where in (old, new):
        assert error(along[2], pictures[2], where) < left * error(still[2], pictures[2], where)
    assert (along[0] == pictures[0]).all()


def test_a_picture_that_shows_no_shadow_is_left_alone():
    pictures, poses, labels, maps = frames((60, 90, 150), shaded=False)
    pose, known = pose_of(WALKER, poses), dict(first_labels=labels[0])
    plain, _ = shoot(ask(pictures[0], pose, **known))
    told, _ = shoot(ask(pictures[0], pose, **known, shadow_maps=maps))
    assert all((a == b).all() for a, b in zip(plain, told))


@pytest.mark.parametrize("field", ["part_maps", "shadow_maps"])
def test_maps_of_frames_without_a_pose_are_not_asked_for(field):
    pictures, poses, labels, maps = frames((60, 90, 150), shaded=True)
    if field == "part_maps":
        size = (WIDTH // CELL, HEIGHT // CELL)
        maps = np.stack([cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in labels])
    other = maps.copy()
    other[1] = maps.max()
    pose = pose_of(WALKER, poses)
    results = [
        shoot(ask(pictures[0], pose, first_labels=labels[0], pose_frames=(0, 2), **{field: known}))[0]
        for known in (maps, other)
    ]
    assert all((a == b).all() for a, b in zip(*results))


def test_a_live_pose_has_the_shadow_of_the_pose_most_like_it():
    """The shadow lies on one side of a walker whose legs hang, and on the other while they are spread."""
    hanging, spread = (0, -40, 90, 95, 85, 90), (0, -40, 50, 60, 130, 120)
    poses, pictures = [], []
    for angles, side in ((hanging, 1), (spread, -1)):
        behind = ground() * (1 - shadow(90, side)[..., None] * (1 - LIGHT))
        poses.append(bones(WALKER, angles, (90, 110)))
        pictures.append(draw(WALKER, poses[-1], behind.astype(np.uint8)))
    size = (WIDTH // CELL, HEIGHT // CELL)
    maps = [
        cv2.resize(shadow(90, side) * np.uint8(255), size, interpolation=cv2.INTER_AREA) for side in (1, -1)
    ]
    known = dict(first_labels=pictures[0][1], shadow_maps=np.stack(maps))
    session = LiveDraft(ask(pictures[0][0], pose_of(WALKER, poses), **known))
    new = bones(WALKER, spread, (120, 110))
    made = session.draw(pose_of(WALKER, [new]), None)
    labels = draw(WALKER, new, ground())[1]
    truth = ground() * (1 - shadow(120, -1)[..., None] * (1 - LIGHT))
    for where in (shadow(120, -1) & ~shadow(120), shadow(120) & ~shadow(120, -1) & ~shadow(90)):
        assert error(made, truth, where & (labels == 0)) < 16
