"""`train`: a model of any size by a file of settings; the paper's three stages are `stage = "base"`,
`"mixed"` and `"parts"`. Killed and run again, it goes on where it was."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from ..datasets.errors import DatasetError
from ..training.errors import TrainingError
from .progress_line import ProgressLine, clock
from .values import count


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("train", help="train a model", description=__doc__)
    parser.add_argument("settings", type=Path, metavar="SETTINGS.toml", help="see training/settings.py")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        action="extend",  # named twice, both are meant
        required=True,
        metavar="FOLDER",
        help="data sets",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
    parser.add_argument(
        "--split",
        default="train",
        choices=("train", "all"),
        help="of the data sets; all for the takes of one character; default: %(default)s",
    )
    parser.add_argument("--vae", type=Path, help="file or folder of the VAE, instead of the settings'")
    parser.add_argument("--text-encoder", type=Path, help="needed where the model is trained with prompts")
    parser.add_argument("--cache", type=Path, help="for latents; default: cache/ in the output folder")
    parser.add_argument("--steps", type=count, help="instead of the settings'")
    parser.add_argument("--cpu", action="store_true", help="train on the processor")
    parser.add_argument(
        "--plan", action="store_true", help="say what the run takes of a card's memory, and train nothing"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from safetensors import SafetensorError

    try:
        with ProgressLine() as line:
            _train(args, line)
    except (DatasetError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:  # of a full disk, most of all
        print(
            f"The run was stopped ({error}); free some space on the disk of {args.output} and run again: it"
            " goes on from the last whole checkpoint.",
            file=sys.stderr,
        )
        return 1
    return 0


def _train(args: argparse.Namespace, line: ProgressLine) -> None:
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from ..poseanything.checkpoints import CheckpointError, load_vae
    from ..training.beginning import begin_with
    from ..training.sample_sheets import SampleSheets
    from ..training.settings import TrainingSettings
    from ..training.shard_batches import LatentCache, ShardBatches
    from ..training.trainer import Trainer, declare

    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        raise TrainingError(
            "DeepSpeed keeps a model and its checkpoints in a way of its own, which is not supported; "
            "launch with inference_server/training/recipes/fsdp2.yaml, which divides a model among cards too."
        )
    changes = {} if args.steps is None else {"steps": args.steps}
    settings = TrainingSettings.read(args.settings, **changes)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    if args.plan:
        print(_plan(args, settings))
        return
    try:
        # On a card as the engine computes it.
        half = device.type == "cuda" and settings.mixed_precision == "bf16"
        dtype = torch.bfloat16 if half else torch.float32
        vae = load_vae(_vae(args, settings), torch_dtype=dtype).requires_grad_(False)
        transformer = begin_with(settings)
        encode_prompt = _text(transformer, args.text_encoder, device)
    except CheckpointError as error:
        raise TrainingError(str(error)) from error
    declare(transformer, settings)
    drafts = "draft" in (transformer.config.init, transformer.config.prediction_base)
    split, folder = None if args.split == "all" else args.split, args.cache or args.output / "cache"
    with PartialState(cpu=args.cpu).main_process_first():  # the others find what it has encoded
        fit, progress = _fit(vae, transformer, settings), partial(_encoding, line)
        cache = LatentCache(folder, args.data, vae, device, split, drafts, progress, fit)
    line.done()
    batches = ShardBatches(cache, settings, transformer.config.patch_size, encode_prompt, drafts)
    del encode_prompt  # the text encoder, where there is one, gives its memory back
    sheets = {"after_checkpoint": SampleSheets(batches, vae)} if settings.tensorboard else {}
    report = partial(_report, line)
    trainer = Trainer(args.output, settings, transformer, batches, report, cpu=args.cpu, **sheets)
    trainer.run()
    line.done()
    if settings.trainable == "lora":
        made = args.output / "lora.safetensors"
        trainer.export_lora(made)
    else:
        made = args.output / "transformer"
        trainer.export(made, torch.bfloat16)
    if trainer.accelerator.is_main_process:
        print(f"{trainer.step} steps; the averaged weights are in {made}")
    trainer.end()


def _vae(args: argparse.Namespace, settings) -> Path:
    if args.vae is None and not settings.vae:
        raise TrainingError("Pictures are coded by a VAE; name its file or folder by --vae.")
    return args.vae or Path(settings.vae)


def _fit(vae, transformer, settings):
    from ..datasets.release import Fit
    from ..poseanything.conditioning.latent_grid import LatentGrid

    grid = LatentGrid.of(vae.config, transformer.config)
    return Fit(grid, settings.longer_side, settings.most_frames)


def _plan(args: argparse.Namespace, settings) -> str:
    """What the run takes of a card's memory, from the files' headers and the first example."""
    from ..poseanything.checkpoints import CheckpointError
    from ..poseanything.checkpoints.vae import open_vae
    from ..poseanything.runtime.requirements import Shape
    from ..training.beginning import outline
    from ..training.planning import plan_training
    from ..training.shard_batches import open_source
    from ..training.trainer import freeze

    try:
        transformer = outline(settings)
        vae = open_vae(_vae(args, settings)).model
    except CheckpointError as error:
        raise TrainingError(str(error)) from error
    freeze(transformer, settings.trainable, settings.lora_rank)
    source = open_source(args.data[0], None, _fit(vae, transformer, settings))
    request = next(source.examples())().request
    shape = Shape(request.width, request.height, request.num_frames)
    return (
        f"{settings.batch_size} examples of {shape.width} x {shape.height} and {shape.num_frames} frames at"
        f" once, by an estimate:\n{plan_training(transformer, vae, settings, shape)}"
    )


def _text(transformer, path: Path | None, device):
    from ..poseanything.checkpoints import load_text_encoder
    from ..poseanything.conditioning.prompts import encode_prompts
    from ..training.shard_batches import no_text

    if not transformer.config.text_conditioning:
        return no_text(transformer.config.text_dim)
    if path is None:
        raise TrainingError("The model is trained with prompts; name its text encoder by --text-encoder.")
    text_encoder, tokenizer = load_text_encoder(path, device=device)
    return lambda prompt: encode_prompts(text_encoder, tokenizer, [prompt], device)


def _encoding(line: ProgressLine, done: int, total: int) -> None:
    line(f"encoding examples: {done} of {total}")


def _report(line: ProgressLine, entry: dict) -> None:
    if "note" in entry:
        line.done()
        print(entry["note"], file=sys.stderr)
        return
    text = f"step {entry['step']}, loss {entry['loss']:.4f}, {entry['examples_per_second']:.2f} examples/s"
    line(f"{text}, {clock(entry['seconds_left'])} left")
