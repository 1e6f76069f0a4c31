"""Which texts the extension shows, read off the sources of both sides and off what it registers in Blender.

    python -m tests.addon.texts

prints those that a language lacks, and those that it has and nobody shows any more.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "blender_addon"
SERVER = (
    "shared",
    "inference_server/broker",
    "inference_server/cli/serve.py",
    "inference_server/worker",
    "inference_server/engines",
    "inference_server/poseanything",
    "inference_server/xpose/finder.py",
    "inference_server/xpose/models.py",
    "inference_server/xpose/segments.py",
    "inference_server/xpose/stages.py",
    "inference_server/xpose/skeletons/carried.py",
    "inference_server/xpose/subjects",
)
"""Where sentences are formed that clients are told."""
SERVER_COMMANDS = {
    "inference_server/poseanything/checkpoints/conversion.py",
    "inference_server/poseanything/checkpoints/extraction.py",
    "inference_server/poseanything/conditioning/files.py",
}
"""What of these speaks to who runs commands."""
COMMAND_LINE = {
    "examples/backgrounds.py",
    "examples/contact_sheet.py",
    "examples/demo.py",
    "examples/synthesise.py",
}
"""What runs without a window, or is said to a model."""
SAYS = {"say": 0, "tell": 0, "Finding": 0, "setting": 0, "paragraph": 2, "poll_message_set": 0, "report": 1}
"""Functions whose argument of this number is shown."""
LABELS = {
    "Finding": 2,
    "setting": 1,
    "Button": 1,
    "sets": 0,
    "sets_of": 0,
    "_setting_of": 1,
    "_setting_of_camera": 2,
}
"""The same for the labels of buttons."""
MESSAGE_FIELDS = {"message", "note", "reason"}
KEYWORDS = {"text", "heading", "placeholder", "confirm_text", "label"}


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    named = ((path.relative_to(SOURCE).as_posix(), path) for path in sorted(SOURCE.rglob("*.py")))
    return tuple(
        (name, ast.parse(path.read_text(encoding="utf-8")))
        for name, path in named
        if name not in COMMAND_LINE and not name.startswith("texts/")
    )


@cache
def server_modules() -> tuple[tuple[str, ast.Module], ...]:
    paths = [path for place in SERVER for path in sorted((ROOT / place).rglob("*.py")) or [ROOT / place]]
    named = ((path.relative_to(ROOT).as_posix(), path) for path in paths)
    return tuple(
        (name, ast.parse(path.read_text(encoding="utf-8")))
        for name, path in named
        if name not in SERVER_COMMANDS
    )


@cache
def server_errors() -> frozenset[str]:
    """The names of the errors whose text clients are told."""
    classes = {
        node.name: {ast.unparse(base) for base in node.bases}
        for _, tree in server_modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    told = {"SentenceError", "Dropped"}
    while more := {name for name, bases in classes.items() if bases & told} - told:
        told |= more
    return frozenset(told)


def told_leaves(tree: ast.Module) -> Iterator[ast.expr]:
    """What a server's sentences for clients may be made of."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, []).append(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):  # over a table of templates
            table = assigned.get(ast.unparse(node.iter).removesuffix(".items()"), [])
            values = [value for each in table if isinstance(each, ast.Dict) for value in each.values]
            assigned.setdefault(ast.unparse(node.target.elts[-1]), []).extend(values)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        told = node.args[:1] if name == "say" or name in server_errors() else []
        named = MESSAGE_FIELDS | ({"label"} if name == "declare" else set())
        fields = [keyword.value for keyword in node.keywords if keyword.arg in named]
        for leaf in (leaf for each in told + fields for leaf in leaves(each)):
            yield from assigned.get(leaf.id, []) if isinstance(leaf, ast.Name) else [leaf]


def shown_nodes(tree: ast.Module) -> Iterator[ast.expr]:
    """What stands where texts stand that are shown."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = node.exc.func.id if isinstance(node.exc.func, ast.Name) else ""
            if name.endswith("Error") and name not in ("RuntimeError", "ValueError", "MessageError"):
                yield node.exc.args[0]
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for table in (SAYS, LABELS):
            if name in table and len(node.args) > table[name]:
                yield node.args[table[name]]
        hidden = any("HIDDEN" in ast.unparse(keyword.value) for keyword in node.keywords)
        shown = KEYWORDS | ({"name", "description"} if name.endswith("Property") and not hidden else set())
        yield from (keyword.value for keyword in node.keywords if keyword.arg in shown)
        yield from node.args[:2] if name == "_fraction" else node.args[1:3] if name == "_choice" else ()


def leaves(node: ast.expr) -> Iterator[ast.expr]:
    """The values that an expression may have, through its conditions."""
    if isinstance(node, ast.IfExp):
        yield from leaves(node.body)
        yield from leaves(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from leaves(value)
    else:
        yield node


def glued() -> list[str]:
    """Where a text that is shown is put together of pieces."""
    told = [(name, leaf) for name, tree in server_modules() for leaf in told_leaves(tree)]
    shown = [(name, leaf) for name, tree in modules() for node in shown_nodes(tree) for leaf in leaves(node)]
    found = [
        f"{name}:{leaf.lineno}: {ast.unparse(leaf)[:80]}" for name, leaf in told + shown if _is_glued(leaf)
    ]
    for name, tree in modules():
        logged = _logged(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and _sentence(node) and id(node) not in logged:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)[:80]}")
    return sorted(set(found))


def _is_glued(leaf: ast.expr) -> bool:
    joined = isinstance(leaf, ast.JoinedStr) and _words(leaf)
    added = (
        isinstance(leaf, ast.BinOp)
        and isinstance(leaf.op, (ast.Add, ast.Mod))
        and any(
            isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (leaf.left, leaf.right)
        )
    )
    called = (
        isinstance(leaf, ast.Call)
        and isinstance(leaf.func, ast.Attribute)
        and leaf.func.attr in ("format", "lower", "capitalize", "join")
        and isinstance(leaf.func.value, ast.Constant)
    )
    return joined or added or called


def unshown() -> list[str]:
    """Where a report is not in the user's language: Blender translates everything else that is shown."""
    return [
        f"{name}:{leaf.lineno}: {ast.unparse(leaf)[:80]}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "report" and len(node.args) == 2
        for leaf in leaves(node.args[1])
        if not (isinstance(leaf, ast.Call) and getattr(leaf.func, "id", "") in ("tell", "shown"))
    ]


def _words(node: ast.JoinedStr) -> bool:
    text = "".join(value.value for value in node.values if isinstance(value, ast.Constant))
    return any(letter.isalpha() for letter in text)


def _sentence(node: ast.JoinedStr) -> bool:
    """Whether it reads as a sentence rather than as a name."""
    text = "".join(value.value for value in node.values if isinstance(value, ast.Constant))
    return any(isinstance(v, ast.FormattedValue) for v in node.values) and len(text.split()) > 2


def _logged(tree: ast.Module) -> set[int]:
    """The nodes of what goes to the console."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("print", "log."))
        for inner in ast.walk(node)
    }


def spoken() -> dict[str, str]:
    """Each text in the extension's source that is shown, by where it stands."""
    return _constants(
        (name, leaf) for name, tree in modules() for node in shown_nodes(tree) for leaf in leaves(node)
    )


def told() -> dict[str, str]:
    """Each sentence in the server's source that clients are told, by where it stands."""
    return _constants((name, leaf) for name, tree in server_modules() for leaf in told_leaves(tree))


def _constants(nodes: Iterable[tuple[str, ast.expr]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _to_translate(node.value):
            texts.setdefault(node.value, f"{name}:{node.lineno}")
    return texts


def named(bpy) -> dict[str, str]:
    """Names and explanations of everything that the extension registers, and of what its engines describe."""
    texts: dict[str, str] = {}

    def note(text: str, where: str) -> None:
        if _to_translate(text):
            texts.setdefault(text, where)

    def properties(rna, owner: str) -> None:
        for prop in rna.properties:
            if prop.identifier in ("rna_type", "name") or prop.is_hidden:
                continue
            where = f"{owner}.{prop.identifier}"
            if prop.name != prop.identifier:
                note(prop.name, where)
            note(prop.description, where)
            for item in getattr(prop, "enum_items_static", ()) if prop.type == "ENUM" else ():
                note(item.name, where)
                note(item.description, where)

    for name in dir(bpy.types):
        if not name.startswith("POSEANYTHING_"):
            continue
        cls = getattr(bpy.types, name)
        if "_OT_" in name:
            rna = getattr(bpy.ops.poseanything, name.partition("_OT_")[2]).get_rna_type()
            note(rna.name, name)
            note(rna.description, name)
            properties(rna, name)
        else:
            note(getattr(cls, "bl_label", ""), name)
    for cls in bpy.types.PropertyGroup.__subclasses__():
        if "poseanything" in cls.__module__ and not cls.__name__.startswith("POSEANYTHING_PG"):
            properties(cls.bl_rna, cls.__name__)
    preferences = next(a for a in bpy.context.preferences.addons if a.module.endswith("poseanything_bridge"))
    properties(preferences.preferences.bl_rna, "preferences")
    return texts


def described() -> dict[str, str]:
    """What the engines that come with the server say of themselves."""
    from inference_server.engines import ENGINES, describe_engine

    texts: dict[str, str] = {}
    for name in ENGINES:
        engine = describe_engine(name)
        options = [*engine.options, *(one for guider in engine.guiders for one in guider.parameters)]
        every = [(part.label, "") for part in engine.weights] + [(engine.summary, engine.runs_on)]
        every += [(engine.label, "")] + [(option.group, "") for option in options]
        for about in (*engine.guiders, *engine.presets, *options):
            every.append((about.label, about.help))
        for option in options:
            every += [(choice.label, choice.help) for choice in option.choices]
        for text in (text for pair in every for text in pair if _to_translate(text)):
            texts.setdefault(text, f"the engine {name}")
    return texts


def _to_translate(text: str) -> bool:
    return any(letter.isalpha() for letter in text.replace("PoseAnything", "").replace("{", " "))


def places(text: str) -> list[str]:
    """The named places of a text, with how they are formatted."""
    return sorted(
        f"{name}!{conversion or ''}:{spec or ''}"
        for _, name, spec, conversion in string.Formatter().parse(text)
        if name is not None
    )


def main() -> None:
    import tests.addon.conftest as installed  # noqa: F401  installs the extension
    from tests.addon.servers import module

    every = told() | spoken() | named(installed.bpy) | described()
    for language, own in module("texts.translation").LANGUAGES.items():
        lacking = {text: where for text, where in every.items() if text not in own}
        print(f"{language}: {len(every) - len(lacking)} of {len(every)} texts")
        for text, where in lacking.items():
            print(f"  lacks {text!r} ({where})")
        for text in {key for key in own if isinstance(key, str)} - every.keys():
            print(f"  is not shown any more: {text!r}")


if __name__ == "__main__":
    main()
