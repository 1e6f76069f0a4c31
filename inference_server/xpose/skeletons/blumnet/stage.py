"""`blumnet`: skeletons by BlumNet, as in the paper (stage 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch

from ....poseanything.checkpoints import CheckpointError
from ...models import pick_device, weights_of
from ...stages import Curve, Skeletoniser, XPoseError
from .checkpoint import load_blumnet
from .model import BlumNetOutput
from .reconstruction import reconstruct

SIDE = 512
"""Pixels of the longer side that the network was trained at."""
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
END, JUNCTION = 0, 1


@dataclass
class BlumNetSkeletoniser(Skeletoniser):
    """The skeleton of the subject, cut out on white, in each frame.

    weights: a checkpoint's file; by default the one in the weights' folder. device: where it runs; by default
    a card if there is one. score: how sure the network must be of a line, point_score: of a key point.
    at_once: how many frames it sees at once.
    """

    uses_card: ClassVar[bool] = True

    weights: str = ""
    device: str = ""
    score: float = 0.65
    point_score: float = 0.05
    at_once: int = 8

    def load(self) -> None:
        path = Path(self.weights) if self.weights else weights_of("BlumNet")
        if path.is_dir():
            found = sorted(path.glob("*.pth"))
            if len(found) != 1:
                raise XPoseError(f"{path} holds {len(found)} .pth files; choose one with the option weights.")
            path = found[0]
        self._device = pick_device(self.device)
        try:
            self._model = load_blumnet(path).to(self._device)
        except CheckpointError as error:
            raise XPoseError(str(error)) from error

    def trace(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        curves: list[list[Curve]] = [[] for _ in frames]
        shown = np.flatnonzero(masks.any((1, 2)))
        for begin in range(0, len(shown), self.at_once):
            some = shown[begin : begin + self.at_once]
            for index, found in zip(some, self._see(frames[some], masks[some])):
                curves[index] = found
        return curves

    def _see(self, frames: np.ndarray, masks: np.ndarray) -> list[list[Curve]]:
        height, width = frames.shape[1:3]
        scale = SIDE / max(height, width)
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        cut = [
            cv2.resize(np.where(m[..., None], f, 255).astype(np.uint8), size) for f, m in zip(frames, masks)
        ]
        small = [cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in masks]
        pixels = (np.stack(cut).astype(np.float32) / 255 - MEAN) / DEVIATION
        with torch.inference_mode():
            out = self._model(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._device))
        back = np.array([width, height]) / size
        return [
            [(curve * back).astype(np.float32) for curve in reconstruct(*self._sure(out, index, size), mask)]
            for index, mask in enumerate(small)
        ]

    def _sure(
        self, out: BlumNetOutput, index: int, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines, ends and junctions that the network is sure of, in pixels of its picture."""
        lines, points = (each[index].float().cpu().numpy() * size for each in (out.lines, out.points))
        sure = out.line_logits[index].float().softmax(-1)[:, -1].cpu().numpy() <= 1 - self.score
        kinds = out.point_logits[index].float().softmax(-1).cpu().numpy()
        ends, junctions = (points[kinds[:, kind] >= self.point_score] for kind in (END, JUNCTION))
        return lines[sure], ends, junctions
