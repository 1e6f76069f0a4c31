"""The model that a run begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from ..poseanything.checkpoints import load_transformer
from ..poseanything.checkpoints.folder import read_config
from ..poseanything.models.transformer import PoseAnythingTransformer3DModel
from .errors import TrainingError
from .extension import extend_wan, start_part_attention
from .settings import TrainingSettings


def begin_with(settings: TrainingSettings) -> PoseAnythingTransformer3DModel:
    """The settings' checkpoint, or a new model of their configuration, in float32; in bfloat16 where a LoRA
    is trained on it. Raises `TrainingError`, `CheckpointError`."""
    if not settings.checkpoint:
        torch.manual_seed(settings.seed)
        try:
            transformer = PoseAnythingTransformer3DModel(**settings.transformer)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"The settings' transformer can't be made: {error}") from error
        initialise(transformer)
        return transformer
    path = Path(settings.checkpoint)
    if path.is_dir() and read_config(path).get("_class_name") == "WanTransformer3DModel":
        wan = WanTransformer3DModel.from_pretrained(path, torch_dtype=torch.float32)
        if wan.config.in_channels == wan.config.out_channels:
            return extend_wan(wan, **settings.transformer)
    if settings.frozen_in_half:
        return load_transformer(path, torch_dtype=torch.bfloat16)
    transformer = load_transformer(path, torch_dtype=torch.float32).requires_grad_(True)
    if settings.transformer.get("part_attention") and not transformer.config.part_attention:
        return _with_part_attention(transformer, settings.transformer)
    return transformer


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
