"""PoseAnything Mini: the draft, corrected by a small model of PoseAnything's own classes.

The draft is drawn at full size. What lies around the subject is cut out and scaled to the size that the model
was trained at; there the model's flow leads from the draft's latents to what the frames should be. What it
changes is scaled up and added to the draft, which keeps the first frame's detail.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from shared.engines import EngineDescription
from shared.messages import GenerationRequest, Preview, Progress
from shared.sentences import one_after_another, say

from ..base import JobCancelled, Picture
from ..poseanything.engine import PoseAnythingEngine

WEIGHTS = Path(__file__).with_name("weights")
NOTE = say("PoseAnything Mini corrects a draft; prompt, seed and guidance have no effect on it.")


class MiniEngine(PoseAnythingEngine):
    """The same engine with small weights that come along. Frames come in groups, as many as the model makes
    at once."""

    about = EngineDescription(
        name="mini",
        label="PoseAnything Mini (small, no card)",
        summary="A draft, corrected around the subject by a small neural network. It is nearer to the truth "
        "on pictures like those that it was trained on; on renders the draft is as good.",
        neural=True,
        experimental=True,
        uses_prompt=False,
        uses_seed=False,
        runs_on="Runs on the processor, in about twice the draft's time.",
    )
    weights_missing = say("Its weights are missing; they come with the project, so get it again.")
    presets = ()

    @classmethod
    def weights_folder(cls) -> Path:
        return WEIGHTS

    @classmethod
    def describe(cls) -> EngineDescription:
        found = super().describe()
        # Of any size and length: the model sees a small copy, filled up to whole groups of frames.
        return replace(cls.about, ready=found.ready, reason=found.reason, pose_look=found.pose_look)

    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Generator[Progress | Preview | Picture, None, str]:
        from ..draft.clip import Clip
        from ..poseanything.request import with_poses_between
        from .correction import BENT, FLOWN, Correction

        clip, config = Clip(request), cast(dict[str, Any], self._runner.config())
        if config["between_poses"] == "interpolated":
            request = with_poses_between(request)
        first, at_once, total = clip.frame(0), config["sample_frames"] - 1, request.num_frames
        share = FLOWN if clip.surface is not None else BENT
        yield Picture(0, first)
        for start in range(1, total, at_once):
            frames = range(start, min(start + at_once, total))
            drafts = []
            for index in frames:
                if cancelled():
                    raise JobCancelled
                drafts.append(clip.frame(index))
                yield Progress(request.job, "drawing", index + 1, total)
            grid, side = self._runner.sizes.grid, config["sample_size"]
            correction = Correction(request, config, grid, frames, first, drafts, side)
            for event in self.make(correction.request, cancelled):
                if isinstance(event, Picture) and 0 < event.index <= len(drafts):
                    place = event.index - 1
                    still = drafts[place] is first  # which is then known to be true
                    image = first if still else correction.corrected(place, event.image, share)
                    yield Picture(frames[place], image)
        return one_after_another(NOTE, *clip.notes)
