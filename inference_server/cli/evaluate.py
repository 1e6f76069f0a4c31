"""`evaluate`: engines, or folders of clips, against the truth of a data set: JSON, a table and a page of
sheets."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from .progress_line import ProgressLine
from .values import count

SHEETS = 24


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("evaluate", help="measure clips against the truth", description=__doc__)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, metavar="FOLDER", help="a data set with truth")
    data.add_argument(
        "--benchmark",
        nargs=2,
        metavar=("NAME", "FOLDER"),
        help="one of the paper's sets, tiktok or xpose, as published or in the release's layout; what the"
        " paper reports of it is printed beside",
    )
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
    parser.add_argument("--examples", type=count, help="at most so many; default: all")
    parser.add_argument("--steps", type=count, help="denoising steps of neural engines")
    return parser


def run(args: argparse.Namespace) -> int:
    from shared.schema import MessageError

    from ..datasets.dataset import read_examples
    from ..datasets.errors import DatasetError
    from ..engines import find_engine
    from ..engines.base import EngineError
    from ..evaluation.benchmarks import REPORTED, read_benchmark, reported_table
    from ..evaluation.networks import VideoDistance, absent_measures
    from ..evaluation.run import (
        draw_sheet,
        evaluate,
        first_frame,
        from_engine,
        from_folder,
        name_of,
        summarise,
        table,
        write_page,
    )

    benchmark = args.benchmark[0] if args.benchmark else None
    if benchmark is not None and benchmark not in REPORTED:
        print(f"There is no set {benchmark!r}; choose one of {', '.join(REPORTED)}.", file=sys.stderr)
        return 2
    if not args.engine and not args.clips:
        print("Nothing is measured; name an engine by --engine, or clips by --clips FOLDER.", file=sys.stderr)
        return 2
    sheets: list[tuple[str, list[str]]] = []
    rows = []
    distance = None if "fvd" in absent_measures() else VideoDistance()
    try:
        sources = {name: from_engine(find_engine(name)(), args.steps) for name in args.engine}
        sources |= {folder.name: from_folder(folder) for folder in args.clips}
        sources["first frame repeated"] = first_frame
        examples: Iterable
        if args.benchmark:
            examples = read_benchmark(*args.benchmark)
        else:
            examples = read_examples(args.data, None if args.split == "all" else args.split)
        args.output.mkdir(parents=True, exist_ok=True)
        chosen = itertools.islice(examples, args.examples)
        with ProgressLine() as line:
            counted = partial(_progress, line)
            for example, clips, measures in evaluate(chosen, sources, counted, distance):
                rows.append(measures)
                if len(sheets) < SHEETS:
                    name = f"{name_of(example)}.png"
                    draw_sheet(example, clips, args.output / name)
                    sheets.append((name, ["truth", *clips]))
    except (EngineError, DatasetError, LookupError, MessageError) as error:
        print(error, file=sys.stderr)
        return 1
    if not rows:
        of = f"{args.data} has no example of the split {args.split}" if args.data else "The set is empty"
        print(f"{of}; choose another.", file=sys.stderr)
        return 1
    summary = summarise(rows, distance)
    reported = reported_table(benchmark, summary) if benchmark else ""
    write_page(args.output, summary, sheets, reported)
    print(table(summary))
    if reported:
        print(f"\n{reported}")
    print(f"The page is {args.output / 'index.html'}.")
    return 0


def _progress(line: ProgressLine, done: int) -> None:
    line(f"{done} clips")
