"""The arrows between the packages: all run toward `shared`, and none of the heavy libraries reaches
Blender."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STANDARD = set(sys.stdlib_module_names)
BLENDER = {
    "addon_utils",
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
    assert not offences("blender_addon", STANDARD | BLENDER | {"numpy", "msgpack", "zmq"})


def test_the_server_never_meets_blender():
    assert not offences("inference_server", forbidden={"bpy", "bmesh", "mathutils", "blender_addon"})


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
