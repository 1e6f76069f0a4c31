"""Label maps against what rays through the same pixels hit, and against what a render shows."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mathutils import Vector

from tests.addon.rigs import LEGGED, add_camera, export, flesh, import_fox, make_armature, needs_fox, read_png
from tests.addon.servers import module

SIZE = {"width": 256, "height": 160}


def names_of(clip):
    return ["", *(limb.name for limb in clip.pose.limbs)]


def seen_limbs(clip, labels=None):
    labels = clip.first_labels if labels is None else labels
    return {names_of(clip)[label] for label in np.unique(labels)} - {""}


def ray_through(x, y, width=256, height=160):
    """Origin and direction of the camera's ray through a pixel of the clip, in the current frame."""
    scene = bpy.context.scene
    view = module("view").SceneCamera()
    fit = module("view").fit(*view.frame_size(scene), width, height)
    lens = view.lens(scene, bpy.context.evaluated_depsgraph_get())
    device = np.linalg.inv(module("view.projection").to_pixels(fit)) @ (x, y, 1)
    ends = np.linalg.inv(lens.projection @ lens.view) @ np.array([(*device[:2], z, 1) for z in (-1, 0)]).T
    start, further = (ends[:3] / ends[3]).T
    return Vector(start), Vector(further - start).normalized()


def label_by_ray(clip, x, y, choice, offset=0):
    """The limb that owns what is hit at a pixel: the strongest at the hit's nearest corner; None near a
    tie."""
    scene = bpy.context.scene
    depsgraph = bpy.context.evaluated_depsgraph_get()
    hit, place, _, face, obj, matrix = scene.ray_cast(depsgraph, *ray_through(x, y))
    if not hit:
        return 0
    mesh = obj.evaluated_get(depsgraph).data
    groups = {group.index: group.name for group in obj.vertex_groups}
    totals = {}
    corners = list(mesh.polygons[face].vertices)
    local = matrix.inverted() @ place
    away = np.array([(mesh.vertices[v].co - local).length for v in corners])
    owners = set()
    for vertex in corners:
        weights = {}
        for group in mesh.vertices[vertex].groups:
            limb = choice.owners[groups[group.group]] + 1 + offset
            weights[limb] = weights.get(limb, 0) + group.weight
        owners.add(max(weights, key=weights.get))
        for limb, weight in weights.items():
            totals[limb] = totals.get(limb, 0) + weight / (away[corners.index(vertex)] + 1e-9)
    return owners.pop() if len(owners) == 1 else None


@needs_fox
@pytest.mark.parametrize("action", ["Survey", "Walk", "Run"])
def test_the_foxs_labels_are_what_rays_hit(clean_scene, action):
    rig, _ = import_fox(action)
    add_camera(target=(0, 0, 40), direction=(1, -0.6, 0.3), distance=180)
    clip = export([rig], frame_start=5, num_frames=1, **SIZE)
    clean_scene.frame_set(5)
    choice = module("rig.limbs").choose_limbs(rig)
    random = np.random.default_rng(7)
    told = 0
    for x, y in random.integers((0, 0), (256, 160), (1500, 2)).tolist():
        expected = label_by_ray(clip, x + 0.5, y + 0.5, choice)
        if expected is not None:
            told += expected > 0
            assert clip.first_labels[y, x] == expected
    assert told > 150


@needs_fox
def test_labels_cover_what_a_render_shows(clean_scene):
    rig, _ = import_fox("Walk")
    add_camera(target=(0, 0, 40), direction=(1, -0.6, 0.3), distance=240)
    clean_scene.render.engine = "BLENDER_WORKBENCH"
    clean_scene.display.shading.light, clean_scene.display.shading.color_type = "FLAT", "SINGLE"
    clip = export([rig], num_frames=1, first_frame="", width=512, height=320)
    picture = read_png(clip.first_frame).astype(int)
    apart = np.abs(picture - picture[0, 0]).max(axis=2)
    shown = apart > apart.max() / 2
    agree = (shown & (clip.subject_mask > 0)).sum() / (shown | (clip.subject_mask > 0)).sum()
    assert agree > 0.98
    assert ((clip.first_labels > 0) == (clip.subject_mask > 0)).all()


@needs_fox
def test_part_maps_are_the_labels_at_their_size_in_every_frame(clean_scene):
    rig, _ = import_fox("Run")
    add_camera(target=(0, 0, 40), direction=(1, -0.6, 0.3), distance=180)
    clip = export([rig], num_frames=3, frame_step=4, **SIZE)
    assert clip.part_maps.shape == (3, 20, 32) and clip.part_maps.dtype == np.uint8
    for index in range(3):
        alone = export([rig], frame_start=1 + 4 * index, num_frames=1, **SIZE)
        cells = alone.first_labels.reshape(20, 8, 32, 8).swapaxes(1, 2).reshape(20, 32, 64)
        share = (cells == clip.part_maps[index][..., None]).mean(axis=2)
        assert np.median(share) == 1 and (share > 0.3).mean() > 0.98
    assert (clip.part_maps[0] != clip.part_maps[2]).any()


def test_bones_with_a_share_of_the_flesh_own_the_pixels_where_they_weigh_most(clean_scene):
    """A bar whose weights cross over at a third of its length, within one large quad."""
    rig = make_armature("Rig", {"a": ((0, 0, 0), (1, 0, 0), ""), "b": ((1, 0, 0), (2, 0, 0), "a")})
    mesh = bpy.data.meshes.new("bar")
    mesh.from_pydata([(0, 0, -0.3), (2, 0, -0.3), (2, 0, 0.3), (0, 0, 0.3)], [], [(0, 1, 2, 3)])
    bar = bpy.data.objects.new("bar", mesh)
    clean_scene.collection.objects.link(bar)
    for name, left, right in (("a", 0.4, 0.1), ("b", 0.25, 0.4)):
        group = bar.vertex_groups.new(name=name)
        group.add([0, 3], left, "REPLACE")
        group.add([1, 2], right, "REPLACE")
    bar.modifiers.new("Armature", "ARMATURE").object = rig
    add_camera(target=(1, 0, 0), direction=(0, -1, 0), distance=5)
    clip = export([rig], num_frames=1, **SIZE)
    row = clip.first_labels[80]
    columns = np.flatnonzero(row)
    change = np.flatnonzero(np.diff(row[columns].astype(int)))
    # 0.4 - 0.3 t = 0.25 + 0.15 t at t = 1/3.
    assert len(change) == 1
    assert (change[0] + 1) / len(columns) == pytest.approx(1 / 3, abs=0.02)


def scene_of(*bodies, distance=5.0):
    rig = make_armature("Rig", LEGGED)
    made = [flesh(rig, *body) for body in bodies or [()]]
    add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=distance)
    return rig, made


@pytest.mark.parametrize("of_set", [False, True])
def test_what_stands_in_front_hides(clean_scene, of_set):
    rig, _ = scene_of()
    free = export([rig], **SIZE)
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0.5, -1, 0.5))
    if of_set:
        clean_scene.background_set = bpy.data.scenes.new("Set")
        clean_scene.background_set.collection.objects.link(bpy.context.object)
        clean_scene.collection.objects.unlink(bpy.context.object)
    bpy.ops.mesh.primitive_plane_add(size=100, location=(0, 3, 0), rotation=(1.57, 0, 0))
    bpy.ops.mesh.primitive_plane_add(size=100, location=(0, 0, -0.01))
    hidden = export([rig], **SIZE)
    assert "shin.L" in seen_limbs(free) and "shin.L" not in seen_limbs(hidden)
    assert "shin.L" not in seen_limbs(hidden, hidden.part_maps[1])
    assert "shin.R" in seen_limbs(hidden)
    assert (hidden.first_labels[hidden.first_labels > 0] == free.first_labels[hidden.first_labels > 0]).all()


def clear_material(kind="ShaderNodeBsdfTransparent"):
    """A material that all light goes through."""
    clear = bpy.data.materials.new("Clear")
    if clear.node_tree is None:  # it always has one from Blender 5.0 on
        clear.use_nodes = True
    nodes = clear.node_tree.nodes
    surface = nodes.new(kind)
    if "Alpha" in surface.inputs:
        surface.inputs["Alpha"].default_value = 0
    clear.node_tree.links.new(surface.outputs[0], nodes["Material Output"].inputs["Surface"])
    return clear


@pytest.mark.parametrize("kind", ["ShaderNodeBsdfTransparent", "ShaderNodeBsdfPrincipled"])
def test_what_all_light_goes_through_neither_shows_nor_hides(clean_scene, kind):
    """A shell around the body, a pane before all, then the hips alone."""
    rig, (body,) = scene_of()
    clean_scene.render.engine = "CYCLES"
    plain = export([rig], num_frames=1, **SIZE)
    clear = clear_material(kind)
    shell = flesh(rig, thickness=0.6)
    shell.data.materials.append(clear)
    body.data.materials.append(bpy.data.materials.new("Skin"))
    body.data.materials.append(clear)
    bpy.ops.mesh.primitive_plane_add(size=1, location=(0, -1, 1), rotation=(1.57, 0, 0))
    bpy.context.object.data.materials.append(clear)
    clip = export([rig], num_frames=1, **SIZE)
    assert (clip.first_labels == plain.first_labels).all() and plain.first_labels.any()
    assert (clip.backdrop.labels == plain.backdrop.labels).all()
    for face in body.data.polygons:
        face.material_index = face.vertices[0] < 12
    assert seen_limbs(export([rig], num_frames=1, **SIZE)) == seen_limbs(plain) - {"hips"}


def test_of_instances_of_one_mesh_each_shows_as_its_own_material_does(clean_scene):
    clean_scene.render.engine = "CYCLES"
    bpy.ops.mesh.primitive_plane_add()
    glass = bpy.context.object
    glass.data.materials.append(bpy.data.materials.new("Skin"))
    glass.material_slots[0].link, glass.material_slots[0].material = "OBJECT", clear_material()
    solid = bpy.data.objects.new("Solid", glass.data)
    crowd = bpy.data.collections.new("Crowd")
    instancer = bpy.data.objects.new("Instancer", None)
    instancer.instance_type, instancer.instance_collection = "COLLECTION", crowd
    clean_scene.collection.objects.link(instancer)
    for first in (glass, solid):
        for obj in crowd.objects:
            crowd.objects.unlink(obj)
        for obj in (first, *({glass, solid} - {first})):
            crowd.objects.link(obj)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        shape = module("ground_truth.shapes").ShapeReader().read_instances(depsgraph)[instancer]
        assert len(shape.points) == 8 and len(shape.triangles) == 2


def test_nearer_limbs_hide_farther_ones(clean_scene):
    rig, _ = scene_of()
    clean_scene.camera.data.type, clean_scene.camera.data.ortho_scale = "ORTHO", 4
    clean_scene.camera.location = (8, 0, 1)
    clean_scene.camera.rotation_euler = (1.5708, 0, 1.5708)
    clip = export([rig], num_frames=1, **SIZE)
    assert "shin.L" in seen_limbs(clip) and "shin.R" not in seen_limbs(clip)


def test_meshes_that_do_not_render_leave_no_label(clean_scene):
    rig, (_, hidden, stored) = scene_of((["chest"],), (["head"],), (["thigh.L"],))
    assert seen_limbs(export([rig], **SIZE)) == {"chest", "head", "thigh.L"}
    hidden.hide_render = True
    store = bpy.data.collections.new("Store")
    clean_scene.collection.children.link(store)
    clean_scene.collection.objects.unlink(stored)
    store.objects.link(stored)
    store.hide_render = True
    assert seen_limbs(export([rig], **SIZE)) == {"chest"}


def test_a_subjects_mesh_in_edit_mode_is_one_sentence_and_others_are_passed_over(clean_scene):
    rig, (body,) = scene_of()
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0.5, -1, 0.5))
    for obj in (bpy.context.object, body):
        bpy.context.view_layer.objects.active = obj
        bpy.ops.object.mode_set(mode="EDIT")
        try:
            if obj != body:
                assert "chest" in seen_limbs(export([rig], **SIZE))
                continue
            with pytest.raises(
                module("errors").ExportError, match="The mesh flesh is in Edit Mode; leave it first"
            ):
                export([rig], **SIZE)
        finally:
            bpy.ops.object.mode_set(mode="OBJECT")


def test_things_carried_by_a_bone_are_part_of_its_limb(clean_scene):
    rig, _ = scene_of((["chest"],))
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.2)
    hat = bpy.context.object
    hat.parent, hat.parent_type, hat.parent_bone = rig, "BONE", "head"
    bpy.ops.mesh.primitive_cube_add(size=0.2, location=(0, 0, 0.3))
    feather = bpy.context.object
    feather.parent = hat
    bpy.ops.mesh.primitive_cube_add(size=0.3, location=(0.2, 0, 0.2))
    bound = bpy.context.object.constraints.new("CHILD_OF")
    bound.target, bound.subtarget = rig, "shin.L"
    assert seen_limbs(export([rig], **SIZE)) == {"chest", "head", "shin.L"}


def test_what_passes_from_hand_to_hand_belongs_to_the_one_that_holds_it(clean_scene):
    """A muted constraint holds nothing."""
    rig, _ = scene_of()
    bpy.ops.mesh.primitive_cube_add(size=0.6)
    for bone, influences in (("head", (1, 0)), ("shin.L", (0, 1)), ("shin.R", None)):
        held = bpy.context.object.constraints.new("COPY_TRANSFORMS")
        held.target, held.subtarget, held.mute = rig, bone, influences is None
        for frame, held.influence in zip((1, 2), influences or ()):
            held.keyframe_insert("influence", frame=frame)
    clip = export([rig], num_frames=2, **SIZE)
    for cells, holder, other in zip(clip.part_maps, ("head", "shin.L"), ("shin.L", "head")):
        held, free = ((cells == names_of(clip).index(name)).sum() for name in (holder, other))
        assert held > 40 > 3 * free > 0


def test_flesh_that_is_all_in_one_place_at_first_is_labelled_when_it_spreads(clean_scene):
    rig, _ = scene_of()
    head = rig.pose.bones["head"]
    plain = export([rig], num_frames=2, **SIZE)
    for frame, size in ((1, 0.0), (2, 1.0)):
        head.scale = (size,) * 3
        head.keyframe_insert("scale", frame=frame)
    clip = export([rig], num_frames=2, **SIZE)
    number = names_of(clip).index("head")
    assert (clip.part_maps[1] == number).sum() == (plain.part_maps[1] == number).sum() > 5


def test_a_part_that_renders_as_a_hole_is_no_part_but_hides(clean_scene):
    clean_scene.render.engine = "CYCLES"
    rig, (_, vest) = scene_of((["chest", "thigh.L"],), (["chest"], 1.5, "vest"))
    assert seen_limbs(export([rig], num_frames=1, **SIZE)) == {"chest", "thigh.L"}
    vest.is_holdout = True
    assert seen_limbs(export([rig], num_frames=1, **SIZE)) == {"thigh.L"}


@pytest.mark.parametrize("kind", ["SUBSURF", "MIRROR", "TRIANGULATE", "SOLIDIFY"])
def test_weights_are_found_behind_modifiers_that_change_the_mesh(clean_scene, kind):
    rig, (body,) = scene_of((list(LEGGED), 0.4))
    plain = export([rig], num_frames=1, **SIZE)
    modifier = body.modifiers.new("Change", kind)
    if kind == "SOLIDIFY":
        modifier.thickness = 0.01
    changed = export([rig], num_frames=1, **SIZE)
    both = (plain.first_labels > 0) & (changed.first_labels > 0)
    assert both.sum() > 0.6 * (plain.first_labels > 0).sum()
    assert (plain.first_labels == changed.first_labels)[both].mean() > 0.97


def test_a_mesh_whose_make_changes_during_the_shot_stays_labelled(clean_scene):
    rig, (body,) = scene_of()
    modifier = body.modifiers.new("Build", "SUBSURF")
    for frame, levels in ((1, 0), (2, 1), (3, 2)):
        modifier.levels = levels
        modifier.keyframe_insert("levels", frame=frame)
    clip = export([rig], **SIZE)
    for labels in clip.part_maps:
        assert {"chest", "thigh.L"} <= seen_limbs(clip, labels)


def test_flesh_without_weights_goes_to_the_nearest_limb(clean_scene):
    rig, (body,) = scene_of()
    weighted = export([rig], num_frames=1, **SIZE)
    body.vertex_groups.clear()
    bare = export([rig], num_frames=1, **SIZE)
    assert (bare.subject_mask == weighted.subject_mask).all()
    both = weighted.first_labels > 0
    assert (bare.first_labels == weighted.first_labels)[both].mean() > 0.85


def test_an_armature_without_a_mesh_has_no_labels_and_says_so(clean_scene):
    rig = make_armature("Rig", LEGGED)
    add_camera()
    clip = export([rig], **SIZE)
    assert clip.first_labels is None and clip.part_maps is None and clip.subject_mask is None
    assert "No mesh that renders is bound to the armature" in clip.warnings[0]


def test_instanced_subjects_are_labelled_where_they_are(clean_scene):
    rig, (body,) = scene_of()
    alone = export([rig], num_frames=1, **SIZE)
    collection = bpy.data.collections.new("Asset")
    for obj in (rig, body):
        clean_scene.collection.objects.unlink(obj)
        collection.objects.link(obj)
    instance = bpy.data.objects.new("Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    clean_scene.collection.objects.link(instance)
    bpy.context.view_layer.update()
    clip = export([instance], num_frames=1, **SIZE)
    assert (clip.first_labels == alone.first_labels).all() and clip.first_labels.any()
    instance.location.x = 0.5
    bpy.context.view_layer.update()
    moved = export([instance], num_frames=1, **SIZE)
    assert (
        np.flatnonzero(moved.first_labels.any(axis=0))[0] > np.flatnonzero(alone.first_labels.any(axis=0))[0]
    )


def test_an_instance_that_no_longer_renders_has_no_labels(clean_scene):
    rig, (body,) = scene_of()
    inner, outer = bpy.data.collections.new("Inner"), bpy.data.collections.new("Outer")
    for obj in (rig, body):
        clean_scene.collection.objects.unlink(obj)
        inner.objects.link(obj)
    instances = []
    for collection, into in ((inner, outer), (outer, clean_scene.collection)):
        instance = bpy.data.objects.new("Instance", None)
        instance.instance_type, instance.instance_collection = "COLLECTION", collection
        into.objects.link(instance)
        instances.append(instance)
    for frame, hidden in ((1, False), (3, True)):
        instances[1].hide_render = hidden
        instances[1].keyframe_insert("hide_render", frame=frame)
    clip = export([instances[1]], **SIZE)
    assert [bool(labels.any()) for labels in clip.part_maps] == [True, True, False]


@pytest.mark.parametrize("named_by", ["node", "input"])
def test_what_only_instances_show_of_a_hidden_body_is_labelled(clean_scene, named_by):
    """Geometry Nodes render what they name whether it is hidden or not, also from a group within."""
    rig, (body,) = scene_of()
    plain = export([rig], num_frames=1, **SIZE)
    crowd = bpy.data.objects.new("Crowd", bpy.data.meshes.new("Crowd"))
    clean_scene.collection.objects.link(crowd)
    inner, nodes = (bpy.data.node_groups.new(name, "GeometryNodeTree") for name in ("Inner", "Nodes"))
    for tree in (inner, nodes):
        tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
        name = tree.interface.new_socket("Body", in_out="INPUT", socket_type="NodeSocketObject").identifier
    info = inner.nodes.new("GeometryNodeObjectInfo")
    info.inputs["As Instance"].default_value = True
    inner.links.new(info.outputs["Geometry"], inner.nodes.new("NodeGroupOutput").inputs[0])
    group = nodes.nodes.new("GeometryNodeGroup")
    group.node_tree = inner
    nodes.links.new(group.outputs[0], nodes.nodes.new("NodeGroupOutput").inputs[0])
    modifier = crowd.modifiers.new("Nodes", "NODES")
    modifier.node_group = nodes
    if named_by == "node":
        info.inputs[0].default_value = body
    else:
        inner.links.new(inner.nodes.new("NodeGroupInput").outputs[0], info.inputs[0])
        nodes.links.new(nodes.nodes.new("NodeGroupInput").outputs[0], group.inputs[0])
        if hasattr(modifier, "properties"):  # Blender 5.2
            getattr(modifier.properties.inputs, name).value = body
        else:
            modifier[name] = body
    body.hide_render = True
    clip = export([rig], num_frames=1, **SIZE)
    assert (clip.subject_mask == plain.subject_mask).all() and plain.subject_mask.any()
    assert (clip.first_labels == plain.first_labels).mean() > 0.95


def test_a_face_that_a_rig_moves_by_its_shapes_alone_is_labelled(clean_scene):
    rig, (body,) = scene_of()
    plain = export([rig], num_frames=1, **SIZE)
    body.modifiers.clear()
    body.parent = None
    body.shape_key_add(name="Basis")
    driver = body.shape_key_add(name="Bent").driver_add("value").driver
    driver.type = "AVERAGE"
    variable = driver.variables.new()
    variable.type = "TRANSFORMS"
    variable.targets[0].id, variable.targets[0].bone_target = rig, "head"
    assert (export([rig], num_frames=1, **SIZE).first_labels == plain.first_labels).all()


def test_two_subjects_have_labels_of_their_own(clean_scene):
    rig, _ = scene_of()
    other = make_armature("Other", LEGGED)
    other.location.x = 1.2
    flesh(other)
    bpy.context.view_layer.update()
    clip = export([rig, other], num_frames=1, **SIZE)
    subject = np.array([255, *(limb.subject for limb in clip.pose.limbs)])[clip.first_labels]
    columns = [np.flatnonzero((subject == i).any(axis=0)) for i in (0, 1)]
    assert columns[0].mean() + 20 < columns[1].mean()
    assert [limb.subject for limb in clip.pose.limbs] == [0] * 7 + [1] * 7
    assert len(clip.pose.parts) == len(set(limb.part for limb in clip.pose.limbs))


def test_a_body_around_the_camera_is_cut_at_the_near_plane(clean_scene):
    rig, (body,) = scene_of()
    # From between the legs, backwards through the chest: much of the body is behind.
    camera = clean_scene.camera
    camera.location, camera.rotation_euler = (0.2, 0.02, 0.3), (3.1, 0.2, 0)
    camera.data.lens = 18
    bpy.context.view_layer.update()
    clip = export([rig], num_frames=1, **SIZE)
    choice = module("rig.limbs").choose_limbs(rig)
    told = 0
    for x, y in np.random.default_rng(3).integers((0, 0), (256, 160), (300, 2)).tolist():
        expected = label_by_ray(clip, x + 0.5, y + 0.5, choice)
        if expected is not None:
            told += expected > 0
            assert clip.first_labels[y, x] == expected
    assert told > 20


corner = st.tuples(st.floats(-20, 60), st.floats(-20, 50), st.floats(0.1, 5))


@given(st.lists(st.tuples(corner, corner, corner), min_size=1, max_size=12))
def test_the_nearest_triangle_is_found_at_every_pixel(addon, triangles):
    triangles = np.array(triangles)
    buffer = module("ground_truth.zbuffer").ZBuffer(40, 30)
    for _ in buffer.draw(triangles, np.arange(len(triangles))):
        pass
    found = buffer.triangle.reshape(30, 40)
    for y in range(0, 30, 3):
        for x in range(0, 40, 3):
            best, nearest = -1, -np.inf
            sure = True
            for number, (a, b, c) in enumerate(triangles):
                area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
                if abs(area) < 1e-3:
                    sure = False
                    continue
                u = ((x + 0.5 - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y + 0.5 - a[1])) / area
                v = ((b[0] - a[0]) * (y + 0.5 - a[1]) - (x + 0.5 - a[0]) * (b[1] - a[1])) / area
                if min(abs(u), abs(v), abs(1 - u - v)) < 1e-6:
                    sure = False
                if u > 0 and v > 0 and u + v < 1:
                    nearness = a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2])
                    if abs(nearness - nearest) < 1e-6:
                        sure = False
                    if nearness > nearest:
                        best, nearest = number, nearness
            if sure:
                assert found[y, x] == best


def test_flow_leads_to_where_the_first_frame_shows_the_same_surface(clean_scene):
    """A body that turns about itself, against rays through the places that flow leads to."""
    rig = make_armature("Rig", {"a": ((0, 0, 0), (0, 0, 1), ""), "b": ((0, 0, 1), (0, 0, 2), "a")})
    body = flesh(rig, thickness=1.2)
    for frame, angle in ((1, 0.0), (5, 0.7)):
        rig.rotation_euler = (0.3 * angle, 0, angle)
        rig.keyframe_insert("rotation_euler", frame=frame)
    add_camera(target=(0, 0, 1), direction=(1, -1, 0.2), distance=6)
    clip = export([rig], num_frames=5, **SIZE)
    flow = clip.surface_flow
    told = flow != -32768
    assert flow.shape == (5, 2, 40, 64) and (told[:, 0] == told[:, 1]).all()
    assert (np.abs(flow[0][told[0]]) <= 1).all()

    def hits(frame, pixels):
        clean_scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        back = body.evaluated_get(depsgraph).matrix_world.inverted()
        found = [clean_scene.ray_cast(depsgraph, *ray_through(x, y)) for x, y in pixels.tolist()]
        return np.array([back @ place if hit else (np.nan,) * 3 for hit, place, *_ in found])

    rows, columns = np.nonzero(told[4, 0])
    here = np.column_stack([columns, rows]) * 4.0 + 2
    there = here + flow[4][:, rows, columns].T / 4
    apart = np.linalg.norm(hits(5, here) - hits(1, there), axis=1)
    assert len(rows) > 100 and np.isfinite(apart).mean() > 0.9
    # What has turned into view borrows its picture; the rest is found to a fraction of a pixel's width.
    assert 0.5 < (apart < 0.03).mean() < 0.95


def test_metaballs_that_melt_together_belong_to_the_limbs_that_carry_them(clean_scene):
    rig = make_armature("Rig", {"a": ((0, 0, 0), (0, 0, 1), ""), "b": ((0, 0, 1), (0, 0, 2), "a")})
    for name, bone in (("Ball", "a"), ("Ball.001", "b")):
        data = bpy.data.metaballs.new(name)
        data.resolution = data.render_resolution = 0.15
        element = data.elements.new()
        element.radius, element.co = 0.6, (0, -0.5, 0)
        ball = bpy.data.objects.new(name, data)
        clean_scene.collection.objects.link(ball)
        ball.parent, ball.parent_type, ball.parent_bone = rig, "BONE", bone
    bpy.context.view_layer.update()
    add_camera(target=(0, 0, 1), direction=(1, -1, 0.2), distance=6)
    clip = export([rig], num_frames=2, **SIZE)
    assert seen_limbs(clip) == seen_limbs(clip, clip.part_maps[1]) == {"a", "b"}
