"""What is going on, at the bottom of the window, while other things are done."""

from __future__ import annotations

import bpy

from .. import session
from ..connection.jobs import RUNNING


def _draw(self, context):
    active = session.get().bridge.active()
    if not active:
        return
    job = next((job for job in active if job.state == RUNNING), active[0])
    more = f" (+{len(active) - 1})" if len(active) > 1 else ""
    row = self.layout.row()
    row.ui_units_x = 14
    row.progress(factor=job.fraction(), text=f"{job.take.name}: {job.describe()}{more}")


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(_draw)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(_draw)
