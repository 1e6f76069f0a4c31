"""Clips that are being generated."""

from __future__ import annotations

from collections.abc import Sequence

from .. import session
from ..connection.events import CONNECTED
from ..connection.jobs import DONE, FAILED, LEFT, RUNNING, Job
from ..operators.serving import is_here
from ..request.finding import Finding, is_set
from ..texts import say
from ..texts.translation import shown, tell
from . import pictures
from .text import beside, is_wide, paragraph


def draw_progress(layout, context, told: Sequence[Finding] = ()) -> None:
    """The export, every job that has not ended, and what became of the last one; `told` is what is told
    already."""
    current, bridge = session.get(), session.get().bridge
    pictures.drop_all_but(bridge.previews)
    if current.exporting is not None:
        step = current.exporting
        row = layout.row()
        row.progress(factor=step.fraction, text=tell("{what} (Esc cancels)", what=step.text))
    for job in bridge.active():
        _draw_active(layout, context, job)
    known = [one.button for one in told]
    left = [one for one in current.findings if one.button not in known and not is_set(context, one)]
    draw_findings(layout, context, left)
    ended = [job for job in bridge.jobs.values() if job.ended]
    if ended and ended[-1].state == DONE:
        last = ended[-1]
        row = layout.split(factor=0.75) if is_wide(context) else layout.column()
        row.label(
            text=tell("{take}: {frames} frames", take=last.take.name, frames=last.frames), icon="CHECKMARK"
        )
        row.operator("poseanything.show_take", text="Show").take_id = last.id
    elif ended:
        last = ended[-1]
        failed = last.state == FAILED
        paragraph(
            layout,
            context,
            say("{take}: {what}", take=last.take.name, what=last.sentence),
            "ERROR" if failed else "INFO",
            alert=failed,
        )
        if last.state == LEFT:
            layout.operator("poseanything.fetch_unfinished", icon="IMPORT")
        elif failed:
            _draw_failed(layout, context, last)


def _draw_failed(layout, context, job: Job) -> None:
    """What may help after a clip that failed."""
    row = beside(layout, context)
    row.operator("poseanything.make_again", text="Try Again").take_id = job.id
    if session.get().bridge.server.is_up:
        row.operator("poseanything.show_server_log", icon="TEXT")
    else:
        draw_start(layout, context)


def draw_findings(layout, context, findings) -> None:
    """What is wrong with the last clip that was exported, with a button where one helps."""
    for finding in findings:
        box = layout.box()
        paragraph(box, context, finding.sentence, "ERROR")
        if finding.operator:
            draw_button(box, finding)


def draw_start(layout, context) -> None:
    """The button that has a server answer, where it may be started from here."""
    bridge = session.get().bridge
    if is_here(context) and not bridge.server.is_up and bridge.link.state != CONNECTED:
        layout.operator("poseanything.start_server", icon="PLAY")


def draw_button(layout, finding: Finding, icon: str = "NONE") -> None:
    """The button that helps."""
    button = layout.operator(finding.operator, text=shown(finding.label), icon=icon)
    for name, value in finding.properties:
        setattr(button, name, value)


def _draw_active(layout, context, job: Job) -> None:
    box = layout.box()
    preview = session.get().bridge.previews.get(job.id)
    if preview is not None and not job.frames:
        box.template_icon(icon_value=pictures.icon_of(preview), scale=6.0)
    name = job.take.name
    text = name if job.neural else say("{name}: animatic, no neural network", name=name)
    paragraph(box, context, text, "SEQUENCE")
    row = box.row(align=True)
    if job.state == RUNNING:
        row.progress(factor=job.fraction(), text=shown(job.describe()))
    else:
        row.label(text=shown(job.describe()), icon="SORTTIME")
    row.operator("poseanything.cancel", text="", icon="X").job = job.id
