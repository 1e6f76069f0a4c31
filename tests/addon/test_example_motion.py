"""How the creatures of the training data move: feet stay where they stand, tails follow as springs."""

from __future__ import annotations

import random

import bpy
import numpy as np
import pytest

from tests.addon.servers import module

LEGGED = ("wolf", "cat", "horse", "basic_quadruped", "human", "bird", "spider")


def built(kind, seed, frames=61):
    """What is built of a kind, and its bones' heads and tails in the world, [F, B, 2, 3]."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start, scene.frame_end = 24, 1, frames
    actor = module("examples.kinds").build(bpy.context, kind, seed)
    places = []
    for frame in range(1, frames + 1):
        scene.frame_set(frame)
        world = np.array(actor.rig.matrix_world)
        ends = np.array([[bone.head, bone.tail] for bone in actor.rig.pose.bones])
        places.append(ends @ world[:3, :3].T + world[:3, 3])
    return actor, np.array(places)


@pytest.mark.parametrize("kind", LEGGED)
def test_feet_stay_where_they_are_set_down(addon, kind):
    if bpy.app.version < (5, 0, 0) and kind != "spider":
        pytest.skip("Rigify: see test_examples.example")
    plan = module("examples.gaits").PLANS[kind]
    seen = set()
    for seed in range(1, 6):
        actor, places = built(kind, seed)
        if actor.does == "flies":
            continue
        seen.add(actor.does)
        bones = actor.rig.data.bones
        feet = [(leg.foot or leg.chain[-1]).format(side) for leg in plan.legs for side in "LR"]
        long = np.mean([bones[leg.chain[0].format("L")].head_local.z for leg in plan.legs])
        points = places[:, [bones.find(name) for name in feet], 1]
        above = (points[..., 2] - [bones[name].tail_local.z for name in feet]) / long
        on_ground = above < 0.015
        stays = on_ground[1:] & on_ground[:-1]
        slid = np.linalg.norm(np.diff(points[..., :2], axis=0), axis=-1) / long
        assert above.min() > -0.01, "nothing sinks into the ground"
        assert on_ground.any(0).all() and slid[stays].max() < 0.02, (seed, actor.does)
        goes = np.linalg.norm(places[-1, 0, 0, :2] - places[0, 0, 0, :2]) / long
        assert goes > 0.5 or actor.does.startswith(("stands", "turns"))
    assert len(seen) > 1, "seeds differ in how they go"


def test_a_snake_goes_along_its_own_track(addon):
    actor, places = built("snake", 3)
    order = sorted(range(len(actor.rig.pose.bones)), key=lambda index: actor.rig.pose.bones[index].name)
    joints = places[:, [*order]][:, :, 1, :2]
    nose = places[:, order[0], 0, :2]
    # Where the third joint is late on, the head was before.
    away = np.linalg.norm(joints[-1, 0] - nose, axis=-1).min()
    assert away < 0.02
    assert np.linalg.norm(nose[-1] - nose[0]) > 0.2


def test_a_spring_swings_out_and_comes_to_rest():
    springs = module("examples.springs")
    frames = 72
    heads = np.zeros((frames, 3))
    wanted = np.tile([1.0, 0, 0], (frames, 1))
    wanted[1:] = np.cos(0.4), np.sin(0.4), 0  # turned at once
    tips = springs.follow(heads, wanted, springs.Spring(2.0, 0.2), 24)
    angles = np.arctan2(tips[:, 1], tips[:, 0])
    assert np.allclose(np.linalg.norm(tips - heads, axis=1), 1), "it keeps its length"
    assert angles[2] < 0.3 and angles.max() > 0.45, "it lags behind, then swings past"
    assert abs(angles[-1] - 0.4) < 0.01, "and comes to rest"
    period = np.diff(np.flatnonzero(np.diff(np.sign(angles - 0.4)))).mean() * 2
    assert period == pytest.approx(12, abs=2), "at its own frequency"


def test_a_spring_lags_behind_what_speeds_up_and_not_behind_what_goes_evenly():
    springs = module("examples.springs")
    time = np.arange(72.0)
    for heads_at, lags in ((time, False), (0.03 * time**2, True)):
        heads = np.column_stack([heads_at, 0 * time, 0 * time])
        tips = springs.follow(heads, heads + [0, 0, -1], springs.Spring(2.0, 0.5), 24)
        behind = heads[40:60, 0] - tips[40:60, 0]
        assert (behind > 0.1).all() if lags else np.abs(behind).max() < 1e-6


def test_a_way_begins_at_the_origin_and_never_jumps():
    curves = module("examples.curves")
    for seed in range(20):
        way = curves.Way(random.Random(seed), 8.0, 0.4 if seed else 0.0)
        far = np.linspace(-3, 12, 301)
        places, heading = way.at(far), way.heading(far)
        assert np.abs(way.at(np.zeros(1))).max() < 1e-9 and abs(way.heading(np.zeros(1))[0]) < 0.4
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        assert np.allclose(steps, 0.05, rtol=0.02), "its length is what was gone"
        assert np.abs(np.diff(heading)).max() < 0.2
        assert (np.abs(places[:, 0]).max() > 0.1) == (seed > 0)


def test_what_hangs_on_a_body_follows_late(addon):
    """A tree's branches in gusts, which no wave of one frequency could be."""
    actor, places = built("tree", 2)
    names = [bone.name for bone in actor.rig.pose.bones]
    tip = places[:, names.index("branch 0.02"), 1]
    moved = tip - tip.mean(0)
    power = np.abs(np.fft.rfft(moved[:, 0] * np.hanning(len(moved)))) ** 2
    assert np.ptp(moved, axis=0).max() > 0.02 and power.max() < 0.9 * power.sum()
