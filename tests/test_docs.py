"""What the documentation says is there: pages, pictures, headings, commands."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pytest

import build
from inference_server.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
PAGES = [*GUIDES, *sorted((ROOT / "tests").rglob("README.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The fragments that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in re.findall(r"\]\(<?([^)\s>]+)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors_of(target)):
            dead.append(link)
    return dead


@every_page
def test_every_link_leads_somewhere(page):
    assert not dead_links(page)


def test_dead_links_are_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[1](there.md) [2](there.md#a-heading-with-code) [3](#here) ![4](gone.png) [5](there.md#gone)\n"
        "[6](https://example.org/gone)\n\n# Here\n\n```\n[7](in-code.md)\n```\n"
    )
    assert dead_links(page) == ["gone.png", "there.md#gone"]


def test_the_site_has_every_page():
    settings = (ROOT / ".mkdocs.yml").read_text()
    listed = re.findall(r"^ +- .+: (\S+\.md)$", settings, re.MULTILINE)
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(there)


def commands_in(page: Path, program: str) -> list[str]:
    """What follows a program's name in the blocks of code that are indented."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    lines = re.findall(rf"^ {{4,}}(?:[^#\n]*\s)?{program}(.*)$", text, re.MULTILINE)
    return sorted({line.partition("  #")[0].strip() for line in lines})


def every_command(program: str):
    lines = {line for page in PAGES for line in commands_in(page, program)}
    return pytest.mark.parametrize("line", sorted(lines), ids=lambda line: line[:44])


def parse(words: list[str]) -> None:
    """Exits where the server's command line has no such option."""
    module, _ = COMMANDS[words[0]]
    if module.startswith("inference_server.poseanything"):
        pytest.importorskip("torch")
    parser = argparse.ArgumentParser()
    import_module(module).add_parser(parser.add_subparsers())
    parser.parse_args(words)


@every_command(r"python build\.py ")
def test_every_command_is_one(line):
    words = shlex.split(line)
    arguments = build.parse(words)
    if words[0] == "test":
        assert all((ROOT / word).exists() for word in arguments.pytest if "/" in word)
    if words[0] in build.SERVER_COMMANDS:
        parse([words[0], *arguments.server])


@every_command(r"(?:poseanything-(?!bridge)|-m inference_server )")
def test_every_command_of_the_server_is_one(line):
    words = shlex.split(line)
    if words[0] == "server":
        words = words[1:] if words[1:] and words[1] in COMMANDS else ["serve", *words[1:]]
    parse(words)


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_files_that_are_named_exist(page):
    named = re.findall(
        r"`((?:shared|blender_addon|inference_server|tests|docs|\.github)/[\w./-]+)`", page.read_text()
    )
    assert not [name for name in named if not (ROOT / name).exists() and "*" not in name]


def test_the_memory_that_is_told_is_the_planners():
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from inference_server.poseanything.runtime.card import GIB, Card
    from inference_server.poseanything.runtime.placement import plan
    from inference_server.poseanything.runtime.requirements import ModelSizes, Shape

    def planned(gib: int):
        free = int((gib - 0.75) * GIB)
        card = Card("card", torch.device("cuda"), free, 60 * GIB, total_bytes=gib * GIB)
        return plan(card, ModelSizes(), Shape(832, 480, 81))

    plans = {gib: planned(gib) for gib in (32, 24, 16, 12, 8)}
    assert f"{plans[32].peak_bytes / GIB:.1f} GiB" in (ROOT / "README.md").read_text()
    assert [plan.text_encoder for plan in plans.values()] == ["resident", *["streamed"] * 4]
    resident = [plan.resident_blocks for plan in plans.values()]
    assert resident[:2] == [30, 30] and 30 > resident[2] > resident[3] > resident[4] == 0
    assert all(plan.quantization is None and plan.fits for plan in plans.values())


def test_the_architecture_tells_of_every_room():
    told = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [
        path.parent
        for side in ("blender_addon", "inference_server")
        for path in (ROOT / side).glob("*/__init__.py")
    ]
    missing = [room for room in rooms if f"`{name_of(room)}/`" not in told and f"`{room.name}/`" not in told]
    assert rooms and not missing
