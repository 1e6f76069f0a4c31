"""Processes that end with the one that started them, whatever ends that: a child that nobody waits for would
go on for hours."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable


def end_with_parent() -> None:
    """End this process of `multiprocessing` as soon as its parent has ended, and leave Ctrl-C to that. Called
    once, in the process's main thread; does nothing in a process that has no such parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_after(lambda: multiprocessing.connection.wait([parent.sentinel]))


def end_with_stdin() -> None:
    """End this process as soon as its standard input closes, and leave Ctrl-C to its parent. The parent holds
    the other end of a pipe (`stdin=subprocess.PIPE`), which closes however it ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # past the buffer, whose lock would hold up the exit
            pass

    _end_after(wait)


def _end_after(wait: Callable[[], object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
