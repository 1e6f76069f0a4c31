"""The whole export of 81 frames at 832 x 480: polylines, pose pictures, part maps at 1/8, labels at full
size and the first picture, beside Workbench rendering the same frames. Rendering takes so long that a few
frames stand for all; medians. Of the main thread it tells the longest stretch, beside the scene's own
change of frame.

Left out: rendering the first frame by a final-frame engine, and reading files from disk. Two rigs stand for
all.
"""

from __future__ import annotations

import statistics
import time

from ._footage import FRAMES, HEIGHT, WIDTH, install, module

ROUNDS = 5
RENDERED = 5


def export(context, options) -> tuple[float, float]:
    """Seconds in all, and the longest between two steps."""
    steps = module("request.export").export_clip(context, options)
    begun = last = time.perf_counter()
    longest = 0.0
    try:
        while True:
            next(steps)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except StopIteration as finished:
        clip = finished.value
    module("shared.raster").draw_poses(clip.pose, WIDTH, HEIGHT)
    assert clip.first_labels.any() and clip.part_maps.any(axis=(1, 2)).all()
    return time.perf_counter() - begun, longest


def evaluate(scene, depsgraph, meshes, frame: int) -> float:
    """Seconds in which Blender brings the meshes to a frame; some modifiers run only when a mesh is asked
    for."""
    begun = time.perf_counter()
    scene.frame_set(frame)
    for mesh in meshes:
        assert mesh.evaluated_get(depsgraph).data
    return time.perf_counter() - begun


def render(bpy, frame: int) -> float:
    scene = bpy.context.scene
    scene.frame_set(frame)
    begun = time.perf_counter()
    bpy.ops.render.render()
    return time.perf_counter() - begun


def measure(name: str, bpy, rig, meshes) -> None:
    from tests.addon import rigs

    scene = bpy.context.scene
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = (
        WIDTH,
        HEIGHT,
        100,
    )
    options = rigs.options([rig], num_frames=FRAMES, width=WIDTH, height=HEIGHT)
    render(bpy, 1)  # shaders are compiled once
    exports = [export(bpy.context, options) for _ in range(ROUNDS)]
    rendered = [render(bpy, frame) for frame in range(1, FRAMES, FRAMES // RENDERED)]
    depsgraph = bpy.context.evaluated_depsgraph_get()
    changes = [evaluate(scene, depsgraph, meshes, frame) for frame in range(1, FRAMES + 1)]
    seconds, longest = (statistics.median(values) for values in zip(*exports))
    whole = statistics.median(rendered) * FRAMES
    evaluated = (mesh.evaluated_get(depsgraph).data for mesh in meshes)
    triangles = sum(len(polygon.vertices) - 2 for mesh in evaluated for polygon in mesh.polygons)
    print(
        f"{name}, {triangles} triangles: {seconds:.2f} s, Workbench {whole:.1f} s: 1/{whole / seconds:.0f} "
        f"(at most 1/20 wanted); longest stretch {longest * 1e3:.0f} ms (at most 100 wanted); "
        f"changing the frame takes {statistics.median(changes) * 1e3:.1f} ms "
        f"(at worst {max(changes) * 1e3:.0f})"
    )


def main() -> None:
    install()
    import bpy

    from tests.addon import rigs

    if rigs.FOX.exists():
        bpy.ops.wm.read_homefile(use_empty=True)
        rig, mesh = rigs.import_fox("Walk")
        rigs.add_camera(target=(0, 0, 40), distance=200)
        bpy.ops.mesh.primitive_plane_add(size=2000)
        measure("glTF fox over a floor", bpy, rig, [mesh])

    bpy.ops.wm.read_homefile(use_empty=True)
    rig = rigs.append_rig("human")
    for frame, place in ((1, (0, 0, 0)), (FRAMES, (0.3, 0.2, -0.1))):
        rig.pose.bones["torso"].location = place
        rig.pose.bones["torso"].keyframe_insert("location", frame=frame)
    body = rigs.flesh(rig)
    body.modifiers.new("Smooth", "SUBSURF").levels = 1
    rigs.add_camera(target=(0, 0, 1), distance=5)
    measure("Generated human, subdivided", bpy, rig, [body])


if __name__ == "__main__":
    main()
