"""Frames arriving while Blender does other things: saving, loading, undoing, rendering, deleting."""

from __future__ import annotations

import re
import time

import bpy
import pytest

from tests.addon.scenes import make_take, names, poll_until, settle, span
from tests.addon.servers import make_request, module


class Live:
    """A session that talks to a fake server, and a job of it."""

    def __init__(self, session, strips, output):
        self.session, self.strips, self.output = session, strips, output

    def submit(self, num_frames=30, make_movie=False, stem="fox", **fields):
        takes = module("takes.take")
        request = make_request(num_frames=num_frames, **fields)
        folder, name = takes.claim_folder(self.output, stem)
        take = make_take(folder, name, num_frames, 1, record={"seed": 1})
        takes.write_take(take, request)
        engine = poll_until(lambda: self.session.bridge.engine("draft"))
        return self.session.submit(request, take, bpy.context.scene, engine, make_movie)

    def strip(self, job):
        found = self.strips.find_strip(job.id)
        return found[1] if found else None


@pytest.fixture
def live(clean_scene, fake_server, tmp_path):
    session = module("session").get()
    session.bridge.disconnect()
    session.bridge.jobs.clear()

    def start(behaviour="well", pace=60):
        session.bridge.connect(fake_server(behaviour, pace), online=False)
        return Live(session, module("sequencer.strips"), tmp_path / "takes")

    yield start
    session.bridge.disconnect()
    session.bridge.jobs.clear()


def test_strip_is_there_from_the_first_frame_and_grows(live):
    live = live()
    job = live.submit(30)
    lengths = []

    def watch():
        if live.strip(job) is not None:
            lengths.append(len(live.strip(job).elements))
        return not live.session.in_progress(job)

    poll_until(watch)
    assert job.state == "DONE" and lengths[0] < 30 and lengths[-1] == 30
    assert lengths == sorted(lengths)
    assert names(live.strip(job)) == job.take.element_names(30)


def test_two_jobs_are_queued_and_both_arrive(live):
    live = live(pace=100)
    first, second = live.submit(20), live.submit(10)
    poll_until(lambda: second.describe() == "Queued, 1 before it")
    settle(first)
    settle(second)
    assert [len(live.strip(job).elements) for job in (first, second)] == [20, 10]
    assert live.strip(second).channel > live.strip(first).channel


def test_saving_in_the_middle(live, tmp_path):
    live = live()
    job = live.submit(40)
    poll_until(lambda: job.frames > 5)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    settle(job)
    assert len(live.strip(job).elements) == 40
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    live.session.poll()
    assert len(live.strip(job).elements) == 40, (
        "the file was saved half way, yet in this session nothing is missing"
    )


def test_another_file_in_the_middle_and_back(live, tmp_path):
    live = live()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    job = live.submit(40)
    bpy.ops.wm.open_mainfile(
        filepath=str(tmp_path / "film.blend")
    )  # thrown away before the first frame was seen
    poll_until(lambda: job.frames > 3)
    bpy.ops.wm.read_homefile(use_empty=True)
    settle(job)
    assert live.strip(job) is None, "the other file is left alone"
    assert job.take.frames_on_disk() == 40, "but no frame is lost"
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    live.session.poll()
    assert len(live.strip(job).elements) == 40


def test_undo_in_the_middle_and_after(live):
    """What undo does to the data is done by hand: it needs a window. The desktop test presses the keys."""
    live = live()
    collection = live.strips.strips_of(bpy.context.scene)

    def undo(change):
        live.session.arrival.before_undo()
        change()
        live.session.arrival.after_undo()
        live.session.poll()

    def shorten():
        while len(live.strip(job).elements) > 3:
            live.strip(job).elements.pop(-1)

    job = live.submit(60)
    poll_until(lambda: job.frames > 5)
    undo(lambda: collection.remove(live.strip(job)))
    assert live.strip(job) is not None, "frames go on arriving, and they go on being seen"
    undo(shorten)
    settle(job)
    assert len(live.strip(job).elements) == 60
    undo(shorten)
    assert len(live.strip(job).elements) == 60
    undo(lambda: collection.remove(live.strip(job)))
    assert live.strip(job) is not None, "no undo step holds it: undoing something else must not lose it"
    live.session.arrival.placements[job.id].in_undo = True
    undo(lambda: collection.remove(live.strip(job)))
    assert live.strip(job) is None, "undoing the generation itself takes the strip away"
    undo(lambda: None)
    assert live.strip(job) is None


def test_deleting_the_strip_in_the_middle_is_the_user_s_will(live):
    live = live()
    job = live.submit(40)
    poll_until(lambda: job.frames > 5)
    live.strips.strips_of(bpy.context.scene).remove(live.strip(job))
    live.session.arrival.before_undo()
    live.session.arrival.after_undo()  # of something else
    settle(job)
    assert live.strip(job) is None
    assert job.state == "DONE" and job.take.frames_on_disk() == 40
    bpy.ops.poseanything.add_take(directory=str(job.take.folder))
    found = [strip for scene in bpy.data.scenes for strip in live.strips.all_strips(scene)]
    assert [names(strip) for strip in found] == [job.take.element_names(40)]


def test_renaming_the_scene_and_moving_the_strip_in_the_middle(live):
    live = live()
    scene = bpy.context.scene
    job = live.submit(40)
    scene.name = "Renamed"
    poll_until(lambda: job.frames > 5)
    live.strip(job).name = "my favourite"
    live.strip(job).channel = 4
    settle(job)
    assert len(live.strip(job).elements) == 40 and live.strip(job).channel == 4
    assert live.strips.find_strip(job.id)[0].name == "Renamed"


def test_rendering_in_the_middle(live, tmp_path):
    live = live()
    job = live.submit(40)
    poll_until(lambda: job.frames > 3)
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y = 64, 32
    render.filepath = str(tmp_path / "still.png")
    bpy.ops.render.render(write_still=True)
    settle(job)
    assert (tmp_path / "still.png").exists() and len(live.strip(job).elements) == 40


def test_scene_that_is_deleted_in_the_middle(live):
    live = live()
    keep = bpy.data.scenes.new("Keep")
    job = live.submit(40)
    doomed = bpy.context.scene
    poll_until(lambda: job.frames > 3)
    bpy.data.scenes.remove(doomed)
    settle(job)
    assert job.state == "DONE" and job.take.frames_on_disk() == 40
    assert keep.name == "Keep"


def test_cancel_keeps_what_arrived(live):
    live = live()
    job = live.submit(200)
    poll_until(lambda: job.frames > 3)
    bpy.ops.poseanything.cancel(job=job.id)
    settle(job)
    kept = job.take.frames_on_disk()
    assert job.sentence == f"Cancelled. {kept} of 200 frames are kept."
    assert span(live.strip(job)) == (1, 1 + kept)


def test_server_killed_in_the_middle_and_generated_again(live, fake_server):
    live = live("dies")
    job = live.submit(30)
    poll_until(lambda: job.state == "INTERRUPTED")
    assert job.describe() == "Interrupted at frame 3 of 30, waiting for the server"
    fake_server(address=live.session.bridge.client.address)
    poll_until(lambda: job.ended)
    assert job.state == "FAILED" and "does not have this clip any more" in job.sentence
    settle(job)
    assert len(live.strip(job).elements) == 3
    again = live.submit(10)
    poll_until(lambda: again.ended)
    assert again.state == "DONE" and again.take.name == "fox_002"


def test_server_killed_with_two_jobs_of_which_one_waited(live, fake_server):
    live = live(pace=20)
    running, queued = live.submit(100), live.submit(6)
    poll_until(lambda: running.frames > 2 and queued.state == "QUEUED")
    fake_server.kill()
    poll_until(lambda: running.state == queued.state == "INTERRUPTED")
    assert queued.describe() == "Interrupted, waiting for the server"
    fake_server(address=live.session.bridge.client.address)
    settle(queued)
    assert (running.state, queued.state) == ("FAILED", "DONE")
    assert len(live.strip(queued).elements) == 6


def test_movie_follows_the_frames(live):
    live = live()
    job = live.submit(12, make_movie=True)
    poll_until(lambda: job.state == "ENCODING")
    assert job.describe() == "Encoding the movie" and not job.ended
    poll_until(lambda: job.ended, 120)
    assert live.strips.find_strip(job.id, "MOVIE") is not None and live.strip(job).mute


def test_time_left_is_told(live):
    live = live(pace=40)
    job = live.submit(60)
    poll_until(lambda: job.stage == "drawing" and not job.frames or job.frames)
    assert job.deadline is not None and 0 < job.seconds_left() <= 12
    poll_until(lambda: job.frames > 20)
    assert re.fullmatch(rf"Frame {job.frames} of 60, 0:(0\d|1[0-2]) left", job.describe())
    job.deadline = None
    assert job.seconds_left() is None and job.describe() == f"Frame {job.frames} of 60"


def test_disabling_the_extension_in_the_middle(live, addon):
    live = live()
    job = live.submit(200)
    poll_until(lambda: job.frames > 3)
    addon.unregister()
    try:
        frames = job.take.frames_on_disk()
        time.sleep(0.2)
        assert job.take.frames_on_disk() == frames >= 4
    finally:
        addon.register()
