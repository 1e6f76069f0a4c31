"""`convert`: a checkpoint rewritten under the other names, every tensor bit for bit as it was."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "convert", help="rewrite a checkpoint in the release's format or in diffusers'"
    )
    parser.add_argument(
        "source", type=Path, help="a file or folder: the transformer, the VAE or the text encoder"
    )
    parser.add_argument(
        "target", type=Path, help="the new folder (for Wan's VAE and text encoder the .pth file)"
    )
    parser.add_argument("--to", choices=("official", "diffusers"), required=True)
    return parser


def run(args: argparse.Namespace) -> int:
    from ..poseanything.checkpoints import CheckpointError
    from ..poseanything.checkpoints.conversion import convert

    try:
        component = convert(args.source, args.target, args.to)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The {component.what} is in {args.target}.")
    return 0
