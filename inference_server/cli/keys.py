"""List who may use this user's servers, or let a key in no more; servers that run follow at once."""

from __future__ import annotations

import argparse
import json
import sys

from shared.keys import keys_folder

from ..broker import ServerError
from ..broker.keys import KeyRing


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("keys", help="list and revoke invitations", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    revoke = actions.add_parser("revoke", help="let a key in no more; its jobs end")
    revoke.add_argument("name", metavar="NAME")
    return parser


def run(args: argparse.Namespace) -> int:
    try:
        ring = KeyRing(keys_folder())
        if args.action == "revoke":
            ring.revoke(args.name)
            print(f"{args.name!r} is let in no more.", file=sys.stderr)
            return 0
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    keys = ring.keys()
    if args.json:
        rows = [
            {"name": key.name, "invited": key.invited.isoformat("T", "seconds"), "key": key.user.decode()}
            for key in keys
        ]
        print(json.dumps(rows, indent=1))
        return 0
    width = max(len(key.name) for key in keys)
    for key in keys:
        print(f"{key.name:{width}}  invited {key.invited:%Y-%m-%d %H:%M}")
    return 0
