"""What the benchmarks of the small model have in common: its engine and pipeline, many clips, tables and
pictures."""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from inference_server.datasets.examples import Example
from inference_server.engines.base import Picture
from inference_server.engines.poseanything.engine import PoseAnythingEngine
from inference_server.evaluation.statistics import compare, mean_of
from inference_server.poseanything.checkpoints import load_transformer, load_vae
from inference_server.poseanything.sampling.options import Settings
from inference_server.poseanything.sampling.pipeline import PoseAnythingPipeline
from inference_server.poseanything.sampling.schedulers import make_scheduler
from inference_server.synthesis.clips import make_clip
from shared.messages import GenerationRequest
from shared.processes import end_with_parent
from tests.training.mini_clips import FROM_NOISE

LEAST_SUBJECT = 1 / 64
"""Of every frame, the subject's pixels."""
LONGEST_GAP = 2.0
"""Times the usual step, from frame 0 to the next: in half of the drawn clips time passes there."""
LESS_IS_BETTER = ("drift", "time")
BEST_AT_ONE = ("detail", "way")
"""What the names of figures begin with that are best so."""

Rows = dict[str, list[dict[str, float]]]
"""By way, the figures of each clip."""


def arguments_of(description: str | None, clips: int, steps: bool = True) -> argparse.ArgumentParser:
    """What the benchmarks can be told; without `steps` not in how many."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=clips, help="default: %(default)s")
    if steps:
        parser.add_argument("--steps", type=int, default=0, help="default: the checkpoint's")
    parser.add_argument("--model", type=Path, default=FROM_NOISE, help="default: the one of the tests")
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--figures", type=Path, metavar="JSON", help="file for the figures of each clip")
    return parser


def small_pipeline(model: Path, steps: int = 0) -> tuple[PoseAnythingPipeline, Settings]:
    """A small model from a folder with `transformer` and `vae`, on a card where there is one; the VAE of the
    tests' where it has none."""
    transformer = load_transformer(model / "transformer", torch_dtype=torch.float32)
    vae = model if (model / "vae").exists() else FROM_NOISE
    scheduler = make_scheduler(shift=transformer.config.flow_shift)
    pipeline = PoseAnythingPipeline(
        None, None, load_vae(vae / "vae", torch_dtype=torch.float32), transformer, scheduler
    )
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return pipeline, Settings(num_inference_steps=steps or transformer.config.num_inference_steps)


def small_engine(model: Path, **declared: Any) -> PoseAnythingEngine:
    """The engine that users call, with a small model for its weights: a folder with `transformer` and `vae`.
    `declared` are entries of the transformer's configuration that it has otherwise."""
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name) / "weights"
    shutil.copytree(model, folder)
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | declared))

    class SmallEngine(PoseAnythingEngine):
        kept = holder  # until nothing needs its files

        @classmethod
        def weights_folder(cls) -> Path:
            return folder

    engine = SmallEngine()
    list(engine.load())
    return engine


def frames_of(engine: PoseAnythingEngine, request: GenerationRequest) -> np.ndarray:
    """uint8 [F, H, W, 3], what the engine makes of a request."""
    events = engine.generate(request, lambda: False)
    return np.stack([event.image for event in events if isinstance(event, Picture)])


def drawn_clips(first_seed: int, *settings: Any) -> Iterator[Example]:
    """Clips of all seeds from the first on that show their subject in every frame; `settings` as `make_clip`
    takes them."""
    return filter(_shows_its_subject, (make_clip(seed, *settings) for seed in itertools.count(first_seed)))


def _shows_its_subject(clip: Example) -> bool:
    return (clip.labels > 0).mean((1, 2)).min() >= LEAST_SUBJECT


def leaves_no_time_out(clip: Example) -> bool:
    steps = np.abs(np.diff(clip.frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    return steps[0] <= LONGEST_GAP * np.median(steps)


def each(
    jobs: Iterable, work: Callable[[Any, Any], Any], start: Callable[[], Any], processes: int
) -> Iterator:
    """`work(started, job)` of all jobs, in their order; `started` is what each process begins with."""
    if processes == 1:
        started = start()
        yield from (work(started, job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (start, work)) as executor:
        yield from executor.map(_go_on, jobs)


def rows_of(clips: Iterable[dict[str, dict[str, float]]]) -> Rows:
    """The figures of clips, which have them by way, as a row each."""
    rows: Rows = defaultdict(list)
    for figures in clips:
        for way, of in figures.items():
            rows[way].append(of)
    return rows


_of_this_process: list = []


def _begin(start: Callable[[], Any], work: Callable[[Any, Any], Any]) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    _of_this_process[:] = start(), work


def _go_on(job: Any) -> Any:
    started, work = _of_this_process
    return work(started, job)


def draw(path: Path, clips: list[np.ndarray], every: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate(list(clip[::every]), 1) for clip in clips]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 80])


def show(rows: Rows, file: Path | None) -> None:
    """Print the table; with a file, write each clip's figures there as well."""
    if file is not None:
        file.write_text(json.dumps(rows))
    print(table(rows), flush=True)


def table(rows: Rows) -> str:
    """The means, and how much better the first way is than each other; see `LESS_IS_BETTER` and
    `BEST_AT_ONE`."""
    first, *others = rows
    titles = [f"{len(rows[first])} clips", *rows, *(f"better than `{name}` by" for name in others)]
    lines = [titles, ["---"] * len(titles)]
    for key in rows[first][0]:
        values = {name: np.array([row[key] for row in of]) for name, of in rows.items()}
        cells = [said(mean_of(of)) for of in values.values()]
        for other in others:
            pair = values[first], values[other]
            if key.startswith(BEST_AT_ONE):
                pair = tuple(-np.abs(of - 1) for of in pair)
            better = compare(*(pair[::-1] if key.startswith(LESS_IS_BETTER) else pair))
            cells.append(f"{said(better, '+')}, in {better['wins']:.0%}")
        lines.append([key, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def said(figure: dict[str, float], sign: str = "") -> str:
    return f"{figure['mean']:{sign}.2f} ± {figure['interval']:.2f}"
