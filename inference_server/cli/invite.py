"""Let somebody use this user's servers from another computer: prints one line, a token, to be pasted into
the preferences of their Blender or given to `generate --server`. Whoever has it is let in, so send it as you
would send a password."""

from __future__ import annotations

import argparse
import datetime
import socket
import sys

from shared.address import DEFAULT_PORT, Address, AddressError
from shared.keys import keys_folder

from ..broker import ServerError
from ..broker.keys import KeyRing


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("invite", help="let another computer use the server", description=__doc__)
    parser.add_argument("--name", help="what the key is called in 'keys' (default: the time)")
    parser.add_argument(
        "--address",
        metavar="tcp://HOST:PORT",
        help="where the other computer reaches the server; tcp://127.0.0.1:PORT for the end of a tunnel "
        f"(default: this computer's own address, port {DEFAULT_PORT})",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    name = args.name or f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
    try:
        address = Address.parse(args.address) if args.address else Address(_own_host(), DEFAULT_PORT)
        if address.is_every or not address.port:
            raise AddressError(f"{address} can't be reached; name this computer and the server's port.")
        token = KeyRing(keys_folder()).invite(name, str(address))
    except (AddressError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{name!r} is let in at {address} with this token ('keys revoke {name}' ends that):", file=sys.stderr
    )
    print(token, flush=True)
    return 0


def _own_host() -> str:
    """This computer's address on the way to others, as far as it can be told; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
