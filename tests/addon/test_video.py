"""Poses from a video: found by the server, kept in the file, laid on the clip and sent instead of a rig's."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from .servers import module, png

WIDTH, HEIGHT, COUNT = 160, 112, 9


def walker(x: int, swing: int) -> np.ndarray:
    """[H, W, 3] uint8: a red body with two legs before a grey ground."""
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    image[::7] = 140
    image[34:48, x - 32 : x + 32] = (200, 40, 30)
    rows = np.arange(48, 92)
    for hip, lean in ((x - 14, swing), (x + 14, -swing)):
        middle = hip + np.round(lean * (rows - 48) / 44).astype(int)
        for offset in range(-3, 4):
            image[rows, middle + offset] = (200, 40, 30)
    return image


@pytest.fixture
def filmed(shot, tmp_path):
    """A strip of nine pictures in an edit scene, marked as the scene's video; gives both."""
    footage, edit_scene = module("sequencer.footage"), module("sequencer.edit_scene")
    for index in range(COUNT):
        picture = walker(50 + 2 * index, round(8 * np.sin(index)))
        (tmp_path / f"{index:02d}.png").write_bytes(png(picture))
    edit = edit_scene.make_edit_scene(shot)
    strip = (
        module("sequencer.strips")
        .strips_of(edit)
        .new_image("walk", str(tmp_path / "00.png"), channel=1, frame_start=30)
    )
    for index in range(1, COUNT):
        strip.elements.append(f"{index:02d}.png")
    for element in strip.elements:
        assert element.orig_width == WIDTH or element != strip.elements[0]
    shot.poseanything_video.strip = footage.mark(strip)
    shot.poseanything.pose_source, shot.poseanything.first_frame_source = "VIDEO", "VIDEO"
    return shot, strip


def find(scene, **pick):
    assert bpy.ops.poseanything.pick_subject(**pick) == {"FINISHED"}
    return bpy.ops.poseanything.find_poses(wait=True)


def test_poses_are_found_kept_and_sent(filmed, preferences, real_server, sent, tmp_path):
    scene, strip = filmed
    with real_server() as server:
        preferences.autostart, preferences.address = False, server.address
        assert find(scene, kind="CLICK", at=(50 / WIDTH, 40 / HEIGHT, 0, 0)) == {"FINISHED"}
        video = scene.poseanything_video
        assert video.search == "" and video.poses is not None
        # Saved and opened again, it is the same.
        bpy.ops.wm.save_mainfile()
        module("request.kept_poses")._read.clear()
        bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
        scene = bpy.context.scene
        kept = module("request.kept_poses").read(scene.poseanything_video.poses)
        assert kept.found.pose.num_frames == COUNT and len(kept.found.pose.limbs) >= 3
        # The strip says when: what is cut off is not asked for.
        _, strip = module("sequencer.footage").find(scene.poseanything_video.strip)
        strip.frame_offset_start = 2
        strip.frame_start += 10
        scene.poseanything.engine = "plain"
        assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    request = sent[-1]
    assert request.num_frames == COUNT - 2 and request.subject_mask.mean() > 0.02
    middles = [request.pose.frame_points(index)[0][:, 0].mean() for index in range(COUNT - 2)]
    step = 2 * request.width / WIDTH
    assert middles[-1] - middles[0] == pytest.approx(step * (COUNT - 3), abs=2.5 * step)
    mask = np.argwhere(request.subject_mask)
    points = request.pose.frame_points(0)[0][:, 1::-1]
    assert (points > mask.min(0) - 6).all() and (points < mask.max(0) + 7).all()
    job = list(module("session").get().bridge.jobs.values())[-1]
    assert module("sequencer.strips").span(module("sequencer.strips").find_strip(job.id)[1])[0] == 42
