"""The small model's one command, at a toy size: it ends in time, and what was killed goes on."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from inference_server.poseanything.checkpoints import load_transformer, load_vae  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOY = "--workers 1 --clips 8 --drafted-clips 8 --held-out 2 --begin-with 4 --heads 1 --layers 1 --z-dim 24"
TOY += (
    " --size 64 64 --drafted-size 64 64 --drawn-size 96 96 --frames 5 --batch-size 2 --checkpoint-seconds 0.5"
)


def start(folder, *words):
    command = [sys.executable, "-m", "inference_server.training.mini", "--output", str(folder / "out")]
    command += ["--scratch", str(folder / "scratch"), *TOY.split(), *words]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True)


def test_roads_give_checkpoints_and_figures(tmp_path):
    roads = {"bridge": {"draft", "1 step", "wrong pose"}, "noise": {"no parts", "whole subject", "8 steps"}}
    assert start(tmp_path, "--roads", ",".join(roads), "--steps", "3", "--minutes", "10").wait(300) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for road, names in roads.items():
        figures = results[road]["history"][-1]
        assert figures["step"] == 3 and figures["psnr"]["first frame repeated"]["subject"]["clips"] == 2
        assert names < figures["psnr"].keys() and len(figures["clips"]["first frame repeated"]) == 2
        with tarfile.open(tmp_path / "out" / f"{road}.tar.gz") as tar:
            tar.extractall(tmp_path / road, filter="data")
        transformer = load_transformer(tmp_path / road / "transformer")
        assert transformer.config.init == ("draft" if road == "bridge" else "noise")
        assert load_vae(tmp_path / road / "vae").config.z_dim == 24
    with tarfile.open(tmp_path / "out" / "pictures.tar.gz") as tar:
        assert {"bridge/truth/00.webp", "noise/wrong-pose/01.webp"} < set(tar.getnames())


def test_it_goes_on_after_a_kill_and_ends_in_time(tmp_path):
    process = start(tmp_path, "--roads", "bridge", "--minutes", "10")
    packed = tmp_path / "out" / "bridge.tar.gz"
    while process.poll() is None and not packed.exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    steps = [path.name for path in (tmp_path / "scratch" / "bridge" / "checkpoints").glob("step-*")]
    reached = max(int(name.removeprefix("step-")) for name in steps)

    seconds = 30
    began = time.monotonic()
    assert start(tmp_path, "--roads", "bridge", "--minutes", str(seconds / 60)).wait(300) == 0
    assert time.monotonic() - began < seconds + 20
    result = json.loads((tmp_path / "out" / "results.json").read_text())["bridge"]
    assert result["history"][-1]["step"] > reached
    assert result["log"][0]["step"] == 1  # of the run that was killed
