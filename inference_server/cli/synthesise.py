"""`synthesise`: a data set of examples with perfect truth, drawn in two dimensions or rendered by Blender."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from shared.processes import end_with_parent

from ..datasets.errors import DatasetError
from ..datasets.examples import Example
from ..synthesis.clips import LOOKS, ClipSettings, make_clip
from .progress_line import ProgressLine
from .values import count, quality

SHOWN = 12
"""Examples on a sheet, at most."""
SHARD_BYTES = 32 << 20
"""Of a shard: what a run that is killed draws again."""
SMALLEST = 16
"""Pixels of a clip's side, at least."""


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("synthesise", help="make a data set to train on", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set; more is added")
    parser.add_argument("--clips", type=count, default=1000, help="how many to draw; default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--size", type=count, nargs=2, default=(128, 96), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int, default=17, help="1 + 4 n; default: %(default)s")
    parser.add_argument(
        "--look", choices=LOOKS, default="trained", help="of the poses that are drawn; default: %(default)s"
    )
    parser.add_argument("--drafts", action="store_true", help="with the draft engine's frames, for a bridge")
    parser.add_argument("--rendered", type=Path, metavar="FOLDER", help="pack what Blender rendered instead")
    parser.add_argument(
        "--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), help="of what was rendered; default: all"
    )
    parser.add_argument(
        "--subjects", nargs="+", default=(), metavar="NAME", help="of what was rendered; default: all"
    )
    parser.add_argument(
        "--takes", type=Path, metavar="FOLDER", help="pack shots that were exported and rendered instead"
    )
    parser.add_argument(
        "--subject", default="character", help="who is seen in the takes; default: %(default)s"
    )
    parser.add_argument(
        "--quality", type=quality, default=101, help="of the frames, 1 to 100; 101 is lossless"
    )
    parser.add_argument(
        "--layout", choices=("shards", "release"), default="shards", help="release: in its layout as well"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="a picture of the first examples as well")
    parser.add_argument("--processes", type=count, default=os.cpu_count() or 1)
    return parser


def run(args: argparse.Namespace) -> int:
    from ..datasets.dataset import DatasetWriter, read_examples, read_index
    from ..datasets.release import write_beside_shards

    if args.frames < 5 or args.frames % 4 != 1:
        print(f"A clip has 1 + 4 n frames, such as 17, not {args.frames}.", file=sys.stderr)
        return 2
    if args.size[0] < SMALLEST or args.size[1] < SMALLEST or args.size[0] % 2 or args.size[1] % 2:
        print(f"Width and height are even numbers of {SMALLEST} or more.", file=sys.stderr)
        return 2
    began, added, known, shown = time.monotonic(), 0, 0, []
    source = "takes" if args.takes else "blender" if args.rendered else "synthesis 2d"
    try:
        with DatasetWriter(args.output, source, args.quality, SHARD_BYTES) as writer, ProgressLine() as line:
            jobs = [] if args.rendered or args.takes else _jobs(args)
            missing = [job for job in jobs if _origin(job) not in writer.origins]
            known = len(jobs) - len(missing)
            for origin, example in _examples(args, missing):
                new = writer.add(example, origin)
                added, known = added + new, known + (not new)
                # Of a rendered scene there are several clips.
                again = args.rendered and shown and shown[-1].subject == example.subject
                if len(shown) < SHOWN and not again:
                    shown.append(example)
                told = f"{added + known} examples, {added / max(time.monotonic() - began, 1e-9):.1f} a second"
                line(told)
        statistics = read_index(args.output).get("statistics", {})
        if args.layout == "release":
            print(f"In the release's layout it is in {write_beside_shards(args.output)}.")
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    rate = added / max(time.monotonic() - began, 1e-9)
    did = "packed" if args.rendered or args.takes else "drawn"
    there = f", {known} were there" if known else ""
    print(f"{added} examples added{there}, {rate:.2f} a second {did}; {args.output} holds {statistics}")
    if args.sheet and not shown:
        shown = list(itertools.islice(read_examples(args.output), SHOWN))
    if args.sheet and shown and not draw_sheet(shown, args.sheet):
        print(
            f"{args.sheet} can't be written; name a .png in a folder that is there.",
            file=sys.stderr,
        )
        return 1
    return 0


Job = tuple[int, ClipSettings, bool]
"""A clip to be drawn: its seed, its settings, whether with a draft."""


def _jobs(args: argparse.Namespace) -> list[Job]:
    settings = ClipSettings(*args.size, args.frames, look=args.look)
    return [(args.first_seed + number, settings, args.drafts) for number in range(args.clips)]


def _origin(job: Job) -> str:
    seed, settings, with_draft = job
    size = f"{settings.width}x{settings.height}x{settings.num_frames}"
    return f"drawn {seed} {size} {settings.look}{' with draft' if with_draft else ''}"


def _examples(args: argparse.Namespace, jobs: list[Job]) -> Iterator[tuple[str, Example]]:
    """What is packed, or drawn by the jobs, each with its origin, which is empty for what is packed."""
    if args.rendered:
        from ..synthesis.rendered import read_rendered

        yield from (("", example) for example in read_rendered(args.rendered, args.seeds, args.subjects))
        return
    if args.takes:
        from ..datasets.takes import read_takes

        yield from (("", example) for example in read_takes(args.takes, args.subject))
        return
    if not jobs:
        return
    # Spawned: a fork of a process with threads, as OpenCV's and torch's, may wait for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context, end_with_parent) as executor:
        yield from zip(map(_origin, jobs), executor.map(_draw, jobs, chunksize=4))


def _draw(job: Job) -> Example:
    import dataclasses

    import cv2

    cv2.setNumThreads(1)
    seed, settings, with_draft = job
    example = make_clip(seed, settings)
    if with_draft:
        from ..synthesis.pool import draw_draft

        example = dataclasses.replace(example, draft=draw_draft(example))
    return example


def draw_sheet(examples: list[Example], path: Path) -> bool:
    """A row for each example: four frames, each beside its pose and its labels. Returns whether it could be
    written."""
    import cv2
    import numpy as np

    from shared.raster import draw_pose

    colours = np.random.default_rng(0).integers(60, 255, (256, 3)).astype(np.uint8)
    colours[0] = 0
    rows = []
    for example in examples:
        row = []
        for frame in np.linspace(0, len(example.frames) - 1, 4).astype(int):
            request = example.request
            pose = draw_pose(request.pose, frame, request.width, request.height)
            row += [example.frames[frame], np.repeat(pose[..., None], 3, 2)]
            labels = np.zeros(pose.shape, np.uint8) if example.labels is None else example.labels[frame]
            row.append(colours[labels])
        rows.append(np.concatenate(row, 1))
    width = rows[0].shape[1]  # shots may be of different sizes
    rows = [cv2.resize(row, (width, round(row.shape[0] * width / row.shape[1]))) for row in rows]
    try:
        return bool(cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]))
    except cv2.error:  # no kind of picture
        return False
