"""From nothing to a film, through the same operators as the buttons. Run by `python build.py demo`:

    python blender_addon/examples/demo.py --extension ZIP --output FOLDER \
        [--rig FILE [--action NAME] [--up AXIS]]

It installs the packed extension into a fresh profile of the `bpy` that it finds, as a user would.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = "bl_ext.user_default.poseanything_bridge"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extension", type=Path, required=True, help="the packed extension")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rig", type=Path, help="a rig file instead of the built-in creature")
    parser.add_argument("--action", help="which of its actions to play")
    parser.add_argument("--up", choices=("Y", "Z"), help="which axis of a .bvh is up")
    arguments = parser.parse_args()

    profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
    os.environ["BLENDER_USER_RESOURCES"] = profile.name  # read when bpy is first imported
    import bpy

    began = time.monotonic()
    with quiet(arguments.output / "blender.log") as console:

        def say(text: str, stamp: bool = True) -> None:
            print(f"[{time.monotonic() - began:5.1f} s] {text}" if stamp else text, file=console, flush=True)

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
    scenes, rig_files = (import_module(f"{MODULE}.examples.{name}") for name in ("scenes", "rig_files"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    if arguments.rig:
        scenes.set_format(bpy.context.scene)
        try:
            rig = rig_files.import_rig(bpy.context, arguments.rig, arguments.action, arguments.up, say)
        except rig_files.RigFileError as error:
            raise DemoError(str(error)) from error
        try:
            scenes.stage(bpy.context, rig)
        except scenes.ExportError as error:
            raise DemoError(str(error)) from error
    else:
        rig = scenes.example_shot(bpy.context)
    scene, output = bpy.context.scene, arguments.output
    output.mkdir(parents=True, exist_ok=True)
    name = arguments.rig.stem if arguments.rig else "fox"
    blend = output / f"{name}.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))

    settings = scene.poseanything
    settings.take_name, settings.output_folder, settings.make_movie = name, "//takes/", True
    settings.prompt = scenes.PROMPT if arguments.rig is None else ""
    say(
        f"pressing Export Skeleton: {len(rig.data.bones)} bones, frames {scene.frame_start} to "
        f"{scene.frame_end}"
    )
    bpy.ops.poseanything.export_skeleton(directory=str(output / "skeletons"))
    exported = max((output / "skeletons").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)

    for finding in import_module(f"{MODULE}.session").get().findings:
        say(f"    look out: {finding.sentence}", stamp=False)

    settings.first_frame_source, settings.first_frame_path = (
        "PICTURE",
        bpy.path.relpath(str(exported / "first_frame.png")),
    )
    say("pressing Generate: the extension starts the server and sends the shot")
    bpy.ops.poseanything.generate(wait=True)
    job = list(import_module(f"{MODULE}.session").get().bridge.jobs.values())[-1]
    take = job.take
    say(f"{job.frames} frames on a strip, made by {job.engine_label}")
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))

    results = sorted(take.folder.glob(f"{take.name}_*.png"))
    poses = sorted((exported / "skeleton").glob("*.png"))
    title = f"{name}: {len(results)} frames by {job.engine_label}"
    make_sheet = import_module(f"{MODULE}.examples.contact_sheet").contact_sheet
    size = take.record["width"], take.record["height"]
    sheet = make_sheet(size, exported / "first_frame.png", poses, results, title, output / f"{name}.png")
    movie = shutil.copy(take.folder / f"{take.name}.mp4", output / f"{name}.mp4")
    say("done; look at")
    for label, path in (
        ("scene and strip", blend),
        ("movie", movie),
        ("contact sheet", sheet),
        ("frames", take.folder),
    ):
        say(f"    {label:16} {path}", stamp=False)


@contextmanager
def quiet(log: Path):
    """Send everything that Blender and its add-ons print to a file; yields what still reaches the console."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(log, "w") as file, os.fdopen(os.dup(1), "w") as console:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield console
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for standard, original in zip((1, 2), saved):
                os.dup2(original, standard)
                os.close(original)


if __name__ == "__main__":
    sys.exit(main())
