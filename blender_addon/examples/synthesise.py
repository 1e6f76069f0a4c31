"""Training examples from example scenes: the extension's own export, and Blender's render as the answer.

    python blender_addon/examples/synthesise.py --extension ZIP --output FOLDER --seeds 1 40 \
        [--subjects fox human spider walk.bvh ...] [--renderer eevee] [--processes 4]

Run by `python build.py synthesise --blender`. It installs the packed extension into a fresh profile of the
`bpy` that it finds. Each seed is a scene of its own, of one subject after the other, rendered once; several
clips are cut from it. A seed that is there already is left out, so a run that was killed goes on.
`inference_server` packs the folder into a data set.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path

MODULE = "bl_ext.user_default.poseanything_bridge"
CLIPS = ((0, 1), (8, 4), (24, 2), (44, 1), (62, 1))
"""Scene frames from the range's start to a clip's first frame, and from one clip frame to the next."""
RENDERERS = ("cycles", "eevee", "workbench")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extension", type=Path, required=True, help="the packed extension")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 10), metavar=("FIRST", "LAST"))
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int, default=17, help="of a clip; default: %(default)s")
    parser.add_argument("--samples", type=int, default=12, help="of Cycles and EEVEE; default: %(default)s")
    parser.add_argument(
        "--subjects",
        nargs="+",
        default=["fox"],
        metavar="SUBJECT",
        help="whom the scenes show, by turns: fox, a kind of examples/kinds.py, all of them, or a rig's file"
        " (.glb, .gltf, .vrm, .fbx, .blend, .bvh), whose action is played; default: fox",
    )
    parser.add_argument("--renderer", choices=RENDERERS, default="cycles", help="default: %(default)s")
    parser.add_argument(
        "--look", choices=("bones", "trained"), default="bones", help="of the poses; default: %(default)s"
    )
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    if arguments.exit_with_stdin:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    if arguments.processes > 1:
        return share(arguments.seeds, arguments.processes)

    profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
    os.environ["BLENDER_USER_RESOURCES"] = profile.name  # read when bpy is first imported
    import bpy

    bpy.ops.extensions.package_install_files(
        filepath=str(arguments.extension), repo="user_default", enable_on_install=True
    )
    kinds = import_module(f"{MODULE}.examples.kinds").KINDS
    subjects = [
        each for word in arguments.subjects for each in (("fox", *kinds) if word == "all" else (word,))
    ]
    try:
        for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
            subject = subjects[seed % len(subjects)]
            folder = arguments.output / f"seed-{seed:06d}-{Path(subject).stem}"
            if not (folder / "clips.json").exists():
                began = time.monotonic()
                count = synthesise(bpy, arguments, subject, seed, folder)
                seconds = time.monotonic() - began
                print(f"seed {seed}, {Path(subject).stem}: {count} clips in {seconds:.1f} s", flush=True)
    except SubjectError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        bpy.ops.preferences.addon_disable(module=MODULE)
    return 0


def share(seeds: tuple[int, int], processes: int) -> int:
    """Let each of so many processes take a part of the seeds; they end with this one, however it ends."""
    # A shell has its background commands ignore the interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    first, last = seeds
    edges = [first + (last + 1 - first) * part // processes for part in range(processes + 1)]
    running = []
    try:
        for low, high in zip(edges, edges[1:]):
            own = ["--processes", "1", "--seeds", str(low), str(high - 1), "--exit-with-stdin"]
            running.append(subprocess.Popen([sys.executable, *sys.argv, *own], stdin=subprocess.PIPE))
        return max(process.wait() for process in running)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        for process in running:
            process.terminate()


def end_with_stdin() -> None:
    """End this process when its standard input closes: the other end of the pipe is held by who started it
    and closes however that one ends."""
    sys.stdin.buffer.raw.readall()
    os._exit(1)


class SubjectError(Exception):
    """Why there is no scene of a subject, in a sentence."""


class FullLabels:
    """A `request.export.Witness` that takes the labels of every frame at the clip's full size, `labels`
    [F, H, W] uint8."""

    def __init__(self):
        self._labeller = import_module(f"{MODULE}.ground_truth.labels").Labeller()
        self._sightings = []

    def frame(self, index, evaluated, projector, reader):
        return self._draw(reader.look(index, evaluated, projector))

    def _draw(self, look):
        [drawn] = yield from self._labeller.draw([look])
        self._sightings.append(drawn.sighting)

    def finish(self, recorded):
        self.labels = yield from recorded.label(self._sightings)


def build_scene(bpy, subject: str, seed: int):
    """Fill an empty scene with a subject and its stage; returns the rig and a prompt that says what is seen.
    Raises `SubjectError`."""
    scenes, kinds, rig_files = (
        import_module(f"{MODULE}.examples.{name}") for name in ("scenes", "kinds", "rig_files")
    )
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    scenes.set_format(bpy.context.scene)
    if subject in ("fox", *kinds.KINDS):
        actor = (kinds.fox if subject == "fox" else kinds.build)(bpy.context, subject, seed)
    elif not Path(subject).suffix:
        known = ", ".join(("fox", *kinds.KINDS))
        raise SubjectError(f"There is no subject {subject}; choose of {known}, or name a rig's file.")
    else:
        try:
            rig = rig_files.import_rig(bpy.context, Path(subject))
            actor = kinds.Actor(rig, f"A {rig.name.lower()}", "moves")
        except rig_files.RigFileError as error:
            raise SubjectError(str(error)) from error
    try:
        seen = scenes.stage_by_seed(bpy.context, actor.rig, seed, actor.home, actor.still)
    except scenes.ExportError as error:
        raise SubjectError(str(error)) from error
    return actor.rig, f"{actor.name} {actor.does}{seen}"


def synthesise(bpy, arguments, subject: str, seed: int, folder: Path) -> int:
    """Render a subject's scene and export its clips to a folder; returns how many. Raises
    `SubjectError`."""
    export, steps, times, view, request_file, messages = (
        import_module(f"{MODULE}.{name}")
        for name in (
            "request.export",
            "steps",
            "times",
            "view",
            "shared.request_file",
            "shared.messages",
        )
    )
    (rig, prompt), scene = build_scene(bpy, subject, seed), bpy.context.scene
    width, height = arguments.size
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    render.image_settings.file_format = "PNG"
    eevee = "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"
    render.engine = {"cycles": "CYCLES", "eevee": eevee, "workbench": "BLENDER_WORKBENCH"}[arguments.renderer]
    # Of Workbench, which knows no material's nodes.
    scene.display.shading.color_type = "TEXTURE" if Path(subject).suffix else "VERTEX"
    scene.cycles.samples = scene.eevee.taa_render_samples = arguments.samples
    scene.cycles.denoising_prefilter = "FAST"  # of small pictures with few samples, it took half of the time
    scene.render.use_persistent_data = True
    scene.camera.data.lens *= random.Random(f"lens {seed}").uniform(1.0, 1.7)

    clips = []
    spans = [
        span
        for start, step in CLIPS
        if (span := range(scene.frame_start + start, scene.frame_end + 1, step)[: arguments.frames])
        and len(span) == arguments.frames
    ]
    if not spans:
        raise SubjectError(
            f"{Path(subject).name} moves for fewer than {arguments.frames} frames;"
            " choose a longer action, or fewer --frames."
        )
    for frame in sorted(set().union(*spans)):
        scene.frame_set(frame)
        render.filepath = str(folder / f"{frame:04d}.png")
        bpy.ops.render.render(write_still=True)
    for number, span in enumerate(spans):
        options = export.ExportOptions(
            armatures=(rig,),
            times=times.ClipTimes(span.start, span.step, len(span), len(span) * span.step),
            width=width,
            height=height,
            view=view.SceneCamera(),
            first_frame=str(folder / f"{span.start:04d}.png"),
            first_frame_in_pose=True,
            look=arguments.look,
        )
        witness = FullLabels()
        clip = steps.at_once(export.export_clip(bpy.context, options, witness))
        clip = dataclasses.replace(clip, part_maps=witness.labels)
        fields = {field.name for field in dataclasses.fields(messages.GenerationRequest)}
        fields &= {field.name for field in dataclasses.fields(clip)}
        request = messages.GenerationRequest(
            job=f"{folder.name}-{number}",
            engine="poseanything",
            width=width,
            height=height,
            num_frames=len(span),
            fps=render.fps / render.fps_base / span.step,
            prompt=prompt,
            **{name: getattr(clip, name) for name in fields},
        )
        request_file.write_request(folder / f"clip-{number}.poserequest", request)
        clips.append(
            {
                "request": f"clip-{number}.poserequest",
                "frames": [f"{frame:04d}.png" for frame in span],
                # A file's subject is the same with every seed.
                "subject": Path(subject).stem if Path(subject).suffix else f"{subject}-{seed}",
            }
        )
    (folder / "clips.json").write_text(json.dumps(clips))
    return len(clips)


if __name__ == "__main__":
    sys.exit(main())
