"""What is to be sampled and how: conditions, guider, seed, settings and options of one clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from shared.messages import Guidance

from ..conditioning.conditions import WINDOW_FRAMES, Conditions, InputError
from .denoising import CACHES, MATCHINGS, PART_ATTENTION_STEPS, Settings
from .guiders import LinearGuidance, guidance_by_density, make_guider
from .schedulers import SCHEDULERS

CHOICES = {
    "scheduler": SCHEDULERS,
    "cache": CACHES,
    "matching": MATCHINGS,
    "parts": ("scene", "images"),
    "guidance": ("request", "auto"),
}


@dataclass(frozen=True)
class Options:
    """What `engine_options` of a request may hold.

    scheduler: "euler", the release's, or "unipc".
    cache: what is left out of the steps after the part-aware ones: "none", "first_block", "mag" or
        "taylorseer".
    matching: of parts, "paper", or "release" with the official code's slips.
    parts: "scene" takes the request's part maps where it has them, "images" always finds and matches parts.
    guidance: "request" has the strength that the request says, "auto" one by how many frames have a pose,
        classifier-free on the pose where the request asks for no guidance.
    cache_threshold: the change up to which "first_block" and "mag" leave a step out; 0 for their defaults.
    part_attention_steps: how many steps have part-aware attention, 0 for none.
    window_frames: how many frames are made at once; longer clips are chained.
    attention: one of diffusers' attention backends.
    compile: compile the blocks, which pays from the second clip on.
    transformer: which one, where the weights hold several: a file or folder within their folder.
    lora: the name of a LoRA file in the folder `loras` of the weights; of `lora_strength`.
    """

    scheduler: str = "euler"
    cache: str = "none"
    cache_threshold: float = 0.0
    matching: str = "paper"
    parts: str = "scene"
    guidance: str = "request"
    part_attention_steps: int = PART_ATTENTION_STEPS
    window_frames: int = WINDOW_FRAMES
    attention: str = "native"
    compile: bool = False
    transformer: str = ""
    lora: str = ""
    lora_strength: float = 1.0

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> Options:
        """Raises `InputError` for an option that there isn't, or a value it can't have."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in options.items():
            if name not in defaults:
                raise InputError(f"The engine has no option {name!r}; it has {', '.join(defaults)}.")
            kind = type(defaults[name])
            if not (type(value) is kind or (kind is float and type(value) is int)):
                words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
                raise InputError(f"The engine's option {name} is {value!r}; it must be {words[kind]}.")
            if name in CHOICES and value not in CHOICES[name]:
                raise InputError(
                    f"The engine's option {name} is {value!r}; choose one of {', '.join(CHOICES[name])}."
                )
        parsed = cls(**options)
        if parsed.part_attention_steps < 0 or parsed.window_frames < 5:
            raise InputError(
                "The engine's option part_attention_steps must be 0 or more, and window_frames 5 or more."
            )
        return parsed


@dataclass(frozen=True, eq=False)
class SamplingRequest:
    """One clip to be sampled: its conditions, and how."""

    clip: Conditions
    guider: LinearGuidance
    seed: int
    settings: Settings
    options: Options

    @classmethod
    def of(
        cls,
        clip: Conditions,
        guidance: Guidance,
        seed: int,
        num_inference_steps: int,
        engine_options: Mapping[str, object],
    ) -> SamplingRequest:
        """Raises `InputError`."""
        options = Options.parse(engine_options)
        try:
            if options.guidance == "auto":
                guidance = guidance_by_density(guidance, len(clip.pose_frames) / clip.num_frames)
            guider = make_guider(guidance)
        except ValueError as error:
            raise InputError(str(error)) from error
        settings = Settings(
            num_inference_steps=num_inference_steps,
            cache=options.cache,
            cache_threshold=options.cache_threshold or None,
            matching=options.matching,
            part_attention_steps=options.part_attention_steps,
        )
        return cls(clip, guider, seed, settings, options)
