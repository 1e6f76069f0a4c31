"""A LoRA of what one checkpoint changes in another of the same shapes.

A whole step-distilled model can't be loaded in PoseAnything's place, which would lose what that has learnt of
poses. What it changes in the plain model that it was made from can be added: as pairs of low rank where
weights are large, and whole elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..models.transformer import TRAINED_WITH
from .errors import CheckpointError, name_some, require_same_names
from .lazy_tensors import LazyTensors, Renamed
from .loading import split_float8_scales
from .lora import DECLARED
from .official import OFFICIAL_KEYS
from .readers import open_tensors
from .transformer import without_prefix

RANK = 128
OVERSAMPLING = 16
ITERATIONS = 4  # of the randomised decomposition
PREFIX = "diffusion_model."
WHOLE = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}
"""By the end of a parameter's name, what a difference of it is called."""


@dataclass(frozen=True)
class Extracted:
    """What a LoRA holds. kept: the share of all that changes (of its norm) that is in the file, up to 1."""

    pairs: int
    whole: int
    kept: float


def extract(
    changed: Path | str,
    plain: Path | str,
    target: Path | str,
    *,
    rank: int = RANK,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Write what `changed` adds to `plain` as a LoRA file under ComfyUI's names.

    Both are transformers of the same shapes, in any format and naming but fp8 and GGUF. If both are folders
    of ours, the file declares how the changed one was trained otherwise, such as its few steps. `progress` is
    called with the tensors done and their number. Raises `CheckpointError`.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors; name such a file.")
    if target.exists():
        raise CheckpointError(f"{target} is there already; name a new file.")
    new, old = (_open(Path(path)) for path in (changed, plain))
    require_same_names(new.shapes, old.shapes, new.where)
    other = [name for name in new.shapes if new.shapes[name] != old.shapes[name]]
    if other:
        raise CheckpointError(
            f"{new.where} and {old.where} differ in the shape of {name_some(other)};"
            " choose the plain model that the other was made from."
        )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tensors: dict[str, torch.Tensor] = {}
    pairs = whole = 0
    total = lost = 0.0
    for done, name in enumerate(new.shapes, 1):
        difference = new[name].to(device).float() - old[name].to(device).float()
        layer, _, leaf = name.rpartition(".")
        if difference.any():
            total += difference.square().sum().item()
            if leaf == "weight" and difference.ndim == 2 and min(difference.shape) > 2 * rank:
                down, up = low_rank(difference, rank)
                lost += (difference - up @ down).square().sum().item()
                tensors[f"{PREFIX}{layer}.lora_down.weight"] = _kept(down)
                tensors[f"{PREFIX}{layer}.lora_up.weight"] = _kept(up)
                pairs += 1
            else:
                tensors[f"{PREFIX}{layer}.{WHOLE[leaf]}"] = _kept(difference)
                whole += 1
        if progress is not None:
            progress(done, len(new.shapes))
    if not tensors:
        raise CheckpointError(f"{new.where} changes nothing in {old.where}; choose the changed model first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        declared = _trained_otherwise(Path(changed), Path(plain))
        metadata = {DECLARED: json.dumps(declared)} if declared else {}
        save_file(tensors, unfinished, metadata={"format": "pt"} | metadata)
        unfinished.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{target} can't be written ({error}); free some room, or name another place."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Extracted(pairs, whole, math.sqrt(max(0.0, 1 - lost / total)))


def _trained_otherwise(changed: Path, plain: Path) -> dict[str, Any]:
    """What the folder of a changed model says otherwise than the plain one's of how it was trained."""
    files = [folder / "config.json" for folder in (changed, plain)]
    if not all(file.is_file() for file in files):
        return {}
    new, old = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return {name: new[name] for name in TRAINED_WITH if name in new and new[name] != old.get(name)}


def low_rank(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest product of so low a rank, nearly: down `[rank, in]` and up `[out, rank]`, of like size.

    The same matrix gives the same two every time.
    """
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)
        size = min(rank + OVERSAMPLING, *matrix.shape)
        left, values, right = torch.svd_lowrank(matrix, q=size, niter=ITERATIONS)
    root = values[:rank].sqrt()
    return root[:, None] * right[:, :rank].T, left[:, :rank] * root


def _open(path: Path) -> LazyTensors:
    """A transformer's tensors under Wan's names. Raises `CheckpointError`."""
    tensors, scales = split_float8_scales(without_prefix(open_tensors(path)))
    if scales or any(shape == () for shape in tensors.shapes.values()):
        raise CheckpointError(f"{tensors.where} is quantised; choose the model it was made from.")
    if any(name.startswith("condition_embedder.") for name in tensors):
        return Renamed(tensors, OFFICIAL_KEYS.all_to_theirs(tensors, tensors.where))
    ours = OFFICIAL_KEYS.all_to_ours(tensors, tensors.where)
    return Renamed(tensors, {theirs: theirs for theirs in ours.values()})


def _kept(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", torch.bfloat16).contiguous()
