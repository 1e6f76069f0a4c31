"""Poses from a video: found by the server, kept in the file, laid on the clip and sent instead of a rig's."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from .servers import module, png

WIDTH, HEIGHT, COUNT = 160, 112, 7


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
    """A strip of pictures in an edit scene, marked as the scene's video; gives both."""
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
    shot.poseanything_video.strip = footage.mark(strip)
    shot.poseanything.pose_source, shot.poseanything.first_frame_source = "VIDEO", "VIDEO"
    return shot, strip


def find(operator, **pick):
    assert bpy.ops.poseanything.pick_subject(**pick) == {"FINISHED"}
    assert operator(wait=True) == {"FINISHED"}


def kept_poses(scene, name="poses"):
    return module("request.kept_poses").read(getattr(scene.poseanything_video, name)).found


def test_poses_are_found_kept_and_sent(filmed, preferences, real_server, sent, tmp_path):
    scene, strip = filmed
    with real_server() as server:
        preferences.autostart, preferences.address = False, server.address
        find(bpy.ops.poseanything.find_poses, kind="CLICK", at=(50 / WIDTH, 40 / HEIGHT, 0, 0))
        assert scene.poseanything_video.search == ""
        # Saved and opened again, and appended, it is the same.
        bpy.ops.wm.save_mainfile()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)
        module("request.kept_poses")._read.clear()
        with bpy.data.libraries.load(str(tmp_path / "copy.blend")) as (there, here):
            here.scenes = [scene.name]
        assert kept_poses(here.scenes[0]).pose.num_frames == COUNT
        bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
        scene = bpy.context.scene
        found = kept_poses(scene)
        assert found.pose.num_frames == COUNT and len(found.pose.limbs) >= 3
        # The strip says when: what is cut off is not asked for.
        _, strip = module("sequencer.footage").find(scene.poseanything_video.strip)
        strip.frame_offset_start = 2
        strip.frame_start += 10
        scene.poseanything.engine = "plain"
        assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
        filmed_by_itself = sent[-1]
        job = list(module("session").get().bridge.jobs.values())[-1]

        # A picture that the clip begins with: its subject is found, and the poses laid over it.
        picture = np.repeat(np.repeat(walker(60, 4), 2, axis=0), 2, axis=1)
        (tmp_path / "painted.png").write_bytes(png(picture))
        scene.poseanything.first_frame_source = "PICTURE"
        scene.poseanything.first_frame_path = str(tmp_path / "painted.png")
        box = (24 / WIDTH, 28 / HEIGHT, 96 / WIDTH, 97 / HEIGHT)
        find(bpy.ops.poseanything.find_subject, of_picture=True, kind="BOX", at=box)
        truth = (picture == (200, 40, 30)).all(axis=2)
        mask = kept_poses(scene, "mask").mask > 0
        assert (mask & truth).sum() > 0.85 * (mask | truth).sum()
        assert bpy.ops.poseanything.place_poses() == {"FINISHED"}
        assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
        painted = sent[-1]

        # What another Blender has asked for is fetched when the server is back in sight.
        assert bpy.ops.poseanything.find_subject() == {"FINISHED"}
        current, video = module("session").get(), module("operators.video")
        current.bridge.disconnect()
        video.collect(bpy.context)
        assert video.asked_for(scene, of_picture=True) is not None
        current.connect(bpy.context)
        [search] = video.pick_up_searches(bpy.context)
        while not search.ended:
            current.poll()
        assert video.collect(bpy.context) and video.asked_for(scene, of_picture=True) is None
        assert kept_poses(scene, "mask").job == search.id
        subjects = [text.name for text in bpy.data.texts if text.name.startswith("PoseAnything Subject")]
        assert len(subjects) == 1, "what was found before does not stay in the file"

    request = filmed_by_itself
    assert request.num_frames == COUNT - 2 and request.subject_mask.mean() > 0.02
    middles = [request.pose.frame_points(index)[0][:, 0].mean() for index in range(COUNT - 2)]
    step = 2 * request.width / WIDTH
    assert middles[-1] - middles[0] == pytest.approx(step * (COUNT - 3), abs=2.5 * step)
    for request in (filmed_by_itself, painted):
        mask = np.argwhere(request.subject_mask)
        points = request.pose.frame_points(0)[0][:, 1::-1]
        assert (points > mask.min(0) - 6).all() and (points < mask.max(0) + 7).all()
    strips = module("sequencer.strips")
    assert strips.span(strips.find_strip(job.id)[1])[0] == 42


def test_a_painted_subject_is_sent_with_a_rig_s_poses(shot, tmp_path):
    """The mask that was found in the picture, with the limbs' labels as far as it goes."""
    kept, pose = module("request.kept_poses"), module("shared.pose").PoseSequence
    mask = np.zeros((72, 128), np.uint8)
    mask[10:60, 30:100] = 1
    (tmp_path / "painted.png").write_bytes(png(np.full((72, 128, 3), 90, np.uint8)))
    empty = pose.from_frames(128, 72, [], [], [[]])
    found = module("shared.messages").FoundPoses(
        job="mask", pose=empty, mask=mask, masks=mask[None, ::8, ::8]
    )
    source = kept.Source(picture=str(tmp_path / "painted.png"))
    shot.poseanything_video.mask = kept.write("Subject", kept.KeptPoses(found, source))
    shot.poseanything.first_frame_source = "PICTURE"
    for path, expected in ((source.picture, True), (str(tmp_path / "other.png"), False)):
        (tmp_path / "other.png").write_bytes((tmp_path / "painted.png").read_bytes())
        shot.poseanything.first_frame_path = path
        assert bpy.ops.poseanything.export_skeleton(directory=str(tmp_path)) == {"FINISHED"}
        newest = max(tmp_path.glob("*/request.poserequest"), key=lambda each: each.stat().st_mtime_ns)
        request = module("shared.request_file").read_request(newest)
        whole = mask[4:-4]  # the clip is 128 x 64
        same = request.subject_mask is not None and (request.subject_mask == whole).mean() > 0.97
        assert same == expected
        if expected and request.first_labels is not None:
            assert ((request.first_labels > 0) == (request.subject_mask > 0)).all()


def refusal(operator, *words, **given):
    with pytest.raises(RuntimeError) as caught:
        operator(*words, **given)
    [sentence] = [line for line in str(caught.value).splitlines() if line.startswith("Error")]
    return sentence


def test_what_can_not_be_used_is_said_in_a_sentence(filmed, tmp_path):
    scene, strip = filmed
    ops = bpy.ops.poseanything
    for at, words in (((1.2, 0.5, 0, 0), "outside of the picture"), ((0.5, -0.1, 0, 0), "outside")):
        assert words in refusal(ops.pick_subject, kind="CLICK", at=at)
    assert "box is empty" in refusal(ops.pick_subject, kind="BOX", at=(0.5, 0.2, 0.4, 0.6))
    assert scene.poseanything_video.pick == "NONE"
    strip.frame_final_duration = 1
    assert "shows a single frame" in refusal(ops.find_poses)
    strip.frame_final_duration = 600
    assert "shows 600 frames, and at most 512" in refusal(ops.find_poses)
    (tmp_path / "text.mp4").write_text("no video")
    assert "has no picture, or can't be read as a video" in refusal(
        ops.open_video, filepath=str(tmp_path / "text.mp4")
    )
    assert "Choose the picture that the clip begins with" in refusal(ops.find_subject)
    blockers = [finding.sentence for finding in module("request.blockers").scene_blockers(bpy.context)]
    assert blockers == ["Find the poses in a video first, in the Video panel"]
    strip.frame_final_duration = COUNT
    scene.poseanything_video.strip = "gone"
    assert not ops.find_poses.poll() and not ops.use_active_strip.poll()
    blockers = [finding.sentence for finding in module("request.blockers").scene_blockers(bpy.context)]
    assert blockers == ["Choose a video, in the Video panel"]
    text = bpy.data.texts.new("changed")
    scene.poseanything_video.poses = text
    with pytest.raises(module("errors").ExportError, match="The text changed can't be read as poses"):
        module("request.video_time").poses_of(scene)


class Retimed:
    """What of a strip its clock reads."""

    content_start, content_duration, type = 10, 100, "MOVIE"

    def __init__(self, *keys):
        self.retiming_keys = [SimpleNamespace(timeline_frame=key) for key in keys]


def test_poses_follow_a_strip_whose_speed_is_changed(addon):
    clock = module("sequencer.footage").Clock
    known = clock.of(Retimed())
    assert known.position(Retimed(), 30) == 20
    assert known.position(Retimed(10, 60), 35) == 50, "twice as fast"
    assert known.position(Retimed(10, 40, 60), 35) is None
    assert clock.of(Retimed(10, 40, 60)).position(Retimed(10, 40, 110), 75) == pytest.approx(40)


def test_poses_are_scaled_about_a_place_and_masks_keep_theirs(addon):
    video = module("request.video")
    old = video.Alignment(2.0, 0.1, -0.2)
    new = video.scaled_about(old, 3.0, 0.7, 0.4)
    # The place under (0.7, 0.4) before is there still.
    under = (0.7 - 0.5 - old.x) / old.scale, (0.4 - 0.5 - old.y) / old.scale
    assert 0.5 + new.x + 3 * under[0] == pytest.approx(0.7) and 0.5 + new.y + 3 * under[1] == pytest.approx(
        0.4
    )
    placed = video.place((20, 10), 40, 40, video.Alignment(0.5, 0.25, 0.0))
    mask = np.zeros((10, 20), np.uint8)
    mask[2:8, 5:15] = 1
    lain = np.argwhere(placed.mask(mask, 40, 40))
    corners = placed.points(np.float32([[5, 2, 1], [15, 8, 1]]))
    assert (
        np.abs(lain.min(0) - corners[0, 1::-1]).max() <= 1
        and np.abs(lain.max(0) + 1 - corners[1, 1::-1]).max() <= 1
    )
    labels = np.zeros((6, 8), np.uint8)
    labels[2, 2], labels[2, 6] = 1, 2
    grown = video.spread(labels, np.arange(8)[None].repeat(6, 0) < 7)
    assert (grown[:, :4] == 1).all() and (grown[:, 5:7] == 2).all() and not grown[:, 7].any()
