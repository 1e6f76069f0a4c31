"""The transformer's files: found out what they are, read strictly, written in the release's or in diffusers'
way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights

from ..models.transformer import PoseAnythingTransformer3DModel
from .errors import CheckpointError
from .lazy_tensors import LazyTensors, Renamed
from .loading import Opened, Quantization, fill, split_float8_scales
from .official import OFFICIAL_KEYS, OFFICIAL_PREFIXES, config_from_official
from .readers import open_tensors

DIFFUSERS_CLASSES = ("PoseAnythingTransformer3DModel", "WanTransformer3DModel")


def load_transformer(
    path: Path | str,
    *,
    torch_dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    quantization: Quantization = None,
    check: Callable[[], None] | None = None,
) -> PoseAnythingTransformer3DModel:
    """Load the transformer from any file or folder that holds one.

    It may be the release's safetensors (one file, its shards, their index, or the folder of them), a
    diffusers folder, a GGUF file, or fp8 with or without scales, under Wan's names or diffusers'. A
    checkpoint without the PTCM makes a model with `part_attention=False`.

    `check` is called between the tensors, and what it raises ends the reading. Raises `CheckpointError`: one
    sentence on what is wrong with the files, or which other model they are.
    """
    opened = open_transformer(path)
    return fill(
        opened,
        torch_dtype=torch_dtype,
        device=device,
        quantization=quantization,
        keep_in_fp32=tuple(opened.model._keep_in_fp32_modules),
        check=check,
    )


def open_transformer(path: Path | str) -> Opened[PoseAnythingTransformer3DModel]:
    """Open a transformer checkpoint and tell what model it is. Raises `CheckpointError`."""
    tensors = without_prefix(open_tensors(Path(path)))
    weights, scales = split_float8_scales(tensors)
    beside = _config_beside(tensors.paths[0].parent)
    if not any(name.startswith("condition_embedder.") for name in weights):
        config = config_from_official(weights.shapes, tensors.where, beside)
        weights = Renamed(weights, OFFICIAL_KEYS.all_to_ours(weights, tensors.where))
        scales = {
            ours: scales[name] for ours, name in OFFICIAL_KEYS.all_to_ours(scales, tensors.where).items()
        }
    elif beside.get("_class_name") in DIFFUSERS_CLASSES:
        config = _checked_diffusers_config(beside, tensors.where)
    else:
        shapes = {OFFICIAL_KEYS.to_theirs(name) or name: shape for name, shape in weights.shapes.items()}
        config = config_from_official(shapes, tensors.where, beside)
    try:
        with init_empty_weights():
            model = PoseAnythingTransformer3DModel.from_config(config)
    except ValueError as error:
        raise CheckpointError(
            "The config.json beside {file} is not this model's: {error} Get it again.",
            file=tensors.where,
            error=error,
        ) from error
    return Opened(model, weights, scales)


def without_prefix(tensors: LazyTensors) -> LazyTensors:
    """The same tensors without the prefix that a training framework or another program put before every
    name."""
    for prefix in OFFICIAL_PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return Renamed(tensors, {name.removeprefix(prefix): name for name in tensors})
    return tensors


def _config_beside(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "{path} can't be read ({error}); delete it or get it again.", path=path, error=error
        ) from error
    return config if isinstance(config, dict) else {}


def _checked_diffusers_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The config of a diffusers folder; a stock Wan one is welcome when its channels are PoseAnything's."""
    if config["_class_name"] == "PoseAnythingTransformer3DModel":
        return config
    if config.get("in_channels") != 2 * config.get("out_channels", 0):
        raise CheckpointError(
            "{where} is a plain Wan transformer, not PoseAnything:"
            " it takes {channels} channels where PoseAnything takes"
            " {needed}, the video's and the pose's;"
            " get Ryan241005/PoseAnything with python build.py weights.",
            where=where,
            channels=config.get("in_channels"),
            needed=2 * config.get("out_channels", 0),
        )
    known = PoseAnythingTransformer3DModel._get_init_keys(PoseAnythingTransformer3DModel)
    return {name: value for name, value in config.items() if name in known} | {
        "pose_injection": "channel",
        "part_attention": False,
    }
