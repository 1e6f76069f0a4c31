"""The running state of the extension: one client, at most one server process, the jobs. Made by register(),
ended by unregister().

`Session.poll` is the only place where what the client's thread heard reaches Blender; a timer calls it,
and so does whoever waits in background mode, where timers don't fire.
"""

from __future__ import annotations

import atexit
import logging
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from .connection import server as server_process
from .connection.client import CONNECTED, CONNECTING, BridgeClient, LinkState
from .connection.jobs import DONE, ENCODING, WAITING, Job
from .connection.server import ServerError, ServerProcess, chooses_port, is_local
from .sequencer import strips
from .sequencer.movie import MovieEncoding
from .shared.messages import EngineDescription, Failed, GenerationRequest, Preview
from .takes.take import Take, TakeError
from .takes.writer import TakeWriter

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that a job waits for a server that nobody is starting."""
MAX_REMEMBERED = 50
"""Ended jobs kept for the panel."""


class Session:
    """Everything that lives as long as the extension is enabled."""

    def __init__(self, version: str):
        self.version = version
        self.connect_as_preferred: Callable[[], None] | None = None
        self.client: BridgeClient | None = None
        self.server = ServerProcess()
        self.link = LinkState(CONNECTING)
        self.engines: tuple[EngineDescription, ...] = ()
        self.device = ""
        self.sentence = ""
        self.jobs: dict[str, Job] = {}
        self.previews: dict[str, Preview] = {}
        self.wanted = False
        self.exporting = None
        self._encodings: dict[str, MovieEncoding] = {}
        self._undo_steps: list[tuple[str, Job]] = []
        self._server_state = server_process.STOPPED

    # Connection

    def connect(self, address: str, online: bool) -> None:
        """Talk to the server at an address from now on. Raises `ServerError`."""
        if self.client is not None and self.client.address == address:
            return
        server_process.check_address(address)
        if not is_local(address) and not online:
            raise ServerError(
                f"Blender is set to stay offline; allow online access in Preferences > System to use "
                f"{address}."
            )
        self.disconnect("The server's address was changed.")
        client = BridgeClient(address, self.version)
        try:
            client.start()
        except ValueError as error:
            client.close()
            raise ServerError(str(error)) from error
        self.client, self.sentence = client, ""

    def disconnect(self, why: str = "") -> None:
        """Cancel what runs and stop talking."""
        if self.client is None:
            return
        for job in self.active():
            if job.state != ENCODING:
                job.hear(Failed(job=job.id, message=why))
        self.client.close()
        self.client, self.link, self.engines, self.device = None, LinkState(CONNECTING), (), ""

    def reach_server(self, folder: str, python: str, address: str, autostart: bool, online: bool) -> None:
        """Make sure that a server answers or may soon do so. Raises `ServerError` when none will."""
        if self.server.state == server_process.RUNNING:
            self.connect(self.server.address, online)
        if self.server.is_up:
            return
        if not chooses_port(address):
            self.connect(address, online)
            if self.link.state == CONNECTED or not is_local(address) or server_process.is_taken(address):
                return
        if not autostart:
            raise ServerError(f"No server answers at {address}; start it in the Server panel.")
        self.server.start(folder, python, address)

    def engine(self, name: str) -> EngineDescription | None:
        """An engine of the server by name; "" is the best that is ready."""
        ready = [engine for engine in self.engines if engine.ready]
        if name:
            return next((engine for engine in self.engines if engine.name == name), None)
        return next((engine for engine in ready if engine.neural), ready[0] if ready else None)

    # Jobs

    def submit(
        self,
        request: GenerationRequest,
        take: Take,
        scene: bpy.types.Scene,
        engine: EngineDescription,
        make_movie: bool = False,
        warnings: tuple[str, ...] = (),
    ) -> Job:
        """Send a request; its frames go to the take's folder and onto a strip in `scene`."""
        job = Job(
            id=request.job,
            take=take,
            engine_label=engine.label,
            neural=engine.neural,
            scene_uid=scene.session_uid,
            scene_name=scene.name,
            file=bpy.data.filepath,
            make_movie=make_movie,
            warnings=warnings,
        )
        self._forget_old()
        self.jobs[job.id] = job
        self.client.submit(request, TakeWriter(take.folder, take.name, take.num_frames))
        return job

    def active(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return [job for job in self.jobs.values() if not job.ended]

    def unfinished(self, job: Job) -> bool:
        """Whether an ended job's frames have yet to be shown."""
        return self._needs_showing(job)

    def cancel(self, job: Job) -> None:
        if (encoding := self._encodings.pop(job.id, None)) is not None:
            encoding.close()
            job.state, job.sentence = DONE, "The frames are complete; there is no movie."
        elif self.client is not None:
            self.client.cancel(job.id)

    def poll(self, budget: float = 0.004) -> bool:
        """Bring what happened since into Blender, for about `budget` seconds; returns whether there was
        anything."""
        end = time.perf_counter() + budget
        changed = self._watch_server()
        if self.client is not None:
            for event in self.client.poll():
                self._hear(event)
                changed = True
        self._give_up_waiting()
        if not bpy.app.is_job_running("RENDER"):
            for job in list(self.jobs.values()):
                if time.perf_counter() < end and self._needs_showing(job):
                    self._show(job)
                    changed = True
        changed |= self._watch_encodings()
        self._push_undo()
        return changed

    def close(self) -> None:
        for encoding in self._encodings.values():
            encoding.close()
        self._encodings.clear()
        self.disconnect()
        self.server.stop(wait=True)

    # Blender's own doings

    def before_undo(self) -> None:
        for job in self.jobs.values():
            job.had_strip = strips.find_strip(job.id) is not None

    def after_undo(self) -> None:
        """Undo gives back strips as they were: what arrived since is added again, and so is the strip
        where undoing something else took it away. One that has an undo step of its own, and no more frames
        to come, stays undone."""
        for job in self.jobs.values():
            job.stale = True

    def after_load(self) -> None:
        for job in self.jobs.values():
            same_file = bool(job.file) and job.file == bpy.data.filepath
            job.present = same_file or strips.find_strip(job.id) is not None
            job.stale, job.had_strip = True, False
            if not job.ended or job.shown < job.frames:
                job.shown = 0

    def after_save(self) -> None:
        for job in self.jobs.values():
            if job.present:
                job.file = bpy.data.filepath

    # Within

    def _hear(self, event: object) -> None:
        if isinstance(event, LinkState):
            self.link = event
        job = self.jobs.get(getattr(event, "job", ""))
        if job is not None and not job.ended:
            job.hear(event)
            if isinstance(event, Preview):
                self.previews[job.id] = event
            if job.ended:
                self.previews.pop(job.id, None)
                if job.state == DONE and job.make_movie:
                    self._encode(job)
        if self.client is not None and (welcome := self.client.welcome) is not None:
            self.engines, self.device = welcome.engines, welcome.device

    def _watch_server(self) -> bool:
        state = self.server.state
        if state == self._server_state:
            return False
        self._server_state = state
        if state == server_process.RUNNING:
            self.connect(self.server.address, online=False)
        elif state == server_process.FAILED:
            for job in self.active():
                if job.state == WAITING:
                    self.client.cancel(job.id)
                    job.hear(Failed(job=job.id, message=self.server.sentence))
        return True

    def _give_up_waiting(self) -> None:
        if self.link.state == CONNECTED or self.server.state == server_process.STARTING:
            return
        for job in self.active():
            if job.state == WAITING and time.monotonic() - job.began > PATIENCE:
                self.client.cancel(job.id)
                message = (
                    f"No server answers at {self.client.address}; start it in the Server panel and "
                    "generate again."
                )
                job.hear(Failed(job=job.id, message=message))

    def _needs_showing(self, job: Job) -> bool:
        return job.present and job.frames > 0 and (job.stale or job.shown < job.frames)

    def _show(self, job: Job) -> None:
        found = strips.find_strip(job.id)
        first = job.shown == 0
        undone = job.stale and job.had_strip and not (job.ended and job.in_undo)
        job.shown, job.stale = job.frames, False
        if found is None and not first and not undone:
            return  # the user deleted it
        scene = found[0] if found is not None else self._scene_of(job)
        try:
            made = strips.show_frames(scene, job.id, job.take, job.frames)
        except (TakeError, RuntimeError) as error:
            job.sentence = f"The strip can't be made ({error}); the frames are in {job.take.folder}."
            return
        if made:
            job.in_undo = False
            if first:
                self._undo_steps.append((f"Generate {job.take.name}", job))

    def _scene_of(self, job: Job):
        for scene in bpy.data.scenes:
            if scene.session_uid == job.scene_uid:
                return scene
        return bpy.data.scenes.get(job.scene_name) or strips.sequencer_scene(bpy.context)

    def _encode(self, job: Job) -> None:
        render = self._scene_of(job).render
        try:
            self._encodings[job.id] = MovieEncoding(job.take, render.fps, render.fps_base)
        except TakeError as error:
            job.sentence = str(error)
        else:
            job.state = ENCODING

    def _watch_encodings(self) -> bool:
        ended = [name for name, encoding in self._encodings.items() if encoding.poll()]
        if not ended or bpy.app.is_job_running("RENDER"):
            return False
        for name in ended:
            job, encoding = self.jobs[name], self._encodings.pop(name)
            job.state = DONE
            try:
                path = encoding.result()
                if job.present:
                    strips.add_movie(self._scene_of(job), job.id, job.take, path)
                    self._undo_steps.append((f"Movie of {job.take.name}", job))
            except (TakeError, RuntimeError) as error:
                job.sentence = str(error)
        return True

    def _push_undo(self) -> None:
        """Give what the timer did an undo step, but not in the middle of somebody else's operator."""
        if not self._undo_steps or bpy.app.background:
            return
        windows = bpy.context.window_manager.windows
        if not windows or any(len(window.modal_operators) for window in windows):
            return
        with bpy.context.temp_override(window=windows[0]):
            if bpy.ops.ed.undo_push.poll():
                for message, job in self._undo_steps:
                    bpy.ops.ed.undo_push(message=message)
                    job.in_undo = True
        self._undo_steps.clear()

    def _forget_old(self) -> None:
        ended = [name for name, job in self.jobs.items() if job.ended]
        for name in ended[: max(0, len(ended) - MAX_REMEMBERED)]:
            del self.jobs[name]


_session: Session | None = None


def get() -> Session:
    """The session; there is one whenever the extension is enabled."""
    if _session is None:
        raise RuntimeError("The PoseAnything Bridge extension is not enabled.")
    return _session


def _tick() -> float:
    session = get()
    try:
        if session.wanted and session.client is None and session.connect_as_preferred is not None:
            session.wanted = False
            session.connect_as_preferred()
        if session.poll():
            redraw()
    except Exception:  # a timer that raises is never called again, and every job would stand still
        log.exception("The bridge stumbled")
        session.sentence = (
            "Something went wrong inside the extension; the system console has the details for a bug report."
        )
    return 0.05 if session.active() or session.server.state == server_process.STARTING else 0.5


def redraw() -> None:
    """Redraw the sidebars where the panels are, and the status bar."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "SEQUENCE_EDITOR", "PREFERENCES"}:
                for region in area.regions:
                    if region.type in {"UI", "WINDOW"} and (
                        region.type == "UI" or area.type == "PREFERENCES"
                    ):
                        region.tag_redraw()
        # Clearing what nobody has set makes the status bar draw itself again.
        if not len(window.modal_operators):
            window.workspace.status_text_set(None)


@persistent
def _before_undo(*_) -> None:
    get().before_undo()


@persistent
def _after_undo(*_) -> None:
    get().after_undo()


@persistent
def _after_load(*_) -> None:
    get().after_load()


@persistent
def _after_save(*_) -> None:
    get().after_save()


_HANDLERS = {
    "undo_pre": _before_undo,
    "redo_pre": _before_undo,
    "undo_post": _after_undo,
    "redo_post": _after_undo,
    "load_post": _after_load,
    "save_post": _after_save,
}


def register() -> None:
    global _session
    manifest = Path(__file__).with_name("blender_manifest.toml")
    _session = Session(tomllib.loads(manifest.read_text(encoding="utf-8"))["version"])
    for name, handler in _HANDLERS.items():
        getattr(bpy.app.handlers, name).append(handler)
    bpy.app.timers.register(_tick, first_interval=0.5, persistent=True)
    atexit.register(_session.close)


def unregister() -> None:
    global _session
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    for name, handler in _HANDLERS.items():
        getattr(bpy.app.handlers, name).remove(handler)
    atexit.unregister(_session.close)
    _session.close()
    _session = None
