"""What an engine says of itself: its guiders, options, presets and limits.

Panel and command line are drawn from an `EngineDescription`, and `check_request` holds a request against it:
in the extension before it is sent, in the broker before it is queued, and on the command line.

An engine declares its options as fields of a dataclass, each beside what it means:

    @dataclass(frozen=True)
    class Options:
        tiles: int = option(1, "Tiles", "Decode the picture in so many tiles", minimum=1, maximum=16)

    EngineDescription(..., options=describe_options(Options))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .pose import MAX_FRAMES, MAX_LIMBS
from .schema import (
    MAX_NAME,
    MAX_STRENGTHS,
    Checked,
    Choice,
    Flag,
    Integer,
    Line,
    Many,
    MessageError,
    Number,
    Optional,
    Options,
    Prose,
    Struct,
    Text,
    Value,
    declare,
)
from .sentences import as_value, say

if TYPE_CHECKING:
    from .messages import GenerationRequest

OPTION_TYPES = ("bool", "int", "float", "choice", "text", "strengths")
LIMIT = 1e9
"""No number of an option is larger."""
MAX_CHOICES = 256


@dataclass(frozen=True)
class OptionChoice(Checked):
    """One of the values that an option of the type "choice" may have."""

    name: str = declare(Text(MAX_NAME))
    label: str = declare(Line(MAX_NAME))
    help: str = declare(Line(512), "")


@dataclass(frozen=True)
class OptionDescription(Checked):
    """One option of an engine, or one parameter of a guider.

    type: "bool", "int", "float", "choice" (the name of one of `choices`), "text", or "strengths" (a table
        of the names of some of `choices`, each with a number: several LoRAs).
    minimum, maximum: the range of a number or of each strength, inclusive.
    advanced: whether it is shown among the advanced options only.
    group: what it is shown together with.
    loads: whether another value has the engine load its model anew.
    """

    name: str = declare(Text(64, 1))
    type: str = declare(Choice(OPTION_TYPES))
    label: str = declare(Line(64, 1))
    help: str = declare(Line(512))
    default: bool | int | float | str | dict = declare(Value())
    minimum: float = declare(Number(-LIMIT, LIMIT), -LIMIT)
    maximum: float = declare(Number(-LIMIT, LIMIT), LIMIT)
    choices: tuple[OptionChoice, ...] = declare(Many(Struct(OptionChoice), MAX_CHOICES), ())
    advanced: bool = declare(Flag(), False)
    group: str = declare(Line(64), "")
    loads: bool = declare(Flag(), False)

    def validate(self):
        _require_unique(self.choices, self.label)
        self.check(self.default)

    def check(self, value: Any) -> Any:
        """The value in its own type. Raises `MessageError` for one that it can't have."""
        names, label = [choice.name for choice in self.choices], as_value(self.label)
        if self.type == "bool":
            return Flag().check(value, label)
        if self.type == "int":
            return Integer(round(self.minimum), round(self.maximum)).check(value, label)
        if self.type == "float":
            return Number(self.minimum, self.maximum).check(value, label)
        if self.type == "choice":
            return Choice(tuple(names)).check(value, label)
        if self.type == "text":
            return Text(4096).check(value, label)
        if not isinstance(value, Mapping) or len(value) > MAX_STRENGTHS:
            raise MessageError(
                "{option} must be a table of at most {limit} names and strengths.",
                option=label,
                limit=MAX_STRENGTHS,
            )
        strength = Number(self.minimum, self.maximum)
        for name in value:
            if name not in names:
                raise MessageError(
                    "{option} has no {name!r}; choose among {names}."
                    if names
                    else "{option} has no {name!r}; there are none.",
                    option=label,
                    name=str(name)[:64],
                    names=", ".join(names),
                )
        return {
            name: strength.check(item, say("The strength of {name}", name=name))
            for name, item in value.items()
        }


@dataclass(frozen=True)
class GuiderDescription(Checked):
    """One way to guide: what it is called and which parameters it takes.

    evaluations: how often the model is evaluated in a guided step.
    needs_camera: whether it works by the camera's motion, without which it can't be used.
    """

    name: str = declare(Text(64, 1))
    label: str = declare(Line(64, 1))
    help: str = declare(Line(512))
    evaluations: int = declare(Integer(1, 16), 1)
    needs_camera: bool = declare(Flag(), False)
    parameters: tuple[OptionDescription, ...] = declare(Many(Struct(OptionDescription), 32), ())

    def validate(self):
        _require_unique(self.parameters, self.label)


@dataclass(frozen=True)
class Guidance(Checked):
    """How evaluations of the model are combined.

    guider: one of those that the engine describes; "none" is a single evaluation.
    parameters: of that guider, by name; those left out have their default.
    start, stop: guidance is on between these fractions of the denoising steps.
    """

    guider: str = declare(Text(64, 1), "none", label="The guider")
    parameters: dict[str, Any] = declare(Options(), default_factory=dict)
    start: float = declare(Number(0, 1), 0.0, label="The guidance's start")
    stop: float = declare(Number(0, 1), 1.0, label="The guidance's stop")

    def validate(self):
        if self.start > self.stop:
            raise MessageError("Guidance stops before it starts; let it start earlier or stop later.")


@dataclass(frozen=True)
class Preset(Checked):
    """A named set of values: the number of steps, the guidance, and each option that any preset of the engine
    names. What is left out has its default; options that no preset names are left as they are.

    num_inference_steps: None is the engine's default.
    """

    name: str = declare(Text(64, 1))
    label: str = declare(Line(64, 1))
    help: str = declare(Line(512))
    options: dict[str, Any] = declare(Options(), default_factory=dict)
    guidance: Guidance = declare(Struct(Guidance), default_factory=Guidance)
    num_inference_steps: int | None = declare(Optional(Integer(1, 1000)), None)


@dataclass(frozen=True)
class WeightsPart(Checked):
    """A part of the weights that an engine runs with.

    page: the address that it is fetched from.
    licence: "" where that page does not state one.
    bytes: how large its files are.
    """

    label: str = declare(Line(64, 1))
    page: str = declare(Line(256))
    licence: str = declare(Line(64))
    bytes: int = declare(Integer(0, 2**53))
    present: bool = declare(Flag())


@dataclass(frozen=True)
class EngineDescription(Checked):
    """Everything that others need to know of an engine.

    neural: whether a neural network makes the frames. What one without makes is called a draft.
    ready, reason: whether it can run here, and if not, why, in a sentence.
    runs_on: a sentence that says on what it runs, and what that means for the user.
    size_multiple: width and height are multiples of it.
    frame_step, max_frames: the number of frames n has (n - 1) % `frame_step` == 0, and is at most
        `max_frames`.
    pose_look: how the poses look that it was trained on: "bones" as the rig's bones lie, or "trained" as the
        release's are drawn, people as OpenPose's 18 points and animals as the middle lines of their bodies.
    camera_condition: how the rectangle moves that tells of the camera's motion: "against_background", as in
        the paper, or "with_background".
    max_parts: the largest number of parts it was trained with; None where it does not matter.
    live: whether it offers live sessions.
    experimental: whether it is taken only where it is asked for by its name.
    weights: what of its weights can be fetched; nothing where they come along.
    weights_folder: where they are looked for, on the server's machine.
    """

    name: str = declare(Text(64, 1))
    label: str = declare(Line(128))
    summary: str = declare(Line(1024))
    neural: bool = declare(Flag())
    ready: bool = declare(Flag(), True)
    reason: str = declare(Prose(1024), "")
    runs_on: str = declare(Prose(256), "")
    size_multiple: int = declare(Integer(1, 256), 2)
    frame_step: int = declare(Integer(1, 64), 1)
    max_frames: int = declare(Integer(1, MAX_FRAMES), MAX_FRAMES)
    default_steps: int = declare(Integer(1, 1000), 1)
    uses_steps: bool = declare(Flag(), False)
    uses_prompt: bool = declare(Flag(), True)
    uses_seed: bool = declare(Flag(), True)
    uses_camera: bool = declare(Flag(), True)
    pose_look: str = declare(Choice(("bones", "trained")), "bones")
    camera_condition: str = declare(Choice(("against_background", "with_background")), "against_background")
    max_parts: int | None = declare(Optional(Integer(1, MAX_LIMBS)), None)
    live: bool = declare(Flag(), False)
    experimental: bool = declare(Flag(), False)
    guiders: tuple[GuiderDescription, ...] = declare(Many(Struct(GuiderDescription), 32), ())
    options: tuple[OptionDescription, ...] = declare(Many(Struct(OptionDescription), 64), ())
    presets: tuple[Preset, ...] = declare(Many(Struct(Preset), 32), ())
    weights: tuple[WeightsPart, ...] = declare(Many(Struct(WeightsPart), 16), ())
    weights_folder: str = declare(Line(1024), "")

    def validate(self):
        for items in (self.guiders, self.options, self.presets):
            _require_unique(items, self.label)

    @property
    def short_label(self) -> str:
        """The label without what it says in brackets."""
        return short_label(self.label)

    @property
    def missing_weights(self) -> tuple[WeightsPart, ...]:
        """The parts of its weights that are still to be fetched."""
        return tuple(part for part in self.weights if not part.present)

    @property
    def preset_options(self) -> frozenset[str]:
        """The names of the options that a preset sets."""
        return frozenset(name for preset in self.presets for name in preset.options)

    def guider(self, name: str) -> GuiderDescription | None:
        return _named(self.guiders, name)

    def option(self, name: str) -> OptionDescription | None:
        return _named(self.options, name)

    def preset(self, name: str) -> Preset | None:
        return _named(self.presets, name)


def short_label(label: str) -> str:
    """An engine's label without what it says in brackets, for lines that have no room for more."""
    return label.partition(" (")[0]


def find_engine(engines: Sequence[EngineDescription], name: str) -> EngineDescription | None:
    """The engine of a name; "" is the first that is ready and not experimental, a neural one before the
    others."""
    if name:
        return _named(engines, name)
    ready = [engine for engine in engines if engine.ready and not engine.experimental]
    return next((engine for engine in ready if engine.neural), ready[0] if ready else None)


def check_request(request: GenerationRequest, engine: EngineDescription) -> None:
    """Raises `MessageError`, one sentence, for a request that the engine can't serve."""
    check_size(engine, request.width, request.height, request.num_frames)
    check_guidance(engine, request.guidance, has_camera=request.camera_motion is not None)
    check_values(request.engine_options, engine.options, engine.label)


def check_live(request: GenerationRequest, engine: EngineDescription) -> None:
    """Raises `MessageError`, one sentence, for a request with which the engine can't open a live session."""
    if not engine.live:
        raise MessageError(
            "{engine} makes no live pictures; choose another engine.", engine=as_value(engine.label)
        )
    check_size(engine, request.width, request.height, 1)
    check_values(request.engine_options, engine.options, engine.label)


def check_size(engine: EngineDescription, width: int, height: int, num_frames: int) -> None:
    """Raises `MessageError` for a size in pixels or a number of frames that the engine can't make."""
    if num_frames > engine.max_frames:
        raise MessageError(
            "{engine} makes at most {most} frames, not {num_frames}; shorten the clip.",
            engine=as_value(engine.label),
            most=engine.max_frames,
            num_frames=num_frames,
        )
    if surplus := (num_frames - 1) % engine.frame_step:
        below = num_frames - surplus
        possible = [str(n) for n in (below, below + engine.frame_step) if n <= engine.max_frames]
        raise MessageError(
            "{engine} can't make {num_frames} frames; choose {possible}.",
            engine=as_value(engine.label),
            num_frames=num_frames,
            possible=" or ".join(possible),
        )
    multiple = engine.size_multiple
    if width % multiple or height % multiple:
        near = " x ".join(str(max(multiple, round(side / multiple) * multiple)) for side in (width, height))
        raise MessageError(
            "{engine} takes sizes that are multiples of {multiple}, not {width} x {height}; choose {near}.",
            engine=as_value(engine.label),
            multiple=multiple,
            width=width,
            height=height,
            near=near,
        )


def check_guidance(engine: EngineDescription, guidance: Guidance, has_camera: bool) -> dict[str, Any]:
    """All parameters of the guider, by name. Raises `MessageError` for a guidance that the engine does not
    have.

    An engine without guiders has only "none".
    """
    if guidance.guider == "none" and not engine.guiders:
        return {}
    guider = engine.guider(guidance.guider)
    if guider is None:
        names = ", ".join(guider.name for guider in engine.guiders)
        raise MessageError(
            "{engine} has no guidance {name!r}; choose one of {names}.",
            engine=as_value(engine.label),
            name=guidance.guider,
            names=names or "none",
        )
    if guider.needs_camera and not has_camera:
        raise MessageError(
            "{guider} guides by the camera's motion, and there is none; add one or choose another guidance.",
            guider=as_value(guider.label),
        )
    return check_values(guidance.parameters, guider.parameters, guider.label)


def check_values(
    values: Mapping[str, Any], described: Sequence[OptionDescription], owner: str
) -> dict[str, Any]:
    """The value of every described option, its default where it has none. Raises `MessageError`."""
    for name in values:
        if _named(described, name) is None:
            names = ", ".join(option.name for option in described)
            raise MessageError(
                "{owner} has no option {name!r}; it has {names}."
                if names
                else "{owner} has no option {name!r}; it has none.",
                owner=as_value(owner),
                name=name,
                names=names,
            )
    return {option.name: option.check(values.get(option.name, option.default)) for option in described}


def option(
    default: Any,
    label: str,
    help: str,
    *,
    minimum: float = -LIMIT,
    maximum: float = LIMIT,
    choices: Mapping[str, tuple[str, str]] | None = None,
    type: str | None = None,
    advanced: bool = False,
    group: str = "",
    loads: bool = False,
) -> Any:
    """A dataclass field that is an option; see `OptionDescription`.

    Args:
        choices: label and help by name.
        type: by default as the default value's type says; a text with choices is a "choice".
    """
    table = isinstance(default, dict)
    kinds = {bool: "bool", int: "int", float: "float", str: "text" if choices is None else "choice"}
    described = {
        "type": type or ("strengths" if table else kinds[default.__class__]),
        "label": label,
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": tuple(OptionChoice(name, *texts) for name, texts in (choices or {}).items()),
        "advanced": advanced,
        "group": group,
        "loads": loads,
    }
    given = {"default_factory": lambda: dict(default)} if table else {"default": default}
    return dataclasses.field(**given, metadata={"option": described})


def describe_options(
    cls: type, choices: Mapping[str, Sequence[str]] | None = None
) -> tuple[OptionDescription, ...]:
    """The options that a dataclass declares, in its order.

    `choices` adds, by the option's name, those that only the machine knows, such as files; names that can't
    be sent, and those beyond `MAX_CHOICES`, are left out.
    """
    described = []
    for field in dataclasses.fields(cls):
        if "option" not in field.metadata:
            continue
        about = field.metadata["option"]
        names = [name for name in (choices or {}).get(field.name, ()) if _can_be_sent(name)]
        found = tuple(OptionChoice(name, name.removesuffix(".safetensors")) for name in names)
        table = field.default_factory
        default: Any = field.default if table is dataclasses.MISSING else table()
        described.append(
            OptionDescription(
                name=field.name,
                default=default,
                **about | {"choices": (about["choices"] + found)[:MAX_CHOICES]},
            )
        )
    return tuple(described)


def _can_be_sent(name: str) -> bool:
    try:
        Text(MAX_NAME).check(name, "")
    except MessageError:  # a file name that is not UTF-8
        return False
    return True


def _named(items: Sequence, name: str) -> Any:
    return next((item for item in items if item.name == name), None)


def _require_unique(items: Sequence, owner: str) -> None:
    names: set[str] = set()
    for item in items:
        if item.name in names:
            raise MessageError(
                "{owner} names {name!r} twice; give each a name of its own.",
                owner=as_value(owner),
                name=item.name,
            )
        names.add(item.name)
