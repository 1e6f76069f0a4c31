"""What the user sets for each engine: a property group for each, made of what the engine says of itself.

An engine's options and its guiders' parameters become properties of Blender's own, with their ranges,
defaults and tooltips, on every scene. Values stay in the .blend while their engine is away. What a server
said of its engines is kept in the extension's folder, so that the panel is whole before a server answers.

    group = engine_settings.group_of(scene, engine.name)
    request_options = engine_settings.options(scene, engine)
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from .shared import wire
from .shared.engines import EngineDescription, Guidance, GuiderDescription, OptionDescription, Preset
from .shared.messages import Welcome
from .shared.schema import MessageError
from .texts import say
from .texts.translation import in_context

log = logging.getLogger(__name__)

STEPS, START, STOP, PRESET, GUIDER = "steps", "guidance_start", "guidance_stop", "preset", "guider"
_STORED = "_stored"
_INT = 2**31 - 1

_described: dict[str, EngineDescription] = {}
_classes: dict[str, list[type]] = {}


def described() -> tuple[EngineDescription, ...]:
    """The engines of the last server that answered."""
    return tuple(_described.values())


def follow(engines: Sequence[EngineDescription]) -> None:
    """Take in what a server says of its engines."""
    if tuple(engines) == described():
        return
    for name in set(_described) - {engine.name for engine in engines}:
        _remove(name)
    known = dict(_described)
    _described.clear()
    for engine in engines:
        _described[engine.name] = engine
        if engine.name not in known or _settable(known[engine.name]) != _settable(engine):
            _remove(engine.name)
            _add(engine)
    _keep()


def group_of(scene: bpy.types.Scene, engine: str) -> bpy.types.PropertyGroup | None:
    """What is set for an engine in a scene; None for one that no server has described."""
    return getattr(scene, attribute(engine), None)


def option_property(name: str) -> str:
    """The property of an option."""
    return _identifier("option", name)


def parameter_property(guider: str, name: str) -> str:
    """The property of a guider's parameter."""
    return _identifier("guider", guider, name)


def options(scene: bpy.types.Scene, engine: EngineDescription) -> dict[str, Any]:
    """The value of each option that the engine describes."""
    group = group_of(scene, engine.name)
    return {option.name: _get(group, option_property(option.name), option) for option in engine.options}


def guidance(scene: bpy.types.Scene, engine: EngineDescription) -> Guidance:
    """The guider and its parameters; "none" for an engine without."""
    group = group_of(scene, engine.name)
    guider = chosen_guider(scene, engine)
    if guider is None:
        return Guidance()
    parameters = {
        parameter.name: _get(group, parameter_property(guider.name, parameter.name), parameter)
        for parameter in guider.parameters
    }
    if guider.evaluations == 1 or group is None:
        return Guidance(guider.name, parameters)
    start, stop = _rounded(getattr(group, START)), _rounded(getattr(group, STOP))
    return Guidance(guider.name, parameters, min(start, stop), stop)


def chosen_guider(scene: bpy.types.Scene, engine: EngineDescription) -> GuiderDescription | None:
    """The guider that is set, the first one where none is, None for an engine without."""
    if not engine.guiders:
        return None
    group = group_of(scene, engine.name)
    stored = getattr(group, GUIDER + _STORED, "")
    return engine.guider(stored) or engine.guiders[0]


def num_inference_steps(scene: bpy.types.Scene, engine: EngineDescription) -> int:
    """The number of steps that is set, the engine's default where it has no say in them."""
    return getattr(group_of(scene, engine.name), STEPS, engine.default_steps)


def unavailable(scene: bpy.types.Scene, engine: EngineDescription) -> list[str]:
    """A sentence for each value that is set but that the engine does not have now; its default is used."""
    group, sentences = group_of(scene, engine.name), []
    if group is None:
        return []
    for identifier, option in _properties(engine):
        names = [choice.name for choice in option.choices]
        if option.type == "choice":
            stored = getattr(group, identifier + _STORED)
            gone = [stored] if stored and stored not in names else []
        elif option.type == "strengths":
            gone = [item.name for item in getattr(group, identifier) if item.name not in names]
        else:
            continue
        sentences += [
            say(
                "{option}: {engine} has no {name!r}; it is left out.",
                option=option.label,
                engine=engine.label,
                name=name,
            )
            for name in gone
        ]
    return sentences


# Presets


def use_preset(scene: bpy.types.Scene, engine: EngineDescription, preset: Preset) -> None:
    """Set the steps, the guidance, and the options that any preset of the engine names, to the preset's; what
    it leaves out is the engine's default again, and follows that."""
    group = group_of(scene, engine.name)
    if engine.uses_steps and preset.num_inference_steps:
        setattr(group, STEPS, preset.num_inference_steps)
    elif engine.uses_steps:
        group.property_unset(STEPS)
    _set_guidance(group, engine, preset.guidance)
    for option in engine.options:
        if option.name in engine.preset_options:
            _set_or_leave(group, option_property(option.name), option, preset.options)
    setattr(group, PRESET, preset.name)


def current_preset(scene: bpy.types.Scene, engine: EngineDescription) -> tuple[Preset | None, bool]:
    """The preset whose values are set, else the one that was last chosen; and whether it was changed
    since."""
    set_to = _of_preset(engine, options(scene, engine), guidance(scene, engine))
    steps = num_inference_steps(scene, engine)
    group = group_of(scene, engine.name)
    chosen = engine.preset(getattr(group, PRESET, ""))
    for preset in (*filter(None, [chosen]), *engine.presets):
        wanted = {option.name: option.default for option in engine.options} | preset.options
        same_steps = steps == (preset.num_inference_steps or engine.default_steps)
        if same_steps and set_to == _of_preset(engine, wanted, preset.guidance):
            return preset, False
    return chosen, True


def _of_preset(engine: EngineDescription, values: Mapping[str, Any], guided: Guidance) -> tuple:
    guider = engine.guider(guided.guider)
    defaults = {} if guider is None else {about.name: about.default for about in guider.parameters}
    values = {name: values[name] for name in engine.preset_options if name in values}
    return values, guided.guider, defaults | guided.parameters, guided.start, guided.stop


# Takes


def record(scene: bpy.types.Scene, engine: EngineDescription) -> dict[str, Any]:
    """All that is set for an engine, as JSON-able values."""
    guided = guidance(scene, engine)
    return {
        "num_inference_steps": num_inference_steps(scene, engine),
        "options": options(scene, engine),
        "guidance": {
            "guider": guided.guider,
            "parameters": guided.parameters,
            "start": guided.start,
            "stop": guided.stop,
        },
    }


def restore(scene: bpy.types.Scene, engine: EngineDescription, kept: Mapping[str, Any]) -> list[str]:
    """Set an engine's values to a record of them. What the engine does not have, or no longer takes, is left
    as it is; gives a sentence for each."""
    group, notices = group_of(scene, engine.name), []
    if group is None:
        return [
            say(
                "{engine} was never described by a server; its settings are left as they are.",
                engine=engine.label,
            )
        ]
    steps = kept.get("num_inference_steps")
    if engine.uses_steps and isinstance(steps, int):
        setattr(group, STEPS, steps)
    for name, value in dict(kept.get("options", {})).items():
        notices += _restore(group, engine, engine.option(name), name, value)
    guided = dict(kept.get("guidance", {}))
    guider = engine.guider(guided.get("guider", "none"))
    if guider is None:
        if engine.guiders or guided.get("guider", "none") != "none":
            notices.append(
                say(
                    "{engine} has no guidance {name!r}; it is left as it was.",
                    engine=engine.label,
                    name=guided.get("guider"),
                )
            )
        return notices
    parameters = dict(guided.get("parameters", {}))
    known = {about.name: about for about in guider.parameters}
    setattr(group, GUIDER + _STORED, guider.name)
    for name, value in parameters.items():
        notices += _restore(group, guider, known.get(name), name, value, guider.name)
    setattr(group, START, guided.get("start", 0.0))
    setattr(group, STOP, guided.get("stop", 1.0))
    return notices


def _restore(group, owner, option: OptionDescription | None, name: str, value: Any, guider: str = "") -> list:
    if option is None:
        return [
            say("{engine} has no option {name!r} any more; it is left out.", engine=owner.label, name=name)
        ]
    try:
        value = option.check(value)
    except MessageError as error:
        return [say("{what} It is left as it was.", what=error)]
    _set(group, parameter_property(guider, name) if guider else option_property(name), option, value)
    return []


def _set_guidance(group, engine: EngineDescription, guided: Guidance) -> None:
    guider = engine.guider(guided.guider)
    if guider is None:
        return
    setattr(group, GUIDER + _STORED, guider.name)
    for parameter in guider.parameters:
        _set_or_leave(group, parameter_property(guider.name, parameter.name), parameter, guided.parameters)
    setattr(group, START, guided.start)
    setattr(group, STOP, guided.stop)


# Values


def _get(group, identifier: str, option: OptionDescription) -> Any:
    if group is None:
        return option.default
    names = [choice.name for choice in option.choices]
    if option.type == "choice":
        stored = getattr(group, identifier + _STORED)
        return stored if stored in names else option.default
    value = getattr(group, identifier)
    if option.type == "strengths":
        return {item.name: _rounded(item.strength) for item in value if item.name in names}
    return _rounded(value) if option.type == "float" else value


def _set(group, identifier: str, option: OptionDescription, value: Any) -> None:
    if option.type == "choice":
        setattr(group, identifier + _STORED, value)
    elif option.type == "strengths":
        items = getattr(group, identifier)
        items.clear()
        for name, strength in value.items():
            item = items.add()
            item.name, item.strength = name, strength
    else:
        setattr(group, identifier, value)


def _set_or_leave(group, identifier: str, option: OptionDescription, values: Mapping[str, Any]) -> None:
    """Set the option's value among `values`; without one it is as if it had never been set."""
    if option.name in values:
        _set(group, identifier, option, values[option.name])
    else:
        group.property_unset(identifier + _STORED if option.type == "choice" else identifier)


def _rounded(value: float) -> float:
    """A number as it was typed: Blender's are of single precision."""
    return float(f"{value:.6g}")


# Property groups


def _settable(engine: EngineDescription) -> tuple:
    return engine.options, engine.guiders, engine.uses_steps, engine.default_steps


def attribute(engine: str) -> str:
    return _identifier("poseanything_engine", engine)


def _identifier(*words: str) -> str:
    """A name of RNA for any words; what is too long for RNA or holds other characters is told apart by a
    checksum."""
    text = "_".join(re.sub(r"\W", "_", word, flags=re.ASCII) for word in words)
    same = text == "_".join(words) and len(text) <= 50
    return text if same else f"{text[:40]}_{zlib.crc32('/'.join(words).encode()):08x}"


def _properties(engine: EngineDescription) -> Iterator[tuple[str, OptionDescription]]:
    for option in engine.options:
        yield option_property(option.name), option
    for guider in engine.guiders:
        for parameter in guider.parameters:
            yield parameter_property(guider.name, parameter.name), parameter


def _add(engine: EngineDescription) -> None:
    """Make and register the group of an engine."""
    made = []
    annotations: dict[str, Any] = {
        PRESET: StringProperty(options={"HIDDEN"}),
        START: _fraction("From", "Part of the steps after which guidance sets in", 0.0),
        STOP: _fraction("To", "Part of the steps after which guidance ends", 1.0),
    }
    if engine.uses_steps:
        annotations[STEPS] = IntProperty(
            name="Steps",
            description="Denoising steps. More take longer and come out finer",
            default=engine.default_steps,
            min=1,
            max=1000,
        )
    if engine.guiders:
        items = [(guider.name, guider.label, guider.help) for guider in engine.guiders]
        annotations |= _choice(
            GUIDER, "Guidance", "How evaluations of the model are combined", items, items[0][0]
        )
    for identifier, option in _properties(engine):
        if option.type == "strengths":
            made.append(_strength_class(engine, option))
            annotations[identifier] = CollectionProperty(
                type=made[-1], name=option.label, description=option.help
            )
        else:
            annotations |= _property(identifier, option)
    name = _identifier("POSEANYTHING_PG", engine.name)
    made.append(type(name, (bpy.types.PropertyGroup,), {"__annotations__": annotations}))
    for cls in made:
        in_context(cls)
        bpy.utils.register_class(cls)
    _classes[engine.name] = made
    setattr(bpy.types.Scene, attribute(engine.name), PointerProperty(type=made[-1]))


def _remove(engine: str) -> None:
    """Unregister the group of an engine; what is set stays in the file."""
    made = _classes.pop(engine, None)
    if made is not None:
        delattr(bpy.types.Scene, attribute(engine))
        for cls in reversed(made):
            bpy.utils.unregister_class(cls)


def _strength_class(engine: EngineDescription, option: OptionDescription) -> type:
    strength = FloatProperty(
        name="Strength",
        description=say("Strength of this entry of {option}", option=option.label),
        default=min(max(1.0, option.minimum), option.maximum),
        min=option.minimum,
        max=option.maximum,
    )
    name = _identifier("POSEANYTHING_PG", engine.name, option.name)
    return type(name, (bpy.types.PropertyGroup,), {"__annotations__": {"strength": strength}})


def _property(identifier: str, option: OptionDescription) -> dict[str, Any]:
    texts = {"name": option.label, "description": option.help, "default": option.default}
    if option.type == "choice":
        items = [(choice.name, choice.label, choice.help) for choice in option.choices]
        return _choice(identifier, option.label, option.help, items, option.default)
    if option.type == "bool":
        return {identifier: BoolProperty(**texts)}
    if option.type == "text":
        return {identifier: StringProperty(**texts)}
    least, most = max(option.minimum, -_INT), min(option.maximum, _INT)
    if option.type == "int":
        return {identifier: IntProperty(**texts, min=round(least), max=round(most))}
    return {identifier: FloatProperty(**texts, min=least, max=most, precision=2)}


def _choice(identifier: str, label: str, help: str, items: list[tuple[str, str, str]], default: str) -> dict:
    """An enumeration whose choice is stored as text, so that it outlives changes of its items."""
    stored = identifier + _STORED
    # RNA has no empty name, and a number of its own must not change when other items come.
    numbers = {name: zlib.crc32(name.encode()) & _INT for name, _, _ in items}
    shown = [(name or "DEFAULT", text, about, numbers[name]) for name, text, about in items]
    by_number = {number: name for name, number in numbers.items()}

    def get(self):
        return numbers.get(getattr(self, stored), numbers[default])

    def set(self, number):
        setattr(self, stored, by_number[number])

    return {
        stored: StringProperty(options={"HIDDEN"}, default=default),
        identifier: EnumProperty(name=label, description=help, items=shown, get=get, set=set),
    }


def _fraction(name: str, description: str, default: float) -> Any:
    return FloatProperty(
        name=name, description=description, default=default, min=0.0, max=1.0, subtype="FACTOR"
    )


# Kept between sessions


def _file() -> Path | None:
    try:
        return Path(bpy.utils.extension_path_user(__package__, create=True)) / "engines"
    except (ValueError, OSError):  # not installed as an extension, or a profile that can't be written to
        return None


def _keep() -> None:
    file = _file()
    if file is not None:
        try:
            file.write_bytes(wire.encode(Welcome(server_version="", engines=described()))[0])
        except (OSError, MessageError) as error:
            log.warning("The engines' descriptions can't be kept: %s", error)


def _recall() -> tuple[EngineDescription, ...]:
    file = _file()
    try:
        return wire.decode([file.read_bytes()], (Welcome,)).engines if file is not None else ()
    except (OSError, MessageError):  # never kept, or by another release
        return ()


def register() -> None:
    for engine in _recall():
        _described[engine.name] = engine
        _add(engine)


def unregister() -> None:
    for name in list(_described):
        _remove(name)
    _described.clear()
