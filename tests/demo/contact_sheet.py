"""A picture of a whole take: what was asked above, what came back below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

COLUMNS, CELL, MARGIN, HEAD = 5, 416, 12, 34


def contact_sheet(
    poses: Sequence[Path], first_frame: Path, results: Sequence[Path], title: str, path: Path
) -> Path:
    """Write a PNG: the first frame at the left, then a row of poses above a row of results at evenly spread frames."""
    chosen = np.linspace(0, len(results) - 1, COLUMNS).round().astype(int)
    size = cv2.imread(str(first_frame)).shape
    height = round(CELL * size[0] / size[1])
    rows = [[_cell(first_frame, height, "first frame"), np.full((height, CELL, 3), 24, np.uint8)]]
    for index in chosen:
        rows.append(
            [
                _cell(poses[index], height, f"pose {index + 1}"),
                _cell(results[index], height, f"result {index + 1}"),
            ]
        )
    gap = np.full((height, MARGIN, 3), 24, np.uint8)
    lines = [np.hstack([part for column in rows for part in (gap, column[row])] + [gap]) for row in range(2)]
    spacer = np.full((MARGIN, lines[0].shape[1], 3), 24, np.uint8)
    banner = np.full((HEAD, lines[0].shape[1], 3), 24, np.uint8)
    _write(banner, title, (MARGIN, 23), 0.6)
    sheet = np.vstack([banner, lines[0], spacer, lines[1], spacer])
    cv2.imwrite(str(path), sheet)
    return path


def _cell(picture: Path, height: int, caption: str) -> np.ndarray:
    cell = cv2.resize(cv2.imread(str(picture)), (CELL, height), interpolation=cv2.INTER_AREA)
    _write(cell, caption, (8, height - 10), 0.5)
    return cell


def _write(image: np.ndarray, text: str, at: tuple[int, int], scale: float) -> None:
    for colour, weight in (((0, 0, 0), 3), ((240, 240, 240), 1)):
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)
