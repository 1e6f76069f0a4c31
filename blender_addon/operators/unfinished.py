"""Fetch what other Blenders have left at the server."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.handlers import persistent
from bpy.props import BoolProperty

from .. import session
from ..connection import goodbyes
from ..connection.goodbyes import Goodbyes
from ..connection.jobs import LEFT, Job
from ..connection.server import ServerError
from ..errors import ExportError
from ..request.output import output_folder
from ..sequencer import edit_scene, take_list
from ..takes import unfinished
from ..takes.take import TakeError
from ..takes.unfinished import Unfinished
from .refusal import refuse


def find_unfinished(context) -> list[tuple[Path, Unfinished]]:
    """The takes of this file of which something is to come yet, listed or lying where its takes go, for
    Blender may have ended before it was saved."""
    found: dict[str, tuple[Path, Unfinished]] = {}
    folders = set()
    for scene in bpy.data.scenes:
        for item in scene.poseanything_takes.items:
            if (left := take_list.left_of(item)) is not None:
                found[left.job] = take_list.folder_of(item), left
        try:
            folders.add(output_folder(context, scene.poseanything))
        except ExportError:
            continue
    if bpy.data.filepath:
        for folder in folders:
            for place, left in unfinished.find(folder):
                if left.file == bpy.data.filepath and left.job not in Goodbyes(left.account):
                    found.setdefault(left.job, (place, left))
    return list(found.values())


def pick_up(context) -> list[Job]:
    """Go on with the takes of this file that another Blender, or this one, has left unfinished at the server,
    which is also told of what is over."""
    current, picked = session.get(), []
    waiting = find_unfinished(context)
    if waiting or goodbyes.any_waiting():
        current.connect(context)
    bridge = current.bridge
    for folder, left in waiting:
        known = bridge.jobs.get(left.job)
        if bridge.client is None or left.account != bridge.account:
            continue
        if known is not None and known.state != LEFT:
            continue
        try:
            take = unfinished.restore(folder, left)
        except TakeError as error:
            current.sentence = str(error)
            continue
        filmed = bpy.data.scenes.get(left.filmed) or context.scene
        scene = bpy.data.scenes.get(left.scene)
        if scene is None:
            scene = edit_scene.target_scene(context, filmed.poseanything.strips_go_to)
        picked.append(current.adopt(left, take, scene, filmed))
    return picked


class POSEANYTHING_OT_fetch_unfinished(bpy.types.Operator):
    bl_idname = "poseanything.fetch_unfinished"
    bl_label = "Fetch Unfinished Takes"
    bl_description = (
        "Go on with the takes of this file that were being generated when Blender was closed; the server is "
        "started if need be. It happens by itself when the file is opened and the server runs"
    )
    bl_options = {"REGISTER"}

    wait: BoolProperty(
        name="Wait",
        description="Return when all frames are there; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        if not find_unfinished(context):
            cls.poll_message_set("No take of this file is unfinished")
            return False
        return True

    def execute(self, context):
        current = session.get()
        try:
            current.reach_server(context)
            bridge = current.bridge
            current.wait_while(lambda: self.wait and bridge.client is None and bridge.server.is_up)
            jobs = pick_up(context)
        except ServerError as error:
            return refuse(self, error)
        for job in jobs:
            job.awaited = self.wait
        current.wait_while(lambda: self.wait and any(map(current.in_progress, jobs)))
        return {"FINISHED"}


@persistent
def _after_load(*_) -> None:
    if not bpy.app.background:  # a render farm has no use for it
        pick_up(bpy.context)


_register, _unregister = bpy.utils.register_classes_factory((POSEANYTHING_OT_fetch_unfinished,))


def register() -> None:
    _register()
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    _unregister()
