"""Curves of line drawings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.poseanything.conditioning.limbs.following import follow_limbs
from inference_server.poseanything.conditioning.limbs.graph import (
    chain_pixels,
    resample,
    simplify,
    trace_lines,
)
from inference_server.poseanything.conditioning.limbs.interpolation import interpolate_poses
from shared.pose import Limb, Polyline, PoseSequence


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


class TestFollowLimbs:
    @staticmethod
    def walk(frames=24):
        """Frame -> the points of a body with two legs that pass each other and a tail, in pixels."""
        for frame in range(frames):
            swing = 0.9 * np.cos(2 * np.pi * frame / 16)
            hip = np.array([150.0 + 4 * frame, 120.0])
            feet = [hip + 90 * np.array([np.sin(turn), np.cos(turn)]) for turn in (swing, -swing)]
            yield {
                "body": [hip - (100, 0), hip],
                "head": [hip, hip + (60, -50)],
                "leg": [hip, feet[0]],
                "other leg": [hip, feet[1]],
            }

    def test_legs_that_pass_each_other_stay_themselves(self):
        truth = list(self.walk())
        drawings = {
            i: drawing(*np.rint(list(f.values())).astype(int), size=(240, 400)) for i, f in enumerate(truth)
        }
        pose = follow_limbs(drawings, len(truth))
        assert len(pose.limbs) == 4 and (pose.width, pose.height) == (400, 240)
        found = {}
        for name, at in {"body": 0, "head": 1, "leg": 1, "other leg": 1}.items():
            tip = truth[0][name][at]
            near = [min(np.linalg.norm(p.points[[0, -1], :2] - tip, axis=1)) for p in pose.frame(0)]
            found[name] = pose.frame(0)[int(np.argmin(near))].limb
        assert sorted(found.values()) == [0, 1, 2, 3]
        for frame in range(len(truth)):
            lines = {line.limb: line.points for line in pose.frame(frame)}
            assert len(lines) == 4
            for name, limb in found.items():
                middle = np.mean(truth[frame][name], axis=0)
                assert np.linalg.norm(lines[limb][:, :2] - middle, axis=1).min() < 6, (frame, name)

    def test_a_limb_that_is_not_drawn_has_no_polyline_and_comes_back_as_itself(self):
        truth = list(self.walk(8))
        strokes = [list(frame.values()) for frame in truth]
        strokes[3] = strokes[3][:1] + strokes[3][2:]
        drawings = {
            i: drawing(*np.rint(lines).astype(int), size=(240, 400)) for i, lines in enumerate(strokes)
        }
        del drawings[5]
        pose = follow_limbs(drawings, 8)
        assert [len(pose.frame(i)) for i in range(8)] == [4, 4, 4, 3, 4, 0, 4, 4]
        (gone,) = {0, 1, 2, 3} - {line.limb for line in pose.frame(3)}
        places = [line.points[:, :2].mean(0) for i in (2, 4) for line in pose.frame(i) if line.limb == gone]
        assert np.linalg.norm(places[1] - places[0]) < 24

    def test_nothing_drawn_is_no_limb(self):
        assert follow_limbs({0: np.zeros((40, 60), bool)}, 1).limbs == ()


class TestInterpolatePoses:
    LIMBS = Limb("leg", 0), Limb("foot", 0)

    def pose(self, *frames):
        """Of a polyline for each leg and foot by frame; None where it is hidden."""
        return PoseSequence.from_frames(
            160,
            120,
            ["body"],
            self.LIMBS,
            [
                [Polyline(limb, line) for limb, line in enumerate(lines) if line is not None]
                for lines in frames
            ],
        )

    def steps(self, *places, foot=True):
        """A leg whose knee is moved to the right by so much, and a foot that begins there."""
        legs = [[(20 + at, 20, 3), (20 + at, 60, 3)] for at in places]
        return self.pose(*((leg, [leg[-1], (90, 90, 3)] if foot else None) for leg in legs))

    def knees(self, pose):
        """By frame the x of the leg's end and of the foot's beginning."""
        return [[line.points[line.limb - 1, 0] for line in pose.frame(i)] for i in range(pose.num_frames)]

    def test_between_two_poses_limbs_go_straight_and_joints_hold(self):
        pose = interpolate_poses(self.steps(7, 0, 99, 99, 99, 8, 7), (1, 5))
        assert self.knees(pose) == [[], [20, 20], [22, 22], [24, 24], [26, 26], [28, 28], []]
        assert pose.frame(3)[1].points[1].tolist() == [90, 90, 3]

    def test_between_more_they_stay_within_them(self):
        moved = self.steps(*np.interp(range(13), (0, 4, 8, 12), (0, 0, 40, 40)))
        (begins, *_), ways = (
            self.knees(moved)[0],
            np.array(self.knees(interpolate_poses(moved, (0, 4, 8, 12)))),
        )
        assert np.ptp(ways, 1).max() < 1e-6 and (np.diff(ways[:, 0]) >= 0).all()
        assert (ways[:5] == begins).all() and (ways[8:] == begins + 40).all() and 0 < ways[5, 0] - begins < 10

    def test_limbs_that_are_hidden_or_cut_are_not_made_up(self):
        whole, hidden = self.steps(0, 0, 4, 4, 8), self.steps(0, 0, 4, 4, 8, foot=False)
        frames = [whole.frame(0), [], hidden.frame(2), [], whole.frame(4)]
        pose = PoseSequence.from_frames(160, 120, ["body"], self.LIMBS, frames)
        assert [len(interpolate_poses(pose, (0, 2, 4)).frame(i)) for i in range(5)] == [2, 1, 1, 1, 2]
        frames[2] = [*hidden.frame(2), *hidden.frame(2)]
        pose = PoseSequence.from_frames(160, 120, ["body"], self.LIMBS, frames)
        assert [len(interpolate_poses(pose, (0, 2, 4)).frame(i)) for i in range(5)] == [2, 0, 2, 0, 2]

    def test_polylines_of_other_lengths_are_matched_along_their_way(self):
        leg, cut = [(0, 0, 3), (0, 10, 3), (0, 40, 3)], [(8, 0, 3), (8, 40, 3)]
        pose = interpolate_poses(self.pose((leg, None), (None, None), (cut, None)), (0, 2))
        assert pose.frame(1)[0].points.tolist() == [[4, 0, 3], [4, 15, 3], [4, 40, 3]]
        assert pose.frame(0)[0].points.tolist() == [list(point) for point in leg]
