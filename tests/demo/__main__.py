"""Run by `python build.py demo`: from nothing to a film, through the same operators as the buttons."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.poseanything_bridge"
PROMPT = "A red fox walks through a sunlit meadow, firs and hills behind it, the camera follows gently."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extension", type=Path, required=True, help="the packed extension")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rig", type=Path, help="a rig file instead of the built-in creature")
    parser.add_argument("--action", help="which of its actions to play")
    arguments = parser.parse_args()

    profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
    os.environ["BLENDER_USER_RESOURCES"] = profile.name  # read when bpy is first imported
    import bpy

    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    with quiet(arguments.output):
        say(f"Blender {bpy.app.version_string}: installing {arguments.extension.name} into a fresh profile")
        bpy.ops.extensions.package_install_files(
            filepath=str(arguments.extension), repo="user_default", enable_on_install=True
        )
        preferences = bpy.context.preferences.addons[MODULE].preferences
        preferences.server_folder, preferences.server_python = str(ROOT), sys.executable
        preferences.address = "tcp://127.0.0.1:0"

        say("building the scene")
        try:
            film(bpy, arguments, say)
        except (DemoError, RuntimeError) as error:
            say(f"stopped: {str(error).removeprefix('Error: ').strip()}")
            return 1
        finally:
            bpy.ops.preferences.addon_disable(module=MODULE)
    return 0


class DemoError(Exception):
    """Why there is no film, in a sentence."""


def film(bpy, arguments, say) -> None:
    from .contact_sheet import contact_sheet
    from .scene import SceneError, build_scene

    try:
        rig = build_scene(arguments.rig, arguments.action)
    except SceneError as error:
        raise DemoError(str(error)) from error
    scene, output = bpy.context.scene, arguments.output
    output.mkdir(parents=True, exist_ok=True)
    name = arguments.rig.stem if arguments.rig else "fox"
    blend = output / f"{name}.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))

    settings = scene.poseanything
    settings.take_name, settings.output_folder, settings.make_movie = name, "//takes/", True
    settings.prompt = PROMPT if arguments.rig is None else ""
    say(f"pressing Generate: {len(rig.data.bones)} bones, frames {scene.frame_start} to {scene.frame_end}")
    bpy.ops.poseanything.generate(wait=True)

    session = import_module(f"{MODULE}.link.session").get()
    job = list(session.jobs.values())[-1]
    take = job.take
    results = [take.folder / element for element in take.element_names(take.num_frames)]
    say(f"{job.frames} frames in {take.folder}")
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    title = f"{name}: {len(results)} frames by {job.engine_label}"
    sheet = contact_sheet(shot_pose(bpy), take.folder / "first_frame.png", results, title, output / f"{name}.png")
    movie = next(take.folder.glob("*.mp4"))
    say("done; look at")
    for label, path in (("scene and strip", blend), ("movie", movie), ("contact sheet", sheet)):
        print(f"    {label:16} {path}")


if __name__ == "__main__":
    sys.exit(main())
