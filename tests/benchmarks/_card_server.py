"""What a user of the server meets on a card: the command itself over weights on the disk; see `card`."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import psutil
import torch

from shared.messages import Cancelled, Done, Failed, Frame, GenerationRequest, Preview, Progress
from shared.request_file import SUFFIX, write_request
from tests.benchmarks._random_weights import RandomTensors
from tests.benchmarks.card import ROOT
from tests.model.checkpoint_files import (
    save_shards,
    save_tokenizer,
    transformer_shapes,
    wan_t5_shapes,
    wan_vae_shapes,
)
from tests.server.client import Client, ServerProcess, request

PATIENCE = 80.0
"""Seconds within which each answer has to come."""
TOY = (
    {"in_channels": 96, "out_channels": 48},
    wan_vae_shapes(4, 4),
    wan_t5_shapes(40, 16, 16, 24, 2, 2),
)
SHALLOW = (
    {
        "dim": 3072,
        "in_channels": 96,
        "out_channels": 48,
        "feed_forward": 14336,
        "layers": 4,
        "text_dim": 4096,
        "freq_dim": 256,
    },
    wan_vae_shapes(160, 256),
    wan_t5_shapes(40, 4096, 4096, 10240, 64, 2),
)
"""The released model's, but for the number of its layers: 4 of 30, and 2 of the text encoder's 24."""


def server(bench) -> None:
    """The server's command with random weights on the disk: first use, further clips, cancelling, a worker
    that is killed, and the command line."""
    bench.release()
    with tempfile.TemporaryDirectory(prefix="poseanything-card-") as folder:
        began = time.perf_counter()
        save_release(Path(folder) / "weights", *(TOY if bench.toy else SHALLOW), bench.device)
        bench.note(f"Writing the weights took {time.perf_counter() - began:.1f} s.")
        with _serving(Path(folder)) as process, process.client() as client:
            _User(bench, process, client, Path(folder)).see()
        bench.promise(
            "the server ended with", process.process.returncode, "0", not process.process.returncode
        )
        if process.log:
            bench.note(process.log[-2000:])


def save_release(
    folder: Path,
    transformer: dict[str, int],
    vae: dict[str, tuple[int, ...]],
    text_encoder: dict[str, tuple[int, ...]],
    device: torch.device,
) -> None:
    """Random weights in the released model's files."""

    def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        tensors = RandomTensors(shapes, device, torch.bfloat16)
        return {name: tensors[name].cpu() for name in tensors}

    save_shards(drawn(transformer_shapes(**transformer)), folder / "PoseAnything")
    wan = folder / "Wan2.2-TI2V-5B"
    save_tokenizer(wan / "google" / "umt5-xxl")
    torch.save(drawn(vae), wan / "Wan2.2_VAE.pth")
    torch.save(drawn(text_encoder), wan / "models_t5_umt5-xxl-enc-bf16.pth")


@contextmanager
def _serving(folder: Path):
    """The command that users run, with what it keeps in `folder`."""
    places = {
        "POSEANYTHING_WEIGHTS": str(folder / "weights"),
        "POSEANYTHING_CACHE": str(folder / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache" / "inductor"),
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }
    with mock.patch.dict(os.environ, places):
        with ServerProcess(arguments=("--jobs", str(folder / "jobs"), "--exit-with-stdin")) as process:
            yield process


@dataclasses.dataclass
class _User:
    bench: object
    process: ServerProcess
    client: Client
    folder: Path

    def see(self) -> None:
        bench, client = self.bench, self.client
        welcome = client.welcome()
        (engine,) = (engine for engine in welcome.engines if engine.name == "poseanything")
        bench.note(f"{engine.label}: {engine.runs_on} {engine.reason}")
        bench.promise("the neural engine is ready", engine.ready, "True", engine.ready)
        for name in ("first clip", "another seed: compiled", "another seed again"):
            self._make(name)
        self._cancel()
        self._kill_the_worker()
        self._make("another seed, after the worker's death")
        self._command_line()

    def request(self, job: str, steps: int = 4) -> GenerationRequest:
        clip = self.bench.clip
        return request(
            job,
            "poseanything",
            num_frames=clip.num_frames,
            width=clip.width,
            height=clip.height,
            num_inference_steps=steps,
            prompt="deer runs",
            seed=len(self.client.events),
            preview_interval=0.1,
        )

    def _ending(self, job: str):
        return self.client.wait_for(Done, Failed, Cancelled, job=job, timeout=PATIENCE)

    def _make(self, job: str) -> None:
        """A clip, and when what of it came to the client."""
        client, began, seconds = self.client, time.perf_counter(), {}
        client.send(self.request(job))
        for kind, name in ((Progress, "first word"), (Preview, "first preview"), (Frame, "first frame")):
            met = client.wait_for(kind, Done, Failed, job=job, timeout=PATIENCE)
            seconds[name] = time.perf_counter() - began
            if isinstance(met, (Done, Failed)):
                break
        else:
            met = self._ending(job)
        seconds["all"] = time.perf_counter() - began
        self._judge(job, met, seconds)

    def _judge(self, job: str, ending, seconds: dict[str, float]) -> None:
        """Whether all frames came, each once."""
        self.bench.row("clips", clip=job, **seconds)
        frames = [frame.index for frame in self.client.of(Frame, job=job)]
        whole = isinstance(ending, Done) and frames == list(range(self.bench.clip.num_frames))
        said = ending.note if isinstance(ending, Done) else getattr(ending, "message", "cancelled")
        self.bench.note(f"{job}: {said}")
        self.bench.promise(f"{job}, by the server", len(frames), "all frames, each once", whole)

    def _begin(self, job: str, steps: int) -> None:
        """A clip whose denoising has begun."""
        self.client.send(self.request(job, steps))
        while self.client.wait_for(Progress, job=job, timeout=PATIENCE).stage != "denoising":
            pass

    def _cancel(self) -> None:
        self._begin("cancelled", 1000)
        began = time.perf_counter()
        self.client.cancel("cancelled")
        ending = self._ending("cancelled")
        taken = time.perf_counter() - began
        self.bench.row("endings", what="cancelling", seconds=taken)
        cancelled = isinstance(ending, Cancelled)
        self.bench.promise("cancelling by the server, s", taken, "<= 1", cancelled and taken <= 1)

    def _kill_the_worker(self) -> None:
        job, began = "its worker is killed", time.perf_counter()
        self._begin(job, 20)
        (worker,) = self._workers()
        worker.send_signal(signal.SIGKILL)
        killed = time.perf_counter()
        ending = self._ending(job)
        ended = time.perf_counter()
        self.bench.row("endings", what="a killed worker's clip, from the kill on", seconds=ended - killed)
        self._judge(job, ending, {"all": ended - began})

    def _workers(self) -> list[psutil.Process]:
        """The server's processes that make clips."""
        below = psutil.Process(self.process.process.pid).children(recursive=True)
        return [process for process in below if "inference_server.worker" in " ".join(process.cmdline())]

    def _command_line(self) -> None:
        """The same by `generate`, from a request's file to pictures."""
        file, clip = self.folder / f"clip{SUFFIX}", self.folder / "clip"
        write_request(file, self.request("by the command line"))
        words = ["generate", "--server", self.process.address, "--request", file, "--output", clip]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "inference_server", *map(str, words)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.bench.row("clips", clip="by the command line", **{"all": time.perf_counter() - began})
        made = len(list(clip.glob("*.png")))
        if done.returncode:
            self.bench.note(done.stderr[-1000:])
        kept = not done.returncode and made == self.bench.clip.num_frames
        self.bench.promise("generate --server, pictures", made, "all", kept)
