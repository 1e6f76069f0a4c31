"""Server and client put through all that may happen to them: what is lost, and how long others wait.

Each row is a hardship, what is wanted of it, and what was measured. What came out as wanted is kept beside
the built packages, so that a run that was interrupted goes on where it was: `--anew` forgets it.

    python build.py bench endurance               # hours on a small machine
    python build.py bench endurance --trial       # a few of each, in minutes
    python build.py bench endurance kill cut      # the rows whose names hold one of these words

Left out: power failures, networks that drop or delay, and cards.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback

from tests.server.client import ROOT

from ._hardships import ROWS, Row

RESULTS = ROOT / "dist" / "endurance.json"


def name_of(row: Row) -> str:
    return row.run.__name__


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="parts of the names of rows (default: all of them)")
    parser.add_argument("--trial", action="store_true", help="small counts")
    parser.add_argument("--anew", action="store_true", help="measure again what has been measured")
    asked = parser.parse_args()
    kept = {} if asked.anew or not RESULTS.exists() else json.loads(RESULTS.read_text())
    rows = [row for row in ROWS if not asked.words or any(word in name_of(row) for word in asked.words)]
    wrong = 0
    print("| hardship | wanted | measured |\n|---|---|---|")
    for row in rows:
        counts = row.few if asked.trial else row.counts
        key = f"{name_of(row)} {counts}"
        if key not in kept or not kept[key]["right"]:
            kept[key] = measure(row, counts)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(kept, indent=1))
        words, right = kept[key]["words"], kept[key]["right"]
        wrong += not right
        what = row.what.format(*(f"{count:,}" for count in counts))
        print(f"| {what} | {row.wanted} | {words if right else f'**{words}**'} |", flush=True)
    print(f"\n{len(rows) - wrong} of {len(rows)} as wanted", flush=True)
    sys.exit(1 if wrong else 0)


def measure(row: Row, counts: tuple[int, ...]) -> dict:
    began = time.time()
    try:
        words, right = row.run(*counts)
    except Exception as error:  # one hardship's fault leaves the others to be measured
        traceback.print_exc()
        words, right = f"{type(error).__name__}: {str(error)[:200]}", False
    return {
        "words": words,
        "right": right,
        "at": began,
        "seconds": time.time() - began,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else (),
    }


if __name__ == "__main__":
    main()
