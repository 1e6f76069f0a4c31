"""The parts of the benchmark of a card; see `card`."""

from __future__ import annotations

import dataclasses
import gc
import os
import platform
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from unittest import mock

import diffusers
import psutil
import torch
import transformers
from diffusers.models.attention_dispatch import AttentionBackendName
from torch import nn

from inference_server.poseanything.conditioning.conditions import InputError
from inference_server.poseanything.models.part_tokens import PartTokens
from inference_server.poseanything.models.streaming_vae import decode_frames, encode_frames, to_video
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime.acceleration import (
    Compilation,
    compile_blocks,
    compile_vae,
    pad_in_convolutions,
    set_attention_backend,
    set_float8_products,
    set_vae_layout,
)
from inference_server.poseanything.runtime.card import GIB, Card
from inference_server.poseanything.runtime.requirements import Shape
from inference_server.poseanything.runtime.runner import ClipRunner
from inference_server.training.objective import Batch
from inference_server.training.planning import plan_training
from inference_server.training.settings import TrainingSettings
from inference_server.training.trainer import Trainer
from shared.messages import Guidance
from tests.benchmarks._card_jobs import job, play
from tests.benchmarks._card_report import Report
from tests.benchmarks._card_server import server
from tests.benchmarks._random_weights import FULL, TOY, ModelShape, filled, random_runner
from tests.benchmarks.card import BROKEN_CARD, ROOT
from tests.benchmarks.model import random_model, runs
from tests.benchmarks.ptcm import flops

PLAIN, OURS, PARTS_ON = "plain Wan", "ours", "ours, parts"
HELD_BY_OTHERS = 0.75 * GIB
"""Of a card as sold, what a desktop and CUDA itself take."""
TAKES_TURNS = 40 * GIB
"""A card with so much holds both models at once, so that they can be timed in turn."""
SILENT_BACKENDS = ("math", "npu", "xla", "flex", "hub", "aiter", "varlen")
"""In the names of backends that are for other devices, download their kernels, or are references."""


class Bench:
    """What the parts share: the card, the sizes, the report, and the models while they are needed."""

    def __init__(self, report: Report, toy: bool, until: float):
        self.report, self.toy, self.until = report, toy, until
        self.on_card = torch.cuda.is_available()
        self.device = torch.device("cuda", 0) if self.on_card else torch.device("cpu")
        self.dtype = torch.bfloat16
        self.shape: ModelShape = TOY if toy else FULL
        self.grid = (3, 4, 6) if toy else (21, 15, 26)
        self.clip = Shape(64, 64, 9) if toy else Shape(832, 480, 81)
        self.rounds = 2 if toy else 5
        self.part = ""
        self._models: dict[type, nn.Module] = {}

    @property
    def time_left(self) -> float:
        return self.until - time.time()

    @property
    def hopper(self) -> bool:
        """Whether the goals of speed, which are for one H100 or H200 at full size, hold here."""
        return self.on_card and not self.toy and torch.cuda.get_device_capability(self.device) >= (9, 0)

    @property
    def capacity(self) -> int:
        return torch.cuda.mem_get_info(self.device)[1] if self.on_card else psutil.virtual_memory().total

    def row(self, table: str, **cells) -> None:
        self.report.row(self.part, table, **cells)
        print(
            f"{self.part:12} {table}: " + ", ".join(f"{k} {_short(v)}" for k, v in cells.items()), flush=True
        )

    def promise(self, what: str, measured: float | str, wanted: str, kept: bool) -> None:
        self.report.promise(self.part, what, measured, wanted, kept)
        print(
            f"{self.part:12} {'kept  ' if kept else 'BROKEN'} {what}: {_short(measured)} ({wanted})",
            flush=True,
        )

    def note(self, text: str) -> None:
        self.report.note(self.part, text)

    def synchronize(self) -> None:
        if self.on_card:
            torch.cuda.synchronize(self.device)

    def allocated(self) -> int:
        gc.collect()
        self.synchronize()
        return torch.cuda.memory_allocated(self.device) if self.on_card else 0

    def reset_peak(self) -> None:
        if self.on_card:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.on_card else 0

    def seconds(self, run: Callable[[], object]) -> float:
        self.synchronize()
        began = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - began

    def working(self, run: Callable[[], object]) -> float:
        """GiB at most in use beyond what was there before."""
        before = self.allocated()
        self.reset_peak()
        run()
        self.synchronize()
        return max(0, self.peak() - before) / GIB

    def model(self, kind: type) -> nn.Module:
        """Ours, or diffusers' plain Wan of the same size; kept until `release`."""
        if kind not in self._models:
            if not self.on_card or self.capacity < TAKES_TURNS:
                self.release()
            opened = self.shape.open_transformer() if kind is PoseAnythingTransformer3DModel else None
            opened = opened or self.shape.open_plain()
            self._models[kind] = filled(opened, self.device, self.dtype, self.device)
        return self._models[kind]

    def release(self) -> None:
        self._models.clear()
        gc.collect()
        if self.on_card:
            torch.cuda.empty_cache()

    def evaluations(self, kind: type) -> dict[str, Callable[[], torch.Tensor]]:
        return runs(self.model(kind), self.grid)

    @cached_property
    def flops(self) -> dict[str, float]:
        """Of an evaluation, counted on torch's meta device."""
        shape = self.shape.transformer
        counted = {}
        with torch.no_grad():
            for kind in KINDS:
                model = random_model(kind, shape, "meta", self.dtype)
                counted |= {name: flops(run) for name, run in runs(model, self.grid).items()}
        return counted

    @property
    def peak_flops(self) -> float:
        """Of a large bfloat16 product here; 0 where it was not measured."""
        return self.report.value("machine", "rates", rate="bfloat16 product, 8192").get("TFLOP/s", 0) * 1e12

    @contextmanager
    def runner(self) -> Iterator[ClipRunner]:
        self.release()
        with tempfile.TemporaryDirectory() as folder:
            with random_runner(self.shape, self.device, Path(folder)) as runner:
                try:
                    yield runner
                finally:
                    runner._forget()
        self.release()


KINDS = (diffusers.WanTransformer3DModel, PoseAnythingTransformer3DModel)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- machine -----------------------------------------------------------------------------------------------


def machine(bench: Bench) -> None:
    """What computes here, and how fast its plainest work is: the ceilings of everything below."""
    about = bench.report.content["about"]
    host = psutil.virtual_memory()
    about["model"] = (
        f"{'tiny' if bench.toy else 'full 5B shape'}, random weights made here; nothing downloaded"
    )
    about["clip"] = f"{bench.clip.width} x {bench.clip.height} x {bench.clip.num_frames}, {bench.dtype}"
    about["host"] = f"{os.cpu_count()} cores, {host.total / GIB:.0f} GiB, {platform.platform()}"
    about["packages"] = (
        f"Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda},"
        f" cuDNN {torch.backends.cudnn.version()}, diffusers {diffusers.__version__},"
        f" transformers {transformers.__version__}"
    )
    if bench.on_card:
        properties = torch.cuda.get_device_properties(bench.device)
        about["card"] = (
            f"{properties.name}, {properties.total_memory / GIB:.1f} GiB,"
            f" capability {properties.major}.{properties.minor},"
            f" {properties.multi_processor_count} multiprocessors"
        )
    else:
        about["card"] = "none: this is a rehearsal on the processor"

    side = 256 if bench.toy else 8192
    one, other = (torch.randn(side, side, device=bench.device, dtype=bench.dtype) for _ in range(2))
    taken = _repeat(bench, lambda: one @ other, 10)
    bench.row("rates", rate="bfloat16 product, 8192", **{"TFLOP/s": 2 * side**3 / taken / 1e12})
    size = 2**20 if bench.toy else 2 * GIB
    source = torch.randint(0, 255, (size,), device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    taken = _repeat(bench, lambda: target.copy_(source), 10)
    bench.row("rates", rate="copy on the card, read and written", **{"GB/s": 2 * size / taken / 1e9})
    if bench.on_card:
        # As large as a block of the model.
        block = torch.empty(min(400 * 2**20, size), dtype=torch.uint8, pin_memory=True)
        taken = _repeat(bench, lambda: target[: block.numel()].copy_(block, non_blocking=True), 5)
        bench.row("rates", rate="pinned host to card", **{"GB/s": block.numel() / taken / 1e9})


def _repeat(bench: Bench, run: Callable[[], object], times: int) -> float:
    """Seconds of one of so many runs in a row, the device's queue always full."""
    for _ in range(3):
        run()
    return bench.seconds(lambda: [run() for _ in range(times)]) / times


# --- tests -------------------------------------------------------------------------------------------------


def tests(bench: Bench) -> None:
    """The tests marked `gpu`."""
    import pytest

    class Outcomes:
        def pytest_runtest_logreport(self, report) -> None:
            if report.when == "call" or report.outcome != "passed":
                name = report.nodeid.partition("::")[2]
                bench.row("tests", test=name, outcome=report.outcome, seconds=report.duration)
                outcomes.append(report.outcome)
                if report.outcome != "passed":
                    bench.note(f"{name}\n{str(report.longrepr)[-3000:]}")

    outcomes: list[str] = []
    words = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/model/test_on_card.py"]
    rehearsal = {} if bench.on_card else {"POSEANYTHING_REHEARSAL": "1"}
    with mock.patch.dict(os.environ, rehearsal):
        pytest.main([f"--rootdir={ROOT}", *words], plugins=[Outcomes()])
    passed = outcomes.count("passed")
    bench.promise(
        "tests marked gpu", f"{passed} of {len(outcomes)} passed", "all", 0 < passed == len(outcomes)
    )


# --- evaluations -------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluations(bench: Bench) -> None:
    """Seconds and memory of one evaluation: plain Wan and ours in turn, by attention backend."""
    together = bench.on_card and bench.capacity >= TAKES_TURNS or bench.toy
    weights = {}
    for kind in KINDS:
        before = bench.allocated()
        bench.model(kind)
        weights[kind] = (bench.allocated() - before) / GIB
    measured: dict[str, dict[str, float]] = {}
    for backend in _backends(bench):
        if backend != "native" and bench.time_left < 20:
            bench.note(f"No time was left for {backend}.")
            break
        try:
            measured[backend] = _by_turns(bench, backend, together)
        except Exception as error:
            if _card_is_lost(bench):
                raise
            bench.row("by attention backend", backend=backend, model=f"can't be used: {_first_line(error)}")
            continue
        finally:
            for model in bench._models.values():
                model.set_attention_backend("native")
        plain = measured[backend][PLAIN]
        for name, taken in measured[backend].items():
            rate = bench.flops[name] / taken
            share = {"of the product's": rate / bench.peak_flops} if bench.peak_flops else {}
            bench.row(
                "by attention backend",
                backend=backend,
                model=name,
                seconds=taken,
                **{"of plain Wan's": taken / plain, "TFLOP/s": rate / 1e12},
                **share,
            )
    for kind in KINDS:
        for name, run in bench.evaluations(kind).items():
            bench.row(
                "memory", model=name, **{"weights GiB": weights[kind], "working GiB": bench.working(run)}
            )
    ratio = measured["native"][PARTS_ON] / measured["native"][PLAIN]
    if bench.on_card and not bench.toy:
        bench.promise("an eager evaluation with parts, of plain Wan's", ratio, "<= 1.02", ratio <= 1.02)


def _by_turns(bench: Bench, backend: str, together: bool) -> dict[str, float]:
    """Median seconds by evaluation, taking turns where both models are there."""
    taken: dict[str, list[float]] = {}
    for kinds in [KINDS] if together else [(kind,) for kind in KINDS]:
        for kind in kinds:
            set_attention_backend(bench.model(kind), backend)
        made = {name: run for kind in kinds for name, run in bench.evaluations(kind).items()}
        for number in range(bench.rounds + 1):
            for name, run in made.items():
                seconds = bench.seconds(run)
                if number:  # the first is for warming up
                    taken.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def _backends(bench: Bench) -> list[str]:
    """All of diffusers' that can be asked for here, the usual one first."""
    if not bench.on_card:
        return ["native", "_native_math"]
    usable = ["native", "_native_cudnn", "_native_flash", "_native_efficient"]
    model = bench.model(PoseAnythingTransformer3DModel)
    absent = []
    for name in AttentionBackendName:
        if name.value in usable or any(word in name.value for word in SILENT_BACKENDS):
            continue
        try:
            set_attention_backend(model, name.value)
            usable.append(name.value)
        except InputError:
            absent.append(name.value)
    model.set_attention_backend("native")
    if absent:
        bench.note(f"Not installed here: {', '.join(absent)}.")
    return usable


# --- profile -----------------------------------------------------------------------------------------------


@torch.no_grad()
def profile(bench: Bench) -> None:
    """The ten largest kernels of an evaluation with parts, and how long the card waits."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity

    run = bench.evaluations(PoseAnythingTransformer3DModel)[PARTS_ON]
    run()
    bench.synchronize()
    activities = {ProfilerActivity.CUDA if bench.on_card else ProfilerActivity.CPU}
    if not activities <= torch.profiler.supported_activities():
        activities.add(ProfilerActivity.CPU)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(2):
            run()
        bench.synchronize()
    if not bench.on_card:
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
        for event in events[:10]:
            bench.row("kernels", kernel=event.key, calls=event.count, ms=event.self_cpu_time_total / 1e3)
        return
    kernels: dict[str, list[float]] = {}
    spans = []
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA and event.time_range.elapsed_us() > 0:
            kernels.setdefault(event.name, []).append(event.time_range.elapsed_us())
            spans.append((event.time_range.start, event.time_range.end))
    busy, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    if not spans:
        raise RuntimeError("The profiler saw no kernel.")
    whole = end - min(start for start, _ in spans)
    for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:10]:
        cells = {"calls": len(times) // 2, "ms": sum(times) / 2e3, "share": sum(times) / busy}
        bench.row("kernels", kernel=name[:110], **cells)
    launched = sum(map(len, kernels.values())) // 2
    bench.row("one evaluation", ms=whole / 2e3, kernels=launched, **{"idle share": 1 - busy / whole})


# --- vae ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def vae(bench: Bench) -> None:
    """The VAE's two directions over a whole clip, as diffusers has it and made faster one thing at a time."""
    bench.release()
    shape, device = bench.clip, bench.device
    model = filled(bench.shape.open_vae(), device, bench.dtype, device)
    latent_frames = 1 + (shape.num_frames - 1) // 4
    latents = torch.randn(1, 48, latent_frames, shape.height // 16, shape.width // 16, device=device)
    video = torch.rand(1, 3, shape.num_frames, shape.height, shape.width, device=device) * 2 - 1

    def through(what: Callable, data: torch.Tensor) -> None:
        for _ in what(model, data):
            pass

    def measure(name: str, what: Callable = decode_frames, data: torch.Tensor = latents) -> None:
        encodes = what is encode_frames
        first = bench.seconds(lambda: through(what, data[:, :, : 9 if encodes else 3]))
        working = bench.working(lambda: through(what, data[:, :, : 9 if encodes else 3]))
        taken = bench.seconds(lambda: through(what, data))
        frames = data.shape[2] if encodes else 1 + 4 * (data.shape[2] - 1)
        rate = {"frames/s": frames / taken, "working GiB": working, "first, s": first}
        bench.row("passes", what=name, frames=frames, seconds=taken, **rate)

    def layout(name: str) -> None:
        set_vae_layout(model, name)

    few = latents[:, :, :6]
    _convolutions(bench)
    measure("decode, as diffusers has it", data=few)
    pad_in_convolutions(model)
    measure("decode, convolutions pad themselves", data=few)
    layout("channels_last")
    measure("decode, channels last as well", data=few)
    measure("encode, the same", encode_frames, video)
    compile_vae(model, Compilation(), **({} if bench.on_card else {"backend": "eager"}))
    measure("decode, norms compiled as well")
    measure("encode, the same", encode_frames, video)
    if bench.on_card:
        torch.backends.cudnn.benchmark = True
        measure("decode, convolutions chosen by timing as well")
        torch.backends.cudnn.benchmark = False
    layout("contiguous")
    measure("decode, norms compiled, contiguous", data=few)
    layout("channels_last")
    model.enable_tiling()
    measure("decode, channels last, in tiles", data=few)


def _convolutions(bench: Bench) -> None:
    """The convolution that takes most of decoding, by how it is computed."""
    frames, height, width, channels = (4, 24, 40, 16) if bench.toy else (4, 240, 416, 256)
    pixels = torch.randn(1, channels, frames + 2, height, width, device=bench.device, dtype=bench.dtype)
    weight = torch.randn(channels, channels, 3, 3, 3, device=bench.device, dtype=bench.dtype) * 0.01
    last = torch.channels_last_3d
    pixels_last, weight_last = pixels.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    folded = weight.transpose(1, 2).reshape(channels, 3 * channels, 3, 3)
    folded = folded.contiguous(memory_format=torch.channels_last)

    def by_pictures() -> torch.Tensor:
        pictures = pixels_last[0].movedim(0, -1)  # [F, H, W, C] as it lies
        three = torch.cat([pictures[frame : frame + frames] for frame in range(3)], -1).movedim(-1, 1)
        return torch.nn.functional.conv2d(three, folded, padding=1)

    ways = {
        "contiguous": lambda: torch.nn.functional.conv3d(pixels, weight, padding=(0, 1, 1)),
        "channels last": lambda: torch.nn.functional.conv3d(pixels_last, weight_last, padding=(0, 1, 1)),
        "in two dimensions, of three frames at once": by_pictures,
    }
    operations = 2 * 27 * channels**2 * frames * height * width
    for name, run in ways.items():
        taken = _repeat(bench, run, 10)
        bench.row("a convolution", how=name, **{"ms": 1e3 * taken, "TFLOP/s": operations / taken / 1e12})


# --- clips -------------------------------------------------------------------------------------------------


def clips(bench: Bench) -> None:
    """Whole requests through the runner that the engine uses, and what is left of them afterwards."""
    steps = 5 if bench.toy else 50
    bench.release()
    before = bench.allocated()
    with bench.runner() as runner:
        bench.reset_peak()
        first = _clip(bench, runner, "first request, 4 steps: weights made, prompt read", 4, seed=1)
        plan = runner._plan
        bench.note(plan.reason)
        bench.row("memory", **_estimate(bench, plan.peak_bytes))
        if bench.on_card and not bench.toy:
            _promise_estimate(bench, plan.peak_bytes)
        compiling = _clip(bench, runner, "4 steps, another seed: the blocks are compiled", 4, seed=2)
        again = _clip(bench, runner, f"{steps} steps", steps, seed=2)
        few = _clip(bench, runner, "4 steps, another prompt", 4, seed=2, prompt="a fox sleeps")
        for name, played in (
            ("the first clip", first),
            ("the compiling clip", compiling),
            ("the long clip", again),
            ("the short clip", few),
        ):
            if played.num_frames != bench.clip.num_frames:
                bench.promise(f"frames of {name}", played.num_frames, "all", False)
        _cancel(bench, runner, again.seconds)
        guidance = Guidance("classifier_free", {"guidance_scale": 2.0}, stop=0.2)
        runner.pipeline.mag_ratios = [0.995] * steps
        bench.note("MagCache went by made-up ratios (0.995 a step); random weights have none of their own.")
        guided = _clip(
            bench,
            runner,
            f"{steps} steps, guidance in a fifth of them, MagCache",
            steps,
            seed=2,
            guidance=guidance,
            cache="mag",
        )
        if bench.hopper:
            for what, played, wanted in (
                (f"{steps} steps", again, 20),
                (f"{steps} steps, guidance in a fifth, MagCache", guided, 10),
                ("4 steps with decoding", few, 2.5),
            ):
                seconds = played.seconds["all"]
                bench.promise(f"seconds of a clip, {what}", seconds, f"< {wanted}", seconds < wanted)
    left = (bench.allocated() - before) / 2**20
    bench.promise("MiB left on the card after the model was let go", left, "<= 64", left <= 64)


def _clip(bench: Bench, runner: ClipRunner, name: str, steps: int, **options):
    shape = bench.clip
    request = job(shape.width, shape.height, shape.num_frames, steps, **options)
    played = play(runner, request, check=lambda: None, preview=True)
    step = (played.seconds["last step"] - played.seconds["first step"]) / max(steps - 1, 1)
    bench.row("clips", clip=name, **played.seconds, **{"a step": step})
    return played


class Left(Exception):
    pass


def _cancel(bench: Bench, runner: ClipRunner, seconds: dict[str, float]) -> None:
    """How long a clip goes on once it is cancelled in the middle of a step."""
    steps = 5 if bench.toy else 50
    step = (seconds["last step"] - seconds["first step"]) / (steps - 1)
    cancelled = threading.Event()
    asked = 0.0

    def cancel() -> None:
        nonlocal asked
        asked = time.perf_counter()
        cancelled.set()

    def check() -> None:
        if cancelled.is_set():
            raise Left

    timer = threading.Timer(seconds["first step"] + 1.5 * step, cancel)
    shape = bench.clip
    timer.start()
    try:
        play(runner, job(shape.width, shape.height, shape.num_frames, steps, seed=3), check=check)
        bench.promise("cancelling leaves a clip", "it was finished first", "within a step", bench.toy)
    except Left:
        bench.synchronize()
        taken = time.perf_counter() - asked
        bench.row("cancelling", **{"seconds": taken, "of a step": taken / step})
        if not bench.toy:
            bench.promise("cancelling takes, of a step", taken / step, "<= 1", taken <= step)
    finally:
        timer.cancel()
        timer.join()


def _estimate(bench: Bench, estimate: int) -> dict[str, float]:
    reserved = torch.cuda.max_memory_reserved(bench.device) if bench.on_card else 0
    return {
        "estimated GiB": estimate / GIB,
        "peak GiB": bench.peak() / GIB,
        "of the estimate": bench.peak() / estimate,
        "reserved GiB": reserved / GIB,
    }


def _promise_estimate(bench: Bench, estimate: int, what: str = "") -> None:
    share = bench.peak() / estimate
    kept = 0.85 <= share <= 1
    bench.promise(f"peak memory of what was planned{what}", share, "0.85 to 1", kept)


# --- memory ------------------------------------------------------------------------------------------------


def memory_ladder(bench: Bench) -> None:
    """Smaller cards, by a cap on torch's allocator: planned for, and taken by surprise."""
    with ExitStack() as until_end:
        told = {"GiB": 0.0}
        honest = Card.of

        def card_of(device, *loaded):
            card = honest(device, *loaded)
            return dataclasses.replace(card, free_bytes=int(told["GiB"] * GIB - HELD_BY_OTHERS))

        until_end.enter_context(mock.patch.object(Card, "of", card_of))
        if bench.on_card:
            until_end.callback(torch.cuda.set_per_process_memory_fraction, 1.0, bench.device)
        with bench.runner() as runner:
            # (the card's GiB, what the plan believes in)
            for gigabytes, believed in ((16, 16), (12, 12), (24, 24), (16, 24)):
                if bench.on_card and gigabytes * GIB >= bench.capacity:
                    continue
                if bench.time_left < (15 if believed == gigabytes else 30):
                    bench.note(f"No time was left for {gigabytes} GiB.")
                    break
                told["GiB"] = believed
                if believed != gigabytes:
                    runner._forget()
                if bench.on_card:
                    bench.reset_peak()
                    fraction = min(1.0, (gigabytes * GIB - HELD_BY_OTHERS) / bench.capacity)
                    torch.cuda.set_per_process_memory_fraction(fraction, bench.device)
                _on_small_card(bench, runner, gigabytes, believed)


def _on_small_card(bench: Bench, runner: ClipRunner, gigabytes: int, believed: int) -> None:
    shape, surprise = bench.clip, believed != gigabytes
    request = job(shape.width, shape.height, shape.num_frames, steps=3, seed=gigabytes)
    with _surprised(surprise and not bench.on_card):
        try:
            played = play(runner, request, check=lambda: None)
        except Exception as error:
            if _card_is_lost(bench):
                raise
            bench.promise(
                f"a clip on {gigabytes} GiB, {believed} believed in", _first_line(error), "made", False
            )
            runner._forget()
            return
    plan = runner._plan
    bench.row(
        "cards",
        **{"GiB": gigabytes, "believed in": believed},
        **{"transformer": f"{plan.transformer} {plan.quantization or ''}".strip()},
        **{"blocks on the card": plan.resident_blocks, "text encoder": plan.text_encoder},
        **_estimate(bench, plan.peak_bytes),
        **{"a step": (played.seconds["last step"] - played.seconds["first step"]) / 2},
        **{"all": played.seconds["all"], "frames": played.num_frames},
    )
    bench.note(f"{gigabytes} GiB: {played.note}")
    complete = played.num_frames == shape.num_frames
    if surprise:
        said = "Memory ran out" in played.note
        bench.promise(
            f"{gigabytes} GiB where {believed} were believed in",
            "made, and said" if complete and said else played.note,
            "memory runs out, a smaller plan makes the clip",
            complete and said,
        )
    elif bench.on_card and not bench.toy:
        _promise_estimate(bench, plan.peak_bytes, f" for {gigabytes} GiB")


@contextmanager
def _surprised(happens: bool) -> Iterator[None]:
    """Without a card to cap, the model's first evaluation runs out of memory by itself."""
    forward, calls = PoseAnythingTransformer3DModel.forward, []

    def fail_once(self, *inputs, **options):
        calls.append(None)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory, for rehearsal")
        return forward(self, *inputs, **options)

    with mock.patch.object(PoseAnythingTransformer3DModel, "forward", fail_once if happens else forward):
        yield


# --- compile -----------------------------------------------------------------------------------------------


@torch.no_grad()
def compiled(bench: Bench) -> None:
    """The blocks compiled: how long that takes, and what it gains."""
    options = {} if bench.on_card else {"backend": "eager"}
    best = 0.0
    for kind in KINDS[::-1]:
        if best and bench.time_left < 60:
            bench.note(f"No time was left for {kind.__name__}.")
            break
        bench.release()
        model = bench.model(kind)
        made = {n: r for n, r in bench.evaluations(kind).items() if n in (PLAIN, OURS, PARTS_ON)}
        eager = {name: _median(bench, run) for name, run in made.items()}
        if kind is PoseAnythingTransformer3DModel:
            compile_blocks(model, **options)
        else:
            model.compile_repeated_blocks(**options)
        for name, run in made.items():
            first = bench.seconds(run)
            taken = _median(bench, run)
            rate = bench.flops[name] / taken
            share = {"of the product's": rate / bench.peak_flops} if bench.peak_flops else {}
            cells = {"eager": eager[name], "first, s": first, "seconds": taken, "TFLOP/s": rate / 1e12}
            bench.row("compiled", model=name, **cells, **share)
            if name == OURS:
                best = max(best, rate)
    if bench.hopper and bench.peak_flops:
        share = best / bench.peak_flops
        bench.promise("FLOP/s compiled, of the large product's", share, ">= 0.55", share >= 0.55)
    bench.release()


def _median(bench: Bench, run: Callable[[], object]) -> float:
    run()
    return statistics.median(bench.seconds(run) for _ in range(bench.rounds))


# --- float8 ------------------------------------------------------------------------------------------------


@torch.no_grad()
def float8(bench: Bench) -> None:
    """Weights and products in float8: what they cost in time and in the values."""
    bench.release()
    outputs = {}
    for name in ("bfloat16", "float8 weights", "float8 weights and products"):
        torch.manual_seed(1)
        options = {} if name == "bfloat16" else {"quantization": "fp8"}
        model = filled(bench.shape.open_transformer(), bench.device, bench.dtype, bench.device, **options)
        set_float8_products(model, name.endswith("products"))
        made = runs(model, bench.grid)
        for what in (OURS, PARTS_ON):
            try:
                outputs[name, what] = made[what]().float()
            except RuntimeError as error:
                if _card_is_lost(bench):
                    raise
                bench.row("float8", weights=name, model=f"can't be used: {_first_line(error)}")
                continue
            exact = outputs.get(("bfloat16", what), outputs[name, what])
            error = (outputs[name, what] - exact).norm() / exact.norm()
            taken = _median(bench, made[what])
            bench.row("float8", weights=name, model=what, seconds=taken, **{"relative error": float(error)})
        del model, made
        bench.release()


# --- training ----------------------------------------------------------------------------------------------


class RandomExamples:
    """Batches without a data set: poses are coded on the way, as `train` does it."""

    def __init__(self, vae: nn.Module, clip: Shape, text_dim: int, device: torch.device):
        self.vae, self.clip, self.text_dim, self.device = vae, clip, text_dim, device

    @torch.no_grad()
    def batch(self, number: int, size: int) -> Batch:
        clip, generator = self.clip, torch.Generator().manual_seed(number)
        images = torch.randint(0, 256, (clip.num_frames, clip.height, clip.width, 3), generator=generator)
        video = to_video(images.byte().numpy())[None].to(self.device)
        pose = torch.cat(list(encode_frames(self.vae, video)), 2)
        clean = torch.randn(pose.shape, generator=generator).to(self.device)
        text = torch.randn(1, 512, self.text_dim, generator=generator).to(self.device)
        rows, columns = clean.shape[3] // 2, clean.shape[4] // 2
        masks = torch.rand(clean.shape[2], 5, rows, columns, generator=generator) < 0.05
        return Batch(clean, pose, text, parts=PartTokens.from_masks(masks[0], masks[1:]).to(self.device))


def training(bench: Bench) -> None:
    """Steps of a LoRA on a character as `train` takes them, beside the estimate of `train --plan`."""
    bench.release()
    clip = Shape(64, 64, 9) if bench.toy else Shape(832, 480, 33)
    bench.reset_peak()
    settings = TrainingSettings.of(
        "lora", steps=6, log_steps=1, checkpoint_seconds=1e9, lora_rank=2 if bench.toy else 32
    )
    transformer = filled(bench.shape.open_transformer(), bench.device, bench.dtype, bench.device)
    vae = filled(bench.shape.open_vae(), bench.device, bench.dtype, bench.device)
    examples, lines = RandomExamples(vae, clip, transformer.config.text_dim, bench.device), []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(folder, settings, transformer, examples, lines.append, cpu=not bench.on_card)
        estimate = plan_training(transformer, vae, settings, clip)
        trainer.run()
        trainer.export_lora(Path(folder) / "lora.safetensors")
        size = (Path(folder) / "lora.safetensors").stat().st_size
    seconds = statistics.median(1 / line["examples_per_second"] for line in lines[2:])
    bench.row(
        "a LoRA",
        **{"rank": settings.lora_rank, "frames": clip.num_frames, "size": f"{clip.width} x {clip.height}"},
        **{"seconds a step": seconds, "file MiB": size / 2**20},
        **_estimate(bench, estimate.peak_bytes),
    )
    bench.row("what it takes, GiB", **{name: value / GIB for name, value in estimate.parts.items()})
    if bench.on_card and not bench.toy:
        peak, room = bench.peak(), 24 * GIB - HELD_BY_OTHERS
        bench.promise(
            "training a LoRA takes, of what was planned",
            peak / estimate.peak_bytes,
            "<= 1",
            peak <= estimate.peak_bytes,
        )
        bench.promise("GiB in use while a LoRA is trained", peak / GIB, f"<= {room / GIB:g}", peak <= room)
    del transformer, vae, examples, trainer
    bench.release()


# --- running them ------------------------------------------------------------------------------------------

RUN = {
    "machine": machine,
    "tests": tests,
    "evaluations": evaluations,
    "profile": profile,
    "vae": vae,
    "clips": clips,
    "memory": memory_ladder,
    "compile": compiled,
    "float8": float8,
    "training": training,
    "server": server,
}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or ' ').splitlines()[0][:200]}"


def _card_is_lost(bench: Bench) -> bool:
    """Whether the CUDA context can't be used any more, as after an illegal access."""
    try:
        bench.synchronize()
        torch.zeros(1, device=bench.device).item()
    except torch.OutOfMemoryError:
        return False
    except RuntimeError:
        return True
    return False


def run_parts(
    names: list[str], folder: Path, toy: bool, until: float, limits: dict[str, tuple[float, float]]
) -> int:
    """Run the parts one after another, each on its own: what one raises is recorded. Gives an exit code."""
    report = Report(folder)
    bench = Bench(report, toy, until)
    for name in names:
        report.part(name)
    for name in names:
        part = report.part(name)
        if bench.time_left < limits[name][1]:
            part["state"] = "no time was left"
            report.flush()
            continue
        bench.part = name
        part["state"], part["began"] = "running", time.time()
        report.flush()
        try:
            if not (toy or bench.on_card):
                raise RuntimeError("torch finds no CUDA card; --toy rehearses without one")
            RUN[name](bench)
            part["state"] = "done"
        except Exception as error:
            part["state"] = f"failed: {_first_line(error)}"
            report.note(name, traceback.format_exc()[-4000:])
            traceback.print_exc()
            error.__traceback__ = None
        part["seconds"] = time.time() - part["began"]
        report.flush()
        print(f"{name:12} {part['state']} after {part['seconds']:.1f} s", flush=True)
        if _card_is_lost(bench):
            return BROKEN_CARD
    return 0
