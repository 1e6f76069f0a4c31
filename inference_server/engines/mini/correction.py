"""Between a clip's own size and the small one that the model works at, around the subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from shared.engines import Guidance
from shared.messages import GenerationRequest
from shared.raster import condition_images

from ...poseanything.conditioning.conditions import Conditions, LatentGrid
from ...poseanything.conditioning.subject_crop import crop_poses, find_crops
from ...poseanything.sampling.request import SamplingRequest

BENT, FLOWN = 0.7, 0.3
"""Shares of what the model changes: in drafts that are bent by the bones, as all were that it was trained
on, and in those that are drawn from where the scene says that surfaces are."""


class Correction:
    """Some frames of a clip at the small size, together with its first one.

    Args:
        config: the transformer's.
        frames: which, at most as many as the model makes at once.
        first: uint8 [H, W, 3], the clip's first frame.
        drafts: of `frames`, each as `first`.
        longer_side: pixels of the small size's longer side.
    """

    def __init__(
        self,
        request: GenerationRequest,
        config: Mapping,
        grid: LatentGrid,
        frames: Sequence[int],
        first: np.ndarray,
        drafts: Sequence[np.ndarray],
        longer_side: int,
    ):
        full = request.width, request.height
        size = grid.fit_size(*full, min(longer_side, max(full)))
        crops = find_crops(request.pose, frames, *full, least=max(size) / max(full))
        self.drafts, self._crop, self._full = drafts, crops[1], full
        # The last frame is repeated until they fill the model's groups.
        fill = -len(frames) % grid.frames_per_latent
        shown = [*frames, *[frames[-1]] * fill]
        small = [crops[0].shrunk(first, *size), *(crops[1].shrunk(draft, *size) for draft in drafts)]
        self.small = np.stack(small + small[-1:] * fill)
        posed = set(request.conditioned_frames())
        places = [place for place, frame in enumerate([0, *shown]) if frame in posed]
        pose = crop_poses(request.pose, shown, crops, *full)
        conditions = Conditions(
            first_frame=self.small[0],
            pose_images=condition_images(pose, *size, places, config["pose_canvas"]),
            pose_frames=places,
            draft=self.small,
        )
        self.request = SamplingRequest.of(
            conditions, Guidance(), request.seed, config["num_inference_steps"], {}
        )

    def corrected(self, place: int, made: np.ndarray, share: float) -> np.ndarray:
        """uint8 [H, W, 3]: a draft, and what the model changed at the small size scaled up to it.

        Args:
            place: of the frame among these, from 0 on.
            made: uint8, what the model made of it.
            share: how much of the change is taken, from 0 to 1.
        """
        change = share * (made.astype(np.float32) - self.small[place + 1])
        size = self._crop.width, self._crop.height
        change = cv2.resize(change, size, interpolation=cv2.INTER_CUBIC) * self._crop.weights(*self._full)
        picture = self.drafts[place].copy()
        self._crop.cut(picture)[:] = cv2.add(self._crop.cut(picture), change, dtype=cv2.CV_8U)
        return picture
