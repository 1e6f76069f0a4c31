"""The live views themselves: on, off, and what Blender's doings mean to them.

There is one for the scene's camera, whichever that is, and one for each camera that a 3D view has of its own
(*Local Camera*); they are on and off by themselves.

Handlers read the pose whenever Blender has evaluated the scene, which never waits for anybody: the client's
thread sends the latest one, and a timer brings its picture. While it is off there are neither handlers nor a
timer.
"""

from __future__ import annotations

import logging
import time

import bpy
from bpy.app.handlers import persistent

from .. import handlers, session, threads
from ..connection.client import BridgeClient
from ..errors import ExportError
from ..shared.messages import LiveEnded, LivePicture, LivePose, LiveReady
from ..texts import say
from .opening import Opened, outdated
from .picture import IMAGE, Picture

log = logging.getLogger(__name__)

WAITING, RESTING = 0.005, 0.05
"""Seconds between two looks for a picture, while one is on its way and while none is."""
CHECK = 0.5
"""Seconds between two looks whether all has to be opened anew."""


class Live:
    """What one camera sees; `camera` is its name where a 3D view has it of its own, "" for the scene's.

    `sentence` says what keeps it from showing pictures, "" where nothing does; `stale` whether the first
    frame is to be made anew, which the user asks for. `latency` is how many seconds lay between the last
    pose and its picture, and `note` is the engine's."""

    def __init__(self, camera: str = ""):
        self.camera = camera
        self.picture = Picture(f"{IMAGE} {camera}".strip())
        self._close()

    def _close(self) -> None:
        self.opened: Opened | None = None
        self._client: BridgeClient | None = None
        self.ready = self.stale = False
        self.sentence = self.note = ""
        self.latency = 0.0
        self._number = 0
        self._sent: dict[int, float] = {}
        self._answers: list[LiveReady | LivePicture | LiveEnded] = []
        self._last: tuple = ()
        self._checked = 0.0

    @property
    def on(self) -> bool:
        return self.opened is not None

    @property
    def session(self) -> str:
        return self.opened.message.session if self.opened else ""

    def begin(self, opened: Opened) -> None:
        """Show what was opened from now on, in place of what was before. Raises `ExportError`."""
        client = session.get().bridge.client
        if client is None:
            raise ExportError("The server was stopped; switch Live on again.")
        if self.on:
            self._client.close_live(self.session)
        elif not all_on():
            handlers.add(_HANDLERS)
        self._close()
        self.opened, self._client = opened, client
        client.open_live(opened.message)
        if not bpy.app.timers.is_registered(_tick):
            bpy.app.timers.register(_tick, persistent=True)

    def end(self, sentence: str = "") -> None:
        """Switch it off; nothing of it runs from then on."""
        was_on = self.on
        if was_on:
            self._client.close_live(self.session)
        self._close()
        self.picture.clear()
        self.sentence = sentence
        if was_on and not all_on():
            handlers.remove(_HANDLERS)
            if bpy.app.timers.is_registered(_tick):
                bpy.app.timers.unregister(_tick)
        redraw()

    # What happens in the scene

    def follow(self, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
        """Have the pose drawn that the scene has now, if it is another one."""
        if not self.ready or not self.opened.follower.is_of(scene) or session.get().exporting is not None:
            return
        try:
            found = self.opened.follower.read(scene, depsgraph)
        except (ExportError, ReferenceError):
            found = None  # the camera or an armature is gone; the next look says so
        if found is None:
            return
        pose, motion = found
        now = pose.points.tobytes(), None if motion is None else motion.tobytes()
        if now == self._last:
            return
        self._last = now
        self._number += 1
        self._sent[self._number] = time.perf_counter()
        self._client.pose_live(LivePose(self.session, self._number, pose, motion))

    def fetch(self, drawing: bool = False) -> bool:
        """Take a picture that has come; whether there was one. A redraw may ask too: where that takes long,
        the picture of the pose that it draws has come before it ends. Compressed ones wait until it has."""
        if self._client is None:
            return False
        shown = False
        for answer in self._client.poll_live():
            for live in all_on():
                if live.session == answer.session:
                    live._answers.append(answer)
        answers = self._answers
        latest = max((answer.number for answer in answers if isinstance(answer, LivePicture)), default=0)
        self._answers = []
        for answer in answers:
            if isinstance(answer, LivePicture) and answer.number < latest:
                continue
            if isinstance(answer, LivePicture) and (answer.format == "raw" or not drawing):
                self._show(answer)
                shown = True
            else:
                self._answers.append(answer)
        return shown

    def poll(self) -> bool:
        """Take in what the server has answered; whether there was anything."""
        if session.get().bridge.client is not self._client:
            self.end(say("The connection to the server was closed; switch Live on again."))
            return True
        shown, answers = self.fetch(), self._answers
        self._answers = []
        for answer in answers:
            if isinstance(answer, LiveEnded):
                self.end(answer.message)
                return True
            self.ready, self.note, self._last = True, answer.note, ()
            self.follow(bpy.context.scene, bpy.context.evaluated_depsgraph_get())
        self.picture.fill_image()
        return shown or bool(answers)

    def _show(self, answer: LivePicture) -> None:
        begun = self._sent.get(answer.number)
        self._sent = {number: at for number, at in self._sent.items() if number > answer.number}
        if begun is not None:
            self.latency = time.perf_counter() - begun
        self.picture.take(answer)

    def check(self, context) -> bool:
        """Look now and then whether all has to be opened anew; whether it has, by `refresh_live`."""
        now = time.monotonic()
        if now - self._checked < CHECK or not self.ready:
            return False
        self._checked = now
        settings = context.scene.poseanything
        if not self.opened.follower.is_of(context.scene):
            return False
        try:
            why = outdated(context, settings, self.opened, self.camera)
        except ExportError as error:
            self.sentence = str(error)
            return False
        except ReferenceError:
            self.stale, self.sentence = True, say("An armature that was followed is gone; refresh Live.")
            return False
        self.stale, self.sentence = why == "picture", ""
        return why == "scene"


_lives: dict[str, Live] = {"": Live()}


def get(camera: str = "") -> Live:
    """The live view of a camera by its name, "" for the scene's."""
    if camera not in _lives:
        _lives[camera] = Live(camera)
    return _lives[camera]


def of(context) -> Live:
    """The live view of what a 3D view looks through."""
    space = context.space_data
    if space is None or space.type != "VIEW_3D" or not space.use_local_camera:
        return get()
    own = space.camera
    return get(own.name if own is not None and own != context.scene.camera else "")


def all_on() -> list[Live]:
    return [live for live in _lives.values() if live.on]


def redraw() -> None:
    """Redraw the camera views, and the Image Editors that show the picture."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            space = area.spaces.active
            if area.type == "VIEW_3D":
                shown = space.region_3d.view_perspective == "CAMERA"
            else:
                image = space.image if area.type == "IMAGE_EDITOR" else None
                shown = image is not None and image.name.startswith(IMAGE)
            if shown:
                area.tag_redraw()


def _tick() -> float | None:
    try:
        if any([live.poll() for live in all_on()]):
            redraw()
        _refresh()
    except Exception as error:  # a timer that raises is never called again
        log.exception("The live view failed")
        for live in all_on():
            live.end(
                say(
                    "Live has a fault ({error}); the system console has the details for a bug report.",
                    error=error,
                )
            )
    lives = all_on()
    if not lives:
        return None
    return WAITING if any(live._sent for live in lives) else RESTING


def _refresh() -> None:
    """Open anew what has changed, in a moment in which nobody works."""
    windows = bpy.context.window_manager.windows
    if not windows or any(
        len(window.modal_operators) or window.screen.is_animation_playing for window in windows
    ):
        return
    if session.get().exporting is not None:
        return
    with bpy.context.temp_override(window=windows[0]):
        changed = next((live for live in all_on() if live.check(bpy.context)), None)
        if changed is not None:
            with threads.still() as still:
                if still and bpy.ops.poseanything.refresh_live.poll():
                    bpy.ops.poseanything.refresh_live("INVOKE_DEFAULT", anew=False, camera=changed.camera)


@persistent
def _after_change(scene, depsgraph) -> None:
    for live in all_on():
        live.follow(scene, depsgraph)


@persistent
def _before_undo(*_) -> None:
    for live in all_on():
        live.opened.follower.remember()


@persistent
def _after_undo(scene, *_) -> None:
    for live in all_on():
        live.opened.follower.rebind()
        live.follow(scene, bpy.context.evaluated_depsgraph_get())


@persistent
def _before_load(*_) -> None:
    for live in all_on():
        live.end()


_HANDLERS = {
    "depsgraph_update_post": _after_change,
    "frame_change_post": _after_change,
    "undo_pre": _before_undo,
    "redo_pre": _before_undo,
    "undo_post": _after_undo,
    "redo_post": _after_undo,
    "load_pre": _before_load,
}


def register() -> None:
    pass


def unregister() -> None:
    for live in all_on():
        live.end()
    _lives.clear()
    _lives[""] = Live()
