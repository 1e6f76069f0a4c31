"""What one trains on: a request of the bridge and the frames that answer it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.messages import GenerationRequest


@dataclass(frozen=True, eq=False)
class Example:
    """A training example.

    request: the conditions: first frame, polylines, part maps, camera motion, prompt.
    frames: uint8 [F, H, W, 3], the answer; frame 0 is the request's first frame.
    subject: who is seen. A data set is split by subjects, never by clips.
    labels: uint8 [F, H, W], limb index + 1 of the limb that each pixel shows, 0 elsewhere, where the truth
        is known.
    draft: uint8 [F, H, W, 3], what the draft engine made of the request, where it was asked.
    poses: uint8 [F, H, W], pictures of the poses as a model is shown them, where they are known as pictures;
        otherwise they are drawn of the request's.
    """

    request: GenerationRequest
    frames: np.ndarray
    subject: str
    labels: np.ndarray | None = None
    draft: np.ndarray | None = None
    poses: np.ndarray | None = None
