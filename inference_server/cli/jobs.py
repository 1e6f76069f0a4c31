"""List the jobs that a server has."""

from __future__ import annotations

import argparse
import sys

from shared.messages import JobStatus

from .remote import RemoteError, add_server_argument, connect
from .tables import ago, as_json, as_table


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("jobs", help="list a server's jobs", description=__doc__)
    add_server_argument(parser)
    parser.add_argument("--json", action="store_true", help="print them as lines of JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        with connect(args.server) as server:
            status = server.status()
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        for job in status.jobs:
            print(as_json(job, indent=None))
    else:
        head = ["JOB", "USER", "ENGINE", "STATE", "FRAMES", "SIZE", "SUBMITTED", "ABOUT"]
        print(as_table(head, list(map(_row, status.jobs))) or "The server has no jobs.")
        if status.more:
            print(f"... and {status.more} more")
    return 0


def _row(job: JobStatus) -> list[str]:
    state = f"{job.state}, {job.position} before" if job.state == "waiting" else job.state
    frames = f"{job.frames} of {job.num_frames}" if job.num_frames else str(job.frames)
    picture = f"{job.width} x {job.height}" if job.width else ""
    about = job.note if job.state == "failed" else job.prompt
    return [job.job or "(another's)", job.user, job.engine, state, frames, picture, ago(job.submitted), about]
