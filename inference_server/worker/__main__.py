"""The worker process: the broker starts it and writes one line of JSON to its standard input."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .host import EngineHost
from .link import Link
from .live import serve_live
from .run import run
from .vitals import measure


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is the broker's to answer
    _die_first()
    faulthandler.enable()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s engine: %(message)s"
    )
    settings = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_broker, args=(_take_stdin(), settings["folder"]), daemon=True).start()
    if settings.get("ray"):
        from .on_ray import main as serve_by_actor

        serve_by_actor(settings)
        return
    host = EngineHost(settings["engines"])
    (serve_live if settings["live"] else serve_jobs)(host, settings["address"], settings["token"])
    os._exit(0)  # what is left of a broken engine may not be able to end in good order


def serve_jobs(host: EngineHost, address: str, token: str) -> None:
    """Make one clip after the other, until an engine is broken."""
    host.warm_up()
    link = Link(address, token, measure)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "encoder") as encoders:
        while True:
            item = link.wait()
            ending = run(host, item, link, encoders) if item else None
            if ending is not None:
                link.send(ending.message)
                if ending.needs_restart:
                    break
            link.send(host.welcome())
    link.close()


def _die_first() -> None:
    """Have Linux, when memory runs out, end this process rather than Blender or the broker."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _take_stdin() -> int:
    """Move the broker's pipe out of the reach of engines, which find an empty standard input instead."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def _end_with_broker(pipe: int, folder: str) -> None:
    """End when the broker says so, or has died: then what it would have tidied up is left to this process."""
    if not os.read(pipe, 1):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
