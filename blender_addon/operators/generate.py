"""Generate: export the clip, send it, let the frames come."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from .. import engine_settings, session
from ..connection import server
from ..connection.bridge import PATIENCE
from ..connection.client import CONNECTED, REFUSED
from ..connection.jobs import DONE, Job
from ..connection.server import ServerError
from ..errors import ExportError
from ..request.blockers import export_blocker
from ..request.build import build_request, export_options
from ..request.export import ExportStep, export_clip
from ..request.output import output_folder
from ..request.range import clip_range
from ..request.record import make_record, restore_engine, take_for
from ..request.review import review_frame_rate, review_keys, sentences
from ..request.view import recorded_view
from ..sequencer.edit_scene import target_scene
from ..takes.take import claim_folder, read_take, write_take
from .stepped import SteppedOperator

START_PATIENCE = 120.0
"""Seconds that a server started from here may take to start."""


def generate(context, remade: str = "") -> Generator[ExportStep, None, Job]:
    """Step by step: reach the server, export, send; `remade` is the folder of a take whose first frame and
    viewport are used. The last value is the job. Raises one of `stepped.BAD_INPUT`."""
    again = read_take(Path(remade)) if remade else None
    current, chosen = session.get(), context.scene.session_uid
    output_folder(context, context.scene.poseanything)
    view = recorded_view(again)
    clip_range(context, context.scene.poseanything, None, view)
    current.reach_server(context)
    yield from _await_server(context, current)

    # Blender was the user's meanwhile.
    scene, settings = context.scene, context.scene.poseanything
    if scene.session_uid != chosen:
        raise ExportError("Another scene was opened while the server was awaited; generate again.")
    if reason := export_blocker(context):
        raise ExportError(f"{reason}, then generate again.")
    folder = output_folder(context, settings)
    engine = current.engine(settings.engine_name)
    if engine is None:
        wanted = settings.engine_name or "usable"
        raise ExportError(f"The server has no {wanted} engine; choose another in the Engine panel.")
    if not engine.ready:
        raise ExportError(f"{engine.label} can't run: {engine.reason}")
    notices = restore_engine(scene, engine, again) if again is not None else []
    notices += engine_settings.unavailable(scene, engine)
    planned = clip_range(context, settings, engine, view)
    options = export_options(context, settings, planned, again)
    current.findings = ()
    clip = yield from export_clip(context, options)
    current.keep_motions(clip.motions)
    edit = target_scene(context, settings.strips_go_to)
    current.findings = (
        *clip.findings,
        *review_frame_rate(scene, edit, planned.duration),
        *review_keys(settings, planned, options.pose_frames),
    )

    request = build_request(uuid.uuid4().hex, clip, planned, scene, engine)
    record = make_record(context, settings, planned, engine, options, current.version)
    take = take_for(*claim_folder(folder, settings.take_name or scene.name), planned, record)
    write_take(take, clip.first_frame)
    return current.submit(
        request,
        take,
        edit,
        engine,
        settings.make_movie,
        (*notices, *sentences(current.findings)),
    )


def _await_server(context, current: session.Session) -> Generator[ExportStep, None, None]:
    bridge, began = current.bridge, time.monotonic()
    was_running = bridge.server.state == server.RUNNING
    while bridge.link.state != CONNECTED or not bridge.engines:
        if bridge.link.state == REFUSED:
            raise ServerError(bridge.link.sentence)
        if bridge.server.state == server.FAILED:
            if not was_running:
                raise ServerError(bridge.server.sentence)
            was_running = False  # it had just ended, unnoticed: another may take its place
            current.reach_server(context)
        if bridge.client is None and not bridge.server.is_up:
            raise ServerError("The server was stopped; generate again.")
        starting = bridge.server.state == server.STARTING
        if time.monotonic() - began > (START_PATIENCE if starting else PATIENCE):
            where = f"at {bridge.client.address}" if bridge.client is not None else "yet"
            raise ServerError(f"No server answers {where}; start it in the Server panel.")
        yield ExportStep(0.0, "Starting the server" if starting else "Looking for the server")
        current.poll()


class POSEANYTHING_OT_generate(SteppedOperator, bpy.types.Operator):
    bl_idname = "poseanything.generate"
    bl_label = "Generate"
    bl_description = (
        "Export the range, send it to the server, and put the frames into the sequencer while they arrive. "
        "Blender stays usable; another clip may be generated meanwhile and is queued"
    )
    bl_options = {"REGISTER"}

    wait: BoolProperty(
        name="Wait",
        description="Return when all frames are there; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    again: StringProperty(
        name="Again",
        description="Folder of a take whose first frame and viewport are used",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        reason = export_blocker(context) if session.get().exporting is None else "Wait for the export to end"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def steps(self, context):
        return generate(context, self.again)

    def finish(self, context, job):
        for warning in job.warnings:
            self.report({"WARNING"}, warning)
        current = session.get()
        while self.wait and current.in_progress(job):
            current.poll()
            time.sleep(0.01)
        if self.wait and job.state != DONE:
            self.report({"ERROR"}, job.sentence)
            return {"CANCELLED"}
        return {"FINISHED"}


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


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_generate, POSEANYTHING_OT_cancel))
