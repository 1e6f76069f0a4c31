"""Engines that need no card beside the truth: what the draft and PoseAnything Mini make of the first frame,
beside what Cycles renders, at a quarter, half and all of the example's fox, of the glTF fox's three actions
and of four other creatures, and of a scene of each other kind that training data is made of. In decibels
(peak signal-to-noise ratio) over the whole picture, and over the cells in which the subject is; the first
frame, repeated, stands beside it. At the end in how many scenes PoseAnything Mini is nearer to the truth than
the draft, over the whole picture, and by how much.

    python build.py bench truth [WORD ...]

takes the scenes whose names begin with one of the words, such as `kind`.

Left out: pictures that are painted; without the glTF fox's file, its scenes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from inference_server.evaluation.statistics import compare

from ._footage import ROOT, install, module

FOX = ROOT.parent / "shared" / "data" / "rigs" / "Fox.glb"
ACTIONS = ("Survey", "Walk", "Run")
SEEDS = (1, 2, 3, 4)
MEASURED = (0.25, 0.5, 1.0)
"""How far along the clip the frames lie that are rendered: of 81 the frames 21, 41 and 81."""


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
    build = module("examples.synthesise").build_scene
    makers |= {
        f"kind {kind}": lambda kind=kind: build(bpy, kind, 1) for kind in module("examples.kinds").KINDS
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
    from shared.messages import Backdrop, GenerationRequest
    from shared.pose import Limb, PoseSequence
    from tests.addon.rigs import run

    context, scene = bpy.context, bpy.context.scene
    settings, views = scene.poseanything, module("view")
    view = views.SceneCamera()
    planned = module("request.range").clip_range(context, settings, None)
    armatures = tuple(each for each in scene.objects if each.type == "ARMATURE")
    exporting = module("operators.exporting")
    (clip, _), _ = run(exporting.export_range(context, settings, planned, armatures, view, False, None))
    pose = clip.pose
    limbs = tuple(Limb(limb.name, limb.part, limb.subject) for limb in pose.limbs)
    arrays = (pose.points, pose.lengths, pose.owners, pose.offsets)
    maps = ("first_labels", "part_maps", "shadow_maps", "surface_flow", "light_maps")
    fields = ("first_frame", "first_frame_in_pose", "subject_mask", *maps, "camera_motion")
    request = GenerationRequest(
        job="truth",
        engine="draft",
        width=planned.width,
        height=planned.height,
        num_frames=planned.num_frames,
        fps=planned.fps,
        pose=PoseSequence(pose.width, pose.height, pose.parts, limbs, *arrays),
        backdrop=Backdrop(**dataclasses.asdict(clip.backdrop)) if clip.backdrop else None,
        **{name: getattr(clip, name) for name in fields},
    )
    placed = views.fit(*view.frame_size(scene), planned.width, planned.height)
    render, truth = module("ground_truth.scene_render").render_frame, {}
    for share in MEASURED:
        index = round(share * (planned.num_frames - 1))
        frame = planned.times.at(index)
        scene.frame_set(frame)
        truth[index] = render(scene, view, placed, frame)
    return request, truth


def decibels(picture: np.ndarray, truth: np.ndarray, cells: np.ndarray) -> str:
    """Over the whole picture, and where cells [h, w] say that the subject is."""
    error = np.square(picture.astype(np.float64) - truth).mean(axis=2)
    subject = cv2.resize(cells.astype(np.uint8), error.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    found = [10 * np.log10(255**2 / max(each.mean(), 1e-9)) for each in (error, error[subject]) if each.size]
    return "/".join(f"{each:.1f}" if each < 90 else "same" for each in found)


def gain(films: dict[str, np.ndarray], truth: dict[int, np.ndarray]) -> float:
    """Decibels by which Mini is nearer to the truth than the draft, on average over the frames measured."""
    ratios = [
        np.log10(squared(films["draft"][index], picture) / squared(films["mini"][index], picture))
        for index, picture in truth.items()
    ]
    return 10 * float(np.mean(ratios))


def squared(picture: np.ndarray, truth: np.ndarray) -> float:
    return max(float(np.square(picture.astype(np.float64) - truth).mean()), 1e-9)


def film(engine, request) -> np.ndarray:
    """The frames that an engine makes of it, uint8 [F, H, W, 3]."""
    from inference_server.engines.base import Picture

    events = engine.generate(request, lambda: False)
    return np.stack([event.image for event in events if isinstance(event, Picture)])


def main() -> None:
    install()
    import bpy

    from inference_server.engines import describe_engine, find_engine

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("scenes", nargs="*", help="words that the scenes' names begin with; default: all")
    arguments.add_argument("--poses", type=int, help="how many poses to send, evenly; default: of all frames")
    arguments.add_argument("--sheets", type=Path, help="folder for a picture of each scene")
    options = arguments.parse_args()
    engines = {name: find_engine(name)() for name in ("draft", "mini") if describe_engine(name).ready}
    for engine in engines.values():
        for _ in engine.load():
            pass
    if not FOX.exists():
        print(f"Fox.glb is not in {FOX.parent.parent.name}/{FOX.parent.name}: its three scenes are left out.")
    print("whole picture/subject in dB against Cycles; the first frame repeated in brackets")
    shares = "".join(f"{f'{share:.0%} of the clip':36}" for share in MEASURED)
    print(f"{'':22}{shares}{' and '.join(engines)}")
    gains = []
    for scene in scenes(bpy, options.scenes):
        request, truth = shoot(bpy)
        if options.poses:
            sent = np.unique(np.linspace(0, request.num_frames - 1, options.poses).round().astype(int))
            request = dataclasses.replace(request, pose_frames=tuple(sent.tolist()))
        films, seconds = {}, []
        for name, engine in engines.items():
            began = time.perf_counter()
            films[name] = film(engine, request)
            seconds.append(f"{time.perf_counter() - began:.1f} s")
        if "mini" in films:
            gains.append(gain(films, truth))
        told = []
        for index, picture in truth.items():
            cells = request.part_maps[index] > 0
            made = " ".join(decibels(frames[index], picture, cells) for frames in films.values())
            told.append(f"{made} ({decibels(films['draft'][0], picture, cells)})")
        print(f"{scene:22}{''.join(f'{each:36}' for each in told)}{' '.join(seconds)}", flush=True)
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            rows = [np.concatenate(list(truth.values()), 1)]
            rows += [np.concatenate(list(frames[list(truth)]), 1) for frames in films.values()]
            cv2.imwrite(str(options.sheets / f"{scene}.png"), np.concatenate(rows)[..., ::-1])
    if gains:
        over = compare(gains, [0.0] * len(gains))
        told = f"{over['mean']:+.3f} ± {over['interval']:.3f} dB, better in {over['wins']:.0%}"
        print(f"mini over the draft, {len(gains)} scenes: {told}")


if __name__ == "__main__":
    main()
