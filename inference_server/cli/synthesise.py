"""`synthesise`: a data set of examples with perfect truth, drawn in two dimensions or rendered by Blender."""

from __future__ import annotations

import argparse
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


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("synthesise", help="make a data set to train on", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set; more is added")
    parser.add_argument("--clips", type=int, default=1000, help="how many to draw; default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int, default=17, help="1 + 4 n; default: %(default)s")
    parser.add_argument(
        "--look", choices=LOOKS, default="trained", help="of the poses that are drawn; default: %(default)s"
    )
    parser.add_argument("--drafts", action="store_true", help="with the draft engine's frames, for a bridge")
    parser.add_argument("--rendered", type=Path, metavar="FOLDER", help="pack what Blender rendered instead")
    parser.add_argument(
        "--takes", type=Path, metavar="FOLDER", help="pack shots that were exported and rendered instead"
    )
    parser.add_argument(
        "--subject", default="character", help="who is seen in the takes; default: %(default)s"
    )
    parser.add_argument("--quality", type=int, default=101, help="of the frames, 1 to 100; 101 is lossless")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="a picture of the first examples as well")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser


def run(args: argparse.Namespace) -> int:
    from ..datasets.dataset import DatasetWriter, read_index

    if args.frames < 5 or args.frames % 4 != 1:
        print(f"A clip has 1 + 4 n frames, such as 17, not {args.frames}.", file=sys.stderr)
        return 2
    began, count, shown = time.monotonic(), 0, []
    source = "takes" if args.takes else "blender" if args.rendered else "synthesis 2d"
    try:
        with DatasetWriter(args.output, source, args.quality) as writer:
            for example in _examples(args):
                writer.add(example)
                count += 1
                if len(shown) < 12:
                    shown.append(example)
                if count % 20 == 0:
                    rate = count / (time.monotonic() - began)
                    print(f"{count} examples, {rate:.1f} a second", file=sys.stderr, flush=True)
        statistics = read_index(args.output).get("statistics", {})
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 1
    if args.sheet and shown:
        draw_sheet(shown, args.sheet)
    rate = count / max(time.monotonic() - began, 1e-9)
    print(f"{count} examples added, {rate:.2f} a second; {args.output} holds {statistics}")
    return 0


def _examples(args: argparse.Namespace) -> Iterator[Example]:
    if args.rendered:
        from ..synthesis.rendered import read_rendered

        yield from read_rendered(args.rendered)
        return
    if args.takes:
        from ..datasets.takes import read_takes

        yield from read_takes(args.takes, args.subject)
        return
    settings = ClipSettings(*args.size, args.frames, look=args.look)
    seeds = range(args.first_seed, args.first_seed + args.clips)
    # Spawned: a fork of a process with threads, as OpenCV's and torch's, may wait for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context, end_with_parent) as executor:
        jobs = [(seed, settings, args.drafts) for seed in seeds]
        yield from executor.map(_draw, jobs, chunksize=4)


def _draw(job: tuple[int, ClipSettings, bool]) -> Example:
    import dataclasses

    import cv2

    cv2.setNumThreads(1)
    seed, settings, with_draft = job
    example = make_clip(seed, settings)
    if with_draft:
        from ..synthesis.pool import draw_draft

        example = dataclasses.replace(example, draft=draw_draft(example))
    return example


def draw_sheet(examples: list[Example], path: Path) -> None:
    """A row for each example: four frames, each beside its pose and its labels."""
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
            if example.labels is not None:
                row.append(colours[example.labels[frame]])
        rows.append(np.concatenate(row, 1))
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])
