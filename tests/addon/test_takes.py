"""Takes on disk: numbered, never overwritten, readable again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.addon.scenes import make_take
from tests.addon.servers import make_request, module

pytestmark = pytest.mark.any_blender


def test_each_take_gets_a_folder_of_its_own(addon, tmp_path):
    claim = module("takes.take").claim_folder
    assert [claim(tmp_path, "fox")[1] for _ in range(3)] == ["fox_001", "fox_002", "fox_003"]
    (tmp_path / "fox_001").rmdir()
    assert claim(tmp_path, "fox")[1] == "fox_004", (
        "a number that was used is not used again while later ones stand"
    )
    (tmp_path / "fox_017").touch()
    assert claim(tmp_path, "fox") == (tmp_path / "fox_018", "fox_018")
    assert claim(tmp_path / "new" / "deep", "fox")[0].is_dir()


@pytest.mark.parametrize(
    ("stem", "name"),
    [("a/b\\c:d", "a_b_c_d_001"), ("..", "take_001"), ("", "take_001"), ("ÄÖ 狐", "ÄÖ 狐_001")],
)
def test_any_name_makes_a_folder(addon, tmp_path, stem, name):
    folder, found = module("takes.take").claim_folder(tmp_path, stem)
    assert found == name and folder.parent == tmp_path and folder.is_dir()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_folder_that_can_not_be_written(addon):
    with pytest.raises(module("takes.take").TakeError, match="choose another output folder"):
        module("takes.take").claim_folder(Path("/proc/self"), "fox")


@given(
    num_frames=st.integers(1, 60),
    step=st.integers(1, 7),
    cut=st.integers(0, 6),
    shown=st.integers(0, 60),
)
def test_each_scene_frame_shows_the_clip_frame_of_its_time(addon, num_frames, step, cut, shown):
    """Whatever the step, and where the range ends between two clip frames."""
    duration = max(1, num_frames * step - cut % step)
    take = make_take(Path("x"), num_frames=num_frames, frame_step=step, duration=duration)
    whole = take.element_names(num_frames)
    assert len(whole) == duration
    assert whole == [f"fox_001_{i // step + 1:04d}.png" for i in range(duration)]
    part = take.element_names(min(shown, num_frames))
    assert part == whole[: len(part)] and len(part) == min(duration, min(shown, num_frames) * step)


def test_take_comes_back_from_its_folder(addon, tmp_path):
    takes = module("takes.take")
    take = make_take(tmp_path, record={"settings": {"prompt": "ein Fuchs, 狐"}, "seed": 7})
    request = make_request(num_frames=5)
    takes.write_take(take, request)
    assert takes.read_take(tmp_path) == take
    assert (tmp_path / takes.FIRST_FRAME).read_bytes() == request.first_frame
    kept = takes.read_take_request(take)
    assert (kept.job, kept.width, kept.num_frames) == (request.job, request.width, 5)
    (tmp_path / takes.REQUEST).write_bytes(b"nonsense")
    with pytest.raises(takes.TakeError, match="use its settings and generate"):
        takes.read_take_request(take)


WRONG = '{"name": 1, "num_frames": 1, "frame_start": 1, "frame_step": 1, "duration": 1, "record": {}}'


@given(text=st.text(max_size=60) | st.sampled_from(["{}", "[]", "null", '{"name": 1}', "1", WRONG]))
def test_damaged_record_is_one_sentence(addon, tmp_path_factory, text):
    with pytest.raises(module("takes.take").TakeError, match="can't be read; its frames are in"):
        module("takes.take").from_json(text, Path("fox_001"))


def test_frames_are_counted_up_to_the_first_gap(addon, tmp_path):
    take = make_take(tmp_path)
    for i in (1, 2, 4):
        (tmp_path / f"fox_001_{i:04d}.png").touch()
    assert take.frames_on_disk() == 2
