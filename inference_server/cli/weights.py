"""`weights`: gets the model's weights, or those that finding poses in videos or measuring clips takes, or
checks what is there."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shared.fetching import Fetched
from shared.sentences import complain

from ..poseanything.checkpoints import CheckpointError, default_folder
from ..poseanything.checkpoints.weights import check, describe, download, fetch_sources

if TYPE_CHECKING:
    from ..poseanything.checkpoints.hub import Progress


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "weights",
        help="get the model's weights, or check those that are there",
        description="The model's weights; with xpose, those of the stages that find poses in videos; with"
        " evaluation, those of the networks that clips are measured by.",
        usage="%(prog)s [xpose | evaluation] [FOLDER] [options]",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[xpose | evaluation] [FOLDER]",
        help=f"where they go (the networks of evaluation: into torch's cache); default: {default_folder()}",
    )
    parser.add_argument(
        "--list", action="store_true", help="say which files are looked for, where, and get nothing"
    )
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="check the weights in a folder, and get nothing"
    )
    parser.add_argument(
        "--progress", action="store_true", help="print how far it is, as lines of JSON, for other programs"
    )
    parser.add_argument(
        "--tiktok", action="store_true", help="also get the release's weights for dancing people"
    )
    parser.add_argument(
        "--stages",
        nargs="+",
        metavar="NAME",
        help="with xpose: of these stages only, such as grounded sam3; default: the paper's",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """The status is 0 when the weights are there (or were only listed), else 1."""
    words = list(args.words)
    for_evaluation = words == ["evaluation"]
    for_xpose = words[:1] == ["xpose"]
    rest = words[1:] if for_xpose else words
    folder = Path(rest[0]) if rest else default_folder()
    try:
        if len(rest) > 1:
            raise CheckpointError(f"Name one folder, not {' and '.join(rest)}.")
        if for_evaluation:
            _for_evaluation(args)
        elif for_xpose:
            _for_xpose(args, folder)
        elif args.list:
            print(describe(folder))
        elif args.check is not None:
            check(args.check)
        else:
            download(folder, tiktok=args.tiktok, progress=print_progress() if args.progress else None)
    except CheckpointError as error:
        complain(error)
        return 1
    return 0


def _for_evaluation(args: argparse.Namespace) -> None:
    from ..evaluation.networks import describe, fetch

    print(describe()) if args.list else fetch()


def print_progress(pause: float = 0.25) -> Progress:
    """Prints each `Fetched` as a line, `pause` seconds apart at least; each change of stage or file at
    once."""
    last = ("", "", 0.0)

    def progress(stage: str, file: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if (stage, file) != last[:2] or now - last[2] >= pause or done == total:
            last = (stage, file, now)
            print(Fetched(stage, file, done, total).to_line(), flush=True)

    return progress


def _for_xpose(args: argparse.Namespace, folder: Path) -> None:
    from ..xpose.models import FOLDER, MODELS, OF_THE_PAPER, describe_models

    names = args.stages or (list(MODELS) if args.list else OF_THE_PAPER)
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise CheckpointError(
            f"No stage of xpose that has weights is named {unknown[0]!r}; there are {', '.join(MODELS)}."
        )
    target = folder / FOLDER
    if args.list:
        print(describe_models(names, target))
        return
    fetch_sources([model.source for name in names for model in MODELS[name] if model.source], target)
    by_hand = [model for name in names for model in MODELS[name] if model.by_hand]
    for model in by_hand:
        if not any((target / model.folder).glob("*")):
            print(f"{target / model.folder} is still empty. {model.by_hand}")
