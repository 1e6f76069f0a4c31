"""A file that the first release saved, before takes had a list of their own: all that is in it is still
there."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import pytest

from tests.addon.servers import module

OLDER = Path(__file__).parents[1] / "data" / "older_release"
SETTINGS = {
    "prompt": "a fox in snow",
    "negative_prompt": "rain",
    "pose_density": "NTH",
    "pose_interval": 5,
    "camera_source": "MOVE",
    "camera_move": "ZOOM_IN",
    "seed": 77,
    "new_seed": False,
    "use_custom_range": True,
    "frame_start": 3,
    "frame_end": 9,
    "frame_step": 2,
    "view": "VIEWPORT",
    "take_name": "fox",
    "long_side": 128,
}


@pytest.mark.skipif(bpy.app.version < (5, 0), reason="the file was saved by Blender 5.0")
def test_a_file_of_an_older_release_keeps_its_settings_and_takes(addon, tmp_path):
    file = shutil.copytree(OLDER, tmp_path / "older") / "older_release.blend"
    try:
        bpy.ops.wm.open_mainfile(filepath=str(file))
        scene = bpy.context.scene
        settings = scene.poseanything
        assert {name: getattr(settings, name) for name in SETTINGS} == SETTINGS
        [item] = module("sequencer.take_list").list_of(bpy.context).items
        assert (item.name, item.frames, item.num_frames, item.engine_label) == ("Scene_001", 4, 4, "Draft")
        assert module("sequencer.take_list").folder_of(item) == file.parent / "takes" / "Scene_001"
        [strip] = module("sequencer.strips").all_strips(scene)
        assert [element.filename for element in strip.elements] == [
            f"Scene_001_{number:04d}.png" for number in range(1, 5)
        ]
        assert bpy.ops.poseanything.use_take_settings(take_id=item.take_id) == {"FINISHED"}
        assert settings.prompt == "" and settings.long_side == 128
    finally:
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
