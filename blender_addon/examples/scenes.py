"""A stage for a creature or any rig: a meadow with hills and trees, a sun, and a camera that pans along."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import bmesh
import bpy
import numpy as np
from mathutils import Matrix, Vector

from ..errors import ExportError
from ..ground_truth.shapes import ShapeReader
from ..ground_truth.visibility import as_rendered
from ..texts import say
from .backgrounds import View, build_background
from .creatures import animate_walk, build_fox
from .occluders import hide_a_part
from .props import add, material, tree
from .rig_files import bodies_of

WIDTH, HEIGHT, FPS, FRAMES = 832, 480, 24, 81
MARGIN = 0.04
"""The part of the picture, from its middle to an edge, that stays free around the subject."""
WAY = 3.0
"""A camera goes along with a subject that moves more than this many times its own size."""
SHORT_WAY = 1.2
"""The same in training scenes, where a subject that is seen large teaches more."""
PAN = 0.3
"""The part of a shorter way that it pans along."""
MOVES = {
    "follow": "the camera goes along",
    "pan": "the camera pans along",
    "still": "the camera stands still",
    "truck": "the camera moves sideways",
    "push": "the camera comes closer",
}
"""What a camera does, as a prompt says it."""
HIDDEN = 0.25
"""The share of the training scenes in which something hides a part of the subject."""
GLANCES = 9
"""Frames at which a subject is looked at that does not go far."""
PROMPT = "A red fox walks through a sunlit meadow, firs and hills behind it, the camera follows gently."


def example_shot(context: bpy.types.Context, seed: int = 0) -> bpy.types.Object:
    """Fill the context's scene, which should be empty, with a fox that walks through a meadow; returns its
    rig. The same seed gives the same scene."""
    for _ in example_steps(context, seed):
        pass
    return context.view_layer.objects.active


def example_steps(context: bpy.types.Context, seed: int = 0) -> Iterator[tuple[float, str]]:
    """Do what `example_shot` does step by step: how far it is, from 0 to 1, and what it is about to do."""
    yield 0.05, say("Building the fox's rig")
    set_format(context.scene)
    rig = build_fox(context, seed).rig
    yield 0.8, say("Making it walk")
    animate_walk(rig, FRAMES, seed)
    yield 0.9, say("Building its meadow")
    stage(context, rig, seed)


def set_format(scene: bpy.types.Scene) -> None:
    """The size, rate and range that the released model likes."""
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = WIDTH, HEIGHT, 100
    render.fps, render.fps_base = FPS, 1.0
    scene.frame_start, scene.frame_end = 1, FRAMES


def stage(context: bpy.types.Context, rig: bpy.types.Object, seed: int = 0) -> None:
    """Put sun, landscape and camera around a rig with a mesh, to its scale and for all of the scene's
    range, and leave the rig selected."""
    scene = context.scene
    boxes, turn = _measure(context, rig, WAY)
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    shuffle = random.Random(f"stage {seed}")
    _light(scene, shuffle if seed else None)
    _landscape(scene, Vector(low), Vector(high), turn, random.Random(seed + 7))
    _camera(scene, boxes, turn, "follow" if _goes_far(boxes, WAY) else "pan", shuffle if seed else None)
    _ready(context, rig)


def stage_by_seed(
    context: bpy.types.Context, rig: bpy.types.Object, seed: int, home: str = "land", still: bool = False
) -> str:
    """Put one of many backgrounds, its light, sometimes a thing in front, and a camera around a rig.

    Args:
        home: where such a subject lives: "land", "water", "air" or "indoors".
        still: it stays where it is.

    Returns:
        what is seen besides the subject, as the rest of a prompt: " through a desert, rocks ...".
    """
    scene, shuffle = context.scene, random.Random(f"scenery {seed}")
    boxes, turn = _measure(context, rig, SHORT_WAY)
    move = "follow" if _goes_far(boxes, SHORT_WAY) else shuffle.choice(("still", "pan", "truck", "push"))
    _camera(scene, boxes, turn, move, shuffle)
    view = View.of(scene, boxes, np.array(turn))
    where = build_background(scene, view, shuffle, home, still)
    in_front = hide_a_part(scene, view, bodies_of(scene, rig), shuffle) if shuffle.random() < HIDDEN else ""
    _ready(context, rig)
    return f" {where}{in_front and ', '}{in_front}, {MOVES[move]}."


def _measure(context: bpy.types.Context, rig: bpy.types.Object, way: float) -> tuple[np.ndarray, Matrix]:
    """The boxes around the subject, of each frame where it goes far, and how the camera's view is turned."""
    scene = context.scene
    with as_rendered(context.view_layer):
        boxes = _boxes(context, rig, GLANCES)
        if _goes_far(boxes, way):
            boxes = _boxes(context, rig, scene.frame_end - scene.frame_start + 1)
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    # What is longer than wide, its way included, is seen from the side, what is wider from the front.
    return boxes, Matrix.Rotation(math.pi / 2 if (high - low)[0] > (high - low)[1] else 0, 3, "Z")


def _ready(context: bpy.types.Context, rig: bpy.types.Object) -> None:
    """Set how it is rendered, and leave the rig selected in the first frame."""
    scene = context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 16, True
    scene.view_settings.view_transform = "Standard"
    scene.frame_set(scene.frame_start)
    for item in context.selected_objects:
        item.select_set(False)
    context.view_layer.objects.active = rig
    rig.select_set(True)


def _boxes(context: bpy.types.Context, rig: bpy.types.Object, count: int) -> np.ndarray:
    """[count, 2, 3]: the corners of the box around the skinned meshes, at frames over the scene's range."""
    scene = context.scene
    boxes, shapes = [], ShapeReader()
    for frame in np.linspace(scene.frame_start, scene.frame_end, count).round().astype(int):
        scene.frame_set(int(frame))
        depsgraph = context.evaluated_depsgraph_get()
        clouds = []
        for body in bodies_of(scene, rig):
            shape = shapes.read(body, depsgraph)
            clouds.append(shape.points @ shape.world[:3, :3].T + shape.world[:3, 3])
        cloud = np.concatenate(clouds)
        if not len(cloud):
            raise ExportError(
                say(
                    "Nothing of {rig} can be seen in frame {frame}; choose another file.",
                    rig=rig.name,
                    frame=frame,
                )
            )
        boxes.append((cloud.min(0), cloud.max(0)))
    return np.array(boxes)


def _light(scene: bpy.types.Scene, shuffle: random.Random | None) -> None:
    world = bpy.data.worlds.new("Sky")
    scene.world = world
    if world.node_tree is None:  # it always has one from Blender 5.0 on
        world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (0.50, 0.66, 0.90, 1)
    background.inputs["Strength"].default_value = 0.75
    sun = bpy.data.lights.new("Sun", "SUN")
    sun.energy, sun.angle, sun.color = 3.6, 0.02, (1.0, 0.91, 0.78)
    height, direction = 52.0, -60.0
    if shuffle:
        height, direction = shuffle.uniform(25, 70), shuffle.uniform(-160, -20)
        sun.energy = shuffle.uniform(2.0, 4.5)
        background.inputs["Strength"].default_value = shuffle.uniform(0.5, 1.0)
    item = bpy.data.objects.new("Sun", sun)
    item.rotation_euler = (math.radians(height), 0, math.radians(direction))
    scene.collection.objects.link(item)


def _landscape(
    scene: bpy.types.Scene, low: Vector, high: Vector, turn: Matrix, shuffle: random.Random
) -> None:
    """Meadow, hills and trees, scaled to the subject and kept behind it as the camera sees it, which is
    turned about the subject."""
    size = max(high - low)
    centre = (low + high) / 2

    def behind(x: float, y: float, z: float = 0.0) -> Vector:
        return Vector((centre.x, centre.y, low.z)) + turn @ Vector((x, y, z))

    grass = material("Grass", (0.15, 0.22, 0.045), (0.34, 0.36, 0.09), 26 / size)
    meadow = add(
        scene,
        "Meadow",
        lambda mesh: bmesh.ops.create_grid(mesh, x_segments=2, y_segments=2, size=30 * size),
        grass,
    )
    meadow.location = (centre.x, centre.y, low.z)
    hills = material("Hills", (0.11, 0.17, 0.08), (0.2, 0.25, 0.12), 0.6 / size)
    for x, y, radius in ((14, -9, 7), (17, 4, 9), (15, 15, 6)):
        hill = add(
            scene,
            "Hill",
            lambda mesh, r=radius * size: bmesh.ops.create_uvsphere(
                mesh, u_segments=48, v_segments=24, radius=r
            ),
            hills,
            smooth=True,
        )
        hill.location = behind(x * size, y * size, -0.72 * radius * size)
    leaves = material("Leaves", (0.03, 0.09, 0.035), (0.07, 0.16, 0.05), 14 / size)
    bark = material("Bark", (0.09, 0.05, 0.03), (0.15, 0.09, 0.05), 20 / size)
    for _ in range(16):
        tall = shuffle.uniform(1.4, 2.4) * size
        place = behind(shuffle.uniform(3.0, 9) * size, shuffle.uniform(-9, 9) * size)
        tree(scene, place, tall, leaves, bark)
    stone = material("Stone", (0.2, 0.19, 0.18), (0.36, 0.34, 0.31), 9 / size)
    for _ in range(12):
        radius = shuffle.uniform(0.03, 0.12) * size
        place = behind(shuffle.uniform(0.9, 3) * size, shuffle.uniform(-3, 3) * size)
        rock = add(
            scene,
            "Rock",
            lambda mesh, r=radius: bmesh.ops.create_icosphere(mesh, subdivisions=3, radius=r),
            stone,
        )
        rock.location, rock.scale = place, (1, shuffle.uniform(0.7, 1.3), shuffle.uniform(0.5, 0.8))
        for vertex in rock.data.vertices:
            vertex.co *= shuffle.uniform(0.93, 1.05)


def _goes_far(boxes: np.ndarray, way: float) -> bool:
    return bool(np.ptp(boxes.mean(1), axis=0).max() > way * (boxes[:, 1] - boxes[:, 0]).max())


def _camera(
    scene: bpy.types.Scene,
    boxes: np.ndarray,
    turn: Matrix,
    move: str,
    shuffle: random.Random | None,
) -> None:
    """Beside the subject and a little ahead of it, wide enough for all of it; `move` is one of `MOVES`."""
    boxes = np.sort(boxes @ np.array(turn), axis=1)  # as seen by a camera that looks along x
    centres, size = boxes.mean(1), (boxes[:, 1] - boxes[:, 0]).max(0)
    goes_along = move == "follow"
    if goes_along:
        targets = _smooth(centres)
    elif move in ("still", "push"):
        targets = np.repeat(centres.mean(0)[None], len(centres), axis=0)
    else:
        targets = (1 - PAN) * centres.mean(0) + PAN * np.linspace(centres[0], centres[-1], len(centres))
    stray = np.abs(centres - targets).max(0)
    across = max(size[1] + 0.5 * size[0] + 2 * stray[1], size[2] * 1.35 * WIDTH / HEIGHT)
    camera = bpy.data.cameras.new("Camera")
    camera.lens, camera.clip_start, camera.clip_end = 40, 0.01 * across, 100 * across
    ahead, above = 0.34, 0.16
    if shuffle:
        camera.lens, ahead, above = (
            shuffle.uniform(28, 70),
            shuffle.uniform(-0.6, 0.6),
            shuffle.uniform(0.05, 0.35),
        )
    distance = across * 1.35 * camera.lens / camera.sensor_width + size[0] / 2
    away = np.array([-1.0, -ahead, above])
    stands = targets if goes_along else np.repeat(targets.mean(0)[None], len(targets), axis=0)
    # How far it is, and how far aside, as fractions of the distance.
    share, aside = np.ones((len(targets), 1)), np.zeros((len(targets), 3))
    if move == "push":
        share = np.linspace(1.35, 1, len(targets))[:, None]
    elif move == "truck":
        aside[:, 1] = np.linspace(-0.25, 0.25, len(targets)) * shuffle.choice((-1, 1))
    while not _all_in_view(boxes, targets, stands + (away * share + aside) * distance, camera):
        distance *= 1.05
    camera.clip_end = max(camera.clip_end, 10 * distance)
    item = bpy.data.objects.new("Camera", camera)
    scene.collection.objects.link(item)
    scene.camera = item
    item.rotation_mode = "QUATERNION"
    frames = np.linspace(scene.frame_start, scene.frame_end, len(targets)).round().astype(int)
    travels = move in ("follow", "truck", "push")
    for index in range(len(frames)) if travels else (0, -1):
        item.location = turn @ Vector(stands[index] + (away * share[index] + aside[index]) * distance)
        item.rotation_quaternion = (turn @ Vector(targets[index]) - item.location).to_track_quat("-Z", "Y")
        for channel in ("location", "rotation_quaternion") if travels else ("rotation_quaternion",):
            item.keyframe_insert(channel, frame=int(frames[index]))


def _smooth(path: np.ndarray) -> np.ndarray:
    """A path [n, 3] as the mean over a quarter of it around each point, so that a camera on it goes
    evenly."""
    reach = len(path) // 8
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([padded[i : i + 2 * reach + 1].mean(0) for i in range(len(path))])


def _all_in_view(
    boxes: np.ndarray, targets: np.ndarray, places: np.ndarray, camera: bpy.types.Camera
) -> bool:
    """Whether the boxes [n, 2, 3] are within a camera's picture, with a margin, while it looks from the
    places [n, 3] at the targets [n, 3] one after the other."""
    half = camera.sensor_width / 2 / camera.lens * (1 - MARGIN)
    for (low, high), target, place in zip(boxes, targets, places):
        corners = np.stack(np.meshgrid(*np.stack([low, high], axis=1)), axis=-1).reshape(-1, 3) - place
        turn = np.array((Vector(target) - Vector(place)).to_track_quat("-Z", "Y").to_matrix())
        x, y, z = (corners @ turn).T
        if (z >= 0).any() or (np.abs(x) > half * -z).any() or (np.abs(y) > half * HEIGHT / WIDTH * -z).any():
            return False
    return True
