"""The neural engine: PoseAnything itself. What is heavy is imported when the first job needs it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shared.messages import MAX_FRAMES, EngineDescription, GenerationRequest, Preview, Progress

from ...poseanything.checkpoints import CheckpointError, find_weights
from ..base import Engine, EngineError, JobCancelled, Picture

if TYPE_CHECKING:
    from ...poseanything.sampling.request import SamplingRequest

PACKAGES = ("torch", "diffusers", "transformers", "cv2", "skimage", "scipy")


# That guiders are new in diffusers is nothing for the user.
logging.getLogger("diffusers.guiders.guider_utils").setLevel(logging.ERROR)


class PoseAnythingEngine(Engine):
    """Frames from the model of the paper. `engine_options` are those of `poseanything.sampling.request.Options`."""

    @classmethod
    def describe(cls) -> EngineDescription:
        return EngineDescription(
            name="poseanything",
            label="PoseAnything",
            summary="The video model of the paper: photoreal frames that follow the pose. It is made for a "
            "CUDA card; a processor works too, but takes hours for a clip.",
            neural=True,
            ready=not (reason := cls._what_is_missing()),
            reason=reason[:1024],
            size_multiple=32,
            frame_step=4,
            max_frames=MAX_FRAMES,
            default_steps=50,
            guiders=("none", "classifier_free", "subject_camera", "subject_camera_separate"),
        )

    @staticmethod
    def _what_is_missing() -> str:
        absent = [name for name in PACKAGES if find_spec(name) is None]
        if absent:
            return f"PoseAnything needs {', '.join(absent)}; install them with: python build.py setup --model"
        try:
            find_weights()
        except CheckpointError as error:
            return str(error)
        return ""

    def load(self) -> Iterator[Progress]:
        """Look at the weights. They are read with the first job, whose size decides how."""
        from ...poseanything.runtime.runner import ClipRunner

        try:
            self._runner = ClipRunner(find_weights())
        except CheckpointError as error:
            raise EngineError(str(error)) from error
        yield Progress(job="load", stage="loading", step=0, total=1)

    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Iterator[Progress | Preview | Picture]:
        from ...poseanything.conditioning.conditions import InputError
        from .request import sampling_request

        try:
            sampling = sampling_request(request)
        except InputError as error:
            raise EngineError(str(error), code="invalid") from error
        return (yield from self.make(sampling, cancelled, request.job, request.preview_interval))

    def make(
        self,
        sampling: SamplingRequest,
        cancelled: Callable[[], bool],
        job: str = "clip",
        preview_interval: float = 0.0,
    ) -> Iterator[Progress | Preview | Picture]:
        """As `generate`, from a request in the model's own terms."""
        from ...poseanything.conditioning.conditions import InputError
        from ...poseanything.sampling.pipeline import DenoisingStep, Frames

        def check() -> None:
            if cancelled():
                raise JobCancelled

        events, next_preview, time_left = self._runner.make(sampling, check), 0.0, TimeLeft()
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    return end.value
                check()
                if isinstance(event, Frames):
                    for index, image in enumerate(event.images[0], event.index):
                        yield Picture(index, image)
                    done, total = event.index + event.images.shape[1], sampling.clip.num_frames
                    yield Progress(job, "decoding", done, total, time_left("decoding", done, total))
                    continue
                yield Progress(
                    job,
                    event.stage,
                    event.step,
                    event.total,
                    time_left(event.stage, event.step, event.total),
                    note=getattr(event, "note", ""),
                )
                if isinstance(event, DenoisingStep) and preview_interval and time.monotonic() >= next_preview:
                    yield Preview(job, *event.preview())
                    next_preview = time.monotonic() + preview_interval
        except InputError as error:
            raise EngineError(str(error), code="invalid") from error
        except CheckpointError as error:
            raise EngineError(str(error)) from error
        finally:
            events.close()


class TimeLeft:
    """How long a clip takes yet, whose windows are encoded, denoised and decoded in turn.

    Until all windows are denoised it goes by the pace of that, with all that comes between, then by the
    decoding's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._denoising, self._end = False, None
        self._began: dict[str, tuple[int, float]] = {}

    def __call__(self, stage: str, step: int, total: int) -> float | None:
        """Seconds, when `step` of `total` is done; None where there is nothing to tell from yet."""
        now = self._clock()
        if stage != "denoising" and self._denoising:
            return None if self._end is None else max(0.0, self._end - now)
        if stage not in ("denoising", "decoding"):
            return None
        first, since = self._began.setdefault(stage, (step, now))
        left = (now - since) / (step - first) * (total - step) if step > first else None
        if stage == "denoising":
            self._denoising, self._end = step < total, None if left is None else now + left
        return left
