"""What is going on, at the bottom of the window, while other things are done."""

from __future__ import annotations

import bpy

from .. import session
from ..connection.jobs import RUNNING
from ..texts.translation import tell


def _draw(self, context):
    bridge = session.get().bridge
    active = [*bridge.active(), *bridge.searching()]
    if not active:
        return
    job = next((job for job in active if job.state == RUNNING), active[0])
    row = self.layout.row()
    row.ui_units_x = 14
    row.progress(
        factor=job.fraction(),
        text=tell(
            "{take}: {what} (+{count})" if len(active) > 1 else "{take}: {what}",
            take=job.label,
            what=job.describe(),
            count=len(active) - 1,
        ),
    )


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(_draw)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(_draw)
