"""What a request may ask of the sampling, each option declared beside what it means. Nothing heavy is
imported.

A new option is a field here: panel, command line and validation are drawn from it. What reads it is where it
takes effect, `settings.<name>` in the denoising or `options.<name>` in the runner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.engines import Guidance, OptionDescription, Preset, check_values, describe_options, option
from shared.release import RELEASE
from shared.schema import MessageError
from shared.sentences import say

SCHEDULERS = {
    "auto": ("As Trained", "Euler, the release's, or LCM for a checkpoint distilled to a few steps"),
    "euler": ("Euler", "The release's solver"),
    "unipc": ("UniPC", "A solver of higher order, which gets by with fewer steps"),
    "lcm": ("LCM", "Clean frames in every step and fresh noise for the next, for distilled checkpoints"),
}
CACHES = {
    "none": ("None", "Evaluate the model in every step, as the release does"),
    "first_block": ("First Block", "Leave a step out where the first block's output hardly changes"),
    "mag": ("MagCache", "Leave steps out by ratios that are measured once for a model, in its first clip"),
    "taylorseer": ("TaylorSeer", "Extrapolate three of four steps from those before"),
}
MATCHINGS = {
    "assigned": (
        "One to One",
        "Match parts while denoising goes on, each its own, by attention and by where they lie",
    ),
    "two_pass": (
        "Two Passes",
        "The same in steps of their own first, so that every part-aware step has them",
    ),
    "paper": ("Paper", "Match each part by attention alone, while denoising goes on, as the paper describes"),
    "release": ("Release", "In two passes, with the official code's slips"),
}
BETWEEN_POSES = {
    "auto": ("As Trained", "What serves the checkpoint best, as it says itself"),
    "empty": ("Empty", "The model makes up what lies between, as the release does"),
    "interpolated": ("Interpolated", "Limbs move smoothly from each pose to the next"),
}
PRECISIONS = {
    "auto": ("Automatic", "As the release computes; float8 weights only where memory is short"),
    "float8": ("Float8", "Weights and products in float8: faster on Ada, Hopper and newer, and less exact"),
}
COMPILES = {
    "auto": ("Automatic", "On Linux with a card, from the second clip on"),
    "on": ("On", "From the first clip on, which takes minutes longer once"),
    "off": ("Off", "Never"),
}
ATTENTION_BACKENDS = {
    "auto": ("Automatic", "The fastest that is installed, by a short trial which is remembered"),
    "native": ("PyTorch", "PyTorch's own kernel, which is always there"),
    "_native_cudnn": ("cuDNN", "cuDNN's kernel, through PyTorch"),
    "flash": ("FlashAttention 2", "Needs the package flash-attn"),
    "_flash_3": ("FlashAttention 3", "Needs the package flash-attn-3 and a Hopper card"),
    "_flash_3_hub": ("FlashAttention 3, Hub", "Fetched by the package kernels; needs a Hopper card"),
    "sage": ("SageAttention", "8-bit attention; needs the package sageattention"),
    "xformers": ("xFormers", "Needs the package xformers"),
}

SPEED, PARTS, MODEL = "Speed", "Parts", "Model"


@dataclass(frozen=True)
class Settings:
    """How a clip is denoised: the options of the sampling loop, and the number of steps.

    num_inference_steps: None for as many as the checkpoint was trained for.
    timesteps: given ones, descending from at most 1000, in place of so many along the schedule.
    cache_threshold: 0 is each cache's own default.
    part_attention_threshold: below 0 is the checkpoint's.

    Raises `shared.schema.MessageError` for a value that an option can't have.
    """

    num_inference_steps: int | None = None
    timesteps: Sequence[float] | None = None
    cache: str = option(
        "none",
        "Cache",
        "What is left out of the steps after the part-aware ones. Faster and less exact",
        choices=CACHES,
        group=SPEED,
    )
    cache_threshold: float = option(
        0.0,
        "Cache Limit",
        "The change up to which First Block and MagCache leave a step out. 0 is each one's default",
        minimum=0.0,
        maximum=1.0,
        advanced=True,
        group=SPEED,
    )
    part_attention_threshold: float = option(
        -1.0,
        "Parts Above",
        "Part-aware attention is on at the timesteps above, of 1000 to 0. 1000 is never, -1 as in training",
        minimum=-1.0,
        maximum=1000.0,
        advanced=True,
        group=PARTS,
    )
    matching: str = option(
        "assigned",
        "Matching",
        "How the parts of the first frame are found in the others",
        choices=MATCHINGS,
        advanced=True,
        group=PARTS,
    )

    def __post_init__(self):
        described = describe_options(Settings)
        check_values(
            {about.name: getattr(self, about.name) for about in described}, described, "The sampling"
        )


@dataclass(frozen=True)
class Options(Settings):
    """All options of the engine. Those of its own say what is sampled, and on which model.

    between_poses: what is shown in frames between two poses; "auto" is what the checkpoint declares.
    parts: "scene" takes the request's part maps where it has them, "images" always finds and matches parts.
    shift, window_frames: 0 is the checkpoint's.
    transformer: a file or folder within the weights' folder; "" where it holds one.
    loras: files of the folder `loras` within it, and the strength of each.
    """

    scheduler: str = option(
        "auto", "Scheduler", "The solver of the denoising", choices=SCHEDULERS, group=SPEED
    )
    shift: float = option(
        0.0,
        "Shift",
        "How far the schedule leans towards noise. 0 is as in training: 5 for the release",
        minimum=0.0,
        maximum=100.0,
        advanced=True,
        group=SPEED,
    )
    loras: Mapping[str, float] = option(
        {},
        "LoRAs",
        "Files of the folder loras within the weights, with a strength each",
        minimum=-10.0,
        maximum=10.0,
        group=MODEL,
        loads=True,
    )
    between_poses: str = option(
        "auto",
        "Between Poses",
        "What frames without a pose are shown, where there is a pose before and after them",
        choices=BETWEEN_POSES,
        advanced=True,
        group=MODEL,
    )
    parts: str = option(
        "scene",
        "Parts",
        "Where the parts of part-aware attention come from",
        choices={
            "scene": ("Scene", "The part maps that Blender sends; without them, as from the images"),
            "images": ("Images", "Found in the pose images and matched, as the release does"),
        },
        advanced=True,
        group=PARTS,
    )
    transformer: str = option(
        "",
        "Transformer",
        "Which one, where the weights hold several",
        choices={"": ("Only One", "The one that the weights hold")},
        advanced=True,
        group=MODEL,
        loads=True,
    )
    precision: str = option(
        "auto",
        "Precision",
        "What the transformer's blocks compute in",
        choices=PRECISIONS,
        advanced=True,
        group=SPEED,
        loads=True,
    )
    attention: str = option(
        "auto",
        "Attention",
        "The kernel that computes attention",
        choices=ATTENTION_BACKENDS,
        advanced=True,
        group=SPEED,
    )
    compile: str = option(
        "auto",
        "Compile",
        "Whether the blocks are compiled. What was compiled is kept across starts",
        choices=COMPILES,
        advanced=True,
        group=SPEED,
    )
    cards: int = option(
        1,
        "Cards",
        "How many of the machine's cards share each clip",
        minimum=1,
        maximum=64,
        advanced=True,
        group=SPEED,
        loads=True,
    )
    window_frames: int = option(
        0,
        "Window",
        "How many frames are made at once, longer clips window by window. 0 is as many as in training",
        minimum=0,
        maximum=1024,
        advanced=True,
        group=MODEL,
    )

    def __post_init__(self):  # files are checked where they are opened: only there they are known
        described = [about for about in describe_options(Options) if about.name not in FILES]
        check_values(
            {about.name: getattr(self, about.name) for about in described}, described, say("The engine")
        )

    @classmethod
    def parse(cls, options: Mapping[str, Any], num_inference_steps: int = RELEASE.default_steps) -> Options:
        """From a request's `engine_options`. Raises `shared.schema.MessageError`."""
        names = [field.name for field in dataclasses.fields(cls) if "option" in field.metadata]
        for name in options:
            if name not in names:
                raise MessageError(
                    "The engine has no option {name!r}; it has {names}.", name=name, names=", ".join(names)
                )
        return cls(num_inference_steps=num_inference_steps, **options)


FILES = ("loras", "transformer")
"""Options whose choices are the weights' files."""


def describe(loras: Sequence[str] = (), transformers: Sequence[str] = ()) -> tuple[OptionDescription, ...]:
    """All options, with the weights' files to choose from."""
    return describe_options(Options, {"loras": loras, "transformer": transformers})


PRESETS = (
    Preset("release", "Release", "As the official code samples: 50 steps of Euler, no guidance, no cache"),
    Preset(
        "fast",
        "Fast",
        "UniPC with 20 steps and a cache. Look at fine detail before the final take",
        options={"scheduler": "unipc", "cache": "first_block"},
        num_inference_steps=20,
    ),
    Preset(
        "follow_pose",
        "Follow the Pose Closely",
        "Guidance on the pose, stronger the fewer frames have one. Two evaluations a step",
        guidance=Guidance(
            "classifier_free", {"text_negative": False, "pose_negative": True, "scale_by_density": True}
        ),
    ),
)
