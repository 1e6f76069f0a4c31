"""What is drawn over the camera view is what is sent."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.servers import module


def covered(triangles: np.ndarray, width: int, height: int) -> np.ndarray:
    """[height, width] bool: the pixels whose centres lie in one of the triangles [T, 3, 2], y up."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height)[::-1] + 0.5)
    inside = np.zeros((height, width), bool)
    for a, b, c in triangles:
        sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        inside |= np.all([side >= -1e-3 for side in sides], axis=0)
        inside |= np.all([side <= 1e-3 for side in sides], axis=0)
    return inside


def test_strokes_cover_the_pixels_that_the_model_is_shown(addon):
    overlay, pose, raster = module("ui.overlay"), module("shared.pose"), module("shared.raster")
    rng = np.random.default_rng(3)
    lines = np.concatenate([rng.uniform(5, 90, (12, 2, 2)), np.ones((12, 2, 1))], axis=2).astype(np.float32)
    frames = [[pose.Polyline(0, line) for line in lines]]
    sent = pose.PoseSequence.from_frames(1024, 96, ["a"], [pose.Limb("a", 0)], frames)
    flat = lines[..., :2] * (1, -1) + (0, 96)
    radius = raster.LINE_WEIGHT * 1024 / 2
    triangles = overlay._strokes(flat[:, 0], flat[:, 1], radius).reshape(-1, 3, 2)
    drawn, wanted = covered(triangles, 1024, 96), raster.draw_pose(sent, 0) > 0
    assert wanted.sum() > 1000 and (drawn != wanted).sum() < 0.002 * wanted.sum()


def test_the_pose_that_is_shown_is_the_one_that_is_sent(shot, served, sent):
    served()
    bpy.ops.poseanything.generate(wait=True)
    shot.frame_set(9)
    frame = module("ui.frame")
    pose = module("ui.overlay").current_pose(bpy.context, frame.clip_fit(bpy.context))
    assert (pose.width, pose.height) == (128, 72) and pose.limbs == sent[0].pose.limbs
    for shown, exported in zip(pose.frame(0), sent[0].pose.frame(4), strict=True):
        assert shown.limb == exported.limb
        assert shown.points == pytest.approx(exported.points, abs=1e-3)


def test_a_picture_lies_where_it_is_sent_and_follows_its_handles(addon):
    overlay, alignment = module("ui.overlay"), module("ui.alignment")
    first_frame, views = module("ground_truth.first_frame"), module("view")
    placed = views.fit(128, 72, 128, 72)
    box = (100.0, 50.0, 100.0 + 256, 50.0 + 144)  # the clip at twice its size
    lain = first_frame.Alignment(1.5, 0.25, -0.1)
    left, bottom, right, top = overlay.picture_box(box, placed, (128, 72), lain)
    x, y, width, height = lain.box(views.fit(128, 72, 128, 72))
    assert (left, top) == pytest.approx((100 + 2 * x, 50 + 144 - 2 * y))
    assert (right - left, top - bottom) == pytest.approx((2 * width, 2 * height))

    grip = alignment.Grip(lain, (right, top), (228.0, 122.0), (256.0, 144.0))
    moved = grip.dragged((right + 25.6, top + 14.4), scales=False, fine=False)
    assert (moved.scale, moved.x, moved.y) == pytest.approx((1.5, 0.35, 0.0))
    fine = grip.dragged((right + 25.6, top), scales=False, fine=True)
    assert fine.x == pytest.approx(0.26)
    centre = np.array([(left + right) / 2, (bottom + top) / 2])
    half = centre + (np.array([right, top]) - centre) / 2
    smaller = grip.dragged(tuple(half), scales=True, fine=False)
    assert (smaller.scale, smaller.x, smaller.y) == pytest.approx((0.75, 0.25, -0.1))
    assert overlay.picture_box(box, placed, (128, 72), smaller)[2:] == pytest.approx(tuple(half))
