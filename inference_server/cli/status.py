"""Show how a server is: what its workers do, what memory they take, who is there."""

from __future__ import annotations

import argparse
import sys

from shared.messages import Status

from .remote import RemoteError, add_server_argument, connect
from .tables import as_json, as_table, duration, size


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("status", help="show how a server is", description=__doc__)
    add_server_argument(parser)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        with connect(args.server) as server:
            status = server.status()
            print(as_json(status) if args.json else show(status, server.address))
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def show(status: Status, address: str) -> str:
    states = [job.state for job in status.jobs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    workers = [
        [
            worker.name,
            worker.state,
            worker.user,
            worker.job,
            f"{worker.stage} {worker.step}/{worker.total}" if worker.stage else "",
            size(worker.memory) if worker.memory else "",
            f"{size(worker.card_used)} of {size(worker.card_total)}" if worker.card_total else "",
            worker.device,
        ]
        for worker in status.workers
    ]
    users = [
        [
            user.user,
            str(user.jobs),
            "" if user.silent is None else f"heard {duration(user.silent)} ago",
        ]
        for user in status.users
    ]
    return "\n\n".join(
        filter(
            None,
            [
                f"{address}, release {status.server_version}\n"
                f"Jobs: {', '.join(counts) or 'none'}; {size(status.kept)} of {size(status.quota)} on disk",
                as_table(["WORKER", "STATE", "USER", "JOB", "STEP", "MEMORY", "CARD", "RUNS ON"], workers),
                as_table(["USER", "JOBS", "CONNECTED"], users),
            ],
        )
    )
