"""Which tokens belong to which part, step by step: known from the scene, or matched by attention while
denoising goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
import torch

from ..conditioning.conditions import STRIDE, Conditions
from ..conditioning.parts import PartPlan, match_parts, parts_from_truth, plan_parts
from ..models.transformer import FirstFrameAttention, PartTokens, PoseAnythingTransformer3DModel

MATCHING_BLOCK = 27
MATCHING_TIMESTEP = 975
"""At later steps, as in deeper blocks, attention spreads evenly and tells parts apart no more (paper, section
C)."""


class PartTracker:
    """The parts of one window of a clip.

    Where the clip has part maps they are all there is to it. Otherwise parts are found in the pose images,
    and every step above timestep 975 records how the first frame's parts attend to the others; the next step
    has the matches by that. Nothing is denoised only to be thrown away, but the first step has no parts yet.

    Args:
        clip: the window.
        transformer: the model that is to take the parts.
        batch_size: samples made of the clip at once.
        matching: "paper" or "release", see `parts.match_parts`. The release also records on the block's own
            output.
        executor: finds the parts beside what else there is to do.
        check: called there for each frame; what it raises ends the search.
    """

    def __init__(
        self,
        clip: Conditions,
        transformer: PoseAnythingTransformer3DModel,
        batch_size: int,
        matching: str,
        executor: Executor,
        check: Callable[[], None] | None = None,
    ):
        self._matching, self._batch_size = matching, batch_size
        self._height, self._width = (side // STRIDE for side in clip.size)
        self._beside_pose = transformer.config.pose_injection == "width"
        self._block = min(MATCHING_BLOCK, transformer.config.num_layers - 1)
        self._parts: PartTokens | None = None
        self._plan: Callable[[], PartPlan] | None = None
        if not transformer.config.part_attention:
            return
        if clip.part_maps is not None:
            self._set(*parts_from_truth(clip.part_maps, self._height, self._width, clip.first_part_map))
        else:
            height, width = clip.size
            images = {frame: clip.pose_images[frame] for frame in clip.pose_frames}
            self._plan = executor.submit(
                plan_parts, images, clip.subject_mask, width, height, STRIDE, check
            ).result

    @property
    def has_to_match(self) -> bool:
        """Whether there are parts, and they are to be matched by attention."""
        return self._plan is not None and bool(len(self._plan().rows))

    def parts_on(self, device: torch.device) -> PartTokens | None:
        """The parts as far as they are known, their indices on a device."""
        if self._parts is not None and self._parts.tokens.device != device:
            self._parts = self._parts.to(device)
        return self._parts

    def recorder(self, timestep: float) -> FirstFrameAttention | None:
        """What is to record the attention of a step; None where it is of no use."""
        if timestep <= MATCHING_TIMESTEP or not self.has_to_match:
            return None
        rows = self._plan().rows
        if self._beside_pose:
            rows = rows // self._width * 2 * self._width + rows % self._width
        return FirstFrameAttention(
            self._block, torch.from_numpy(rows), on="own_output" if self._matching == "release" else "input"
        )

    def observe(self, recorder: FirstFrameAttention | None, final: bool = False) -> None:
        """Match the parts anew by what a step's recorder has; for the last time where this is `final`."""
        if recorder is None or recorder.weights is None:
            return
        plan, weights = self._plan(), recorder.weights.cpu().numpy()
        if self._beside_pose:
            halves = weights.reshape(*weights.shape[:2], -1, 2, self._width)
            weights = halves[:, :, :, 0].reshape(*weights.shape[:2], -1)
        matched = [match_parts(plan, sample, plan.rows, self._matching) for sample in weights]
        self._set(np.stack([plan.first] * len(matched)), np.stack(matched))
        if final:
            self._plan = None

    def _set(self, first: np.ndarray, frames: np.ndarray) -> None:
        if not first.size:
            return
        if self._beside_pose:
            first, frames = (np.concatenate([part, np.zeros_like(part)], axis=-1) for part in (first, frames))
        self._parts = PartTokens.from_masks(first, frames, self._batch_size)
