"""The limbs as they will be sent, counted in the panel and drawn over the 3D view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import gpu
import numpy as np
from bpy.app.handlers import persistent
from gpu_extras.batch import batch_for_shader

from .. import handlers, session
from ..errors import ExportError
from ..request.finding import Finding
from ..request.look import look_of
from ..request.subjects import find_subjects as chosen_subjects
from ..rig.limbs import LimbChoice
from ..rig.motion import Motion
from ..rig.sampling import Sampler
from ..rig.subjects import Subject, find_armatures, find_subjects, limb_tables
from ..shared.pose import Limb
from ..steps import at_once
from ..texts import Headline
from .frame import builtin_shader

COLOUR = (1.0, 0.55, 0.1, 1.0)
WIDTH = 3.0


@dataclass(frozen=True, eq=False)
class Followed:
    """What will be sent of the scene's rigs, and what reads it; `limbs` and `parts` are the pose's tables."""

    subjects: list[Subject]
    sampler: Sampler
    limbs: list[Limb]
    parts: list[str]


# Choosing limbs reads every weight of every mesh: kept until something it depends on changes.
_kept: dict[tuple, Followed | ExportError] = {}
_bound: tuple = ()
_handle: object | None = None
changes = 0
"""How often something in the scene has changed, or may have."""


def choices(
    objects: Sequence[bpy.types.Object], look: str = "bones"
) -> list[tuple[bpy.types.Object, LimbChoice]]:
    """Each armature with its limbs. Raises `ExportError`."""
    return [(subject.armature, subject.choice) for subject in _look_up(objects, look).subjects]


def _look_up(objects, look: str) -> Followed:
    global _bound
    motions = _motions(objects)
    key = tuple((obj.session_uid, obj.mode) for obj in objects), tuple(map(id, motions.values())), look
    if key not in _kept:
        _kept.clear()
        _bound = _bindings()
        try:
            subjects = at_once(find_subjects(objects, motions, look))
            _kept[key] = Followed(subjects, Sampler(subjects), *limb_tables(subjects))
        except ExportError as error:
            _kept[key] = error
    found = _kept[key]
    if isinstance(found, ExportError):
        raise found.with_traceback(None)
    return found


def _look_up_chosen(context) -> Followed | None:
    """What will be sent of the scene's rigs, None where none is chosen. Raises `ExportError`."""
    settings = context.scene.poseanything
    objects = chosen_subjects(context, settings)
    if not objects:
        return None
    return _look_up(objects, look_of(settings, session.get().engine(settings.engine_name)))


def blockers(context) -> list[Finding]:
    """What keeps limbs from being chosen, without a full stop, as of `request.blockers`."""
    try:
        if context.scene.poseanything.pose_source != "VIDEO":
            _look_up_chosen(context)
    except ExportError as error:
        return [Finding(Headline(str(error)), *error.button)]
    return []


def _motions(objects) -> dict[bpy.types.Object, Motion]:
    """How the armatures moved when they were last looked at."""
    known = session.get().motions
    found = {armature: known.get(armature.session_uid) for armature, _ in find_armatures(objects)}
    return {
        armature: motion
        for armature, motion in found.items()
        if motion is not None and motion.poses.shape[1] == len(armature.data.bones)
    }


def _bindings() -> tuple:
    """What moves what. Objects are updated whenever they move; only when this changes are limbs chosen
    anew."""
    return tuple(
        (
            obj.session_uid,
            obj.parent and obj.parent.session_uid,
            obj.parent_type,
            obj.parent_bone,
            tuple(mod.object and mod.object.session_uid for mod in obj.modifiers if mod.type == "ARMATURE"),
            tuple(
                (bone.name, c.type, getattr(c, "subtarget", ""))
                for bone in (obj.pose.bones if obj.pose else ())
                for c in bone.constraints
            ),
        )
        for obj in bpy.data.objects
    )


def followed(context) -> Followed | None:
    """What will be sent of the scene's rigs; None where the panel says what is wrong."""
    try:
        return _look_up_chosen(context)
    except ExportError:
        return None


def _draw() -> None:
    context = bpy.context
    if not context.scene.poseanything.show_limbs or not context.space_data.overlay.show_overlays:
        return
    found = followed(context)
    if found is None:
        return
    sampler = found.sampler
    joints = sampler.sample(context.evaluated_depsgraph_get())
    last = np.cumsum(sampler.counts) - 1
    starts = np.setdiff1d(np.arange(len(joints) - 1), last)
    lines = joints[np.stack([starts, starts + 1], axis=1).ravel()]
    shader = builtin_shader("POLYLINE_UNIFORM_COLOR")
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", WIDTH * context.preferences.system.ui_scale)
    shader.uniform_float("color", COLOUR)
    gpu.state.depth_test_set("NONE")
    batch_for_shader(shader, "LINES", {"pos": lines.astype(np.float32)}).draw(shader)


@persistent
def _after_change(scene, depsgraph) -> None:
    global changes
    changes += 1
    if not _kept:
        return
    updated = [update.id for update in depsgraph.updates]
    if any(isinstance(block, (bpy.types.Armature, bpy.types.Mesh)) for block in updated):
        _kept.clear()
    elif any(isinstance(block, bpy.types.Object) for block in updated) and _bindings() != _bound:
        _kept.clear()


@persistent
def _forget(*_) -> None:
    """Undo and loading make new objects of all that is kept here."""
    global changes
    changes += 1
    _kept.clear()


@persistent
def _forget_all(*_) -> None:
    """The numbers by which armatures are known begin anew in another file."""
    _kept.clear()
    session.get().motions.clear()


_HANDLERS = {
    "depsgraph_update_post": _after_change,
    "undo_pre": _forget,
    "redo_pre": _forget,
    "undo_post": _forget,
    "redo_post": _forget,
    "load_pre": _forget_all,
}


def register() -> None:
    global _handle
    handlers.add(_HANDLERS)
    _handle = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    global _handle
    bpy.types.SpaceView3D.draw_handler_remove(_handle, "WINDOW")
    _handle = None
    handlers.remove(_HANDLERS)
    _kept.clear()
