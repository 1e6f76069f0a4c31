"""`python -m inference_server.training.mini`: PoseAnything Mini, made and measured within minutes.

All cores make clips with the draft engine's drafts, from the first second on, while each road trains in a
process of its
own: `bridge` from the draft's latents to the truth's, `noise` from noise, as the paper does. What is in the
output folder
is whole at any moment: after every checkpoint the averaged weights are packed anew, and a run that was
killed goes on from its last checkpoint where the scratch folder is still there.
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

ROADS: dict[str, dict] = {
    "bridge": {
        "z_dim": 768,
        "transformer": {
            "num_layers": 6,
            "part_attention": False,
            "init": "draft",
            "num_inference_steps": 1,
        },
        "settings": {"start_share": 0.3, "part_masks": "none"},
    },
    "noise": {
        "z_dim": 192,
        "transformer": {
            "num_layers": 5,
            "part_attention": True,
            "part_attention_empty": "excluded",
            "part_attention_threshold": 0.0,
            "max_parts": 12,
            "prediction_type": "sample",
            "prediction_base": "first_frame",
            "num_inference_steps": 8,
        },
        "settings": {
            "start_share": 0.1,
            "pose_dropout": 0.08,
            "sparse_poses": 0.3,
            "part_masks": "mixed",
            "part_dropout": 0.15,
        },
    },
}
BEGAN = time.time()
TEXT_DIM = 32
FIRST_SEED = 1_000_000
RESERVE_SHARE, SHORTEST_RESERVE = 0.1, 12.0
"""Of the time, and at least so many seconds, for the last measurements and for writing."""
POOL_SHARE = 0.2
"""Of the card's memory, for one road's clips."""


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
    parser.add_argument(
        "--held-out", type=int, default=128, help="of these, to measure by; default: %(default)s"
    )
    parser.add_argument("--begin-with", type=int, default=512, help="clips to wait for before training")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=96)
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
    settings = ClipSettings(options.width, options.height, options.frames)
    scratch = options.scratch or choose_scratch(options.clips * bytes_per_clip(settings))
    if not (scratch / "pool" / "pool.json").exists():
        room = int(0.6 * shutil.disk_usage(_existing(scratch)).free / bytes_per_clip(settings))
        Pool.create(scratch / "pool", max(min(options.clips, room), 2 * options.held_out), settings)
    pool = Pool(scratch / "pool", "r+")
    say(f"{pool.size} clips of {bytes_per_clip(settings) / 1e6:.2f} MB at most in {scratch}")
    began, before = time.monotonic(), int(pool.ready.sum())
    filling = Filling(pool, options.workers, FIRST_SEED, skip=(options.held_out, rendered))
    processes: dict[str, subprocess.Popen] = {}
    try:
        for road in roads:
            passed = [*words, "--road", road, "--deadline", str(deadline), "--scratch", str(scratch)]
            passed += ["--rendered", str(rendered)]
            processes[road] = subprocess.Popen(
                [sys.executable, "-m", "inference_server.training.mini", *passed]
            )
        if options.shards:
            try:
                add_rendered(pool, options)
            except TrainingError as error:  # there are the drawn ones
                say(str(error))
        while any(process.poll() is None for process in processes.values()) and time.time() < deadline + 4:
            time.sleep(1.0)
            if int(time.monotonic() - began) % 15 == 0:
                there = int(pool.ready.sum())
                rate = (there - before) / (time.monotonic() - began)
                say(f"{there} clips, {rate:.1f} a second, {deadline - time.time():.0f} s left")
            if time.time() > training_deadline(deadline, options):
                filling.stop()
    finally:
        filling.stop()
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
    figures = {
        "clips": int(pool.ready.sum()),
        "clips_per_second": round((int(pool.ready.sum()) - before) / (time.monotonic() - began), 2),
        "exit_codes": {road: process.returncode for road, process in processes.items()},
    }
    for road in roads:
        result = scratch / road / "results.json"
        figures[road] = json.loads(result.read_text()) if result.exists() else None
    (options.output / "results.json").write_text(json.dumps(figures, indent=1))
    seconds, files = time.time() - deadline + 60 * options.minutes, sorted(os.listdir(options.output))
    say(f"done in {seconds:.0f} s: {', '.join(files)}")
    return 0 if not any(figures["exit_codes"].values()) else 1


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

    expected = options.height, options.width
    row = options.held_out
    for example in read_examples(options.shards):
        if example.frames.shape[:3] != (options.frames, *expected):
            raise TrainingError(
                f"The examples in {options.shards} are {example.frames.shape[:3]} where the clips are"
                f" {(options.frames, *expected)} frames, rows and columns; render them at this size."
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

    from ..poseanything.models.linear_vae import AutoencoderLinear
    from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
    from .pool_batches import PoolBatches, fit_vae
    from .settings import TrainingSettings
    from .trainer import Trainer, initialise

    road, chosen = options.road, ROADS[options.road]
    torch.set_num_threads(2 if torch.cuda.is_available() else 1)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = options.scratch / road
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool(options.scratch / "pool")
    ends = training_deadline(options.deadline, options)
    begin_with = min(options.begin_with, pool.size - options.held_out)
    there = wait_for_rows(pool, options.held_out + begin_with, seconds=max(0.4 * (ends - time.time()), 1))
    say(f"{road}: begins with {there} clips on {device}")

    z_dim = options.z_dim or chosen["z_dim"]
    if (folder / "vae" / "config.json").exists():
        vae = AutoencoderLinear.from_pretrained(folder / "vae").requires_grad_(False)
    else:
        rows = pool.rows()
        vae = fit_vae(pool, rows[rows >= options.held_out][:256], z_dim, device)
        vae.save_pretrained(folder / "vae")
    torch.manual_seed(options.seed)
    transformer = PoseAnythingTransformer3DModel(
        **{
            "patch_size": (1, 1, 1),
            "num_attention_heads": options.heads,
            "attention_head_dim": 64,
            "in_channels": 2 * z_dim,
            "out_channels": z_dim,
            "text_dim": TEXT_DIM,
            "ffn_dim": 256 * options.heads,
            "rope_max_seq_len": 256,
            "text_conditioning": False,
            "sample_frames": options.frames,
            "sample_size": max(options.width, options.height),
        }
        | chosen["transformer"]
        | ({"num_layers": options.layers} if options.layers else {})
    )
    initialise(transformer)
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
        TEXT_DIM,
        device,
        drafts=road == "bridge",
        held_out=options.held_out,
        capacity=capacity,
        preferred=options.rendered,
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
        figures, sheet = measure(trainer, batches, vae, road, clips, until, brief=not last)
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
        for place in (folder / "results.json", options.output / f"{road}.json"):
            place.write_text(json.dumps(result, indent=1))
        trainer.export(folder / "transformer")
        copy.deepcopy(vae).half().save_pretrained(folder / "vae-half")  # the next batch is in the making
        pack(options.output / f"{road}.tar.gz", folder)
        if sheet is not None:
            import cv2

            cv2.imwrite(str(options.output / f"{road}.png"), sheet[..., ::-1])
        say(f"{road}: {json.dumps(history[-1])}")

    trainer = Trainer(folder, settings, transformer, batches, report, ends, checkpointed)
    for _ in range(3):
        try:
            trainer.run()
            return 0
        except TrainingError as error:
            say(f"{road}: {error}")
            if "no number" not in str(error):
                return 1
            trainer.learning_rate /= 2  # from the last checkpoint on, or from the start
            if trainer.last_checkpoint() is None:
                initialise(trainer.model)
    return 1


def read_log(path: Path) -> list[dict]:
    """The log's lines, at most about 100 of them."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines[:: max(len(lines) // 100, 1)]]


def pack(target: Path, folder: Path) -> None:
    """The checkpoint in diffusers' layout as one file; it replaces the last when it is whole."""
    growing = target.with_name(target.name + ".part")
    with tarfile.open(growing, "w:gz", compresslevel=6) as tar:
        tar.add(folder / "transformer", "transformer")
        tar.add(folder / "vae-half", "vae")
    os.replace(growing, target)


def measure(trainer, batches, vae, road: str, clips: int, until: float, brief: bool):
    """Figures on held out clips, as far as there is time, and a sheet of the first ones."""
    import numpy as np
    import torch

    from ..evaluation.pixels import psnr
    from ..evaluation.statistics import compare, mean_of
    from ..poseanything.models.streaming_vae import decode_frames
    from .objective import sample
    from .sparse_poses import FRAMES_OF_THE_PAPER

    frames_count = batches.pool.settings.num_frames
    tenth = np.zeros(frames_count, bool)
    tenth[
        np.linspace(0, frames_count - 1, max(2, round(0.1 * FRAMES_OF_THE_PAPER * frames_count / 81))).astype(
            int
        )
    ] = True
    if road == "bridge":
        variants = {
            "1 step": (1, {}),
            "2 steps": (2, {}),
            "4 steps": (4, {}),
            "wrong pose": (1, {"pose_shift": 7}),
        }
        brief_variants = ("1 step",)
    else:
        variants = {
            "8 steps": (8, {"parts": "drawn"}),
            "no parts": (8, {}),
            "whole subject": (8, {"parts": "whole"}),
            "wrong pose": (8, {"parts": "drawn", "pose_shift": 7}),
            "known parts": (8, {"parts": "known"}),
            "4 steps": (4, {"parts": "drawn"}),
            "1 step": (1, {"parts": "drawn"}),
            "poses of a tenth": (8, {"parts": "drawn", "kept": tenth}),
        }
        brief_variants = ("8 steps",)
    model, device = trainer.model, batches.device
    measured: dict[str, list] = {}
    sheet = None
    model.eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=trainer.settings.mixed_precision == "bf16")
    with torch.no_grad(), trainer.averaged(), autocast:
        for name, (steps, conditions) in variants.items():
            if (brief and name not in brief_variants) or time.time() > until:
                continue
            scores: list = []
            for start in range(0, clips, 16):
                if time.time() > until:
                    break
                size = min(16, clips - start)
                truth, subject, draft = batches.held_out_frames(start, size)
                generator = torch.Generator(device).manual_seed(start)
                latents = sample(model, batches.held_out_batch(start, size, **conditions), steps, generator)
                with torch.autocast(device.type, enabled=False):
                    video = torch.cat(list(decode_frames(vae, latents.float())), 2)
                images = ((video.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255)
                scores.append(torch.stack([psnr(images, truth, subject), psnr(images, truth)], 1).cpu())
                if start == 0 and sheet is None:
                    sheet = draw_sheet(truth, images, draft)
            if scores:
                measured[name] = torch.cat(scores).numpy()
        baselines: dict[str, list] = {"first frame repeated": []} | ({"draft": []} if batches.drafts else {})
        for start in range(0, clips, 16):
            truth, subject, draft = batches.held_out_frames(start, min(16, clips - start))
            still = truth[:, :1].expand_as(truth)
            for name, images in {"first frame repeated": still, "draft": draft}.items():
                if images is not None:
                    baselines[name].append(
                        torch.stack([psnr(images, truth, subject), psnr(images, truth)], 1).cpu()
                    )
    model.train()
    measured |= {name: torch.cat(values).numpy() for name, values in baselines.items()}
    if not scores:
        return {}, sheet
    figures = {
        name: {"subject": mean_of(values[:, 0]), "all": mean_of(values[:, 1])}
        for name, values in measured.items()
    }
    first = next(iter(variants))
    paired = {}
    for name, values in measured.items():
        if name != first and first in measured:
            shared = min(len(values), len(measured[first]))
            paired[f"{first} over {name}"] = {
                region: compare(measured[first][:shared, column], values[:shared, column])
                for column, region in enumerate(("subject", "all"))
            }
    return {"psnr": figures, "paired": paired}, sheet


def draw_sheet(truth, images, draft):
    """uint8 [H, W, 3]: a clip a row; of four frames the truth, what was made, and the draft."""
    import torch

    shown = [0, 1, truth.shape[1] // 2, truth.shape[1] - 1]
    rows = []
    for clip in range(min(12, len(truth))):
        row = []
        for frame in shown:
            row += [truth[clip, frame], images[clip, frame].byte()]
            if draft is not None:
                row.append(draft[clip, frame])
        rows.append(torch.cat(row, 1))
    return torch.cat(rows, 0).cpu().numpy()


if __name__ == "__main__":
    sys.exit(main())
