"""Reading videos: what is in them is found, and what is wrong with them is said."""

import tracemalloc
from fractions import Fraction

import cv2
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("webdataset")

from inference_server.xpose.checks import ClipSettings, load_clip, plan_video, prompt_within  # noqa: E402
from inference_server.xpose.pipeline import prompt_of, takes_over  # noqa: E402
from inference_server.xpose.stages import Dropped, SubjectPrompt  # noqa: E402
from inference_server.xpose.video import find_videos, probe, read_frames  # noqa: E402

from .footage import encode, encode_sound, lizard, turn  # noqa: E402

SETTINGS = ClipSettings(frames=81, least_frames=9)


def read(path):
    facts = probe(path)
    return facts, np.stack(list(read_frames(path, facts, facts.width, facts.height)))


def off(one, other):
    return float(np.abs(one.astype(int) - other).mean())


def test_any_frame_can_be_begun_at(tmp_path):
    frames = lizard(60)[0]
    path = encode(tmp_path / "a.mp4", frames)
    facts, whole = read(path)
    assert len(whole) == 60 and facts.notes == "" and off(whole, frames) < 8
    later = np.stack(list(read_frames(path, facts, facts.width, facts.height, 41, 10)))
    assert np.array_equal(later, whole[41:51])


def test_an_uneven_rate_is_made_even(tmp_path):
    frames = lizard(12)[0]
    times = [0, 1, 2, 3, 4, 5, 8, 9, 10, 13, 14, 15]  # of twelfths of a second: two holes
    path = encode(tmp_path / "a.mkv", frames, 12, times=[time / 12 for time in times])
    facts = probe(path)
    shown = np.stack(list(read_frames(path, facts, facts.width, facts.height)))
    seen = [int(np.argmin([off(image, frame) for frame in frames])) for image in shown]
    expected = [
        max(i for i, time in enumerate(times) if time / 12 <= n / facts.fps + 0.5 / facts.fps)
        for n in range(len(seen))
    ]
    assert seen == expected and abs(len(seen) / facts.fps - 16 / 12) < 2 / facts.fps


def test_a_fast_video_is_thinned(tmp_path):
    frames = lizard(40)[0]
    facts, shown = read(encode(tmp_path / "a.mp4", frames, 60))
    assert facts.fps == 30 and facts.source_fps == 60 and len(shown) == 20
    assert off(shown[7], frames[14]) < off(shown[7], frames[12])


def test_a_video_of_a_phone_stands_upright(tmp_path):
    frames = lizard(9)[0]
    path = encode(tmp_path / "a.mp4", frames)
    turn(path)
    facts, shown = read(path)
    assert (facts.width, facts.height) == (128, 160) and "turned" in facts.notes
    assert off(shown[3], np.rot90(frames[3], facts.rotation // 90)) < 8
    assert off(shown[3], np.rot90(frames[3], -1)) < 8  # a quarter clockwise, as its matrix says


def test_hdr_is_mapped_and_transparency_laid_on_black(tmp_path):
    grey = np.full((3, 64, 64, 3), 38000, np.uint16)  # PQ 0.58: reference white, 203 cd/m2
    path = encode(tmp_path / "h.mkv", grey, codec="ffv1", pix_fmt="gbrp10le", source="rgb48le", color_trc=16)
    facts, shown = read(path)
    assert "HDR" in facts.notes and 215 < shown.mean() < 255
    clear = np.full((3, 64, 64, 4), 200, np.uint8)
    clear[:, :, :32, 3] = 0
    path = encode(tmp_path / "t.mkv", clear, codec="ffv1", pix_fmt="bgra", source="rgba")
    facts, shown = read(path)
    assert "transparency" in facts.notes and shown[..., :32, :].max() == 0 and shown[..., 32:, :].mean() > 150


def test_pixels_are_made_square(tmp_path):
    frames = lizard(9)[0]
    squeezed = np.stack([cv2.resize(frame, (80, 128)) for frame in frames])
    facts, shown = read(encode(tmp_path / "a.mp4", squeezed, sample_aspect_ratio=Fraction(2)))
    assert (facts.width, facts.height) == (160, 128) and off(shown, frames) < 12


def test_two_fields_are_made_one_picture(tmp_path):
    fields = lizard(34)[0]
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2][:, 1::2]
    options = {"flags": "+ildct+ilme", "b": "4M"}
    facts, shown = read(encode(tmp_path / "a.mpg", woven, 25, codec="mpeg2video", options=options))
    assert facts.interlaced and "interlaced" in facts.notes and len(shown) == len(woven)

    def combed(frames):
        return np.abs(2 * frames[:, 1:-1].astype(int) - frames[:, :-2] - frames[:, 2:]).mean()

    assert combed(shown) - combed(fields[::2]) < 0.5 * (combed(woven) - combed(fields[::2]))


def test_what_is_opaque_has_no_transparency(tmp_path):
    facts, shown = read(encode(tmp_path / "a.gif", lizard(9)[0], 10, codec="gif", pix_fmt="rgb8"))
    assert facts.transparent and facts.notes == "" and len(shown) == 9


def test_what_is_no_video_is_told_in_a_sentence(tmp_path):
    whole = encode(tmp_path / "whole.mp4", lizard(30)[0]).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "unfinished.mp4").write_bytes(whole[:-800])
    encode_sound(tmp_path / "sound.mp4")
    assert encode(tmp_path / "none.mkv", np.empty((0, 64, 64, 3), np.uint8), codec="ffv1").exists()
    for name, said in {
        "empty.mp4": "can't be read",
        "text.mp4": "can't be read",
        "cut.mp4": "can't be read",
        "sound.mp4": "sound but no picture",
        "none.mkv": "can't be read",
        "unfinished.mp4": "was not finished",
        "there is none.mp4": "can't be read",
    }.items():
        with pytest.raises(Dropped, match=said) as told:
            plan_video(tmp_path / name, name, SETTINGS)
        assert str(told.value).endswith(".") and "\n" not in str(told.value)


def test_a_video_that_breaks_off_gives_what_is_there(tmp_path):
    data = encode(tmp_path / "a.mkv", lizard(60)[0]).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) * 2 // 3])
    spans, _ = plan_video(path, "cut.mkv", SETTINGS)
    assert 17 <= spans[0].count < 60
    assert len(load_clip(path, spans[0], SubjectPrompt()).frames) == spans[0].count


def test_shots_are_cut_apart_and_each_dropped_part_has_a_reason(tmp_path):
    one, other = lizard(26, 1)[0], 255 - lizard(31, 2)[0]
    still, short = np.repeat(other[:1] // 2, 20, 0), one[:5]
    path = encode(tmp_path / "a.mp4", np.concatenate([one, other, still, short]))
    spans, records = plan_video(path, "a.mp4", SETTINGS)
    assert [(span.first, span.count) for span in spans] == [(0, 25), (26, 29)]
    assert [record.reason.split(":")[0] for record in records] == [
        "Nothing moves in it.",
        "The shot is too short",
    ]


def test_a_long_shot_is_cut_into_clips(tmp_path):
    path = encode(tmp_path / "a.mp4", lizard(60)[0])
    spans, _ = plan_video(path, "a.mp4", ClipSettings(frames=25, least_frames=9))
    assert [(span.first, span.count) for span in spans] == [(0, 25), (24, 25), (48, 9)]
    assert [span.follows for span in spans] == ["", "a.mp4#0001", "a.mp4#0002"]
    said = {
        "a.mp4": SubjectPrompt(box=(0, 0, 1, 1), text="lizard"),
        "a.mp4#0003": SubjectPrompt(points=((0, 1),)),
    }
    before = np.ones((4, 4), bool)
    first, second, third = (prompt_of(span, said, before) for span in spans)
    assert (first, third) == (said["a.mp4"], said["a.mp4#0003"])
    assert (second.box, second.mask is before, second.text) == (None, True, "lizard")
    assert [takes_over(span, said) for span in spans] == [False, True, False]
    assert not any(takes_over(span, {"a.mp4": SubjectPrompt(text="lizard")}) for span in spans)
    assert prompt_of(spans[0], {"*": said["a.mp4"]}) is said["a.mp4"]
    only, _ = plan_video(path, "a.mp4", ClipSettings(frames=25, least_frames=9, clips_per_video=1))
    assert only == spans[:1]


def test_black_bars_are_cut_off_and_prompts_follow(tmp_path):
    frames = np.pad(lizard(17)[0], ((0, 0), (32, 32), (0, 0), (0, 0)))
    path = encode(tmp_path / "a.mp4", frames)
    spans, _ = plan_video(path, "a.mp4", SETTINGS)
    left, top, right, bottom = spans[0].window
    assert (spans[0].width, spans[0].height) == (160, 128) and (left, right) == (0, 1)
    assert abs(top - 1 / 6) < 0.01 and abs(bottom - 5 / 6) < 0.01
    clip = load_clip(path, spans[0], SubjectPrompt(box=(0.1, 1 / 6, 0.5, 0.5), points=((0.5, 0.5),)))
    assert off(clip.frames[5], lizard(17)[0][5]) < 8
    assert np.allclose(clip.prompt.box, (0.1, 0, 0.5, 0.5), atol=0.02)
    mask = np.zeros((192, 160), bool)
    mask[40:60, 30:50] = True
    assert prompt_within(SubjectPrompt(mask=mask), spans[0].window).mask.sum() == 400


def test_videos_are_found_by_any_name(tmp_path):
    for name in ("b c.mp4", "🦎.MOV", "sub/a.webm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_videos(tmp_path)] == ["b c.mp4", "a.webm", "🦎.MOV"]


def test_an_8k_video_takes_the_memory_of_its_clip(tmp_path):
    wide = np.full((4320, 9280, 3), 60, np.uint8)
    wide[1000:2000, 3000:5000] = 200
    steps = (400 * wide.strides[1], *wide.strides)
    frames = np.lib.stride_tricks.as_strided(wide, (5, 4320, 7680, 3), steps)
    path = encode(tmp_path / "8k.avi", frames, 24, codec="mjpeg", pix_fmt="yuvj420p")
    tracemalloc.start()
    spans, _ = plan_video(path, "8k.avi", ClipSettings(frames=5, least_frames=5))
    clip = load_clip(path, spans[0], SubjectPrompt())
    assert clip.frames.shape == (5, 448, 832, 3) and tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
