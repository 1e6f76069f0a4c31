"""The draft engine draws what the request knows of surfaces and of what is behind them, rather than guess
it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from shared.messages import FLOW_STEPS, LIGHT_STEPS, NO_FLOW, Backdrop

from .draft_figures import HEIGHT, WIDTH, Stick, ask, bones, draw, ground, pose_of, shoot

CELL = 4
BODY = Stick("spine", None, 90, 24, (190, 90, 60), 5.0)


def breathe(radii):
    """Pictures, poses, labels and flow of a body whose flesh swells though its bone stays."""
    ends = bones((BODY,), (0,), (110, 120))
    middle = (np.mgrid[: HEIGHT // CELL, : WIDTH // CELL][::-1] + 0.5) * CELL
    pictures, labels, flow = [], [], []
    for radius in radii:
        body = dataclasses.replace(BODY, radius=radius)
        picture, label = draw((body,), ends, ground())
        pictures.append(picture)
        labels.append(label)
        axis = np.stack([np.clip(middle[0], 110, 110 + BODY.length), np.full(middle.shape[1:], 120.0)])
        way = (middle - axis) * (radii[0] / radius - 1)
        seen = label[CELL // 2 :: CELL, CELL // 2 :: CELL] > 0
        flow.append(np.where(seen, np.rint(way * FLOW_STEPS), NO_FLOW).astype(np.int16))
    return pictures, [ends] * len(radii), labels, np.stack(flow)


def test_surfaces_go_where_the_request_knows_them_to_be():
    pictures, poses, labels, flow = breathe((24, 30, 36))
    size = WIDTH // CELL, HEIGHT // CELL
    maps = [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in labels]
    known = dict(first_labels=labels[0], part_maps=np.stack(maps))
    request = pictures[0], pose_of((BODY,), poses)
    told, _ = shoot(ask(*request, **known, surface_flow=flow))
    bent, _ = shoot(ask(*request, **known))
    wrong = [np.abs(frames[2].astype(float) - pictures[2])[labels[2] > 0].mean() for frames in (told, bent)]
    assert wrong[0] < 0.4 * wrong[1]


def test_surfaces_are_carried_between_the_poses_that_were_sent():
    """The middle one of three poses is not sent, so nothing that is said of it may be looked at."""
    pictures, poses, labels, flow = breathe((24, 30, 36))
    maps = np.stack([label[CELL // 2 :: CELL, CELL // 2 :: CELL] for label in labels])
    request = pictures[0], pose_of((BODY,), poses)
    known = dict(first_labels=labels[0], part_maps=maps, pose_frames=(0, 2))
    spoilt = dict(part_maps=maps * np.array([1, 0, 1], np.uint8)[:, None, None], surface_flow=flow.copy())
    spoilt["surface_flow"][1] = 40
    carried, unseen, bent = (
        shoot(ask(*request, **known | more))[0] for more in (dict(surface_flow=flow), spoilt, {})
    )
    assert np.array_equal(carried, unseen)
    wrong = [
        np.abs(frames[1].astype(float) - pictures[1])[labels[1] > 0].mean() for frames in (carried, bent)
    ]
    assert wrong[0] < 0.5 * wrong[1]


def test_light_falls_anew_on_a_picture_that_shows_its_light_and_on_no_other():
    """A body lit from above, then from below."""
    pictures, poses, labels, flow = breathe((40, 40))
    flow[1][flow[1] != NO_FLOW] += 1  # it stirs
    row = np.arange(HEIGHT // CELL)[:, None] * CELL
    stops = np.clip((120 - row) / 40, -1, 1) * np.where(flow[0, 0] != NO_FLOW, 1.0, 0.0)
    light = np.stack([128 + LIGHT_STEPS * way * stops for way in (1, -1)]).astype(np.uint8)
    light[:, flow[0, 0] == NO_FLOW] = 0
    body = labels[0] > 0
    lit = np.exp2(np.clip((120 - np.arange(HEIGHT)) / 40, -1, 1) / 2.2)[:, None, None]
    shaded = np.where(body[..., None], np.clip(pictures[0] * lit, 0, 255), pictures[0]).astype(np.uint8)
    maps = np.stack([label[CELL // 2 :: CELL, CELL // 2 :: CELL] for label in labels])
    known = dict(first_labels=labels[0], part_maps=maps, surface_flow=flow, light_maps=light)
    flat = np.where(body[..., None], BODY.colour, pictures[0]).astype(np.uint8)
    change = {}
    for name, first in (("shaded", shaded), ("flat", flat)):
        frames, _ = shoot(ask(first, pose_of((BODY,), poses), **known))
        top, low = (
            frames[1][rows, 130:180].astype(float).mean() for rows in (slice(90, 105), slice(135, 150))
        )
        change[name] = top / low
    assert change["shaded"] < 0.8 and 0.95 < change["flat"] < 1.05


def test_what_the_camera_uncovers_is_of_the_material_that_is_there():
    """A blue sky over a field; right of the picture the ground rises into it."""
    _, poses, labels, _ = breathe((24, 24))
    step, turn = 80, np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))
    turn[1, 0, 2] = -step
    material = np.ones((HEIGHT, WIDTH + step), np.uint8)
    material[120:], material[60:, WIDTH:] = 2, 2
    colours = np.array([(0, 0, 0), (90, 140, 230), (90, 160, 60)], np.float64)
    picture = np.clip(colours[material] + (ground(WIDTH + step).astype(float) - 170) * 0.3, 0, 255).astype(
        np.uint8
    )
    first = np.ascontiguousarray(picture[:, :WIDTH])
    known = dict(first_labels=labels[0], camera_motion=turn)
    backdrop = dict(backdrop=Backdrop(material[4::8, 4::8].copy(), 8))
    beyond = np.s_[:, WIDTH - step :]
    wrong = [
        np.abs(
            shoot(ask(first, pose_of((BODY,), poses), **known, **more))[0][1][beyond]
            - picture[:, WIDTH:].astype(float)
        )
        for more in ({}, backdrop)
    ]
    assert wrong[1].mean() < 0.5 * wrong[0].mean()
    assert np.abs(wrong[1][70:110].mean(axis=(0, 1))).max() < 25
