"""The draft engine: an animatic made of the first frame alone, without a neural network.

The first frame is cut into the parts that each bone carries; every part bends with its bones over the filled
background, the nearest last. True to the pose and to the picture, blind to everything that the first frame
does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from shared.engines import EngineDescription
from shared.messages import GenerationRequest, Preview, Progress
from shared.sentences import one_after_another, say

from ..base import Engine, JobCancelled, LiveSession, Picture

NOTE = say(
    "A draft bends the first frame by the pose; prompt, seed, steps and guidance have no effect on it."
)

PREVIEW_SIDE = 256


class DraftEngine(Engine):
    """Frames are final when they come, in milliseconds each; the first is the first frame itself, bit for
    bit."""

    @classmethod
    def describe(cls) -> EngineDescription:
        return EngineDescription(
            name="draft",
            label="Draft (animatic, no neural network)",
            summary="Bends the first frame's parts by the pose: a quick and honest animatic, "
            "not a generated film.",
            neural=False,
            uses_prompt=False,
            uses_seed=False,
            live=True,
            runs_on="Runs on the processor, in less time than the clip plays.",
        )

    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Generator[Progress | Preview | Picture, None, str]:
        from .clip import Clip, decode

        total = request.num_frames
        yield Picture(0, decode(request.first_frame))
        yield Progress(job=request.job, stage="drawing", step=1, total=total)
        if cancelled():
            raise JobCancelled
        clip = Clip(request)
        previewed = time.monotonic()
        for index in range(1, total):
            if cancelled():
                raise JobCancelled
            image = clip.frame(index)
            yield Picture(index, image)
            now = time.monotonic()
            yield Progress(job=request.job, stage="drawing", step=index + 1, total=total)
            if request.preview_interval and now - previewed >= request.preview_interval:
                previewed = now
                step = max(1, -(-max(image.shape) // PREVIEW_SIDE))
                yield Preview(job=request.job, index=index, image=image[::step, ::step].copy())
        return one_after_another(NOTE, *clip.notes)

    def open_live(self, request: GenerationRequest) -> LiveSession:
        from .live import LiveDraft

        return LiveDraft(request)
