"""A training run as a file says it: one TOML, any size of model, any stage."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import TrainingError

CHOICES = {
    "trainable": ("all", "part_attention", "lora"),
    "loss_weights": ("release", "uniform"),
    "mixed_precision": ("no", "bf16", "fp16"),
    "part_masks": ("mixed", "known", "drawn", "attention", "whole", "none"),
}

LIMITS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("batch_size", "accumulation", "steps", "log_steps", "lora_rank"), lambda v: v >= 1, "1 or more"),
    (("learning_rate", "gradient_norm"), lambda v: v > 0, "more than 0"),
    (
        ("minutes", "weight_decay", "warmup_steps", "subject_weight", "checkpoint_seconds")
        + ("learning_rate_halvings", "distilled_steps", "seed", "longer_side"),
        lambda v: v >= 0,
        "0 or more",
    ),
    (
        ("decay_share", "start_share", "pose_dropout", "part_dropout", "text_dropout", "sparse_poses")
        + ("camera_poses", "held_share"),
        lambda v: 0 <= v <= 1,
        "between 0 and 1",
    ),
    (("most_frames",), lambda v: v >= 5, "5 or more"),
    (("ema_decay",), lambda v: 0 <= v < 1, "0 or more and less than 1"),
)


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained. The paper's three stages (section 5.1) are three of these; see `STAGES`. A file
    may build upon a stage, or by `extends` upon another file, named from where it lies.

    transformer: entries of the configuration of `PoseAnythingTransformer3DModel`, for a model that begins at
        random; beside a checkpoint, those that it is to have otherwise: how it is trained, such as
        `init = "draft"`, which its file then declares, and part-aware attention where it has none.
    checkpoint: the transformer to begin from instead; a plain Wan 2.2 one is extended.
    vae: file or folder of the VAE, where the command line names none.
    trainable: "all"; "part_attention", all else frozen (stage 3); or "lora", low-rank matrices beside the
        layers of attention and feed-forward, which go into a file of their own.
    lora_rank: of these matrices.
    longer_side: pixels that clips in the official release's layout are scaled to; 0 leaves them as large as
        they are. Clips of shards are taken as they are.
    most_frames: of such clips the first so many are taken.
    batch_size: examples a step, on each process.
    steps: how many in all. With `minutes` the run ends after so long at the latest, and the learning rate
        goes by whichever is nearer its end.
    learning_rate: of AdamW; matrices of the blocks are trained by Muon at twice this where `muon` is set.
    warmup_steps, decay_share: the rate rises over the first steps and falls to 0 over the last share of the
        run.
    loss_weights: over the timesteps, "release" or "uniform".
    start_share: share of the examples that are trained where the flow starts, for models of few steps.
    subject_weight: how much more an error counts on the subject.
    pose_dropout, text_dropout: shares of the examples without the condition, for the guiders.
    part_dropout: share of the steps without parts.
    sparse_poses: share of the examples whose poses are thinned as in section F.
    camera_poses: share of the examples that have a rectangle moving with the background for their pose
        (section 4.3).
    held_share: share of the examples that go on from clean frames after the first, for checkpoints with
        `held_latents` in their configuration.
    part_masks: where the masks of later frames come from: "known" from the scene, "drawn" by the pose's
        broad strokes, "mixed" either; "attention" has those of the strokes that the model itself takes for
        the parts of frame 0, as the pipeline matches them, by one more pass a step, without gradient; "whole"
        takes the strokes of all parts for one part, "none" trains without parts.
    distilled_steps: teach the checkpoint to do with so many steps (`distillation.py`); 0 trains it as it is.
    ema_decay: of the averaged weights that are exported.
    checkpoint_seconds: between two checkpoints; only the last two are kept.
    learning_rate_halvings: how often a run whose loss is no number goes on from its last checkpoint at half
        the rate, before it is given up.
    tensorboard: write losses, and sheets of what the model makes at each checkpoint, to `training/` of the
        output folder for TensorBoard.
    """

    transformer: dict = field(default_factory=dict)
    checkpoint: str = ""
    vae: str = ""
    trainable: str = "all"
    lora_rank: int = 32
    longer_side: int = 0
    most_frames: int = 81
    batch_size: int = 64
    accumulation: int = 1
    steps: int = 100_000
    minutes: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    muon: bool = True
    warmup_steps: int = 100
    decay_share: float = 0.5
    gradient_norm: float = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: str = "bf16"
    loss_weights: str = "uniform"
    start_share: float = 0.0
    subject_weight: float = 4.0
    pose_dropout: float = 0.0
    part_dropout: float = 0.1
    text_dropout: float = 0.1
    sparse_poses: float = 0.0
    camera_poses: float = 0.0
    held_share: float = 0.0
    part_masks: str = "mixed"
    distilled_steps: int = 0
    ema_decay: float = 0.999
    seed: int = 0
    log_steps: int = 20
    checkpoint_seconds: float = 60.0
    learning_rate_halvings: int = 0
    tensorboard: bool = False

    def __post_init__(self):
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                raise TrainingError(
                    f"The setting {name} is {getattr(self, name)!r}; choose one of {', '.join(words)}."
                )
        for names, fits, limits in LIMITS:
            for name in names:
                if not fits(getattr(self, name)):
                    raise TrainingError(f"The setting {name} is {getattr(self, name)}; it must be {limits}.")
        if self.trainable == "part_attention" and (self.part_masks == "none" or self.part_dropout):
            raise TrainingError(
                "Part-aware attention alone is to be trained, and learns nothing without parts; set"
                ' part_dropout to 0, and part_masks to another than "none".'
            )

    @property
    def known_share(self) -> float:
        """Share of the examples whose masks are the scene's and not the pose's strokes."""
        return {"known": 1.0, "mixed": 0.5}.get(self.part_masks, 0.0)

    @property
    def frozen_in_half(self) -> bool:
        """Whether the checkpoint is kept in bfloat16: what is frozen needs no more than half precision."""
        return (self.trainable, self.mixed_precision) == ("lora", "bf16")

    @classmethod
    def read(cls, path: Path | str, **changes) -> TrainingSettings:
        """Settings from a TOML file. Raises `TrainingError`."""
        values = _read(Path(path))
        return cls.of(values.pop("stage", None), **_over(values, changes))

    @classmethod
    def of(cls, stage: str | None = None, **values) -> TrainingSettings:
        """A stage of the paper with some values changed. Raises `TrainingError` for what there isn't."""
        if stage is not None and stage not in STAGES:
            raise TrainingError(f"There is no stage {stage!r}; choose one of {', '.join(STAGES)}.")
        known = {each.name: each for each in dataclasses.fields(cls)}
        values = _over(STAGES.get(stage, {}), values)
        for name, value in values.items():
            if name not in known:
                raise TrainingError(f"There is no setting {name!r}; there are {', '.join(known)}.")
            kind = type(getattr(_DEFAULTS, name))
            if not (type(value) is kind or (kind is float and type(value) is int)):
                raise TrainingError(f"The setting {name} is {value!r}; it must be of type {kind.__name__}.")
        return cls(**values)


def _read(path: Path) -> dict:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"The settings {path} can't be read ({error}); correct the file.") from error
    base = values.pop("extends", None)
    return values if base is None else _over(_read(path.parent / base), values)


def _over(base: dict, values: dict) -> dict:
    """The values, and those of the base that they leave out, of the transformer's as well."""
    merged = base | values
    if isinstance(merged.get("transformer"), dict):
        merged["transformer"] = base.get("transformer", {}) | merged["transformer"]
    return merged


_DEFAULTS = TrainingSettings()

_OF_THE_PAPER = {
    "muon": False,
    "learning_rate": 1e-5,
    "loss_weights": "release",
    "subject_weight": 0.0,
    "gradient_checkpointing": True,
    "sparse_poses": 1.0,
    "decay_share": 0.0,
    "checkpoint_seconds": 1800.0,
    "longer_side": 832,
    "batch_size": 1,
}
_LORA = _OF_THE_PAPER | {
    "trainable": "lora",
    "learning_rate": 1e-4,
    "part_masks": "known",
    "sparse_poses": 0.3,
    "ema_decay": 0.99,
    "steps": 2000,
    "checkpoint_seconds": 600.0,
}
STAGES: dict[str | None, dict] = {
    "base": _OF_THE_PAPER | {"part_masks": "none"},
    "mixed": _OF_THE_PAPER | {"part_masks": "none", "pose_dropout": 0.1},
    "parts": _OF_THE_PAPER | {"trainable": "part_attention", "part_masks": "known", "part_dropout": 0.0},
    "lora": _LORA,
    "bridge": _LORA
    | {
        "transformer": {"init": "draft", "num_inference_steps": 4},
        "loss_weights": "uniform",
        "start_share": 0.5,
        "lora_rank": 64,
    },
    "distill": _OF_THE_PAPER
    | {"distilled_steps": 4, "part_masks": "known", "part_dropout": 0.0, "sparse_poses": 0.5},
}
"""The paper's stages: the base model without part-aware attention, on humans; on humans and all else; and
part-aware attention alone, all else frozen (section 5.1). "lora" learns a character from a few takes,
"bridge" a LoRA with which the flow starts from the draft engine's clip and not from noise, "distill" teaches
a model to do with few steps. Which data is said on the command line."""
