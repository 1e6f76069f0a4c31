"""Checkpoint files opened lazily: names and shapes at once, a tensor only when it is asked for."""

from __future__ import annotations

import argparse
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError, name_some
from .folder import SHARD, checkpoint_families
from .gguf_files import GGUFFile
from .lazy_tensors import LazyTensors


class SafetensorsFiles(LazyTensors):
    """One safetensors file, or the shards of one checkpoint taken together.

    Raises `CheckpointError` for a file that is cut off, is no safetensors file, or repeats a tensor of
    another shard.
    """

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self.where = str(paths[0] if len(paths) == 1 else paths[0].parent)
        self.shapes = {}
        self.metadata: dict[str, str] = {}
        self._files: dict[str, Any] = {}
        for path in paths:
            file = _open_safetensors(path)
            self.metadata |= file.metadata() or {}
            for name in file.keys():
                if name in self._files:
                    raise CheckpointError(
                        "{path} repeats the tensor {name} of another file beside it;"
                        " keep the files of one checkpoint alone in the folder.",
                        path=path,
                        name=name,
                    )
                self._files[name] = file
                self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._files[name].get_tensor(name)


def _open_safetensors(path: Path):
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise CheckpointError(
            "The file {path} is missing; get it again with python build.py weights.", path=path
        ) from error
    except SafetensorError as error:
        size = path.stat().st_size
        raise CheckpointError(
            "{path} is damaged or was cut off ({size} bytes, {error}); delete it and get it again.",
            path=path,
            size=f"{size:,}",
            error=error,
        ) from error


class TorchFile(LazyTensors):
    """A `.pth` file holding one flat dictionary of tensors, read with `weights_only`: no code of the file
    ever runs. With `entry`, a training's checkpoint, which holds that dictionary under this name beside the
    optimizer's state and the command line's arguments.

    Raises `CheckpointError` for a file that is cut off or holds anything but named tensors.
    """

    def __init__(self, path: Path, entry: str = ""):
        self.paths = [path]
        self.where = str(path)
        try:
            # Only the zip form can be mapped into memory instead of read.
            with torch.serialization.safe_globals([argparse.Namespace] if entry else []):
                content = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
                )
            if entry and isinstance(content, dict):
                content = content.get(entry)
        except FileNotFoundError as error:
            raise CheckpointError(
                "The file {path} is missing; get it again with python build.py weights.", path=path
            ) from error
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                "{path} is damaged, cut off, or holds more than weights ({reason});"
                " delete it and get it again.",
                path=path,
                reason=reason,
            ) from error
        if not isinstance(content, dict) or not all(
            isinstance(value, torch.Tensor) for value in content.values()
        ):
            raise CheckpointError(
                "{path} holds no plain dictionary of tensors; choose the file as it was released.", path=path
            )
        self._tensors = content
        self.shapes = {name: tuple(tensor.shape) for name, tensor in content.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def open_tensors(path: Path, entry: str = "") -> LazyTensors:
    """Open a checkpoint: a file of any known kind, or a folder with one checkpoint in it. `entry` is for
    files of torch alone, see `TorchFile`.

    Raises `CheckpointError`.
    """
    path = Path(path)
    if path.is_dir():
        return SafetensorsFiles(_shards_in(path))
    if not path.exists():
        raise CheckpointError("There is no {path}; give the file or folder of the weights.", path=path)
    if path.suffix == ".gguf":
        return GGUFFile(path)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        return TorchFile(path, entry)
    if path.name.endswith(".safetensors.index.json"):
        return SafetensorsFiles(_indexed_files(path))
    if match := SHARD.fullmatch(path.name):
        return SafetensorsFiles(_all_shards(path.parent, match["stem"]))
    if path.suffix == ".safetensors":
        return SafetensorsFiles([path])
    raise CheckpointError(
        "{path} is no kind of checkpoint; choose a .safetensors, .gguf or .pth file.", path=path
    )


def _shards_in(folder: Path) -> list[Path]:
    """The safetensors files of the one checkpoint in a folder, as its index says or else by their names."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return _indexed_files(indices[0])
    families = checkpoint_families(folder)
    if not families:
        raise CheckpointError(
            "The folder {folder} holds no .safetensors file; give the folder of the weights.", folder=folder
        )
    if len(families) > 1:
        raise CheckpointError(
            "The folder {folder} holds several checkpoints ({names}); name one file.",
            folder=folder,
            names=name_some(families),
        )
    return _all_shards(folder, *families)


def _all_shards(folder: Path, stem: str) -> list[Path]:
    """Every file of the checkpoint named `stem`. A shard that its fellows count but that isn't there is an
    error."""
    files = checkpoint_families(folder).get(stem, [])
    counts = [match["count"] for path in files if (match := SHARD.fullmatch(path.name))]
    if counts:
        wanted = {
            f"{stem}-{index:05d}-of-{max(counts)}.safetensors" for index in range(1, int(max(counts)) + 1)
        }
        missing = wanted - {path.name for path in files}
        if missing:
            raise CheckpointError(
                "The folder {folder} lacks {missing}; get it with python build.py weights.",
                folder=folder,
                missing=name_some(missing),
            )
    return files


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "The index {index} can't be read ({error}); delete it and get it again.", index=index, error=error
        ) from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            "The folder {folder} lacks {missing}, which its {index} lists;"
            " get them with python build.py weights.",
            folder=index.parent,
            missing=name_some(missing),
            index=index.name,
        )
    return [index.parent / name for name in names]
