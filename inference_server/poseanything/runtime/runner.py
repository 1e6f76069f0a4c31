"""Orders to frames on this machine: the weights read as its memory allows, and once more, smaller, where it
runs out."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ...out_of_memory import is_out_of_memory
from ..checkpoints import (
    WeightSet,
    load_lora,
    load_text_encoder,
    load_transformer,
    load_vae,
    lora_folder,
    lora_names,
)
from ..conditioning.conditions import InputError
from ..sampling.caching import MagRatiosFile
from ..sampling.decoding import Check, Frames
from ..sampling.options import Options
from ..sampling.pipeline import Event, PoseAnythingPipeline, Step
from ..sampling.request import SamplingRequest
from ..sampling.schedulers import make_scheduler, scheduler_for
from .acceleration import compile_blocks, set_attention_backend
from .memory import RESERVE_BYTES, Card, MemoryPlan, ModelSizes, Shape, plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading(Step):
    """A part of the model was read; `note` says how the memory is used, and why."""

    note: str


class ClipRunner:
    """Keeps the model as the last request needed it, and reads it anew only where the next one needs it
    otherwise.

    Args:
        weights: where the model's files lie; of several transformers each request chooses one.
        device: by default CUDA's where there is one.

    Raises `CheckpointError` where the files are another model's.
    """

    def __init__(self, weights: WeightSet, device: torch.device | str | None = None):
        self._found, self.weights = weights, None
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.pipeline = PoseAnythingPipeline(None, None, None, None, make_scheduler())
        self._ran_out: dict[Shape, tuple[int, MemoryPlan]] = {}
        """What was free when memory ran out, and the plan that was gone on with."""
        self._forget()
        if len(weights.transformers) == 1:
            self._choose("")

    def make(self, request: SamplingRequest, check: Check = None) -> Generator[Event, None, str]:
        """The pipeline's events of an request, and before them those of loading; returns a note for the user.

        Where memory runs out the clip is begun anew on the plan's next rung, and goes on after the last frame
        shown. Raises `InputError`, `CheckpointError`, what
        `check` raises, and below the last rung what says that memory ran out (see `is_out_of_memory`).
        """
        self._choose(request.options.transformer)
        height, width = request.clip.size
        self.sizes.grid.check_size(width, height, request.clip.num_frames)
        window_frames = request.options.window_frames or self.sizes.sample_frames
        shape = Shape(width, height, min(request.clip.num_frames, window_frames))
        card = Card.of(self.device, self._plan)
        chosen = plan(card, self.sizes, shape, self._plan)
        if shape in self._ran_out:
            free_bytes, lower = self._ran_out[shape]
            if card.free_bytes < free_bytes + RESERVE_BYTES:
                chosen = lower
            else:  # another program has ended
                del self._ran_out[shape]
        shown, remarks = 0, []
        known_ratios = self.pipeline.mag_ratios
        while True:
            try:
                for event in self._attempt(request, chosen, check):
                    if isinstance(event, Frames):
                        event = Frames(shown, event.images[:, max(shown - event.index, 0) :])
                        shown += event.images.shape[1]
                        if not event.images.shape[1]:
                            continue
                    yield event
                if self.pipeline.mag_ratios is not known_ratios:
                    MagRatiosFile(self.weights.transformer).write(self.pipeline.mag_ratios)
                if request.settings.cache == "mag" and known_ratios is None:
                    remarks.append("MagCache was calibrated; from now on it leaves steps out.")
                return " ".join([_sentence(chosen), *remarks, *self._without_parts(request)])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                lower = chosen.step_down()
                if lower is None:
                    raise
            log.warning("Memory ran out; now %s", lower.reason)
            remarks.insert(0, "Memory ran out with more at once.")
            self._ran_out[shape] = card.free_bytes, lower
            if lower.placement != chosen.placement:
                self._forget()
            elif self.device.type == "cuda":
                torch.cuda.empty_cache()
            chosen = lower

    def _attempt(self, request: SamplingRequest, chosen: MemoryPlan, check: Check) -> Iterator[Event]:
        yield from self._load(chosen, check)
        self._adapt(request.options)
        yield from self.pipeline.stream(
            request.clip,
            [request.seed],
            request.guider,
            request.settings,
            request.options.window_frames or None,
            check=check,
        )

    def _without_parts(self, request: SamplingRequest) -> Iterator[str]:
        """Why there was no part-aware attention, where it was asked for."""
        if request.options.part_attention_threshold >= 1000:
            return
        clip = request.clip
        if not self.pipeline.transformer.config.part_attention:
            yield "The checkpoint is one without part-aware attention."
        elif clip.part_maps is None and (not clip.pose_frames or clip.pose_frames[0] > 0):
            yield "The first frame has no pose, so there was no part-aware attention."

    def _choose(self, transformer: str) -> None:
        weights = self._found.choose(transformer)
        if weights != self.weights:
            self._forget()
            self.sizes, self.weights = ModelSizes.of(weights), weights
            self._ran_out.clear()
            self.pipeline.mag_ratios = MagRatiosFile(weights.transformer).read()

    def _load(self, chosen: MemoryPlan, check: Check) -> Iterator[Step]:
        if self._plan is not None and self._plan.placement == chosen.placement:
            self.pipeline.vae.use_tiling = chosen.vae_tiling
            return
        self._forget()
        weights, pipeline = self.weights, self.pipeline
        yield Loading("loading", 0, 3, _sentence(chosen))
        text_encoder, tokenizer = load_text_encoder(
            weights.text_encoder,
            tokenizer=weights.tokenizer,
            check=check,
            **chosen.load_options("text_encoder"),
        )
        pipeline.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
        yield Step("loading", 1, 3)
        pipeline.register_modules(vae=load_vae(weights.vae, check=check, **chosen.load_options("vae")))
        yield Step("loading", 2, 3)
        pipeline.register_modules(
            transformer=load_transformer(
                weights.transformer, check=check, **chosen.load_options("transformer")
            )
        )
        chosen.apply(pipeline.components)
        self._plan = chosen
        yield Step("loading", 3, 3)

    def _forget(self) -> None:
        self.pipeline.register_modules(text_encoder=None, tokenizer=None, vae=None, transformer=None)
        self._plan: MemoryPlan | None = None
        self._loras: dict[str, float] = {}
        self._attention, self._compiled = "native", False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _adapt(self, options: Options) -> None:
        """Bring the model into the state that the options ask for."""
        transformer = self.pipeline.transformer
        self.pipeline.scheduler = scheduler_for(transformer.config, options.scheduler, options.shift)
        if self._loras != options.loras:
            files = {name: _lora_file(self.weights.folder, name) for name in options.loras}
            if self._loras:
                transformer.unload_lora()
                self._loras = {}
            for number, (name, strength) in enumerate(options.loras.items()):
                load_lora(transformer, files[name], name=f"lora_{number}", strength=strength)
                self._loras[name] = strength
        if self._attention != options.attention:
            set_attention_backend(transformer, options.attention)
            self._attention = options.attention
        if options.compile and not self._compiled:
            compile_blocks(transformer)
            self._compiled = True


def _lora_file(weights: Path, name: str) -> Path:
    """The file of a LoRA's name, which may come from another machine and leads nowhere else. Raises
    `InputError`."""
    folder, names = lora_folder(weights), lora_names(weights)
    if name not in names:
        raise InputError(f"There is no LoRA {name!r} in {folder}; it holds {', '.join(names) or 'none'}.")
    return folder / name


def _sentence(chosen: MemoryPlan) -> str:
    return chosen.reason[:1].upper() + chosen.reason[1:]
