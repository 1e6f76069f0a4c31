"""Clips that are being generated, and finished ones."""

from __future__ import annotations

from .. import session
from ..connection.jobs import DONE, FAILED, RUNNING, Job
from . import pictures
from .text import light, paragraph

ANIMATIC = "Animatic, no neural network"


def draw_progress(layout, context) -> None:
    """The export and every job that has not ended, and why the last one failed."""
    current, bridge = session.get(), session.get().bridge
    pictures.drop_all_but(bridge.previews)
    if current.exporting is not None:
        step = current.exporting
        row = layout.row()
        row.progress(factor=step.fraction, text=f"{step.text} (Esc cancels)")
    for job in bridge.active():
        _draw_active(layout, context, job)
    draw_findings(layout, context, current.findings)
    ended = [job for job in bridge.jobs.values() if job.ended]
    if ended and ended[-1].state != DONE:
        last = ended[-1]
        failed = last.state == FAILED
        paragraph(
            layout, context, f"{last.take.name}: {last.sentence}", "ERROR" if failed else "INFO", alert=failed
        )


def draw_findings(layout, context, findings) -> None:
    """What is wrong with the last clip that was exported, with a button where one helps."""
    for finding in findings:
        box = layout.box()
        paragraph(box, context, finding.sentence, "ERROR")
        if finding.operator:
            button = box.operator(finding.operator, text=finding.label)
            for name, value in finding.properties:
                setattr(button, name, value)


def _draw_active(layout, context, job: Job) -> None:
    box = layout.box()
    preview = session.get().bridge.previews.get(job.id)
    if preview is not None and not job.frames:
        box.template_icon(icon_value=pictures.icon_of(preview), scale=6.0)
    box.label(text=job.take.name if job.neural else f"{job.take.name}: {ANIMATIC.lower()}", icon="SEQUENCE")
    row = box.row(align=True)
    if job.state == RUNNING:
        row.progress(factor=job.fraction(), text=job.describe())
    else:
        row.label(text=job.describe(), icon="SORTTIME")
    row.operator("poseanything.cancel", text="", icon="X").job = job.id


def draw_takes(layout, context, most: int = 5) -> None:
    """The newest ended jobs of this session, newest first."""
    ended = [job for job in session.get().bridge.jobs.values() if job.ended]
    for job in reversed(ended[-most:]):
        box = layout.box().column(align=True)
        row = box.row(align=True)
        row.label(text=job.take.name, icon=light("green" if job.state == DONE else "red"))
        row.operator("poseanything.retake", text="", icon="FILE_REFRESH").take_id = job.id
        row.operator("poseanything.make_again", text="", icon="LOOP_BACK").take_id = job.id
        row.operator("poseanything.use_take_settings", text="", icon="IMPORT").take_id = job.id
        row.operator("poseanything.open_take", text="", icon="FILE_FOLDER").take_id = job.id
        kind = "" if job.neural else f", {ANIMATIC.lower()}"
        box.label(text=f"{job.frames} of {job.take.num_frames} frames{kind}")
        if job.sentence:
            paragraph(box, context, job.sentence)
    layout.operator("poseanything.add_take", icon="ADD")
