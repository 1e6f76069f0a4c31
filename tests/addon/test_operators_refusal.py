"""What an operator refuses stays in the panel where a button helps against it, until it has helped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import bpy
import pytest

from tests.addon.conftest import ROOT
from tests.addon.servers import module

LISTENS = "print('listening on tcp://127.0.0.1:9', flush=True); input()"


def session():
    return module("session").get()


def press(finding):
    group, _, name = finding.operator.partition(".")
    return getattr(getattr(bpy.ops, group), name)(**dict(finding.properties))


def test_a_port_that_is_taken_is_left_to_who_has_it(preferences, monkeypatch):
    started = []

    def launch(home, python, words, stdout, stderr):
        started.append(words)
        return subprocess.Popen(
            [sys.executable, "-c", LISTENS], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr
        )

    monkeypatch.setattr(module("connection.server"), "launch", launch)
    preferences.server_folder = str(ROOT)
    with socket.create_server(("127.0.0.1", 0)) as other:
        preferences.address = taken = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=rf"in use by .+ \(process {os.getpid()}\)"):
            bpy.ops.poseanything.start_server()
        [told] = session().findings
        assert press(told) == {"FINISHED"}
    assert preferences.address != taken and preferences.address in started[0]
    assert session().bridge.server.is_up and not session().findings


def test_without_a_last_render_it_is_rendered_instead(shot, served):
    served()
    shot.poseanything.first_frame_source = "LAST_RENDER"
    with pytest.raises(RuntimeError, match="has no render yet"):
        bpy.ops.poseanything.generate(wait=True)
    [told] = session().findings
    assert press(told) == {"FINISHED"} and shot.poseanything.first_frame_source == "RENDER"
    assert module("request.finding").is_set(bpy.context, told)


def test_a_folder_that_can_not_be_written_to_is_changed(shot, served, tmp_path):
    served()
    (tmp_path / "file").touch()
    shot.poseanything.output_folder = str(tmp_path / "file")
    with pytest.raises(RuntimeError, match="can't be written to"):
        bpy.ops.poseanything.generate(wait=True)
    [told] = session().findings
    assert told.operator == "poseanything.choose_output_folder"
    bpy.ops.poseanything.choose_output_folder(directory=str(tmp_path))
    assert not session().findings
    assert bpy.ops.poseanything.generate(wait=True) == {"FINISHED"}
