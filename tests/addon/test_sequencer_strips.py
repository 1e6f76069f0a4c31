"""Strips of takes in real sequencers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from tests.addon.scenes import make_take, names, span
from tests.addon.servers import module, png, wait_for

GREY_GREEN = (128, 128, 51)
PROFILE = Path(os.environ["BLENDER_USER_RESOURCES"])


@pytest.fixture
def strips(clean_scene):
    """The module, and a scene as large as the frames."""
    clean_scene.render.resolution_x, clean_scene.render.resolution_y = 80, 48
    clean_scene.render.resolution_percentage = 100
    return module("sequencer.strips")


@pytest.fixture
def take(tmp_path):
    """A take of five frames, each of its own colour in the upper half."""
    take = make_take(tmp_path / "takes" / "fox_001")
    take.folder.mkdir(parents=True)
    for i in range(5):
        picture = np.full((48, 80, 3), GREY_GREEN, np.uint8)
        picture[:24] = (40 * i, 255 - 40 * i, 90)
        (take.folder / f"fox_001_{i + 1:04d}.png").write_bytes(png(picture))
    return take


def render(scene, frame, path):
    """What the sequencer shows at a frame, as RGB uint8, top row first."""
    scene.render.use_sequencer = True
    scene.render.dither_intensity = 0  # which is noise of Blender's own on whatever it writes
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.filepath = str(path)
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    pixels = np.empty(80 * 48 * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return np.rint(pixels.reshape(48, 80, 4)[::-1, :, :3] * 255).astype(int)


def test_strip_grows_with_the_frames(clean_scene, strips, take):
    assert strips.show_frames(clean_scene, "job", take, 1) is True
    for count in (2, 4, 4, 5):
        assert strips.show_frames(clean_scene, "job", take, count) is False
        scene, strip = strips.find_strip("job")
        assert scene == clean_scene and strip.name == "fox_001"
        assert names(strip) == take.element_names(count)
        assert span(strip) == (10, 10 + count)
    assert len(strips.strips_of(clean_scene)) == 1


def sizes(strip):
    return {(element.orig_width, element.orig_height) for element in strip.elements}


def test_sizes_of_a_whole_clips_frames_are_not_left_to_chance(clean_scene, strips, take):
    """Blender ends when it shows a missing frame of a garbled size; it is what `elements.append()` leaves."""
    for turn in range(20):  # sizes are garbled by chance
        for count in range(1, 6):
            strips.show_frames(clean_scene, f"job {turn}", take, count)
        strips.heal()
        assert sizes(strips.find_strip(f"job {turn}")[1]) <= {(0, 0), (80, 48)}


def test_strips_of_earlier_releases_are_healed_at_load(clean_scene, strips, take, tmp_path):
    strips.show_frames(clean_scene, "job", take, 1)
    strip = strips.find_strip("job")[1]
    for number in range(200):  # garbled sizes come by chance: of many elements some have them
        strip.elements.append(f"fox_001_{2 + number // 50:04d}.png")
    before = names(strip), span(strip), strip.channel
    assert any(not size <= (8192, 8192) or min(size) < 0 for size in sizes(strip)) or len(sizes(strip)) > 2
    clean_scene.sequence_editor.active_strip = None
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    scene, strip = strips.find_strip("job")
    assert sizes(strip) == {(0, 0)}
    assert (names(strip), span(strip), strip.channel) == before
    assert scene.sequence_editor.active_strip is None


def test_trimmed_strip_goes_on_growing_with_its_trims(clean_scene, strips, take):
    strips.show_frames(clean_scene, "job", take, 3)
    strip = strips.find_strip("job")[1]
    if hasattr(strip, "left_handle"):
        strip.left_handle, strip.right_handle = 11, 12
    else:
        strip.frame_final_start, strip.frame_final_end = 11, 12
    strips.show_frames(clean_scene, "job", take, 5)
    assert span(strips.find_strip("job")[1]) == (11, 14)
    strips.set_elements(clean_scene, strips.find_strip("job")[1], take.element_names(5))
    assert span(strips.find_strip("job")[1]) == (11, 14)


def test_strip_in_a_meta_strip_grows_there(clean_scene, strips, take):
    strips.show_frames(clean_scene, "job", take, 2)
    meta = strips.strips_of(clean_scene).new_meta("Meta", channel=1, frame_start=1)
    strips.find_strip("job")[1].move_to_meta(meta)
    strips.show_frames(clean_scene, "job", take, 5)
    strip = strips.find_strip("job")[1]
    assert names(strip) == take.element_names(5) and strip.name in [inner.name for inner in strips_in(meta)]


def strips_in(meta):
    return meta.strips if hasattr(meta, "strips") else meta.sequences


def test_frame_step_keeps_the_length_of_the_range(clean_scene, strips, take):
    sparse = make_take(take.folder, frame_step=3, duration=14)
    strips.show_frames(clean_scene, "job", sparse, 2)
    assert span(strips.find_strip("job")[1]) == (10, 16)
    strips.show_frames(clean_scene, "job", sparse, 5)
    strip = strips.find_strip("job")[1]
    assert span(strip) == (10, 24) and names(strip)[-2:] == ["fox_001_0005.png"] * 2


def test_newer_takes_lie_above_on_free_channels(clean_scene, strips, take):
    strips.show_frames(clean_scene, "a", take, 5)
    strips.show_frames(clean_scene, "b", take, 1)
    assert [strips.find_strip(job)[1].channel for job in "ab"] == [1, 2]
    later = make_take(take.folder, frame_start=40)
    strips.show_frames(clean_scene, "c", later, 5)
    assert strips.find_strip("c")[1].channel == 1


def test_full_sequencer_uses_the_gap_that_is_left(clean_scene, strips, take):
    collection = strips.strips_of(clean_scene)
    for channel in range(1, 129):
        if channel != 77:
            arguments = {"length": 30} if bpy.app.version >= (5, 0, 0) else {"frame_end": 31}
            collection.new_effect(
                name=str(channel), type="COLOR", channel=channel, frame_start=1, **arguments
            )
    strips.show_frames(clean_scene, "job", take, 5)
    assert strips.find_strip("job")[1].channel == 77
    with pytest.raises(module("takes.take").TakeError, match="free one and add the take again"):
        strips.show_frames(clean_scene, "other", take, 5)


def test_strip_in_the_way_is_not_overlapped(clean_scene, strips, take):
    strips.show_frames(clean_scene, "job", take, 2)
    blocker = strips.strips_of(clean_scene).new_image(
        name="mine", filepath=str(take.folder / "fox_001_0001.png"), channel=1, frame_start=13
    )
    strips.show_frames(clean_scene, "job", take, 5)
    strip = strips.find_strip("job")[1]
    assert span(strip) == (10, 15) and span(blocker) == (13, 14)
    assert strip.channel != blocker.channel


def test_strip_the_user_moved_goes_on_growing_there(clean_scene, strips, take):
    strips.show_frames(clean_scene, "job", take, 2)
    strip = strips.find_strip("job")[1]
    strip.channel = 9
    if hasattr(strip, "content_start"):
        strip.content_start = 100
    else:
        strip.frame_start = 100
    strips.show_frames(clean_scene, "job", take, 5)
    strip = strips.find_strip("job")[1]
    assert span(strip) == (100, 105) and strip.channel == 9


def test_paths_are_relative_once_the_file_is_saved(clean_scene, strips, take, tmp_path):
    strips.show_frames(clean_scene, "absolute", take, 5)
    assert strips.find_strip("absolute")[1].directory == f"{take.folder}/"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    strips.show_frames(bpy.context.scene, "relative", take, 5)
    strip = strips.find_strip("relative")[1]
    assert strip.directory == "//takes/fox_001/"
    assert strips.take_of(strip) == take


def test_saved_file_opens_with_the_strip_and_what_it_was_made_with(clean_scene, strips, take, tmp_path):
    strips.show_frames(clean_scene, "job", take, 5)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    scene, strip = strips.find_strip("job")
    assert scene == bpy.context.scene and strips.take_of(strip) == take


def test_colours_and_frames_are_exact_under_standard(clean_scene, strips, take, tmp_path):
    strips.show_frames(clean_scene, "job", take, 5)
    strip = strips.find_strip("job")[1]
    assert strip.colorspace_settings.name == "sRGB" and not strip.use_proxy
    clean_scene.view_settings.view_transform = "AgX"
    assert module("operators.colour").changes_colours(clean_scene)
    bpy.ops.poseanything.use_standard_view()
    assert not module("operators.colour").changes_colours(clean_scene)
    for frame in (10, 12, 14):
        picture = render(clean_scene, frame, tmp_path / "shot.png")
        i = frame - 10
        assert (picture[4, 40] == (40 * i, 255 - 40 * i, 90)).all()
        assert (picture[40, 40] == GREY_GREEN).all()
    assert (render(clean_scene, 15, tmp_path / "shot.png") == 0).all(), "nothing lies behind the last frame"


def test_anamorphic_scene_shows_the_clip_as_wide_as_the_camera_does(clean_scene, strips, take):
    render_settings = clean_scene.render
    render_settings.resolution_x, render_settings.resolution_y = 40, 48
    render_settings.pixel_aspect_x, render_settings.pixel_aspect_y = 2.0, 1.0
    strips.show_frames(clean_scene, "job", take, 1)
    transform = strips.find_strip("job")[1].transform
    assert (transform.scale_x, transform.scale_y) == pytest.approx((0.5, 1.0)), (
        "80 x 48 square pixels fill 40 x 48 wide ones"
    )


def encode(take, fps, fps_base):
    movie = module("sequencer.movie")
    return movie.MovieEncoding(movie.movie_of(take), fps, fps_base)


def test_movie_is_the_frames_at_the_scene_s_pace(clean_scene, strips, take, tmp_path):
    clean_scene.render.fps, clean_scene.render.fps_base = 30, 1.001
    clean_scene.view_settings.view_transform = "Standard"
    sparse = make_take(take.folder, frame_step=2, duration=9)
    strips.show_frames(clean_scene, "job", sparse, 5)
    wheels = [path for path in PROFILE.rglob("*.py") if ".local" in path.parts]
    encoding = encode(sparse, 30, 1.001)
    wait_for(encoding.poll, 120)
    [path] = encoding.result()
    assert wheels and all(wheel.is_file() for wheel in wheels), "other extensions' packages stay"
    assert sorted(p.name for p in take.folder.iterdir() if "mp4" in p.name) == ["fox_001.mp4"]
    strips.add_movie(clean_scene, "job", sparse, path)
    image, movie = strips.find_strip("job")[1], strips.find_strip("job", "MOVIE")[1]
    assert image.mute and not movie.mute and movie.channel > image.channel
    assert span(movie) == span(image) == (10, 19)
    assert movie.fps == pytest.approx(30 / 1.001, abs=0.01)
    for frame in (10, 13, 18):
        i = (frame - 10) // 2
        picture = render(clean_scene, frame, tmp_path / "shot.png")
        assert abs(picture[8, 40] - (40 * i, 255 - 40 * i, 90)).max() <= 4, "as exact as 8-bit video can be"


def test_movie_that_can_not_be_encoded_says_so_and_keeps_the_frames(addon, take):
    for path in take.folder.glob("*.png"):
        path.write_bytes(b"no picture")
    before = sorted(take.folder.iterdir())
    encoding = encode(take, 24, 1.0)
    wait_for(encoding.poll, 120)
    with pytest.raises(
        module("takes.take").TakeError, match="could not be encoded .* the frames are complete"
    ):
        encoding.result()
    assert sorted(take.folder.iterdir()) == before


def test_movie_is_encoded_beside_blender(addon, take, monkeypatch):
    """In a process of its own, whose Python is this one only where Blender is a module."""
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(
        module("sequencer.movie").subprocess, "Popen", lambda c, **k: started.append(c) or real(c, **k)
    )
    encoding = encode(take, 24, 1.0)
    encoding.close()
    assert started[0][0] == (bpy.app.binary_path or sys.executable)
    assert not list(take.folder.glob("*.mp4"))


@pytest.mark.parametrize(
    ("neural", "name", "tag"), [(False, "fox_001 (draft)", "COLOR_02"), (True, "fox_001", "NONE")]
)
def test_a_strip_says_whether_it_is_a_draft(strips, take, neural, name, tag):
    take.record["neural"] = neural
    strips.show_frames(bpy.context.scene, "a", take, 5)
    strip = strips.find_strip("a")[1]
    assert (strip.name, strip.color_tag) == (name, tag)
