"""What the contract costs: messages and pose pictures, beside copying the same bytes once with numpy.

A result frame is raw at 832 x 480; the request is for 81 of them, with 30 limbs, part maps at 1/8 and
full-size labels of the first frame. Copies and runs take turns; medians.

Left out: sockets: messages are encoded and decoded in one process. See `bridge` for the whole way.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from shared import camera, messages, raster, wire
from shared.pose import Limb, Polyline, PoseSequence
from tests.contract.strategies import png

FRAMES, WIDTH, HEIGHT, LIMBS = 81, 832, 480, 30
ROUNDS = 15


def creature() -> PoseSequence:
    """Limbs of about a hundred pixels that swing about the picture's middle."""
    rng = np.random.default_rng(0)
    joints = rng.uniform((250, 120), (580, 360), (LIMBS, 1, 2)) + rng.normal(0, 40, (LIMBS, 3, 2)).cumsum(1)
    swing = 30 * np.sin(np.linspace(0, 20, FRAMES))
    drawn = [
        [Polyline(i, np.column_stack([joint + (shift, 0), np.ones(3)])) for i, joint in enumerate(joints)]
        for shift in swing
    ]
    return PoseSequence.from_frames(
        WIDTH, HEIGHT, ["body"], [Limb(f"bone {i}", 0) for i in range(LIMBS)], drawn
    )


def request(pose: PoseSequence) -> messages.GenerationRequest:
    labels = (np.hypot(*np.mgrid[-240:240, -416:416]) // 8).clip(0, LIMBS).astype(np.uint8)
    labels = np.where(labels < LIMBS, LIMBS - labels, 0).astype(np.uint8)
    return messages.GenerationRequest(
        job="benchmark",
        engine="draft",
        width=WIDTH,
        height=HEIGHT,
        num_frames=FRAMES,
        fps=24,
        first_frame=png(WIDTH, HEIGHT),
        pose=pose,
        subject_mask=(labels > 0).astype(np.uint8),
        first_labels=labels,
        part_maps=np.stack([np.roll(labels[4::8, 4::8], i // 4, 1) for i in range(FRAMES)]),
        camera_motion=camera.camera_path({"pan_left": 0.2}, FRAMES, WIDTH, HEIGHT),
    )


def beside(run: Callable, copied: Callable) -> tuple[float, float]:
    """Median seconds of both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for times, function in zip(taken, (run, copied)):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])


def main() -> None:
    pose = creature()
    whole = request(pose)
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    frame = messages.Frame("benchmark", 0, WIDTH, HEIGHT, "raw", picture.data)
    frame_parts, request_parts = wire.encode(frame), wire.encode(whole)
    arrays = [whole.pose.points, whole.subject_mask, whole.first_labels, whole.part_maps, whole.camera_motion]
    images = raster.draw_poses(pose)
    runs: dict[str, tuple[Callable, Callable]] = {
        "encode a raw frame": (lambda: wire.encode(frame), picture.copy),
        "decode a raw frame": (lambda: wire.decode(frame_parts), picture.copy),
        "encode the request": (lambda: wire.encode(whole), lambda: [array.copy() for array in arrays]),
        "decode the request": (
            lambda: wire.decode(request_parts),
            lambda: [array.copy() for array in arrays],
        ),
        "draw 81 pose pictures": (lambda: raster.draw_poses(pose), images.copy),
        "draw 81 condition images": (lambda: raster.condition_images(pose, WIDTH, HEIGHT), images.copy),
    }
    size = sum(memoryview(part).nbytes for part in request_parts)
    print(f"The request travels in {len(request_parts)} parts of {size / 1e3:.0f} kB in all")
    for name, (run, copied) in runs.items():
        seconds, copy = beside(run, copied)
        print(f"{name:26} {1e3 * seconds:9.3f} ms   a copy {1e3 * copy:8.3f} ms   {seconds / copy:8.2f} x")


if __name__ == "__main__":
    main()
