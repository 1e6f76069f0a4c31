"""The background's movement in the picture, read off the scene."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from mathutils import Vector

from tests.addon.rigs import LEGGED, add_camera, export, flesh, make_armature
from tests.addon.servers import module


@pytest.fixture
def rig(clean_scene):
    rig = make_armature("Rig", LEGGED)
    flesh(rig)
    return rig


def animate(owner, path, *values):
    for frame, value in enumerate(values, start=1):
        setattr(owner, path, value)
        owner.keyframe_insert(path, frame=frame)


def project(points):
    """Pixels of world points through the camera at the current frame, in the exporter's default clip."""
    view = module("view").SceneCamera()
    scene = bpy.context.scene
    fit = module("view").fit(*view.frame_size(scene), 256, 160)
    lens = view.lens(scene, bpy.context.evaluated_depsgraph_get())
    return module("view.projection").Projector([lens], fit).project(np.array(points, float)[None])[0, :, :2]


def assert_moves_as(motion, points, near=0.01):
    """Whether the homographies take the first frame's pixels of these points to those of every frame."""
    scene = bpy.context.scene
    scene.frame_set(1)
    first = project(points)
    for frame, homography in enumerate(motion.astype(float)):
        scene.frame_set(1 + frame)
        moved = np.column_stack([first, np.ones(len(first))]) @ homography.T
        assert moved[:, :2] / moved[:, 2:] == pytest.approx(project(points), abs=near)


def test_a_still_camera_has_no_motion(clean_scene, rig):
    add_camera()
    assert export([rig]).camera_motion is None


def test_turning_and_zooming_is_exact_at_every_distance(clean_scene, rig):
    camera = add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=8)
    x, y, z = camera.rotation_euler
    animate(camera, "rotation_euler", (x, y, z), (x + 0.05, y, z + 0.1), (x - 0.05, y + 0.1, z + 0.2))
    animate(camera.data, "lens", 35.0, 42.0, 50.0)
    motion = export([rig]).camera_motion
    assert motion.shape == (3, 3, 3) and motion.dtype == np.float32
    assert motion[0] == pytest.approx(np.eye(3), abs=1e-5)
    assert_moves_as(motion, [(0, 0, 1), (1, 40, 2), (-0.5, -4, 1)])


def test_travelling_past_a_wall_is_exact_on_the_wall(clean_scene, rig):
    bpy.ops.mesh.primitive_plane_add(size=200, location=(0, 5, 0), rotation=(1.5708, 0, 0))
    camera = add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=8)
    animate(camera, "location", (0, -8, 1), (0.5, -7, 1), (1, -6, 1.3))
    motion = export([rig]).camera_motion
    assert_moves_as(motion, [(-2, 5, 0), (2, 5, 0), (3, 5, 3), (-1, 5, 2)], near=0.05)


def test_the_subject_does_not_count_as_background(clean_scene, rig):
    # It fills the middle of the picture, far in front of the wall.
    rig.scale = (8, 1, 3)
    test_travelling_past_a_wall_is_exact_on_the_wall(clean_scene, rig)


def test_travelling_before_an_empty_world_moves_nothing(clean_scene, rig):
    camera = add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=8)
    animate(camera, "location", (0, -8, 1), (0.5, -8, 1), (1, -7, 1))
    motion = export([rig]).camera_motion
    assert motion == pytest.approx(np.stack([np.eye(3)] * 3), abs=1e-3)


def test_an_orthographic_camera_pans(clean_scene, rig):
    bpy.ops.mesh.primitive_plane_add(size=3, location=(0, 5, 0), rotation=(1.5708, 0, 0))
    camera = add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=8, type="ORTHO", ortho_scale=5)
    animate(camera, "location", (0, -8, 1), (0.5, -8, 1), (1, -8, 1.2))
    motion = export([rig]).camera_motion
    assert_moves_as(motion, [(0, 0, 1), (1, 40, 2), (-0.5, -4, 1)])


def test_a_backdrop_moves_one_moment_at_a_time_as_over_a_clip(clean_scene, rig):
    """The camera turns, zooms and travels before a wall."""
    camera = add_camera(target=(0, 0, 1), direction=(0, -1, 0), distance=8)
    bpy.ops.mesh.primitive_plane_add(size=60, location=(0, 6, 0), rotation=(np.pi / 2, 0, 0))
    x, y, z = camera.rotation_euler
    animate(camera, "rotation_euler", (x, y, z), (x + 0.05, y, z + 0.1), (x, y, z))
    animate(camera, "location", camera.location[:], camera.location[:], (1, -7, 1.5))
    clip = export([rig])
    scene, view = bpy.context.scene, module("view").SceneCamera()
    backdrop = module("view.motion").Backdrop(clip.projector.lenses[0], clip.projector.fit)
    for frame, wanted in enumerate(clip.camera_motion, start=1):
        scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        found = backdrop.motion(view.lens(scene, depsgraph), scene, depsgraph, lambda obj: False)
        if frame == 1:
            assert found is None
        else:
            assert found == pytest.approx(wanted, abs=0.05 * frame)


@pytest.mark.parametrize("instanced", [False, True])
def test_rays_meet_what_a_ray_through_the_whole_scene_meets(clean_scene, instanced):
    """But for the subject, which they pass."""
    random = np.random.default_rng(4)
    for index in range(12):
        bpy.ops.mesh.primitive_monkey_add(location=random.uniform(-3, 3, 3), rotation=random.uniform(0, 6, 3))
        bpy.context.object.scale = random.uniform(0.2, 1.5, 3) * (-1 if index % 2 else 1)
    bpy.ops.mesh.primitive_plane_add(size=20, location=(0, 0, -4))
    bpy.ops.mesh.primitive_cube_add(size=0, location=(0, 0, 0))  # a box without an extent
    if instanced:
        collection = bpy.data.collections.new("instanced")
        collection.objects.link(bpy.data.objects.new("copy", bpy.data.meshes["Suzanne"]))
        instancer = bpy.data.objects.new("instancer", None)
        instancer.instance_type, instancer.instance_collection = "COLLECTION", collection
        instancer.location, instancer.scale = (1.5, 0, 1.5), (2, 2, 2)
        clean_scene.collection.objects.link(instancer)
    subject = bpy.data.objects["Suzanne.003"]
    subject.location = (0, 0, 0)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    starts = random.uniform(-6, 6, (200, 3))
    ways = np.where(np.arange(200)[:, None] % 4, -starts, (0.0, 0.0, -1.0))  # some along an axis
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)

    def told(of_subject):
        rays = module("view.rays").cast_rays
        hits = rays(clean_scene, depsgraph, starts, ways, of_subject)
        return [None if hit is None else (hit.obj.name, hit.face, *hit.place) for hit in hits]

    found = told(lambda obj: False)
    for start, way, one in zip(starts, ways, found, strict=True):
        hit, place, _, face, obj, _ = clean_scene.ray_cast(depsgraph, start, Vector(way))
        assert (one is not None) == hit
        if hit:
            assert one[:2] == (obj.name, face) and one[2:] == pytest.approx(tuple(place), abs=1e-4)
    assert any(one and one[0] == subject.name for one in found)
    passed = told(lambda obj: obj.original == subject)
    assert passed != found and not any(one and one[0] == subject.name for one in passed)
    if instanced:
        assert any(one and one[0] == "copy" for one in found)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_rays_pass_a_subject_on_the_ground_in_a_scene_of_any_size(clean_scene, scale):
    for name, height in (("subject", 0.0), ("ground", -0.01)):
        bpy.ops.mesh.primitive_plane_add(size=2 * scale, location=(0, 0, height * scale))
        bpy.context.object.name = name
    bpy.ops.mesh.primitive_cube_add(size=0.1 * scale, location=(5 * scale, 0, 0))
    bpy.context.object.instance_type = "VERTS"  # so that rays go through the scene as a whole
    small = bpy.data.objects.new("small", bpy.data.meshes["Cube"])
    small.parent = bpy.context.object
    clean_scene.collection.objects.link(small)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    starts, ways = np.array([[0.1, 0.2, 1.0]]) * scale, np.array([[0.0, 0.0, -1.0]])
    [hit] = module("view.rays").cast_rays(
        clean_scene, depsgraph, starts, ways, lambda obj: obj.name == "subject"
    )
    assert hit.obj.name == "ground"
