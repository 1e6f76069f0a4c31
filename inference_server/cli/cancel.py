"""End jobs, waiting or running. What a job has made is dropped with it."""

from __future__ import annotations

import argparse
import sys

from shared.messages import Cancel

from .remote import RemoteError, add_server_argument, connect


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("cancel", help="end jobs of a server", description=__doc__)
    add_server_argument(parser)
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="as the command jobs lists them")
    return parser


def run(args: argparse.Namespace) -> int:
    failed = False
    try:
        with connect(args.server) as server:
            states = {job.job: job.state for job in server.status().jobs}
            for name in args.jobs:
                if states.get(name) in ("waiting", "running"):
                    server.send(Cancel(job=name))
                    server.until(
                        lambda name=name: name not in {job.job for job in server.status().jobs}, timeout=60.0
                    )
                    print(f"{name}: cancelled")
                    continue
                failed = True
                if name in states:
                    print(f"{name} has ended ({states[name]}); there is nothing to cancel.", file=sys.stderr)
                else:
                    print(f"You have no job {name!r} there; the command jobs lists them.", file=sys.stderr)
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0
