"""Values on the command line for what an engine describes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from shared.engines import EngineDescription, OptionDescription
from shared.schema import MessageError

_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def parse_assignments(
    words: Iterable[str], described: Sequence[OptionDescription], owner: str
) -> dict[str, Any]:
    """The table that NAME=VALUE words make. Raises `MessageError`."""
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise MessageError(f"The option {word!r} has no value; write it as NAME=VALUE.")
        option = next((option for option in described if option.name == name), None)
        if option is None:
            names = ", ".join(option.name for option in described) or "none"
            raise MessageError(f"{owner} has no option {name!r}; it has {names}.")
        values[name] = parse_value(option, text)
    return values


def count(text: str) -> int:
    """A whole number of 1 or more, as argparse takes a type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of 1 or more")
    return int(text)


def quality(text: str) -> int:
    """Of pictures, as argparse takes a type."""
    from ..datasets.dataset import LOSSLESS

    if not text.isdecimal() or not 1 <= int(text) <= LOSSLESS:
        raise argparse.ArgumentTypeError(f"{text} is no quality from 1 to 100, or {LOSSLESS} for lossless")
    return int(text)


def parse_value(option: OptionDescription, text: str) -> Any:
    """A value as an option takes it; several strengths are written NAME:STRENGTH,NAME:STRENGTH. Raises
    `MessageError`."""
    value: Any = text
    if option.type == "bool":
        value = _FLAGS.get(text.lower(), text)
    elif option.type in ("int", "float"):
        value = _number(text, int if option.type == "int" else float)
    elif option.type == "strengths":
        value = {}
        for word in filter(None, text.split(",")):
            name, colon, strength = word.rpartition(":")
            value[name if colon else word] = _number(strength, float) if colon else 1.0
    return option.check(value)


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text  # the option's own check says what is wrong


def describe_values(engine: EngineDescription) -> str:
    """The engine's presets, guiders and options as lines of help."""
    lines = [f"{engine.label} ({engine.name})"]
    lines += [f"  --preset {preset.name}: {preset.help}" for preset in engine.presets]
    for guider in engine.guiders:
        lines.append(f"  --guider {guider.name}: {guider.help}; evaluations a step: {guider.evaluations}")
        lines += [f"    {flag(parameter.name)}: {_help(parameter)}" for parameter in guider.parameters]
    lines += [f"  --option {option.name}=VALUE: {_help(option)}" for option in engine.options]
    return "\n".join(lines)


def _help(option: OptionDescription) -> str:
    if option.type == "bool":
        values = "true or false"
    elif option.type in ("int", "float"):
        values = f"{option.minimum:g} to {option.maximum:g}"
    elif option.type == "text":
        values = "text"
    else:
        values = ", ".join(choice.name for choice in option.choices if choice.name) or "none here"
        if option.type == "strengths":
            values = f"NAME:STRENGTH,... of {values}"
    default = str(option.default).lower() if option.type == "bool" else option.default
    shown = f"; default {default}" if default not in ("", {}) else ""
    return f"{option.help} ({values}{shown})"


def flag(parameter: str) -> str:
    """The command line's flag of a guider's parameter."""
    return f"--{parameter.replace('_', '-')}"


def add_parameters(group: argparse._ArgumentGroup, engines: Iterable[EngineDescription]) -> None:
    """A flag for each parameter of the engines' guiders; `chosen_parameters` gives what was set."""
    added: dict[str, OptionDescription] = {}
    for engine in engines:
        for guider in engine.guiders:
            for parameter in guider.parameters:
                if added.setdefault(parameter.name, parameter) is not parameter:
                    continue
                if parameter.type == "bool":
                    kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
                else:
                    kind = {"metavar": "VALUE"}
                group.add_argument(flag(parameter.name), default=None, help=_help(parameter), **kind)


def chosen_parameters(args: argparse.Namespace, engine: EngineDescription) -> dict[str, Any]:
    """The guider's parameters that the command line sets, by name. Raises `MessageError`."""
    chosen = {}
    for guider in engine.guiders:
        for parameter in guider.parameters:
            given = getattr(args, parameter.name, None)
            if given is not None:
                chosen[parameter.name] = parse_value(parameter, given) if isinstance(given, str) else given
    return chosen
