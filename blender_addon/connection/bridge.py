"""The bridge to the server: the client, the server's process where it runs on this computer, and the jobs.
It knows nothing of bpy."""

from __future__ import annotations

import time

from ..buttons import ALLOW_ONLINE_ACCESS, START_SERVER
from ..shared.engines import EngineDescription, find_engine
from ..shared.keys import TokenError, local_token
from ..shared.messages import (
    Failed,
    GenerationRequest,
    PoseFinderDescription,
    PoseRequest,
    Preview,
    WorkerStatus,
)
from ..takes.take import Take
from ..takes.writer import NoFrames, TakeWriter
from ..texts import say
from . import server as server_process
from .client import BridgeClient
from .events import CONNECTED, CONNECTING, LinkState
from .goodbyes import Goodbyes
from .jobs import ENCODING, INTERRUPTED, LEFT, WAITING, Job, PoseSearch, Task
from .server import ServerError, ServerProcess, parse_server

PATIENCE = 20.0
"""Seconds that a job waits for a server that nobody is starting. One that was interrupted waits for as long
as it takes, unless a script waits for it."""
MAX_RESTARTS = 3
"""How often a server of our own that ended in the middle of jobs is started again while this one runs."""
MAX_REMEMBERED = 50
"""Ended jobs kept for the panel."""


class Bridge:
    """One client, at most one server process, and what became of every request.

    Call `poll` often; nothing here changes between two calls of it except by the caller's own doing:

        bridge = Bridge(version="0.1.0")
        bridge.connect("tcp://127.0.0.1:47847", online=False)
        while bridge.engine("draft") is None:
            bridge.poll()
        job = bridge.submit(request, take, bridge.engine("draft"))
        while not job.ended:
            bridge.poll()
    """

    def __init__(self, version: str):
        self.version = version
        self.client: BridgeClient | None = None
        self.server = ServerProcess()
        self.link = LinkState(CONNECTING)
        self.engines: tuple[EngineDescription, ...] = ()
        self.device = ""
        self.pose_finder: PoseFinderDescription | None = None
        self.workers: tuple[WorkerStatus, ...] = ()
        self.jobs: dict[str, Job] = {}
        self.searches: dict[str, PoseSearch] = {}
        self.previews: dict[str, Preview] = {}
        self.keep_going = True
        """Whether jobs go on when this bridge is closed, or turns to another server."""
        self._server_state = server_process.STOPPED
        self._restarts = 0

    def connect(self, server: str, online: bool) -> None:
        """Talk to the server that an address or a token names from now on; `online` is whether another
        computer may be reached. Raises `ServerError`."""
        address, token = parse_server(server)
        if self.client is not None and (self.client.address, self.client.token) == (str(address), token):
            return
        if not address.is_loopback and not online:
            raise ServerError(
                say(
                    "Blender is set to stay offline; allow online access in Preferences > System to use "
                    "{address}.",
                    address=address,
                ),
                *ALLOW_ONLINE_ACCESS,
            )
        self.disconnect(say("The server's address was changed."))
        client = BridgeClient(str(address), self.version, token)
        try:
            client.start()
        except ValueError as error:
            client.close()
            raise ServerError(str(error)) from error
        self.client = client

    def disconnect(self, why: str = "") -> None:
        """Stop talking; what runs goes on at the server or is cancelled, as `keep_going` says."""
        if self.client is None:
            return
        for job in self._tasks():
            if job.state != ENCODING and self.keep_going:
                where = self.client.address
                job.state, job.sentence = (
                    LEFT,
                    say(
                        "{why} It goes on at {where}, and is fetched from there later.", why=why, where=where
                    ),
                )
            elif job.state != ENCODING:
                job.hear(Failed(job=job.id, message=why))
        self.client.close(keep=self.keep_going)
        self._hear_all()
        self.client, self.link = None, LinkState(CONNECTING)
        self.engines, self.device, self.workers = (), "", ()
        self.pose_finder = None

    def connect_if_running(self, server: str, online: bool) -> None:
        """Connect, unless only a server of our own could be meant. Raises `ServerError`."""
        if not self.server.is_up and parse_server(server)[0].port:
            self.connect(server, online)

    def reach(self, folder: str, python: str, server: str, autostart: bool, online: bool) -> None:
        """Make sure that a server answers or may soon do so; one that a token names is not started from here.
        Raises `ServerError` when none will."""
        if self.server.state == server_process.RUNNING:
            self.connect(self.server.address, online)
        if self.server.is_up:
            return
        address, token = parse_server(server)
        if address.port:
            self.connect(server, online)
            elsewhere = token is not None or not address.is_loopback
            if self.link.state == CONNECTED or elsewhere or server_process.is_taken(address):
                return
        if not autostart:
            raise ServerError(
                say("No server answers at {address}; start it in the Server panel.", address=address),
                *START_SERVER,
            )
        self.server.start(folder, python, server, finish=self.keep_going)

    def close(self) -> None:
        """End the client and the server; a server that has jobs to make finishes them first, as `keep_going`
        says."""
        busy = self.keep_going and any(job.state != ENCODING for job in self._tasks())
        self.disconnect()
        if busy:
            self.server.leave()
        else:
            self.server.stop(wait=True)

    def engine(self, name: str) -> EngineDescription | None:
        """An engine of the server by name; "" is the best that is ready."""
        return find_engine(self.engines, name)

    def submit(
        self,
        request: GenerationRequest,
        take: Take,
        engine: EngineDescription,
        warnings: tuple[str, ...] = (),
    ) -> Job:
        """Send a request; its frames go to the take's folder. `warnings` are what the user should know.

        There must be a connection, which `reach` or `connect` makes.
        """
        if self.client is None:
            raise RuntimeError("submit before connect")
        job = Job(
            id=request.job, take=take, engine_label=engine.label, neural=engine.neural, warnings=warnings
        )
        self._forget_old()
        self.jobs[job.id] = job
        self.client.submit(request, TakeWriter(take.folder, take.name, take.num_frames))
        return job

    @property
    def account(self) -> str:
        """Which server this is, and as whom it is talked to (see `Token.account`); "" while that is not
        known."""
        try:
            token = self.client and (self.client.token or local_token())
        except TokenError:
            token = None
        return token.account if token else ""

    def adopt(self, name: str, take: Take, size: tuple[int, int], frames: int) -> Job:
        """Fetch the rest of a job that the server has; the take has its first `frames` frames.

        There must be a connection."""
        if self.client is None:
            raise RuntimeError("adopt before connect")
        label, neural = take.record.get("engine_label", ""), bool(take.record.get("neural", True))
        job = Job(id=name, take=take, engine_label=label, neural=neural, state=INTERRUPTED, frames=frames)
        job.interrupted_at = job.began
        self._forget_old()
        self.jobs[name] = job
        self.client.adopt(name, TakeWriter(take.folder, take.name, take.num_frames, frames), size)
        return job

    def find_poses(self, request: PoseRequest) -> PoseSearch:
        """Look for poses, or for a mask where there is a single picture.

        There must be a connection."""
        if self.client is None:
            raise RuntimeError("find_poses before connect")
        search = PoseSearch(id=request.job, of_picture=len(request.lengths) == 1)
        self._forget_old()
        self.searches[search.id] = search
        self.client.submit(request, NoFrames())
        return search

    def adopt_search(self, name: str, of_picture: bool) -> PoseSearch:
        """Fetch what another Blender has asked to look for.

        There must be a connection."""
        if self.client is None:
            raise RuntimeError("adopt_search before connect")
        search = PoseSearch(id=name, of_picture=of_picture, state=INTERRUPTED)
        search.interrupted_at = search.began
        self._forget_old()
        self.searches[name] = search
        self.client.adopt(name, NoFrames(), (0, 0))
        return search

    def active(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        return [job for job in self.jobs.values() if not job.ended]

    def searching(self) -> list[PoseSearch]:
        """Searches that have not ended, oldest first."""
        return [search for search in self.searches.values() if not search.ended]

    def _tasks(self) -> list[Task]:
        return [*self.active(), *self.searching()]

    def cancel(self, job: Task) -> None:
        """End a job; what arrived of it is kept."""
        if self.client is not None:
            self.client.cancel(job.id)

    def let_go(self, account: str, job: str) -> None:
        """Have the server of an account told that a job of an earlier Blender is over, now or when it is
        reached the next time."""
        if self.client is not None and account == self.account:
            self.client.let_go(job)
        else:
            Goodbyes(account).add(job)

    def poll(self) -> bool:
        """Take in what happened since; returns whether there was anything."""
        changed = self._watch_server()
        changed |= self._hear_all()
        self._give_up_waiting()
        return changed

    def _hear_all(self) -> bool:
        events = self.client.poll() if self.client is not None else []
        for event in events:
            self._hear(event)
        return bool(events)

    def _hear(self, event: object) -> None:
        if isinstance(event, LinkState):
            self.link = event
        name = getattr(event, "job", "")
        job = self.jobs.get(name) or self.searches.get(name)
        if job is not None and not job.ended:
            job.hear(event)
            if isinstance(event, Preview):
                self.previews[job.id] = event
            if job.ended:
                self.previews.pop(job.id, None)
        if self.client is not None and (welcome := self.client.welcome) is not None:
            self.engines, self.device, self.workers = welcome.engines, welcome.device, welcome.workers
            self.pose_finder = welcome.pose_finder

    def _watch_server(self) -> bool:
        state = self.server.state
        if state == self._server_state:
            return False
        self._server_state = state
        if state == server_process.RUNNING:
            self.connect(self.server.address, online=False)
        elif state == server_process.FAILED and not self._start_again():
            for job in self._tasks():
                if job.state in (WAITING, INTERRUPTED):
                    self.cancel(job)
                    job.hear(Failed(job=job.id, message=self.server.sentence))
        return True

    def _start_again(self) -> bool:
        """A server of our own that had jobs is needed again; false where it is not, or does not help."""
        began = self.client is not None and self.client.address == self.server.address
        if not (began and self._tasks()) or self._restarts >= MAX_RESTARTS:
            return False
        self._restarts += 1
        try:
            self.server.start_again()
        except ServerError:
            return False
        self._server_state = self.server.state
        return True

    def _give_up_waiting(self) -> None:
        client = self.client
        if client is None or self.link.state == CONNECTED or self.server.state == server_process.STARTING:
            return
        now = time.monotonic()
        for job in self._tasks():
            if job.state == WAITING and now - job.began > PATIENCE:
                message: str = say(
                    "No server answers at {address}; start it in the Server panel and try again.",
                    address=client.address,
                )
            elif job.state == INTERRUPTED and job.awaited and now - job.interrupted_at > PATIENCE:
                message = job.went_away(client.address)
            else:
                continue
            client.cancel(job.id)
            job.hear(Failed(job=job.id, message=message))

    def _forget_old(self) -> None:
        for known in (self.jobs, self.searches):
            ended = [name for name, task in known.items() if task.ended]
            for name in ended[: max(0, len(ended) - MAX_REMEMBERED)]:
                del known[name]
