"""Clips made on the spot by all cores, in memory that the trainers share.

A pool is a folder of arrays, one row a clip. Worker processes fill it in any order and mark each row when it
is whole; a trainer takes the rows that are marked. What a row holds is what training needs, with poses
drawn, parts as token masks and the draft engine's own drafts.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from shared.camera import rectangle_condition
from shared.messages import GenerationRequest
from shared.processes import end_with_parent
from shared.raster import condition_images

from ..datasets.errors import DatasetError
from ..datasets.examples import Example
from ..engines.base import EngineError
from ..engines.draft.clip import Clip
from ..poseanything.conditioning.parts.truth import cover_tokens
from ..poseanything.conditioning.pictures import encode_png
from ..poseanything.conditioning.subject_crop import crop_poses, find_crops
from .clips import ClipSettings, make_clip
from .creatures import MAX_LIMBS, MotionSettings

STRIDE, FRAMES_PER_LATENT = 8, 4
"""Pixels to a token and frames to a latent frame of the small model's linear VAE."""
LINE_WIDTH = 5
"""Pixels of a limb's stroke where its part is told by the pose alone (paper, Eq. 6)."""


def row_shapes(settings: ClipSettings) -> dict[str, tuple[int, ...]]:
    """The uint8 shapes of a row's arrays: frames and drafts [F, H, W, 3], poses, cameras (the rectangle that
    moves with the background) and subjects [F, H, W], and for P parts on the token grid the masks of frame 0
    [P, h, w] and of later latent frames [n, P, h, w], known from the scene or drawn by the pose."""
    size = settings.num_frames, settings.height, settings.width
    grid = MAX_LIMBS, settings.height // STRIDE, settings.width // STRIDE
    later = (settings.num_frames - 1) // FRAMES_PER_LATENT
    return {
        "frames": (*size, 3),
        **({"drafts": (*size, 3)} if settings.drafts else {}),
        "poses": size,
        "cameras": size,
        "subjects": size,
        "first_masks": grid,
        "known_masks": (later, *grid),
        "drawn_masks": (later, *grid),
    }


def encode_row(example: Example, with_draft: bool = True) -> dict[str, np.ndarray]:
    """A row of the pool from an example with labels; the draft is made unless it is there."""
    request, labels = example.request, example.labels
    width, height = request.width, request.height
    grid = height // STRIDE, width // STRIDE
    lookup = request.pose.part_lookup()
    known = lookup[labels]
    ids = np.arange(1, MAX_LIMBS + 1, dtype=np.uint8)[:, None, None]
    later = cover_tokens(known[1:, None] == ids, *grid)
    drawn = cover_tokens(np.stack([strokes(request, each) for each in range(1, request.num_frames)]), *grid)
    return {
        "frames": example.frames,
        **({"drafts": draw_draft(example) if example.draft is None else example.draft} if with_draft else {}),
        "poses": condition_images(request.pose, width, height, request.conditioned_frames()),
        "cameras": camera_poses(request),
        "subjects": (labels > 0).astype(np.uint8),
        "first_masks": cover_tokens(known[0] == ids, *grid),
        "known_masks": later.reshape(-1, FRAMES_PER_LATENT, *later.shape[1:]).any(1),
        "drawn_masks": drawn.reshape(-1, FRAMES_PER_LATENT, *drawn.shape[1:]).any(1),
    }


def camera_poses(request: GenerationRequest) -> np.ndarray:
    """uint8 [F, H, W], the rectangle that moves with the background, as a pose: what a model with the
    `camera_condition` "with_background" learns of the camera from."""
    path = request.camera_motion
    if path is None:
        path = np.eye(3)[None].repeat(request.num_frames, 0)
    rectangle = rectangle_condition(path, request.width, request.height, with_background=True)
    return condition_images(rectangle, request.width, request.height)


def around_subject(example: Example, width: int, height: int) -> Example:
    """The example as the engine `mini` shows it to its model: cut around the subject, first frame and later
    ones each by a crop of its own, and scaled. What training does not need is left out of its request."""
    request = example.request
    full, frames = (request.width, request.height), range(1, request.num_frames)
    crops = find_crops(request.pose, frames, *full, least=width / request.width)
    each = [crops[0], *[crops[1]] * len(frames)]

    def shrunk(images: np.ndarray) -> np.ndarray:
        return np.stack([crop.shrunk(image, width, height) for crop, image in zip(each, images)])

    labels = [
        cv2.resize(crop.cut(image), (width, height), interpolation=cv2.INTER_NEAREST)
        for crop, image in zip(each, example.labels)
    ]
    frames_, draft = shrunk(example.frames), draw_draft(example) if example.draft is None else example.draft
    request = dataclasses.replace(
        request,
        width=width,
        height=height,
        first_frame=encode_png(frames_[0]),
        pose=crop_poses(request.pose, frames, crops, *full).scaled(width, height),
        **dict.fromkeys(("subject_mask", "first_labels", "part_maps", "shadow_maps", "camera_motion")),
    )
    return dataclasses.replace(
        example, request=request, frames=frames_, labels=np.stack(labels), draft=shrunk(draft)
    )


def draw_draft(example: Example) -> np.ndarray:
    """uint8 [F, H, W, 3], the draft engine's frames for the example's request. Raises `DatasetError`."""
    try:
        clip = Clip(example.request)
        return np.stack([clip.image, *(clip.frame(index) for index in range(1, example.request.num_frames))])
    except EngineError as error:
        raise DatasetError(
            f"The draft of {example.request.job} can't be drawn ({error}); leave the example out."
        ) from error


def strokes(
    request: GenerationRequest, frame: int, parts: int = MAX_LIMBS, line_width: int = LINE_WIDTH
) -> np.ndarray:
    """bool [parts, H, W], where each part's limbs are drawn in a frame."""
    drawn = np.zeros((parts, request.height, request.width), np.uint8)
    for line in request.pose.frame(frame):
        points = np.rint((line.points[:, :2] - 0.5) * 16).clip(-1e6, 1e6).astype(np.int32)
        part = request.pose.limbs[line.limb].part
        if part < parts:
            cv2.polylines(drawn[part], [points], False, 1, line_width, shift=4)
    return drawn.astype(bool)


class Pool:
    """The arrays of a pool by name, and `ready` uint8 [N], 1 where a row is whole."""

    def __init__(self, folder: Path | str, mode: str = "r"):
        self.folder = Path(folder)
        described = json.loads((self.folder / "pool.json").read_text())
        self.settings = ClipSettings(**described["settings"])
        self.size: int = described["size"]
        self.arrays = {
            name: np.memmap(self.folder / f"{name}.u8", np.uint8, mode, shape=(self.size, *shape))
            for name, shape in row_shapes(self.settings).items()
        }
        self.ready = np.memmap(self.folder / "ready.u8", np.uint8, mode, shape=(self.size,))

    @classmethod
    def create(cls, folder: Path | str, size: int, settings: ClipSettings) -> Pool:
        """An empty pool of `size` rows; its files take room only as they are filled."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, shape in {**row_shapes(settings), "ready": ()}.items():
            with open(folder / f"{name}.u8", "wb") as file:
                file.truncate(size * int(np.prod(shape, dtype=np.int64)))
        (folder / "pool.json").write_text(json.dumps({"size": size, "settings": asdict(settings)}))
        return cls(folder, "r+")

    def write(self, row: int, example: Example) -> None:
        size = self.settings.width, self.settings.height
        if (example.request.width, example.request.height) != size:
            example = around_subject(example, *size)
        for name, value in encode_row(example, self.settings.drafts).items():
            self.arrays[name][row] = value
        self.ready[row] = 1

    def rows(self) -> np.ndarray:
        """The indices of the rows that are whole."""
        return np.flatnonzero(self.ready)


def bytes_per_clip(settings: ClipSettings) -> int:
    return sum(int(np.prod(shape)) for shape in row_shapes(settings).values())


class Filling:
    """Worker processes that fill a pool with the clips of `first_seed` and on, until it is full, they are
    stopped, or this process ends.

    `skip` is (first, count) of rows that are left to others. From row `held_out` on the clips' motions are
    drawn by `motions`; those before it, which one measures by, are always the same.
    """

    def __init__(
        self,
        pool: Pool,
        workers: int,
        first_seed: int,
        skip: tuple[int, int] = (0, 0),
        held_out: int = 0,
        motions: MotionSettings = MotionSettings(),
    ):
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("q", 0)
        job = str(pool.folder), self._next, first_seed, skip, held_out, motions
        self.processes = [context.Process(target=_work, args=job, daemon=True) for _ in range(workers)]
        for process in self.processes:
            process.start()

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(5)


def _work(
    folder: str, counter, first_seed: int, skip: tuple[int, int], held_out: int, motions: MotionSettings
) -> None:
    end_with_parent()
    if hasattr(os, "nice"):
        os.nice(10)  # the trainers go first
    cv2.setNumThreads(1)
    pool = Pool(folder, "r+")
    while True:
        with counter.get_lock():
            row = counter.value
            counter.value += 1
        if row >= pool.size:
            return
        if not pool.ready[row] and not skip[0] <= row < skip[0] + skip[1]:
            drawn_by = MotionSettings() if row < held_out else motions
            pool.write(row, make_clip(first_seed + row, pool.settings.drawn, drawn_by))


def wait_for_rows(pool: Pool, count: int, filling: Filling | None = None, seconds: float = 600.0) -> int:
    """Wait until `count` rows are whole, the filling has ended or the time is over; returns how many there
    are."""
    end = time.monotonic() + seconds
    while (there := int(pool.ready.sum())) < min(count, pool.size) and time.monotonic() < end:
        if filling is not None and not filling.running:
            break
        time.sleep(0.05)
    return there
