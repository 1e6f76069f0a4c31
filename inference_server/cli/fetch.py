"""Fetch the frames of a job that a server has made, also while it makes the rest.

The job stays as it is: Blender, or whoever asked for it, still gets all of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shared.messages import JobStatus

from .output import open_output
from .remote import Remote, RemoteError, add_server_argument, connect, picture_of

UNKNOWN_RATE = 24.0


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("fetch", help="fetch a job's frames from a server", description=__doc__)
    add_server_argument(parser)
    parser.add_argument("job", metavar="JOB", help="as the command jobs lists it")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="CLIP", help="a new .mp4, or a new folder for PNGs"
    )
    parser.add_argument("--wait", action="store_true", help="wait until the job is done")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        with connect(args.server) as server:
            job = _find(server, args.job)
            if args.wait:
                server.until(
                    lambda: _find(server, args.job).state not in ("waiting", "running"), 1.0, float("inf")
                )
                job = _find(server, args.job)
            if not job.frames:
                raise RemoteError(f"{args.job!r} has no frames yet; add --wait, or try again later.")
            with open_output(args.output, job.fps or UNKNOWN_RATE) as write:
                for frame in server.frames(job.job, job.frames):
                    write(picture_of(frame))
    except (RemoteError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was kept here.", file=sys.stderr)
        return 130
    count = f"{job.frames} frames" if job.state == "done" else f"{job.frames} of {job.num_frames} frames"
    print(f"{args.output}: {count}, {job.state}. {job.note}".rstrip())
    return 0


def _find(server: Remote, name: str) -> JobStatus:
    for job in server.status().jobs:
        if job.job == name:
            return job
    raise RemoteError(f"You have no job {name!r} there; the command jobs lists them.")
