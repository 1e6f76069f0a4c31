"""What renders is labelled, whatever the viewport shows and whatever it is made of."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature, options, read_png
from tests.addon.servers import module

SIZE = {"width": 256, "height": 160}


@pytest.fixture
def rig(clean_scene):
    rig = make_armature("Rig", LEGGED)
    add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=5)
    return rig


def labelled(clip, limb=None, frame=None):
    """How many cells of a frame's part map, or pixels of the first labels, a limb has, or all together."""
    labels = clip.first_labels if frame is None else clip.part_maps[frame]
    if limb is None:
        return int((labels > 0).sum())
    return int((labels == [made.name for made in clip.pose.limbs].index(limb) + 1).sum())


def hide(obj, frames, *properties):
    for frame, off in frames:
        for name in properties:
            setattr(obj, name, off)
            obj.keyframe_insert(name, frame=frame)
    bpy.context.scene.frame_set(1)


def carried(rig, bone, obj):
    obj.parent, obj.parent_type, obj.parent_bone = rig, "BONE", bone
    return obj


def cube(size, bone, rig):
    bpy.ops.mesh.primitive_cube_add(size=size)
    return carried(rig, bone, bpy.context.object)


@pytest.mark.parametrize("properties", [("hide_render",), ("hide_render", "hide_viewport")])
@pytest.mark.parametrize("first", [False, True])
def test_a_prop_is_labelled_in_the_frames_that_show_it(rig, properties, first):
    flesh(rig)
    hide(cube(0.5, "head", rig), ((1, first), (3, not first)), *properties)
    clip = export([rig], num_frames=4, **SIZE)
    with_prop, without = (3, 1) if first else (1, 3)
    assert labelled(clip, "head", with_prop) > 1.5 * labelled(clip, "head", without) > 0
    assert labelled(clip, "head", 0) == labelled(clip, "head", 1)


def test_limbs_that_only_some_frames_show_are_drawn(rig):
    """The legs are masked from the second frame on, the head before the third."""
    body = flesh(rig)
    for name, bones, takes in (
        ("legs", ("thigh", "shin"), (False, True, True)),
        ("top", ("head",), (True, True, False)),
    ):
        group = body.vertex_groups.new(name=name)
        named = {one.index for one in body.vertex_groups if one.name.startswith(bones)}
        group.add([v.index for v in body.data.vertices if v.groups[0].group in named], 1.0, "REPLACE")
        mask = body.modifiers.new(name, "MASK")
        mask.vertex_group, mask.invert_vertex_group = name, True
        for frame, mask.show_render in enumerate(takes, 1):
            mask.keyframe_insert("show_render", frame=frame)
    assert {limb.name for limb in export([rig], num_frames=3, **SIZE).pose.limbs} == set(LEGGED)


def test_a_modifier_takes_part_in_the_frames_that_render_it(rig):
    flesh(rig)
    prop = cube(0.5, "head", rig)
    mask = prop.modifiers.new("Mask", "MASK")
    mask.vertex_group = prop.vertex_groups.new(name="nothing").name
    for frame, renders in ((1, False), (3, True)):
        for name in ("show_render", "show_viewport"):
            setattr(mask, name, renders if name == "show_render" else not renders)
            mask.keyframe_insert(name, frame=frame)
    bpy.context.scene.frame_set(1)
    clip = export([rig], num_frames=4, **SIZE)
    assert labelled(clip, "head", 1) > 1.5 * labelled(clip, "head", 3) > 0
    assert mask.show_viewport


@pytest.mark.parametrize("how", ["screen", "eye", "collection", "modifier"])
def test_the_render_decides_and_not_the_viewport(rig, how):
    body, proxy = flesh(rig), flesh(rig, thickness=0.6, name="proxy")
    proxy.hide_render = True
    shown = export([rig], **SIZE)
    if how == "screen":
        body.hide_viewport = True
    elif how == "eye":
        body.hide_set(True)
    elif how == "collection":
        kept = bpy.data.collections.new("Render")
        bpy.context.scene.collection.children.link(kept)
        bpy.context.scene.collection.objects.unlink(body)
        kept.objects.link(body)
        kept.hide_viewport = True
    else:
        body.modifiers[0].show_viewport = False
        rig.pose.bones["thigh.L"].rotation_mode = "XYZ"
    hidden = export([rig], **SIZE)
    assert (hidden.first_labels == shown.first_labels).all() and labelled(hidden) > 0
    assert body.hide_viewport == (how == "screen") and body.hide_get() == (how == "eye")
    assert body.modifiers[0].show_viewport == (how != "modifier")


@pytest.mark.parametrize("how", ["rays", "collection", "instancer"])
def test_what_the_camera_does_not_meet_is_no_part_and_hides_nothing(rig, how):
    flesh(rig)
    alone = export([rig], **SIZE)
    bpy.context.scene.render.engine = "CYCLES"
    wall = cube(0.6, "chest", rig)
    if how == "rays":
        wall.visible_camera = False
    elif how == "collection":
        light = bpy.data.collections.new("Light alone")
        bpy.context.scene.collection.children.link(light)
        light.objects.link(wall)
        bpy.context.scene.collection.objects.unlink(wall)
        bpy.context.view_layer.layer_collection.children["Light alone"].indirect_only = True
    else:
        points = bpy.data.objects.new("Points", bpy.data.meshes.new("Points"))
        points.data.from_pydata([(0, 0, -50)], [], [])
        points.instance_type = "VERTS"
        bpy.context.scene.collection.objects.link(carried(rig, "chest", points))
        wall.parent = points
    assert (export([rig], **SIZE).first_labels == alone.first_labels).all()


@pytest.mark.parametrize("shown", [True, False])
def test_a_coarse_surface_is_refined_as_rendering_does(rig, shown):
    body = flesh(rig, thickness=0.8)
    smooth = body.modifiers.new("Smooth", "SUBSURF")
    smooth.levels = smooth.render_levels = 3
    fine = export([rig], **SIZE).first_labels
    smooth.levels, smooth.show_viewport = 0 if shown else 2, shown
    assert (export([rig], **SIZE).first_labels == fine).all() and fine.any()
    assert (smooth.levels, smooth.show_viewport) == (0 if shown else 2, shown)
    smooth.show_render = False
    plain = export([rig], **SIZE).first_labels
    assert (plain > 0).sum() > 1.2 * (fine > 0).sum()

    smooth.show_render, render = True, bpy.context.scene.render
    render.use_simplify, render.simplify_subdivision, render.simplify_subdivision_render = True, 0, 3
    assert (export([rig], **SIZE).first_labels == fine).all() and render.simplify_subdivision == 0
    render.simplify_subdivision, render.simplify_subdivision_render = 3, 0
    assert (export([rig], **SIZE).first_labels == plain).all()


def test_what_is_removed_meanwhile_need_not_be_put_back(rig, monkeypatch):
    monkeypatch.setattr(module("request.export"), "PAUSE", 0.0)  # a fast machine would be done by the first
    bodies = [flesh(rig, bones=[name], name=name) for name in ("head", "chest")]
    for body in bodies:
        body.hide_viewport = True
    scene = bpy.context.scene
    scene.frame_set(7)
    work = module("request.export").export_clip(bpy.context, options([rig], **SIZE))
    next(work)
    bpy.data.objects.remove(bodies[0])
    work.close()
    assert scene.frame_current == 7 and bodies[1].hide_viewport


def curve(bone, rig):
    data = bpy.data.curves.new(bone, "CURVE")
    data.dimensions, data.bevel_depth = "3D", 0.08
    spline = data.splines.new("POLY")
    spline.points.add(1)
    length = rig.data.bones[bone].length
    spline.points[1].co = (0, length, 0, 1)
    part = bpy.data.objects.new(bone, data)
    bpy.context.scene.collection.objects.link(part)
    carried(rig, bone, part).location.y = -length


def test_curves_and_texts_on_bones_are_labelled(rig):
    for bone in ("chest", "thigh.L"):
        curve(bone, rig)
    text = bpy.data.objects.new("text", bpy.data.curves.new("text", "FONT"))
    text.data.body, text.data.extrude, text.rotation_euler = "OO", 0.1, (1.57, 0, 0)
    bpy.context.scene.collection.objects.link(text)
    carried(rig, "shin.R", text)
    clip = export([rig], **SIZE)
    for limb in ("chest", "thigh.L", "shin.R"):
        assert labelled(clip, limb) > 20
    assert not clip.warnings or "No mesh" not in clip.warnings[0]


def test_a_body_in_a_lattice_is_labelled_by_the_nearest_limb(rig):
    body = flesh(rig)
    straight = export([rig], **SIZE)
    body.modifiers.clear()
    body.parent = None
    body.vertex_groups.clear()
    cage = bpy.data.objects.new("Cage", bpy.data.lattices.new("Cage"))
    bpy.context.scene.collection.objects.link(cage)
    cage.location, cage.scale, cage.parent = (0, 0, 1), (3, 3, 3), rig
    cage.modifiers.new("Armature", "ARMATURE").object = rig
    body.modifiers.new("Lattice", "LATTICE").object = cage
    caged = export([rig], **SIZE)
    both = straight.first_labels > 0
    assert (caged.first_labels > 0)[both].mean() > 0.95
    assert (caged.first_labels == straight.first_labels)[both].mean() > 0.8


def instancing_nodes(instance):
    """A node group that puts an object on each point."""
    group = bpy.data.node_groups.new("Instances", "GeometryNodeTree")
    for way in ("INPUT", "OUTPUT"):
        group.interface.new_socket("Geometry", in_out=way, socket_type="NodeSocketGeometry")
    first, last = group.nodes.new("NodeGroupInput"), group.nodes.new("NodeGroupOutput")
    on_points, info = (
        group.nodes.new("GeometryNodeInstanceOnPoints"),
        group.nodes.new("GeometryNodeObjectInfo"),
    )
    info.inputs["Object"].default_value = instance
    group.links.new(first.outputs[0], on_points.inputs["Points"])
    group.links.new(info.outputs["Geometry"], on_points.inputs["Instance"])
    group.links.new(on_points.outputs[0], last.inputs[0])
    return group


def test_instances_of_geometry_nodes_are_labelled_with_what_carries_them(rig):
    bpy.ops.mesh.primitive_cube_add(size=0.3, location=(50, 0, 0))
    group = instancing_nodes(bpy.context.object)
    for bone in ("head", "shin.L"):
        mesh = bpy.data.meshes.new(bone)
        mesh.from_pydata([(0, 0, 0), (0, -0.2, 0)], [], [])
        points = bpy.data.objects.new(bone, mesh)
        bpy.context.scene.collection.objects.link(points)
        carried(rig, bone, points).modifiers.new("Nodes", "NODES").node_group = group
    clip = export([rig], **SIZE)
    assert labelled(clip, "head") > 50 and labelled(clip, "shin.L") > 50
    assert labelled(clip) == labelled(clip, "head") + labelled(clip, "shin.L")


def test_a_skin_of_thousands_of_instances_is_labelled_all_over(rig, monkeypatch):
    bpy.ops.mesh.primitive_cube_add(size=0.02, location=(50, 0, 0))
    group = instancing_nodes(bpy.context.object)
    mesh = bpy.data.meshes.new("Scales")
    mesh.from_pydata([(x / 100, y / 100, 0) for y in range(60) for x in range(60)], [], [])
    scales = bpy.data.objects.new("Scales", mesh)
    bpy.context.scene.collection.objects.link(scales)
    carried(rig, "hips", scales).modifiers.new("Nodes", "NODES").node_group = group
    clip = export([rig], num_frames=1, **SIZE)
    rows = (clip.first_labels > 0).sum(axis=1)
    assert (rows > 0).sum() >= 25 and rows[rows > 0].min() >= 0.8 * rows.max() and not clip.warnings
    monkeypatch.setattr(module("ground_truth.shapes"), "MAX_INSTANCES", 100)
    [warning] = [one for one in export([rig], num_frames=1, **SIZE).warnings if "instances" in one]
    assert "those beyond are no parts and hide nothing" in warning


def test_an_instanced_thing_in_front_hides(rig):
    flesh(rig)
    free = export([rig], **SIZE)
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0.5, 0, 0.5))
    store = bpy.data.collections.new("Store")
    block = bpy.context.object
    bpy.context.scene.collection.objects.unlink(block)
    store.objects.link(block)
    place = bpy.data.objects.new("Place", None)
    place.instance_type, place.instance_collection, place.location = "COLLECTION", store, (0, -1, 0)
    bpy.context.scene.collection.objects.link(place)
    hidden = export([rig], **SIZE)
    assert labelled(free, "shin.L") > 0 and labelled(hidden, "shin.L") == 0
    assert labelled(hidden, "shin.R") == labelled(free, "shin.R")


def test_a_nested_instance_is_drawn_where_it_stands(rig):
    body = flesh(rig)
    alone = export([rig], **SIZE)
    inner, outer = bpy.data.collections.new("Character"), bpy.data.collections.new("Set")
    for obj in (rig, body):
        bpy.context.scene.collection.objects.unlink(obj)
        inner.objects.link(obj)
    for name, holds, home in (("One", inner, outer), ("Two", outer, bpy.context.scene.collection)):
        empty = bpy.data.objects.new(name, None)
        empty.instance_type, empty.instance_collection = "COLLECTION", holds
        home.objects.link(empty)
    bpy.data.objects["One"].location.x, bpy.data.objects["Two"].location.x = 0.3, -0.3
    bpy.context.view_layer.update()
    nested = export([bpy.data.objects["Two"]], **SIZE)
    assert (nested.first_labels == alone.first_labels).all() and labelled(nested) > 0
    bpy.data.objects["One"].location.x = 0.9
    bpy.context.view_layer.update()
    moved = export([bpy.data.objects["Two"]], **SIZE)
    columns = [np.flatnonzero(clip.first_labels.any(axis=0))[0] for clip in (alone, moved)]
    assert columns[1] > columns[0] + 10
    assert moved.pose.points[:, 0].min() > alone.pose.points[:, 0].min() + 10


def test_an_excluded_collection_is_named(clean_scene):
    rig = make_armature("Rig", LEGGED)
    kept = bpy.data.collections.new("Characters")
    clean_scene.collection.children.link(kept)
    clean_scene.collection.objects.unlink(rig)
    kept.objects.link(rig)
    add_camera()
    bpy.context.view_layer.layer_collection.children["Characters"].exclude = True
    bpy.context.view_layer.update()
    reason = module("request.blockers").export_blocker(bpy.context)
    assert "Rig lies in the collection Characters, which is excluded" in reason

    kept.objects.unlink(rig)
    cast, empty = bpy.data.collections.new("Cast"), bpy.data.objects.new("Instance", None)
    cast.objects.link(rig)
    empty.instance_type, empty.instance_collection = "COLLECTION", cast
    kept.objects.link(empty)
    assert module("request.blockers").export_blocker(bpy.context) == reason


def lamp(kind="SUN", side=1, **settings):
    """A lamp from above and from one side."""
    made = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", kind))
    for name, value in settings.items():
        setattr(made.data, name, value)
    bpy.context.scene.collection.objects.link(made)
    made.location, made.rotation_euler = (4 * side, 0, 5), (0, 0.7 * side, 0)
    return made


def lit(rig, kind="SUN", **settings):
    """A body over a floor, under one lamp."""
    flesh(rig, thickness=0.6)
    bpy.ops.mesh.primitive_plane_add(size=20)
    made = lamp(kind, **settings)
    bpy.context.scene.camera.location.z += 2.5
    bpy.context.scene.camera.rotation_euler.x -= 0.45
    bpy.context.view_layer.update()
    return made


def shaded(rig):
    """Two [160, 256] pictures by Cycles: with the body's shadow, and without it."""
    scene = bpy.context.scene
    scene.view_settings.view_transform = "Standard"
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 8, False
    scene.cycles.device, scene.cycles.max_bounces = "CPU", 0
    pictures = []
    body = bpy.data.objects["flesh"]
    for visible in (True, False):
        body.visible_shadow = visible
        picture = read_png(export([rig], num_frames=1, first_frame="", **SIZE).first_frame)
        pictures.append(picture.astype(float).mean(axis=2))
    body.visible_shadow = True
    return pictures


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("SUN", {"energy": 3.0, "angle": 0.01}), ("POINT", {"energy": 900.0, "shadow_soft_size": 0.02})],
)
def test_shadow_maps_are_where_cycles_shows_the_shadow(rig, kind, settings):
    lit(rig, kind, **settings)
    picture, plain = shaded(rig)
    shade = plain - picture > 20
    clip = export([rig], num_frames=1, **SIZE)
    told = np.kron(clip.shadow_maps[0] > 127, np.ones((4, 4), bool))
    floor = clip.first_labels == 0
    agree = (shade & told & floor).sum() / ((shade | told) & floor).sum()
    assert shade.sum() > 300 and agree > 0.5, "cells of four pixels on a small shadow"
    centres = [np.argwhere(where & floor).mean(axis=0) for where in (shade, told)]
    assert np.abs(centres[0] - centres[1]).max() < 5

    light = clip.light_maps[0]
    bright, known = picture[2::4, 2::4] > 25, light > 0
    assert 0.1 < bright[known].mean() < 0.95
    assert np.percentile(light[known & bright], 20) > np.percentile(light[known & ~bright], 80)


def test_each_shadow_holds_back_its_own_light(rig):
    lit(rig, energy=1.5, angle=0.01)
    lamp(side=-1, energy=0.5, angle=0.01)
    lamp("SPOT", energy=500, spot_size=0.3).rotation_euler.y = -0.4  # shines beside the body
    picture, plain = shaded(rig)
    with np.errstate(divide="ignore", invalid="ignore"):
        held_back = 1 - (picture / plain) ** 2.2
    clip = export([rig], num_frames=1, **SIZE)
    told = np.kron(clip.shadow_maps[0] / 255, np.ones((4, 4)))
    floor = (clip.first_labels == 0) & (plain > 20)
    for least, most, share in ((0.1, 0.4, 0.25), (0.6, 0.9, 0.75)):
        inside = floor & (told > least) & (told < most)
        assert inside.sum() > 150
        assert np.median(held_back[inside]) == pytest.approx(share, abs=0.05)
        assert np.median(told[inside]) == pytest.approx(share, abs=0.03)


def test_no_light_or_none_that_casts_shadows_gives_no_shadow_maps(rig):
    lamp, scene = lit(rig, energy=3.0), bpy.context.scene
    body = bpy.data.objects["flesh"]
    home, linked = (bpy.data.collections.new(name) for name in ("Lights", "Linked"))
    scene.collection.objects.unlink(lamp)
    home.objects.link(lamp)
    scene.collection.children.link(home)
    layer = bpy.context.view_layer.layer_collection.children["Lights"]

    def throws():
        return export([rig], num_frames=1, **SIZE).shadow_maps is not None

    assert throws()
    for owner, name, value in (
        (lamp.data, "use_shadow", False),
        (body, "visible_shadow", False),
        (layer, "exclude", True),
    ):
        setattr(owner, name, value)
        assert not throws()
        setattr(owner, name, not value)
    lamp.light_linking.blocker_collection = linked
    linked.objects.link(body)
    assert throws()
    linked.collection_objects[0].light_linking.link_state = "EXCLUDE"
    assert not throws()
    linked.objects.unlink(body)
    linked.objects.link(scene.camera)
    assert not throws(), "only what is linked"
    bpy.data.objects.remove(lamp)
    assert not throws()


@pytest.mark.parametrize("as_instance", [False, True])
def test_triangles_are_read_anew_where_as_many_points_are_connected_otherwise(clean_scene, as_instance):
    quads = {"flat": [(0, 1, 2, 3)], "folded": [(1, 2, 3, 0)]}
    for name, faces in quads.items():
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata([(0, 0, 0), (1, 0, 0), (1, 1, 0.5), (0, 1, 0)], [], faces)
        bpy.data.objects.new(name, mesh)
    group = bpy.data.node_groups.new("swap", "GeometryNodeTree")
    group.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    source, end = group.nodes.new("GeometryNodeObjectInfo"), group.nodes.new("NodeGroupOutput")
    source.inputs["As Instance"].default_value = as_instance
    group.links.new(source.outputs["Geometry"], end.inputs[0])
    obj = bpy.data.objects.new("host", bpy.data.meshes.new("host"))
    clean_scene.collection.objects.link(obj)
    obj.modifiers.new("swap", "NODES").node_group = group
    reader = module("ground_truth.shapes").ShapeReader()
    for name, corners in (("flat", [0, 1, 2]), ("folded", [1, 2, 3]), ("flat", [0, 1, 2])):
        source.inputs["Object"].default_value = bpy.data.objects[name]
        depsgraph = bpy.context.evaluated_depsgraph_get()
        read = reader.read_instances(depsgraph)[obj] if as_instance else reader.read(obj, depsgraph)
        assert len(read.triangles) == 2 and read.triangles[0].tolist() == corners
