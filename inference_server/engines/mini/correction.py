"""Between a clip's own size and the small one that the model works at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from shared.engines import Guidance
from shared.messages import GenerationRequest
from shared.raster import condition_images

from ...poseanything.conditioning.conditions import Conditions, LatentGrid
from ...poseanything.sampling.request import SamplingRequest


class Correction:
    """A request at the small size, window by window.

    Args:
        config: the transformer's.
        longer_side: pixels of the small size's longer side.
    """

    def __init__(self, request: GenerationRequest, config: Mapping, grid: LatentGrid, longer_side: int):
        longest = max(request.width, request.height)
        self.request, self.grid, self.steps = request, grid, config["num_inference_steps"]
        self.size = grid.fit_size(request.width, request.height, min(longer_side, longest))
        self.posed = set(request.conditioned_frames())
        self.poses = condition_images(
            request.pose, *self.size, request.conditioned_frames(), config["pose_canvas"]
        )

    def sampling_request(
        self, first: np.ndarray, drafts: Sequence[np.ndarray], frames: Sequence[int]
    ) -> SamplingRequest:
        """The request for these frames after the first one; the last is repeated until they fill the model's
        groups.

        Args:
            first: uint8 [H, W, 3], the clip's first frame.
            drafts: of `frames`, each as `first`.
        """
        group = self.grid.frames_per_latent
        fill = -len(frames) % group
        shown = [0, *frames, *[frames[-1]] * fill]
        small = [cv2.resize(draft, self.size, interpolation=cv2.INTER_AREA) for draft in (first, *drafts)]
        small += small[-1:] * fill
        conditions = Conditions(
            first_frame=small[0],
            pose_images=self.poses[shown],
            pose_frames=[place for place, frame in enumerate(shown) if frame in self.posed],
            draft=np.stack(small),
        )
        return SamplingRequest.of(conditions, Guidance(), self.request.seed, self.steps, {})

    @staticmethod
    def add(draft: np.ndarray, small_draft: np.ndarray, small_result: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3]: the draft, and what the model changed at the small size scaled up to it."""
        change = small_result.astype(np.float32) - small_draft
        change = cv2.resize(change, draft.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return cv2.add(draft, change, dtype=cv2.CV_8U)
