"""Sampling requests to frames on this machine: the weights read as its memory allows, and once more, smaller,
where it runs out."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from shared.processes import end_with_parent
from shared.sentences import one_after_another, say

from ..checkpoints import (
    CheckpointError,
    WeightSet,
    declared_config,
    load_lora,
    load_text_encoder,
    load_tiny_decoder,
    load_transformer,
    load_vae,
    lora_folder,
    lora_names,
    unload_loras,
)
from ..conditioning.conditions import InputError
from ..sampling.caching import MagRatiosFile
from ..sampling.decoding import Check, Frames
from ..sampling.options import Options
from ..sampling.pipeline import DenoisingStep, Event, PoseAnythingPipeline, Step
from ..sampling.request import SamplingRequest
from ..sampling.schedulers import make_scheduler, scheduler_for
from .acceleration import (
    Compilation,
    CompileChoice,
    compile_blocks,
    compile_vae,
    fastest_attention,
    fastest_vae_layout,
    pad_in_convolutions,
    set_attention_backend,
    set_float8_products,
    set_vae_layout,
)
from .card import Card, DeviceError, default_device, explain, is_device_fault
from .out_of_memory import NotEnoughMemory, Place, is_out_of_memory, where_memory_ran_out
from .placement import RESERVE_BYTES, MemoryPlan, plan
from .requirements import ModelSizes, Shape, tokens
from .streaming import BlockStream, keep_embedding_on_host
from .team import Stopped, Team

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading(Step):
    """A part of the model was read; `note` says how the memory is used, and why."""

    note: str


@dataclass(frozen=True)
class Shortage:
    """Memory that ran out while clips of a shape were made."""

    free_bytes: int
    """What was free then."""
    lower: MemoryPlan
    """What was gone on with."""


class ClipRunner:
    """Keeps the model as the last request needed it, and reads it anew only where the next one needs it
    otherwise.

    Args:
        weights: where the model's files lie; of several transformers each request chooses one.
        device: by default CUDA's where there is one.
        team: the cards that it shares clips with, where it is not the first of them.

    Raises:
        CheckpointError: the files are another model's.
        DeviceError: there is a card, and it can't be used.
    """

    def __init__(
        self, weights: WeightSet, device: torch.device | str | None = None, team: Team | None = None
    ):
        self._found = weights
        self._team = team
        self._chosen: WeightSet | None = None
        self.sizes = ModelSizes()
        self.device = default_device() if device is None else torch.device(device)
        # Its components are registered when they are loaded.
        self.pipeline = PoseAnythingPipeline(None, None, None, None, make_scheduler())  # type: ignore[arg-type]
        self._shortages: dict[Shape, Shortage] = {}
        self._streams: list[BlockStream] = []
        self._plan: MemoryPlan | None = None
        self._loras: dict[Path, float] = {}
        self._compilation: Compilation | None = None
        self._compile_choice = CompileChoice(self.device, "")
        if len(weights.transformers) == 1:
            self._choose("")

    @property
    def weights(self) -> WeightSet:
        """Those of the transformer that was chosen last."""
        return self._chosen or self._found

    def config(self, transformer: str = "", loras: Mapping[str, float] = {}) -> dict[str, object]:
        """What the configuration of a transformer, or of the only one, says with these LoRAs; see the model.

        Raises `CheckpointError`, and `InputError` for a LoRA that isn't there.
        """
        weights = self._found.choose(transformer)
        config = weights.config
        for name, strength in loras.items():
            if strength:
                config |= declared_config(_lora_file(weights.folder, name))
        return config

    def make(self, request: SamplingRequest, check: Check = None) -> Generator[Event, None, str]:
        """The pipeline's events of a request, and before them those of loading; returns a note for the user.

        Where memory runs out the clip is begun anew on the plan's next rung, and goes on after the last frame
        shown.

        Raises:
            InputError: what is asked for can't be made.
            CheckpointError: the files can't be used.
            NotEnoughMemory: memory ran out on the last rung too.
            DeviceError: the card stopped working; this process can't use it any more.
            Exception: what `check` raises.
        """
        self._choose(request.options.transformer)
        loras = {
            _lora_file(self.weights.folder, name): strength
            for name, strength in request.options.loras.items()
            if strength
        }
        self.sizes = dataclasses.replace(self.sizes, adapter_bytes=sum(path.stat().st_size for path in loras))
        height, width = request.conditions.size
        self.sizes.grid.check_size(width, height, request.conditions.num_frames)
        window_frames = request.options.window_frames or self.sizes.sample_frames
        shape = Shape(width, height, min(request.conditions.num_frames, window_frames))
        chosen = self._plan_for(shape, request.options.precision == "float8")
        self._share(request, check)
        shown = 0
        remarks: list[str] = []
        known_ratios = self.pipeline.mag_ratios
        was_compiled = self._compilation is not None
        while True:
            try:
                for event in self._attempt(request, chosen, loras, check):
                    if isinstance(event, Frames):
                        event = Frames(shown, event.images[:, max(shown - event.index, 0) :])
                        shown += event.images.shape[1]
                        if not event.images.shape[1]:
                            continue
                    yield event
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    if is_device_fault(error):
                        raise DeviceError(explain(error)) from error
                    raise
                where = where_memory_ran_out(error)
            # Only here, where the error has let go of what the attempt held, does anything come free.
            lower = self._step_down(chosen, where)
            log.warning("The %s's memory ran out. %s", where, lower.reason)
            remarks.insert(0, say("Memory ran out with more at once."))
            chosen = lower
        compiled = self._compilation is not None and self._compilation.in_use
        if compiled and not was_compiled and self._compile_choice.clips:
            remarks.append(say("The model was compiled; a seed may give slightly other frames than before."))
        self._compile_choice.clip_made(compiled)
        if self.pipeline.mag_ratios is not None and self.pipeline.mag_ratios is not known_ratios:
            MagRatiosFile(self.weights.transformer).write(self.pipeline.mag_ratios)
        if request.settings.cache == "mag" and known_ratios is None:
            remarks.append(say("MagCache was calibrated; from now on it leaves steps out."))
        if self.pipeline.vae.use_tiling and not chosen.vae_tiling:
            remarks.append(say("Memory ran out while decoding, so the last frames were decoded in tiles."))
        return one_after_another(chosen.reason, *remarks, *self._without_parts(request))

    def _attempt(
        self, request: SamplingRequest, chosen: MemoryPlan, loras: Mapping[Path, float], check: Check
    ) -> Iterator[Event]:
        team, error = self._team, None
        try:
            yield from self._load(chosen, check)
            yield from self._adapt(request.options, loras, chosen.shape)
            if team is not None:
                team.join(self.pipeline.transformer)
            for event in self.pipeline.stream(
                request.conditions,
                [request.seed],
                request.guider,
                request.settings,
                request.options.window_frames or None,
                check=check if team is None else None,  # which is called before each evaluation
                decode=team is None or team.leads,
            ):
                if team is not None and isinstance(event, DenoisingStep) and event.step == event.total:
                    team.denoised()
                yield event
        except BaseException as left:
            error = left
            raise
        finally:
            for stream in self._streams:
                stream.park()
            if team is not None:
                team.end(error)

    def _share(self, request: SamplingRequest, check: Check) -> None:
        """Have as many cards as are asked for work on the request."""
        cards = request.options.cards
        if cards != (1 if self._team is None else self._team.size):
            self._forget()  # sharing a transformer is for good
            if self._team is not None:
                self._team.close()
            self._team = Team.lead(cards, self.device, follow, self._found) if cards > 1 else None
        if self._team is not None:
            self._team.begin(request, check)

    def _plan_for(self, shape: Shape, float8: bool) -> MemoryPlan:
        if float8 and self.sizes.stored == "gguf":
            raise InputError("A GGUF file's weights can't be float8; choose another file or precision.")
        held = self._plan.held_bytes if self._plan else 0
        card = Card.of(self.device, held)
        shortage = self._shortages.get(shape)
        if shortage is not None and shortage.lower.float8 == float8:
            if card.free_bytes < shortage.free_bytes + RESERVE_BYTES:
                return dataclasses.replace(shortage.lower, card=card, sizes=self.sizes)
            del self._shortages[shape]  # another program has ended
        return plan(card, self.sizes, shape, self._plan, float8)

    def _step_down(self, chosen: MemoryPlan, where: Place) -> MemoryPlan:
        """The plan to go on with where memory ran out; what it can't keep is let go of. Raises
        `NotEnoughMemory`."""
        lower = chosen.step_down(where)
        if lower is None or lower.placement != chosen.placement:
            self._forget()
        self._release()
        card = Card.of(self.device, self._plan.held_bytes if self._plan else 0)
        if lower is None:
            raise NotEnoughMemory(dataclasses.replace(chosen, card=card).shortage)
        self._shortages[chosen.shape] = Shortage(chosen.card.free_bytes, lower)
        return lower

    def _without_parts(self, request: SamplingRequest) -> Iterator[str]:
        """Why there was no part-aware attention, where it was asked for."""
        if request.options.part_attention_threshold >= 1000:
            return
        conditions = request.conditions
        if not self.pipeline.transformer.config.part_attention:
            yield say("The checkpoint is one without part-aware attention.")
        elif conditions.part_maps is None and (not conditions.pose_frames or conditions.pose_frames[0] > 0):
            yield say("The first frame has no pose, so there was no part-aware attention.")

    def _choose(self, transformer: str) -> None:
        weights = self._found.choose(transformer)
        if weights != self._chosen:
            self._forget()
            self.sizes, self._chosen = ModelSizes.of(weights), weights
            self._shortages.clear()
            about = f"{self.sizes.dim} features, {self.sizes.blocks} blocks"
            self._compile_choice = CompileChoice(self.device, about)
            self.pipeline.mag_ratios = MagRatiosFile(weights.transformer).read()

    def _load(self, chosen: MemoryPlan, check: Check) -> Iterator[Step]:
        if self._plan is not None and self._plan.placement == chosen.placement:
            self.pipeline.vae.use_tiling = chosen.vae_tiling
            return
        self._forget()
        weights, pipeline = self.weights, self.pipeline
        yield Loading("loading", 0, 3, chosen.reason)
        if weights.text_encoder is not None:
            text_encoder, tokenizer = load_text_encoder(
                weights.text_encoder,
                tokenizer=weights.tokenizer,
                check=check,
                **chosen.load_options("text_encoder"),
            )
            # At once: the transformer needs the room that the table would take of the card.
            keep_embedding_on_host(text_encoder)
            pipeline.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)
        yield Step("loading", 1, 3)
        pipeline.register_modules(vae=load_vae(weights.vae, check=check, **chosen.load_options("vae")))
        if self.device.type == "cuda":
            pad_in_convolutions(pipeline.vae)
        set_vae_layout(pipeline.vae, fastest_vae_layout(pipeline.vae, self.device))
        if weights.preview_decoder is not None and self.device.type == "cuda":
            # On a processor the fit is what is quick enough to look at beside the work.
            pipeline.register_modules(
                preview_decoder=load_tiny_decoder(weights.preview_decoder, device=self.device)
            )
        yield Step("loading", 2, 3)
        pipeline.register_modules(
            transformer=load_transformer(
                weights.transformer, check=check, **chosen.load_options("transformer")
            )
        )
        self._streams = chosen.apply(pipeline.components)
        self._plan = chosen
        yield Step("loading", 3, 3)

    def _forget(self) -> None:
        """Let go of the model, at once."""
        for stream in self._streams:
            stream.park()
        self._streams = []
        self.pipeline.register_modules(
            text_encoder=None, tokenizer=None, vae=None, transformer=None, preview_decoder=None
        )
        self._plan = None
        self._loras, self._compilation = {}, None
        self._release()

    def _release(self) -> None:
        """Give back what nothing holds any more.

        Hooks and compiled forwards hold their modules in cycles, which otherwise stay until the collector
        happens to run: too late for what is loaded next.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _adapt(self, options: Options, loras: Mapping[Path, float], shape: Shape) -> Iterator[Step]:
        """Bring the model into the state that the options ask for. Where it is to be compiled, which happens
        as it first computes and may take half a minute, that is told."""
        transformer = self.pipeline.transformer
        self.pipeline.scheduler = scheduler_for(transformer.config, options.scheduler, options.shift)
        if self._loras != loras:
            unload_loras(transformer)
            self._loras = {}
            for number, (path, strength) in enumerate(loras.items()):
                load_lora(transformer, path, name=f"lora{number}", strength=strength)
            self._loras = dict(loras)
        # Every time: diffusers keeps it for the whole process, and another model's job may have changed it.
        set_attention_backend(transformer, self._attention(options.attention, shape))
        set_float8_products(transformer, options.precision == "float8")
        compiles = options.compile == "on" or options.compile == "auto" and self._compile_choice.pays()
        if self._compilation is None and compiles:
            self._compilation = compile_blocks(transformer)
            compile_vae(self.pipeline.vae, self._compilation)
            yield Step("compiling", 0, 1)
        if self._compilation is not None:
            self._compilation.enabled = options.compile != "off"

    def _attention(self, name: str, shape: Shape) -> str:
        """The backend of this name, or the fastest for the shape."""
        if name != "auto":
            return name
        config, sizes = self.pipeline.transformer.config, self.sizes
        heads, head_dim = config.num_attention_heads, config.attention_head_dim
        dtype = self.pipeline.transformer.dtype
        return fastest_attention(self.device, dtype, heads, head_dim, tokens(sizes, shape))


def follow(
    rank: int, size: int, port: int, connection: Connection, device_type: str, weights: WeightSet
) -> None:
    """The process of a card that doesn't lead its team."""
    end_with_parent()
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device(device_type)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    team = Team(rank, size, port, [connection])
    runner = ClipRunner(weights, device, team)
    for request in team.requests():
        try:
            for _ in runner.make(request):
                pass
        except (Stopped, InputError, CheckpointError):  # the leader says why
            continue
        except EOFError:  # the leader is gone
            break


def _lora_file(weights: Path, name: str) -> Path:
    """The file of a LoRA's name, which may come from another machine and leads nowhere else. Raises
    `InputError`."""
    folder, names = lora_folder(weights), lora_names(weights)
    if name not in names:
        raise InputError(
            "There is no LoRA {name!r} in {folder}; it holds {names}.",
            name=name,
            folder=folder,
            names=", ".join(names) or "none",
        )
    return folder / name
