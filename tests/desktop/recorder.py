"""Runs inside the windowed Blender: notes every button that the extension draws, where in its code, and what
pressing it does; colours chosen ones, so that a photograph tells where they are.

A panel's `draw` is given a stand-in for its layout, which hands every call on to Blender's own.
"""

from __future__ import annotations

import sys
import types
import zlib
from collections.abc import Callable, Iterable

import bpy

pressed: tuple[str, ...] = ()
"""The functions of a layout that draw something to press."""
package = helpers = ""
buttons: dict[str, list[dict]] = {}
"""What each class drew when it was drawn last."""
shapes: dict[str, list[str]] = {}
"""Which functions of its layout each class called, one after the other: as long as these are the same, what
is drawn stands where it stood."""
coloured: set[tuple[str, int]] = set()
"""Buttons, by the class that draws them and their place in it, that are drawn in the colour of errors."""
followed: dict[str, str] = {}
"""Operators that note in `ran` that they were called, those that are written in Python, and the method that a
button must call, "" where any will do: what runs beside the user has to be invoked."""
ran: list[list[str]] = []
"""Operators that were called, each with the method and what came of it."""
reports: list[list[str]] = []
"""What operators reported: the operator, the kind, the text."""
COLOURLESS = "popover", "menu", "operator_menu_enum", "prop_search"
"""Functions whose buttons don't show the colour of errors: another button stands there meanwhile."""
ARROW = "DOWNARROW_HLT"
"""The icon of those that have no other."""
WIDE, NARROW = 1.65, 0.75
"""How wide those without a text are, with an icon and without."""
popups: list[bpy.types.Region] = []
"""What lies over the window: popovers, menus and dialogs that are open."""


class Layout:
    """Stands for a `UILayout`."""

    def __init__(self, real: bpy.types.UILayout, owner: str):
        self.__dict__.update(_real=real, _owner=owner)

    def __setattr__(self, name, value):
        setattr(self._real, name, value)

    def __getattr__(self, name):
        found = getattr(self._real, name)
        if name in pressed:
            return lambda *args, **named: self._press(name, found, args, named)
        if not callable(found):
            return found

        def call(*args, **named):
            shapes.setdefault(self._owner, []).append(name)
            result = found(*args, **named)
            return Layout(result, self._owner) if isinstance(result, bpy.types.UILayout) else result

        return call

    def _press(self, call, draw, args, named):
        args = [arg._real if type(arg) is Drawn else arg for arg in args]
        shapes.setdefault(self._owner, []).append(call)
        noted = buttons.setdefault(self._owner, [])
        button = {"owner": self._owner, "number": len(noted), "call": call, "site": site()}
        button |= described(call, args, named) | {
            "enabled": self._real.enabled,
            "expand": bool(named.get("expand")),
        }
        noted.append(button)
        real, before = self._real, (self._real.alert, self._real.emboss)
        if (self._owner, button["number"]) in coloured:
            real.alert, real.emboss = True, "NORMAL"
            named = {name: value for name, value in named.items() if name != "emboss"}
            if call in COLOURLESS or button["expand"]:
                look = {name: value for name, value in named.items() if name in ("text", "icon")}
                draw, args, named = self._in_place(look), ("wm.doc_view_manual",), {"icon": ARROW} | look
        try:
            result = draw(*args, **named)
        finally:
            real.alert, real.emboss = before
        if call == "operator":
            button["properties"] = result
        return result

    def _in_place(self, look: dict):
        """The layout's function that draws a button as wide as a popover's."""
        row = self._real
        if not look.get("text"):
            row = row.row(align=True)
            row.alert, row.emboss = True, "NORMAL"
            row.ui_units_x = WIDE if "icon" in look else NARROW
        return row.operator


def described(call: str, args: list, named: dict) -> dict:
    """What a button does, whether it may be pressed, and if not, why."""
    text = str(named.get("text", ""))
    if call.startswith("operator"):
        what = named.get("operator", args[0] if args else "")
        group, _, name = what.partition(".")
        operator = getattr(getattr(bpy.ops, group), name)
        follow(getattr(bpy.types, f"{group.upper()}_OT_{name}", None))
        why = ""
        if not operator.poll():
            try:
                operator()
            except RuntimeError as error:
                why = str(error).partition("poll()")[2].strip() or str(error)
        runs = call == "operator" and what in followed  # the others open a menu
        return {"what": what, "text": text, "why_not": why, "followed": runs}
    if call in ("popover", "menu"):
        what = named.get("panel") or named.get("menu") or args[0]
        return {"what": what, "text": text, "why_not": ""}
    data, name = (*args, named.get("data"), named.get("property"))[:2]
    what = f"{data.bl_rna.identifier}.{name}"
    return {"what": what, "text": text, "why_not": "", "data": data, "name": name}


def site() -> str:
    """File and line of the extension that draws."""
    frame = sys._getframe(1)
    while frame is not None:
        folder, _, inside = frame.f_code.co_filename.replace("\\", "/").partition(f"/{package}/")
        if inside not in ("", helpers):
            return f"{inside}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Drawn:
    """Stands for a panel, a menu or an operator that draws itself."""

    def __init__(self, real, owner: str):
        self.__dict__.update(_real=real, _owner=owner)

    @property
    def __class__(self):
        return type(self._real)

    @property
    def layout(self):
        return Layout(self._real.layout, self._owner)

    def __getattr__(self, name):
        found = getattr(type(self._real), name, None)
        return found.__get__(self) if isinstance(found, types.FunctionType) else getattr(self._real, name)

    def __setattr__(self, name, value):
        setattr(self._real, name, value)


def recorded(draw, owner: str):
    """A draw function that notes what it draws."""

    def record(self, context):
        buttons[owner], shapes[owner] = [], []
        if context.region_popup is not None and context.region_popup not in popups:
            popups.append(context.region_popup)
        draw(Drawn(self, owner), context)

    return record


def follow(operator: type | None) -> None:
    """Have an operator that is written in Python note that it was called."""
    methods = [
        name
        for name in ("invoke", "execute")
        if isinstance(getattr(operator, name, None), types.FunctionType)
    ]
    if methods and operator.bl_idname not in followed:
        modal = isinstance(getattr(operator, "modal", None), types.FunctionType)
        followed[operator.bl_idname] = "invoke" if modal else ""
        for name in methods:
            _follow(operator, name)


def _follow(operator: type, name: str) -> None:
    method = getattr(operator, name)

    def note(result):
        ran.append([operator.bl_idname, name, *result])
        return result

    # Blender looks at how many arguments a method takes.
    def invoke(self, context, event):
        return note(method(self, context, event))

    def execute(self, context):
        return note(method(self, context))

    setattr(operator, name, {"invoke": invoke, "execute": execute}[name])


def own_classes() -> list[type]:
    kinds = bpy.types.Panel, bpy.types.Menu, bpy.types.Operator, bpy.types.AddonPreferences
    return [one for kind in kinds for one in kind.__subclasses__() if f".{package}." in f"{one.__module__}."]


def install(module: str, functions: tuple[str, ...], file: str) -> None:
    """Follow all that the extension has registered; `file` of it helps the others to draw."""
    global package, pressed, helpers
    pressed, package, helpers = functions, module.rpartition(".")[2], file
    for one in own_classes():
        for part in ("draw", "draw_header_preset"):
            if hasattr(one, part):
                setattr(one, part, recorded(getattr(one, part), f"{one.__name__}.{part}"))
        if issubclass(one, bpy.types.Operator):
            follow(one)
    for name in dir(bpy.types):
        functions = getattr(getattr(getattr(bpy.types, name), "draw", None), "_draw_funcs", None) or []
        for place, function in enumerate(functions):
            if f".{package}." in function.__module__:
                functions[place] = recorded(function, f"{name}.{function.__name__}")
    attribute_of = bpy.types.Operator.__getattribute__

    def get(self, name):
        found = attribute_of(self, name)
        if name != "report" or f".{package}." not in type(self).__module__:
            return found

        def report(kind, text):
            reports.append([type(self).bl_idname, *kind, text])
            found(kind, text)

        return report

    bpy.types.Operator.__getattribute__ = get


def operators() -> list[str]:
    """All that the extension has registered."""
    return [one.bl_idname for one in own_classes() if issubclass(one, bpy.types.Operator)]


def colour(chosen: Iterable[tuple[str, int]] = ()) -> Callable[[], list[dict]]:
    """Have everything drawn anew, with these in the colour of errors; gives what tells, once Blender has,
    which buttons that were."""
    coloured.clear()
    coloured.update(map(tuple, chosen))
    buttons.clear()
    shapes.clear()
    for region in popups:
        if region.type == "TEMPORARY":  # else it was closed, and another lies where it lay
            region.tag_refresh_ui()
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if region.type in ("UI", "HEADER") or area.type == "PREFERENCES":
                    region.tag_redraw()
    return drawn


def drawn() -> list[dict]:
    """The buttons that Blender has drawn since everything was coloured."""
    shape = zlib.crc32(repr(shapes).encode())
    return [
        {key: value for key, value in button.items() if key not in ("data", "properties")} | {"shape": shape}
        for noted in buttons.values()
        for button in noted
    ]


def drawers() -> Callable[[], list[str]]:
    """Have everything drawn anew; gives what tells which classes did, those without a button too."""
    colour()
    return lambda: list(buttons)


held: tuple | None = None
"""What a button sets, its name, what it was."""


def before(owner: str, number: int) -> Callable[[], bool]:
    """A button is about to be pressed, once Blender has drawn where the pointer is."""
    global held
    noted = buttons.get(owner, [])
    button, held = noted[number] if number < len(noted) else {}, None
    ran.clear()
    if "data" in button and not button["data"].is_property_readonly(button["name"]):
        value = getattr(button["data"], button["name"])
        if isinstance(value, (bool, int, float, str)):
            held = button["data"], button["name"], value
    return lambda: True


def after(closing: bool) -> Callable[[], dict]:
    """A button was pressed: what it set is put back, and where that is asked for, what it opened is closed.
    Gives what tells, once Blender has drawn, which operators ran, what was set, and what is drawn."""
    if closing:
        popups.clear()
        for other in bpy.context.window_manager.windows[1:]:
            with bpy.context.temp_override(window=other):
                bpy.ops.wm.window_close()
    if held is not None:
        data, name, value = held
        if getattr(data, name) != value:
            setattr(data, name, value)
            ran.append([f"{data.bl_rna.identifier}.{name}", "set"])
    colour()
    return lambda: {
        "ran": [name for name, how, *_ in ran if how == "set" or followed.get(name) in ("", how)],
        "drawn": drawn(),
    }
