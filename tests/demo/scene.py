"""The demo's stage: a meadow with hills and trees, a sun, a camera that pans along, and the creature or the user's rig in it."""

from __future__ import annotations

import math
import random
from pathlib import Path

import bpy
import numpy as np
from mathutils import Vector

from .creature import animate_walk, bind, build_fox, flesh_out

WIDTH, HEIGHT, FPS, FRAMES = 832, 480, 24, 81


class SceneError(Exception):
    """What is wrong with the rig file and what to do, in a sentence."""


def build_scene(rig_file: Path | None = None, action: str | None = None) -> bpy.types.Object:
    """Replace the open file by the demo's scene; returns the armature."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    scene = bpy.context.scene
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = (
        WIDTH,
        HEIGHT,
        100,
    )
    scene.render.fps, scene.render.fps_base = FPS, 1.0
    scene.frame_start, scene.frame_end = 1, FRAMES
    if rig_file:
        rig = import_rig(rig_file, action)
    else:
        creature = build_fox()
        rig = creature.rig
        animate_walk(rig, FRAMES)
    boxes = _boxes(rig)
    low, high = Vector(boxes[:, 0].min(0)), Vector(boxes[:, 1].max(0))
    _light()
    _landscape(low, high)
    _camera(boxes)
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 16, True
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(scene.frame_start)
    bpy.context.view_layer.objects.active = rig
    for item in bpy.context.selected_objects:
        item.select_set(False)
    rig.select_set(True)
    return rig


def import_rig(path: Path, action: str | None) -> bpy.types.Object:
    """Bring in a rig of any of the usual formats; the scene's range becomes that of its action."""
    loaders = {
        ".glb": lambda: bpy.ops.import_scene.gltf(filepath=str(path)),
        ".gltf": lambda: bpy.ops.import_scene.gltf(filepath=str(path)),
        ".fbx": lambda: bpy.ops.import_scene.fbx(filepath=str(path)),
        ".bvh": lambda: bpy.ops.import_anim.bvh(
            filepath=str(path), update_scene_fps=False, global_scale=0.01
        ),
        ".blend": lambda: _append(path),
    }
    if not path.is_file():
        raise SceneError(f"There is no file {path}; name an existing .glb, .gltf, .fbx, .blend or .bvh.")
    if path.suffix.lower() not in loaders:
        raise SceneError(
            f"{path.name} is of a kind that can't be imported; choose a .glb, .gltf, .fbx, .blend or .bvh."
        )
    loaders[path.suffix.lower()]()
    rigs = [item for item in bpy.context.scene.objects if item.type == "ARMATURE"]
    if not rigs:
        raise SceneError(f"{path.name} holds no armature; choose a file with a rig in it.")
    rig = max(rigs, key=lambda item: len(item.data.bones))
    _play(rig, path, action)
    if not _bodies(rig):
        height = max((rig.matrix_world @ bone.head_local).z for bone in rig.data.bones) or 1.0
        bones = [
            (bone.head_local.copy(), bone.tail_local.copy()) for bone in rig.data.bones if bone.length > 1e-4
        ]
        radius = 0.035 * height / (rig.matrix_world.median_scale or 1.0)
        body = flesh_out(
            ((head, tail, radius, radius * 0.8) for head, tail in bones), voxel=radius / 2, name="Body"
        )
        bind(body, rig)
        body.matrix_parent_inverse.identity()
    return rig


def _append(path: Path) -> None:
    """Bring in the file's rigs and what they deform; control shapes and other people's stages stay out."""
    with bpy.data.libraries.load(str(path)) as (source, target):
        target.objects = source.objects
    rigs = {item for item in target.objects if item is not None and item.type == "ARMATURE"}
    for item in target.objects:
        if item in rigs or (
            item is not None and item.type == "MESH" and rigs & {item.parent, item.find_armature()}
        ):
            bpy.context.scene.collection.objects.link(item)


def _play(rig: bpy.types.Object, path: Path, name: str | None) -> None:
    actions = [item for item in bpy.data.actions if item.users or item.use_fake_user] or list(
        bpy.data.actions
    )
    if name:
        matching = [item for item in actions if item.name.lower().startswith(name.lower())]
        if not matching:
            found = ", ".join(item.name for item in actions) or "none"
            raise SceneError(f"{path.name} has no action named {name}; it has {found}.")
        rig.animation_data_create()
        for track in list(rig.animation_data.nla_tracks):
            rig.animation_data.nla_tracks.remove(track)
        rig.animation_data.action = matching[0]
        if getattr(rig.animation_data, "action_suitable_slots", None):
            rig.animation_data.action_slot = rig.animation_data.action_suitable_slots[0]
    playing = rig.animation_data and rig.animation_data.action
    if playing:
        first, last = playing.frame_range
        scene = bpy.context.scene
        scene.frame_start = math.floor(first)
        scene.frame_end = min(math.ceil(last), scene.frame_start + FRAMES - 1)


def _bodies(rig: bpy.types.Object) -> list[bpy.types.Object]:
    scene = bpy.context.scene
    return [
        item
        for item in scene.objects
        if item.type == "MESH" and any(m.type == "ARMATURE" and m.object == rig for m in item.modifiers)
    ]


def _boxes(rig: bpy.types.Object) -> np.ndarray:
    """[9, 2, 3]: the corners of the box around the skinned meshes, at nine frames over the scene's range."""
    scene = bpy.context.scene
    boxes = []
    for frame in np.linspace(scene.frame_start, scene.frame_end, 9).round().astype(int):
        scene.frame_set(int(frame))
        depsgraph = bpy.context.evaluated_depsgraph_get()
        clouds = []
        for body in _bodies(rig):
            evaluated = body.evaluated_get(depsgraph)
            points = np.empty(len(evaluated.data.vertices) * 3, np.float32)
            evaluated.data.vertices.foreach_get("co", points)
            matrix = np.array(evaluated.matrix_world)
            clouds.append(points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3])
        cloud = np.concatenate(clouds)
        boxes.append((cloud.min(0), cloud.max(0)))
    return np.array(boxes)


def _light() -> None:
    world = bpy.data.worlds.new("Sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.50, 0.66, 0.90, 1)
    background.inputs["Strength"].default_value = 0.75
    sun = bpy.data.lights.new("Sun", "SUN")
    sun.energy, sun.angle, sun.color = 3.6, 0.02, (1.0, 0.91, 0.78)
    item = bpy.data.objects.new("Sun", sun)
    item.rotation_euler = (math.radians(52), 0, math.radians(-60))
    bpy.context.scene.collection.objects.link(item)


def _landscape(low: Vector, high: Vector) -> None:
    """Meadow, hills and trees, scaled to the subject and kept behind it as the camera sees it."""
    size = max(high - low)
    centre = (low + high) / 2
    shuffle = random.Random(7)
    grass = _material("Grass", (0.15, 0.22, 0.045), (0.34, 0.36, 0.09), 26 / size)
    bpy.ops.mesh.primitive_grid_add(
        size=60 * size, x_subdivisions=2, y_subdivisions=2, location=(centre.x, centre.y, low.z)
    )
    bpy.context.object.data.materials.append(grass)
    hills = _material("Hills", (0.11, 0.17, 0.08), (0.2, 0.25, 0.12), 0.6 / size)
    for x, y, radius in ((14, -9, 7), (17, 4, 9), (15, 15, 6)):
        bpy.ops.mesh.primitive_uv_sphere_add(
            radius=radius * size,
            segments=48,
            ring_count=24,
            location=(centre.x + x * size, centre.y + y * size, low.z - 0.72 * radius * size),
        )
        bpy.ops.object.shade_smooth()
        bpy.context.object.data.materials.append(hills)
    leaves = _material("Leaves", (0.03, 0.09, 0.035), (0.07, 0.16, 0.05), 14 / size)
    bark = _material("Bark", (0.09, 0.05, 0.03), (0.15, 0.09, 0.05), 20 / size)
    for _ in range(16):
        tall = shuffle.uniform(1.4, 2.4) * size
        place = Vector(
            (centre.x + shuffle.uniform(3.0, 9) * size, centre.y + shuffle.uniform(-9, 9) * size, low.z)
        )
        _tree(place, tall, leaves, bark)
    stone = _material("Stone", (0.2, 0.19, 0.18), (0.36, 0.34, 0.31), 9 / size)
    for _ in range(12):
        radius = shuffle.uniform(0.03, 0.12) * size
        place = (centre.x + shuffle.uniform(0.9, 3) * size, centre.y + shuffle.uniform(-3, 3) * size, low.z)
        bpy.ops.mesh.primitive_ico_sphere_add(radius=radius, subdivisions=3, location=place)
        rock = bpy.context.object
        rock.scale = (1, shuffle.uniform(0.7, 1.3), shuffle.uniform(0.5, 0.8))
        for vertex in rock.data.vertices:
            vertex.co *= shuffle.uniform(0.93, 1.05)
        rock.data.materials.append(stone)


def _tree(place: Vector, tall: float, leaves, bark) -> None:
    bpy.ops.mesh.primitive_cylinder_add(
        radius=tall * 0.035, depth=tall * 0.4, location=place + Vector((0, 0, tall * 0.2))
    )
    bpy.context.object.data.materials.append(bark)
    for level in range(4):
        radius, height = tall * (0.24 - 0.05 * level), tall * 0.34
        bpy.ops.mesh.primitive_cone_add(
            radius1=radius,
            depth=height,
            vertices=22,
            location=place + Vector((0, 0, tall * (0.42 + 0.17 * level))),
        )
        bpy.ops.object.shade_smooth()
        bpy.context.object.data.materials.append(leaves)


def _material(name: str, dark, light, scale: float) -> bpy.types.Material:
    """Two colours mottled by noise; `scale` in spots per metre."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    principled.inputs["Roughness"].default_value = 0.9
    coordinates, noise, ramp = (
        nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "TexNoise", "ValToRGB")
    )
    geometry = nodes.new("ShaderNodeNewGeometry")
    nodes.remove(coordinates)
    noise.inputs["Scale"].default_value, noise.inputs["Detail"].default_value = scale, 6
    links.new(geometry.outputs["Position"], noise.inputs["Vector"])
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.35, 0.68
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*dark, 1), (*light, 1)
    links.new(noise.outputs[0], ramp.inputs[0])
    links.new(ramp.outputs[0], principled.inputs["Base Color"])
    return material


def _camera(boxes: np.ndarray) -> None:
    """From the subject's left and a little ahead of it, panning along with a third of its way, wide enough for all of it."""
    scene = bpy.context.scene
    centres, size = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]).max(0)
    targets = 0.7 * centres.mean(0) + 0.3 * np.linspace(centres[0], centres[-1], len(centres))
    stray = np.abs(centres - targets).max(0)
    across = max(size[1] + 0.5 * size[0] + 2 * stray[1], size[2] * 1.35 * WIDTH / HEIGHT)
    camera = bpy.data.cameras.new("Camera")
    camera.lens, camera.clip_start, camera.clip_end = 40, 0.01 * across, 100 * across
    distance = across * 1.35 * camera.lens / camera.sensor_width + size[0] / 2
    item = bpy.data.objects.new("Camera", camera)
    scene.collection.objects.link(item)
    scene.camera = item
    item.location = Vector(targets.mean(0)) + Vector((-distance, -0.34 * distance, 0.16 * distance))
    item.rotation_mode = "QUATERNION"
    for frame, target in ((scene.frame_start, targets[0]), (scene.frame_end, targets[-1])):
        item.rotation_quaternion = (Vector(target) - item.location).to_track_quat("-Z", "Y")
        item.keyframe_insert("rotation_quaternion", frame=frame)
