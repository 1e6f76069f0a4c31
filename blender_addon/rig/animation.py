"""What is keyed, and what moves what: actions, NLA strips, constraints, drivers, other armatures,
instancers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import bpy

FOLLOWING = frozenset({"LATTICE", "CURVE", "HOOK", "ARMATURE", "SURFACE_DEFORM", "MESH_DEFORM", "NODES"})
"""Modifiers that make a surface follow another object; grease pencil has its own of some kinds."""
LOOKING = frozenset({"TRACK_TO", "DAMPED_TRACK", "LOCKED_TRACK", "LIMIT_DISTANCE", "SHRINKWRAP"})
"""Constraints that aim at another object without following it."""


def action_curves(action: bpy.types.Action, slot=None) -> Iterator[bpy.types.FCurve]:
    """The curves of an action, of one slot where actions have slots (Blender 4.4 on) and one is given."""
    if not hasattr(action, "layers"):
        yield from action.fcurves
        return
    for layer in action.layers:
        for strip in layer.strips:
            for bag in strip.channelbags:
                if slot is None or bag.slot == slot:
                    yield from bag.fcurves


def all_curves(block: bpy.types.ID) -> Iterator[bpy.types.FCurve]:
    """Every curve that animates a block: of its action and of the strips in its NLA; drivers too."""
    animation = getattr(block, "animation_data", None)
    if animation is None:
        return
    if animation.action is not None:
        yield from action_curves(animation.action, getattr(animation, "action_slot", None))
    for strip in _strips(animation):
        yield from action_curves(strip.action, getattr(strip, "action_slot", None))
    yield from animation.drivers


def keyed_frames(block: bpy.types.ID, span: tuple[float, float] | None = None) -> Iterator[float]:
    """The frames of the animation at which a block is keyed, in its action and through the NLA; of curves
    that cycle also their repetitions within a `span`, where one is given."""
    animation = getattr(block, "animation_data", None)
    if animation is None:
        return
    if animation.action is not None:
        for curve in action_curves(animation.action, getattr(animation, "action_slot", None)):
            if not curve.mute:
                frames = [key.co.x for key in curve.keyframe_points]
                yield from frames
                if span is not None:
                    yield from _cycled(curve, frames, span)
    if not animation.use_nla:
        return
    for strip in _strips(animation):
        frames = {
            key.co.x
            for curve in action_curves(strip.action, getattr(strip, "action_slot", None))
            for key in curve.keyframe_points
        }
        time = strip.fcurves.find("strip_time") if strip.use_animated_time else None
        yield from _through_strip(strip, frames) if time is None else _through_time(strip, time, frames)
        if strip.use_animated_influence:
            yield from (key.co.x for curve in strip.fcurves for key in curve.keyframe_points)


def _cycled(curve: bpy.types.FCurve, frames: list[float], span: tuple[float, float]) -> Iterator[float]:
    """The frames within a span at which a curve's Cycles modifier repeats its keys."""
    cycles = next((each for each in curve.modifiers if each.type == "CYCLES" and not each.mute), None)
    if cycles is None or len(frames) < 2 or frames[-1] <= frames[0]:
        return
    first, last = frames[0], frames[-1]
    length = last - first
    before, after = (cycles.mode_before, cycles.cycles_before), (cycles.mode_after, cycles.cycles_after)
    for turn in range(math.floor((span[0] - last) / length), math.ceil((span[1] - first) / length) + 1):
        mode, most = before if turn < 0 else after
        if turn == 0 or mode == "NONE" or 0 < most < abs(turn):
            continue
        mirrored = mode == "MIRROR" and turn % 2
        for frame in frames:
            placed = (first + last - frame if mirrored else frame) + turn * length
            if span[0] <= placed <= span[1]:
                yield placed


def _strips(animation: bpy.types.AnimData) -> Iterator[bpy.types.NlaStrip]:
    """The strips that play an action, those inside meta strips included, without muted ones."""
    solo = any(track.is_solo for track in animation.nla_tracks)
    for track in animation.nla_tracks:
        if track.mute or (solo and not track.is_solo):
            continue
        waiting = list(track.strips)
        while waiting:
            strip = waiting.pop()
            waiting.extend(getattr(strip, "strips", ()))
            if strip.action is not None and not strip.mute:
                yield strip


def _through_strip(strip: bpy.types.NlaStrip, frames: set[float]) -> Iterator[float]:
    """Frames of the animation at which an NLA strip plays frames of its action, repeated, scaled or
    reversed."""
    first, last = strip.action_frame_start, strip.action_frame_end
    length = max(last - first, 1e-6)
    for frame in frames:
        if not first <= frame <= last:
            continue
        along = last - frame if strip.use_reverse else frame - first
        for turn in range(math.ceil(strip.repeat - 1e-6)):
            placed = strip.frame_start + (turn * length + along) * strip.scale
            if strip.frame_start - 1e-3 <= placed <= strip.frame_end + 1e-3:
                yield placed


def _through_time(strip: bpy.types.NlaStrip, time: bpy.types.FCurve, frames: set[float]) -> Iterator[float]:
    """Frames of the animation at which an NLA strip plays frames of its action, by a curve that tells the
    action's frame at each of them."""
    moments = range(math.ceil(strip.frame_start), math.floor(strip.frame_end) + 1)
    played = [time.evaluate(moment) for moment in moments]
    for moment, now, then in zip(moments, played, played[1:]):
        if now != then:
            shares = ((frame - now) / (then - now) for frame in frames)
            yield from (moment + share for share in shares if 0 <= share <= 1)


def movers(blocks: Iterable[bpy.types.ID]) -> list[bpy.types.ID]:
    """The blocks and everything that moves them: parents, targets of constraints, what drivers read,
    whatever those depend on in turn."""
    found: dict[bpy.types.ID, None] = {}
    waiting = list(blocks)
    while waiting:
        block = waiting.pop()
        if block is None or block in found:
            continue
        found[block] = None
        waiting.extend(_depends_on(block))
    return list(found)


def _read_by_drivers(block: bpy.types.ID) -> Iterator[bpy.types.ID]:
    """What the drivers of a block read."""
    for curve in getattr(getattr(block, "animation_data", None), "drivers", ()):
        for variable in curve.driver.variables:
            yield from (target.id for target in variable.targets if target.id is not None)


def _depends_on(block: bpy.types.ID) -> Iterator[bpy.types.ID]:
    yield from _read_by_drivers(block)
    if not isinstance(block, bpy.types.Object):
        return
    yield from followed(block)  # what bends a curve, for one, moves what goes along it
    yield block.data
    yield getattr(block.data, "shape_keys", None)
    constraints = list(block.constraints)
    for bone in block.pose.bones if block.pose is not None else ():
        constraints.extend(bone.constraints)
    for constraint in constraints:
        if not constraint.mute:
            yield from constraint_targets(constraint)


def constraint_targets(constraint: bpy.types.Constraint) -> Iterator[bpy.types.Object]:
    """The objects that a constraint follows or aims at."""
    if constraint.type == "ARMATURE":
        yield from (target.target for target in constraint.targets)
    else:
        yield getattr(constraint, "target", None)
        yield getattr(constraint, "pole_target", None)


def followers(leader: bpy.types.Object, objects: Iterable[bpy.types.Object]) -> dict[bpy.types.Object, None]:
    """Of the objects, those that go where a leader goes, directly or through others, in order: its children,
    what it deforms, what is bound to an armature that copies it."""
    found = {leader: None}
    objects = [obj for obj in objects if obj != leader]
    grown = True
    while grown:
        grown = False
        for obj in objects:
            if obj not in found and any(link in found for link in followed(obj)):
                found[obj] = None
                grown = True
    del found[leader]
    return found


def followed(obj: bpy.types.Object) -> Iterator[bpy.types.Object]:
    """The objects that an object goes along with."""
    if obj.parent is not None:
        yield obj.parent
    for constraint in obj.constraints:
        if not constraint.mute and constraint.type not in LOOKING:
            yield from (target for target in constraint_targets(constraint) if target is not None)
    for modifier in (*obj.modifiers, *getattr(obj, "grease_pencil_modifiers", ())):
        kind = modifier.type.removeprefix("GREASE_PENCIL_").removeprefix("GP_")
        if kind in FOLLOWING and modifier.show_render:
            yield from modifier_objects(modifier)
    if (keys := getattr(obj.data, "shape_keys", None)) is not None:
        yield from (block for block in _read_by_drivers(keys) if isinstance(block, bpy.types.Object))
    if obj.type == "CURVES" and obj.data.surface is not None:
        yield obj.data.surface
    if obj.type in {"GREASEPENCIL", "GPENCIL"}:
        yield from (layer.parent for layer in obj.data.layers if layer.parent is not None)
    if obj.pose is not None:
        yield from _copied(obj)


def modifier_objects(modifier: bpy.types.Modifier) -> Iterator[bpy.types.Object]:
    """The objects that a modifier refers to; those of a Geometry Nodes modifier are its inputs and what its
    nodes name."""
    for prop in modifier.bl_rna.properties:
        if prop.type == "POINTER" and isinstance(getattr(modifier, prop.identifier), bpy.types.Object):
            yield getattr(modifier, prop.identifier)
    if modifier.type == "NODES" and modifier.node_group is not None:
        yield from (value for value in _inputs(modifier) if isinstance(value, bpy.types.Object))
        yield from _named_by_nodes(modifier.node_group)


def _inputs(modifier: bpy.types.NodesModifier) -> Iterator[object]:
    """The values of a Geometry Nodes modifier's inputs, which have properties of their own from Blender 5.2
    on."""
    if not hasattr(modifier, "properties"):
        yield from (modifier[key] for key in modifier.keys())
        return
    inputs = modifier.properties.inputs
    for prop in inputs.bl_rna.properties:
        yield getattr(getattr(inputs, prop.identifier), "value", None)


def _named_by_nodes(nodes: bpy.types.NodeTree) -> Iterator[bpy.types.Object]:
    """The objects that nodes, and those of the groups among them, name."""
    for node in nodes.nodes:
        for socket in node.inputs:
            if socket.type == "OBJECT" and socket.default_value is not None:
                yield socket.default_value
        if node.type == "GROUP" and node.node_tree is not None:
            yield from _named_by_nodes(node.node_tree)


def _copied(armature: bpy.types.Object) -> Iterator[bpy.types.Object]:
    """Other armatures that most of an armature's bones follow."""
    counts: dict[bpy.types.Object, int] = {}
    for bone in armature.pose.bones:
        targets = {
            target
            for constraint in bone.constraints
            if not constraint.mute and constraint.type not in LOOKING
            for target in constraint_targets(constraint)
            if target is not None and target != armature
        }
        for target in targets:
            counts[target] = counts.get(target, 0) + 1
    for target, count in counts.items():
        if 2 * count >= len(armature.pose.bones):
            yield target
