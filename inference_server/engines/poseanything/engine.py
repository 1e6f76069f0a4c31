"""The neural engine: PoseAnything itself. What is heavy is imported when the first job needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from shared.engines import EngineDescription, Preset
from shared.messages import GenerationRequest, Preview, Progress
from shared.release import RELEASE
from shared.sentences import as_value, one_after_another, say

from ...poseanything.checkpoints import CheckpointError, WeightSet, default_folder, find_weights, lora_names
from ...poseanything.checkpoints.errors import WeightsMissing
from ...poseanything.checkpoints.weights import describe_parts
from ...poseanything.sampling import options
from ...poseanything.sampling.guiders import describe_guiders
from ..base import Engine, EngineError, JobCancelled, Picture
from . import machine

if TYPE_CHECKING:
    import numpy as np

    from ...poseanything.sampling.request import SamplingRequest

PACKAGES = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "psutil": "psutil",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "scipy": "scipy",
    "networkx": "networkx",
    "ftfy": "ftfy",
    "sentencepiece": "sentencepiece",
}
"""What the model imports, and the name under which it is installed."""


TRAINED_WITH = {
    "default_steps": "num_inference_steps",
    "uses_prompt": "text_conditioning",
    "max_parts": "max_parts",
    "pose_look": "pose_look",
    "camera_condition": "camera_condition",
}
"""What a checkpoint's configuration tells of the engine, by field of its description."""


def starts_from_draft(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of this configuration needs a draft of the clip, and with it the clip's limbs."""
    return "draft" in (config.get("init"), config.get("prediction_base"))


class PoseAnythingEngine(Engine):
    """Frames from the model of the paper. `engine_options` are those of `poseanything.sampling.options`.

    An engine of the same classes with other weights is a subclass with another `about` and folder.
    """

    about: ClassVar[EngineDescription] = RELEASE
    """What its checkpoint takes."""
    weights_missing: ClassVar[str] = say("Its weights are missing; get them with python build.py weights.")
    """Said where they are: what to do."""
    presets: ClassVar[tuple[Preset, ...]] = options.PRESETS

    @classmethod
    def weights_folder(cls) -> Path:
        """Where its weights are looked for."""
        return default_folder()

    @classmethod
    def describe(cls) -> EngineDescription:
        weights, reason = cls._look()
        transformers = weights.transformer_names if weights and len(weights.transformers) > 1 else ()
        config = weights.config if weights is not None else {}
        trained: dict[str, Any] = {
            field: config[entry] for field, entry in TRAINED_WITH.items() if entry in config
        }
        if weights is not None and (grid := weights.grid) is not None:
            trained |= {"size_multiple": grid.stride, "frame_step": grid.frames_per_latent}
        return replace(
            cls.about,
            **trained,
            ready=not reason,
            reason=reason,
            runs_on=machine.runs_on(),
            guiders=describe_guiders(config),
            options=options.describe(lora_names(cls.weights_folder()), transformers),
            presets=cls.presets,
            weights=describe_parts(cls.weights_folder()),
            weights_folder=str(cls.weights_folder().absolute())[:1024],
        )

    @classmethod
    def _look(cls) -> tuple[WeightSet | None, str]:
        """The weights, and all that keeps the engine from running here."""
        weights, reasons = None, []
        if absent := [package for name, package in PACKAGES.items() if find_spec(name) is None]:
            reasons.append(
                say(
                    "{engine} needs {packages}; install them with: {command}",
                    engine=as_value(cls.about.label),
                    packages=", ".join(absent),
                    command=machine.SETUP,
                )
            )
        else:
            reasons += filter(None, [machine.obstacle()])
        try:
            weights = find_weights(cls.weights_folder())
        except WeightsMissing:
            reasons.append(cls.weights_missing)
        except CheckpointError as error:
            reasons.append(str(error))
        return weights, one_after_another(*reasons)

    def load(self) -> Iterator[Progress]:
        """Look at the weights. They are read with the first job, whose size decides how."""
        from ...poseanything.runtime.card import DeviceError
        from ...poseanything.runtime.runner import ClipRunner

        try:
            self._runner = ClipRunner(find_weights(self.weights_folder()))
        except (CheckpointError, DeviceError) as error:
            raise EngineError(str(error)) from error
        yield Progress(job="load", stage="loading", step=0, total=1)

    def takes_drawings(self, options: Mapping[str, Any]) -> bool:
        return not starts_from_draft(self._runner.config(options.get("transformer", "")))

    def generate(
        self, request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Generator[Progress | Preview | Picture, None, str]:
        from ...poseanything.conditioning.conditions import InputError
        from .request import parse_options, sampling_request

        try:
            options = parse_options(request)
            config = self._runner.config(options.transformer, options.loras)
            draft = (yield from self._draft(request, cancelled)) if starts_from_draft(config) else None
            sampling = sampling_request(request, config, draft)
        except InputError as error:
            raise EngineError(str(error), code="invalid") from error
        except CheckpointError as error:
            raise EngineError(str(error)) from error
        return (yield from self.make(sampling, cancelled, request.job, request.preview_interval))

    @staticmethod
    def _draft(
        request: GenerationRequest, cancelled: Callable[[], bool]
    ) -> Generator[Progress, None, np.ndarray]:
        """The draft engine's frames of a request, uint8 [F, H, W, 3]."""
        import numpy as np

        from ..draft.clip import Clip

        clip, frames = Clip(request), []
        for index in range(request.num_frames):
            if cancelled():
                raise JobCancelled
            frames.append(clip.frame(index))
            yield Progress(request.job, "drawing", index + 1, request.num_frames)
        return np.stack(frames)

    def make(
        self,
        sampling: SamplingRequest,
        cancelled: Callable[[], bool],
        job: str = "clip",
        preview_interval: float = 0.0,
    ) -> Generator[Progress | Preview | Picture, None, str]:
        """As `generate`, from a request in the model's own terms."""
        from ...poseanything.conditioning.conditions import InputError
        from ...poseanything.runtime.card import DeviceError
        from ...poseanything.runtime.out_of_memory import NotEnoughMemory
        from ...poseanything.sampling.pipeline import DenoisingStep, Frames, Step

        def check() -> None:
            if cancelled():
                raise JobCancelled

        events, next_preview = self._runner.make(sampling, check), 0.0
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
                    done, total = event.index + event.images.shape[1], sampling.conditions.num_frames
                    yield Progress(job, "decoding", done, total)
                elif isinstance(event, Step):
                    note = getattr(event, "note", "")
                    yield Progress(job, event.stage, event.step, event.total, note=note)
                if isinstance(event, DenoisingStep) and preview_interval and time.monotonic() >= next_preview:
                    yield Preview(job, *event.preview())
                    next_preview = time.monotonic() + preview_interval
        except InputError as error:
            raise EngineError(str(error), code="invalid") from error
        except CheckpointError as error:
            raise EngineError(str(error)) from error
        except NotEnoughMemory as error:
            raise EngineError(str(error), code="memory") from error
        except DeviceError as error:
            raise EngineError(str(error), needs_restart=True) from error
        finally:
            events.close()
