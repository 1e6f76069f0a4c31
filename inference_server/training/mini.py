"""`python -m inference_server.training.mini`: the small models, made and measured within minutes.

All cores make clips, from the first second on, while each road trains in a process of its own:

- `bridge`, from the latents of drafts to the truth's: PoseAnything Mini;
- `noise`, from noise, as the paper does;
- `parts`, `none`, `whole`, `mlp`, `width`, the same smaller and alike but for one thing each, for the paper's
  tables 3 to 6;
- `distilled`: the model in `--teacher` taught to do with four steps.

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
from pathlib import Path

import psutil

from ..synthesis.clips import ClipSettings
from ..synthesis.pool import Filling, Pool, bytes_per_clip, wait_for_rows
from .errors import TrainingError

FROM_NOISE = {
    "num_layers": 5,
    "part_attention": True,
    "part_attention_empty": "excluded",
    "part_attention_threshold": 0.0,
    "max_parts": 12,
    "prediction_type": "sample",
    "prediction_base": "first_frame",
    "num_inference_steps": 8,
}
CONDITIONS = {
    "start_share": 0.1,
    "pose_dropout": 0.08,
    "sparse_poses": 0.3,
    "part_masks": "mixed",
    "part_dropout": 0.15,
}
DRAWN = CONDITIONS | {"part_masks": "drawn", "part_dropout": 0.0}
SMALL = {"num_layers": 4, "num_attention_heads": 2, "ffn_dim": 512}


def _alike(settings: dict | None = None, **transformer) -> dict:
    """A road of the tables: all of them are alike but for this."""
    return {
        "pool": "plain",
        "z_dim": 192,
        "transformer": FROM_NOISE | SMALL | transformer,
        "settings": DRAWN | {"batch_size": 32} | (settings or {}),
    }


ROADS: dict[str, dict] = {
    "bridge": {
        "pool": "drafted",
        "begins": "bridge",
        "packed": True,
        "z_dim": 768,
        "transformer": {
            "num_layers": 6,
            "part_attention": False,
            "init": "draft",
            "num_inference_steps": 1,
        },
        "settings": {"start_share": 0.8, "part_masks": "none", "subject_weight": 2.0},
    },
    "noise": {
        "pool": "plain",
        "packed": True,
        "z_dim": 192,
        "transformer": FROM_NOISE,
        "settings": CONDITIONS,
    },
    "parts": _alike(),
    "none": _alike({"part_masks": "none"}, part_attention=False),
    "whole": _alike({"part_masks": "whole"}),
    "mlp": _alike({"part_masks": "none"}, part_attention=False, pose_injection="mlp"),
    "width": _alike({"part_masks": "none"}, part_attention=False, pose_injection="width"),
    "distilled": {
        "pool": "plain",
        "begins": "teacher",
        "packed": True,
        "settings": {
            "distilled_steps": 4,
            "learning_rate": 1e-4,
            "muon": False,
            "sparse_poses": 0.3,
            "part_masks": "drawn",
            "part_dropout": 0.0,
            "batch_size": 16,
            "ema_decay": 0.99,
        },
    },
}
"""pool: of which clips. begins: the option that names the weights to begin with. packed: whether the weights
are wanted. z_dim, transformer: of a model that begins at random. settings: of `TrainingSettings`."""
BEGAN = time.time()
TEXT_DIM = 32
FIRST_SEED = 1_000_000
RESERVE_SHARE, SHORTEST_RESERVE = 0.1, 12.0
"""Of the time, and at least so many seconds, for the last measurements and for writing."""
POOL_SHARE = 0.2
"""Of the card's memory, for one road's clips."""
SHOWN = 8
"""Held out clips whose frames are kept, to be measured and looked at."""
SCALES = (1.2, 2.0, 3.0, 5.0)
"""Of guidance, those of the paper's Table 6."""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m inference_server.training.mini", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights and the figures")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="all in all, from the start; default: %(default)g"
    )
    parser.add_argument("--roads", default="noise,bridge", help="default: %(default)s")
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
    parser.add_argument("--heads", type=int, default=4, help="of 64 features; default: %(default)s")
    parser.add_argument("--layers", type=int, help="default: the road's")
    parser.add_argument("--z-dim", type=int, help="channels of the latents; default: the road's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--steps", type=int, default=1_000_000, help="a road ends after so many at the latest"
    )
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=Path, help="folder of rendered examples to train on as well")
    parser.add_argument(
        "--shards-share", type=float, default=0.1, help="of the training batches; default: %(default)s"
    )
    parser.add_argument(
        "--bridge", type=Path, metavar="FOLDER", help="weights that the road bridge begins with"
    )
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="weights that are distilled")
    parser.add_argument("--road", choices=ROADS, help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--rendered", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    options = parse(words)
    return train_road(options) if options.road else run_all(options, words)


# --- all roads ---


def run_all(options: argparse.Namespace, words: list[str]) -> int:
    try:
        rendered = rendered_count(options)
    except (ImportError, TrainingError) as error:
        say(f"Without rendered examples: {error}")
        options.shards, rendered = None, 0
    deadline = BEGAN + 60 * options.minutes
    options.output.mkdir(parents=True, exist_ok=True)
    roads = options.roads.split(",")
    settings = pool_settings(options)
    wanted = {name: settings[name] for name in dict.fromkeys(ROADS[road]["pool"] for road in roads)}
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
    for name, pool in pools.items():
        skip = (options.held_out, rendered if name == "drafted" else 0)
        fillings[name] = Filling(pool, workers[name], FIRST_SEED, skip=skip)
    processes: dict[str, subprocess.Popen] = {}
    try:
        for road in roads:
            passed = [*words, "--road", road, "--deadline", str(deadline), "--scratch", str(scratch)]
            passed += ["--rendered", str(rendered)]
            processes[road] = subprocess.Popen(
                [sys.executable, "-m", "inference_server.training.mini", *passed]
            )
        if options.shards and "drafted" in pools:
            try:
                add_rendered(pools["drafted"], options)
            except TrainingError as error:  # there are the drawn ones
                say(str(error))
        while any(process.poll() is None for process in processes.values()) and time.time() < deadline + 4:
            time.sleep(1.0)
            if int(time.monotonic() - began) % 15 == 0:
                there = {name: int(pool.ready.sum()) for name, pool in pools.items()}
                say(f"{there} clips, {deadline - time.time():.0f} s left")
                write_results(options.output, scratch, roads, {"clips": there})
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
    write_results(options.output, scratch, roads, figures)
    pack(options.output / "pictures.tar.gz", {road: scratch / road / "pictures" for road in roads})
    seconds, files = time.time() - deadline + 60 * options.minutes, sorted(os.listdir(options.output))
    say(f"done in {seconds:.0f} s: {', '.join(files)}")
    return 0 if not any(codes.values()) else 1


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
    from .dataset import read_index

    return sum(entry["examples"] for entry in read_index(options.shards)["shards"]) if options.shards else 0


def add_rendered(pool: Pool, options: argparse.Namespace) -> None:
    from .dataset import read_examples

    row = options.held_out
    for example in read_examples(options.shards):
        if len(example.frames) != options.frames:
            raise TrainingError(
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

    from .pool_batches import PoolBatches
    from .settings import TrainingSettings
    from .trainer import Trainer, initialise

    road, chosen = options.road, ROADS[options.road]
    torch.set_num_threads(2 if torch.cuda.is_available() else 1)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = options.scratch / road
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool(options.scratch / chosen["pool"])
    ends = training_deadline(options.deadline, options)
    begin_with = min(options.begin_with, pool.size - options.held_out)
    there = wait_for_rows(pool, options.held_out + begin_with, seconds=max(0.4 * (ends - time.time()), 1))
    say(f"{road}: begins with {there} clips on {device}")

    transformer, vae = begin(options, chosen, pool, folder, device)
    parameters = sum(p.numel() for p in transformer.parameters())
    settings = TrainingSettings.of(
        **{
            "batch_size": options.batch_size,
            "steps": options.steps,
            "learning_rate": options.learning_rate,
            "checkpoint_seconds": options.checkpoint_seconds,
            "seed": options.seed,
        }
        | chosen["settings"]
    )
    capacity = pool.size
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        capacity = int(POOL_SHARE * total / bytes_per_clip(pool.settings))
    batches = PoolBatches(
        pool,
        vae,
        settings,
        transformer.config.text_dim,
        device,
        drafts=chosen["pool"] == "drafted",
        held_out=options.held_out,
        capacity=capacity,
        preferred=options.rendered if chosen["pool"] == "drafted" else 0,
        preferred_share=options.shards_share,
    )
    batches.take_in()

    def report(line: dict) -> None:
        say(f"{road}: {json.dumps(line)}")

    history: list[dict] = []

    def checkpointed(trainer: Trainer) -> None:
        nonlocal history
        last = time.time() >= ends or trainer.step >= settings.steps
        until = options.deadline - 4 if last else time.time() + 6
        clips = options.held_out if last else min(32, options.held_out)
        figures = measure(trainer, batches, vae, road, clips, until, folder / "pictures" if last else None)
        history.append({"step": trainer.step, "seconds": round(trainer.elapsed, 1), **figures})
        result = {
            "parameters": parameters,
            "examples": trainer.step * trainer.batch_size,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "options": {name: str(value) for name, value in vars(options).items()},
            "rows_seen": batches.count,
            "history": history,
            "log": read_log(folder / "log.jsonl"),
        }
        growing = folder / "results.json.part"
        growing.write_text(json.dumps(result))
        os.replace(growing, folder / "results.json")
        if chosen.get("packed"):
            trainer.export(folder / "transformer")
            copy.deepcopy(vae).half().save_pretrained(folder / "vae-half")  # the next batch is in the making
            packed = {"transformer": folder / "transformer", "vae": folder / "vae-half"}
            pack(options.output / f"{road}.tar.gz", packed)
        brief = {"step": trainer.step, **figures.get("psnr", {})}
        say(f"{road}: {json.dumps(brief)}")

    trainer = Trainer(folder, settings, transformer, batches, report, ends, checkpointed)
    for _ in range(3):
        try:
            trainer.run()
            trainer.end()
            return 0
        except TrainingError as error:
            say(f"{road}: {error}")
            if "no number" not in str(error):
                return 1
            trainer.learning_rate /= 2  # from the last checkpoint on, or from the start
            if trainer.last_checkpoint() is None:
                initialise(trainer.model)
    return 1


def begin(options: argparse.Namespace, chosen: dict, pool: Pool, folder: Path, device):
    """The transformer and the VAE that a road begins with: those of a folder, or new ones."""
    import torch

    from ..poseanything.checkpoints import load_transformer, load_vae
    from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
    from .pool_batches import fit_vae
    from .trainer import initialise

    torch.manual_seed(options.seed)
    given = getattr(options, chosen.get("begins", ""), None)
    if given:
        transformer = load_transformer(given / "transformer", torch_dtype=torch.float32).requires_grad_(True)
        vae = load_vae(given / "vae", torch_dtype=torch.float32).requires_grad_(False)
        return transformer, vae
    z_dim = options.z_dim or chosen["z_dim"]
    if (folder / "vae" / "config.json").exists():
        vae = load_vae(folder / "vae", torch_dtype=torch.float32).requires_grad_(False)
    elif options.teacher and chosen["pool"] == "plain":  # roads of one table code pictures alike
        vae = load_vae(options.teacher / "vae", torch_dtype=torch.float32).requires_grad_(False)
        z_dim = vae.config.z_dim
    else:
        rows = pool.rows()
        vae = fit_vae(pool, rows[rows >= options.held_out][:256], z_dim, device)
        vae.save_pretrained(folder / "vae")
    by_channel = chosen["transformer"].get("pose_injection", "channel") == "channel"
    transformer = PoseAnythingTransformer3DModel(
        **{
            "patch_size": (1, 1, 1),
            "num_attention_heads": options.heads,
            "attention_head_dim": 64,
            "in_channels": z_dim * (2 if by_channel else 1),
            "out_channels": z_dim,
            "text_dim": TEXT_DIM,
            "ffn_dim": 256 * options.heads,
            "rope_max_seq_len": 256,
            "text_conditioning": False,
            "sample_frames": options.frames,
            "sample_size": max(pool.settings.width, pool.settings.height),
        }
        | chosen["transformer"]
        | ({"num_layers": options.layers} if options.layers else {})
    )
    initialise(transformer)
    return transformer, vae


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


def variants_of(road: str, num_frames: int) -> dict[str, dict]:
    """What is measured of a road's model, the most wanted first: arguments of `sample` (`steps`, `scale`,
    `renoise`) and of `PoolBatches.held_out_batch`."""
    import numpy as np

    from .sparse_poses import FRAMES_OF_THE_PAPER

    tenth = np.zeros(num_frames, bool)
    posed = max(2, round(0.1 * FRAMES_OF_THE_PAPER * num_frames / 81))
    tenth[np.linspace(0, num_frames - 1, posed).astype(int)] = True
    if road == "bridge":
        return {
            "1 step": {"steps": 1},
            "2 steps": {"steps": 2},
            "4 steps": {"steps": 4},
            "wrong pose": {"steps": 1, "pose_shift": 7},
        }
    seen = {"parts": {"none": "none", "mlp": "none", "width": "none", "whole": "whole"}.get(road, "drawn")}
    if road == "distilled":
        return {
            "4 steps": seen | {"steps": 4, "renoise": True},
            "1 step": seen | {"steps": 1},
            "2 steps": seen | {"steps": 2, "renoise": True},
            "50 steps of the teacher": seen | {"steps": 50, "teacher": True},
            "4 steps of the teacher": seen | {"steps": 4, "teacher": True},
            "wrong pose": seen | {"steps": 4, "renoise": True, "pose_shift": 7},
        }
    asked = {
        "8 steps": seen | {"steps": 8},
        "wrong pose": seen | {"steps": 8, "pose_shift": 7},
        "poses of a tenth": seen | {"steps": 8, "kept": tenth},
    }
    if road in ("parts", "noise"):
        asked |= {
            f"{'sparse' if kept is not None else 'dense'}, scale {scale:g}": seen
            | {"steps": 8, "kept": kept, "scale": scale}
            for kept in (None, tenth)
            for scale in SCALES
        }
        asked |= {
            "50 steps": seen | {"steps": 50},
            "4 steps": seen | {"steps": 4},
            "1 step": seen | {"steps": 1},
        }
    if road == "noise":
        asked |= {
            name: {"steps": 8, "parts": parts}
            for name, parts in (("no parts", "none"), ("whole subject", "whole"), ("known parts", "known"))
        }
    return asked


def measure(trainer, batches, vae, road: str, clips: int, until: float, pictures: Path | None) -> dict:
    """Figures on held out clips, as far as there is time; of the first variant alone where no pictures are
    wanted."""
    import torch

    from ..evaluation.pixels import psnr
    from ..evaluation.statistics import compare, mean_of
    from ..poseanything.models.streaming_vae import decode_frames
    from .objective import sample

    variants = variants_of(road, batches.pool.settings.num_frames)
    first = next(iter(variants))
    model, device = trainer.model, batches.device
    teacher = getattr(trainer.objective, "teacher", None)
    measured: dict[str, list] = {}

    def score(name: str, images, truth, subject) -> None:
        values = torch.stack([psnr(images, truth, subject), psnr(images, truth)], 1).cpu()
        measured.setdefault(name, []).append(values)

    model.eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=trainer.settings.mixed_precision == "bf16")
    with torch.no_grad(), trainer.averaged(), autocast:
        for start in range(0, clips, 16):
            truth, subject, draft = batches.held_out_frames(start, min(16, clips - start))
            score("first frame repeated", truth[:, :1].expand_as(truth), truth, subject)
            if draft is not None:
                score("draft", draft, truth, subject)
            if pictures and not start:
                keep(pictures, "truth", truth)
                if draft is not None:
                    keep(pictures, "draft", draft)
        for name, asked in variants.items():
            if pictures is None and name != first:
                continue
            for start in range(0, clips, 16):
                if time.time() > until:
                    break
                conditions = dict(asked)
                how = {key: conditions.pop(key) for key in ("steps", "renoise") if key in conditions}
                scale = conditions.pop("scale", 1.0)
                used = teacher if conditions.pop("teacher", False) else model
                size = min(16, clips - start)
                truth, subject, _ = batches.held_out_frames(start, size)
                batch, negative = batches.held_out_batch(start, size, **conditions), None
                if scale != 1:
                    negative = batches.held_out_batch(start, size, still=True, **conditions)
                generator = torch.Generator(device).manual_seed(start)
                latents = sample(used, batch, generator=generator, negative=negative, scale=scale, **how)
                with torch.autocast(device.type, enabled=False):
                    video = torch.cat(list(decode_frames(vae, latents.float())), 2)
                images = ((video.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255)
                score(name, images, truth, subject)
                if pictures and not start:
                    keep(pictures, name, images)
    model.train()
    values = {name: torch.cat(parts).numpy() for name, parts in measured.items()}
    if first not in values:
        return {}
    paired = {}
    for name, others in values.items():
        shared = min(len(others), len(values[first]))
        if name != first:
            paired[f"{first} over {name}"] = {
                region: compare(values[first][:shared, column], others[:shared, column])
                for column, region in enumerate(("subject", "all"))
            }
    figures = {name: {"subject": mean_of(of[:, 0]), "all": mean_of(of[:, 1])} for name, of in values.items()}
    each = {name: of.round(3).tolist() for name, of in values.items()}
    return {"psnr": figures, "paired": paired} | ({"clips": each} if pictures else {})


def keep(folder: Path, name: str, images) -> None:
    """Write the frames of clips `[B, F, H, W, 3]` as one picture a clip, frames below one another."""
    import cv2

    place = folder / name.replace(",", "").replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(images[:SHOWN]):
        picture = clip.flatten(0, 1).byte().cpu().numpy()[..., ::-1]
        cv2.imwrite(str(place / f"{number:02d}.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, 80])


if __name__ == "__main__":
    sys.exit(main())
