"""Which tokens belong to which part, step by step: known from the scene, or matched by attention while
denoising goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import torch

from ..conditioning.conditions import Conditions, LatentGrid
from ..conditioning.parts import PartPlan, parts_from_truth, plan_parts
from ..models.transformer import FirstFrameAttention, PartTokens, PoseAnythingTransformer3DModel
from .part_matching import MATCHING_TIMESTEP, PartMatcher

TWO_PASS = ("two_pass", "release")


class PartTracker:
    """The parts of one window of a clip.

    Where the clip has part maps they are all there is to it. Otherwise parts are found in the pose images and
    matched by how the first frame's attend to the others:

    - "assigned": every step above timestep 975 records it, and the next step has the matches by that. Nothing
      is denoised only to be thrown away, but the first step has no parts yet.
    - "paper": the same, each part on its own and by attention alone (see `parts.match_parts`).
    - "two_pass": the steps above 975 are made once without parts, the last of them records it, and the window
      is begun anew with the matches. All part-aware steps have parts, at the cost of as many evaluations
      again.
    - "release": as "two_pass", with the official code's slips (see `parts.match_parts`): it records on the
      block's own output, and files what it finds a latent frame too early.

    Args:
        conditions: the window's.
        grid: the model's.
        transformer: the model that is to take the parts.
        batch_size: samples made of the clip at once.
        matching: one of these.
        executor: finds the parts beside what else there is to do.
        check: called there for each frame; what it raises ends the search.
    """

    def __init__(
        self,
        conditions: Conditions,
        grid: LatentGrid,
        transformer: PoseAnythingTransformer3DModel,
        batch_size: int,
        matching: str,
        executor: Executor,
        check: Callable[[], None] | None = None,
    ):
        height, width = conditions.size
        config = transformer.config
        mode = matching if matching in ("paper", "release") else "assigned"
        self._matcher = PartMatcher(config, grid.frames_per_latent, mode)
        self._parts: PartTokens | None = None
        self._plan: Callable[[], PartPlan] | None = None
        if not config.part_attention:
            return
        if conditions.part_maps is not None:
            maps, first = conditions.part_maps, conditions.first_part_map
            known = parts_from_truth(maps, *grid.tokens(height, width), first, grid.frames_per_latent)
            if known[0].size:
                self._parts = self._matcher.tokens(*known, batch_size)
        else:
            images = {frame: conditions.pose_images[frame] for frame in conditions.pose_frames}
            self._plan = executor.submit(
                plan_parts,
                images,
                conditions.subject_mask,
                width,
                height,
                grid.stride,
                config.max_parts,
                check,
            ).result

    @property
    def has_to_match(self) -> bool:
        """Whether there are parts, and they are to be matched by attention."""
        return self._plan is not None and bool(len(self._plan().rows))

    def _planned(self) -> PartPlan:
        assert self._plan is not None
        return self._plan()

    def parts_on(self, device: torch.device) -> PartTokens | None:
        """The parts as far as they are known, their indices on a device."""
        if self._parts is not None and self._parts.tokens.device != device:
            self._parts = self._parts.to(device)
        return self._parts

    def recorder(self, timestep: float) -> FirstFrameAttention | None:
        """What is to record the attention of a step; None where it is of no use."""
        if timestep <= MATCHING_TIMESTEP or not self.has_to_match:
            return None
        return self._matcher.recorder([self._planned()])

    def observe(self, recorder: FirstFrameAttention | None, final: bool = False) -> None:
        """Match the parts anew by what a step's recorder has; for the last time where this is `final`."""
        if recorder is None or recorder.weights is None:
            return
        self._parts = self._matcher.match([self._planned()], recorder.weights)
        if final:
            self._plan = None
