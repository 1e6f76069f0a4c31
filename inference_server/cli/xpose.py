"""`xpose`: pose-video pairs from videos (paper section 3). `run` makes a data set of a folder of videos, and
goes on where it was killed; `report` writes its page; `review` takes up what was decided on that page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..datasets.errors import DatasetError
from ..xpose.checks import ClipSettings
from ..xpose.stages import STAGES, XPoseError
from ..xpose.subjects.selection import AREA_RULES
from .progress_line import ProgressLine
from .subject import add_subject, read_subject, subject_of
from .values import quality


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("xpose", help="make pose-video pairs of videos", description=__doc__)
    commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="make a data set of videos, or go on with it")
    run.add_argument("videos", type=Path, metavar="VIDEOS", help="a folder, or one video")
    run.add_argument("--output", type=Path, required=True, metavar="DATASET", help="folder of the data set")
    run.add_argument(
        "--layout", choices=("shards", "release"), default="shards", help="release: in its layout as well"
    )
    for kind, default in (("filter", "none"), ("subject", "flow"), ("skeleton", "medial")):
        names = ", ".join(["none"] * (kind == "filter") + list(STAGES[kind]))
        run.add_argument(
            f"--{kind}", default=default, help=f"{names}, or module:class of your own; default: %(default)s"
        )
    run.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KIND.NAME=VALUE",
        help="an option of a stage, such as skeleton.least_branch=0.08; may be repeated",
    )
    run.add_argument(
        "--area",
        choices=AREA_RULES,
        default="release",
        help="the subject's size: a box of at least 1/64 of the picture as in the release (the default), the "
        "paper's share of the picture within (0.2, 0.8), or any",
    )
    clips = ClipSettings()
    run.add_argument("--frames", type=int, default=clips.frames, help="of a clip; default: %(default)s")
    run.add_argument("--least-frames", type=int, default=clips.least_frames, help="default: %(default)s")
    run.add_argument("--longer-side", type=int, default=clips.longer_side, help="default: %(default)s")
    run.add_argument("--clips-per-video", type=int, default=0, help="the most; default: all")
    run.add_argument("--quality", type=quality, default=95, help="of the frames, 1 to 100; 101 is lossless")
    run.add_argument("--processes", type=int, default=0, help="default: the processor's cores")
    run.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="do the work on a Ray cluster, such as auto; its nodes need the videos under the same path",
    )
    add_subject(run.add_argument_group("the subject in a video's first frame"))
    run.add_argument(
        "--subjects",
        type=Path,
        metavar="FILE.json",
        help='what is said of each video, or of a clip: {"horse.mp4": {"box": [0.2, 0.3, 0.6, 0.9]}, '
        '"horse.mp4#0002": {"points": [[0.5, 0.4]]}, "*": {...}}',
    )
    report = commands.add_parser("report", help="write the page and the table of a data set")
    report.add_argument("dataset", type=Path, metavar="DATASET")
    review = commands.add_parser("review", help="take up what was rejected and accepted on the page")
    review.add_argument("dataset", type=Path, metavar="DATASET")
    review.add_argument("--decisions", type=Path, required=True, metavar="FILE", help="saved by the page")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        return {"run": _run, "report": _report, "review": _review}[args.action](args)
    except (XPoseError, DatasetError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    from ..datasets.release import write_beside_shards
    from ..xpose.pipeline import RunSettings
    from ..xpose.runner import run

    if args.frames % 4 != 1 or not 5 <= args.least_frames <= args.frames:
        raise XPoseError(
            "A clip has 1 + 4 n frames, such as 81, and at least 5, at most that many, are kept."
        )
    clips = ClipSettings(
        args.frames,
        args.least_frames,
        args.longer_side,
        clips_per_video=args.clips_per_video,
    )
    settings = RunSettings(
        clips,
        "" if args.filter == "none" else args.filter,
        args.subject,
        args.skeleton,
        _stage_options(args.option),
        args.area,
        args.quality,
    )
    said = _subjects(args)
    prompts = {video: read_subject(subject) for video, subject in said.items()}
    about = {**dataclasses.asdict(settings), "subjects": said, "version": 3}
    with ProgressLine() as line:
        told, processes = partial(_tell_counts, line), args.processes
        rates = run(
            args.videos, args.output, settings, prompts, about, processes, progress=told, ray=args.ray
        )
    if rates:
        print(f"Done in a second by one process: {rates} (look: videos, the rest: clips).")
    if args.layout == "release":
        write_beside_shards(args.output)
    _tell_report(args.output)
    return 0


def _subjects(args: argparse.Namespace) -> dict[str, dict]:
    said: dict[str, dict] = {}
    if args.subjects:
        try:
            said = json.loads(args.subjects.read_text(encoding="utf-8"))
            assert all(isinstance(subject, dict) for subject in said.values())
        except (OSError, ValueError, AttributeError, AssertionError) as error:
            raise XPoseError(f"{args.subjects} can't be read ({error}); write it as --help shows.") from error
    if own := subject_of(args):
        said["*"] = own
    return said


def _stage_options(words: Sequence[str]) -> dict[str, dict]:
    options: dict[str, dict] = {}
    for word in words:
        name, equals, text = word.partition("=")
        kind, dot, option = name.partition(".")
        if not (equals and dot) or kind not in STAGES:
            raise XPoseError(
                f"The option {word!r} is not written as KIND.NAME=VALUE, such as skeleton.smoothing=0.02."
            )
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options.setdefault(kind, {})[option] = value
    return options


def _tell_counts(line: ProgressLine, videos: int, kept: int, dropped: int) -> None:
    line(f"{videos} videos, {kept} clips kept, {dropped} dropped")


def _report(args: argparse.Namespace) -> int:
    _tell_report(args.dataset)
    return 0


def _tell_report(dataset: Path) -> None:
    from ..xpose.report import PAGE, write_report

    print(f"{dataset}: {write_report(dataset)}\nIts page is {dataset / PAGE}.")


def _review(args: argparse.Namespace) -> int:
    from ..xpose.report import review, write_report

    rejected, waiting = review(args.dataset, args.decisions)
    write_report(args.dataset)
    print(f"{args.dataset}: {rejected} clips are left out when it is read; their shards stay as they are.")
    if waiting:
        which = "1 that was dropped is" if waiting == 1 else f"{waiting} that were dropped are"
        print(f"{which} made all the same when the run goes on: give its command again.")
    return 0
