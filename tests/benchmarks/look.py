"""How far the strokes of a pose lie from the middle of the subject's silhouette, as bones and in the look
that the released weights were trained with, and how far the middle lies from the strokes. In per cent of the
subject's size, the diagonal of its box in the picture; people are not in it, whose strokes are OpenPose's.

Left out: what a model makes of either look.
"""

from __future__ import annotations

import argparse

import numpy as np
from skimage.morphology import skeletonize

from inference_server.evaluation.skeletons import distances
from inference_server.poseanything.conditioning.masks import size_of

from ._footage import install, module
from .truth import scenes

GLANCES = 5
"""Frames that are looked at of each clip."""


def strays(pose, frame: int, mask: np.ndarray) -> tuple[float, float]:
    """From strokes to the silhouette's middle line and back, as fractions of the subject's size."""
    from shared.raster import draw_pose

    strokes = (draw_pose(pose, frame) > 0) & mask
    there, back = distances(np.argwhere(strokes), np.argwhere(skeletonize(mask)))
    return there.mean() / size_of(mask), back.mean() / size_of(mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chosen", nargs="*", help="only scenes whose names begin with one of these words")
    chosen = parser.parse_args().chosen
    install()
    import bpy

    from tests.addon.rigs import run

    print(f"{'':16}{'bones':>16}{'as trained':>16}   strokes to middle, middle to strokes")
    for name in scenes(bpy, chosen):
        if name == "kind human":
            continue
        scene, options = bpy.context.scene, module("request.export").ExportOptions
        step = max((scene.frame_end - scene.frame_start) // (GLANCES - 1), 1)
        row = f"{name:16}"
        for look in ("bones", "trained"):
            witness = module("examples.synthesise").FullLabels()
            steps = module("request.export").export_clip(
                bpy.context,
                options(
                    armatures=tuple(obj for obj in scene.objects if obj.type == "ARMATURE"),
                    times=module("times").ClipTimes(scene.frame_start, step, GLANCES, GLANCES * step),
                    width=832,
                    height=480,
                    view=module("view").SceneCamera(),
                    first_frame=_plain(),
                    look=look,
                ),
                witness,
            )
            clip = run(steps)[0]
            found = [strays(clip.pose, k, mask) for k, mask in enumerate(witness.labels > 0) if mask.any()]
            there, back = np.mean(found, axis=0)
            row += f"{there:9.2%}{back:7.2%}"
        print(row, flush=True)


def _plain() -> str:
    from tests.addon.rigs import grey_picture

    return grey_picture()


if __name__ == "__main__":
    main()
