"""What lives as long as the extension is enabled: the bridge to the server and the arrival of its frames.

`Session.poll` is the only place where what the client's thread heard reaches Blender; a timer calls it
(`ui.refresh`), and so does whoever waits in background mode, where timers don't fire.
"""

from __future__ import annotations

import atexit
import dataclasses
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
from bpy.app.handlers import persistent

from . import engine_settings, handlers, preferences, threads
from .connection.bridge import Bridge
from .connection.jobs import LEFT, Job
from .connection.server import ServerError
from .connection.weights import WeightsFetch
from .rig.motion import Motion
from .sequencer.arrival import Arrival
from .shared.engines import EngineDescription, find_engine
from .shared.messages import GenerationRequest
from .takes import unfinished
from .takes.take import Take, to_json
from .takes.unfinished import Unfinished
from .texts import say


class Session:
    """Made by `register`, ended by `unregister`; `get` gives it.

    `exporting` is how far an export is that runs in the window, or None. `findings` are what the last export
    found wrong with its clip (`request.review.Finding`), `motions` how each
    armature, by its `session_uid`, moved when it was last looked at, `camera_paths` how the background of a
    scene's range moved, by the scene's name and the range. `sentence` is what went wrong without anybody
    having asked for it.
    """

    def __init__(self, version: str):
        self.version = version
        self.bridge = Bridge(version)
        self.arrival = Arrival()
        self.weights = WeightsFetch()
        self.exporting = None
        self.findings: tuple = ()
        self.motions: dict[int, Motion] = {}
        self.camera_paths: dict[tuple, np.ndarray] = {}
        self.sentence = ""
        self._address: str | None = None
        self._looked_at: float | None = None

    def cured(self, *operators: str) -> None:
        """Operators have helped against what the last export found; it is told no more."""
        self.findings = tuple(one for one in self.findings if one.operator not in operators)

    def reach_server(self, context: bpy.types.Context) -> None:
        """Connect to the server, starting it where the user wants that. Raises `ServerError` when none can
        answer."""
        self.follow_address(context)
        prefs = preferences.get(context)
        self.bridge.reach(
            folder=preferences.server_folder(context),
            python=bpy.path.abspath(prefs.server_python),
            server=preferences.server(context),
            autostart=prefs.autostart,
            online=bpy.app.online_access,
        )
        self.sentence = ""

    def connect(self, context: bpy.types.Context) -> None:
        """Connect, if a connection may be had without starting anything."""
        self.follow_address(context)
        if self.bridge.client is not None:
            return
        self._looked_at = time.monotonic()
        try:
            self.bridge.connect_if_running(preferences.server(context), bpy.app.online_access)
        except ServerError as error:
            self.sentence = str(error)
        else:
            self.sentence = ""

    @property
    def looking(self) -> bool:
        """Whether a server may be about to answer: it was looked for only just now."""
        return self._looked_at is None or time.monotonic() - self._looked_at < 1.5

    @property
    def engines(self) -> tuple[EngineDescription, ...]:
        """The server's engines; while none answers, those of the last one that did."""
        return self.bridge.engines or engine_settings.described()

    def engine(self, name: str) -> EngineDescription | None:
        """One of `engines` by name; "" is the best that is ready."""
        return find_engine(self.engines, name)

    def submit(
        self,
        request: GenerationRequest,
        take: Take,
        scene: bpy.types.Scene,
        engine: EngineDescription,
        make_movie: bool = False,
        warnings: tuple[str, ...] = (),
        filmed: bpy.types.Scene | None = None,
        start: int | None = None,
    ) -> Job:
        """Send a request; its frames go to the take's folder and onto a strip in `scene`, at `start` or where
        they are filmed. The list of the scene that is `filmed` has the take."""
        self.bridge.keep_going = preferences.get(bpy.context).keep_going
        job = self.bridge.submit(request, take, engine, warnings)
        job.unfinished = Unfinished(
            job=job.id,
            account=self.bridge.account,
            width=request.width,
            height=request.height,
            file=bpy.data.filepath,
            scene=scene.name,
            filmed=(filmed or scene).name,
            start=start,
            make_movie=make_movie,
            take=to_json(take),
        )
        self._leave(job)
        self.arrival.forget(self.bridge.jobs)
        self.arrival.expect(job, scene, make_movie, filmed, start)
        return job

    def adopt(self, left: Unfinished, take: Take, scene: bpy.types.Scene, filmed: bpy.types.Scene) -> Job:
        """Fetch the rest of a take that the server has; what else is as in `submit`."""
        size = left.width, left.height
        job = self.bridge.adopt(left.job, take, size, unfinished.whole_frames(take, size))
        job.unfinished = left
        self.arrival.expect(job, scene, left.make_movie, filmed, left.start)
        return job

    def note_file(self) -> None:
        """The file that is open has been saved, perhaps under another name: its takes are found by that."""
        for name, job in self.bridge.jobs.items():
            placement = self.arrival.placements.get(name)
            if job.unfinished is None or placement is None or placement.file in ("", job.unfinished.file):
                continue
            job.unfinished = dataclasses.replace(job.unfinished, file=placement.file)
            self._leave(job)

    def _leave(self, job: Job) -> None:
        try:
            unfinished.leave(job.take.folder, job.unfinished)
        except OSError:
            pass  # the folder is gone, as the job is about to find

    def keep_motions(self, motions: dict[bpy.types.Object, Motion]) -> None:
        """Remember how armatures move, for what the panels say of their bones."""
        self.motions |= {armature.session_uid: motion for armature, motion in motions.items()}

    def cancel(self, job: Job) -> None:
        """End a job, or the encoding of its movie; its frames are kept."""
        if not self.arrival.cancel_movie(job):
            self.bridge.cancel(job)

    def in_progress(self, job: Job) -> bool:
        """Whether more of a job is to come, from the server or onto the strip."""
        return not job.ended or self.arrival.pending(job)

    def poll(self, budget: float = 0.004) -> bool:
        """Bring what happened since into Blender, for about `budget` seconds; returns whether there was
        anything."""
        heard = self.bridge.poll()
        if self.bridge.engines:
            engine_settings.follow(self.bridge.engines)
        self._note_endings()
        changed = self.arrival.poll(budget) or heard
        at_work = self.exporting is not None or any(map(self.in_progress, self.bridge.jobs.values()))
        if self.arrival.untidy and not at_work:
            self.tidy_strips()
        return changed

    def wait_while(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds no more; for scripts, which nobody watches."""
        while condition():
            self.poll()
            time.sleep(0.01)

    def _note_endings(self) -> None:
        """A take that is over has no need of a record of what is left of it."""
        for job in self.bridge.jobs.values():
            if job.ended and job.state != LEFT and job.unfinished is not None:
                unfinished.clear(job.take.folder)
                job.unfinished = None

    def tidy_strips(self) -> None:
        """Set right what arriving frames, or an earlier release, left in strips."""
        with threads.still() as still:
            if still:
                self.arrival.tidy()

    def close(self) -> None:
        self.weights.cancel()
        self.arrival.close()
        self.bridge.close()
        self._note_endings()

    def follow_address(self, context: bpy.types.Context) -> None:
        """Leave the server that the preferences named before."""
        address = preferences.server(context)
        if self._address not in (None, address):
            self.bridge.disconnect(say("The server's address was changed."))
            self.bridge.server.stop()
        self._address = address


_session: Session | None = None


def get() -> Session:
    """The session; there is one whenever the extension is enabled."""
    if _session is None:
        raise RuntimeError("The PoseAnything Bridge extension is not enabled.")
    return _session


@persistent
def _before_undo(*_) -> None:
    get().arrival.before_undo()


@persistent
def _after_undo(*_) -> None:
    get().arrival.after_undo()


@persistent
def _after_load(*_) -> None:
    get().tidy_strips()
    get().arrival.after_load()


@persistent
def _after_save(*_) -> None:
    get().arrival.after_save()
    get().note_file()


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
    handlers.add(_HANDLERS)
    atexit.register(_session.close)


def unregister() -> None:
    global _session
    handlers.remove(_HANDLERS)
    atexit.unregister(_session.close)
    _session.close()
    _session = None
