"""The console scripts that an installation puts on the path: `poseanything-server` and others."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from . import COMMANDS, main


def server() -> int:
    """`poseanything-server [COMMAND]`: any command of the command line; without one, `serve`."""
    words = sys.argv[1:]
    named = any(word in COMMANDS for word in words[:1]) or words[:1] in (["-h"], ["--help"])
    return main(words if named else ["serve", *words], "poseanything-server")


def generate() -> int:
    """`poseanything-generate`: the command `generate` as a program of its own."""
    return _run_alone("generate")


def synthesise() -> int:
    """`poseanything-synthesise`: the command `synthesise` as a program of its own."""
    return _run_alone("synthesise")


def train() -> int:
    """`poseanything-train`: the command `train` as a program of its own."""
    return _run_alone("train")


def evaluate() -> int:
    """`poseanything-evaluate`: the command `evaluate` as a program of its own."""
    return _run_alone("evaluate")


def xpose() -> int:
    """`poseanything-xpose`: the command `xpose` as a program of its own."""
    return _run_alone("xpose")


class _Program:
    """Stands in for argparse's subparsers, so that a command's parser becomes a whole program's."""

    def __init__(self, name: str):
        self._name = name

    def add_parser(self, _command: str, *, help: str, **options) -> argparse.ArgumentParser:
        return argparse.ArgumentParser(self._name, **options)


def _run_alone(command: str) -> int:
    module = import_module(COMMANDS[command][0])
    parser = module.add_parser(_Program(f"poseanything-{command}"))
    return module.run(parser.parse_args()) or 0
