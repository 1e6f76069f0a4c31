"""A checkpoint rewritten under the other names, every tensor bit for bit as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import ConfigMixin
from safetensors.torch import save_file
from torch import nn

from .errors import CheckpointError
from .gguf_files import is_quantized
from .keymap import KeyMap
from .lazy_tensors import Renamed
from .loading import FLOAT8_MARK, Opened
from .official import OFFICIAL_KEYS, wan_config
from .readers import open_tensors
from .text_encoder import WAN_T5_KEYS, open_text_encoder, with_one_embedding
from .transformer import open_transformer, without_prefix
from .vae import WAN_VAE_KEYS, open_vae

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Component:
    """A part of the model: how its files are told apart, and what they are called in either format."""

    what: str
    keys: KeyMap
    ours: str
    """A tensor that only a file of diffusers' (or transformers') names has."""
    theirs: str
    """A tensor that only a file of Wan's names has."""
    open: Callable[[Path], Opened]
    stem: str
    """What diffusers (or transformers) calls the safetensors files."""
    official_is_pth: bool
    """Whether Wan keeps it in one `.pth` file, not in safetensors shards."""


COMPONENTS = (
    Component(
        what="transformer",
        keys=OFFICIAL_KEYS,
        ours="condition_embedder.time_proj.weight",
        theirs="time_projection.1.weight",
        open=open_transformer,
        stem="diffusion_pytorch_model",
        official_is_pth=False,
    ),
    Component(
        what="VAE",
        keys=WAN_VAE_KEYS,
        ours="decoder.conv_in.weight",
        theirs="decoder.conv1.weight",
        open=open_vae,
        stem="diffusion_pytorch_model",
        official_is_pth=True,
    ),
    Component(
        what="text encoder",
        keys=WAN_T5_KEYS,
        ours="encoder.final_layer_norm.weight",
        theirs="token_embedding.weight",
        open=open_text_encoder,
        stem="model",
        official_is_pth=True,
    ),
)


def convert(source: Path | str, target: Path | str, to: Literal["official", "diffusers"]) -> Component:
    """Rewrite the checkpoint at `source` as a new one at `target`, and return what it was.

    The tensors keep their type and every bit; an fp8 file keeps its scales. `target` is a folder, or the
    `.pth` file for Wan's own VAE and text encoder; it is made whole or not at all. Raises `CheckpointError`.
    """
    source, target = Path(source), Path(target)
    tensors = without_prefix(open_tensors(source))
    component = next((one for one in COMPONENTS if one.ours in tensors or one.theirs in tensors), None)
    if component is None:
        raise CheckpointError(
            f"{source} is no transformer, VAE or text encoder of this model; choose one of these."
        )
    if target.exists():
        raise CheckpointError(f"{target} is there already; name a new place.")
    if any(is_quantized(tensor) for tensor in tensors.values()):
        raise CheckpointError(
            f"{source} is quantised as only GGUF can be; convert the checkpoint it was made from."
        )
    opened = component.open(source)
    if component.what == "text encoder":
        tensors = with_one_embedding(tensors)
    is_ours = component.ours in tensors
    if is_ours != (to == "diffusers"):
        rename = component.keys.all_to_theirs if is_ours else component.keys.all_to_ours
        names = rename([name for name in tensors if name != FLOAT8_MARK], tensors.where)
        tensors = Renamed(tensors, names | {mark: mark for mark in tensors if mark == FLOAT8_MARK})

    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if to == "official" and component.official_is_pth:
            torch.save(dict(tensors), unfinished)
        else:
            unfinished.mkdir()
            _write_config(opened.model, unfinished, to)
            write_shards(
                tensors, unfinished, component.stem if to == "diffusers" else "diffusion_pytorch_model"
            )
        unfinished.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{target} can't be written ({error}); free some room, or name another place."
        ) from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    return component


def write_shards(
    tensors: Mapping[str, torch.Tensor], folder: Path, stem: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors as safetensors files of at most `shard_bytes` each (one tensor at least), read one file
    at a time.

    More than one get an index, as the hub's libraries name and write it.
    """
    shards: list[list[str]] = [[]]
    size = 0
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    for name, nbytes in sizes.items():
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    count = len(shards)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
        save_file(
            {name: tensors[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"}
        )
        weight_map |= dict.fromkeys(names, file)
    if count > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_config(model: nn.Module, folder: Path, to: str) -> None:
    if to == "official":
        text = json.dumps(wan_config(model.config), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
    elif isinstance(model, ConfigMixin):
        model.save_config(folder)
    else:
        model.config.save_pretrained(folder)
