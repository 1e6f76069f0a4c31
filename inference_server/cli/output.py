"""Frames on their way to a movie or a folder of pictures. What is there already is never overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

Write = Callable[[np.ndarray], None]


def check_free(path: Path) -> None:
    """Raises `OSError` (one sentence) where something is there already."""
    if path.exists():
        raise OSError(f"{path} is there already; choose another name for the output.")


@contextmanager
def open_output(path: Path, fps: float) -> Iterator[Write]:
    """A function that takes the next frame, RGB uint8 [H, W, 3]. `path` is a movie if it ends in .mp4, else a
    folder.

    Either appears under its name once all is well, and not at all where the context is left by an error.
    Raises `OSError` (one sentence) where something is there already, or can't be written.
    """
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_movie = path.suffix.lower() == ".mp4"
    growing = path.with_name(f".{path.stem}.growing{path.suffix if is_movie else ''}")
    _remove(growing)  # left by a program that was killed
    writer = _Movie(growing, fps) if is_movie else _Pictures(growing)
    try:
        yield writer.write
        writer.close()
        growing.rename(path)
    finally:
        writer.close()
        _remove(growing)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


class _Pictures:
    def __init__(self, folder: Path):
        self._folder, self._count = folder, 0
        folder.mkdir()

    def write(self, image: np.ndarray) -> None:
        file = self._folder / f"{self._count:05d}.png"
        if not cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise OSError(f"{file} can't be written; look whether the disk is full.")
        self._count += 1

    def close(self) -> None:
        pass


class _Movie:
    def __init__(self, file: Path, fps: float):
        self._file, self._fps = file, fps
        self._video: cv2.VideoWriter | None = None

    def write(self, image: np.ndarray) -> None:
        if self._video is None:
            size = image.shape[1], image.shape[0]
            self._video = cv2.VideoWriter(str(self._file), cv2.VideoWriter_fourcc(*"mp4v"), self._fps, size)
            if not self._video.isOpened():
                raise OSError(
                    f"The movie {self._file} can't be written; choose a folder as the output instead."
                )
        self._video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._video is not None:
            self._video.release()
