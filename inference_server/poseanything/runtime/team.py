"""Several cards for one clip: a process for each, which share every sequence of the transformer (context
parallelism)."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from ..compat.diffusers import enable_context_parallel
from ..conditioning.conditions import InputError
from ..models.transformer import PoseAnythingTransformer3DModel
from ..sampling.request import SamplingRequest
from .card import DeviceError

PATIENCE = datetime.timedelta(minutes=5)
"""How long a card waits for the others in the middle of a step."""
SHARED_CACHES = ("none", "taylorseer")
"""Those that decide by the step alone: the others look at a card's own share of the sequence, and cards that
decide differently would wait for each other."""


class Stopped(Exception):
    """The process that leads the team has ended the clip."""


class Team:
    """The cards that share a clip. The process of the first leads, the others follow.

    Every process samples the whole clip; only the transformer's sequences, by far the most of the work, are
    shared. The first also decodes and is the only one whose events anybody sees. Before each evaluation of
    the transformer the others wait for its word, so that a cancelled clip ends everywhere.

    Args:
        rank: 0 leads.
        size: how many cards there are.
        port: on this machine, where they meet.
        connections: to the followers; to the leader, where this is one of them.
        processes: the followers'.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        port: int,
        connections: Sequence[Connection],
        processes: Sequence[multiprocessing.Process] = (),
    ):
        self.size, self.leads = size, rank == 0
        self._connections, self._processes = connections, processes
        self._job, self._agreed = 0, True
        self._next: tuple | None = None
        self._check: Callable[[], None] | None = None
        self._joined: PoseAnythingTransformer3DModel | None = None
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, f"tcp://127.0.0.1:{port}", rank=rank, world_size=size, timeout=PATIENCE
        )

    @classmethod
    def lead(cls, size: int, device: torch.device, follow: Callable[..., None], *inputs: object) -> Team:
        """Start a process for each card but the first, which is this one's.

        Args:
            device: of the first.
            follow: what a process runs, with its rank, the size, the port, its connection, the type of the
                device and `inputs`.

        Raises:
            InputError: there are not so many cards.
        """
        if device.type == "cuda" and size > torch.cuda.device_count():
            raise InputError(
                "This machine has {count} cards, not {size}; choose that many or fewer.",
                count=torch.cuda.device_count(),
                size=size,
            )
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        connections, processes = [], []
        for rank in range(1, size):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=follow, args=(rank, size, port, theirs, device.type, *inputs), daemon=True
            )
            process.start()
            connections.append(ours)
            processes.append(process)
        return cls(0, size, port, connections, processes)

    def begin(self, request: SamplingRequest, check: Callable[[], None] | None) -> None:
        """Hand a request to the followers. `check` is called before each evaluation; what it raises ends the
        clip."""
        if request.options.cache not in SHARED_CACHES:
            raise InputError(
                "Several cards can't share a clip with the cache {cache}; choose one of"
                " {names}, or one card.",
                cache=request.options.cache,
                names=", ".join(SHARED_CACHES),
            )
        self._check = check
        if self.leads:
            self._job, self._agreed = self._job + 1, False
            self._send("job", request)

    def join(self, transformer: PoseAnythingTransformer3DModel) -> None:
        """Share the transformer's sequences from now on."""
        if self._joined is not transformer:
            enable_context_parallel(transformer, self.size)
            transformer.register_forward_pre_hook(lambda *_: self._agree())
            self._joined = transformer

    def denoised(self) -> None:
        """The last evaluation of the clip is done."""
        self._agreed = True

    def end(self, error: BaseException | None) -> None:
        """Have the followers end too, where the clip has been left by an error before it was denoised."""
        if not self.leads or self._agreed:
            return
        self._agreed = True
        self._send("stop")
        if isinstance(error, (RuntimeError, MemoryError)):  # in the middle of a step, where the others wait
            self.close()
            raise DeviceError(
                "One of the cards that share the clip failed ({reason}); make the clip "
                "on one card, or a smaller one.",
                reason=str(error).splitlines()[0],
            ) from error

    def close(self) -> None:
        """End the followers' processes."""
        for process in self._processes:
            process.terminate()
            process.join()
        if dist.is_initialized():
            dist.destroy_process_group()

    def requests(self) -> Iterator[SamplingRequest]:
        """The leader's requests, for a follower."""
        while True:
            try:
                kind, self._job, content = self._next or self._connections[0].recv()
            except EOFError:  # the leader is gone
                return
            self._next = None
            if kind == "job":
                yield content

    def _send(self, kind: str, content: SamplingRequest | None = None) -> None:
        for connection in self._connections:
            connection.send((kind, self._job, content))

    def _agree(self) -> None:
        if not self.leads:
            while True:
                kind, job, content = self._connections[0].recv()
                if kind == "job":  # the leader left before it came as far as here
                    self._next = kind, job, content
                    raise Stopped
                if job == self._job:
                    break
            if kind == "stop":
                raise Stopped
            return
        if self._check is not None:
            self._check()
        self._send("go")
