"""The whole model with random weights, made where they are to stay and read the way files are.

At full size every tensor has the released model's shape: transformer, VAE and text encoder together 23 GB in
bfloat16, which a card makes in seconds and no disk has to hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from inference_server.poseanything.checkpoints.folder import WeightSet, find_weights
from inference_server.poseanything.checkpoints.lazy_tensors import LazyTensors
from inference_server.poseanything.checkpoints.loading import Opened, fill
from inference_server.poseanything.checkpoints.text_encoder import WAN_T5_KEYS, config_from_shapes
from inference_server.poseanything.checkpoints.vae import config_from_wan
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel
from inference_server.poseanything.runtime import runner as runner_module
from inference_server.poseanything.runtime.requirements import ModelSizes
from inference_server.poseanything.runtime.runner import ClipRunner
from tests.model.checkpoint_files import save_release, wan_t5_shapes, wan_vae_shapes
from tests.model.tiny_pipeline import WordTokenizer

PLAIN_WAN = {"patch_size": (1, 2, 2), "in_channels": 48, "out_channels": 48, "eps": 1e-6}


class RandomTensors(LazyTensors):
    """A checkpoint of these shapes, each tensor drawn on `device` when it is asked for; those in `kept`, by
    name, come from there, like those of a file in the host's memory.

    Weights have the variance that keeps a layer's output as large as its input; norms scale by about 1.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        device: torch.device,
        dtype: torch.dtype,
        kept: dict[str, torch.Tensor] | None = None,
    ):
        self.where, self.paths = "random weights", [Path("random.safetensors")]
        self.shapes = shapes
        self._device, self._dtype, self._kept = device, dtype, kept

    def __getitem__(self, name: str) -> torch.Tensor:
        if self._kept is None:
            return self._draw(name)
        if name not in self._kept:
            self._kept[name] = self._draw(name).cpu()
        return self._kept[name]

    def _draw(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        fan_in = math.prod(shape[1:])
        std = fan_in**-0.5 if fan_in > 1 else 0.02
        # In float32, as what is drawn from a seed differs from one precision to another.
        tensor = torch.empty(shape, device=self._device).normal_(std=std).to(self._dtype)
        scales = name.endswith(".gamma") or ("norm" in name and name.endswith(".weight"))
        return tensor.add_(1) if scales else tensor


@dataclass(frozen=True)
class ModelShape:
    """How large the random model is."""

    transformer: dict[str, int]
    vae: dict[str, tuple[int, ...]]
    """By Wan's names."""
    text_encoder: dict[str, tuple[int, ...]]

    def open_transformer(self) -> nn.Module:
        with init_empty_weights():
            return PoseAnythingTransformer3DModel(**self.transformer)

    def open_plain(self) -> nn.Module:
        """diffusers' Wan of the same size, without poses and parts."""
        with init_empty_weights():
            return WanTransformer3DModel(**self.transformer | PLAIN_WAN)

    def open_vae(self) -> nn.Module:
        with init_empty_weights():
            return AutoencoderKLWan.from_config(config_from_wan(self.vae, "the random VAE"))

    def open_text_encoder(self) -> nn.Module:
        names = {WAN_T5_KEYS.to_ours(name): shape for name, shape in self.text_encoder.items()}
        with init_empty_weights():
            encoder = UMT5EncoderModel(UMT5Config(**config_from_shapes(names, "the random encoder")))
        encoder.encoder.embed_tokens.weight = encoder.shared.weight
        return encoder

    @property
    def sizes(self) -> ModelSizes:
        """What the memory plan has to know."""
        transformer, encoder = self.open_transformer(), self.open_text_encoder()

        def count(module: nn.Module) -> int:
            return sum(parameter.numel() for parameter in module.parameters())

        config = transformer.config
        return ModelSizes(
            transformer=count(transformer),
            blocks=len(transformer.blocks),
            block=count(transformer.blocks[0]),
            dim=config.num_attention_heads * config.attention_head_dim,
            ffn_dim=config.ffn_dim,
            vae=count(self.open_vae()),
            text_layers=count(encoder) - encoder.shared.weight.numel(),
            text_blocks=len(encoder.encoder.block),
        )


FULL = ModelShape(
    {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "text_dim": 4096},
    wan_vae_shapes(160, 256),
    wan_t5_shapes(256384, 4096, 4096, 10240, 64, 24),
)
TOY = ModelShape(
    {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 48, "num_layers": 2, "text_dim": 16},
    wan_vae_shapes(4, 4),
    wan_t5_shapes(64, 16, 16, 24, 2, 2),
)


def filled(
    model: nn.Module,
    device: torch.device,
    torch_dtype: torch.dtype,
    source: torch.device,
    kept: dict[str, torch.Tensor] | None = None,
    **options,
):
    """A model without storage, given random weights by the loader of files; they are drawn on `source`, or
    are those `kept`."""
    diffusion = isinstance(model, (PoseAnythingTransformer3DModel, WanTransformer3DModel))
    keep = tuple(model._keep_in_fp32_modules) if diffusion else ()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    tensors = RandomTensors(shapes, source, torch_dtype, kept)
    return fill(Opened(model, tensors), torch_dtype=torch_dtype, device=device, keep_in_fp32=keep, **options)


@contextmanager
def random_runner(shape: ModelShape, device: torch.device, folder: Path) -> Iterator[ClipRunner]:
    """A `ClipRunner` that loads random weights wherever it would read the files; `folder` gets tiny ones,
    which are only looked for. What is loaded to the host is drawn once."""
    kept: dict[str, dict[str, torch.Tensor]] = {"transformer": {}, "text_encoder": {}}

    def of_host(name: str, device: torch.device) -> dict[str, torch.Tensor] | None:
        return kept[name] if torch.device(device).type == "cpu" else None

    def load_transformer(path, *, torch_dtype, device: torch.device, **options):
        tensors = of_host("transformer", device)
        return filled(shape.open_transformer(), device, torch_dtype, source, tensors, **options)

    def load_vae(path, *, torch_dtype, device: torch.device, **options):
        return filled(shape.open_vae(), device, torch_dtype, source, **options)

    def load_text_encoder(path, *, torch_dtype, device: torch.device, tokenizer=None, **options):
        tensors = of_host("text_encoder", device)
        encoder = filled(shape.open_text_encoder(), device, torch_dtype, source, tensors, **options)
        return encoder, WordTokenizer()

    source = torch.device(device)
    with ExitStack() as patches:
        for load in (load_transformer, load_vae, load_text_encoder):
            patches.enter_context(mock.patch.object(runner_module, load.__name__, load))
        runner = ClipRunner(_tiny_files(folder), device)
        runner.sizes = shape.sizes
        yield runner


def _tiny_files(folder: Path) -> WeightSet:
    folder.mkdir(parents=True, exist_ok=True)
    return find_weights(save_release(folder))
