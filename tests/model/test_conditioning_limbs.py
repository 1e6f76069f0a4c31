"""Curves of line drawings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.poseanything.conditioning.limbs.graph import (
    chain_pixels,
    resample,
    simplify,
    trace_lines,
)


def drawing(*strokes, width=3, size=(120, 160)):
    image = np.zeros(size, np.uint8)
    for stroke in strokes:
        cv2.polylines(image, [np.array(stroke)], False, 255, width)
    return image > 0


def ends_of(graph):
    return sorted(tuple(np.rint(node / 10).astype(int).tolist()) for node in graph.nodes)


class TestTraceLines:
    def test_a_cross_is_four_curves_that_share_their_junction(self):
        graph = trace_lines(drawing([(20, 60), (140, 60)], [(80, 20), (80, 100)]))
        assert ends_of(graph) == [(2, 6), (8, 2), (8, 6), (8, 10), (14, 6)]
        assert sorted(graph.degrees().tolist()) == [1, 1, 1, 1, 4]
        for curve in graph.curves:
            assert np.allclose(curve.points[[0, -1]], graph.nodes[[curve.start, curve.end]])
            assert curve.length == pytest.approx(np.hypot(*(curve.points[-1] - curve.points[0])), rel=0.03)

    def test_two_junctions_near_each_other_are_one_and_stubs_are_none(self):
        spine = [(20, 60), (140, 60)]
        legs = [(80, 60), (60, 110)], [(84, 60), (110, 110)]
        graph = trace_lines(drawing(spine, *legs, [(40, 60), (40, 56)], width=1))
        assert sorted(graph.degrees().tolist()) == [1, 1, 1, 1, 4]

    def test_small_holes_close_and_large_ones_are_rings(self):
        small, large = [(60, 60), (64, 56), (68, 60), (64, 64), (60, 60)], [(80, 60), (100, 40), (120, 60)]
        graph = trace_lines(drawing([(20, 60), (80, 60)], small, large, [(80, 60), (100, 80), (120, 60)]))
        lengths = sorted(round(curve.length / 10) for curve in graph.curves)
        assert len(lengths) == 2 and lengths[0] == 6 and 10 <= lengths[1] <= 12

    def test_a_lone_ring_has_a_node(self):
        image = np.zeros((120, 160), np.uint8)
        cv2.circle(image, (80, 60), 30, 255, 3)
        (curve,) = trace_lines(image > 0).curves
        assert curve.start == curve.end and curve.length == pytest.approx(2 * np.pi * 30, rel=0.08)

    def test_codec_fringes_of_broad_strokes_are_no_curves(self):
        clean = drawing([(20, 60), (140, 60)], [(80, 60), (80, 110)], width=13)
        near = cv2.dilate(clean.astype(np.uint8), np.ones((9, 9))) > 0
        dots = np.random.default_rng(0).random(clean.shape) < 0.15
        assert len(trace_lines(clean | dots & near).curves) == 3

    def test_nothing_drawn_is_no_curve_and_a_dot_is_none(self):
        assert trace_lines(np.zeros((20, 20), bool)).curves == ()
        assert trace_lines(drawing([(50, 50), (50, 50)], width=1)).curves == ()

    def test_a_short_stroke_alone_stays(self):
        assert len(trace_lines(drawing([(50, 50), (54, 50)], width=1)).curves) == 1


def test_chaining_keeps_every_pixel_of_the_skeleton():
    skeleton = drawing([(20, 60), (140, 60)], [(80, 60), (110, 110), (50, 110), (80, 60)], width=1)
    graph = chain_pixels(skeleton)
    covered = np.zeros_like(skeleton)
    for curve in graph.curves:
        covered[tuple(curve.points.astype(int).T[::-1])] = True
    assert (covered == skeleton).all()
    assert len(simplify(graph, 5.0).curves) == 3


def test_resampling_keeps_ends_and_evens_steps():
    points = resample(np.array([[0.0, 0], [1, 0], [10, 0], [10, 10]]), 6)
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [10, 10]
    assert np.allclose(np.abs(np.diff(points, axis=0)).sum(1), 4)
