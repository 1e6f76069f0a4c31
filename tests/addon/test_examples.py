"""The example shot: what the button, the demo and synthetic data are made of."""

from __future__ import annotations

import addon_utils
import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view

from tests.addon.scenes import newest_job, settle, strip_of
from tests.addon.servers import module, png


@pytest.fixture(scope="module")
def example(addon):
    """The example shot beside a scene of the user's; gives both scenes."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    mine = bpy.context.scene
    texts = bpy.data.texts.new("mine.py")
    texts.use_module = True
    assert bpy.ops.poseanything.example_shot() == {"FINISHED"}
    return mine, bpy.context.scene


def test_it_has_a_scene_of_its_own(example):
    mine, scene = example
    assert scene.name == "Example Shot" and scene != mine and not mine.objects
    assert bpy.data.texts["mine.py"].use_module, "no script but Rigify's own is touched"
    assert not any(addon_utils.check("rigify")), "Rigify is enabled no longer than it is needed"
    assert scene.camera is not None and bpy.context.object.name == "Fox"
    assert scene.render.resolution_x % 32 == scene.render.resolution_y % 32 == 0
    assert (scene.frame_end - scene.frame_start) % 4 == 0


def test_it_can_be_generated_at_once(example, preferences, fake_server, tmp_path):
    _, scene = example
    preferences.autostart, preferences.address = False, fake_server()
    scene.render.engine = "BLENDER_WORKBENCH"
    settings = scene.poseanything
    settings.long_side, settings.output_folder = 128, str(tmp_path)
    settings.use_custom_range, settings.frame_end = True, 5
    assert bpy.ops.poseanything.generate() == {"FINISHED"}
    job = newest_job()
    settle(job)
    assert job.state == "DONE" and len(strip_of(job).elements) == 5 and job.take.name == "fox_001"


def test_it_walks_within_the_picture(example):
    _, scene = example
    rig = scene.objects["Fox"]
    hips = []
    for frame in (1, 41, 81):
        scene.frame_set(frame)
        heads = [
            world_to_camera_view(scene, scene.camera, rig.matrix_world @ bone.head)
            for bone in rig.pose.bones
            if bone.bone.use_deform
        ]
        assert all(0 < point.x < 1 and 0 < point.y < 1 for point in heads)
        hips.append(rig.pose.bones["hips"].head.y)
    assert hips[0] > hips[1] > hips[2]


def test_a_seed_always_makes_the_same_creature_and_seeds_differ(addon):
    build = module("examples.creatures").Build
    assert build.from_seed(0) == build() and build.from_seed(3) == build.from_seed(3)
    assert len({build.from_seed(seed) for seed in range(20)}) == 20
    for seed in range(200):
        made = build.from_seed(seed)
        assert all(0 <= value <= 1 for colour in (made.coat, made.light, made.dark) for value in colour)


def test_a_rig_file_that_can_not_be_used_is_one_sentence(clean_scene, tmp_path):
    rig_files = module("examples.rig_files")
    (tmp_path / "rig.max").touch()
    for path, words in (
        (tmp_path / "absent.glb", "There is no file"),
        (tmp_path / "rig.max", "can't be imported"),
    ):
        with pytest.raises(rig_files.RigFileError, match=words):
            rig_files.import_rig(bpy.context, path)


def test_contact_sheet_shows_every_picture_unchanged(clean_scene, tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    paths = []
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(np.full((48, 80, 3), colour, np.uint8)))
        paths.append(path)
    first, pose, result = paths
    sheets = module("examples.contact_sheet")
    if not hasattr(clean_scene.sequence_editor_create(), "strips"):
        pytest.skip("the demo runs in newer Blenders only")
    sheet = sheets.contact_sheet((80, 48), first, [pose] * 9, [result] * 9, "title", tmp_path / "sheet.png")
    image = bpy.data.images.load(str(sheet))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty((height, width, 4), np.float32)
    image.pixels.foreach_get(pixels.ravel())
    bpy.data.images.remove(image)
    pixels = np.rint(pixels[::-1, :, :3] * 255).astype(int)
    cell, margin = sheets.CELL, sheets.MARGIN
    height = round(48 * cell / 80)
    row = sheets.HEAD + height // 2
    across = [margin + cell // 2 + column * (cell + margin) for column in range(6)]
    assert [tuple(pixels[row, x]) for x in across] == [colours[0]] + [colours[1]] * 5
    assert [tuple(pixels[row + height + margin, x]) for x in across[1:]] == [colours[2]] * 5
    assert bpy.data.scenes.get("Contact Sheet") is None
