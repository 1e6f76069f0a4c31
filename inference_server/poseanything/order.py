"""What is to be made and how: a request of the bridge as the model takes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.camera import rectangle_condition
from shared.messages import GenerationRequest, Guidance
from shared.raster import condition_images

from .clip import WINDOW_FRAMES, Clip, InputError, check_size
from .clip_files import decode_picture
from .denoising import CACHES, MATCHINGS, PART_ATTENTION_STEPS, Settings
from .guiders import LinearGuidance, guidance_by_density, make_guider
from .schedule import SCHEDULERS

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
class Order:
    """One clip to be made: its conditions, and how it is sampled."""

    clip: Clip
    guider: LinearGuidance
    seed: int
    settings: Settings
    options: Options

    @classmethod
    def of(
        cls,
        clip: Clip,
        guidance: Guidance,
        seed: int,
        num_inference_steps: int,
        engine_options: Mapping[str, object],
    ) -> Order:
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

    @classmethod
    def from_request(cls, request: GenerationRequest) -> Order:
        """Raises `InputError`."""
        parts = Options.parse(request.engine_options).parts
        clip = clip_from_request(request, parts)
        return cls.of(
            clip, request.guidance, request.seed, request.num_inference_steps, request.engine_options
        )


def clip_from_request(request: GenerationRequest, parts: str = "scene") -> Clip:
    """Draw the request's conditions at its size. Raises `InputError`."""
    width, height = request.width, request.height
    check_size(width, height, request.num_frames)
    lookup = request.pose.part_lookup()
    subject = request.first_labels if request.subject_mask is None else request.subject_mask
    known = request.part_maps is not None and parts == "scene"
    camera_images = None
    if request.camera_motion is not None and request.guidance.guider.startswith("subject_camera"):
        camera_images = draw_camera(request.camera_motion, width, height)
    return Clip(
        first_frame=decode_picture(request.first_frame),
        pose_images=condition_images(request.pose, width, height, request.conditioned_frames()),
        pose_frames=request.conditioned_frames(),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        subject_mask=None if subject is None else subject > 0,
        part_maps=lookup[request.part_maps] if known else None,
        first_part_map=lookup[request.first_labels] if known and request.first_labels is not None else None,
        camera_images=camera_images,
    )


def draw_camera(path: np.ndarray, width: int, height: int) -> np.ndarray:
    """`Clip.camera_images` for a camera path, homographies [F, 3, 3] (see `shared.camera`)."""
    return condition_images(rectangle_condition(path, width, height), width, height)
