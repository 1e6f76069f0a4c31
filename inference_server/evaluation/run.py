"""Clips against their truth: of engines that are asked here, or of folders that are there."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shared.engines import Guidance
from shared.messages import GenerationRequest

from ..datasets.examples import Example
from ..datasets.release import Fit, ReleaseExample, to_example
from ..engines.base import Engine, Picture
from .metrics import (
    background_flow,
    camera_share,
    detail,
    part_pck,
    pixel_measures,
    pose_adherence,
)
from .networks import Features, VideoDistance, absent_measures, lpips
from .parts import QUARTERS, Colour, Look, Texture, drift_by_quarter, mean_drift, part_drifts
from .skeletons import skeleton_measures
from .statistics import compare, mean_of

Source = Callable[[Example | ReleaseExample], np.ndarray]
"""From an example to the frames that are to be measured, uint8 [F, H, W, 3]."""

DRIFTS = ("part_colour_drift", "part_texture_drift", "part_feature_drift")
QUARTER = ", quarter "
"""In the names of drifts by quarter of the clip, between the drift's and the quarter's number."""
OF_PART = "part_pck, part "
"""What the names of the shares of single parts begin with, before the limb's name."""
SHOWN_PARTS = 24
"""Rows of parts in the table, at most; all are in the JSON."""
LESS_IS_BETTER = ("l1", "lpips", "fvd", *DRIFTS, "skeleton_chamfer", "background_flow_error", "seconds")
BEST_AT_ONE = ("detail", "camera_share")


def from_engine(engine: Engine, steps: int | None = None, options: dict | None = None) -> Source:
    """Asks an engine for each example's clip. Where its poses are pictures and the engine needs limbs, they
    are those of the drawings."""
    for _ in engine.load():
        pass

    def make(example: Example | ReleaseExample) -> np.ndarray:
        if isinstance(example, ReleaseExample):
            return _from_pictures(engine, example, steps, options or {})
        changes: dict = {"engine": engine.describe().name, "engine_options": options or {}}
        changes["num_inference_steps"] = steps or example.request.num_inference_steps
        events = engine.generate(dataclasses.replace(example.request, **changes), lambda: False)
        return np.stack([event.image for event in events if isinstance(event, Picture)])

    return make


def _from_pictures(engine: Engine, example: ReleaseExample, steps: int | None, options: dict) -> np.ndarray:
    """The clip of pose pictures, as large as the example and as long as the model makes of it."""
    from ..poseanything.conditioning.conditions import Conditions
    from ..poseanything.conditioning.files import squash_photo
    from ..poseanything.conditioning.latent_grid import LatentGrid
    from ..poseanything.conditioning.parts import squash
    from ..poseanything.conditioning.parts.segments import is_line
    from ..poseanything.sampling.request import SamplingRequest

    about = engine.describe()
    grid = LatentGrid(about.size_multiple, about.frame_step, patch_size=1)
    height, width = example.frames.shape[1:3]
    count = grid.num_frames(grid.latent_frames(min(len(example.frames), about.max_frames)))
    size = grid.fit_size(width, height)
    steps = steps or about.default_steps
    if engine.takes_drawings(options):
        poses = np.stack([squash(pose, *size) for pose in example.poses[:count]])
        conditions = Conditions(
            first_frame=squash_photo(example.first_frame, *size),
            pose_images=poses,
            pose_frames=[index for index, pose in enumerate(poses) if is_line(pose).any()],
            prompt=example.prompt,
        )
        sampling = SamplingRequest.of(conditions, Guidance(), 0, steps, options)
        events = engine.make(sampling, lambda: False)  # type: ignore[attr-defined]
    else:
        request = to_example(example, Fit(grid, 832, about.max_frames)).request
        changes: dict = {"engine": about.name, "num_inference_steps": steps, "engine_options": options}
        events = engine.generate(dataclasses.replace(request, **changes), lambda: False)
    return np.stack(
        [squash_photo(event.image, width, height) for event in events if isinstance(event, Picture)]
    )


def first_frame(example: Example | ReleaseExample) -> np.ndarray:
    """The least that any result must be better than: the first frame repeated."""
    return np.repeat(example.frames[:1], len(example.frames), 0)


def from_folder(folder: Path) -> Source:
    """Reads `NAME.mp4` or the pictures in `NAME/`; the name is the request's job, or the example's in a set
    of pictures."""

    def read(example: Example | ReleaseExample) -> np.ndarray:
        from ..datasets.dataset import read_pictures, read_video
        from ..datasets.errors import DatasetError

        name = name_of(example)
        found = [path for path in folder.glob(f"{name}*") if path.stem == name]
        if not found:
            raise DatasetError(f"{folder} holds nothing named {name}; make that clip as well.")
        frames = read_pictures(found[0], cv2.IMREAD_COLOR) if found[0].is_dir() else read_video(found[0])
        if frames.shape[1:] != example.frames.shape[1:] or len(frames) > len(example.frames):
            raise DatasetError(f"{found[0]} is {frames.shape} where the truth is {example.frames.shape}.")
        return frames

    return read


def name_of(example: Example | ReleaseExample) -> str:
    return example.name if isinstance(example, ReleaseExample) else example.request.job


def evaluate(
    examples: Iterable[Example | ReleaseExample],
    sources: dict[str, Source],
    progress: Callable[[int], None] = lambda done: None,
    distance: VideoDistance | None = None,
) -> Iterator[tuple[Example | ReleaseExample, dict[str, np.ndarray], dict[str, dict[str, float]]]]:
    """For each example the clips and the measures of each source. `distance` takes in what was made and the
    truth."""
    absent = absent_measures()
    with_lpips, looks = "lpips" not in absent, _looks(absent)
    for number, example in enumerate(examples, 1):
        clips, measures = {}, {}
        of_truth = _drifts(example.frames, example, looks)
        for name, source in sources.items():
            began = time.perf_counter()
            clips[name] = source(example)
            seconds = time.perf_counter() - began
            measures[name] = measure(clips[name], example, with_lpips)
            measures[name] |= _drift_measures(_drifts(clips[name], example, looks), of_truth)
            measures[name]["seconds"] = seconds
            if distance is not None:
                distance.add(name, clips[name])
        if distance is not None:
            distance.add("truth", example.frames)
        measures["truth"] = measure(example.frames, example, False)
        measures["truth"] |= {name: mean_drift(drifts) for name, drifts in of_truth.items()}
        yield example, clips, measures
        progress(number)


def _looks(absent: dict[str, str]) -> dict[str, Look]:
    """By the drift that is told of them."""
    colour, texture, features = DRIFTS
    looks: dict[str, Look] = {colour: Colour(), texture: Texture()}
    return looks if features in absent else looks | {features: Features()}


def _drifts(
    frames: np.ndarray, example: Example | ReleaseExample, looks: dict[str, Look]
) -> dict[str, np.ndarray]:
    """By name, those of all parts of a clip (`part_drifts`) from the first frame that is given."""
    if not isinstance(example, Example) or example.labels is None:
        return {}
    clip, labels = np.concatenate([example.frames[:1], frames[1:]]), example.labels[: len(frames)]
    return {name: part_drifts(clip, labels, look) for name, look in looks.items()}


def _drift_measures(drifts: dict[str, np.ndarray], of_truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Of a clip, and by quarter what it drifts beyond its truth."""
    measures = {name: mean_drift(drift) for name, drift in drifts.items()}
    for name, drift in drifts.items():
        beyond = drift_by_quarter(drift - of_truth[name][: len(drift)])
        measures |= {f"{name}{QUARTER}{number}": mean for number, mean in enumerate(beyond, 1)}
    return measures


def measure(
    frames: np.ndarray, example: Example | ReleaseExample, with_lpips: bool = False
) -> dict[str, float]:
    """All measures of a clip that its example allows, but for drifts; of as many of its frames as the clip
    has."""
    truth, labels = example.frames[: len(frames)], None
    if isinstance(example, Example) and example.labels is not None:
        labels = example.labels[: len(frames)]
    measures = pixel_measures(frames, truth, labels)
    measures["detail"] = detail(frames, truth, labels)
    if with_lpips:
        measures["lpips"] = lpips(frames, truth)
    if isinstance(example, Example) and labels is not None:
        measures |= _part_measures(part_pck(frames, truth, labels), example.request)
        measures |= skeleton_measures(frames, truth, example.request, labels)
        measures["pose_adherence"] = pose_adherence(frames, example.request, labels)
        measures |= background_flow(frames, example.request, labels)
        measures["camera_share"] = camera_share(frames, example.request, labels)
    return measures


def _part_measures(hits: dict[int, np.ndarray], request: GenerationRequest) -> dict[str, float]:
    """The share of all hits of `part_pck`, and that of each part by its limb's name."""
    named: dict[str, list[np.ndarray]] = {}
    for label, own in hits.items():
        named.setdefault(request.pose.limbs[label - 1].name, []).append(own)
    every = np.concatenate([*hits.values()]) if hits else np.array([np.nan])
    return {"part_pck": float(every.mean())} | {
        OF_PART + name: float(np.concatenate(own).mean()) for name, own in named.items()
    }


def summarise(rows: list[dict[str, dict[str, float]]], distance: VideoDistance | None = None) -> dict:
    """Means with 95 % intervals by source and measure, and each source against the first, clip by clip; FVD
    is one number for a source."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    measured = {
        name: {
            key: np.array([row[name].get(key, np.nan) for row in rows])
            for key in dict.fromkeys(key for row in rows for key in row[name])
        }
        for name in names
    }
    first = names[0]
    means = {n: {k: mean_of(v) for k, v in values.items()} for n, values in measured.items()}
    if distance is not None:
        for name in means:
            value = distance.between(name, "truth") if name != "truth" else 0.0
            means[name]["fvd"] = {"mean": round(value, 2), "interval": float("nan"), "clips": len(rows)}
    return {
        "clips": len(rows),
        "absent": absent_measures(),
        "measures": means,
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
    """How much better; for measures of which less is better the difference is turned around, and those that
    are best at 1 are compared by how far they are from it."""
    if key in BEST_AT_ONE:
        return compare(np.abs(others - 1), np.abs(values - 1))
    less = key.partition(QUARTER)[0] in LESS_IS_BETTER
    return compare(others, values) if less else compare(values, others)


def _in_json(value: Any) -> Any:
    """A summary in which what is no number, such as the interval of a single clip, is null: JSON has none."""
    if isinstance(value, dict):
        return {key: _in_json(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(summary: dict) -> str:
    """The means as a Markdown table, a row for each source, one of single parts, and one of the drifts by
    quarter."""
    means = summary["measures"]
    every = dict.fromkeys(m for of in means.values() for m in of)
    measures = [m for m in every if QUARTER not in m and not m.startswith(OF_PART)]
    lines = _lines(
        ["", *measures], [[name, *(figure(of.get(m)) for m in measures)] for name, of in means.items()]
    )
    first = next(iter(means.values()))
    parts = sorted(
        (m for m in every if m.startswith(OF_PART)), key=lambda m: first[m]["mean"] if m in first else 1.0
    )
    if parts:
        shown = parts[:SHOWN_PARTS]
        lines += ["", f"PCK of single parts, the {len(shown)} worst of {len(parts)}:", ""]
        rows = [[m.removeprefix(OF_PART), *(figure(of.get(m)) for of in means.values())] for m in shown]
        lines += _lines(["", *means], rows)
    quarters = range(1, QUARTERS + 1)
    drifts = [
        [name, drift, *(figure(of.get(f"{drift}{QUARTER}{number}")) for number in quarters)]
        for drift in DRIFTS
        for name, of in means.items()
        if f"{drift}{QUARTER}1" in of
    ]
    if drifts:
        lines += ["", "Identity: the drift of parts beyond the truth's, by quarter of the clip:", ""]
        lines += _lines(["", "", *(f"quarter {number}" for number in quarters)], drifts)
    lines += ["", *(f"{name} is absent: {why}." for name, why in summary["absent"].items())]
    return "\n".join(lines).rstrip()


def _lines(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def figure(measured: dict[str, float] | None) -> str:
    """A mean and its interval, where there are more clips than one; nothing where there is no mean."""
    if measured is None or not math.isfinite(measured["mean"]):
        return ""
    interval = f" ± {measured['interval']:.2g}" if math.isfinite(measured["interval"]) else ""
    return f"{measured['mean']:.4g}{interval}"


def draw_sheet(
    example: Example | ReleaseExample, clips: dict[str, np.ndarray], path: Path, frames: int = 5
) -> None:
    """A PNG with a row for each source and the truth above."""
    shown = np.linspace(0, len(example.frames) - 1, frames).astype(int)
    shown = shown.clip(max=min(map(len, clips.values()), default=len(example.frames)) - 1)
    rows = [np.concatenate(list(clip[shown]), 1) for clip in (example.frames, *clips.values())]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def write_page(folder: Path, summary: dict, sheets: list[tuple[str, list[str]]], reported: str = "") -> None:
    """`index.html` with the table, what else is reported, and the sheets; `sheets` are (picture's name, what
    its rows show)."""
    shown = "\n\n".join(filter(None, (table(summary), reported)))
    text = html.escape(shown)
    parts = [f"<title>Evaluation</title><pre>{text}</pre>"]
    for name, rows in sheets:
        parts.append(f"<p>{html.escape(', '.join(rows))}</p><img src='{html.escape(name)}'>")
    (folder / "index.html").write_text(
        "<!doctype html><meta charset=utf-8>" + "".join(parts), encoding="utf-8"
    )
    (folder / "measures.json").write_text(json.dumps(_in_json(summary), indent=1, allow_nan=False))
    (folder / "table.md").write_text(shown + "\n", encoding="utf-8")
