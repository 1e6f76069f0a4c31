"""How long the client's timer holds up Blender while 81 frames of 832 x 480 stream in as fast as they come,
with the strip growing in a scene's sequencer. Only ticks that found something to do count.

Left out: other extensions and a busy viewport, which share the main thread with it.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ._footage import FRAMES, HEIGHT, WIDTH, Server, install, make_request, module

INTERVAL = 0.02
"""Seconds between ticks; Blender's come every 50 ms, so that these have less to do but are more."""
ROUNDS = 8


def stream(bpy, session, folder: Path) -> list[tuple[float, float]]:
    """Seconds that each tick with work took, from the submission to the last frame shown: by the clock, and
    of the processor, which other programs do not lengthen."""
    takes = module("takes.take")
    path, name = takes.claim_folder(folder, "take")
    take = takes.Take(path, name, module("times").ClipTimes(1, 1, FRAMES, FRAMES), {})
    job = session.submit(make_request(), take, bpy.context.scene, session.bridge.engine("footage"))
    ticks = []
    while session.in_progress(job):
        begun, spent = time.perf_counter(), time.thread_time()
        if session.poll():
            ticks.append((time.perf_counter() - begun, time.thread_time() - spent))
        time.sleep(INTERVAL)
    strip = module("sequencer.strips").find_strip(job.id)[1]
    assert len(strip.elements) == FRAMES
    return ticks


def main() -> None:
    install()
    import bpy

    bpy.ops.wm.read_homefile(use_empty=True)
    session = module("session").get()
    folder = Path(tempfile.mkdtemp(prefix="timer-"))
    ticks: list[tuple[float, float]] = []
    try:
        with Server() as server:
            session.bridge.connect(server.address, online=False)
            while session.bridge.engine("footage") is None:
                session.poll()
                time.sleep(0.05)
            for _ in range(ROUNDS):
                ticks += stream(bpy, session, folder)
            session.bridge.disconnect()
    finally:
        shutil.rmtree(folder)
    print(f"{len(ticks)} ticks while {ROUNDS} clips of {FRAMES} frames at {WIDTH} x {HEIGHT} came in")
    for what, times in zip(("by the clock", "of the processor"), map(sorted, zip(*ticks)), strict=True):
        print(
            f"{what:16} median {1e3 * statistics.median(times):5.2f} ms   95th percentile "
            f"{1e3 * times[int(0.95 * len(times))]:5.2f} ms (to reach: at most 2)   "
            f"longest {1e3 * times[-1]:.2f} ms"
        )


if __name__ == "__main__":
    main()
