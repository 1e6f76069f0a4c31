"""The film and the pictures of the documentation, taken of a real Blender window.

It is clicked as a first-time user clicks: Example Shot, Generate, Show, play; with the live view before, and
a second take with a camera move behind.

    python -m tests.desktop.film docs/pictures

Needs what `window.py` says, and ffmpeg beside that Blender. What takes long is shown faster.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from tests.desktop.walk import Walk
from tests.desktop.window import (
    BLENDER,
    DISPLAY,
    HEIGHT,
    ROOT,
    RUN,
    Desktop,
    display,
    inside,
    open_window,
    wait_for,
)

RATE = 8
"""Pictures a second."""
WIDTH = 960
"""Of the film, in pixels."""


class Film:
    """Scenes of the window, each at its own pace, joined at the end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scenes: list[tuple[Path, float]] = []

    @contextmanager
    def scene(self, faster: float = 1.0):
        """Film what happens within, `faster` times as fast as it was."""
        path = self.folder / f"scene{len(self.scenes):02d}.mkv"
        camera = subprocess.Popen(
            [
                *RUN,
                *shlex.split(f"ffmpeg -loglevel error -y -f x11grab -framerate {RATE} -draw_mouse 1"),
                *shlex.split(f"-video_size 1600x{HEIGHT} -i {DISPLAY} -c:v libx264 -preset ultrafast -qp 0"),
                str(inside(path)),
            ],
            stdin=subprocess.PIPE,
        )
        time.sleep(0.5)
        try:
            yield
        finally:
            camera.communicate(b"q", timeout=60)
            self.scenes.append((path, faster))

    def write(self, path: Path) -> None:
        """Join the scenes as an animated WebP."""
        inputs = [word for scene, _ in self.scenes for word in ("-i", str(inside(scene)))]
        paced = [f"[{n}:v]setpts=PTS/{faster},fps={RATE}[v{n}]" for n, (_, faster) in enumerate(self.scenes)]
        joined = "".join(f"[v{n}]" for n in range(len(self.scenes)))
        graph = ";".join([*paced, f"{joined}concat=n={len(self.scenes)},scale={WIDTH}:-2:flags=lanczos"])
        whole = self.folder / "film.webp"
        subprocess.run(
            [*RUN, "ffmpeg", "-loglevel", "error", "-y", *inputs, "-filter_complex", graph, "-loop", "0"]
            + ["-c:v", "libwebp_anim", "-quality", "60", str(inside(whole))],
            check=True,
            timeout=240,
        )
        path.write_bytes(whole.read_bytes())


def picture(desktop: Desktop, path: Path, crop: str = "1600x1000+0+0") -> None:
    """A photograph of a part of the window, as JPEG."""
    taken = desktop.photograph(f"{path.stem}.png")
    jpeg = desktop.folder / path.name
    display(
        "convert",
        str(inside(taken)),
        "-crop",
        crop,
        "+repage",
        "-resize",
        "1200x>",
        "-quality",
        "88",
        str(inside(jpeg)),
    )
    path.write_bytes(jpeg.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the folder for the film and the pictures")
    output = parser.parse_args().output
    if not BLENDER or not DISPLAY:
        raise SystemExit(
            "POSEANYTHING_DESKTOP_BLENDER and POSEANYTHING_DESKTOP_DISPLAY name no window to film."
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="film-") as name:
        with open_window(Path(name), "tcp://127.0.0.1:47991", "bare") as desktop:
            take(desktop, output)


def take(desktop: Desktop, output: Path) -> None:
    """A first shot, from Blender's own scene to the strip, and a second one with a camera move."""
    python = os.environ.get("POSEANYTHING_SERVER_PYTHON", sys.executable)
    desktop.ask(
        "prefs = bpy.context.preferences.addons[MODULE].preferences\n"
        f"prefs.server_folder, prefs.server_python = {str(ROOT)!r}, {python!r}\n"
        "bpy.context.preferences.view.show_playback_fps = False"  # of software OpenGL
    )
    film = Film(desktop.folder)
    example = place_of(desktop, "poseanything.example_shot")
    picture(desktop, output / "first-shot-empty.jpg")
    with film.scene():
        time.sleep(1.5)
        desktop.press(*example)
    with film.scene(faster=6):
        wait_for(
            lambda: desktop.ask("answer = bpy.context.scene.name == 'Example Shot' and not exporting()"), 120
        )
    desktop.ask("bpy.ops.wm.save_as_mainfile(filepath=str(folder / 'film.blend'))")  # takes go beside it
    film_live(desktop, film)
    picture(desktop, output / "live.jpg", "1312x910+0+0")
    with film.scene():
        desktop.ask("bpy.ops.poseanything.live()\nbpy.context.scene.frame_set(1)")
        time.sleep(1)
    film_generating(desktop, film, faster=8)
    picture(desktop, output / "first-shot-done.jpg", "1312x1000+0+0")
    film_strip(desktop, film)
    picture(desktop, output / "first-shot-sequencer.jpg", "1515x900+43+50")
    film_camera_move(desktop, film)
    film_generating(desktop, film, faster=8)
    film_strip(desktop, film)
    film.write(output / "first-shot.webp")


def place_of(desktop: Desktop, operator: str) -> tuple[int, int]:
    """Where the main panel has an operator's button."""
    return Walk(desktop, desktop.folder).find(operator, "POSEANYTHING_PT_main.")[1]


def film_live(desktop: Desktop, film: Film) -> None:
    """The live view while the fox is scrubbed, and while its head is posed."""
    live = "live = import_module(f'{MODULE}.live.view').get()\n"
    with film.scene(faster=4):
        desktop.ask(
            "view = area_of('VIEW_3D')\n"
            "region = next(r for r in view.regions if r.type == 'WINDOW')\n"
            "with bpy.context.temp_override(window=window(), area=view, region=region):\n"
            "    bpy.ops.poseanything.live('INVOKE_DEFAULT')\n"
        )
        wait_for(lambda: desktop.ask(f"{live}answer = bool(live.ready)"), 300)
        time.sleep(2)
    with film.scene():
        for frame in (*range(1, 61, 4), *range(61, 1, -6)):
            desktop.ask(f"bpy.context.scene.frame_set({frame})")
            time.sleep(0.15)
        for nod in (*[-0.08] * 8, *[0.08] * 16, *[-0.08] * 8):
            desktop.ask(
                "from mathutils import Quaternion\n"
                "head = bpy.context.scene.objects['Fox'].pose.bones['head']\n"
                f"head.rotation_quaternion = head.rotation_quaternion @ Quaternion((1, 0, 0), {nod})"
            )
            time.sleep(0.1)
        time.sleep(0.5)


def film_generating(desktop: Desktop, film: Film, faster: float) -> None:
    generate, known = place_of(desktop, "poseanything.generate"), len(desktop.jobs())
    with film.scene():
        time.sleep(0.5)
        desktop.press(*generate)
    with film.scene(faster):
        wait_for(lambda: [job["state"] for job in desktop.jobs()] == ["DONE"] * (known + 1), 400)
        time.sleep(2)


def film_strip(desktop: Desktop, film: Film) -> None:
    """The newest take's strip, shown and played."""
    show = place_of(desktop, "poseanything.show_take")
    with film.scene():
        time.sleep(0.5)
        desktop.press(*show)
        time.sleep(3)
    with film.scene(faster=3):  # software OpenGL plays it slowly
        display("xdotool", "mousemove", "800", "600", "sleep", "0.5", "key", "space")
        time.sleep(24)
        display("xdotool", "key", "space")


def film_camera_move(desktop: Desktop, film: Film) -> None:
    """Back in the 3D view the camera gets a move, which is scrubbed through."""
    with film.scene():
        desktop.ask(
            "with bpy.context.temp_override(window=bpy.context.window_manager.windows[-1]):\n"
            "    bpy.ops.wm.window_close()"  # the one that Show opened
        )
        time.sleep(1)
        desktop.ask("bpy.ops.poseanything.add_camera_move(move='DOLLY_IN', amount=0.35)")
        for frame in range(1, 82, 4):
            desktop.ask(f"bpy.context.scene.frame_set({frame})")
            time.sleep(0.15)
        desktop.ask("bpy.context.scene.frame_set(1)")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
