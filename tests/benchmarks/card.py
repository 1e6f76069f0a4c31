"""Proves the neural engine on a CUDA card, in one run of about six minutes.

The model has the full 5B shape and random weights made on the card: nothing is downloaded. Results are
written to card.json and card.md in the output folder after every number, so a run that is cut off keeps what
it measured. A part that fails, hangs or takes the process down with it is recorded, and the next one goes on
in a fresh process. The exit code is 0 when every promise was kept, 1 when one was broken, 2 for wrong
arguments.

Run it with `python build.py bench card`, or, where the environment of build.py can't be made, with
`python -m tests.benchmarks.card` under a Python 3.11 or newer that has torch 2.10 or newer, transformers 5,
accelerate, peft, safetensors, huggingface-hub 1.32 or newer, numpy, opencv, scikit-image, scipy, msgpack,
psutil, networkx, pytest and hypothesis. These may have to be brought along as wheels (`pip download
--no-deps`): diffusers 0.42.1, gguf, ftfy, importlib_metadata, wcwidth, pyzmq and isal.

Left out: the real weights, so no figure here says how good the pictures are.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks._card_report import Report

ROOT = Path(__file__).resolve().parents[2]

# name: (seconds it is given at most, seconds without which it is not begun), the most valuable first
PARTS = {
    "machine": (60, 5),
    "tests": (110, 10),
    "evaluations": (90, 15),
    "profile": (40, 10),
    "vae": (60, 10),
    "clips": (120, 40),
    "training": (60, 20),
    "memory": (120, 25),
    "compile": (130, 35),
    "float8": (60, 15),
    "server": (160, 60),
}
BROKEN_CARD = 75
"""Exit code of a process whose CUDA context can't be used any more; the next part needs a new one."""
COMMAND = [sys.executable, "-m", "tests.benchmarks.card"]
GRACE = 10
"""Seconds past the budget before what still runs is ended."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "card", help="folder for the results")
    parser.add_argument("--budget", type=float, default=360, metavar="SECONDS", help="for all parts together")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"in this order; of {', '.join(PARTS)}"
    )
    parser.add_argument("--skip", nargs="+", choices=PARTS, metavar="PART", default=[])
    parser.add_argument(
        "--toy", action="store_true", help="a tiny model on whatever there is: does the script itself work?"
    )
    parser.add_argument("--process", nargs="+", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    asked = arguments(words)
    if asked.process:
        from shared.processes import end_with_stdin
        from tests.benchmarks._card_parts import run_parts

        end_with_stdin()
        return run_parts(asked.process, asked.output, asked.toy, asked.until, PARTS)
    wanted = [name for name in asked.only or PARTS if name not in asked.skip]
    asked.output.mkdir(parents=True, exist_ok=True)
    for name in ("card.json", "card.md"):
        (asked.output / name).unlink(missing_ok=True)
    supervise(wanted, asked.output, asked.toy, time.time() + asked.budget)

    report = Report(asked.output)
    print(report.markdown.read_text(encoding="utf-8"), flush=True)
    for broken in report.broken:
        print(f"BROKEN {broken}")
    return 1 if report.broken else 0


def supervise(wanted: list[str], folder: Path, toy: bool, until: float) -> None:
    """Run the parts in a process, and those after one that took it down in another."""
    left, report = list(wanted), Report(folder)
    for name in wanted:
        report.part(name)
    report.flush()
    while left:
        command = [*COMMAND, "--process", *left, "--output", str(folder), "--until"]
        command += [str(until), *(["--toy"] if toy else [])]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
        try:
            why = _watch(process, folder, until)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        report = Report(folder)
        states = {name: report.part(name)["state"] for name in left}
        running = [name for name, state in states.items() if state == "running"]
        started = [name for name, state in states.items() if state != "waiting"]
        # One that ends before its first part would do so for ever.
        for name in running or ([] if started else left[:1]):
            report.part(name)["state"] = why or f"the process ended with {process.returncode}"
        left = [name for name in left if report.part(name)["state"] == "waiting"]
        if time.time() > until:
            for name in left:
                report.part(name)["state"] = "no time was left"
            left = []
        report.flush()


def _watch(process: subprocess.Popen, folder: Path, until: float) -> str:
    """Why a process had to be ended; empty when it ended by itself."""
    began = time.time()
    while process.poll() is None:
        time.sleep(0.1)
        if time.time() > until + GRACE:
            return "cut off when the budget was spent"
        try:
            parts = Report(folder).content["parts"]
        except ValueError:
            continue
        for name, part in parts.items():
            if part["state"] == "running" and time.time() > max(part["began"], began) + PARTS[name][0]:
                return f"given up after {PARTS[name][0]} s"
    return ""


if __name__ == "__main__":
    sys.exit(main())
