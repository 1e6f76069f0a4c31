"""A way to a server that can be cut, as a network can."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Relay:
    """Carries every connection to `address` until `cut`; new ones are taken again at once.

    address: tcp://host:port of the server; its own is the attribute `address`.

    While `down` is true it closes at once what it takes, and counts that in `refused`. With a `pace` it
    carries no more bytes a second either way.
    """

    def __init__(self, address: str, pace: float | None = None):
        self.pace = pace
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.down, self.refused = False, 0
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections there are; what was on its way is lost."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.down:
                    self.refused += 1
                    near.close()
                    continue
                try:
                    far = socket.create_connection(self._server)
                except OSError:  # the server is just starting anew
                    near.close()
                    continue
                with self._lock:
                    self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with source, target, contextlib.suppress(OSError):
            while data := source.recv(65536 if self.pace is None else 4096):
                target.sendall(data)
                if self.pace is not None:
                    time.sleep(len(data) / self.pace)
