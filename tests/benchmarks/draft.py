"""From the click on Generate to the strip with the draft engine: 81 frames at 832 x 480 of the demo's fox,
server up and first frame given. Beside it, the time the clip takes to play.

Left out: rendering the first frame, which is given, and starting the server. The creature is one of many, and
light to deform.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from ._footage import FRAMES, ROOT, install, module

ROUNDS = 3


def shoot(bpy) -> tuple[float, float, float]:
    """Seconds from the click to the request's leaving, to the first frame on the strip, and to the last
    one."""
    session = module("session").get()
    clicked = time.perf_counter()
    steps = module("operators.generate").generate(bpy.context)
    try:
        while True:
            next(steps)
    except StopIteration as finished:
        [job] = finished.value
    sent = time.perf_counter()
    first = None
    while session.in_progress(job):
        session.poll()
        first = first or (time.perf_counter() if session.arrival.placements[job.id].shown else None)
        time.sleep(0.005)
    assert job.frames == FRAMES, job.sentence
    return sent - clicked, first - clicked, time.perf_counter() - clicked


def stage(bpy, folder: Path) -> None:
    """The demo's scene with a rendered first frame, and a server that answers."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    module("examples.scenes").example_shot(bpy.context)
    scene, preferences = bpy.context.scene, module("preferences").get(bpy.context)
    preferences.server_folder, preferences.address = str(ROOT), "tcp://127.0.0.1:0"
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.render.filepath = str(folder / "first.png")
    bpy.ops.render.render(write_still=True)
    settings = scene.poseanything
    settings.first_frame_source, settings.first_frame_path = "PICTURE", scene.render.filepath
    settings.output_folder, settings.engine_name = str(folder), "draft"
    bpy.ops.poseanything.start_server()
    session = module("session").get()
    server = session.bridge.server
    while not session.bridge.engines:
        session.poll()
        assert server.is_up, server.sentence
        time.sleep(0.05)


def change_frames(scene) -> float:
    """Seconds that Blender takes to go through the clip's frames, which no export can do without."""
    begun = time.perf_counter()
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
    return time.perf_counter() - begun


def main() -> None:
    install()
    import bpy

    with tempfile.TemporaryDirectory() as folder:
        stage(bpy, Path(folder))
        try:
            runs = [(*shoot(bpy), change_frames(bpy.context.scene)) for _ in range(ROUNDS)]
        finally:
            bpy.ops.poseanything.stop_server()
        sent, first, last, changing = (statistics.median(times) for times in zip(*runs))
        playing = FRAMES / bpy.context.scene.render.fps
    print(
        f"Click to request {sent:.2f} s, to first frame {first:.2f} s (under 2 s wanted); "
        f"changing the frames alone takes {changing:.2f} s"
    )
    print(
        f"From the request to the last frame {last - sent:.2f} s, the clip plays {playing:.2f} s: "
        f"{(last - sent) / playing:.2f}x (under 1x wanted)"
    )


if __name__ == "__main__":
    main()
