"""The benchmark of a card works before a card is paid for: at a toy size here, and whatever its parts do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks import card
from tests.benchmarks._card_report import Report

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    "machine": {"rates": 2},
    "tests": {"tests": 17},
    "evaluations": {"by attention backend": 8, "memory": 4},
    "profile": {"kernels": 10},
    "vae": {"passes": 8, "a convolution": 3},
    "clips": {"clips": 5, "memory": 1, "cancelling": 0},
    "training": {"a LoRA": 1, "what it takes, GiB": 1},
    "memory": {"cards": 4},
    "compile": {"compiled": 3},
    "float8": {"float8": 5},
}
"""How many rows each part has to give at the least."""
BY_HAND = "server"
"""A part that starts three processes, half a minute's work; tests/server does it with quicker engines."""


def test_the_whole_script_runs_at_a_toy_size(tmp_path):
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.card", "--toy", "--skip", BY_HAND, "--output", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "card.json").read_text())["parts"]
    assert list(parts) == list(TABLES) and {*card.PARTS} == {*TABLES, BY_HAND}
    for name, tables in TABLES.items():
        assert parts[name]["state"] == "done" and all(p["kept"] for p in parts[name]["promises"]), name
        for table, rows in tables.items():
            found = parts[name]["tables"].get(table, [])
            assert len(found) >= rows, (name, table)
            numbers = [value for row in found for value in row.values() if isinstance(value, float)]
            assert all(math.isfinite(value) and value >= 0 for value in numbers), (name, table)
    assert "## Promises" in (tmp_path / "card.md").read_text()


CHILD = """
import os, sys, time
from pathlib import Path
from tests.benchmarks._card_report import Report

folder = Path(sys.argv[sys.argv.index("--output") + 1])
names = sys.argv[sys.argv.index("--process") + 1 : sys.argv.index("--output")]
for name in names:
    Report(folder).part(name)
for name in names:
    report = Report(folder)
    for other in names:
        report.part(other)
    report.part(name).update(state="running", began=time.time())
    report.row(name, "numbers", number=1)
    if name == "tests":
        os.abort()
    if name == "profile":
        time.sleep(60)
    if name == "vae":
        sys.exit(75)
    report.part(name).update(state="done", seconds=0.1)
    report.flush()
"""


def test_a_part_that_takes_its_process_down_or_hangs_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "COMMAND", [sys.executable, "-c", CHILD])
    monkeypatch.setitem(card.PARTS, "profile", (1, 0))
    wanted = ["machine", "tests", "evaluations", "profile", "vae", "clips"]
    card.supervise(wanted, tmp_path, toy=True, until=time.time() + 60)
    report = Report(tmp_path)
    states = {name: report.part(name)["state"] for name in wanted}
    assert [name for name, state in states.items() if state == "done"] == ["machine", "evaluations", "clips"]
    assert states["tests"] == "the process ended with -6" and states["profile"] == "given up after 1 s"
    assert states["vae"] == "the process ended with 75"
    assert all(report.part(name)["tables"]["numbers"] for name in wanted)  # what was measured is kept
    assert len(report.broken) == 3


def test_what_the_budget_does_not_reach_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "COMMAND", [sys.executable, "-c", CHILD])
    monkeypatch.setattr(card, "GRACE", 0)
    card.supervise(["profile", "clips"], tmp_path, toy=True, until=time.time() + 2)
    states = {name: Report(tmp_path).part(name)["state"] for name in ("profile", "clips")}
    assert states == {"profile": "cut off when the budget was spent", "clips": "no time was left"}


def test_broken_promises_are_told(tmp_path):
    report = Report(tmp_path)
    report.part("machine")["state"] = "done"
    report.promise("machine", "seconds", 3.0, "< 2", False)
    assert report.broken == ["machine: seconds: 3.0, wanted < 2"]
    assert "| machine | seconds | 3 | < 2 | **NO** |" in report.markdown.read_text()
