"""`extract`: a LoRA of what one checkpoint changes in another of the same shapes, such as a step-distilled
model in the plain one that it was made from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..poseanything.checkpoints import CheckpointError
from ..poseanything.checkpoints.extraction import RANK, extract
from .progress_line import ProgressLine


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "extract", help="make a LoRA of what one checkpoint changes in another", description=__doc__
    )
    parser.add_argument("changed", type=Path, help="the transformer that was trained further, as FastWan")
    parser.add_argument("plain", type=Path, help="the one that it was made from, plain Wan2.2-TI2V-5B")
    parser.add_argument("target", type=Path, help="the new .safetensors file, in the weights' folder loras")
    parser.add_argument("--rank", type=int, default=RANK, help="of the pairs (%(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        with ProgressLine(sys.stdout) as line:
            made = extract(
                args.changed,
                args.plain,
                args.target,
                rank=args.rank,
                progress=lambda done, total: line(f"{done} of {total} tensors"),
            )
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{args.target}: {made.pairs} pairs of rank {args.rank} and {made.whole} whole differences,"
        f" {made.kept:.1%} of what changes."
    )
    return 0
