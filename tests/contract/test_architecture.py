"""The arrows between the packages: all run toward `shared`, and none of the heavy libraries reaches
Blender."""

from __future__ import annotations

import ast
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STANDARD = set(sys.stdlib_module_names)
BLENDER = {
    "addon_utils",
    "bl_operators",
    "bl_ui",
    "aud",
    "bl_math",
    "blf",
    "bmesh",
    "bpy",
    "bpy_extras",
    "gpu",
    "gpu_extras",
    "idprop",
    "imbuf",
    "mathutils",
}


def imports(path: Path):
    """(line, top-level package) of everything a file imports absolutely, by statement or by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "find_spec") and isinstance(node.args[0].value, str):
                names = [name for name in [node.args[0].value] if not name.startswith(".")]
        for name in names:
            yield node.lineno, name.split(".")[0]


def offences(package: str, allowed: set[str] | None = None, forbidden: set[str] = frozenset()):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} holds no code"
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name in forbidden or (allowed is not None and name not in allowed)
    ]


def test_shared_needs_the_standard_library_numpy_and_msgpack_alone():
    assert not offences("shared", STANDARD | {"numpy", "msgpack"})


def test_the_extension_needs_what_blender_and_its_wheels_bring_alone():
    assert not offences("blender_addon", STANDARD | BLENDER | {"numpy", "msgpack", "zmq", "send2trash"})


def test_the_server_never_meets_blender():
    assert not offences("inference_server", forbidden={"bpy", "bmesh", "mathutils", "blender_addon"})


@pytest.mark.parametrize("room", ["connection", "takes"])
def test_what_threads_touch_never_meets_blender(room):
    assert not offences(f"blender_addon/{room}", forbidden=BLENDER)


def modules_of(package: Path) -> dict[str, Path]:
    """The dotted name, from the package on, of each of its files."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def _running(node: ast.AST):
    """Everything below a node, but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from _running(child)


def arrows_of(package: Path) -> dict[str, set[str]]:
    """Which modules of a package each of its modules imports, anywhere in it."""
    modules = modules_of(package)
    arrows: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        home = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in _running(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                wanted = [[alias.name] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = home[: len(home) - node.level + 1] if node.level else []
                source = ".".join([*base, *([node.module] if node.module else [])])
                wanted = [[f"{source}.{alias.name}", source] for alias in node.names]
            else:
                continue
            for names in wanted:
                found = next((each for each in names if each in modules), name)
                if found != name:
                    arrows[name].add(found)
    return arrows


def circles_in(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other."""

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for target in arrows.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reach = {node: reached(node) for node in arrows}
    circles = []
    for node in arrows:
        circle = {other for other in reach[node] if node in reach.get(other, ())}
        if circle and circle not in circles:
            circles.append(circle)
    return circles


@pytest.mark.parametrize("package", ["shared", "blender_addon", "inference_server"])
def test_no_module_needs_itself_to_be_there_first(package):
    assert not circles_in(arrows_of(ROOT / package))


def room_of(module: str) -> str:
    """The part of a package that a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


EXTENSION = (
    {"buttons", "errors", "handlers", "path_options", "steps", "texts", "threads", "times"},
    {"takes", "view"},
    {"connection"},
    {"rig", "sequencer", "preferences", "engine_settings"},
    {"ground_truth", "session", "camera"},
    {"settings", "examples"},
    {"request", "kept_paths"},
    {"control", "live"},
    {"operators"},
    {"ui"},
    {""},
)
"""The extension's rooms from the ground up; each needs only what lies below it, and `shared` is below all."""


def test_no_arrow_of_the_extension_runs_up():
    level = {room: number for number, rooms in enumerate(EXTENSION) for room in rooms}
    up = [
        f"{source} imports {target}"
        for source, targets in arrows_of(ROOT / "blender_addon").items()
        for target in targets
        if room_of(source) != room_of(target) and level[room_of(target)] >= level[room_of(source)]
    ]
    assert not up


LIBRARY_ALONE = ("poseanything*",)
DATA = (*LIBRARY_ALONE, "datasets*")
SERVER = {
    "poseanything": (),
    "engines": LIBRARY_ALONE,
    "worker": ("", "engines", "engines.base"),
    "broker": ("", "engines", "engines.base"),
    "datasets": LIBRARY_ALONE,
    "evaluation": (*DATA, "engines.base"),
    "synthesis": (*DATA, "engines.base", "engines.draft*"),
    "training": (*DATA, "synthesis*", "evaluation*"),
    "xpose": (*DATA, "engines.base"),
    "cli": ("*",),
    "__main__": ("cli",),
    "": (),
}
"""What each room of the server may need of the others, `shared` apart."""


def test_the_arrows_of_the_server():
    wrong = [
        f"{source} imports {target}"
        for source, targets in arrows_of(ROOT / "inference_server").items()
        for target in targets
        if room_of(source) != room_of(target)
        and not any(fnmatch(target.partition(".")[2], allowed) for allowed in SERVER[room_of(source)])
    ]
    assert not wrong


@pytest.mark.parametrize(
    "files, circles",
    [
        ({"a.py": "from . import b", "b.py": "from .c import x", "c.py": "x = 1"}, 0),
        ({"a.py": "from . import b", "b.py": "def later():\n    from .a import x"}, 1),
        ({"a.py": "from .deep import b", "deep/__init__.py": "", "deep/b.py": "from .. import a"}, 1),
    ],
)
def test_circles_are_found_wherever_they_hide(files, circles, tmp_path):
    package = tmp_path / "package"
    for name, source in {"__init__.py": "", **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    assert len(circles_in(arrows_of(package))) == circles


@pytest.mark.parametrize(
    "source, found",
    [
        ("import torch.nn as nn", ["torch"]),
        ("def later():\n    from cv2 import imread", ["cv2"]),
        ("import importlib\nimportlib.import_module('bpy')", ["importlib", "bpy"]),
        ("__import__('inference_server.broker')", ["inference_server"]),
        ("from ..shared import wire\nfrom . import pose", []),
    ],
)
def test_imports_are_found_wherever_they_hide(source, found, tmp_path):
    file = tmp_path / "code.py"
    file.write_text(source)
    assert [name for _, name in imports(file)] == found


LIBRARY = ROOT / "inference_server" / "poseanything"
UNPROMISED = {  # modules below what their library documents, whose names may move with any release
    "diffusers.models.attention_dispatch",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.models.transformers.transformer_wan",
    "diffusers.modular_pipelines.modular_pipeline",
    "diffusers.pipelines.wan.pipeline_wan",
    "diffusers.quantizers.gguf.utils",
    "huggingface_hub.file_download",
    "torch.nn.attention.varlen",
}


def private_imports(path: Path):
    """(line, name) of what a file imports that torch, diffusers or the hub's client keep private."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                words = [*node.module.split("."), alias.name]
                private = any(word.startswith("_") for word in words[1:]) or node.module in UNPROMISED
                if private and words[0] in ("torch", "diffusers", "huggingface_hub"):
                    yield node.lineno, ".".join(words)


def test_private_names_of_other_libraries_are_imported_in_one_place():
    found = {path: list(private_imports(path)) for path in (ROOT / "inference_server").rglob("*.py")}
    inside = {path for path, names in found.items() if names and LIBRARY / "compat" in path.parents}
    outside = {path: names for path, names in found.items() if names and path not in inside}
    assert inside and not outside
