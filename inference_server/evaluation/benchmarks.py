"""The sets that the paper measures on, and what it reports of them (its tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from ..datasets.dataset import read_pictures
from ..datasets.errors import DatasetError
from ..datasets.release import ReleaseExample, is_release_layout, read_release_layout
from .run import figure

MEASURES = ("psnr", "ssim", "l1", "lpips", "fvd")
REPORTED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "tiktok": {
        "Disco": (29.03, 0.668, 3.78e-4, 0.292, 292.80),
        "MagicAnimate": (29.16, 0.714, 3.13e-4, 0.239, 179.07),
        "MagicPose": (29.53, 0.752, 0.81e-4, 0.292, None),
        "AnimateAnyone": (29.56, 0.718, None, 0.285, 171.90),
        "Champ": (29.91, 0.802, 2.94e-4, 0.234, 160.82),
        "Unianimate": (30.77, 0.811, 2.66e-4, 0.231, 148.06),
        "Animate-X": (30.78, 0.806, 2.70e-4, 0.232, 139.01),
        "PoseAnything": (31.50, 0.836, 2.79e-5, 0.224, 133.95),
    },
    "xpose": {
        "Tora": (30.08, 0.6929, 9.38e-6, 0.3530, 103.75),
        "ATI": (30.15, 0.6810, 9.59e-6, 0.3706, 101.44),
        "SG-I2V": (29.86, 0.6634, 1.28e-5, 0.3674, 102.97),
        "PoseAnything": (30.29, 0.7114, 8.19e-6, 0.3241, 99.97),
    },
}
"""By set and method the paper's figures, in the order of `MEASURES`; None where it gives none.

The paper doesn't say how its L1 is scaled; ours is the mean difference on a scale of 0 to 1, so the two can't
be compared.
"""
POSES = ("skeleton_image", "skeleton", "skeletons", "poses", "openpose")
"""Folders in which a sequence of TikTok's may have its skeletons; the set itself has none."""


def read_benchmark(name: str, folder: Path | str) -> Iterator[ReleaseExample]:
    """A set in the release's layout (`metadata.csv`), or TikTok as it is published, a folder with `images/`
    for each sequence, to which skeletons were added. Raises `DatasetError`."""
    folder = Path(folder)
    if is_release_layout(folder):
        return read_release_layout(folder)
    if name == "tiktok" and any(folder.glob("*/images")):
        return _read_tiktok(folder)
    layouts = "metadata.csv, train/video, train/skeleton_image and train/first_frame"
    published = " or a folder with images/ for each sequence" if name == "tiktok" else ""
    raise DatasetError(f"{folder} is no set that can be read; it needs {layouts}{published}.")


def _read_tiktok(folder: Path) -> Iterator[ReleaseExample]:
    for sequence in sorted(path.parent for path in folder.glob("*/images")):
        frames = read_pictures(sequence / "images", cv2.IMREAD_COLOR)
        places = [sequence / name for name in POSES if (sequence / name).is_dir()]
        if not places:
            raise DatasetError(
                f"{sequence} has no skeletons; draw OpenPose's of its images, a picture for each, into"
                f" {sequence / 'skeleton'}."
            )
        poses = read_pictures(places[0], cv2.IMREAD_GRAYSCALE)
        if len(poses) != len(frames):
            raise DatasetError(
                f"{places[0]} has {len(poses)} pictures for {len(frames)} images; draw one for each."
            )
        yield ReleaseExample(sequence.name, frames, poses, frames[0], "", sequence.name)


def reported_table(name: str, summary: dict) -> str:
    """What was measured of a set, and below it what the paper reports of it, as a table of Markdown."""
    rows = ["| |" + "|".join(MEASURES) + "|", "|---" * (len(MEASURES) + 1) + "|"]
    for source, measured in summary["measures"].items():
        if source != "truth":
            rows.append(f"| {source} | " + " | ".join(figure(measured.get(m)) for m in MEASURES) + " |")
    for method, values in REPORTED[name].items():
        cells = ["" if value is None else f"{value:.4g}" for value in values]
        rows.append(f"| {method} (paper) | " + " | ".join(cells) + " |")
    return "\n".join(rows)
