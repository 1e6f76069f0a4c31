"""Run the server in the foreground, until it is interrupted or its standard input closes."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from shared.address import DEFAULT_ADDRESS, Address, AddressError
from shared.keys import LOCAL_NAME, keys_folder
from shared.sentences import complain, say

from ..broker import ServerError
from ..broker.broker import Broker
from ..broker.keys import KeyRing
from ..broker.logs import log_to_stderr
from ..broker.settings import Settings
from ..engines.poseanything.machine import find_cards

MAX_WORKERS = 64
CLUSTER_PATIENCE = 60.0
"""Seconds in which a Ray cluster must say what it has."""


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("serve", help="answer requests of Blender", description=__doc__)
    parser.add_argument(
        "--address", default=DEFAULT_ADDRESS, help="where to listen; port 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--jobs",
        type=Path,
        metavar="FOLDER",
        help="where jobs are kept, so that they outlive the server (default: one for each port in"
        " ~/.poseanything/jobs, or in the folder that POSEANYTHING_JOBS names; none with port 0)",
    )
    parser.add_argument(
        "--cards",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="graphics cards to use, as nvidia-smi numbers them, such as 0,1; each makes clips of its own"
        " (default: the first)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="clips made side by side where no cards are named (default: 1; with --ray, one for each card"
        " of the cluster, or for each of its machines where there are none)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="make the clips in the Ray cluster whose head is at this address, such as 10.0.0.1:6379",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-jobs",
        type=_whole,
        default=Settings.max_jobs_per_user,
        metavar="N",
        help="that may wait of one user (default: %(default)s)",
    )
    limits.add_argument(
        "--disk",
        type=_positive,
        default=Settings.jobs_quota / 2**30,
        metavar="GIB",
        help="that jobs may take; what ended longest ago and nobody has fetched makes room (default: "
        "%(default)g)",
    )
    limits.add_argument(
        "--keep",
        type=_positive,
        default=Settings.keep_ended / 86400,
        metavar="DAYS",
        help="after which what nobody has fetched is dropped (default: %(default)g)",
    )
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input closes")
    parser.add_argument(
        "--finish",
        action="store_true",
        help="when standard input closes, first make the clips that wait, and serve those who are connected",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    log_to_stderr()
    try:
        address = Address.parse(args.address)
    except AddressError as error:
        return _complain(error, 2)
    if not address.is_loopback and not _anybody_invited():
        return _complain(
            say(
                "{address} can be reached from other computers, and none has been invited; run 'invite' "
                "first.",
                address=args.address,
            ),
            2,
        )
    if args.ray and args.cards:
        return _complain("Ray shares out the cards of its cluster; leave out --cards.", 2)
    if missing := [card for card in args.cards if int(card) >= len(find_cards())]:
        there = ", ".join(f"{number} ({card.name})" for number, card in enumerate(find_cards())) or "none"
        return _complain(f"There is no card {missing[0]} here; nvidia-smi lists {there}.", 2)
    try:
        workers = args.workers or (cluster_size(args.ray) if args.ray else 1)
    except ServerError as error:
        return _complain(error, 1)
    settings = Settings(
        address=args.address,
        cards=args.cards,
        workers=workers,
        ray=args.ray or "",
        max_jobs_per_user=args.max_jobs,
        max_jobs=max(args.max_jobs, Settings.max_jobs),
        jobs_quota=round(args.disk * 2**30),
        keep_ended=args.keep * 86400,
        jobs=args.jobs or default_jobs(address),
    )
    return serve(settings, exit_with_stdin=args.exit_with_stdin, finish=args.finish)


def _numbers(text: str) -> tuple[str, ...]:
    numbers = [word.strip() for word in text.split(",")]
    if not all(map(str.isdecimal, numbers)) or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different numbers, such as 0,1")
    return tuple(numbers)


def _whole(text: str, most: int = 1_000_000) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, MAX_WORKERS)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _anybody_invited() -> bool:
    try:
        return any(key.name != LOCAL_NAME for key in KeyRing(keys_folder()).keys())
    except ServerError:
        return False


def cluster_size(address: str) -> int:
    """How many workers a Ray cluster has room for. Raises `ServerError` where none answers."""
    command = [sys.executable, "-m", "inference_server.worker.on_ray", address]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=CLUSTER_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise ServerError(
            "The Ray cluster at {address} has not answered within {seconds:.0f} s; "
            "look at it with: ray status",
            address=address,
            seconds=CLUSTER_PATIENCE,
        ) from None
    if asked.returncode:
        raise ServerError(asked.stderr.strip().rpartition("\n")[2])
    return min(int(asked.stdout.split()[-1]), MAX_WORKERS)


def default_jobs(address: Address) -> Path | None:
    """Where the jobs of the server at an address are kept; nowhere where its port is another every time."""
    folder = os.environ.get("POSEANYTHING_JOBS") or Path.home() / ".poseanything" / "jobs"
    return Path(folder) / str(address.port) if address.port else None


def serve(settings: Settings, exit_with_stdin: bool = False, finish: bool = False) -> int:
    """Run a broker until it is told to stop; returns the exit status."""
    stopping = (signal.SIGINT, signal.SIGTERM)
    for number in stopping:  # whatever was inherited: a shell's background ignores the interrupt
        signal.signal(number, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)
    try:
        broker = Broker(settings)
    except ServerError as error:
        return _complain(error, 1)

    told = threading.Event()

    def stop(*_: object) -> None:
        if not told.is_set():  # else a service manager that repeats itself would put the end off
            told.set()
            # Held by a disk that does not answer, or by a fault of ours, it says where it stands and ends.
            faulthandler.dump_traceback_later(settings.stop_timeout, exit=True)
        broker.stop()

    for number in stopping:
        signal.signal(number, stop)
    if exit_with_stdin:
        followed = (stop, broker.finish if finish else stop)
        threading.Thread(target=_follow_stdin, args=followed, daemon=True).start()
    try:
        broker.run(on_ready=lambda endpoint: print(f"listening on {endpoint}", flush=True))
    except ServerError as error:
        return _complain(error, 1)
    return 0


def _complain(sentence: object, status: int) -> int:
    complain(sentence)
    return status


def _follow_stdin(stop: Callable[[], None], finish: Callable[[], None]) -> None:
    """`stop` when that word comes, `finish` at the end."""
    while data := sys.stdin.buffer.raw.read(4096):
        if b"stop" in data.split():
            stop()
            return
    finish()
