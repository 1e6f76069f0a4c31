"""The timer that keeps the extension's state and its panels up to date."""

from __future__ import annotations

import logging

import bpy

from .. import session
from ..buttons import OF_SERVER
from ..connection import server
from ..connection.events import CONNECTED
from ..live import view
from ..operators.unfinished import pick_up
from ..operators.video import collect, pick_up_searches
from ..request.finding import Finding
from ..texts import say

log = logging.getLogger(__name__)

TAB = "PoseAnything"
"""The sidebar's tab with the panels."""
BUSY, IDLE = 0.05, 0.25
"""Seconds between two looks at what happened."""

_shown: tuple = ()
_told: dict[int, list[Finding]] = {}
"""What keeps the user from generating, as each area's panel last told it."""


def note_told(area: bpy.types.Area | None, findings: list[Finding]) -> None:
    """Note what an area's panel tells, so that the others are redrawn where that is new: what cures it in one
    editor need not redraw another."""
    if area is not None:
        _told[area.as_pointer()] = findings


def tick() -> float:
    """Poll the session and redraw the panels when something changed; gives the seconds until the next
    call."""
    global _shown
    current = session.get()
    try:
        if _panels_visible():
            current.connect(bpy.context)
        was_connected = current.bridge.link.state == CONNECTED
        changed = current.poll()
        if collect(bpy.context):
            changed = True
            redraw_views()
        fetch = current.weights
        lives = [(live.camera, live.stale, live.sentence) for live in view.all_on()]
        now = current.exporting, current.looking, fetch.state, fetch.stage, fetch.done, dict(_told), lives
        if changed or now != _shown:
            _shown = now
            redraw()
        if not was_connected and current.bridge.link.state == CONNECTED:
            current.cured(*(button.operator for button in OF_SERVER))
            pick_up(bpy.context)
            pick_up_searches(bpy.context)
    except Exception:  # a timer that raises is never called again, and every job would stand still
        log.exception("Polling the session failed")
        current.sentence = say(
            "Something went wrong inside the extension; the system console has the details for a bug report."
        )
    bridge = current.bridge
    busy = (
        bridge.active()
        or bridge.searching()
        or current.exporting is not None
        or bridge.server.state == server.STARTING
    )
    return BUSY if busy else IDLE


def redraw_views() -> None:
    """Redraw what poses are drawn over."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
                area.tag_redraw()


def redraw() -> None:
    """Redraw the sidebars where the panels are, the headers with Live's switch, and the status bar."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in _panel_regions(area):
                region.tag_redraw()
            for region in area.regions if area.type == "VIEW_3D" else ():
                if region.type == "HEADER":
                    region.tag_redraw()
        # Clearing what nobody has set makes the status bar draw itself again. Just after another timer has
        # opened a file there is no window to do so from, and Blender ends where that is tried.
        if not len(window.modal_operators) and bpy.context.window is not None:
            window.workspace.status_text_set(None)


def _panels_visible() -> bool:
    """Whether the user looks at a panel that tells whether a server answers."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in _panel_regions(area):
                if area.type == "PREFERENCES" or getattr(region, "active_panel_category", TAB) == TAB:
                    return True
    return False


def _panel_regions(area: bpy.types.Area) -> list[bpy.types.Region]:
    if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
        return [region for region in area.regions if region.type == "UI" and region.width > 1]
    if area.type == "PREFERENCES":
        return [region for region in area.regions if region.type == "WINDOW"]
    return []


def register() -> None:
    bpy.app.timers.register(tick, first_interval=0.5, persistent=True)


def unregister() -> None:
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    _told.clear()
