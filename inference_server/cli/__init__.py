"""The command line: `python -m inference_server COMMAND`.

A command is a module with `add_parser(subparsers)`, which adds and returns its parser, and `run(args)`, which
does the work and returns the exit status. Only the module of the command that was asked for is imported:
`serve` must not wait for torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "serve": ("inference_server.cli.serve", "answer requests of Blender"),
    "status": ("inference_server.cli.status", "show how a server is"),
    "jobs": ("inference_server.cli.jobs", "list a server's jobs"),
    "cancel": ("inference_server.cli.cancel", "end jobs of a server"),
    "fetch": ("inference_server.cli.fetch", "fetch a job's frames from a server"),
    "invite": ("inference_server.cli.invite", "let another computer use the server"),
    "keys": ("inference_server.cli.keys", "list and revoke invitations"),
    "generate": ("inference_server.cli.generate", "make a clip from files"),
    "weights": ("inference_server.cli.weights", "get the model's weights"),
    "synthesise": ("inference_server.cli.synthesise", "make a data set to train on"),
    "xpose": ("inference_server.cli.xpose", "make pose-video pairs of videos"),
    "evaluate": ("inference_server.cli.evaluate", "measure clips against the truth"),
    "train": ("inference_server.cli.train", "train a model"),
    "convert": ("inference_server.cli.convert", "change a checkpoint's format"),
    "extract": ("inference_server.cli.extract", "make a LoRA of a trained model"),
}


def main(arguments: Sequence[str] | None = None, program: str = "python -m inference_server") -> int:
    """Run one command; returns the exit status. `program` is what the user typed before the command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(program, description="PoseAnything Bridge, the server's side.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in arguments if not word.startswith("-")), None)
    command = None
    for name, (module, summary) in COMMANDS.items():
        if name == asked:
            command = import_module(module)
            command.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    parsed = parser.parse_args(arguments)
    return command.run(parsed) or 0
