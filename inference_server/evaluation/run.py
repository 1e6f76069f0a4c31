"""Clips against their truth: of engines that are asked here, or of folders that are there."""

from __future__ import annotations

import dataclasses
import html
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ..engines.base import Engine, Picture
from ..training.examples import Example
from .metrics import (
    absent_measures,
    background_flow,
    lpips,
    part_colour_drift,
    part_pck,
    pixel_measures,
    pose_adherence,
)
from .statistics import compare, mean_of

Source = Callable[[Example], np.ndarray]
"""From an example to the frames that are to be measured, uint8 [F, H, W, 3]."""

LESS_IS_BETTER = ("l1", "lpips", "part_colour_drift", "background_flow_error", "seconds")


def from_engine(engine: Engine, steps: int | None = None, options: dict | None = None) -> Source:
    """Asks an engine for each example's clip."""
    for _ in engine.load():
        pass

    def make(example: Example) -> np.ndarray:
        changes: dict = {"engine": engine.describe().name, "engine_options": options or {}}
        changes["num_inference_steps"] = steps or example.request.num_inference_steps
        events = engine.generate(dataclasses.replace(example.request, **changes), lambda: False)
        return np.stack([event.image for event in events if isinstance(event, Picture)])

    return make


def first_frame(example: Example) -> np.ndarray:
    """The least that any result must be better than: the first frame repeated."""
    return np.repeat(example.frames[:1], len(example.frames), 0)


def from_folder(folder: Path) -> Source:
    """Reads `JOB.mp4` or the pictures in `JOB/`, JOB being the request's."""

    def read(example: Example) -> np.ndarray:
        from ..training.dataset import read_video
        from ..training.errors import TrainingError

        found = [path for path in folder.glob(f"{example.request.job}*") if path.stem == example.request.job]
        if not found:
            raise TrainingError(
                f"{folder} holds nothing named {example.request.job}; make that clip as well."
            )
        if found[0].is_dir():
            pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted(found[0].glob("*.png"))]
            frames = np.stack(pictures)
        else:
            frames = read_video(found[0])
        if frames.shape != example.frames.shape:
            raise TrainingError(f"{found[0]} is {frames.shape} where the truth is {example.frames.shape}.")
        return frames

    return read


def evaluate(
    examples: Iterable[Example],
    sources: dict[str, Source],
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Example, dict[str, np.ndarray], dict[str, dict[str, float]]]]:
    """For each example the clips and the measures of each source."""
    with_lpips = "lpips" not in absent_measures()
    for number, example in enumerate(examples, 1):
        clips, measures = {}, {}
        for name, source in sources.items():
            began = time.perf_counter()
            clips[name] = source(example)
            seconds = time.perf_counter() - began
            measures[name] = measure(clips[name], example, with_lpips) | {"seconds": seconds}
        measures["truth"] = measure(example.frames, example, False)
        yield example, clips, measures
        progress(number)


def measure(frames: np.ndarray, example: Example, with_lpips: bool = False) -> dict[str, float]:
    """All measures of a clip that its example allows."""
    measures = pixel_measures(frames, example.frames, example.labels)
    if with_lpips:
        measures["lpips"] = lpips(frames, example.frames)
    if example.labels is not None:
        measures["part_pck"] = part_pck(frames, example.frames, example.labels)
        measures["part_colour_drift"] = part_colour_drift(frames, example.labels)
        measures["pose_adherence"] = pose_adherence(frames, example.request, example.labels)
        measures |= background_flow(frames, example.request, example.labels)
    return measures


def summarise(rows: list[dict[str, dict[str, float]]]) -> dict:
    """Means with 95 % intervals by source and measure, and each source against the first, clip by clip."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    measured = {
        name: {key: np.array([row[name].get(key, np.nan) for row in rows]) for key in rows[0][name]}
        for name in names
    }
    first = names[0]
    return {
        "clips": len(rows),
        "absent": absent_measures(),
        "measures": {n: {k: mean_of(v) for k, v in values.items()} for n, values in measured.items()},
        "against": {
            f"{first} over {name}": {
                key: _better(key, measured[first][key], measured[name][key])
                for key in measured[first]
                if key in measured[name]
            }
            for name in names[1:]
            if name != "truth"
        },
    }


def _better(key: str, values: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """How much better; for measures of which less is better the difference is turned around."""
    return compare(others, values) if key in LESS_IS_BETTER else compare(values, others)


def table(summary: dict) -> str:
    """The means as a Markdown table, a row for each source."""
    measures = list(next(iter(summary["measures"].values())))
    lines = ["| |" + "|".join(measures) + "|", "|---" * (len(measures) + 1) + "|"]
    for name, values in summary["measures"].items():
        cells = [
            f"{values[m]['mean']:.4g} ± {values[m]['interval']:.2g}" if m in values else "" for m in measures
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [f"{name} is absent: {why}." for name, why in summary["absent"].items()]
    return "\n".join(lines)


def draw_sheet(example: Example, clips: dict[str, np.ndarray], path: Path, frames: int = 5) -> None:
    """A PNG with a row for each source and the truth above."""
    shown = np.linspace(0, len(example.frames) - 1, frames).astype(int)
    rows = [np.concatenate(list(clip[shown]), 1) for clip in (example.frames, *clips.values())]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def write_page(folder: Path, summary: dict, sheets: list[tuple[str, list[str]]]) -> None:
    """`index.html` with the table and the sheets; `sheets` are (picture's name, what its rows show)."""
    text = html.escape(table(summary))
    parts = [f"<title>Evaluation</title><pre>{text}</pre>"]
    for name, rows in sheets:
        parts.append(f"<p>{html.escape(', '.join(rows))}</p><img src='{html.escape(name)}'>")
    (folder / "index.html").write_text(
        "<!doctype html><meta charset=utf-8>" + "".join(parts), encoding="utf-8"
    )
    (folder / "measures.json").write_text(json.dumps(summary, indent=1))
    (folder / "table.md").write_text(table(summary) + "\n", encoding="utf-8")
