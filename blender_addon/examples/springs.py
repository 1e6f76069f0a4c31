"""What hangs on a body follows it as a damped spring: tails, ears, hair, feelers, fins, branches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUBSTEPS = 8
"""Of the integration, in a frame."""


@dataclass(frozen=True)
class Spring:
    """How stiff a chain is: the `frequency` in Hz at which it swings once let go, and its `damping` as a
    fraction of that which lets it swing no more."""

    frequency: float
    damping: float


def follow(
    heads: np.ndarray, wanted: np.ndarray, spring: Spring, fps: float, push: np.ndarray | float = 0.0
) -> np.ndarray:
    """Where the tip of a bone is that follows as a spring.

    Args:
        heads: [F, 3], the other end of it in each frame, in metres.
        wanted: [F, 3], where the tip would be if it were stiff; as far from the head in all frames.
        fps: frames per second.
        push: [F, 3] or one number, an acceleration such as that of wind, in metres per second squared.

    Returns:
        [F, 3], as far from the heads as `wanted`. In the first frame it is at rest.
    """
    aims = wanted - heads
    length = np.linalg.norm(aims[0])
    # Seen from the head, which speeds up and slows down.
    pushes = push - np.gradient(np.gradient(heads, axis=0), axis=0) * fps**2
    pull, drag = (2 * np.pi * spring.frequency) ** 2, 4 * np.pi * spring.frequency * spring.damping
    step = 1 / fps / SUBSTEPS
    reach, speed, reaches = aims[0].copy(), np.zeros(3), [aims[0]]
    for frame in range(1, len(heads)):
        for part in np.arange(1, SUBSTEPS + 1) / SUBSTEPS:
            aim, force = ((1 - part) * each[frame - 1] + part * each[frame] for each in (aims, pushes))
            speed += step * (pull * (aim - reach) - drag * speed + force)
            reach += step * speed
            reach *= length / np.linalg.norm(reach)
            speed -= reach * (speed @ reach) / length**2  # it grows no longer
        reaches.append(reach.copy())
    return heads + reaches
