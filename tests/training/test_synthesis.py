"""Synthetic clips: the truth they come with holds, and the pool takes them in whatever order."""

import dataclasses
import json

import numpy as np
import pytest

from inference_server.datasets.errors import DatasetError
from inference_server.poseanything.conditioning.pictures import encode_png
from inference_server.synthesis.clips import ClipSettings, make_clip
from inference_server.synthesis.creatures import MotionSettings, make_creature, move
from inference_server.synthesis.pool import Filling, Pool, encode_row, row_shapes, wait_for_rows
from inference_server.synthesis.rendered import read_rendered
from shared.raster import draw_pose
from shared.request_file import write_request

SMALL = ClipSettings(64, 64, 5)


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_gives_the_same_clip_and_no_other_seed_does(seed):
    clip, again, other = make_clip(seed, SMALL), make_clip(seed, SMALL), make_clip(seed + 100, SMALL)
    assert np.array_equal(clip.frames, again.frames) and np.array_equal(clip.labels, again.labels)
    assert not np.array_equal(clip.frames, other.frames) and clip.subject != other.subject


def test_the_pose_lies_on_the_limbs_it_is_of():
    hits = strokes = 0
    for seed in range(20):
        clip = make_clip(seed, ClipSettings(128, 96, 5))
        for frame in range(5):
            drawn = draw_pose(clip.request.pose, frame) > 0
            hits, strokes = hits + (drawn & (clip.labels[frame] > 0)).sum(), strokes + drawn.sum()
    assert hits > 0.9 * strokes  # the rest lies behind what passes in front


def test_the_background_follows_the_camera_path():
    moving = [
        clip
        for clip in (make_clip(seed, ClipSettings(128, 96, 5)) for seed in range(40))
        if clip.request.camera_motion is not None
    ]
    assert 5 < len(moving) < 30
    better = []
    for clip in moving:
        import cv2

        camera, last = clip.request.camera_motion[-1].astype(float), clip.frames[-1].astype(float)
        pixel = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        moved = cv2.warpPerspective(clip.frames[0], np.linalg.inv(pixel) @ camera @ pixel, (128, 96))
        seen = cv2.warpPerspective(
            np.ones((96, 128), np.uint8), np.linalg.inv(pixel) @ camera @ pixel, (128, 96)
        )
        free = (clip.labels[-1] == 0) & (clip.labels[0] == 0) & (seen > 0)
        with_camera = np.abs(moved - last).mean(-1)[free].mean()
        better.append(with_camera < np.abs(clip.frames[0] - last).mean(-1)[free].mean())
    assert np.mean(better) > 0.8


def test_a_row_holds_the_parts_that_the_labels_show():
    clip = make_clip(3, SMALL)
    row = encode_row(clip)
    assert {name: array.shape for name, array in row.items()} == row_shapes(SMALL)
    assert np.array_equal(row["frames"][0], row["drafts"][0])
    shown = np.flatnonzero(row["first_masks"].any((1, 2))) + 1
    assert set(shown) == set(np.unique(clip.labels[0])) - {0}
    assert row["known_masks"].any() and row["drawn_masks"].any()


def test_motions_are_as_fast_and_their_cameras_move_as_often_as_is_asked():
    def paths(**settings):
        for seed in range(12):
            random = np.random.default_rng(seed)
            yield move(random, make_creature(random), (128, 96), 5, MotionSettings(**settings))

    usual, slow = (
        np.mean([np.abs(np.diff(of.tails[1:], axis=0)).mean() for of in paths(moving_cameras=0.0, **pace)])
        for pace in ({}, {"slowest": 0.25, "fastest": 0.25})
    )
    assert slow < 0.4 * usual
    for share in (0.0, 1.0):
        moved = [np.abs(of.camera - np.eye(3)).max() > 1e-3 for of in paths(moving_cameras=share)]
        assert np.mean(moved) == share


def test_processes_fill_a_pool_and_leave_what_is_others(tmp_path):
    pool = Pool.create(tmp_path / "pool", 6, SMALL)
    motions = MotionSettings(moving_cameras=1.0)
    filling = Filling(pool, 2, first_seed=50, skip=(1, 2), held_out=5, motions=motions)
    try:
        assert wait_for_rows(pool, 4, filling, seconds=120) == 4
    finally:
        filling.stop()
    assert pool.rows().tolist() == [0, 3, 4, 5]
    assert np.array_equal(pool.arrays["frames"][3], make_clip(53, SMALL).frames)
    assert np.array_equal(pool.arrays["frames"][5], make_clip(55, SMALL, motions).frames)
    pool.write(1, make_clip(7, SMALL))
    assert 1 in Pool(tmp_path / "pool").rows()


def test_bones_lie_within_the_flesh_beside_its_middle():
    size, moved = ClipSettings(128, 96, 5), []
    hits = strokes = 0
    for seed in range(20):
        middle, bones = make_clip(seed, size), make_clip(seed, dataclasses.replace(size, look="bones"))
        assert np.array_equal(middle.frames, bones.frames) and np.array_equal(middle.labels, bones.labels)
        moved.append(np.hypot(*(middle.request.pose.points - bones.request.pose.points)[:, :2].T).mean())
        for frame in range(5):
            drawn = draw_pose(bones.request.pose, frame) > 0
            hits, strokes = hits + (drawn & (bones.labels[frame] > 0)).sum(), strokes + drawn.sum()
    assert hits > 0.85 * strokes and np.mean(moved) > 1.5


def test_of_what_was_rendered_the_seeds_and_subjects_that_are_asked_for_are_read(tmp_path):
    for seed, subject in ((3, "fox"), (4, "spider"), (5, "fox")):
        folder, clip = tmp_path / f"seed-{seed:06d}-{subject}", make_clip(seed, SMALL)
        folder.mkdir()
        write_request(folder / "clip-0.poserequest", dataclasses.replace(clip.request, part_maps=clip.labels))
        names = [f"{index:04d}.png" for index in range(5)]
        for name, frame in zip(names, clip.frames):
            (folder / name).write_bytes(encode_png(frame))
        clips = [{"request": "clip-0.poserequest", "frames": names, "subject": f"{subject}-{seed}"}]
        (folder / "clips.json").write_text(json.dumps(clips))

    def found(*which):
        return [example.subject for example in read_rendered(tmp_path, *which)]

    assert found() == ["fox-3", "spider-4", "fox-5"]
    assert found((4, 5)) == ["spider-4", "fox-5"] and found((3, 5), ["fox"]) == ["fox-3", "fox-5"]
    with pytest.raises(DatasetError, match="no rendered clips of these seeds"):
        found((6, 9))
