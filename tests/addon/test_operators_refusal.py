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


def test_a_range_of_its_own_that_is_empty_gives_way_to_the_scene_s(shot):
    settings = shot.poseanything
    settings.use_custom_range, settings.frame_start, settings.frame_end = True, 9, 3
    with pytest.raises(RuntimeError, match="frame range is empty"):
        bpy.ops.poseanything.frame_subject()
    [told] = session().findings
    assert press(told) == {"FINISHED"}
    assert bpy.ops.poseanything.frame_subject() == {"FINISHED"}


@pytest.mark.parametrize("how", ["objects", "collection", "instance"])
def test_an_armature_that_is_linked_is_overridden(shot, tmp_path, how):
    link(shot, tmp_path / "library.blend", how)
    with pytest.raises(RuntimeError, match="linked from another file"):
        bpy.ops.poseanything.draw_digits(armature="Rig")
    [told] = session().findings
    assert press(told) == {"FINISHED"} and not session().findings
    rig = bpy.context.object
    assert rig.override_library and rig.data.override_library
    assert [obj for obj in bpy.context.view_layer.objects if obj.find_armature() == rig], "its body came too"
    assert bpy.ops.poseanything.draw_digits(armature=rig.name) == {"FINISHED"}
    rig.data.bones[0].poseanything.limb = "SKIP"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "film.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "film.blend"))
    data = bpy.context.object.data
    assert data.poseanything.digits == "MERGE" and data.bones[0].poseanything.limb == "SKIP"


def link(scene, path, how):
    """Have the rig and its body come from another file."""
    made = bpy.data.collections.new("Character")
    for name in ("Rig", "Rig body"):
        made.objects.link(bpy.data.objects[name])
    bpy.data.libraries.write(str(path), {made})
    for obj in list(made.objects):
        bpy.data.objects.remove(obj)
    bpy.data.collections.remove(made)
    with bpy.data.libraries.load(str(path), link=True) as (_, into):
        into.objects = ["Rig", "Rig body"] if how == "objects" else []
        into.collections = [] if how == "objects" else ["Character"]
    for obj in into.objects:
        scene.collection.objects.link(obj)
    for collection in into.collections:
        if how == "collection":
            scene.collection.children.link(collection)
        else:
            holder = bpy.data.objects.new("Character", None)
            holder.instance_type, holder.instance_collection = "COLLECTION", collection
            scene.collection.objects.link(holder)
    bpy.context.view_layer.update()


def test_what_is_told_of_an_armature_that_is_gone_is_told_no_more(shot):
    finding = module("request.finding").Finding
    session().findings = (finding("-", "poseanything.draw_digits", "-", (("armature", "Gone"),)),)
    with pytest.raises(RuntimeError, match="There is no armature Gone any more"):
        press(session().findings[0])
    assert not session().findings
