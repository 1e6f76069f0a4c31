"""Training examples from example scenes: the extension's own export, and Blender's render as the answer.

    python blender_addon/examples/synthesise.py --extension ZIP --output FOLDER --seeds 1 40

Run by `python build.py synthesise --blender`. It installs the packed extension into a fresh profile of the
`bpy` that it finds. Each seed is a scene of its own, rendered once; several clips are cut from it. A seed
that is there already is left out, so a run that was killed goes on. `inference_server` packs the folder into
a data set.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

MODULE = "bl_ext.user_default.poseanything_bridge"
CLIPS = ((1, 1), (9, 4), (25, 2), (45, 1), (63, 1))
"""First scene frame and frames from one clip frame to the next."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extension", type=Path, required=True, help="the packed extension")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 10), metavar=("FIRST", "LAST"))
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int, default=17, help="of a clip; default: %(default)s")
    parser.add_argument("--samples", type=int, default=12, help="of Cycles; default: %(default)s")
    arguments = parser.parse_args()

    profile = tempfile.TemporaryDirectory(prefix="blender-profile-")
    os.environ["BLENDER_USER_RESOURCES"] = profile.name  # read when bpy is first imported
    import bpy

    bpy.ops.extensions.package_install_files(
        filepath=str(arguments.extension), repo="user_default", enable_on_install=True
    )
    for seed in range(arguments.seeds[0], arguments.seeds[1] + 1):
        if not (arguments.output / f"seed-{seed:06d}" / "clips.json").exists():
            began = time.monotonic()
            count = synthesise(bpy, arguments, seed)
            print(f"seed {seed}: {count} clips in {time.monotonic() - began:.1f} s", flush=True)
    bpy.ops.preferences.addon_disable(module=MODULE)
    return 0


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


def synthesise(bpy, arguments, seed: int) -> int:
    """Render the scene of a seed and export its clips; returns how many."""
    scenes, export, steps, times, view, request_file, messages = (
        import_module(f"{MODULE}.{name}")
        for name in (
            "examples.scenes",
            "request.export",
            "steps",
            "times",
            "view",
            "shared.request_file",
            "shared.messages",
        )
    )
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    rig = scenes.example_shot(bpy.context, seed)
    scene, folder = bpy.context.scene, arguments.output / f"seed-{seed:06d}"
    width, height = arguments.size
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    render.image_settings.file_format = "PNG"
    scene.cycles.samples = arguments.samples
    scene.cycles.denoising_prefilter = "FAST"  # of small pictures with few samples, it took half of the time
    scene.render.use_persistent_data = True
    scene.camera.data.lens *= random.Random(f"lens {seed}").uniform(1.0, 1.7)

    clips = []
    wanted = sorted(
        {start + step * index for start, step in CLIPS for index in range(arguments.frames)}
        & set(range(scene.frame_start, scene.frame_end + 1))
    )
    for frame in wanted:
        scene.frame_set(frame)
        render.filepath = str(folder / f"{frame:04d}.png")
        bpy.ops.render.render(write_still=True)
    for number, (start, step) in enumerate(CLIPS):
        if start + step * (arguments.frames - 1) > scene.frame_end:
            continue
        options = export.ExportOptions(
            armatures=(rig,),
            times=times.ClipTimes(start, step, arguments.frames, arguments.frames * step),
            width=width,
            height=height,
            view=view.SceneCamera(),
            first_frame=str(folder / f"{start:04d}.png"),
        )
        witness = FullLabels()
        clip = steps.at_once(export.export_clip(bpy.context, options, witness))
        clip = dataclasses.replace(clip, part_maps=witness.labels)
        fields = {field.name for field in dataclasses.fields(messages.GenerationRequest)}
        fields &= {field.name for field in dataclasses.fields(clip)}
        request = messages.GenerationRequest(
            job=f"seed-{seed}-{number}",
            engine="poseanything",
            width=width,
            height=height,
            num_frames=arguments.frames,
            fps=render.fps / render.fps_base / step,
            prompt=scenes.PROMPT,
            **{name: getattr(clip, name) for name in fields},
        )
        request_file.write_request(folder / f"clip-{number}.poserequest", request)
        frames = [f"{start + step * index:04d}.png" for index in range(arguments.frames)]
        clips.append({"request": f"clip-{number}.poserequest", "frames": frames, "subject": f"fox-{seed}"})
    (folder / "clips.json").write_text(json.dumps(clips))
    return len(clips)


if __name__ == "__main__":
    sys.exit(main())
