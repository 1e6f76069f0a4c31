"""Choosing among takes: alone, against each other, more of them, a part of one again, none of them."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.scenes import make_take, newest_job, session, span, strip_of
from tests.addon.servers import module


def generate():
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
    return newest_job()


def shown_in(job):
    return not strip_of(job).mute


def move(strip, frames):
    name = "content_start" if hasattr(strip, "content_start") else "frame_start"
    setattr(strip, name, getattr(strip, name) + frames)


def choose(scene, index, other=""):
    kept = scene.poseanything_takes
    kept.index, kept.other = index, other
    return kept


@pytest.fixture
def trash(tmp_path, monkeypatch):
    """Where the system's trash is in this test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    import send2trash.plat_other as system

    monkeypatch.setattr(system, "HOMETRASH_B", bytes(tmp_path / "share" / "Trash"))
    return tmp_path / "share" / "Trash" / "files"


def test_takes_alone_in_turn_and_side_by_side(shot, served):
    served()
    first, second = generate(), generate()
    kept = choose(shot, 0)
    bpy.ops.poseanything.solo_take()
    assert (shown_in(first), shown_in(second)) == (True, False)
    bpy.ops.poseanything.solo_take()
    assert (shown_in(first), shown_in(second)) == (True, True)

    assert not bpy.ops.poseanything.switch_take.poll(), "nothing to compare with"
    choose(shot, 0, second.take.name)
    for expected in ((True, False), (False, True), (True, False)):
        bpy.ops.poseanything.switch_take()
        assert (shown_in(first), shown_in(second)) == expected

    strip_of(second).crop.min_x = 5
    kept.wipe = 0.25
    left, right = strip_of(first).crop, strip_of(second).crop
    assert (shown_in(first), shown_in(second)) == (True, True)
    assert (left.min_x, left.max_x, right.min_x, right.max_x) == (0, 96, 32, 0)
    kept.wipe = 1.0
    assert (left.min_x, left.max_x, right.min_x, right.max_x) == (0, 0, 5, 0), "the user's crop is back"


def test_takes_of_a_shot_do_not_stack_for_ever(clean_scene, tmp_path):
    strips = module("sequencer.strips")
    names = [f"fox_00{number}" for number in range(8)]
    for name in names:
        take = make_take(tmp_path / name, name=name, record={"scene": "Scene"})
        take.folder.mkdir()
        strips.show_frames(clean_scene, name, take, 5)
        if name == "fox_001":
            move(strips.find_strip(name)[1], 1)  # the user edits with it
    left = {strip[strips.TAKE_ID] for strip in strips.all_strips(clean_scene)}
    assert left == {"fox_001", *names[-strips.STACK :]}
    assert max(strip.channel for strip in strips.all_strips(clean_scene)) <= strips.STACK + 2


def test_new_seeds_are_the_same_request_but_for_the_seed(shot, served, sent):
    served()
    shot.poseanything.batch = 2
    generate()
    assert bpy.ops.poseanything.new_seeds(count=2, wait=True) == {"FINISHED"}
    first, *others = sent
    assert len({request.seed for request in sent}) == len({request.job for request in sent}) == 4
    for other in others:
        assert (other.first_frame, other.prompt) == (first.first_frame, first.prompt)
        assert np.array_equal(other.pose.points, first.pose.points)
    jobs = list(session().bridge.jobs.values())
    assert [job.take.record["seed"] for job in jobs] == [request.seed for request in sent]
    assert [item.seed for item in shot.poseanything_takes.items] == [str(request.seed) for request in sent]


def test_a_part_of_a_take_is_made_again_and_joined(shot, served, sent):
    served()
    whole = generate()
    old = strip_of(whole)
    move(old, 100)  # it lies elsewhere in the edit
    again = bpy.ops.poseanything.retake_range(take_id=whole.id, frame_start=8, frame_end=12, wait=True)
    assert again == {"FINISHED"}
    part, strip, request = newest_job(), strip_of(newest_job()), sent[-1]
    assert request.first_frame == (whole.take.folder / "Scene_001_0004.png").read_bytes(), "frame 8's own"
    assert request.num_frames == 5 and part.take.times.start == 8
    assert span(strip) == (108, 113) and strip.channel > old.channel
    scene = module("sequencer.strips").find_strip(part.id)[0]
    opacities = []
    for frame in range(108, 113):
        scene.frame_set(frame)
        opacities.append(strip.blend_alpha)
    assert opacities[:3] == [1, 1, 1] and 1 > opacities[3] > opacities[4] > 0, "it gives way to what is below"
    with pytest.raises(RuntimeError, match="Scene_001 has frames 5 to 16; choose two or more of them"):
        bpy.ops.poseanything.retake_range(take_id=whole.id, frame_start=30, frame_end=40)


def test_a_deleted_take_is_in_the_trash(shot, served, trash):
    served()
    first, second = generate(), generate()
    assert bpy.ops.poseanything.delete_take(take_id=first.id) == {"FINISHED"}
    assert not first.take.folder.exists()
    assert len(list((trash / first.take.folder.name).glob("*.png"))) >= 12, "frames can be had back"
    assert [item.take_id for item in shot.poseanything_takes.items] == [second.id]
    assert module("sequencer.strips").find_strip(first.id) is None and strip_of(second) is not None


def test_what_cannot_go_to_the_trash_stays_and_is_said(shot, served, monkeypatch):
    served()
    job = generate()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module("takes.trash"), "send2trash", refuse)
    with pytest.raises(
        RuntimeError, match="can't be moved to the trash .Permission denied.; delete it by hand"
    ):
        bpy.ops.poseanything.delete_take(take_id=job.id)
    assert job.take.frames_on_disk() == 12 and len(shot.poseanything_takes.items) == 1
    assert strip_of(job) is not None


def test_cleaning_up_keeps_what_is_shown_or_rated(shot, served, trash):
    served()
    jobs = [generate() for _ in range(3)]
    assert not bpy.ops.poseanything.clean_up_takes.poll(), "all are shown"
    for job in jobs[:2]:
        module("sequencer.strips").remove(job.id)
    shot.poseanything_takes.items[1].rating = 4
    lost = shot.poseanything_takes.items.add()
    lost.name, lost.folder = "lost", str(trash.parent)  # which holds no take
    trash.mkdir(parents=True)
    assert bpy.ops.poseanything.clean_up_takes() == {"FINISHED"}
    assert [item.name for item in shot.poseanything_takes.items] == ["Scene_002", "Scene_003"]
    assert [job.take.folder.exists() for job in jobs] == [False, True, True]
    assert [path.name for path in trash.iterdir()] == ["Scene_001"]


def test_folders_moved_together_are_found_together(shot, served, tmp_path):
    served()
    jobs = [generate() for _ in range(3)]
    archive = tmp_path / "archive"
    jobs[0].take.folder.parent.rename(archive)
    assert bpy.ops.poseanything.relink_take(take_id=jobs[1].id, directory=str(archive)) == {"FINISHED"}
    take_list = module("sequencer.take_list")
    assert [take_list.take_of(item).frames_on_disk() for item in shot.poseanything_takes.items] == [12] * 3
    assert strip_of(jobs[2]).directory == "//archive/Scene_003/"
