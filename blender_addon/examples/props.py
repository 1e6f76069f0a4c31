"""Things to put into a scene: meshes, the materials on them, and lamps."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable

import bmesh
import bpy
import numpy as np
from mathutils import Matrix, Vector

Colour = tuple[float, float, float]
"""Linear RGB."""
TEXTURES = {"noise": ("TexNoise", 0), "brick": ("TexBrick", 1), "checker": ("TexChecker", 1),
            "wood": ("TexWave", 1), "cells": ("TexVoronoi", 0)}  # fmt: skip
"""Node and output of what is between 0 and 1."""


COLOURS = {
    0: "red", 0.08: "orange", 0.16: "yellow", 0.33: "green", 0.5: "turquoise", 0.62: "blue", 0.72: "purple",
    0.9: "pink", 1: "red",
}  # fmt: skip
"""By hue."""


def tree(scene: bpy.types.Scene, place: Vector, tall: float, leaves, bark) -> None:
    trunk = add(scene, "Trunk", lambda mesh: cone(mesh, 32, tall * 0.035, tall * 0.035, tall * 0.4), bark)
    trunk.location = place + Vector((0, 0, tall * 0.2))
    for level in range(4):
        radius, height = tall * (0.24 - 0.05 * level), tall * 0.34
        level_cone = add(
            scene, "Fir", lambda mesh, r=radius, h=height: cone(mesh, 22, r, 0, h), leaves, smooth=True
        )
        level_cone.location = place + Vector((0, 0, tall * (0.42 + 0.17 * level)))


def cone(mesh: bmesh.types.BMesh, segments: int, bottom: float, top: float, height: float) -> None:
    bmesh.ops.create_cone(mesh, cap_ends=True, segments=segments, radius1=bottom, radius2=top, depth=height)


def add(
    scene: bpy.types.Scene,
    name: str,
    build: Callable[[bmesh.types.BMesh], object],
    material: bpy.types.Material,
    smooth: bool = False,
) -> bpy.types.Object:
    """A new object of the mesh that `build` makes."""
    data, mesh = bpy.data.meshes.new(name), bmesh.new()
    build(mesh)
    mesh.to_mesh(data)
    mesh.free()
    data.materials.append(material)
    data.polygons.foreach_set("use_smooth", np.full(len(data.polygons), smooth))
    item = bpy.data.objects.new(name, data)
    scene.collection.objects.link(item)
    return item


def box(
    scene: bpy.types.Scene, name: str, place: Vector, size: Vector, turn: Matrix, material
) -> bpy.types.Object:
    """A box that stands on a place, turned about Z; `size` in metres."""
    item = add(scene, name, lambda mesh: bmesh.ops.create_cube(mesh, size=1), material)
    item.scale, item.location = size, place + Vector((0, 0, size.z / 2))
    item.rotation_euler = turn.to_euler()
    return item


def ball(scene: bpy.types.Scene, name: str, place: Vector, radius: float, material) -> bpy.types.Object:
    item = add(
        scene,
        name,
        lambda mesh: bmesh.ops.create_uvsphere(mesh, u_segments=20, v_segments=12, radius=radius),
        material,
        smooth=True,
    )
    item.location = place
    return item


def rock(
    scene: bpy.types.Scene, place: Vector, radius: float, material, shuffle: random.Random
) -> bpy.types.Object:
    item = add(
        scene, "Rock", lambda mesh: bmesh.ops.create_icosphere(mesh, subdivisions=3, radius=radius), material
    )
    item.location = place
    item.scale = (shuffle.uniform(0.8, 1.2), shuffle.uniform(0.8, 1.2), shuffle.uniform(0.5, 0.9))
    bumps = [Vector([shuffle.uniform(-1, 1) for _ in range(3)]).normalized() for _ in range(9)]
    for vertex in item.data.vertices:
        near = max(vertex.co.normalized().dot(bump) for bump in bumps)
        vertex.co *= 0.75 + 0.35 * near + shuffle.uniform(-0.02, 0.02)
    return item


def plant(
    scene: bpy.types.Scene, place: Vector, tall: float, material, shuffle: random.Random, blades: int = 6
) -> None:
    """A tuft of blades that lean apart."""
    for _ in range(blades):
        height = tall * shuffle.uniform(0.6, 1.0)
        blade = add(
            scene, "Blade", lambda mesh, h=height: cone(mesh, 6, 0.05 * tall, 0.005 * tall, h), material
        )
        lean = Matrix.Rotation(shuffle.uniform(0, 0.4), 3, "X")
        turned = Matrix.Rotation(shuffle.uniform(0, 6.28), 3, "Z") @ lean
        blade.rotation_euler = turned.to_euler()
        blade.location = place + turned @ Vector((0, 0, height / 2))


def material(
    name: str,
    dark: Colour,
    light: Colour,
    scale: float,
    texture: str = "noise",
    haze: tuple[Colour, float] | None = None,
) -> bpy.types.Material:
    """Two colours mottled by one of `TEXTURES`; `scale` in spots per metre. With `haze`, a colour and a
    distance in metres, what is farther from the camera has more of that colour."""
    made = bpy.data.materials.new(name)
    if made.node_tree is None:  # it always has one from Blender 5.0 on
        made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    principled.inputs["Roughness"].default_value = 0.9
    kind, output = TEXTURES[texture]
    place, pattern, ramp = (nodes.new(f"ShaderNode{kind}") for kind in ("NewGeometry", kind, "ValToRGB"))
    pattern.inputs["Scale"].default_value = scale
    if texture == "noise":
        pattern.inputs["Detail"].default_value = 6
        links.new(place.outputs["Position"], pattern.inputs["Vector"])
    else:
        if texture == "wood":
            pattern.inputs["Distortion"].default_value, pattern.inputs["Detail"].default_value = 4, 3
        links.new(nodes.new("ShaderNodeTexCoord").outputs["Object"], pattern.inputs["Vector"])
    ramp.color_ramp.elements[0].position, ramp.color_ramp.elements[1].position = 0.35, 0.68
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*dark, 1), (*light, 1)
    links.new(pattern.outputs[output], ramp.inputs[0])
    links.new(ramp.outputs[0], principled.inputs["Base Color"])
    if haze is not None:
        _add_haze(nodes, links, principled, *haze)
    return made


def _add_haze(nodes, links, principled, colour: Colour, distance: float) -> None:
    camera, mix, glow = (nodes.new(f"ShaderNode{kind}") for kind in ("CameraData", "MixShader", "Emission"))
    share, fall = nodes.new("ShaderNodeMath"), nodes.new("ShaderNodeMath")
    glow.inputs["Color"].default_value = (*colour, 1)
    share.operation, fall.operation = "DIVIDE", "POWER"
    share.inputs[1].default_value, fall.inputs[0].default_value = distance, 0.37
    links.new(camera.outputs["View Distance"], share.inputs[0])
    links.new(share.outputs[0], fall.inputs[1])
    links.new(fall.outputs[0], mix.inputs[0])
    links.new(glow.outputs[0], mix.inputs[1])
    links.new(principled.outputs[0], mix.inputs[2])
    output = next(node for node in nodes if node.type == "OUTPUT_MATERIAL")
    links.new(mix.outputs[0], output.inputs["Surface"])


def glowing(name: str, colour: Colour, strength: float) -> bpy.types.Material:
    made = bpy.data.materials.new(name)
    made.diffuse_color = (*colour, 1)
    if made.node_tree is None:  # it always has one from Blender 5.0 on
        made.use_nodes = True
    principled = next(node for node in made.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    principled.inputs["Emission Color"].default_value = (*colour, 1)
    principled.inputs["Emission Strength"].default_value = strength
    return made


def sky(scene: bpy.types.Scene, below: Colour, above: Colour, strength: float) -> None:
    """A world that goes from one colour at the horizon to another at the zenith."""
    world = bpy.data.worlds.new("Sky")
    scene.world = world
    if world.node_tree is None:  # it always has one from Blender 5.0 on
        world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    background = next(node for node in nodes if node.type == "BACKGROUND")
    background.inputs["Strength"].default_value = strength
    place, split, ramp = (nodes.new(f"ShaderNode{kind}") for kind in ("TexCoord", "SeparateXYZ", "ValToRGB"))
    links.new(place.outputs["Generated"], split.inputs[0])
    links.new(split.outputs[2], ramp.inputs[0])
    ramp.color_ramp.elements[1].position = 0.6
    ramp.color_ramp.elements[0].color, ramp.color_ramp.elements[1].color = (*below, 1), (*above, 1)
    links.new(ramp.outputs[0], background.inputs["Color"])


def lamp(
    scene: bpy.types.Scene,
    kind: str,
    place: Vector,
    target: Vector,
    energy: float,
    colour: Colour,
    size: float,
) -> bpy.types.Object:
    """A lamp of Blender's kinds SUN, AREA or POINT that shines towards a target. `energy` is what reaches it
    in watts per square metre, however far it is; `size` is an angle of a sun, metres of the others."""
    data = bpy.data.lights.new(kind.capitalize(), kind)
    far = (target - place).length
    data.color = colour
    if kind == "SUN":
        data.energy, data.angle = energy, size
    else:
        data.energy = energy * 4 * far**2
        if kind == "AREA":
            data.size = size
        else:
            data.shadow_soft_size = size
    item = bpy.data.objects.new(data.name, data)
    item.location = place
    item.rotation_euler = (target - place).to_track_quat("-Z", "Y").to_euler()
    scene.collection.objects.link(item)
    return item


def painted(name: str, dark: Colour, light: Colour, scale: float, *more) -> bpy.types.Material:
    """A `material` that has a colour in Workbench, too, which knows no nodes."""
    made = material(name, dark, light, scale, *more)
    made.diffuse_color = (*((a + b) / 2 for a, b in zip(dark, light)), 1)
    return made


def shade(shuffle: random.Random, hues: tuple[float, float], value: float) -> tuple[Colour, Colour]:
    """A darker and a lighter colour of one hue."""
    hue, full = shuffle.uniform(*hues), shuffle.uniform(0.3, 0.8)
    value *= shuffle.uniform(0.75, 1.25)
    return colorsys.hsv_to_rgb(hue, full, 0.55 * value), colorsys.hsv_to_rgb(hue, 0.9 * full, value)


def colour_name(hue: float, saturation: float, value: float) -> str:
    """What one calls a colour of linear light: "dark blue"."""
    if saturation < 0.2:
        return "black" if value < 0.08 else "grey" if value < 0.5 else "white"
    name = COLOURS[min(COLOURS, key=lambda known: abs(known - hue))]
    if name == "orange" and value < 0.3:
        return "brown"
    return f"dark {name}" if value < 0.12 else name
