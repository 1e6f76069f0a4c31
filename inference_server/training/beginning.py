"""The model that a run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel

from ..poseanything.checkpoints import load_transformer
from ..poseanything.checkpoints.folder import read_config
from ..poseanything.checkpoints.transformer import open_transformer
from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
from .errors import TrainingError
from .extension import extend_wan, extended_config, start_part_attention
from .settings import TrainingSettings


def begin_with(settings: TrainingSettings) -> PoseAnythingTransformer3DModel:
    """The settings' checkpoint, or a new model of their configuration, in float32; in bfloat16 where a LoRA
    is trained on it. A plain Wan is extended. Raises `TrainingError`, `CheckpointError`."""
    if not settings.checkpoint:
        torch.manual_seed(settings.seed)
        transformer = _made(settings.transformer)
        initialise(transformer)
        return transformer
    path = Path(settings.checkpoint)
    if _plain_wan_config(path) is not None:
        wan = WanTransformer3DModel.from_pretrained(path, torch_dtype=torch.float32)
        return extend_wan(wan, **settings.transformer)
    if settings.frozen_in_half:
        return load_transformer(path, torch_dtype=torch.bfloat16)
    transformer = load_transformer(path, torch_dtype=torch.float32).requires_grad_(True)
    if _lacks_part_attention(transformer, settings):
        return _with_part_attention(transformer, settings.transformer)
    return transformer


def outline(settings: TrainingSettings) -> PoseAnythingTransformer3DModel:
    """What `begin_with` gives, without its values: only headers are read, and its parameters lie on torch's
    meta device. Raises as that does."""
    with init_empty_weights():
        if not settings.checkpoint:
            return _made(settings.transformer)
        path = Path(settings.checkpoint)
        if (wan := _plain_wan_config(path)) is not None:
            return _made(extended_config(wan, **settings.transformer))
        transformer = open_transformer(path).model
        if settings.frozen_in_half:
            return transformer.bfloat16()
        if _lacks_part_attention(transformer, settings):
            return PoseAnythingTransformer3DModel.from_config({**transformer.config, **settings.transformer})
        return transformer


def _made(config: Mapping[str, Any]) -> PoseAnythingTransformer3DModel:
    try:
        return PoseAnythingTransformer3DModel(**config)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"The settings' transformer can't be made: {error}") from error


def _plain_wan_config(path: Path) -> dict[str, Any] | None:
    """The configuration of diffusers' folder of a Wan that takes no poses; None for any other."""
    config = read_config(path) if path.is_dir() else {}
    if config.get("_class_name") != "WanTransformer3DModel":
        return None
    # What the file leaves out has diffusers' default.
    with init_empty_weights():
        complete = WanTransformer3DModel.from_config(config).config
    return dict(complete) if complete["in_channels"] == complete["out_channels"] else None


def _lacks_part_attention(transformer: PoseAnythingTransformer3DModel, settings: TrainingSettings) -> bool:
    """Whether the settings ask for part-aware attention and a model of stage 1 or 2 has none."""
    return bool(settings.transformer.get("part_attention")) and not transformer.config.part_attention


def initialise(transformer: PoseAnythingTransformer3DModel) -> None:
    """Begin with a model that predicts nothing, and with part-aware attention that adds nothing."""
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    start_part_attention(transformer)


def _with_part_attention(
    transformer: PoseAnythingTransformer3DModel, changes: dict
) -> PoseAnythingTransformer3DModel:
    """A model of stage 1 or 2 with the part-aware attention that stage 3 trains."""
    extended = PoseAnythingTransformer3DModel.from_config({**transformer.config, **changes})
    extended.load_state_dict(transformer.state_dict(), strict=False)
    start_part_attention(extended)
    return extended
