"""The live view's way from a pose to its picture: the demo's fox at 832 x 480 with the draft engine, through
the real server, beside a frame of the same clip drawn by the engine alone. Poses are sent as Blender has
evaluated them; frames that are played wait for nothing, and what comes too late is dropped.

Left out: drawing the window. What the live view adds to a change of frame is measured while it is off and
while it is on, but a redraw of the 3D view takes as long as the graphics card needs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from ._footage import install, module
from .draft import stage

ROUNDS, FPS = 3, 24


def percentiles(seconds: list[float]) -> str:
    half, most = np.percentile(seconds, [50, 95]) * 1e3
    return f"median {half:6.1f} ms   95th percentile {most:6.1f} ms"


class Recorder:
    """What the live view reads and sends: the seconds of each, and the poses. A context."""

    def __init__(self, live):
        self._live, self.seconds, self.poses = live, [], []

    def __enter__(self) -> Recorder:
        follow, client = self._live.follow, self._live._client
        send = client.pose_live

        def timed(scene, depsgraph):
            begun = time.perf_counter()
            follow(scene, depsgraph)
            self.seconds.append(time.perf_counter() - begun)

        def noted(message):
            self.poses.append(message)
            send(message)

        self._live.follow, client.pose_live = timed, noted
        return self

    def __exit__(self, *_) -> None:
        del self._live.follow, self._live._client.pose_live


def one_by_one(bpy, live) -> list[float]:
    """For every frame of the clip: seconds from its pose to its picture in Blender's hands."""
    scene, waited = bpy.context.scene, []
    for frame in range(scene.frame_start + 1, scene.frame_end + 1):
        scene.frame_set(frame)  # which has read and sent it
        while live._sent:
            live.poll()
            time.sleep(0.001)
        waited.append(live.latency)
    return waited


def play(bpy, live) -> tuple[float, float]:
    """Pictures a second while the clip plays at its rate, and frames a second that were played."""
    scene, shown = bpy.context.scene, 0
    take = live.picture.take

    def count(message):
        nonlocal shown
        shown += 1
        take(message)

    live.picture.take = count
    begun = time.perf_counter()
    played = 0
    while (passed := time.perf_counter() - begun) < 81 / FPS:
        if passed * FPS > played:
            played += 1
            scene.frame_set(scene.frame_start + int(passed * FPS) % 81)
        live.poll()
        time.sleep(0.002)
    live.picture.take = take
    return shown / passed, played / passed


def change_frames(bpy) -> float:
    """Seconds that a change of frame takes."""
    scene = bpy.context.scene
    begun = time.perf_counter()
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
    return (time.perf_counter() - begun) / 81


def prepare_overlay(bpy) -> list[float]:
    """Seconds of the processor for the skeleton over the camera view, in each frame: reading the pose,
    projecting it, and its strokes as triangles on the graphics card."""
    scene, seconds = bpy.context.scene, []
    overlay, frame = module("ui.overlay"), module("ui.frame")
    for number in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(number)
        bpy.context.evaluated_depsgraph_get()
        begun = time.thread_time()
        placed = frame.clip_fit(bpy.context)
        overlay._batch(overlay.current_pose(bpy.context, placed), (0.0, 0.0, 1000.0, 600.0), placed, True)
        seconds.append(time.thread_time() - begun)
    return seconds


BONES = 60


def many_bones(bpy) -> int:
    """A rig of bones that are a limb each, all of them drawn; gives how many joints that are."""
    bpy.ops.wm.read_homefile(use_empty=True)
    scene, data = bpy.context.scene, bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for number in range(BONES):
        chain, link = divmod(number, 6)
        bone = data.edit_bones.new(f"bone{number}")
        bone.head, bone.tail = (chain - 5, 0, link), (chain - 5, 0.1, link + 1)
    bpy.ops.object.mode_set(mode="POSE")
    for bone in rig.pose.bones:
        bone.bone.poseanything.limb = "DRAW"
        bone.rotation_mode = "XYZ"
        for frame, angle in ((1, 0.0), (81, 0.5)):
            bone.rotation_euler.x = angle
            bone.keyframe_insert("rotation_euler", frame=frame)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location, camera.rotation_euler = (0, -25, 3), (1.5708, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera, scene.frame_end = camera, 81
    sampler = module("ui.limbs").followed(bpy.context).sampler
    return len(sampler.sample(bpy.context.evaluated_depsgraph_get()))


def draw_alone(request, poses) -> list[float]:
    """Seconds that the engine takes for each pose, called without a server."""
    from inference_server.engines.draft.live import LiveDraft
    from shared import wire

    def ours(message):
        return wire.decode([bytes(part) for part in module("shared.wire").encode(message)])

    drawer, seconds = LiveDraft(ours(request)), []
    for message in map(ours, poses):
        begun = time.perf_counter()
        drawer.draw(message.pose, message.camera_motion)
        seconds.append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    install()
    import bpy

    with tempfile.TemporaryDirectory() as folder:
        stage(bpy, Path(folder))
        live = module("live.view").get()
        handlers = len(bpy.app.handlers.depsgraph_update_post)
        off = [change_frames(bpy) for _ in range(ROUNDS)]
        skeleton = [second for _ in range(ROUNDS) for second in prepare_overlay(bpy)]
        joints = len(
            module("ui.limbs").followed(bpy.context).sampler.sample(bpy.context.evaluated_depsgraph_get())
        )
        bpy.ops.poseanything.live()
        try:
            begun = time.perf_counter()
            while not live.ready:
                live.poll()
                assert live.on, live.sentence
                time.sleep(0.001)
            prepared = time.perf_counter() - begun
            while live._sent:
                live.poll()
            with Recorder(live) as recorder:
                waited = [second for _ in range(ROUNDS) for second in one_by_one(bpy, live)]
            rates = [play(bpy, live) for _ in range(ROUNDS)]
            on = [change_frames(bpy) for _ in range(ROUNDS)]
            alone = draw_alone(live.opened.message.request, recorder.poses)
            live.end()
            after = [change_frames(bpy) for _ in range(ROUNDS)]
            left = len(bpy.app.handlers.depsgraph_update_post) - handlers
        finally:
            bpy.ops.poseanything.stop_server()
    many = many_bones(bpy)
    sixty = [second for _ in range(ROUNDS) for second in prepare_overlay(bpy)]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{os.cpu_count()} cores, load {load}; prepared in {prepared:.1f} s after the first frame was made")
    print(f"from pose to picture  {percentiles(waited)} (under 120 wanted)")
    print(f"the engine alone      {percentiles(alone)}")
    print(f"ratio of the medians {statistics.median(waited) / statistics.median(alone):.2f}")
    shown, played = (statistics.median(values) for values in zip(*rates))
    print(f"playback: {shown:.1f} pictures of {played:.1f} frames a second, {shown / played:.2f} of them")
    print(f"reading and sending a pose {percentiles(recorder.seconds)}")
    print(f"the skeleton over the view, {joints} joints: {percentiles(skeleton)} (at most 2 wanted)")
    print(f"the same of {BONES} bones, {many} joints: {percentiles(sixty)} (at most 2 wanted)")
    before, while_on, once_off = (1e3 * statistics.median(values) for values in (off, on, after))
    print(
        f"a change of frame: off {before:.2f} ms, on {while_on:.2f} ms ({while_on / before:.2f}x), off again "
        f"{once_off:.2f} ms ({once_off / before:.2f}x), {left} handlers left"
    )


if __name__ == "__main__":
    main()
