"""The tensors of a checkpoint by name, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch


class LazyTensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by name; reading one reads it from disk. `shapes` and `where` cost
    nothing."""

    where: str
    """What to call the checkpoint in messages."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of every tensor."""
    paths: list[Path]
    """The files it is made of."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Renamed(LazyTensors):
    """Another checkpoint's tensors under new names; `names` maps new name to old."""

    def __init__(self, source: LazyTensors, names: Mapping[str, str]):
        self.paths = source.paths
        self.where = source.where
        self.shapes = {new: source.shapes[old] for new, old in names.items()}
        self._source = source
        self._names = names

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._source[self._names[name]]
