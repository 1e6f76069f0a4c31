"""What is rendered without having faces: hair, grease pencil and points, labelled in every frame."""

from __future__ import annotations

from functools import partial

import bpy
import numpy as np
import pytest

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature, read_png, run, swing
from tests.addon.servers import module

SIZE = {"width": 256, "height": 160}
LINES = np.array([[(x, 0, 1.6 + 0.1 * k) for k in range(4)] for x in np.linspace(-0.1, 0.1, 9)])
"""Nine upright lines of four points beside each other at the head."""


def link(name, data):
    obj = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(obj)
    return obj


def hair_curves():
    curves = bpy.data.hair_curves.new("Hair")
    curves.add_curves([4] * 9)
    curves.position_data.foreach_set("vector", LINES.ravel().astype(np.float32))
    return link("Hair", curves)


def grease_pencil(lines=LINES):
    if bpy.app.version < (4, 3):
        pencil = bpy.data.grease_pencils.new("Pencil")
        frame = pencil.layers.new("Lines").frames.new(1)
        for line in lines:
            stroke = frame.strokes.new()
            stroke.points.add(4)
            stroke.points.foreach_set("co", line.ravel())
        return link("Pencil", pencil)
    pencil = getattr(bpy.data, "grease_pencils_v3", bpy.data.grease_pencils).new("Pencil")
    drawing = pencil.layers.new("Lines").frames.new(1).drawing
    drawing.add_strokes([4] * 9)
    drawing.attributes["position"].data.foreach_set("vector", lines.ravel().astype(np.float32))
    return link("Pencil", pencil)


def point_cloud():
    """Of vertices, by Geometry Nodes: there is no other way to make one in every Blender."""
    mesh = bpy.data.meshes.new("Points")
    mesh.from_pydata(LINES.reshape(-1, 3), [], [])
    nodes = bpy.data.node_groups.new("Points", "GeometryNodeTree")
    for side in ("INPUT", "OUTPUT"):
        nodes.interface.new_socket("Geometry", in_out=side, socket_type="NodeSocketGeometry")
    names = ("NodeGroupInput", "GeometryNodeMeshToPoints", "NodeGroupOutput")
    begin, make, end = (nodes.nodes.new(name) for name in names)
    make.inputs["Radius"].default_value = 0.03
    nodes.links.new(begin.outputs[0], make.inputs["Mesh"])
    nodes.links.new(make.outputs[0], end.inputs[0])
    obj = link("Points", mesh)
    obj.modifiers.new("Points", "NODES").node_group = nodes
    return obj


def particle_hair():
    mesh = bpy.data.meshes.new("Skin")
    mesh.from_pydata(
        [(-0.1, -0.02, 1.6), (0.1, -0.02, 1.6), (0.1, 0.02, 1.6), (-0.1, 0.02, 1.6)], [], [(0, 1, 2, 3)]
    )
    skin = link("Skin", mesh)
    settings = skin.modifiers.new("Hair", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.count, settings.hair_length = "HAIR", 60, 0.3
    return skin


def on_the_head(make, rig):
    obj = make()
    bpy.context.view_layer.update()
    obj.parent, obj.parent_type, obj.parent_bone = rig, "BONE", "head"
    obj.matrix_world = np.eye(4)


def layer_on_the_head(rig):
    to_bone = np.array(rig.data.bones["head"].matrix_local.inverted())
    layer = grease_pencil(LINES @ to_bone[:3, :3].T + to_bone[:3, 3]).data.layers[0]
    layer.parent, layer.parent_bone = rig, "head"
    if bpy.app.version < (4, 3):
        layer.parent_type, layer.parent_bone = "BONE", "head"


def test_a_volume_has_no_surface_and_the_user_is_told(clean_scene):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    link("Smoke", bpy.data.volumes.new("Smoke")).parent = rig
    add_camera()
    assert (
        "The volume Smoke has no surface, so its pixels belong to no limb." in export([rig], **SIZE).warnings
    )


@pytest.mark.parametrize(
    "attach",
    [partial(on_the_head, make) for make in (hair_curves, grease_pencil, point_cloud, particle_hair)]
    + [layer_on_the_head],
    ids=["hair curves", "grease pencil", "points", "particle hair", "layer of grease pencil"],
)
def test_what_has_no_faces_is_labelled_where_it_is_in_every_frame(clean_scene, attach):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    attach(rig)
    swing(rig, "head", axis=2, angle=1.5, frames=3)
    add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=6)
    clip = export([rig], **SIZE)
    number = [limb.name for limb in clip.pose.limbs].index("head") + 1
    for frame, labels in ((0, clip.first_labels), (0, clip.part_maps[0]), (2, clip.part_maps[2])):
        clean_scene.frame_set(1 + frame)
        to_world = np.array(rig.pose.bones["head"].matrix @ rig.data.bones["head"].matrix_local.inverted())
        placed = LINES.reshape(-1, 3) @ to_world[:3, :3].T + to_world[:3, 3]
        expected = clip.projector.project(placed[None])[frame, :, :2] / (256 / labels.shape[1])
        rows, columns = np.nonzero(labels == number)
        assert len(rows), labels.shape
        seen = np.array([(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)])
        assert np.abs(seen - (expected.min(axis=0), expected.max(axis=0))).max() < max(
            0.03 * labels.shape[1], 2
        )


def black_before_white(scene):
    """Have all be black in Cycles, in a white world."""
    scene.render.engine, scene.view_settings.view_transform = "CYCLES", "Raw"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.device = 8, False, "CPU"
    scene.world, black = bpy.data.worlds.new("World"), bpy.data.materials.new("Black")
    scene.world.use_nodes = black.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)
    surface = black.node_tree.nodes["Principled BSDF"].inputs
    surface["Base Color"].default_value, surface["Roughness"].default_value = (0, 0, 0, 1), 1
    for obj in scene.objects:
        if obj.type in {"MESH", "CURVES"}:
            obj.data.materials.append(black)


def flat_before_grey(scene):
    """Have all be flat in Workbench, in a world between the colour of drawn strokes and that of all else."""
    scene.render.engine, scene.view_settings.view_transform = "BLENDER_WORKBENCH", "Standard"
    scene.display.shading.light, scene.display.shading.color_type = "FLAT", "SINGLE"
    scene.world = bpy.data.worlds.new("World")
    scene.world.color = (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("make", "engine"),
    [
        (hair_curves, black_before_white),
        (particle_hair, black_before_white),
        (grease_pencil, flat_before_grey),
        (point_cloud, flat_before_grey),
    ],
)
def test_labels_cover_what_a_render_shows(clean_scene, make, engine):
    on_the_head(make, make_armature("Rig", LEGGED))
    add_camera(target=(0, 0, 1.75), direction=(0.3, -1, 0.2), distance=1.2)
    engine(clean_scene)
    clip = export([bpy.data.objects["Rig"]], num_frames=1, first_frame="", **SIZE)
    picture = read_png(clip.first_frame).astype(int)
    apart = np.abs(picture - picture[0, 0]).max(axis=2)
    shown, labelled = apart > apart.max() / 2, clip.first_labels > 0
    assert (shown & labelled).sum() > 0.74 * (shown | labelled).sum()


def test_the_hair_of_particles_has_a_depth(clean_scene):
    particle_hair()
    add_camera(target=(0, 0, 1.7), direction=(0, -1, 0), distance=6)
    scene, view = clean_scene, module("view").SceneCamera()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    lens, fit = view.lens(scene, depsgraph), module("view").fit(*view.frame_size(scene), 256, 160)
    projector = module("view.projection").Projector([lens], fit)
    depth, _ = run(module("ground_truth.depth").DepthDrawer(depsgraph).draw(depsgraph, projector))
    column, row = projector.project(np.array([[[0.0, 0.0, 1.75]]]))[0, 0, :2].astype(int)
    assert depth[row, column] == pytest.approx(6, abs=0.05) and np.isinf(depth[0, 0])
