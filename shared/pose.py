"""A pose sequence as what it is: per frame, the limbs of one or more rigs as 2D polylines with depth.

The sender projects bones; whoever needs pictures (the model, the panel's preview) draws them with
`shared.raster` at the size it needs. Nothing here is sampled to pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .schema import Array, Checked, Integer, Many, MessageError, Struct, Text, declare

MAX_FRAMES = 1024
MAX_LIMBS = 255
"""Label maps hold limb index + 1 in a byte; 0 is what belongs to no limb."""
MAX_SIDE = 4096
MAX_POINTS = 4_000_000


@dataclass(frozen=True)
class Limb(Checked):
    """One stroke of the drawing: a bone, or a chain of bones that bends as one (twist and segment bones
    merged).

    `name` is the bone's name, `part` the index of the part it belongs to, `subject` the index of its
    armature."""

    name: str = declare(Text(256))
    part: int = declare(Integer(0, MAX_LIMBS - 1))
    subject: int = declare(Integer(0, MAX_LIMBS - 1), 0)


@dataclass(frozen=True)
class Polyline:
    """A limb in one frame: `points` [K, 3] float32, x to the right and y down in pixels, depth from the
    camera in scene units. A limb that leaves and re-enters the view may have several polylines in a frame, a
    hidden one has none."""

    limb: int
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class PoseSequence(Checked):
    """Polylines of every frame, packed flat.

    `points` [N, 3] float32 as in `Polyline`, on a canvas of `width` x `height` pixels (pixel centres at .5).
    Polyline m has `lengths[m]` (2 or more) consecutive points and belongs to limb `owners[m]`; frame i has
    the polylines from `offsets[i]` up to `offsets[i + 1]`. Within a frame, polylines are in no particular
    order. `parts` names the parts.
    """

    width: int = declare(Integer(1, MAX_SIDE))
    height: int = declare(Integer(1, MAX_SIDE))
    parts: tuple[str, ...] = declare(Many(Text(256), MAX_LIMBS))
    limbs: tuple[Limb, ...] = declare(Many(Struct(Limb), MAX_LIMBS))
    points: np.ndarray = declare(Array("float32", (None, 3), MAX_POINTS * 3, finite_within=1e7))
    lengths: np.ndarray = declare(Array("int32", (None,), MAX_POINTS))
    owners: np.ndarray = declare(Array("uint8", (None,), MAX_POINTS))
    offsets: np.ndarray = declare(Array("int32", (None,), MAX_FRAMES + 1))

    def validate(self):
        if any(limb.part >= len(self.parts) for limb in self.limbs):
            raise MessageError("The pose has a limb whose part is not in its table of parts.")
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.lengths):
            raise MessageError("The pose's frames do not cover its polylines.")
        if (self.offsets[1:] < self.offsets[:-1]).any() or len(self.owners) != len(self.lengths):
            raise MessageError("The pose's tables of frames and polylines contradict each other.")
        if (self.lengths < 2).any() or int(self.lengths.sum(dtype=np.int64)) != len(self.points):
            raise MessageError("The pose's polylines do not cover its points.")
        if len(self.owners) and int(self.owners.max()) >= len(self.limbs):
            raise MessageError("The pose has a polyline that belongs to no limb of its table.")

    @classmethod
    def from_frames(
        cls,
        width: int,
        height: int,
        parts: Sequence[str],
        limbs: Sequence[Limb],
        frames: Iterable[Iterable[Polyline]],
    ) -> PoseSequence:
        """Pack lists of polylines, one list a frame."""
        packed = [list(frame) for frame in frames]
        polylines = [polyline for frame in packed for polyline in frame]
        points = [np.asarray(polyline.points, np.float32).reshape(-1, 3) for polyline in polylines]
        if not all(0 <= polyline.limb < len(limbs) for polyline in polylines):
            raise MessageError("The pose has a polyline that belongs to no limb of its table.")
        return cls(
            width=width,
            height=height,
            parts=tuple(parts),
            limbs=tuple(limbs),
            points=np.concatenate(points) if points else np.zeros((0, 3), np.float32),
            lengths=np.array([len(p) for p in points], np.int32),
            owners=np.array([polyline.limb for polyline in polylines], np.uint8),
            offsets=np.cumsum([0] + [len(frame) for frame in packed], dtype=np.int32),
        )

    @property
    def num_frames(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def _starts(self) -> np.ndarray:
        """[M + 1] int64: where each polyline's points begin, and where the last one's end."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def _span(self, index: int) -> tuple[int, int]:
        index = range(self.num_frames)[index]
        return int(self.offsets[index]), int(self.offsets[index + 1])

    def frame(self, index: int) -> list[Polyline]:
        """The polylines of one frame, as views."""
        first, last = self._span(index)
        starts = self._starts[first : last + 1].tolist()
        owners = self.owners[first:last].tolist()
        return [Polyline(owner, self.points[a:b]) for owner, a, b in zip(owners, starts, starts[1:])]

    def frame_points(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(points [K, 3], lengths [M]) of one frame: its M polylines one after another, as views."""
        first, last = self._span(index)
        return self.points[self._starts[first] : self._starts[last]], self.lengths[first:last]

    def scaled(self, width: int, height: int) -> PoseSequence:
        """The same sequence on a canvas of another size (each axis scaled on its own, as the release
        does)."""
        scale = np.array([width / self.width, height / self.height, 1.0], np.float32)
        return PoseSequence(
            width,
            height,
            self.parts,
            self.limbs,
            self.points * scale,
            self.lengths,
            self.owners,
            self.offsets,
        )

    def only(self, frames: Iterable[int]) -> PoseSequence:
        """The same sequence with polylines left in the given frames alone (sparse poses, paper section F)."""
        kept = np.repeat(np.isin(np.arange(self.num_frames), list(frames)), np.diff(self.offsets))
        return self._keep(kept)

    def without(self, hidden: np.ndarray) -> PoseSequence:
        """The same sequence without the limbs that are `hidden` [num_frames, limbs] in each frame."""
        frames = np.repeat(np.arange(self.num_frames), np.diff(self.offsets))
        return self._keep(~hidden[frames, self.owners])

    def _keep(self, kept: np.ndarray) -> PoseSequence:
        """The same sequence with those polylines alone that are `kept` [M]."""
        ends = np.concatenate([[0], np.cumsum(kept)])
        return PoseSequence(
            width=self.width,
            height=self.height,
            parts=self.parts,
            limbs=self.limbs,
            points=self.points[np.repeat(kept, self.lengths)],
            lengths=self.lengths[kept],
            owners=self.owners[kept],
            offsets=ends[self.offsets].astype(np.int32),
        )

    def part_lookup(self) -> np.ndarray:
        """[256] uint8: from a label map's limb label (limb index + 1, 0 for none) to part index + 1 (0 for
        none)."""
        table = np.zeros(256, np.uint8)
        for index, limb in enumerate(self.limbs):
            table[index + 1] = limb.part + 1
        return table
