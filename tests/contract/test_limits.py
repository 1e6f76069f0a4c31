"""Nothing waits for another process without a limit: one that hangs is told of, not waited for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = {"run", "call", "check_call", "check_output"}


def waits(tree: ast.AST) -> Iterator[ast.AST]:
    """What waits until another process ends, or says something, for as long as that takes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, ast.unparse(node.func.value)
            limited = any(keyword.arg == "timeout" for keyword in node.keywords)
            runs = (owner == "subprocess" and name in RUN) or name == "communicate"
            if (runs and not limited) or (name in ("read", "readline") and owner.endswith(".stdout")):
                yield node
        elif isinstance(node, (ast.For, ast.comprehension)) and ast.unparse(node.iter).endswith(".stdout"):
            yield node


def test_it_finds_what_waits():
    lines = [
        "subprocess.run(words, check=True)",
        "process.communicate()",
        "process.stdout.readline()",
        "for line in process.stdout: pass",
    ]
    assert all(len(list(waits(ast.parse(line)))) == 1 for line in lines)
    assert not list(waits(ast.parse("subprocess.run(words, timeout=60)")))


def test_no_process_is_waited_for_without_a_limit():
    download = ROOT / "blender_addon/connection/weights.py"  # takes hours, in a thread of its own
    found = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)[:80]}"
        for house in ("tests", "inference_server", "shared", "blender_addon")
        for path in (ROOT / house).rglob("*.py")
        if path != download
        for node in waits(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)
