"""The recorded runs of the official code: every `NAME*_io.npz` with the weights `NAME.safetensors` beside
it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from inference_server.poseanything.checkpoints.official import config_from_official, from_official_state_dict
from inference_server.poseanything.models.transformer import PartTokens, PoseAnythingTransformer3DModel


class Recording:
    """One run's inputs and outputs, and the model it was made with."""

    def __init__(self, run: Path):
        named = [path for path in run.parent.glob("*.safetensors") if run.stem.startswith(path.stem)]
        if not named:
            pytest.skip(f"{run} has no weights beside it")
        self.weights = max(named, key=lambda path: len(path.stem))
        self.arrays = np.load(run)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.arrays:
            pytest.skip(f"this recording has no {name!r}")
        return torch.from_numpy(self.arrays[name])

    @cached_property
    def transformer(self) -> PoseAnythingTransformer3DModel:
        state_dict = load_file(self.weights)
        with safe_open(self.weights, "pt") as file:
            original = json.loads((file.metadata() or {}).get("config", "{}"))
        shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        transformer = PoseAnythingTransformer3DModel(
            **config_from_official(shapes, self.weights.name, original)
        )
        transformer.load_state_dict(from_official_state_dict(state_dict))
        return transformer.eval()

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        batch_size, _, frames = self["latents"].shape[:3]
        timestep = (
            self["timestep"].float().reshape(-1, 1).repeat(batch_size // self["timestep"].numel(), frames)
        )
        timestep[:, 0] = 0
        return {
            "hidden_states": self["latents"],
            "timestep": timestep,
            "encoder_hidden_states": self["context"],
            "pose_hidden_states": self["pose"],
        }

    @property
    def parts(self) -> PartTokens:
        return PartTokens.from_masks(self["first_masks"], self["union_mask"], batch_size=len(self["latents"]))


def relative_error(actual: torch.Tensor, recorded: torch.Tensor) -> float:
    """The largest difference, relative to the largest recorded value."""
    return ((actual.double() - recorded.double()).abs().max() / recorded.double().abs().max()).item()
