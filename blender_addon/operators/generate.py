"""Generate: export the shot, send it, let the frames come."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator

import bpy
from bpy.props import BoolProperty

from .. import preferences
from ..export import ExportError, ExportStep, export_clip
from ..link import server, session
from ..link.client import CONNECTED, REFUSED
from ..link.jobs import DONE, Job
from ..link.server import ServerError
from ..sequencer.strips import show_in_sequencer
from ..sequencer.takes import TakeError, claim_folder, write_take
from ..shared.schema import MessageError
from . import shot as shots

BAD_INPUT = (ExportError, ServerError, TakeError, MessageError)
"""What is the user's to put right; each says so in one sentence."""
TICK = 0.02
"""Seconds of exporting between two looks at the window's events."""
START_PATIENCE = 120.0
"""Seconds that a server of ours may take to start."""


def generate(context) -> Generator[ExportStep, None, Job]:
    """Step by step: reach the server, export, send. The last value is the job. Raises one of `BAD_INPUT`."""
    scene, settings, current = context.scene, context.scene.poseanything, session.get()
    folder = shots.output_folder(context, settings)
    shots.plan_shot(scene, settings, None)
    preferences.reach_server(context)
    yield from _await_server(current)

    engine = current.engine(settings.engine_name)
    if engine is None:
        wanted = settings.engine_name or "usable"
        raise ExportError(f"The server has no {wanted} engine; choose another engine in the Guidance panel.")
    if not engine.ready:
        raise ExportError(f"{engine.label} can't run: {engine.reason}")
    shot = shots.plan_shot(scene, settings, engine)
    clip = yield from export_clip(context, shots.export_options(context, settings, shot))

    request = shots.build_request(uuid.uuid4().hex, clip, shot, settings, engine)
    record = shots.make_record(context, settings, shot, engine)
    take = shots.take_for(*claim_folder(folder, settings.take_name or scene.name), shot, record)
    write_take(take, clip.first_frame)
    return current.submit(request, take, show_in_sequencer(context), engine, settings.make_movie)


def _await_server(current: session.Session) -> Generator[ExportStep, None, None]:
    began = time.monotonic()
    while current.link.state != CONNECTED or not current.engines:
        if current.link.state == REFUSED:
            raise ServerError(current.link.sentence)
        if current.server.state == server.FAILED:
            raise ServerError(current.server.sentence)
        if current.client is None and not current.server.is_up:
            raise ServerError("The server was stopped; generate again.")
        starting = current.server.state == server.STARTING
        if time.monotonic() - began > (START_PATIENCE if starting else session.PATIENCE):
            where = f"at {current.client.address}" if current.client is not None else "yet"
            raise ServerError(f"No server answers {where}; start it in the Server panel.")
        yield ExportStep(0.0, "Starting the server" if starting else "Looking for the server")
        current.poll()


class POSEANYTHING_OT_generate(bpy.types.Operator):
    bl_idname = "poseanything.generate"
    bl_label = "Generate"
    bl_description = (
        "Export the shot, send it to the server, and put the frames into the sequencer while they arrive. "
        "Blender stays usable; another shot may be generated meanwhile and is queued"
    )
    bl_options = {"REGISTER"}

    wait: BoolProperty(
        name="Wait",
        description="Return when all frames are there; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        reason = shots.why_not(context) if session.get().exporting is None else "Wait for the export to end"
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context):
        steps = generate(context)
        try:
            while True:
                next(steps)
                time.sleep(0)
        except StopIteration as finished:
            job = finished.value
        except BAD_INPUT as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if not self.wait:
            return {"FINISHED"}
        current = session.get()
        while not job.ended or current.unfinished(job):
            current.poll()
            time.sleep(0.01)
        if job.state != DONE:
            self.report({"ERROR"}, job.sentence)
            return {"CANCELLED"}
        return {"FINISHED"}

    def invoke(self, context, event):
        self._steps = generate(context)
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        session.get().exporting = ExportStep(0.0, "Starting")
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type == "ESC" and event.value == "PRESS":
            self._leave(context)
            self.report({"INFO"}, "Export cancelled")
            return {"CANCELLED"}
        if event.type != "TIMER":
            return {"RUNNING_MODAL"}
        end = time.perf_counter() + TICK
        try:
            while time.perf_counter() < end:
                step = next(self._steps)
                session.get().exporting = step
                if step.fraction == 0.0:
                    break  # it waits for somebody else
        except StopIteration:
            self._leave(context)
            return {"FINISHED"}
        except BAD_INPUT as error:
            self._leave(context)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        context.workspace.status_text_set(f"{step.text} ({step.fraction:.0%})   Esc: Cancel")
        session.redraw()
        return {"RUNNING_MODAL"}

    def cancel(self, context):
        self._leave(context)

    def _leave(self, context):
        self._steps.close()
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)
        session.get().exporting = None
        session.redraw()


class POSEANYTHING_OT_cancel(bpy.types.Operator):
    bl_idname = "poseanything.cancel"
    bl_label = "Cancel"
    bl_description = "End this clip; the frames that have arrived are kept"
    bl_options = {"INTERNAL"}

    job: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        current = session.get()
        jobs = [current.jobs[self.job]] if self.job in current.jobs else current.active()
        for job in jobs:
            current.cancel(job)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_generate, POSEANYTHING_OT_cancel))
