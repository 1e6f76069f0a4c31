"""What a killed program leaves behind is removed by the next one, and nothing that is in use."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from inference_server.broker import locking
from inference_server.broker.keys import HALF, KeyRing
from inference_server.broker.locking import PassingFolder
from inference_server.cli.output import open_output


def age(*paths: Path, hours: float = 2.0) -> None:
    then = time.time() - 3600 * hours
    for path in paths:
        os.utime(path, (then, then))


def test_folders_of_killed_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running, killed = PassingFolder(), PassingFolder()
    killed._lock.release()  # as the system does it
    other = tmp_path / "poseanything-of-another-kind"
    other.mkdir()
    starting = tmp_path / f"{locking.PREFIX}starting"
    starting.mkdir()
    age(Path(running.name), Path(killed.name), other)
    begun = PassingFolder()
    assert set(tmp_path.iterdir()) == {Path(running.name), Path(begun.name), other, starting}
    for folder in (running, begun):
        folder.cleanup()
    assert set(tmp_path.iterdir()) == {other, starting}


def test_keys_that_were_half_written(tmp_path):
    before = KeyRing(tmp_path).server_key
    old, new = tmp_path / "clients" / f"{HALF}old", tmp_path / f"{HALF}new"
    for path in (old, new):
        path.write_text("half a key")
    folder = tmp_path / f"{HALF}folder"
    folder.mkdir()
    (folder / "server.key_secret").write_text("half a key")
    age(old, folder)
    assert KeyRing(tmp_path).server_key == before
    assert new.exists() and not old.exists() and not folder.exists()


def test_frames_of_an_output_that_was_not_finished(tmp_path):
    growing = tmp_path / ".clip.growing"
    growing.mkdir()
    (growing / "00001.png").write_bytes(b"of a clip that had more frames")
    with open_output(tmp_path / "clip", 24.0) as write:
        assert list(tmp_path.iterdir()) == [growing], "the test names what grows"
        write(np.zeros((32, 64, 3), np.uint8))
    assert [path.name for path in (tmp_path / "clip").iterdir()] == ["00000.png"]
