"""Clips for the neural engine's runner without a scene, and when what of them came."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from inference_server.poseanything.conditioning.conditions import Conditions
from inference_server.poseanything.runtime.runner import ClipRunner
from inference_server.poseanything.sampling.decoding import Frames
from inference_server.poseanything.sampling.pipeline import DenoisingStep, Step
from inference_server.poseanything.sampling.request import SamplingRequest
from shared.messages import Guidance

PARTS = 5
STAGES = ("loading", "reading the prompt", "encoding")
"""Before the first step; when each of them ends is noted."""


def job(
    width: int,
    height: int,
    num_frames: int,
    steps: int,
    seed: int = 0,
    guidance: Guidance | None = None,
    prompt: str = "a fox runs through snow",
    **options,
) -> SamplingRequest:
    """Five parts side by side that move to the right, a line through each; `options` are the engine's."""
    rng = np.random.default_rng(5)
    first = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    maps = np.zeros((num_frames, height // 8, width // 8), np.uint8)
    poses = np.zeros((num_frames, height, width), np.uint8)
    edges = np.linspace(width // 5, 4 * width // 5, PARTS + 1).astype(int)
    for frame in range(num_frames):
        shift = 16 * frame // num_frames
        for part, (left, right) in enumerate(zip(edges, edges[1:])):
            maps[frame, height // 24 : height // 12, (left + shift) // 8 : (right + shift) // 8] = part + 1
            middle = (left + right) // 2 + shift
            poses[frame, height // 3 : 2 * height // 3, middle - 2 : middle + 2] = 255
    clip = Conditions(first, poses, prompt=prompt, part_maps=maps)
    return SamplingRequest.of(clip, guidance or Guidance(guider="none"), seed, steps, options)


@dataclass
class Played:
    """What came of a clip; seconds since it was asked for."""

    note: str = ""
    num_frames: int = 0
    images: list[np.ndarray] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the `STAGES` that there are, "first step", "first preview", "last step", "first frame" and "all"."""


def play(
    runner: ClipRunner,
    request: SamplingRequest,
    check: Callable[[], None] | None = None,
    preview: bool = False,
) -> Played:
    """Make a clip to its end. What `check` raises leaves it."""
    played, began, events = Played(), time.perf_counter(), runner.make(request, check)

    def reached(name: str) -> None:
        played.seconds[name] = time.perf_counter() - began

    try:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                played.note = end.value
                reached("all")
                return played
            if isinstance(event, Step) and event.stage in STAGES:
                reached(event.stage)
            if isinstance(event, DenoisingStep):
                reached("last step")
                if "first step" not in played.seconds:
                    reached("first step")
                    if preview:
                        event.preview()
                        reached("first preview")
            elif isinstance(event, Frames):
                played.seconds.setdefault("first frame", time.perf_counter() - began)
                played.num_frames += event.images.shape[1]
                played.images.append(event.images[0])
    finally:
        events.close()
