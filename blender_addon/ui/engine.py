"""The engine and everything that it lets the user choose, drawn from what it says of itself."""

from __future__ import annotations

from itertools import groupby

from .. import engine_settings, session
from ..engine_settings import GUIDER, START, STEPS, STOP
from ..operators.serving import obstacle
from ..shared.engines import EngineDescription, OptionDescription
from ..texts import say
from ..texts.translation import shown, tell
from .progress import draw_button, draw_start
from .text import field, menu_row, paragraph


def draw_engine(layout, context) -> None:
    """The engine, its preset, steps, guidance and the options that most users want."""
    settings = context.scene.poseanything
    field(layout, context, settings, "engine")
    engine = session.get().engine(settings.engine_name)
    _draw_state(layout, context, engine)
    if engine is None:
        return
    group = engine_settings.group_of(context.scene, engine.name)
    if group is None:
        return
    if engine.presets:
        _draw_preset(layout, context, engine)
    if engine.uses_steps:
        field(layout, context, group, STEPS)
    if engine.uses_seed:
        field(layout, context, settings, "seed")
        field(layout, context, settings, "new_seed")
        field(layout, context, settings, "batch")
    if engine.guiders:
        _draw_guidance(layout, context, engine, group)
    _draw_options(layout, context, group, engine, advanced=False)
    for sentence in engine_settings.unavailable(context.scene, engine):
        paragraph(layout, context, sentence, "ERROR")


def has_advanced(context) -> bool:
    """Whether the chosen engine has advanced options."""
    engine = session.get().engine(context.scene.poseanything.engine_name)
    return engine is not None and any(option.advanced for option in engine.options)


def draw_advanced(layout, context) -> None:
    """The options that most users leave alone, by their groups."""
    engine = session.get().engine(context.scene.poseanything.engine_name)
    group = engine_settings.group_of(context.scene, engine.name)
    if group is not None:
        _draw_options(layout, context, group, engine, advanced=True)


def _draw_state(layout, context, engine: EngineDescription | None) -> None:
    """Which engine it is, what it runs on, and why a better one is not used."""
    settings, engines = context.scene.poseanything, session.get().engines
    if engine is not None and not engine.ready:
        _draw_obstacle(layout, context, engine, "ERROR")
        return
    if not settings.engine_name and engine is not None:
        layout.label(text=tell("Chosen: {engine}", engine=engine.short_label), icon="CHECKMARK")
        for other in engines:
            if other.neural and not other.experimental and not other.ready and not engine.neural:
                _draw_obstacle(layout, context, other, "INFO")
    if engine is not None and engine.runs_on:
        paragraph(layout, context, engine.runs_on, "MEMORY")
    if engine is None:
        text = say("No engine is ready") if engines else say("The engines are known once a server answers")
        paragraph(layout, context, text, "INFO")
        draw_start(layout, context)


def _draw_obstacle(layout, context, engine: EngineDescription, icon: str) -> None:
    """Why an engine can't be used, and what helps."""
    found = obstacle(context, engine)
    if session.get().weights.is_running:
        icon = "INFO"
    paragraph(layout, context, found.sentence, icon, alert=icon == "ERROR")
    if found.operator:
        draw_button(layout, found)


def _draw_preset(layout, context, engine: EngineDescription) -> None:
    preset, changed = engine_settings.current_preset(context.scene, engine)
    label = (
        "Custom"
        if preset is None
        else say("{preset} (modified)", preset=preset.label)
        if changed
        else preset.label
    )
    menu_row(layout, context, "Preset").operator_menu_enum(
        "poseanything.use_preset", "preset", text=shown(label)
    )


def _draw_guidance(layout, context, engine: EngineDescription, group) -> None:
    field(layout, context, group, GUIDER)
    guider = engine_settings.chosen_guider(context.scene, engine)
    if not guider.parameters:
        return
    column = layout.column(align=True)
    for parameter in guider.parameters:
        name = engine_settings.parameter_property(guider.name, parameter.name)
        field(column, context, group, name)
    column = layout.column(align=True)
    field(column, context, group, START)
    field(column, context, group, STOP)
    text = say("{evaluations} evaluations a step", evaluations=guider.evaluations)
    paragraph(layout, context, text, "TIME")


def _draw_options(layout, context, group, engine: EngineDescription, advanced: bool) -> None:
    chosen = [option for option in engine.options if option.advanced == advanced]
    if advanced:
        chosen.sort(key=lambda option: option.group)
    for name, options in groupby(chosen, lambda option: option.group):
        column = layout.column()
        if advanced and name:
            column.label(text=name)
        for option in options:
            if option.type == "strengths":
                _draw_strengths(column, context, group, engine, option)
            else:
                field(column, context, group, engine_settings.option_property(option.name))


def _draw_strengths(layout, context, group, engine: EngineDescription, option: OptionDescription) -> None:
    column = layout.column(align=True)
    names = {choice.name: choice.label for choice in option.choices}
    if option.choices:
        add = menu_row(column, context, option.label).operator_menu_enum(
            "poseanything.add_strength", "choice", text="Add", icon="ADD"
        )
        add.engine, add.option = engine.name, option.name
    for index, item in enumerate(getattr(group, engine_settings.option_property(option.name))):
        row = column.row(align=True)
        row.alert = item.name not in names
        row.prop(item, "strength", text=names.get(item.name, item.name))
        remove = row.operator("poseanything.remove_strength", text="", icon="X")
        remove.engine, remove.option, remove.index = engine.name, option.name, index
