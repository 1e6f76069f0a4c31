"""The export of control videos, step by step: one look at the scene's frames, then a picture of each kind for
each frame."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import bpy
import numpy as np

from ..errors import ExportError
from ..ground_truth.depth import DepthDrawer
from ..ground_truth.labels import Labeller, Sighting
from ..ground_truth.looks import FrameReader, Look
from ..ground_truth.png import encode_png
from ..request.build import export_options
from ..request.export import ExportedClip, ExportStep, Recorded, export_clip, under_step
from ..request.finding import Finding
from ..request.first_frame import make_first_frame
from ..request.range import ClipRange
from ..rig.limbs import LimbChoice, as_person
from ..rig.skeleton import Skeleton
from ..rig.subjects import Subject
from ..rig.trained_look import unseen_limbs
from ..sequencer.movie import MovieEncoding
from ..shared import openpose
from ..shared.engines import EngineDescription
from ..shared.raster import draw_pose
from ..steps import mapped
from ..takes.take import claim_folder
from ..texts import say
from ..view import SceneCamera, Viewport
from ..view.projection import Projector
from .cylinders import BEHIND, RADIUS, draw_cylinders, soften
from .drawing import draw_figures, grey_depth, hand_limb, part_colours
from .kinds import CYLINDERS, DEPTH, FIRST_FRAME, KINDS, MASK, OPENPOSE, PARTS, POSES

HAND = 0.03
"""Hands smaller than this fraction of the picture's longer side have no strokes."""
EXPORTING = 0.5
"""The fraction of the work that looking at the scene is."""


def export_control_videos(
    context,
    settings,
    kinds: Sequence[str],
    as_movies: bool,
    planned: ClipRange,
    armatures: tuple[bpy.types.Object, ...],
    view: SceneCamera | Viewport,
    engine: EngineDescription,
    output: Path,
    interactive: bool,
) -> Generator[ExportStep, None, tuple[Path, tuple[Finding, ...]]]:
    """Write the chosen kinds into a new folder within `output`; the value is the folder, and what the user
    should know. Raises `ExportError` or `TakeError`."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="poseanything-")))
        if FIRST_FRAME in kinds:
            picture = yield from make_first_frame(context, settings, planned, view, scratch, interactive)
        else:
            picture = str(scratch / "none.png")
            packed = yield from under_step(
                ExportStep(0, "Starting"), encode_png(np.zeros((8, 8, 3), np.uint8))
            )
            Path(picture).write_bytes(packed)
        options = export_options(context, settings, planned, armatures, view, picture, engine)
        record = _Record(scratch, planned, kinds)
        clip = yield from _first_half(export_clip(context, options, record))
        kinds, findings = record.possible(kinds)
        if not kinds:
            raise ExportError(say("Nothing can be exported: {why}", why=findings[0].sentence))
        folder, name = claim_folder(output, f"{settings.take_name or context.scene.name} control")
        finished = False
        try:
            yield from _write(record, clip, kinds, planned, folder, scratch, as_movies, context.scene.render)
            finished = True
        except OSError as error:
            raise ExportError(
                say(
                    "{folder} can't be written to: {reason}; choose another folder.",
                    folder=folder,
                    reason=error.strerror,
                )
            ) from error
        finally:
            if not finished:
                shutil.rmtree(folder, ignore_errors=True)
        return folder, (*clip.findings, *findings)


def _first_half(
    steps: Generator[ExportStep, None, ExportedClip],
) -> Generator[ExportStep, None, ExportedClip]:
    """The same steps, of which all are only the first part of the work."""
    return mapped(lambda step: dataclasses.replace(step, fraction=step.fraction * EXPORTING), steps)


def _write(record, clip, kinds, planned, folder, scratch, as_movies, render) -> Iterator[ExportStep]:
    movies: dict[Path, list[Path]] = {}
    videos = [kind for kind in kinds if kind != FIRST_FRAME]
    if FIRST_FRAME in kinds:
        (folder / f"{FIRST_FRAME}.png").write_bytes(clip.first_frame)
    total = max(len(videos) * planned.num_frames, 1)
    for place, kind in enumerate(videos):
        pictures = (scratch if as_movies else folder) / kind
        pictures.mkdir()
        movies[folder / f"{kind}.mp4"] = listed = []
        for index in range(planned.num_frames):
            done = EXPORTING + 0.4 * (place * planned.num_frames + index) / total
            step = ExportStep(
                done,
                say(
                    "{video}: frame {index} of {total}",
                    video=say(KINDS[kind][0]),
                    index=index + 1,
                    total=planned.num_frames,
                ),
            )
            yield step
            drawn = yield from under_step(step, record.draw(kind, index, clip))
            packed = yield from under_step(step, encode_png(drawn, level=1 if as_movies else 4))
            listed.append(pictures / f"{index:03d}.png")
            listed[-1].write_bytes(packed)
    if as_movies and movies:
        encoding = MovieEncoding(movies, render.fps, render.fps_base * planned.times.pace)
        try:
            while not encoding.poll():
                done = 0.9 + 0.1 * encoding.begun / len(movies)
                yield ExportStep(done, say("Encoding the movies"), waiting=True)
            encoding.result()
        finally:
            encoding.close()


class _Record:
    """What the exporter saw, frame for frame: joints in memory, label maps and depth on the disk."""

    def __init__(self, scratch: Path, planned: ClipRange, kinds: Sequence[str]):
        shape = planned.num_frames, planned.height, planned.width
        self._scratch, self._wanted = scratch, set(kinds)
        self._labels = self._nearness = None
        if self._wanted & {PARTS, MASK}:
            self._labels = np.lib.format.open_memmap(scratch / "labels.npy", "w+", np.uint8, shape)
        if DEPTH in self._wanted:
            self._nearness = np.lib.format.open_memmap(scratch / "depth.npy", "w+", np.float16, shape)
        self._projectors: list[Projector] = []
        self._sightings: list[_Stored] = []
        self._depth: DepthDrawer | None = None

    # While the exporter runs

    def frame(
        self, index: int, evaluated, projector: Projector, reader: FrameReader | None
    ) -> Iterator[None]:
        self._projectors.append(projector)
        work = []
        if self._labels is not None and reader is not None:
            work.append(self._keep_labels(index, reader.look(index, evaluated, projector)))
        if self._nearness is not None:
            self._depth = self._depth or DepthDrawer(evaluated)
            work.append(self._keep_depth(index, self._depth.draw(evaluated, projector)))
        return chain(*work)

    def _keep_labels(self, index: int, look: Look) -> Iterator[None]:
        [drawn] = yield from Labeller().draw([look])
        self._sightings.append(_Stored(drawn.sighting, self._scratch / f"sighting{index}.npz"))

    def _keep_depth(self, index: int, drawing: Iterator[None]) -> Iterator[None]:
        depth = yield from drawing
        with np.errstate(divide="ignore", over="ignore"):
            self._nearness[index] = 1 / np.maximum(depth, 1e-4)

    def finish(self, recorded: Recorded) -> Iterator[None]:
        self._parts = np.concatenate([[0], [limb.part + 1 for limb in recorded.limbs]]).astype(np.int64)
        subjects = [_figure(subject) for subject in recorded.subjects]
        self._joints = recorded.joints(subjects)
        self._strokes = [
            _Strokes(subject.choice, start)
            for subject, start in zip(subjects, _starts(subjects), strict=True)
        ]
        for index, stored in enumerate(self._sightings):
            [self._labels[index]] = yield from recorded.label([stored.load()])

    # After it

    def possible(self, kinds: Sequence[str]) -> tuple[list[str], list[Finding]]:
        """The kinds that there is something to draw of, and a finding for each of the others."""
        left_out = []
        if OPENPOSE in kinds and not any(strokes.is_person for strokes in self._strokes):
            left_out.append((OPENPOSE, say("no armature is a person's")))
        for kind in (PARTS, MASK):
            if kind in kinds and not self._sightings:
                left_out.append((kind, say("no mesh is bound to the armature")))
        missing = dict(left_out)
        findings = [
            Finding(say("{video} was left out: {why}.", video=say(KINDS[kind][0]), why=why))
            for kind, why in left_out
        ]
        return [kind for kind in kinds if kind not in missing], findings

    def draw(self, kind: str, index: int, clip: ExportedClip) -> Iterator[None]:
        """[H, W, 3] uint8 as the generator's return value."""
        fit = self._projectors[index].fit
        yield
        if kind == POSES:
            picture = draw_pose(clip.pose, index)
            if clip.pose_frames is not None and index not in clip.pose_frames:
                picture[:] = 0
            return np.repeat(picture[..., None], 3, axis=2)
        if kind == OPENPOSE:
            return draw_figures(
                [s.flat(self, index) for s in self._strokes if s.is_person], fit.width, fit.height
            )
        if kind == CYLINDERS:
            return (yield from self._draw_cylinders(index))
        if kind == DEPTH:
            near, far = self._depth_range
            return grey_depth(self._nearness[index].astype(np.float32), near, far)
        labels = self._labels[index]
        if kind == MASK:
            return np.repeat(((labels > 0) * np.uint8(255))[..., None], 3, axis=2)
        return part_colours(int(self._parts.max()))[self._parts[labels]]

    def _draw_cylinders(self, index: int) -> Iterator[None]:
        segments = [strokes.segments(self._joints[index]) for strokes in self._strokes]
        radii = [
            np.full(len(s), RADIUS * self._total(strokes)) for s, strokes in zip(segments, self._strokes)
        ]
        colours = [strokes.colours for strokes in self._strokes]
        radii = [radius * strokes.thickness for radius, strokes in zip(radii, self._strokes, strict=True)]
        return (
            yield from draw_cylinders(
                self._projectors[index],
                np.concatenate(segments),
                np.concatenate(radii),
                np.concatenate(colours),
                self._light,
            )
        )

    def _total(self, strokes: _Strokes) -> float:
        """The length of all limbs of a subject, without its fingers."""
        ends = strokes.segments(self._joints[0])[strokes.thickness == 1]
        return float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum())

    @property
    def _light(self) -> tuple[float, float]:
        """Depths at which cylinders are lit fully and not at all, over the whole clip."""
        if not hasattr(self, "_lit"):
            depths = [
                p.project(j[None])[0, :, 2] for p, j in zip(self._projectors, self._joints, strict=True)
            ]
            near, far = min(d.min() for d in depths), max(d.max() for d in depths)
            self._lit = float(near), float(far + BEHIND * max(self._total(s) for s in self._strokes))
        return self._lit

    @property
    def _depth_range(self) -> tuple[float, float]:
        """The nearest and the farthest 1 / depth of the clip, but for the last hundredth on either side."""
        if not hasattr(self, "_near_far"):
            sample = np.array(self._nearness[:, ::8, ::8], np.float32)
            seen = sample[sample > 0]
            near, far = np.percentile(seen, (99.5, 0.5)) if len(seen) else (1.0, 0.0)
            # What is farthest is nearly black; black is where nothing is.
            self._near_far = float(near), float(far - 0.05 * (near - far))
        return self._near_far


class _Stored:
    """A sighting whose arrays lie on the disk."""

    def __init__(self, sighting: Sighting, path: Path):
        self._shape, self._path = sighting.shape, path
        self._skinnings = [skinning for skinning, *_ in sighting.surfaces]
        arrays = {
            f"{k}-{n}": one for k, (_, *some) in enumerate(sighting.surfaces) for n, one in enumerate(some)
        }
        np.savez(path, **arrays)

    def load(self) -> Sighting:
        with np.load(self._path) as arrays:
            surfaces = [
                (skinning, *(arrays[f"{k}-{n}"] for n in range(3)))
                for k, skinning in enumerate(self._skinnings)
            ]
        return Sighting(self._shape, surfaces)


def _figure(subject: Subject) -> Subject:
    """The subject as OpenPose's whole figure where it is a person, else as it is drawn."""
    human = subject.choice.human
    if human is None:
        return subject
    skeleton = Skeleton.read(subject.armature.data)
    return Subject(subject.armature, subject.instancers, as_person(skeleton, human))


def _starts(subjects: Sequence[Subject]) -> list[int]:
    counts = [int(subject.choice.counts.sum()) for subject in subjects]
    return np.cumsum([0, *counts])[:-1].tolist()


class _Strokes:
    """One subject's limbs among the joints of all."""

    def __init__(self, choice: LimbChoice, start: int):
        self.is_person = choice.as_person
        self._names = [limb.name for limb in choice.limbs]
        ends = np.cumsum(choice.counts) + start
        self._pieces = [
            (limb, joint)
            for limb, (count, end) in enumerate(zip(choice.counts, ends, strict=True))
            for joint in range(end - count, end - 1)
        ]
        self._first = np.array([joint for _, joint in self._pieces])
        limbs = np.array([limb for limb, _ in self._pieces])
        if self.is_person:
            table = [*openpose.CYLINDER_COLOURS]
            fingers = openpose.hand_colours()
            table += [fingers[hand_limb(name)] for name in self._names[len(table) :]]
            self.thickness = np.where(limbs < len(openpose.BODY_LIMBS), 1.0, 0.35)
        else:
            table = part_colours(len(choice.parts))[[limb.part + 1 for limb in choice.limbs]]
            self.thickness = np.ones(len(limbs))
        self.colours = soften(np.array(table))[limbs]

    def segments(self, joints: np.ndarray) -> np.ndarray:
        """[N, 2, 3] straight pieces, from the joints [K, 3] of all subjects."""
        return np.stack([joints[self._first], joints[self._first + 1]], axis=1)

    def flat(self, record: _Record, index: int) -> tuple[list[str], np.ndarray, np.ndarray]:
        """A person in a frame, as `drawing.draw_figures` takes it."""
        projector = record._projectors[index]
        ends = self.segments(record._joints[index])[None]
        unseen = unseen_limbs(self._names, ends, projector, HAND)[0]
        seen = projector.project(ends.reshape(1, -1, 3))[0].reshape(-1, 2, 3)
        ahead = (seen[..., 2] >= projector.nears[0]).all(axis=1)
        return self._names, seen[..., :2], ahead & ~unseen
