"""`evaluate`: engines, or folders of clips, against the truth of a data set: JSON, a table and a page of
sheets."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

SHEETS = 24


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help="measure clips against the truth", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="a data set with truth")
    parser.add_argument("--split", default="test", choices=("test", "validation", "train", "all"))
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures and the page")
    parser.add_argument(
        "--engine", action="append", default=[], help="may be repeated; the first is compared"
    )
    parser.add_argument(
        "--clips",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="clips that are there; repeatable",
    )
    parser.add_argument("--examples", type=int, help="at most so many; default: all")
    parser.add_argument("--steps", type=int, help="denoising steps of neural engines")
    return parser


def run(args: argparse.Namespace) -> int:
    from ..engines import find_engine
    from ..engines.base import EngineError
    from ..evaluation.run import (
        draw_sheet,
        evaluate,
        first_frame,
        from_engine,
        from_folder,
        summarise,
        table,
        write_page,
    )
    from ..training.dataset import read_examples
    from ..training.errors import TrainingError

    sheets, rows = [], []
    try:
        sources = {name: from_engine(find_engine(name)(), args.steps) for name in args.engine}
        sources |= {folder.name: from_folder(folder) for folder in args.clips}
        sources["first frame repeated"] = first_frame
        examples = read_examples(args.data, None if args.split == "all" else args.split)
        args.output.mkdir(parents=True, exist_ok=True)
        for example, clips, measures in evaluate(
            itertools.islice(examples, args.examples), sources, _progress
        ):
            rows.append(measures)
            if len(sheets) < SHEETS:
                name = f"{example.request.job}.png"
                draw_sheet(example, clips, args.output / name)
                sheets.append((name, ["truth", *clips]))
    except (EngineError, TrainingError, LookupError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    if not rows:
        print(f"{args.data} has no example of the split {args.split}; choose another.", file=sys.stderr)
        return 1
    summary = summarise(rows)
    write_page(args.output, summary, sheets)
    print(f"\n{table(summary)}\nThe page is {args.output / 'index.html'}.")
    return 0


def _progress(done: int) -> None:
    print(f"\r{done} clips", end="", file=sys.stderr, flush=True)
