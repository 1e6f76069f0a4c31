"""The draft beside the truth: what the draft engine makes of the first frame, beside what Cycles renders, at
frames 21, 41 and 81 of the example's fox, of the glTF fox's three actions and of four other creatures. In
decibels (peak signal-to-noise ratio over the whole picture); a still first frame stands beside it.

Left out: pictures that are painted, and every kind of subject but these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ._footage import ROOT, install, module

FOX = ROOT.parent / "shared" / "data" / "rigs" / "Fox.glb"
ACTIONS = ("Survey", "Walk", "Run")
SEEDS = (1, 2, 3, 4)
MEASURED = (20, 40, 80)
"""Clip frames that are rendered."""


def scenes(bpy, chosen: list[str]) -> Iterator[str]:
    """Build one scene after the other, those whose names begin with one of the chosen words, or all."""
    context = bpy.context
    makers = {"example": lambda: module("examples.scenes").example_shot(context)}
    if FOX.exists():
        makers |= {f"Fox.glb {action}": lambda action=action: gltf(bpy, action) for action in ACTIONS}
    makers |= {
        f"creature {seed}": lambda seed=seed: module("examples.scenes").example_shot(context, seed)
        for seed in SEEDS
    }
    for name, make in makers.items():
        if not chosen or any(name.startswith(word) for word in chosen):
            bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
            make()
            yield name


def gltf(bpy, action: str) -> None:
    scenes_ = module("examples.scenes")
    scenes_.set_format(bpy.context.scene)
    scenes_.stage(bpy.context, module("examples.rig_files").import_rig(bpy.context, Path(FOX), action))


def shoot(bpy):
    """The request for a scene's range, and what Cycles renders of the measured frames (clip index ->
    picture)."""
    from tests.addon.rigs import run

    context, scene = bpy.context, bpy.context.scene
    settings = scene.poseanything
    planned = module("request.range").clip_range(context, settings, None)
    clip, _ = run(
        module("request.export").export_clip(
            context, module("request.build").export_options(context, settings, planned)
        )
    )
    fields = (
        "pose",
        "first_frame",
        "subject_mask",
        "first_labels",
        "part_maps",
        "shadow_maps",
        "camera_motion",
    )
    request = {
        "job": "truth",
        "engine": "draft",
        "width": planned.width,
        "height": planned.height,
        "num_frames": planned.num_frames,
        "fps": planned.fps,
        **{name: getattr(clip, name) for name in fields if hasattr(clip, name)},
    }
    view = module("view")
    placed = view.fit(*view.SceneCamera().frame_size(scene), planned.width, planned.height)
    truth = {}
    for index in MEASURED:
        if index < planned.num_frames:
            scene.frame_set(planned.frame_start + index * planned.frame_step)
            truth[index] = module("ground_truth.first_frame").render_frame(scene, view.SceneCamera(), placed)
    return request, truth


def draft(request: dict) -> list[np.ndarray]:
    """The frames that the draft engine makes of it."""
    from inference_server.engines.base import Picture
    from inference_server.engines.draft import DraftEngine
    from shared.messages import GenerationRequest
    from shared.pose import Limb, PoseSequence

    pose = request["pose"]
    limbs = tuple(Limb(limb.name, limb.part, limb.subject) for limb in pose.limbs)
    arrays = (pose.points, pose.lengths, pose.owners, pose.offsets)
    request = {**request, "pose": PoseSequence(pose.width, pose.height, pose.parts, limbs, *arrays)}
    events = DraftEngine().generate(GenerationRequest(**request), lambda: False)
    return [event.image for event in events if isinstance(event, Picture)]


def decibels(picture: np.ndarray, truth: np.ndarray) -> float:
    error = np.square(picture.astype(np.float64) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def main() -> None:
    install()
    import bpy

    print(
        "draft (and a still first frame) against Cycles, in dB, at clip frames "
        + ", ".join(f"{i + 1}" for i in MEASURED)
    )
    for name in scenes(bpy, sys.argv[1:]):
        request, truth = shoot(bpy)
        frames = draft(request)
        told = [
            f"{decibels(frames[index], picture):.1f} ({decibels(frames[0], picture):.1f})"
            for index, picture in truth.items()
        ]
        print(f"{name:20} {'   '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
