"""Requests kept as files."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import wire
from shared.messages import GenerationRequest
from shared.pose import Limb, Polyline, PoseSequence
from shared.request_file import read_request, write_request
from shared.schema import MessageError

from .strategies import png


def request(**fields) -> GenerationRequest:
    pose = PoseSequence.from_frames(
        64, 32, ["body"], [Limb("spine", 0)], [[Polyline(0, [[i, 2, 1], [9, 30, 1]])] for i in range(5)]
    )
    base = {"job": "j", "engine": "draft", "width": 64, "height": 32, "num_frames": 5, "fps": 24.0}
    return GenerationRequest(**base | {"first_frame": png(64, 32), "pose": pose} | fields)


@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=50), seed=st.integers(0, 2**63 - 1))
def test_what_is_read_is_what_was_written(tmp_path_factory, prompt, seed):
    path = tmp_path_factory.mktemp("requests") / "walk.poserequest"
    written = request(prompt=prompt, seed=seed)
    write_request(path, written)
    read = read_request(path)
    assert (read.prompt, read.seed) == (prompt, seed)
    assert bytes(read.first_frame) == written.first_frame
    assert (read.pose.points == written.pose.points).all()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("damage", ["foreign", "cut", "empty", "grown"])
def test_a_damaged_file_is_said_to_be_one(tmp_path, damage):
    path = tmp_path / "walk.poserequest"
    write_request(path, request())
    data = path.read_bytes()
    path.write_bytes(
        {"foreign": b"GIF89a" + data, "cut": data[:-9], "empty": data[:28], "grown": data + b"\xff" * 9}[
            damage
        ]
    )
    with pytest.raises(MessageError, match=r"^walk\.poserequest is (damaged|no request)"):
        read_request(path)


def test_a_request_that_can_not_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "walk.poserequest"
    write_request(path, request(prompt="first"))
    with monkeypatch.context() as patch:
        patch.setattr(wire, "MAX_TOTAL", 100)
        with pytest.raises(MessageError, match="too large"):
            write_request(path, request(prompt="second"))
    assert read_request(path).prompt == "first" and os.listdir(tmp_path) == [path.name]
