"""What 500 takes in a file cost when it is opened: a file whose list and sequencer have them, opened with the
extension's handlers and without them. Each take has a strip of 81 frames, and a folder that is there.

Left out: what Blender itself takes to read the strips, which is the same without the extension, and the first
drawing of the list, whose thumbnails are loaded one by one as they come into view.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from ._footage import FRAMES, MODULE, install, module

TAKES, ROUNDS = 500, 7
EVENTS = ("load_pre", "load_post", "load_factory_preferences_post")


def fill(bpy, folder: Path) -> None:
    """A scene with the takes, ten shots of 50 each."""
    takes, times = module("takes.take"), module("times")
    strips, take_list = module("sequencer.strips"), module("sequencer.take_list")
    scene = bpy.context.scene
    for number in range(TAKES):
        name = f"shot_{number:03d}"
        place = folder / "takes" / name
        place.mkdir(parents=True)
        start = 1 + number // 50 * 100
        record = {"scene": scene.name, "seed": number, "settings": {"prompt": "A fox runs through snow."}}
        take = takes.Take(place, name, times.ClipTimes(start, 1, FRAMES, FRAMES), record)
        (place / takes.RECORD).write_text(takes.to_json(take))
        strips.add_strip(scene, name, take, FRAMES, start)
        take_list.enter(scene, name, take, FRAMES, "DONE")
    strips.heal()


def opened(bpy, path: str) -> float:
    begun = time.perf_counter()
    bpy.ops.wm.open_mainfile(filepath=path)
    return time.perf_counter() - begun


def main() -> None:
    install()
    import bpy

    bpy.ops.wm.read_homefile(use_empty=True)
    with tempfile.TemporaryDirectory(prefix="takes-") as folder:
        path = str(Path(folder, "film.blend"))
        fill(bpy, Path(folder))
        bpy.ops.wm.save_as_mainfile(filepath=path)
        spent: list[float] = []

        def timed(handler):
            def run(*arguments):
                begun = time.thread_time()
                handler(*arguments)
                spent[-1] += time.thread_time() - begun

            return bpy.app.handlers.persistent(run)

        ours = [
            (listed, handler)
            for listed in (getattr(bpy.app.handlers, name, []) for name in EVENTS)
            for handler in list(listed)
            if getattr(handler, "__module__", "").startswith(MODULE)
        ]
        watched = [(listed, handler, timed(handler)) for listed, handler in ours]
        with_it, without = [], []
        for _ in range(ROUNDS):
            for listed, handler, run in watched:
                listed[listed.index(handler)] = run
            spent.append(0.0)
            with_it.append(opened(bpy, path))
            for listed, _, run in watched:
                listed.remove(run)
            without.append(opened(bpy, path))
            for listed, handler, _ in watched:
                listed.append(handler)
        assert len(bpy.context.scene.poseanything_takes.items) == TAKES
    whole, bare = statistics.median(with_it), statistics.median(without)
    print(
        f"opening {TAKES} takes: {1e3 * whole:.0f} ms, {1e3 * bare:.0f} ms without the extension's handlers"
    )
    median, longest = 1e3 * statistics.median(spent), 1e3 * max(spent)
    print(f"ratio {whole / bare:.2f}; {len(ours)} handlers, of the processor:")
    print(f"median {median:.1f} ms, longest {longest:.1f} ms (under 100 wanted)")


if __name__ == "__main__":
    main()
