"""Reading all limbs of 81 frames off the evaluated pose and projecting them, beside changing the scene's
frame alone, which neither can do without. They take turns; medians.

Left out: rigs that need the evaluated mesh, drivers in Python and simulations, whose scene change costs more.
"""

from __future__ import annotations

import statistics
import time

from ._footage import FRAMES, install, module

ROUNDS = 9


def frames_alone(scene) -> float:
    begun = time.perf_counter()
    for frame in range(1, FRAMES + 1):
        scene.frame_set(frame)
    return time.perf_counter() - begun


def frames_with_limbs(context, rig) -> float:
    """Seconds for the whole pose sequence of a rig whose limbs have been chosen."""
    from tests.addon.rigs import run

    limb, projection, view = module("shared.pose").Limb, module("view.projection"), module("view")
    subjects = module("steps").at_once(module("rig.subjects").find_subjects([rig]))
    sampler = module("rig.sampling").Sampler(subjects)
    choice = subjects[0].choice
    limbs = [limb(chosen.name, chosen.part) for chosen in choice.limbs]
    scene, camera = context.scene, view.SceneCamera()
    begun = time.perf_counter()
    lenses, joints = [], []
    for frame in range(1, FRAMES + 1):
        scene.frame_set(frame)
        depsgraph = context.evaluated_depsgraph_get()
        lenses.append(camera.lens(scene, depsgraph))
        joints.append(sampler.sample(depsgraph))
    fit = view.fit(*camera.frame_size(scene), 832, 480)
    pose, _ = run(projection.Projector(lenses, fit).strokes(joints, sampler.counts, limbs, choice.parts))
    seconds = time.perf_counter() - begun
    assert pose.num_frames == FRAMES and len(pose.owners) == FRAMES * len(limbs)
    return seconds


def measure(name: str, context, rig, limit: float) -> None:
    alone, limbs = [], []
    for _ in range(ROUNDS):
        alone.append(frames_alone(context.scene))
        limbs.append(frames_with_limbs(context, rig))
    ratio = statistics.median(limbs) / statistics.median(alone)
    alone_ms, limbs_ms = (statistics.median(seconds) / FRAMES * 1e3 for seconds in (alone, limbs))
    print(
        f"{name}, {len(rig.data.bones)} bones: changing frame {alone_ms:.2f} ms, with limbs "
        f"{limbs_ms:.2f} ms, {ratio:.2f}x (at most {limit:g}x wanted)"
    )


def main() -> None:
    install()
    import bpy

    from tests.addon import rigs

    bpy.ops.wm.read_homefile(use_empty=True)
    rig = rigs.append_rig("human")
    for frame, place in ((1, (0, 0, 0)), (FRAMES, (0.3, 0.2, -0.1))):
        for bone in ("torso", "hand_ik.L", "foot_ik.R"):
            rig.pose.bones[bone].location = place
            rig.pose.bones[bone].keyframe_insert("location", frame=frame)
    rigs.add_camera(target=(0, 0, 1), distance=6)
    measure("Generated human", bpy.context, rig, 1.5)

    if rigs.FOX.exists():
        bpy.ops.wm.read_homefile(use_empty=True)
        rig, _ = rigs.import_fox("Walk")
        rigs.add_camera(target=(0, 0, 40), distance=300)
        measure("glTF fox", bpy.context, rig, 3.0)


if __name__ == "__main__":
    main()
