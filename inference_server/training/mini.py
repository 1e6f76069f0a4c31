"""`python -m inference_server.training.mini`: the small models, made and measured within minutes.

All cores make clips, from the first second on, while each road trains in a process of its own by a recipe of
`recipes/mini`, which `train` takes as well:

- `bridge`, from the latents of drafts to the truth's: PoseAnything Mini; `bridge_again` goes on with it;
- `noise`, from noise, as the paper does; `noise_again` goes on with it and learns three things more: few
  poses, the camera, and to go on from clean frames;
- `parts`, `none`, `whole`, `mlp`, `width`, the same smaller and alike but for one thing each, for the paper's
  tables 3 to 6;
- `distilled`: the model from noise taught to do with four steps.

What is in the output folder is whole at any moment, and a run that was killed goes on from its last
checkpoint where the scratch folder is still there.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import psutil

from shared.processes import end_with_stdin

from ..datasets.errors import DatasetError
from ..poseanything.checkpoints import CheckpointError
from ..synthesis.clips import ClipSettings
from ..synthesis.creatures import MotionSettings
from ..synthesis.pool import Filling, Pool, bytes_per_clip, wait_for_rows
from .errors import TrainingError
from .settings import TrainingSettings

RECIPES = Path(__file__).with_name("recipes") / "mini"
BEGAN = time.time()
FIRST_SEED = 1_000_000
RESERVE_SHARE, SHORTEST_RESERVE = 0.1, 12.0
"""Of the time, and at least so many seconds, for the last measurements and for writing."""
POOL_SHARE = 0.3
"""Of the card's memory, for the clips of all roads."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m inference_server.training.mini", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and the figures")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="all in all, from the start; default: %(default)g"
    )
    parser.add_argument(
        "--roads", default="noise,bridge", help="recipes, or files of settings; default: %(default)s"
    )
    parser.add_argument(
        "--workers", type=int, default=max((os.cpu_count() or 2) - 2, 1), help="processes that make clips"
    )
    parser.add_argument(
        "--scratch", type=Path, help="for clips and checkpoints; default: in memory where there is room"
    )
    parser.add_argument("--clips", type=int, default=12_000, help="made at most; default: %(default)s")
    parser.add_argument("--drafted-clips", type=int, default=6_000, help="of those that are drafted")
    parser.add_argument(
        "--held-out", type=int, default=128, help="of these, to measure by; default: %(default)s"
    )
    parser.add_argument("--begin-with", type=int, default=512, help="clips to wait for before training")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument(
        "--drafted-size",
        type=int,
        nargs=2,
        default=(128, 72),
        metavar=("WIDTH", "HEIGHT"),
        help="of the clips that are drafted, which are cut around their subjects",
    )
    parser.add_argument(
        "--drawn-size",
        type=int,
        nargs=2,
        default=(416, 240),
        metavar=("WIDTH", "HEIGHT"),
        help="at which these are drawn and drafted before",
    )
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument(
        "--slowest",
        type=float,
        default=1.0,
        help="clips to train on move by so much of the usual pace at least; default: %(default)g",
    )
    parser.add_argument(
        "--moving-cameras", type=float, default=0.4, help="share of these clips; default: %(default)g"
    )
    parser.add_argument(
        "--camera-shift", type=float, default=0.22, help="of these cameras; default: %(default)g"
    )
    parser.add_argument("--shards", type=Path, help="folder of rendered examples to train on as well")
    parser.add_argument(
        "--shards-share", type=float, default=0.1, help="of the training batches; default: %(default)s"
    )
    parser.add_argument("--road", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rendered", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    options = parse(words)
    try:
        if not options.road:
            return run_all(options, words)
        end_with_stdin()
        return train_road(options)
    except (TrainingError, DatasetError, CheckpointError) as error:
        say(str(error))
        return 1


# --- all roads ---


def run_all(options: argparse.Namespace, words: list[str]) -> int:
    try:
        rendered = rendered_count(options)
    except (ImportError, DatasetError) as error:
        say(f"Without rendered examples: {error}")
        options.shards, rendered = None, 0
    deadline = BEGAN + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    roads = {Path(road).stem: road for road in options.roads.split(",")}
    settings = pool_settings(options)
    pools_of = [pool_of(settings_of(road)) for road in roads.values()]
    wanted = {name: settings[name] for name in dict.fromkeys(pools_of)}
    counts = {"drafted": options.drafted_clips, "plain": options.clips}
    room = sum(counts[name] * bytes_per_clip(of) for name, of in wanted.items())
    scratch = options.scratch or choose_scratch(room)
    pools, fillings = {}, {}
    for name, of in wanted.items():
        folder = scratch / name
        if not (folder / "pool.json").exists():
            free = int(0.6 * shutil.disk_usage(_existing(scratch)).free / bytes_per_clip(of) / len(wanted))
            Pool.create(folder, max(min(counts[name], free), 2 * options.held_out), of)
        pools[name] = Pool(folder, "r+")
        say(f"{pools[name].size} {name} clips of {bytes_per_clip(of) / 1e6:.2f} MB at most in {scratch}")
    began, before = time.monotonic(), _count(pools)
    workers = {name: options.workers for name in pools}
    if len(pools) > 1:  # a draft takes several times what drawing does
        workers["plain"] = max(options.workers // 4, 1)
        workers["drafted"] = max(options.workers - workers["plain"], 1)
    motions = MotionSettings(
        slowest=options.slowest, moving_cameras=options.moving_cameras, camera_shift=options.camera_shift
    )
    for name, pool in pools.items():
        skip = (options.held_out, rendered if name == "drafted" else 0)
        fillings[name] = Filling(pool, workers[name], FIRST_SEED, skip, options.held_out, motions)
    processes: dict[str, subprocess.Popen] = {}
    try:
        for road, recipe in roads.items():
            passed = [*words, "--road", recipe, "--deadline", str(deadline), "--scratch", str(scratch)]
            passed += ["--rendered", str(rendered)]
            processes[road] = subprocess.Popen(
                [sys.executable, "-m", "inference_server.training.mini", *passed], stdin=subprocess.PIPE
            )
        if options.shards and "drafted" in pools:
            try:
                add_rendered(pools["drafted"], options)
            except DatasetError as error:  # there are the drawn ones
                say(str(error))
        while any(process.poll() is None for process in processes.values()) and time.time() < deadline + 4:
            time.sleep(1.0)
            if int(time.monotonic() - began) % 15 == 0:
                there = {name: int(pool.ready.sum()) for name, pool in pools.items()}
                say(f"{there} clips, {deadline - time.time():.0f} s left")
                write_results(options.output, scratch, list(roads), {"clips": there})
            if time.time() > training_deadline(deadline, options):
                for filling in fillings.values():
                    filling.stop()
    finally:
        for filling in fillings.values():
            filling.stop()
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
    codes = {road: process.returncode for road, process in processes.items()}
    figures = {
        "clips": {name: int(pool.ready.sum()) for name, pool in pools.items()},
        "clips_per_second": round((_count(pools) - before) / (time.monotonic() - began), 2),
        "exit_codes": codes,
    }
    write_results(options.output, scratch, list(roads), figures)
    pack(options.output / "pictures.tar.gz", {road: scratch / road / "pictures" for road in roads})
    seconds, files = time.time() - deadline + 60 * options.minutes, sorted(os.listdir(options.output))
    say(f"done in {seconds:.0f} s: {', '.join(files)}")
    return 0 if not any(codes.values()) else 1


def settings_of(road: str) -> TrainingSettings:
    """Those of a recipe's name, or of a file. Raises `TrainingError`."""
    recipe = RECIPES / f"{road}.toml"
    return TrainingSettings.read(recipe if recipe.exists() else road)


def pool_of(settings: TrainingSettings) -> str:
    """Of which clips a run takes its examples."""
    return "drafted" if settings.transformer.get("init") == "draft" else "plain"


def pool_settings(options: argparse.Namespace) -> dict[str, ClipSettings]:
    """Of the clips of each pool."""
    (width, height), (narrow, low), drawn = options.size, options.drafted_size, options.drawn_size
    frames = options.frames
    return {
        "drafted": ClipSettings(narrow, low, frames, drawn_width=drawn[0], drawn_height=drawn[1]),
        "plain": ClipSettings(width, height, frames, drafts=False),
    }


def _count(pools: dict[str, Pool]) -> int:
    return sum(int(pool.ready.sum()) for pool in pools.values())


def write_results(output: Path, scratch: Path, roads: list[str], figures: dict) -> None:
    """`results.json`: the figures, and those of each road that has some."""
    for road in roads:
        result = scratch / road / "results.json"
        figures[road] = json.loads(result.read_text()) if result.exists() else None
    growing = output / "results.json.part"
    growing.write_text(json.dumps(figures, indent=1))
    os.replace(growing, output / "results.json")


def choose_scratch(wanted: int) -> Path:
    """A new folder in memory where there is room for so many bytes, else among the temporary files."""
    shared = Path("/dev/shm")
    fits = (
        shared.is_dir()
        and shutil.disk_usage(shared).free > 1.5 * wanted
        and psutil.virtual_memory().available > 2.5 * wanted
    )
    return Path(tempfile.mkdtemp(prefix="poseanything-mini-", dir=shared if fits else None))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def training_deadline(deadline: float, options: argparse.Namespace) -> float:
    return deadline - max(RESERVE_SHARE * 60 * options.minutes, SHORTEST_RESERVE)


def rendered_count(options: argparse.Namespace) -> int:
    """How many rendered examples there are, which get the rows after the held out ones."""
    from ..datasets.dataset import read_index

    return sum(entry["examples"] for entry in read_index(options.shards)["shards"]) if options.shards else 0


def add_rendered(pool: Pool, options: argparse.Namespace) -> None:
    from ..datasets.dataset import read_examples

    row = options.held_out
    for example in read_examples(options.shards):
        if len(example.frames) != options.frames:
            raise DatasetError(
                f"The examples in {options.shards} have {len(example.frames)} frames where the clips have"
                f" {options.frames}; render them anew."
            )
        if not pool.ready[row]:
            pool.write(row, example)
        row += 1
    say(f"{row - options.held_out} rendered examples taken in")


def say(text: str) -> None:
    print(text, flush=True)


# --- one road ---


def train_road(options: argparse.Namespace) -> int:
    import torch

    from .beginning import begin_with
    from .mini_figures import measure
    from .pool_batches import PoolBatches
    from .trainer import Trainer

    road, settings = Path(options.road).stem, settings_of(options.road)
    drafted = pool_of(settings) == "drafted"
    torch.set_num_threads(2 if torch.cuda.is_available() else 1)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = options.scratch / road
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool(options.scratch / pool_of(settings))
    ends = training_deadline(options.deadline, options)
    rows = min(options.begin_with, pool.size - options.held_out)
    there = wait_for_rows(pool, options.held_out + rows, seconds=max(0.4 * (ends - time.time()), 1))
    say(f"{road}: begins with {there} clips on {device}")

    transformer = begin_with(settings)
    vae = vae_of(settings, transformer.config.out_channels, pool, options.held_out, folder, device)
    parameters = sum(p.numel() for p in transformer.parameters())
    capacity = pool.size
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = POOL_SHARE / len(options.roads.split(","))
        capacity = int(share * total / bytes_per_clip(pool.settings))
    batches = PoolBatches(
        pool,
        vae,
        settings,
        transformer.config.text_dim,
        device,
        drafts=drafted,
        held_out=options.held_out,
        capacity=capacity,
        preferred=options.rendered if drafted else 0,
        preferred_share=options.shards_share,
    )
    batches.take_in()

    def report(line: dict) -> None:
        say(f"{road}: {json.dumps(line)}")

    history: list[dict] = []

    def checkpointed(trainer: Trainer) -> None:
        last = time.time() >= ends or trainer.step >= settings.steps
        until = options.deadline - 4 if last else time.time() + 6
        clips = options.held_out if last else min(32, options.held_out)
        figures = measure(trainer, batches, clips, until, folder / "pictures" if last else None)
        history.append({"step": trainer.step, "seconds": round(trainer.elapsed, 1), **figures})
        result = {
            "parameters": parameters,
            "examples": trainer.step * trainer.batch_size,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "options": {name: str(value) for name, value in vars(options).items()},
            "settings": asdict(settings),
            "rows_seen": batches.count,
            "history": history,
            "log": read_log(folder / "log.jsonl"),
        }
        growing = folder / "results.json.part"
        growing.write_text(json.dumps(result))
        os.replace(growing, folder / "results.json")
        trainer.export(folder / "transformer")
        copy.deepcopy(vae).half().save_pretrained(folder / "vae-half")  # the next batch is in the making
        packed = {"transformer": folder / "transformer", "vae": folder / "vae-half"}
        pack(options.output / f"{road}.tar.gz", packed)
        brief = {"step": trainer.step, **figures.get("psnr", {})}
        say(f"{road}: {json.dumps(brief)}")

    trainer = Trainer(folder, settings, transformer, batches, report, ends, checkpointed)
    trainer.run()
    trainer.end()
    return 0


def vae_of(settings: TrainingSettings, z_dim: int, pool: Pool, held_out: int, folder: Path, device):
    """The VAE of a run that goes on, of the settings, or of their checkpoint; else one fitted to the
    clips."""
    import torch

    from ..poseanything.checkpoints import load_vae
    from .pool_batches import fit_vae

    own = folder / "vae"
    given = settings.vae or (settings.checkpoint and Path(settings.checkpoint).with_name("vae"))
    place = Path(given) if given and not (own / "config.json").exists() else own
    if (place / "config.json").exists():
        return load_vae(place, torch_dtype=torch.float32).requires_grad_(False)
    rows = pool.rows()
    vae = fit_vae(pool, rows[rows >= held_out][:256], z_dim, device)
    vae.save_pretrained(own)
    return vae


def read_log(path: Path) -> list[dict]:
    """The log's lines, at most about 100 of them."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines[:: max(len(lines) // 100, 1)]]


def pack(target: Path, folders: dict[str, Path]) -> None:
    """The folders that there are, by their names in it, as one file; it replaces the last when whole."""
    growing = target.with_name(target.name + ".part")
    with tarfile.open(growing, "w:gz", compresslevel=6) as tar:
        for name, folder in folders.items():
            if folder.exists():
                tar.add(folder, name)
    os.replace(growing, target)


if __name__ == "__main__":
    sys.exit(main())
