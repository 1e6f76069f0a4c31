"""Data sets of examples: what was written is read, and damage is named."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("webdataset")
pytest.importorskip("torch")

from inference_server.datasets.dataset import (  # noqa: E402
    DatasetWriter,
    read_examples,
    read_index,
    read_video,
    split_of,
    verify,
)
from inference_server.datasets.errors import DatasetError  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.synthesis.pool import draw_draft  # noqa: E402

SMALL = ClipSettings(64, 64, 5)


@pytest.fixture
def clips():
    clips = [make_clip(seed, SMALL) for seed in range(5)]
    return [dataclasses.replace(clips[0], draft=draw_draft(clips[0])), *clips[1:]]


@pytest.fixture
def written(tmp_path, clips):
    with DatasetWriter(tmp_path / "set", "synthesis 2d", shard_bytes=60_000) as writer:
        for clip in clips:
            writer.add(clip)
    return tmp_path / "set"


def test_examples_are_read_as_they_were_written(written, clips):
    read = list(read_examples(written))
    assert len(read) == len(clips)
    for clip, found in zip(clips, read):
        assert found.subject == clip.subject
        assert np.array_equal(found.frames, clip.frames) and np.array_equal(found.labels, clip.labels)
        assert np.array_equal(found.request.pose.points, clip.request.pose.points)
        assert np.array_equal(found.request.part_maps, clip.request.part_maps)
    assert np.array_equal(read[0].draft, clips[0].draft) and read[1].draft is None


def test_the_index_counts_and_splits_by_subject(written, clips):
    index = read_index(written)
    assert len(index["shards"]) > 1
    assert index["statistics"]["examples"] == 5 and index["statistics"]["frames"] == 25
    assert index["subjects"].keys() == {clip.subject for clip in clips}
    splits = [len(list(read_examples(written, split))) for split in ("train", "validation", "test")]
    assert sum(splits) == 5
    shares = np.array([[split_of(f"s{n}") == name for name in ("train", "test")] for n in range(4000)]).mean(
        0
    )
    assert shares == pytest.approx([0.9, 0.05], abs=0.02)


def test_more_is_added_to_a_set(written):
    with DatasetWriter(written, "synthesis 2d") as writer:
        writer.add(make_clip(99, SMALL))
    verify(written)
    assert read_index(written)["statistics"]["examples"] == len(list(read_examples(written))) == 6


def test_what_is_in_a_set_is_not_added_again(written, clips):
    before = read_index(written)["statistics"]
    with DatasetWriter(written, "synthesis 2d", shard_bytes=1) as writer:
        assert not any(writer.add(clip) for clip in clips)
        assert read_index(written)["statistics"] == before
        fresh = make_clip(99, SMALL)
        assert writer.add(fresh) and not writer.add(fresh)
        assert writer.add(dataclasses.replace(fresh, request=dataclasses.replace(fresh.request, fps=12.0)))
    assert read_index(written)["statistics"]["examples"] == before["examples"] + 2


def test_a_truncated_shard_is_named(written):
    shard = written / read_index(written)["shards"][0]["name"]
    shard.write_bytes(shard.read_bytes()[:-3000])
    with pytest.raises(DatasetError, match=f"{shard.name} has .* bytes .* copy it again"):
        list(read_examples(written))


def test_a_changed_shard_is_named(written):
    shard = written / read_index(written)["shards"][0]["name"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{shard.name} is damaged"):
        verify(written)


def test_a_full_disk_is_one_sentence(written, monkeypatch):
    writer = DatasetWriter(written, "synthesis 2d")
    writer.add(make_clip(11, SMALL))
    monkeypatch.setattr(
        writer._tar, "write", lambda members: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(DatasetError, match="free some space and run again"):
        writer.add(make_clip(12, SMALL))
    assert not list(written.glob("*.part")), "what is not whole makes room"

    with (
        pytest.raises(DatasetError, match="free some space"),
        DatasetWriter(written, "synthesis 2d") as writer,
    ):
        writer.add(make_clip(13, SMALL))
        monkeypatch.setattr(writer._tar, "close", lambda: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert len(list(read_examples(written))) == 5


def test_an_unreadable_video_is_named(tmp_path):
    (tmp_path / "clip.mkv").write_bytes(b"no video")
    with pytest.raises(DatasetError, match="clip.mkv can't be read"):
        read_video(tmp_path / "clip.mkv")
