"""How fast training data is made, how fast the small models learn from it, and how long their clips take, all
on this machine's processor.

    python build.py bench pace

Pairs of 17 frames, and training examples of the same, a second: drawn at 128x96, by one process; drawn and
drafted at 416x240 and cut to 128x72, as PoseAnything Mini learns from them; rendered at 128x96, a scene of
each renderer with its five clips; trained on by `train` with the recipes of the small models, in batches of
8. And the seconds of one clip: the draft and PoseAnything Mini at 832x480, 81 frames, the small model from
noise at 128x96, 17 frames, in its own steps and with its student of four. In the last column how many clips
are drawn meanwhile.

Left out: EEVEE, which without a card takes up to a minute a frame; several processes, of which each adds a
core's worth; what a card does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inference_server.engines import find_engine
from inference_server.synthesis.clips import ClipSettings, make_clip
from inference_server.synthesis.pool import around_subject
from tests.training.mini_clips import FROM_NOISE

from ._footage import ROOT
from ._small_model import frames_of, small_engine

FIRST_SEED = 960_000
DRAWN, DRAFTED, STEPS, BATCH = 16, 4, 6, 8
LONGEST = 1800.0
"""Seconds that a command may take."""
RENDERERS = ("workbench", "cycles")
SEED = 7
"""Of the scenes: a snake's, which has no rig to be generated."""
MINI = ROOT / "inference_server" / "engines" / "mini" / "weights"
ROADS = {
    "from noise": ("noise_again", FROM_NOISE / "vae"),
    "from the draft": ("bridge_again", MINI / "vae"),
}
RUN = """
extends = "{recipe}"
mixed_precision = "no"
batch_size = {batch}
steps = {steps}
log_steps = 1
warmup_steps = 1
"""


def drawing() -> float:
    """Seconds a pair."""
    began = time.perf_counter()
    for seed in range(DRAWN):
        make_clip(FIRST_SEED + seed)
    return (time.perf_counter() - began) / DRAWN


def drafting() -> float:
    began = time.perf_counter()
    for seed in range(DRAFTED):
        around_subject(make_clip(FIRST_SEED + seed, ClipSettings(416, 240)), 128, 72)
    return (time.perf_counter() - began) / DRAFTED


def rendering(renderer: str, folder: Path) -> float:
    words = ["--extension", os.environ["POSEANYTHING_EXTENSION"], "--output", folder / renderer]
    words += ["--seeds", SEED, SEED, "--subjects", "snake", "--renderer", renderer]
    script = ROOT / "blender_addon" / "examples" / "synthesise.py"
    told = subprocess.run(
        [sys.executable, script, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LONGEST,
    ).stdout
    clips, seconds = re.search(rf"seed {SEED}, snake: (\d+) clips in ([\d.]+) s", told).groups()
    return float(seconds) / int(clips)


def training(recipe: str, vae: Path, folder: Path) -> float:
    """Seconds an example, the first step left out."""
    settings, output = folder / f"{recipe}.toml", folder / recipe
    recipes = ROOT / "inference_server" / "training" / "recipes" / "mini"
    settings.write_text(RUN.format(recipe=recipes / f"{recipe}.toml", batch=BATCH, steps=STEPS))
    words = ["train", settings, "--data", folder / "drawn", "--split", "all", "--vae", vae, "--cpu"]
    command([*words, "--output", output])
    entries = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    rates = [entry["examples_per_second"] for entry in entries if "examples_per_second" in entry][1:]
    return sum(1 / rate for rate in rates) / len(rates)


def command(words: list) -> None:
    subprocess.run(
        [sys.executable, "-m", "inference_server", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=LONGEST,
    )


def clip_of(engine, request) -> float:
    """Seconds, of a second clip."""
    frames_of(engine, request)
    began = time.perf_counter()
    frames_of(engine, request)
    return time.perf_counter() - began


def main() -> None:
    drawn = drawing()
    print("| | a second | seconds each | clips drawn meanwhile |\n|---|---|---|---|", flush=True)

    def tell(name: str, seconds: float) -> None:
        print(f"| {name} | {1 / seconds:.2f} | {seconds:.2f} | {seconds / drawn:.1f} |", flush=True)

    tell("pairs drawn", drawn)
    tell("pairs drawn and drafted", drafting())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for renderer in RENDERERS:
            tell(f"pairs rendered by {renderer.capitalize()}", rendering(renderer, folder))
        command(["synthesise", "--clips", 2 * BATCH, "--drafts", "--output", folder / "drawn"])
        for road, (recipe, vae) in ROADS.items():
            tell(f"examples trained on, {road}", training(recipe, vae, folder))
    large = make_clip(FIRST_SEED, ClipSettings(832, 480, 81)).request
    for name in ("draft", "mini"):
        engine = find_engine(name)()
        list(engine.load())
        tell(f"clips of 832x480, 81 frames, {name}", clip_of(engine, large))
    engine, small = small_engine(FROM_NOISE), make_clip(FIRST_SEED).request
    steps = engine.describe().default_steps
    for name, count, options in (
        (f"{steps} steps", steps, {}),
        ("the student's 4", 4, {"loras": {"four_steps.safetensors": 1.0}}),
    ):
        asked = dataclasses.replace(
            small, num_inference_steps=count, engine_options=options, preview_interval=0.0
        )
        tell(f"clips of 128x96, 17 frames, from noise, {name}", clip_of(engine, asked))


if __name__ == "__main__":
    main()
