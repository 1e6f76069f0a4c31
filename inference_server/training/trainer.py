"""The training loop: any model, any source of batches; it can be killed at any time and goes on exactly."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from diffusers.training_utils import EMAModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, distribute_tensor

from ..poseanything.checkpoints.lora import DECLARED
from ..poseanything.models.transformer import TRAINED_WITH, PoseAnythingTransformer3DModel
from .distillation import DistributionMatching, distilled_timesteps
from .errors import TrainingError
from .objective import Batch, Objective, with_matched_parts
from .settings import TrainingSettings

CHECKPOINTS_KEPT = 2
ADAPTER = "trained"
LORA_LAYERS = r".*\.(attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)|.*\.ffn\.net\.(0\.proj|2)"
"""Of the blocks, those that low-rank matrices are added to."""


class Batches(Protocol):
    """Where batches come from. The same number gives the same batch, so that nothing of it need be saved."""

    def batch(self, number: int, size: int) -> Batch: ...


class Trainer:
    """Trains a transformer.

    Args:
        output: a folder; checkpoints go to `checkpoints/`, the log to `log.jsonl`, the averaged weights to
            `transformer/`.
        settings: see `TrainingSettings`.
        transformer: the model, in float32.
        batches: see `Batches`.
        report: called with each line of the log, a dict.
        deadline: of `time.time()`, when to stop at the latest; None goes by the settings alone.
        after_checkpoint: called with this trainer after each checkpoint.

    Raises:
        TrainingError: for a loss that is no number, a full disk, or a checkpoint of another model.
    """

    def __init__(
        self,
        output: Path | str,
        settings: TrainingSettings,
        transformer: PoseAnythingTransformer3DModel,
        batches: Batches,
        report: Callable[[dict], None] = lambda line: None,
        deadline: float | None = None,
        after_checkpoint: Callable[[Trainer], None] = lambda trainer: None,
        cpu: bool = False,
    ):
        self.output, self.settings, self.batches = Path(output), settings, batches
        self.report, self.deadline, self.after_checkpoint = report, deadline, after_checkpoint
        self.output.mkdir(parents=True, exist_ok=True)
        # A step without parts leaves part-aware attention without gradients.
        parallel = DistributedDataParallelKwargs(find_unused_parameters=transformer.config.part_attention)
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            gradient_accumulation_steps=settings.accumulation,
            log_with="tensorboard" if settings.tensorboard else None,
            project_dir=self.output,
            cpu=cpu,
            kwargs_handlers=[parallel],
        )
        if settings.tensorboard:
            self.accelerator.init_trackers("training")
        set_seed(settings.seed)
        self.declared = declare(transformer, settings)
        freeze(transformer, settings.trainable, settings.lora_rank)
        if settings.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        self.objective = make_objective(settings, transformer).to(self.accelerator.device)
        self.batch_size = settings.batch_size
        self.step, self.elapsed, self.learning_rate = 0, 0.0, settings.learning_rate
        self._halvings = 0
        optimizers = make_optimizers(transformer, settings)
        self.transformer, *self.optimizers = self.accelerator.prepare(transformer, *optimizers)
        self._trained = [p for p in self.transformer.parameters() if p.requires_grad]
        self.ema = EMAModel(
            self._trained,
            settings.ema_decay,
            use_ema_warmup=True,
            inv_gamma=1.0,
            power=0.75,
            foreach=not any(isinstance(p, DTensor) for p in self._trained),
        )
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(_Averages(self.ema))
        if isinstance(self.objective, DistributionMatching):
            self.accelerator.register_for_checkpointing(self.objective)
        self._generator = torch.Generator(self.accelerator.device)
        if settings.trainable != "all":  # what is frozen lies in the checkpoint that was begun with
            self.accelerator.register_save_state_pre_hook(_leave_out_the_frozen)

    @property
    def model(self) -> PoseAnythingTransformer3DModel:
        return self.accelerator.unwrap_model(self.transformer)

    def run(self) -> None:
        """Train until the settings or the deadline end it; begins with the last checkpoint where there is
        one."""
        if (last := self.last_checkpoint()) is not None:
            self._load(last)
        began, since_checkpoint, since_log = (
            time.monotonic() - self.elapsed,
            time.monotonic(),
            time.monotonic(),
        )
        seen = clean_error = loss = None
        self.transformer.train()
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, self.step)
            while not self._any(self._over(began))[0]:
                batch = coming.result()
                coming = ahead.submit(self._batch, self.step + 1)
                try:
                    loss, clean_error = self._train(batch, self._progress(began))
                except torch.OutOfMemoryError:
                    if self.batch_size < 2:
                        raise TrainingError(
                            "Memory ran out with a single example; set gradient_checkpointing, or take"
                            " a smaller model."
                        ) from None
                    self.batch_size //= 2
                    self.report({"note": f"Memory ran out; {self.batch_size} examples a step from now on."})
                    del batch
                    coming.result()
                    torch.cuda.empty_cache()
                    coming = ahead.submit(self._batch, self.step)
                    continue
                self.step += 1
                self.elapsed = time.monotonic() - began
                seen = clean_error if seen is None else torch.lerp(seen, clean_error, 0.05)
                logs = self.step % self.settings.log_steps == 0 or self.step == 1
                # Gradients that wait for more are no part of a checkpoint.
                due = time.monotonic() - since_checkpoint >= self.settings.checkpoint_seconds
                saves = due and self.accelerator.sync_gradients
                lost = (logs or saves) and not loss.isfinite()
                saves, lost = self._any(saves, lost)
                if lost:
                    self._go_back()
                    coming.result()
                    coming = ahead.submit(self._batch, self.step)
                    continue
                if logs:
                    now = time.monotonic()
                    rate = (self.settings.log_steps if self.step > 1 else 1) / max(now - since_log, 1e-9)
                    since_log = now
                    self._log(loss.item(), seen.item(), rate, began)
                if saves:
                    self.save()
                    since_checkpoint = time.monotonic()
                    self.after_checkpoint(self)
        self.save()
        self.after_checkpoint(self)

    def end(self) -> None:
        """Leave the other processes; nothing can be exported after it."""
        self.accelerator.end_training()

    def _any(self, *flags: bool) -> list[bool]:
        """Whether any of the processes says so: their clocks and losses differ, and what one does alone the
        others would wait for."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        said = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return (self.accelerator.reduce(said, "sum") > 0).tolist()

    def _go_back(self) -> None:
        """To the last checkpoint, at half the learning rate, as often as the settings have it. Raises
        `TrainingError`."""
        last = self.last_checkpoint()
        if last is None or self._halvings >= self.settings.learning_rate_halvings:
            kept = f"the checkpoint {last.name} is whole" if last else "there is no checkpoint yet"
            raise TrainingError(
                f"The loss is no number at step {self.step}, so the run was stopped; {kept}:"
                " run again with a lower learning_rate."
            )
        self._load(last)
        self._halvings += 1
        self.learning_rate /= 2
        self.report({"note": f"The loss was no number; from step {self.step} on at half the learning rate."})

    def _batch(self, number: int) -> Batch:
        own = number * self.accelerator.num_processes + self.accelerator.process_index
        batch = self.batches.batch(own, self.batch_size)
        # All processes go without parts at once: what one has no gradient of the others would wait for.
        random = np.random.default_rng([self.settings.seed, number, 1])
        if random.random() < self.settings.part_dropout:
            batch = dataclasses.replace(batch, parts=None, unmatched=None)
        return batch

    def _train(self, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self.settings
        # Timesteps and noise go by the step's number, so that a run that was killed goes on exactly.
        rank = self.accelerator.process_index
        seed = (settings.seed * 1_000_003 + self.step) * 4096 + rank
        if settings.part_masks == "attention" and self._any(batch.unmatched is not None)[0]:
            with self.accelerator.autocast():
                batch = with_matched_parts(self.model, batch, self._generator.manual_seed(seed))
        self._generator.manual_seed(seed)  # the same whatever the masks
        warm = min(1.0, (self.step + 1) / max(settings.warmup_steps, 1))
        falling = min(1.0, (1 - progress) / settings.decay_share) if settings.decay_share else 1.0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * group["scale"] * warm * falling
        with self.accelerator.accumulate(self.transformer):
            with self.accelerator.autocast():  # of the models that are not this one's, too
                loss, clean_error = self.objective.loss(self.transformer, batch, self._generator)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self._trained, settings.gradient_norm)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            self.ema.step(self._trained)
        return loss.detach(), clean_error

    def _progress(self, began: float) -> float:
        """How far the run is, 0 to 1: by the steps or by the time, whichever is further."""
        done, now = self.step / self.settings.steps, time.monotonic() - began
        if self.settings.minutes:
            done = max(done, now / (60 * self.settings.minutes))
        if self.deadline is not None:
            done = max(done, now / max(now + self.deadline - time.time(), 1e-6))
        return min(done, 1.0)

    def _over(self, began: float) -> bool:
        return self._progress(began) >= 1

    def _log(self, loss: float, clean_error: float, rate: float, began: float) -> None:
        done = self._progress(began)
        line = {
            "step": self.step,
            "loss": round(loss, 5),
            "clean_error": round(clean_error, 5),
            "examples_per_second": round(rate * self.batch_size * self.accelerator.num_processes, 2),
            "seconds": round(self.elapsed, 1),
            "seconds_left": round(self.elapsed / done * (1 - done), 1),
        }
        if self.settings.tensorboard:
            self.accelerator.log({name: line[name] for name in ("loss", "clean_error")}, step=self.step)
        if self.accelerator.is_main_process:
            with open(self.output / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.report(line)

    def last_checkpoint(self) -> Path | None:
        folders = sorted((self.output / "checkpoints").glob("step-????????"))
        return folders[-1] if folders else None

    def save(self) -> None:
        """Write a checkpoint; the one before it stays until the new one is whole. Raises `TrainingError`."""
        folder = self.output / "checkpoints" / f"step-{self.step:08d}"
        growing = folder.with_name("growing")
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(growing, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(growing, safe_serialization=True)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                state = {"step": self.step, "elapsed": self.elapsed, "batch_size": self.batch_size}
                (growing / "state.json").write_text(json.dumps(state))
                if folder.exists():
                    shutil.rmtree(folder)
                growing.rename(folder)
                for old in sorted(folder.parent.glob("step-????????"))[:-CHECKPOINTS_KEPT]:
                    shutil.rmtree(old)
            self.accelerator.wait_for_everyone()
        except (OSError, RuntimeError, SafetensorError) as error:
            if isinstance(error, RuntimeError) and "write" not in str(error).lower():
                raise
            raise TrainingError(
                f"The checkpoint of step {self.step} can't be written ({error}); free some space on the disk"
                f" of {self.output} and run again: it goes on from the last whole checkpoint."
            ) from error

    def _load(self, folder: Path) -> None:
        try:
            state = json.loads((folder / "state.json").read_text())
            self.accelerator.load_state(folder, strict=self.settings.trainable == "all")
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"The checkpoint {folder} can't be gone on with ({str(error).splitlines()[0]});"
                " delete it to go on from the one before, or choose another output folder."
            ) from error
        self.step, self.elapsed, self.batch_size = state["step"], state["elapsed"], state["batch_size"]
        for parameter in self._trained:  # what waited for more is of another place
            parameter.grad = None

    def averaged(self):
        """A context in which the model has the averaged weights."""
        return _Averaged(self.ema, self._trained)

    def export_lora(self, path: Path | str) -> None:
        """Write the averaged low-rank matrices as a LoRA file, in diffusers' names; it declares
        what the settings name of `TRAINED_WITH`. To be called by all processes; the main one writes."""
        with self.averaged():
            weights = get_peft_model_state_dict(self.model, adapter_name=ADAPTER)
            named = {f"transformer.{name}": _whole(value).cpu().half() for name, value in weights.items()}
        if self.accelerator.is_main_process:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            save_file(named, path, {DECLARED: json.dumps(self.declared)} if self.declared else None)

    def export(self, folder: Path | str, dtype: torch.dtype = torch.float16) -> None:
        """Write the averaged weights as a diffusers folder. To be called by all processes; the main one
        writes."""
        model = self.model
        with self.averaged():
            weights = {name: _whole(value).to("cpu", dtype) for name, value in model.state_dict().items()}
        if not self.accelerator.is_main_process:
            return
        fresh = PoseAnythingTransformer3DModel.from_config(model.config)
        for name, parameter in fresh.named_parameters():
            parameter.data = weights[name]
        fresh.save_pretrained(folder)


def _whole(value: torch.Tensor) -> torch.Tensor:
    """A parameter, gathered where the processes share it."""
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def _as(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole parameter, shared as `like`."""
    value = value.to(like.device)
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


class _Averages:
    """The averaged weights, as `Accelerator` saves and loads what is registered with it."""

    def __init__(self, ema: EMAModel):
        self.ema = ema

    def state_dict(self) -> dict:
        state = self.ema.state_dict()
        return state | {"shadow_params": [_whole(value) for value in state["shadow_params"]]}

    def load_state_dict(self, state: dict) -> None:
        before = self.ema.shadow_params
        self.ema.load_state_dict(state)
        self.ema.shadow_params = [_as(value, like) for value, like in zip(state["shadow_params"], before)]


class _Averaged:
    def __init__(self, ema: EMAModel, parameters: list[torch.nn.Parameter]):
        self.ema, self.parameters = ema, parameters

    def __enter__(self) -> None:
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)

    def __exit__(self, *error) -> None:
        self.ema.restore(self.parameters)


def declare(transformer: PoseAnythingTransformer3DModel, settings: TrainingSettings) -> dict[str, Any]:
    """Have the model's configuration say how it is trained; returns what of `TRAINED_WITH` the settings tell.
    Raises `TrainingError`."""
    wanted = {name: value for name, value in settings.transformer.items() if name in TRAINED_WITH}
    if settings.distilled_steps:
        shift = wanted.get("flow_shift", transformer.config.flow_shift)
        wanted["distilled_timesteps"] = distilled_timesteps(settings.distilled_steps, shift)
        wanted["num_inference_steps"] = settings.distilled_steps
    if settings.part_masks != "none" and not transformer.config.part_attention:
        raise TrainingError(
            f"The setting part_masks is {settings.part_masks!r} and the model has no part-aware attention;"
            ' choose "none", or part_attention = true in the settings\' transformer.'
        )
    if settings.camera_poses:
        wanted["camera_condition"] = "with_background"
    try:
        transformer.declare(**wanted)
    except ValueError as error:
        raise TrainingError(f"The settings' transformer can't be made: {error}") from error
    return wanted


def make_objective(settings: TrainingSettings, transformer: PoseAnythingTransformer3DModel) -> Objective:
    """What the settings have the model learn; a model that is to be distilled is its own teacher."""
    if not settings.distilled_steps:
        return Objective(transformer.config, settings.loss_weights, settings.start_share, settings.held_share)
    teacher = copy.deepcopy(transformer)
    return DistributionMatching(transformer.config, teacher)


def _leave_out_the_frozen(models: list[torch.nn.Module], weights: list[dict], folder: str) -> None:
    for model, state in zip(models, weights):
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name in state.keys() - trained:
            del state[name]


def freeze(transformer: PoseAnythingTransformer3DModel, trainable: str, rank: int = 0) -> None:
    """Let all parameters be trained, those of part-aware attention alone (stage 3), or low-rank matrices that
    are added. Raises `TrainingError`."""
    if trainable == "lora":
        # Without an alpha, a file's matrices are taken as they are.
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_LAYERS)
        transformer.add_adapter(config, adapter_name=ADAPTER)
        for name, parameter in transformer.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return
    if trainable == "part_attention" and not transformer.config.part_attention:
        raise TrainingError(
            "Part-aware attention is to be trained, and the model has none; begin from one that has it."
        )
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(trainable == "all" or "part_attn" in name or "norm_part" in name)


def make_optimizers(
    transformer: PoseAnythingTransformer3DModel, settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices of the blocks where the settings say so. A group's `scale` multiplies
    the rate."""
    trained = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    matrices = {
        name for name, p in trained.items() if settings.muon and p.ndim == 2 and name.startswith("blocks.")
    }
    decaying = [p for name, p in trained.items() if name not in matrices and p.ndim > 1]
    others = [p for name, p in trained.items() if name not in matrices and p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": settings.weight_decay, "scale": 1.0},
        {"params": others, "weight_decay": 0.0, "scale": 1.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = []
    if groups:
        optimizers.append(torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98)))
    if matrices:
        muon = torch.optim.Muon(
            [trained[name] for name in sorted(matrices)],
            lr=2 * settings.learning_rate,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        muon.param_groups[0]["scale"] = 2.0
        optimizers.append(muon)
    return optimizers
