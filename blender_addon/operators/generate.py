"""Generate: export the clip, send it, let the frames come. Retake and Repeat Exactly do it with a take's
settings and with a take's whole request."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Generator

import bpy
from bpy.props import BoolProperty, StringProperty

from .. import engine_settings, session
from .. import settings as scene_settings
from ..connection.jobs import DONE, Job
from ..errors import ExportError
from ..ground_truth.scene_render import discard_leftovers
from ..request.blockers import export_blocker
from ..request.build import build_request, rebuild_request
from ..request.export import ExportStep
from ..request.output import output_folder
from ..request.range import ClipRange, clip_range
from ..request.record import make_record, range_of, recorded_armatures, take_for
from ..request.review import review_frame_rate, sentences
from ..request.subjects import find_subjects
from ..request.view import find_view, recorded_view
from ..sequencer.edit_scene import target_scene
from ..shared.engines import check_request
from ..shared.messages import GenerationRequest
from ..takes.take import Take, claim_folder, read_take_request, write_take
from .exporting import export_range
from .serving import await_server, usable_engine
from .stepped import RangeOperator, SteppedOperator
from .takes import TakeOperator, chosen_take


def generate(context, interactive: bool = False) -> Generator[ExportStep, None, Job]:
    """Step by step: reach the server, make the first frame, export, send. The last value is the job. Raises
    one of `stepped.BAD_INPUT`."""
    output_folder(context, context.scene.poseanything)
    clip_range(context, context.scene.poseanything, None)
    yield from await_server(context)

    scene, settings = context.scene, context.scene.poseanything
    if reason := export_blocker(context):
        raise ExportError(f"{reason}, then generate again.")
    engine = usable_engine(settings.engine_name)
    notices = engine_settings.unavailable(scene, engine)
    planned, view = clip_range(context, settings, engine), find_view(context, settings)
    clip, options = yield from export_range(
        context, settings, planned, find_subjects(context, settings), view, interactive
    )
    request = build_request(uuid.uuid4().hex, clip, planned, scene, engine)
    record = make_record(context, settings, planned, engine, options, session.get().version)
    return _submit(context, request, planned, record, notices)


def retake(context, take: Take, interactive: bool = False) -> Generator[ExportStep, None, Job]:
    """Step by step: the take's settings, seed, range and armatures with the present animation and a new first
    frame. Nothing in the scene is set. Raises as `generate` does."""
    old, settings = read_take_request(take), scene_settings.recorded(take.record.get("settings", {}))
    armatures = recorded_armatures(context.scene, take)
    output_folder(context, context.scene.poseanything)
    yield from await_server(context)

    engine = usable_engine(old.engine)
    planned = range_of(take, old)
    view = recorded_view(take) or find_view(context, settings)
    clip, _ = yield from export_range(context, settings, planned, armatures, view, interactive)
    request = rebuild_request(uuid.uuid4().hex, clip, planned, settings, engine, old)
    return _submit(context, request, planned, take.record, [])


def repeat(context, take: Take) -> Generator[ExportStep, None, Job]:
    """Step by step: ask for exactly what a take was asked for. Raises as `generate` does."""
    old = read_take_request(take)
    output_folder(context, context.scene.poseanything)
    yield from await_server(context)

    request = dataclasses.replace(old, job=uuid.uuid4().hex)
    check_request(request, usable_engine(old.engine))
    changed = scene_settings.changed(context.scene.poseanything, take.record.get("settings", {}))
    notices = [f"{take.name} is repeated as it was; changed since: {', '.join(changed)}."] if changed else []
    session.get().findings = ()
    return _submit(context, request, range_of(take, old), take.record, notices)


def _submit(context, request: GenerationRequest, planned: ClipRange, record: dict, notices: list[str]) -> Job:
    current, settings = session.get(), context.scene.poseanything
    folder, name = claim_folder(output_folder(context, settings), settings.take_name or context.scene.name)
    take = take_for(folder, name, planned, record)
    write_take(take, request)
    edit = target_scene(context, settings.strips_go_to)
    current.findings += tuple(review_frame_rate(context.scene, edit, planned.duration))
    return current.submit(
        request,
        take,
        edit,
        current.engine(request.engine),
        settings.make_movie,
        (*notices, *sentences(current.findings)),
        filmed=context.scene,
    )


class _GeneratingOperator(SteppedOperator):
    wait: BoolProperty(
        name="Wait",
        description="Return when all frames are there; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def finish(self, context, job):
        for warning in job.warnings:
            self.report({"WARNING"}, warning)
        current, job.awaited = session.get(), self.wait
        while self.wait and current.in_progress(job):
            current.poll()
            time.sleep(0.01)
        if self.wait and job.state != DONE:
            self.report({"ERROR"}, job.sentence)
            return {"CANCELLED"}
        return {"FINISHED"}


class POSEANYTHING_OT_generate(RangeOperator, _GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.generate"
    bl_label = "Generate"
    bl_description = (
        "Export the range, send it to the server, and put the frames into the sequencer while they arrive. "
        "Blender stays usable; another clip may be generated meanwhile and is queued"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return generate(context, self.interactive)


class POSEANYTHING_OT_retake(TakeOperator, _GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.retake"
    bl_label = "Retake"
    bl_description = (
        "Generate the take once more from the present animation, with a new first frame and all of its own "
        "settings and its seed. The scene's settings stay as they are"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return (yield from retake(context, chosen_take(context, self.take_id), self.interactive))


class POSEANYTHING_OT_make_again(TakeOperator, _GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.make_again"
    bl_label = "Repeat Exactly"
    bl_description = (
        "Generate the take once more exactly as it was: its animation, first frame, settings and seed. What "
        "has changed in the scene since plays no part, and nothing in the scene is set"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return (yield from repeat(context, chosen_take(context, self.take_id)))


class POSEANYTHING_OT_cancel(bpy.types.Operator):
    bl_idname = "poseanything.cancel"
    bl_label = "Cancel"
    bl_description = "Cancel this clip; the frames that have arrived are kept"
    bl_options = {"INTERNAL"}

    job: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        current, bridge = session.get(), session.get().bridge
        for job in [bridge.jobs[self.job]] if self.job in bridge.jobs else bridge.active():
            current.cancel(job)
        return {"FINISHED"}


@bpy.app.handlers.persistent
def _discard_leftovers(*_) -> None:
    discard_leftovers()


_HANDLERS = ("load_post", "undo_post", "redo_post")
_register, _unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_generate, POSEANYTHING_OT_retake, POSEANYTHING_OT_make_again, POSEANYTHING_OT_cancel)
)


def register() -> None:
    _register()
    for name in _HANDLERS:
        getattr(bpy.app.handlers, name).append(_discard_leftovers)


def unregister() -> None:
    for name in _HANDLERS:
        getattr(bpy.app.handlers, name).remove(_discard_leftovers)
    _unregister()
