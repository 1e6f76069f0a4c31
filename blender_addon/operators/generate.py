"""Generate: export the clip, send it, let the frames come. Retake, Repeat Exactly, New Seeds and Retake Range
do it with a take's settings and with a take's whole request."""

from __future__ import annotations

import dataclasses
import math
import random
import uuid
from collections.abc import Generator
from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from .. import engine_settings, handlers, session
from .. import settings as scene_settings
from ..connection.jobs import DONE, Job
from ..errors import ExportError
from ..ground_truth.scene_render import discard_leftovers
from ..request.blockers import export_blocker
from ..request.build import build_request, rebuild_request
from ..request.export import ExportStep
from ..request.output import output_folder
from ..request.range import ClipRange, clip_shots
from ..request.record import make_record, range_of, recorded_armatures, take_for
from ..request.review import sentences
from ..request.view import find_view, recorded_view
from ..sequencer import strips
from ..sequencer.edit_scene import target_scene
from ..shared.engines import check_request
from ..shared.messages import GenerationRequest
from ..takes.take import Take, TakeError, claim_folder, frame_name, read_take_request, write_take
from ..texts import say
from ..texts.translation import shown
from .exporting import export_range, export_shots
from .refusal import refuse
from .serving import await_server, usable_engine
from .stepped import RangeOperator, SteppedOperator
from .takes import TakeOperator, chosen_take

FADE = 8
"""Scene frames over which a range that was made again gives way to the take below it, at most."""


def generate(
    context, interactive: bool = False, span: tuple[int, int] | None = None, start: int | None = None
) -> Generator[ExportStep, None, list[Job]]:
    """Step by step: reach the server, make the first frame, export, send; all that for each shot where
    markers change the camera. The last value is the jobs, one for each take that is wanted. Raises one of
    `stepped.BAD_INPUT`.

    Args:
        span: the first and the last scene frame, in place of the range that is set.
        start: where in the sequencer the strip begins, None for the time at which it was filmed.
    """
    output_folder(context, context.scene.poseanything)
    clip_shots(context, _ranged(context.scene.poseanything, span), None)
    yield from await_server(context)

    scene, settings = context.scene, _ranged(context.scene.poseanything, span)
    if reason := export_blocker(context):
        raise ExportError(say("{reason}, then generate again.", reason=reason))
    engine = usable_engine(settings.engine_name)
    notices = engine_settings.unavailable(scene, engine)
    shots, view = clip_shots(context, settings, engine), find_view(context, settings)
    offset = _offset_to(context, shots[0].planned, start)
    jobs: list[Job] = []
    for shot, exporting in export_shots(context, settings, shots, view, interactive, engine):
        clip, options = yield from exporting
        request = build_request(uuid.uuid4().hex, clip, shot.planned, scene, engine)
        # With the seed that was drawn meanwhile.
        settings = _ranged(scene.poseanything, shot.span if len(shots) > 1 else span)
        record = make_record(context, settings, shot.planned, engine, options, session.get().version)
        takes = settings.batch if engine.uses_seed else 1
        jobs.append(_submit(context, request, shot.planned, record, notices, offset))
        jobs += _submit_seeds(context, request, shot.planned, record, takes - 1)
        notices = []
    return jobs


def _offset_to(context, planned: ClipRange, start: int | None) -> int:
    """How far from where it is in time a clip's strip has to be moved to begin at a frame of the sequencer;
    nowhere for None."""
    if start is None:
        return 0
    edit = target_scene(context, context.scene.poseanything.strips_go_to)
    return start - strips.place_of(edit, take_for(Path(), "", planned, {}))


def _ranged(settings, span: tuple[int, int] | None):
    """The settings with another range; nothing is set."""
    if span is None:
        return settings
    ranged = {"use_custom_range": True, "frame_start": span[0], "frame_end": span[1]}
    return scene_settings.recorded(scene_settings.record(settings) | ranged)


def retake(context, take: Take, interactive: bool = False) -> Generator[ExportStep, None, list[Job]]:
    """Step by step: the take's settings, seed, range and armatures with the present animation and a new first
    frame. Nothing in the scene is set. Raises as `generate` does."""
    old, settings = read_take_request(take), scene_settings.recorded(take.record.get("settings", {}))
    request, planned = yield from _film_again(context, take, old, settings, None, interactive)
    return [_submit(context, request, planned, take.record, [])]


def _film_again(
    context,
    take: Take,
    old: GenerationRequest,
    settings,
    span: tuple[float, float] | None,
    interactive: bool,
) -> Generator[ExportStep, None, tuple[GenerationRequest, ClipRange]]:
    """Step by step: what a take's request asks for, of the present animation; `span` is the first and last
    scene frame where that is not all of it."""
    armatures = recorded_armatures(context, take)
    output_folder(context, context.scene.poseanything)
    yield from await_server(context)

    engine = usable_engine(old.engine)
    planned = range_of(take, old)
    if span is not None:
        times = planned.times.part(*span, engine.frame_step)
        planned = dataclasses.replace(planned, times=times)
    view = recorded_view(take) or find_view(context, settings)
    clip, _ = yield from export_range(context, settings, planned, armatures, view, interactive, engine)
    return rebuild_request(uuid.uuid4().hex, clip, planned, settings, engine, old), planned


def retake_range(
    context, take: Take, first: int, last: int, interactive: bool = False
) -> Generator[ExportStep, None, list[Job]]:
    """Step by step: scene frames `first` to `last` of a take from the present animation. The clip begins with
    the take's own frame there, and its strip lies above the take's and gives way to it at the end. Nothing in
    the scene is set. Raises as `generate` does."""
    old, settings = read_take_request(take), scene_settings.recorded(take.record.get("settings", {}))
    times = take.times
    begin = max(times.index_at(first), 0)
    start, end = times.at(begin), min(last, times.end)
    if end - start < times.step:
        raise ExportError(
            say(
                "{take} has frames {first:g} to {last:g}; choose two or more of them.",
                take=take.name,
                first=times.start,
                last=times.end,
            )
        )
    picture = take.folder / frame_name(take.name, begin)
    if not picture.is_file():
        raise TakeError(
            say(
                "Frame {frame:g} of {take} is not there; choose a range that begins elsewhere.",
                frame=start,
                take=take.name,
            )
        )
    settings.first_frame_source, settings.first_frame_path = "PICTURE", str(picture)
    request, planned = yield from _film_again(context, take, old, settings, (start, end), interactive)
    fade = 0 if end == times.end else min(FADE, int(planned.times.length) // 2)
    return [_submit(context, request, planned, {**take.record, "fade": fade}, [], _strip_offset(take))]


def _strip_offset(take: Take) -> int:
    """How far a take's strip was moved from where it was filmed, in frames of the sequencer."""
    for scene in bpy.data.scenes:
        for strip in strips.all_strips(scene):
            if strip.type == "IMAGE" and strips.TAKE_ID in strip and strips.folder_of(strip) == take.folder:
                return strips.content_start(strip) - strips.place_of(scene, take)
    return 0


def new_seeds(context, take: Take, count: int) -> Generator[ExportStep, None, list[Job]]:
    """Step by step: ask `count` times for what a take was asked for, each time with another seed. Raises as
    `generate` does."""
    old = read_take_request(take)
    output_folder(context, context.scene.poseanything)
    yield from await_server(context)

    engine = usable_engine(old.engine)
    if not engine.uses_seed:
        raise ExportError(say("{engine} makes the same of every seed; use Retake.", engine=engine.label))
    session.get().findings = ()
    return _submit_seeds(context, old, range_of(take, old), take.record, count)


def _submit_seeds(
    context, request: GenerationRequest, planned: ClipRange, record: dict, count: int
) -> list[Job]:
    """Ask `count` times for what a request asks for, each time with a seed drawn anew."""
    jobs = []
    for _ in range(count):
        seed = random.randrange(2**31)
        varied = dataclasses.replace(request, job=uuid.uuid4().hex, seed=seed)
        jobs.append(_submit(context, varied, planned, {**record, "seed": seed}, []))
    return jobs


def repeat(context, take: Take) -> Generator[ExportStep, None, list[Job]]:
    """Step by step: ask for exactly what a take was asked for. Raises as `generate` does."""
    old = read_take_request(take)
    output_folder(context, context.scene.poseanything)
    yield from await_server(context)

    request = dataclasses.replace(old, job=uuid.uuid4().hex)
    check_request(request, usable_engine(old.engine))
    changed = scene_settings.changed(context.scene.poseanything, take.record.get("settings", {}))
    notices = (
        [
            say(
                "{take} is repeated as it was; changed since: {names}.",
                take=take.name,
                names=", ".join(changed),
            )
        ]
        if changed
        else []
    )
    session.get().findings = ()
    return [_submit(context, request, range_of(take, old), take.record, notices)]


def _submit(
    context,
    request: GenerationRequest,
    planned: ClipRange,
    record: dict,
    notices: list[str],
    offset: int = 0,
) -> Job:
    current, settings = session.get(), context.scene.poseanything
    folder, name = claim_folder(output_folder(context, settings), settings.take_name or context.scene.name)
    take = take_for(folder, name, planned, record)
    write_take(take, request)
    edit = target_scene(context, settings.strips_go_to)
    return current.submit(
        request,
        take,
        edit,
        current.engine(request.engine),
        settings.make_movie,
        (*notices, *sentences(current.findings)),
        filmed=context.scene,
        start=strips.place_of(edit, take) + offset,
    )


class GeneratingOperator(SteppedOperator):
    wait: BoolProperty(
        name="Wait",
        description="Return when all frames are there; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    def finish(self, context, jobs):
        current = session.get()
        for job in jobs:
            for warning in job.warnings:
                self.report({"WARNING"}, shown(warning))
            job.awaited = self.wait
        current.wait_while(lambda: self.wait and any(map(current.in_progress, jobs)))
        failed = [job for job in jobs if self.wait and job.state != DONE]
        for job in failed:
            self.report({"ERROR"}, shown(job.sentence))
        return {"CANCELLED"} if failed else {"FINISHED"}


class POSEANYTHING_OT_generate(RangeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.generate"
    bl_label = "Generate"
    bl_description = (
        "Export the range, send it to the server, and put the frames into the sequencer while they arrive. "
        "Blender stays usable; another clip may be generated meanwhile and is queued"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return generate(context, self.interactive)


class POSEANYTHING_OT_retake(TakeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.retake"
    bl_label = "Retake"
    bl_description = (
        "Generate the take once more from the present animation, with a new first frame and all of its own "
        "settings and its seed. The scene's settings stay as they are"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return (yield from retake(context, chosen_take(context, self.take_id), self.interactive))


class POSEANYTHING_OT_make_again(TakeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.make_again"
    bl_label = "Repeat Exactly"
    bl_description = (
        "Generate the take once more exactly as it was: its animation, first frame, settings and seed. What "
        "has changed in the scene since plays no part, and nothing in the scene is set"
    )
    bl_options = {"REGISTER"}

    def steps(self, context):
        return (yield from repeat(context, chosen_take(context, self.take_id)))


class POSEANYTHING_OT_new_seeds(TakeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.new_seeds"
    bl_label = "New Seeds"
    bl_description = (
        "Generate the take once more exactly as it was, but with other seeds: as many takes as are asked for"
    )
    bl_options = {"REGISTER"}

    count: IntProperty(
        name="Takes",
        description="How many takes are made, each with a seed of its own",
        default=1,
        min=1,
        max=16,
    )

    def steps(self, context):
        return (yield from new_seeds(context, chosen_take(context, self.take_id), self.count))


class POSEANYTHING_OT_retake_range(TakeOperator, GeneratingOperator, bpy.types.Operator):
    bl_idname = "poseanything.retake_range"
    bl_label = "Retake Range"
    bl_description = (
        "Generate some frames of the take once more from the present animation. They begin with the take's "
        "own picture, lie above it in the sequencer and give way to it at their end"
    )
    bl_options = {"REGISTER"}

    frame_start: IntProperty(name="Start", description="First scene frame that is made again")
    frame_end: IntProperty(name="End", description="Last scene frame that is made again")

    def invoke(self, context, event):
        if not self.properties.is_property_set("frame_start"):
            try:
                take = chosen_take(context, self.take_id)
            except TakeError as error:
                return refuse(self, error)
            scene, first, last = context.scene, math.ceil(take.times.start), math.floor(take.times.end)
            chosen = (
                (scene.frame_preview_start, scene.frame_preview_end)
                if scene.use_preview_range
                else (scene.frame_current, last)
            )
            self.frame_start, self.frame_end = (min(max(frame, first), last) for frame in chosen)
            return context.window_manager.invoke_props_dialog(self, confirm_text="Retake")
        return super().invoke(context, event)

    def execute(self, context):
        if bpy.app.background or self.wait:
            return super().execute(context)
        return SteppedOperator.invoke(self, context, None)  # out of the dialog: go on beside the user

    def steps(self, context):
        take = chosen_take(context, self.take_id)
        return (yield from retake_range(context, take, self.frame_start, self.frame_end, self.interactive))


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


_HANDLERS = dict.fromkeys(("load_post", "undo_post", "redo_post"), _discard_leftovers)
_register, _unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_generate,
        POSEANYTHING_OT_retake,
        POSEANYTHING_OT_make_again,
        POSEANYTHING_OT_new_seeds,
        POSEANYTHING_OT_retake_range,
        POSEANYTHING_OT_cancel,
    )
)


def register() -> None:
    _register()
    handlers.add(_HANDLERS)


def unregister() -> None:
    handlers.remove(_HANDLERS)
    _unregister()
