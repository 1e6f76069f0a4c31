"""Hair, drawn strokes and clouds of points as triangles: they are rendered, but have no faces."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np
from mathutils import Matrix
from mathutils.geometry import tessellate_polygon

STRAND_TYPES = frozenset({"CURVES", "GREASEPENCIL", "GPENCIL", "POINTCLOUD"})
"""Types of objects that are read here; grease pencil is `GPENCIL` before Blender 4.3."""
MOST = 500
"""Hairs, and points of a cloud, that are looked at: enough to tell where the whole is."""
THIN = 1 / 150
"""Nothing is thinner than this fraction of the whole, so that a coarse grid shows it, too."""
PLAIN_RADIUS = 0.01
"""Of points without a radius of their own."""
PLAIN_HAIR = 0.005
"""Of hairs without one, as Cycles has it."""
PIXEL = 1 / 2000
"""Scene units of half a stroke's thickness in pixels, before Blender 4.3."""
SIDES = 3
"""Of a tube around a strand."""
ROUND = np.pi / (SIDES * np.sin(np.pi / SIDES))
"""A tube of so many sides is, by the mean over its turns, as wide as a round one that is thinner by this."""

Strand = tuple[np.ndarray, np.ndarray, bool]
"""Points [n, 3] one after the other, their radii [n], and whether the area that they enclose is filled."""


def read_strands(evaluated: bpy.types.Object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an evaluated object of one of the `STRAND_TYPES` shows, in its own space, as `thicken` has it."""
    readers = {"CURVES": _curves, "GREASEPENCIL": _drawings, "GPENCIL": _strokes, "POINTCLOUD": _cloud}
    return thicken(list(readers[evaluated.type](evaluated)), rooted=evaluated.type == "CURVES")


def has_hair(obj: bpy.types.Object) -> bool:
    """Whether particles of an object are rendered as hairs."""
    return any(_is_hair(system.settings) for system in obj.particle_systems)


def read_hair(evaluated: bpy.types.Object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The particle hair of an evaluated object, in world space, as `thicken` gives it."""
    return thicken(list(_hairs(evaluated)), rooted=True)


def thicken(strands: list[Strand], rooted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [V, 3] and triangles [T, 3] of tubes along strands, and [V] the point that each belongs to: of
    `rooted` strands one where they begin."""
    strands = [strand for strand in strands if len(strand[0])]
    if not strands:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.int64)
    points = np.concatenate([points for points, _, _ in strands]).astype(np.float64)
    radii = np.concatenate([radii for _, radii, _ in strands]).astype(np.float64)
    counts = np.array([len(points) for points, _, _ in strands])
    begins = np.cumsum(counts) - counts
    radii = np.maximum(radii, THIN * np.linalg.norm(np.ptp(points, axis=0)))

    last = np.zeros(len(points), bool)
    last[begins + counts - 1] = True
    begun = np.flatnonzero(~last)
    along = np.zeros_like(points)
    along[begun] += points[begun + 1] - points[begun]
    along[begun + 1] += points[begun + 1] - points[begun]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    side = np.cross(along, np.where(np.abs(along[:, 2:]) < 0.9, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
    turns = np.arange(SIDES) * 2 * np.pi / SIDES
    around = np.cos(turns)[:, None] * side[:, None] + np.sin(turns)[:, None] * np.cross(along, side)[:, None]
    rings = points[:, None] + ROUND * radii[:, None, None] * around

    here = begun[:, None] * SIDES + np.arange(SIDES)
    onward = begun[:, None] * SIDES + np.roll(np.arange(SIDES), -1)
    quads = np.stack([here, onward, onward + SIDES, here, onward + SIDES, here + SIDES], axis=-1)
    filled = [
        np.array(tessellate_polygon([points.tolist()])).reshape(-1, 3) * SIDES + begin * SIDES
        for (points, _, fill), begin in zip(strands, begins)
        if fill
    ]
    triangles = np.concatenate([quads.reshape(-1, 3), *filled]).astype(np.int32)
    roots = np.repeat(begins, counts) if rooted else np.arange(len(points))
    return rings.reshape(-1, 3).astype(np.float32), triangles, np.repeat(roots * SIDES, SIDES)


def _chosen(count: int) -> np.ndarray:
    """Which of so many are looked at, evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int)) if count else np.zeros(0, int)


def _values(data: bpy.types.bpy_prop_collection, name: str, width: int = 1, dtype=np.float32) -> np.ndarray:
    values = np.empty(len(data) * width, dtype)
    data.foreach_get(name, values)
    return values.reshape(-1, width) if width > 1 else values


def _placed(attributes, count: int, plain: float = PLAIN_RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 3] and radii [n] of points, `plain` where they have none."""
    if not count:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    points = _values(attributes["position"].data, "vector", 3)
    radius = attributes.get("radius")
    return points, np.full(count, plain) if radius is None else _values(radius.data, "value")


def _curves(evaluated: bpy.types.Object) -> Iterator[Strand]:
    curves = evaluated.data
    points, radii = _placed(curves.attributes, len(curves.points), PLAIN_HAIR)
    offsets = _values(curves.curve_offset_data, "value", dtype=np.int32)
    for strand in _chosen(len(curves.curves)).tolist():
        part = slice(offsets[strand], offsets[strand + 1])
        yield points[part], radii[part], False


def _cloud(evaluated: bpy.types.Object) -> Iterator[Strand]:
    """Each point as a tube."""
    points, radii = _placed(evaluated.data.attributes, len(evaluated.data.points))
    for point in _chosen(len(points)).tolist():
        yield from _dot(points[point], radii[point])


def _dot(point: np.ndarray, radius: float) -> Iterator[Strand]:
    """A tube that takes as much of the picture as a ball does."""
    yield point + np.array([[0, 0, -1], [0, 0, 1]]) * radius * np.pi / 4, np.full(2, radius), False


def _hairs(evaluated: bpy.types.Object) -> Iterator[Strand]:
    for system in evaluated.particle_systems:
        settings = system.settings
        if _is_hair(settings):
            steps = range(2**settings.display_step + 1)
            for hair in _chosen(len(system.particles) + len(system.child_particles)).tolist():
                points = [system.co_hair(evaluated, particle_no=hair, step=step) for step in steps]
                yield np.array(points, np.float32), _tapered(settings, len(points)), False


def _tapered(settings: bpy.types.ParticleSettings, count: int) -> np.ndarray:
    """[count] radii of a hair from its root to its tip; Cycles takes what the settings say for diameters."""
    left = np.linspace(1, 0, count)
    left **= 1 + settings.shape if settings.shape < 0 else 1 / max(1 - settings.shape, 1e-6)
    radii = settings.tip_radius + left * (settings.root_radius - settings.tip_radius)
    if settings.use_close_tip:
        radii[-1] = 0
    return radii * settings.radius_scale / 2


def _is_hair(settings: bpy.types.ParticleSettings) -> bool:
    return settings.type == "HAIR" and settings.render_type == "PATH"


def _materials(evaluated: bpy.types.Object) -> list[tuple[bool, bool]]:
    """Of each material slot, whether strokes and fills are shown."""
    found = []
    for slot in evaluated.material_slots:
        style = slot.material and slot.material.grease_pencil
        found.append((style.show_stroke, style.show_fill) if style else (True, False))
    return found or [(True, False)]


def _drawings(evaluated: bpy.types.Object) -> Iterator[Strand]:
    """Grease pencil from Blender 4.3 on."""
    materials = _materials(evaluated)
    for layer in evaluated.data.layers:
        frame = layer.current_frame()
        if frame is None or layer.hide or not len(frame.drawing.curve_offsets):
            continue
        attributes = frame.drawing.attributes
        offsets = _values(frame.drawing.curve_offsets, "value", dtype=np.int32)
        points, radii = _placed(attributes, int(offsets[-1]))
        slots = attributes.get("material_index")
        slots = (
            np.zeros(len(offsets) - 1, int) if slots is None else _values(slots.data, "value", 1, np.int32)
        )
        matrix = np.array(_layer_matrix(layer, evaluated))
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
        for begin, end, slot in zip(offsets[:-1], offsets[1:], slots):
            yield from _drawn(points[begin:end], radii[begin:end], materials[min(slot, len(materials) - 1)])


def _layer_matrix(layer: bpy.types.GreasePencilLayer, evaluated: bpy.types.Object) -> Matrix:
    """From a layer's space, which may follow a bone, to that of its object."""
    if layer.parent is None:
        return layer.matrix_local
    carrier, pose = layer.parent.matrix_world, layer.parent.pose
    bone = pose.bones.get(layer.parent_bone) if pose is not None else None
    if bone is not None:
        carrier = carrier @ bone.matrix
    return evaluated.matrix_world.inverted_safe() @ carrier @ layer.matrix_parent_inverse @ layer.matrix_local


def _strokes(evaluated: bpy.types.Object) -> Iterator[Strand]:
    """Grease pencil before Blender 4.3, which is evaluated to where its layers are."""
    materials = _materials(evaluated)
    for layer in evaluated.data.layers:
        if layer.hide or layer.active_frame is None:
            continue
        for stroke in layer.active_frame.strokes:
            points = _values(stroke.points, "co", 3)
            radii = _values(stroke.points, "pressure") * (
                stroke.line_width * evaluated.data.pixel_factor * PIXEL
            )
            yield from _drawn(points, radii, materials[min(stroke.material_index, len(materials) - 1)])


def _drawn(points: np.ndarray, radii: np.ndarray, shown: tuple[bool, bool]) -> Iterator[Strand]:
    """What is to be seen of a drawn stroke."""
    as_stroke, filled = shown
    filled = filled and len(points) > 2
    if len(points) == 1:
        yield from _dot(points[0], radii[0])
    elif as_stroke or filled:
        yield points, radii, filled
