"""The official release's layout of pose-video pairs, as its training script reads them:

    metadata.csv                        by clip file_name, text, condition_images, condition_index
    train/video/NAME.mp4
    train/video/NAME_id.png             the first frame's subject on white, where parts are asked for
    train/skeleton_image/NAME/000.png   the poses, of the frames in `condition_index`; the others have none
    train/first_frame/NAME.png

Clips of one video are named VIDEO_NUMBER. A column `subject`, which the release lacks and its script passes
over, says who is seen.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from shared.messages import GenerationRequest
from shared.raster import NATIVE_SIDE, draw_poses, resize_bilinear
from shared.schema import MessageError

from ..poseanything.conditioning.files import squash_photo
from ..poseanything.conditioning.latent_grid import LatentGrid
from ..poseanything.conditioning.limbs.following import follow_limbs
from ..poseanything.conditioning.parts.segments import WHITE, is_line, subject_from_cutout
from ..poseanything.conditioning.pictures import encode_png
from .dataset import PICTURES, read_examples, read_video, split_of, write_video
from .errors import DatasetError
from .examples import Example

METADATA = "metadata.csv"
COLUMNS = ("file_name", "condition_images", "text", "condition_index", "subject")
VIDEOS = (".mp4", ".avi", ".mov", ".wmv", ".mkv", ".flv", ".webm")
CLIP_OF_VIDEO = re.compile(r"(.+)_\d+")
FPS = 24.0
"""What the release's clips are shown at; a request needs to say it."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReleaseExample:
    """An example of the release's layout, which knows poses as pictures only.

    frames: uint8 [F, H, W, 3]. poses: uint8 [F, h, w], black where a frame has none. first_frame: uint8
    [., ., 3]. subject: who is seen; clips of one video show the same. cutout: uint8 [., ., 3], the first
    frame's subject on white.
    """

    name: str
    frames: np.ndarray
    poses: np.ndarray
    first_frame: np.ndarray
    prompt: str
    subject: str
    cutout: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """What clips are cut down and scaled to, so that a model can take them.

    longer_side: in pixels; 0 leaves clips as large as they are. most_frames: the first so many are taken.
    """

    grid: LatentGrid = LatentGrid()
    longer_side: int = 0
    most_frames: int = 81


AS_IT_IS = Fit()


@dataclasses.dataclass(frozen=True)
class ReleaseRow:
    """A row of `metadata.csv`: a clip that has not been read. `poses` are names of pictures by frame, or
    None: all that lie there, one a frame."""

    folder: Path
    name: str
    video: Path
    prompt: str
    subject: str
    poses: dict[int, str] | None

    def read(self, most_frames: int | None = None) -> ReleaseExample:
        """Raises `DatasetError` for a video or picture that is missing or can't be read."""
        frames = read_video(self.video, most_frames)
        place = self.folder / "skeleton_image" / self.name
        names = self.poses
        if names is None:
            files = sorted(place.iterdir()) if place.is_dir() else []
            names = dict(enumerate(file.name for file in files if file.suffix.lower() in PICTURES))
        pictures = {
            frame: self._picture(place / name, cv2.IMREAD_GRAYSCALE)
            for frame, name in names.items()
            if 0 <= frame < len(frames)
        }
        if not pictures:
            raise DatasetError(f"The example {self.name} has no poses in {place}; get it again.")
        if len({picture.shape for picture in pictures.values()}) > 1:
            raise DatasetError(f"The pictures in {place} are of different sizes; make them anew.")
        poses = np.zeros((len(frames), *next(iter(pictures.values())).shape), np.uint8)
        for frame, picture in pictures.items():
            poses[frame] = picture
        first = next(iter(sorted((self.folder / "first_frame").glob(f"{self.name}.*"))), None)
        cutout = self.folder / "video" / f"{self.name}_id.png"
        return ReleaseExample(
            self.name,
            frames,
            poses,
            # The release itself trains on the video's.
            frames[0] if first is None else self._picture(first)[..., ::-1],
            self.prompt,
            self.subject,
            self._picture(cutout)[..., ::-1] if cutout.exists() else None,
        )

    @staticmethod
    def _picture(file: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
        picture = cv2.imread(str(file), flags)
        if picture is None:
            raise DatasetError(f"The picture {file} can't be read; get it again.")
        return picture


def is_release_layout(folder: Path | str) -> bool:
    return (Path(folder) / METADATA).is_file()


def read_rows(folder: Path | str, split: str | None = None) -> list[ReleaseRow]:
    """The clips of a set in the release's layout, of one split or all. The release has no splits: they are
    `split_of` the subjects. Raises `DatasetError`."""
    folder = Path(folder)
    path = folder / METADATA
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [_row(folder, row) for row in csv.DictReader(file)]
    except (OSError, ValueError, SyntaxError, csv.Error) as error:
        raise DatasetError(f"{path} can't be read ({error}); get or write it again.") from error
    return [row for row in rows if split in (None, split_of(row.subject))]


def _row(folder: Path, row: dict) -> ReleaseRow:
    file = row.get("file_name") or row.get("video")
    if not file:
        raise ValueError("a row has no file_name")
    train = folder / "train" if (folder / "train").is_dir() else folder
    name = Path(file).stem if Path(file).suffix.lower() in VIDEOS else Path(file).name
    placed = [train / "video" / file, folder / file, train / "video" / Path(file).name]
    video = next((path for path in placed if path.is_file()), placed[0])
    poses = None
    if row.get("condition_images"):
        pictures = ast.literal_eval(row["condition_images"])
        frames = ast.literal_eval(row.get("condition_index") or "None") or range(len(pictures))
        if len(pictures) != len(frames):
            raise ValueError(f"{name} has {len(pictures)} condition_images of {len(frames)} frames")
        poses = {int(frame): str(picture) for frame, picture in zip(frames, pictures)}
    clip = CLIP_OF_VIDEO.fullmatch(name)
    subject = row.get("subject") or (clip[1] if clip else name)
    return ReleaseRow(train, name, video, row.get("text") or row.get("prompt") or "", subject, poses)


def read_release_layout(folder: Path | str) -> Iterator[ReleaseExample]:
    """Read a set in the release's layout. Raises `DatasetError` for a video or picture that can't be
    read."""
    for row in read_rows(folder):
        yield row.read()


def fingerprint(folder: Path | str) -> str:
    """What tells the set from others, and from itself when clips or poses of it have changed."""
    told = hashlib.sha256((Path(folder) / METADATA).read_bytes())
    for row in read_rows(folder):
        for path in (row.video, row.folder / "skeleton_image" / row.name):
            about = path.stat() if path.exists() else None
            told.update(repr(about and (path.name, about.st_size, about.st_mtime_ns)).encode())
    return told.hexdigest()


def to_example(clip: ReleaseExample, fit: Fit = AS_IT_IS) -> Example:
    """A clip as a training example: its pictures of poses, and a request whose limbs are the pictures'
    curves, which tell the parts. Raises `DatasetError` for a clip that is too short."""
    grid = fit.grid
    count = grid.num_frames(grid.latent_frames(min(len(clip.frames), fit.most_frames)))
    if count < 2:
        raise DatasetError(
            f"The example {clip.name} has {len(clip.frames)} frames and the model takes at least"
            f" {grid.num_frames(2)}; take it out of {METADATA}."
        )
    height, width = clip.frames.shape[1:3]
    size = grid.fit_size(width, height, fit.longer_side or max(width, height))
    shown = [clip.first_frame, *clip.frames[1:count]]
    frames = np.stack([squash_photo(frame, *size) for frame in shown])
    pictures = clip.poses[:count]
    drawings = {frame: is_line(picture) for frame, picture in enumerate(pictures)}
    try:
        request = GenerationRequest(
            job=clip.name[-64:],
            engine="poseanything",
            width=size[0],
            height=size[1],
            num_frames=count,
            fps=FPS,
            first_frame=encode_png(frames[0]),
            pose=follow_limbs(drawings, count).scaled(*size),
            prompt=clip.prompt,
            preview_interval=0.0,
            pose_frames=tuple(frame for frame, lines in drawings.items() if lines.any()) or None,
            subject_mask=None
            if clip.cutout is None
            else subject_from_cutout(clip.cutout, *size).astype(np.uint8),
        )
    except MessageError as error:
        raise DatasetError(f"The example {clip.name} can't be taken ({error}).") from error
    poses = np.stack([resize_bilinear(picture, *size) for picture in pictures])
    return Example(request, frames, clip.subject, poses=poses)


def write_beside_shards(dataset: Path) -> Path:
    """A data set in the release's layout as well, in its folder `release`, which is returned; one that was
    there is replaced. Raises `DatasetError`."""
    growing, place = dataset / "release.part", dataset / "release"
    shutil.rmtree(growing, ignore_errors=True)
    write_release_layout(read_examples(dataset), growing)
    shutil.rmtree(place, ignore_errors=True)
    growing.rename(place)
    return place


def write_release_layout(examples: Iterable[Example], folder: Path | str) -> int:
    """Write examples in the release's layout. Videos are lossless (FFV1), poses as large as the release's.
    Returns how many. Raises `DatasetError`."""
    folder = Path(folder)
    try:
        return _write(examples, folder)
    except OSError as error:
        raise DatasetError(f"{folder} can't be written ({error}); free some space and run again.") from error


def _write(examples: Iterable[Example], folder: Path) -> int:
    for name in ("video", "skeleton_image", "first_frame"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, example in enumerate(examples):
        name, request = f"{number:06d}", example.request
        write_video(folder / "train" / "video" / f"{name}.mkv", example.frames, request.fps)
        (folder / "train" / "first_frame" / f"{name}.png").write_bytes(request.first_frame)
        if request.subject_mask is not None:
            # What is whiter counts as no subject.
            subject = np.minimum(example.frames[0], WHITE)
            cutout = np.where(request.subject_mask[..., None] > 0, subject, np.uint8(255)).astype(np.uint8)
            (folder / "train" / "video" / f"{name}_id.png").write_bytes(encode_png(cutout))
        place, frames = folder / "train" / "skeleton_image" / name, request.conditioned_frames()
        place.mkdir(exist_ok=True)
        poses = example.poses
        if poses is None:
            scale = NATIVE_SIDE / max(request.width, request.height)
            native = (max(int(side * scale), 1) for side in (request.width, request.height))
            poses = draw_poses(request.pose, *native, frames)
        for frame in frames:
            if not cv2.imwrite(str(place / f"{frame:03d}.png"), poses[frame]):
                raise OSError(f"no picture of a pose in {place}")
        pictures = [f"{frame:03d}.png" for frame in frames]
        rows.append((f"{name}.mkv", pictures, request.prompt, list(frames), example.subject))
    with open(folder / METADATA, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows])
    return len(rows)
