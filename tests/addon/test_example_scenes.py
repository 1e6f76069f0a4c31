"""Where the subjects of the training data are: backgrounds with depth, things in front, prompts."""

from __future__ import annotations

import argparse
import json

import bpy
import numpy as np
import pytest
from mathutils import Vector

from shared.request_file import read_request
from tests.addon.rigs import LEGGED, flesh, make_armature
from tests.addon.servers import module

BACKGROUNDS = {
    "meadow": "meadow",
    "desert": "desert",
    "street": "street",
    "room": "room",
    "studio": "studio",
    "water": "water",
    "clouds": "sky",
}
"""With what a prompt says."""


def walker():
    """A rig that walks along -Y in an empty scene of 25 frames."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    module("examples.scenes").set_format(bpy.context.scene)
    bpy.context.scene.frame_end = 25
    for frame, y in ((1, 0.0), (25, -1.5)):
        rig.location = 0, y, 0
        rig.keyframe_insert("location", frame=frame)
    return rig


def layout():
    return {
        item.name: (tuple(map(tuple, item.matrix_world)), len(item.data.vertices))
        for item in bpy.context.scene.objects
        if item.type == "MESH"
    }


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_background_has_depth_and_light_and_is_clear_of_the_subject(addon, monkeypatch, name):
    scenes, backgrounds = module("examples.scenes"), module("examples.backgrounds")
    monkeypatch.setitem(backgrounds.HOMES, "land", (getattr(backgrounds, name),))
    monkeypatch.setattr(scenes, "HIDDEN", 0.0)
    layouts = []
    for seed in (5, 5, 6):
        rig = walker()
        said = scenes.stage_by_seed(bpy.context, rig, seed)
        layouts.append(layout())
        assert f" {BACKGROUNDS[name]}" in said and said.endswith(".") and ", the camera " in said
        scene = bpy.context.scene
        lights = [item for item in scene.objects if item.type == "LIGHT"]
        assert lights and all(light.data.use_shadow for light in lights)
        eye, far = scene.camera.matrix_world.translation, []
        for item in scene.objects:
            if item.type != "MESH" or item.parent == rig:
                continue
            corners = np.array([item.matrix_world @ vertex.co for vertex in item.data.vertices])
            low, high = corners.min(0), corners.max(0)
            if item.name.split(".")[0] not in ("Ground", "Floor", "Backdrop"):
                far.append((Vector((low + high) / 2) - eye).length)
                # The subject is between x = -0.25 and 0.25 and 2 high.
                inside = (np.abs(corners[:, 0]) < 0.25) & (corners[:, 1] < 0.3) & (corners[:, 1] > -1.8)
                assert not (inside & (corners[:, 2] > 0.3) & (corners[:, 2] < 2)).any(), item.name
        assert max(far) > 1.3 * min(far), "a camera that moves shows it"
        textures = {
            node.bl_idname
            for made in bpy.data.materials
            if made.node_tree
            for node in made.node_tree.nodes
            if node.bl_idname.startswith("ShaderNodeTex")
        }
        assert textures - {"ShaderNodeTexCoord"}
    assert layouts[0] == layouts[1] != layouts[2]


def test_every_home_has_a_background_and_every_kind_a_home():
    homes, kinds = module("examples.backgrounds").HOMES, module("examples.kinds")
    assert {kinds.HOMES.get(kind, "land") for kind in kinds.KINDS} | {"air"} == set(homes)


@pytest.mark.parametrize(
    "kind", ["a post stands in front", "a bush grows in front", "a ball flies by in front"]
)
def test_what_is_in_front_hides_a_part_in_pictures_and_labels_alike(addon, tmp_path, monkeypatch, kind):
    scenes, occluders = module("examples.scenes"), module("examples.occluders")
    synthesise = module("examples.synthesise")
    monkeypatch.setattr(synthesise, "CLIPS", ((20, 10),))
    monkeypatch.setattr(occluders, "KINDS", {kind: occluders.KINDS[kind]})
    arguments = argparse.Namespace(size=(128, 96), frames=5, samples=1, renderer="workbench", look="bones")
    seen = []
    for hidden in (0.0, 1.0):
        monkeypatch.setattr(scenes, "HIDDEN", hidden)
        folder = tmp_path / str(hidden)
        assert synthesise.synthesise(bpy, arguments, "spider", 4, folder) == 1
        [clip] = json.loads((folder / "clips.json").read_text())
        request = read_request(folder / clip["request"])
        assert (kind in request.prompt) == bool(hidden) and " spider " in request.prompt
        pictures = [pixels_of(folder / name) for name in clip["frames"]]
        seen.append((request.part_maps, np.array(pictures)))
    (free, without), (left, within) = seen
    lost = (free > 0) & (left == 0)
    assert lost.sum() > 30, "it hides something"
    assert ((left > 0).sum((1, 2)) > 0.3 * (free > 0).sum((1, 2))).all(), "but never all of it"
    assert (left[left > 0] == free[left > 0]).mean() > 0.98, "what is left is what it was"
    changed = np.abs(within - without).max(-1) > 0.02
    # Where it stands the picture is another, but at the edges of what is as grey.
    assert changed[lost].mean() > 0.8 and changed[left > 0].mean() < 0.1


def pixels_of(path):
    """[H, W, 3] of a picture, 0 to 1."""
    image = bpy.data.images.load(str(path))
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1, :, :3]


def test_colours_are_called_what_one_calls_them():
    called = module("examples.props").colour_name
    for colour, name in (
        ((0.0, 0.9, 0.8), "red"),
        ((0.06, 0.9, 0.5), "orange"),
        ((0.06, 0.9, 0.2), "brown"),
        ((0.62, 0.9, 0.05), "dark blue"),
        ((0.3, 0.1, 0.8), "white"),
        ((0.3, 0.1, 0.01), "black"),
    ):
        assert called(*colour) == name
