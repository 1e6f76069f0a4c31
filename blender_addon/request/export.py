"""From the scene to what the server needs: polylines, first frame, labels, camera motion."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import bpy
import numpy as np

from ..errors import ExportError
from ..ground_truth.backdrop import CELL, find_extent, label_backdrop
from ..ground_truth.first_frame import Alignment, fit_picture, read_picture
from ..ground_truth.labels import Batch, Labeller, Resolver, Sighting, most_frequent
from ..ground_truth.looks import FrameReader, Look
from ..ground_truth.png import encode_png
from ..ground_truth.scene_render import render_frame
from ..ground_truth.shadows import ShadowDrawer, ShadowLook
from ..ground_truth.shapes import MAX_INSTANCES
from ..ground_truth.surfaces import Surface, find_surfaces, find_volumes
from ..ground_truth.visibility import as_rendered, is_clear, meets_camera, show_as_rendered
from ..rig.motion import Motion, spread_frames
from ..rig.sampling import PoseReader, Sampler, bone_poses
from ..rig.skeleton import Skeleton
from ..rig.skin import Skin, may_change
from ..rig.subjects import Subject, find_rigs, find_subjects, limb_tables
from ..rig.trained_look import unseen_of
from ..rig.unkeyed import unkeyed_kept
from ..shared.messages import Backdrop
from ..shared.pose import MAX_FRAMES, Limb, PoseSequence
from ..steps import mapped
from ..texts import say
from ..times import ClipTimes, go_to
from ..view import SceneCamera, Viewport, clip_size, fit
from ..view.motion import camera_motion, faces_start, moves
from ..view.projection import Projector
from .background import Background, await_result
from .review import Finding, Reviewed, review

__all__ = (
    "Alignment",
    "ExportError",
    "ExportOptions",
    "ExportStep",
    "ExportedClip",
    "clip_size",
    "export_clip",
    "fit",
)

SHADOW_STRIDE = 4
"""Side of a shadow map's cell in pixels."""
CROPPED = 0.5
"""Of a picture that is cropped to less than this fraction more may have been meant."""
BLACK = 8
"""A first frame without a brighter pixel than this, of 255, shows nothing."""
PAUSE = 0.015
"""Seconds of work after which the exporter lets others go on."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and when.

    `armatures` are armature objects, or empties that instance collections with armatures. `width` and
    `height` are the clip's size in pixels. `first_frame` is a picture's path, laid on the clip by
    `alignment` (see `fit_picture`); when it is empty the scene is rendered. `first_frame_in_pose` tells of
    the picture what it tells in a request. `pose_frames` are the clip frames that carry a pose, None for all;
    they are handed on, polylines are exported for all frames. `part_map_stride` is the side of a part map's
    cell in pixels, 2 or more. `look` is "bones" or "trained" (see `rig.trained_look`).
    """

    armatures: tuple[bpy.types.Object, ...]
    times: ClipTimes
    width: int
    height: int
    view: SceneCamera | Viewport
    first_frame: str = ""
    first_frame_in_pose: bool = False
    alignment: Alignment = Alignment()
    pose_frames: tuple[int, ...] | None = None
    part_map_stride: int = 8
    look: str = "bones"

    @property
    def num_frames(self) -> int:
        return self.times.num_frames


@dataclass(frozen=True)
class ExportStep:
    """How far an operator is, from 0 to 1, and what it does."""

    fraction: float
    text: str
    waiting: bool = False
    """Whether it waits for somebody else, so that Blender is the user's meanwhile."""


@dataclass(frozen=True, eq=False)
class ExportedClip:
    """What `shared.messages.GenerationRequest` needs of the scene.

    Without a mesh on any armature, `subject_mask`, `first_labels`, `part_maps`, `surface_flow`,
    `light_maps`, `backdrop` and `shadow_maps` are None, the last also where no light throws a shadow; without
    a moving camera `camera_motion` is. `findings` are what the user should know, `motions` how each armature
    moves; `subjects` are what was drawn, through the lenses of `projector`; a
    video's poses have neither.
    """

    pose: PoseSequence
    first_frame: bytes
    first_frame_in_pose: bool
    subject_mask: np.ndarray | None
    first_labels: np.ndarray | None
    part_maps: np.ndarray | None
    shadow_maps: np.ndarray | None
    surface_flow: np.ndarray | None
    light_maps: np.ndarray | None
    backdrop: Backdrop | None
    camera_motion: np.ndarray | None
    pose_frames: tuple[int, ...] | None
    findings: tuple[Finding, ...]
    motions: dict[bpy.types.Object, Motion]
    subjects: tuple[Subject, ...]
    projector: Projector | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings' sentences."""
        return tuple(finding.sentence for finding in self.findings)


class Recorded(Protocol):
    """What was recorded of an exported range, once its limbs are known."""

    subjects: Sequence[Subject]
    limbs: Sequence[Limb]

    def joints(self, subjects: Sequence[Subject]) -> np.ndarray:
        """[F, K, 3] joints in world space of limbs that may be other ones of the same rigs."""

    def label(self, sightings: Sequence[Sighting]) -> Iterator[None]:
        """As `ground_truth.labels.Resolver` has it."""


class Witness(Protocol):
    """Looks at an export while it runs, for what else is to be drawn of each frame."""

    def frame(
        self, index: int, evaluated: bpy.types.Depsgraph, projector: Projector, reader: FrameReader | None
    ) -> Iterator[None]:
        """A frame is evaluated and seen through a one-frame projector; `reader` is None where the subjects
        have no surface. What is needed of the scene is copied at once; the generator goes on from there,
        pausing on the way."""

    def finish(self, recorded: Recorded) -> Iterator[None]:
        """Every frame was seen and the limbs are chosen; works pausing on the way."""


def export_clip(
    context: bpy.types.Context, options: ExportOptions, witness: Witness | None = None
) -> Generator[ExportStep, None, ExportedClip]:
    """Export a clip, step by step; the generator's return value is the clip.

    Every frame is evaluated once. Between two steps lie about 15 ms of work; only changing the scene's
    frame and the user's own render of the first frame can't be broken up. The scene's frame, its camera and
    its render settings are put back when the generator ends, fails or is closed. Raises `ExportError`.
    """
    scene = context.scene
    frame, subframe, camera = scene.frame_current, scene.frame_subframe, scene.camera
    export = _Export(context, options, witness)
    shown = contextlib.ExitStack()
    try:
        shown.enter_context(unkeyed_kept(scene, frame, subframe))
        export.keyed_modifiers = shown.enter_context(as_rendered(context.view_layer))
        return (yield from _paced(export, export.run()))
    except ReferenceError:
        raise ExportError(
            "Something that was being exported was removed from the scene; export again."
        ) from None
    finally:
        export.close()
        shown.close()
        if scene.camera != camera:
            scene.camera = camera


def watch_range(
    context: bpy.types.Context, options: ExportOptions
) -> Generator[ExportStep, None, dict[bpy.types.Object, Motion]]:
    """How the armatures move through the picture over the range, from a few of its frames, step by step. The
    scene's frame is put back at the end. Raises `ExportError`."""
    scene = context.scene
    with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
        export = _Export(context, options)
        return (yield from _paced(export, export.watch()))


def follow_camera(
    context: bpy.types.Context, options: ExportOptions
) -> Generator[ExportStep, None, np.ndarray | None]:
    """How the background moves over the range, [F, 3, 3] as in a request or None where it does not, step by
    step. The scene's frame is put back at the end. Raises `ExportError`."""
    scene = context.scene
    with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
        export = _Export(context, options)
        return (yield from _paced(export, export.follow()))


def _paced(export: _Export, steps: Iterator[ExportStep]) -> Iterator[ExportStep]:
    """Pause only where there was some work since the last pause."""
    due = time.perf_counter() + PAUSE
    while True:
        try:
            step = next(steps)
        except StopIteration as finished:
            return finished.value
        if time.perf_counter() >= due:
            yield step
            export.untouched = False
            due = time.perf_counter() + PAUSE


def under_step(step: ExportStep, work: Iterator[None]) -> Generator[ExportStep, None, object]:
    """Run work that pauses now and then under a step's name, and hand on what it returns."""
    return mapped(lambda _: step, work)


class _Export:
    def __init__(self, context: bpy.types.Context, options: ExportOptions, witness: Witness | None = None):
        self._options = options
        self._witness = witness
        self._scene = context.scene
        self._view_layer = context.view_layer
        context.evaluated_depsgraph_get()  # makes sure that there is one
        self._findings: list[Finding] = []
        self._background = Background()
        self._passed = _Passed(context.view_layer)
        self.keyed_modifiers: list[bpy.types.Modifier] = []
        """Those that do not render in every frame, as `as_rendered` has them."""
        self._frame: float | None = None
        self.untouched = False
        """Whether nobody else can have touched the scene since it was evaluated."""
        self._step = ExportStep(0.01, say("Looking at the rigs"))

    def run(self) -> Generator[ExportStep, None, ExportedClip]:
        options = self._options
        self._check()
        yield self._step
        # A picture that is loaded has Blender sort the scene's dependencies anew: before the first frame is
        # evaluated, so that this is done once.
        self._given = read_picture(options.first_frame) if options.first_frame else None
        yield self._step
        self._rigs = find_rigs(options.armatures)
        self._readers = [PoseReader(rig) for rig in self._rigs]
        yield from self._record()
        self._projector = Projector(self._lenses, self._fit)
        motions = self._motions(spread_frames(options.num_frames))
        choosing = find_subjects(options.armatures, motions, options.look, self._skins)
        self.subjects = yield from self._show(choosing, 0.85, say("Choosing the limbs"))
        self.limbs, parts = limb_tables(self.subjects)
        yield self._step

        joints, projector = self.joints(self.subjects), self._projector
        self._counts = np.concatenate([subject.choice.counts for subject in self.subjects])
        drawing = None
        if self._first is not None:
            self._resolver = Resolver([subject.choice for subject in self.subjects], joints, self._counts)
            work = _finish(self._resolver, self._first, self._batches)
            drawing = yield from self._show(self._background.add(work))
        strokes = projector.strokes(joints, self._counts, self.limbs, parts)
        pose = yield from self._show(strokes, 0.87, say("Drawing the limbs"))
        motion = yield from self._show(self._camera_motion(projector), 0.88, say("Following the camera"))
        maps = _Maps()
        if drawing is not None:
            maps = yield from self._show(await_result(drawing), 0.9, say("Labelling the parts"))
        looked_at = Reviewed(
            self.subjects,
            pose,
            projector,
            joints,
            self._cameras,
            maps.part_maps,
            options.times,
            isinstance(options.view, Viewport),
            any(motion.moves(Skeleton.read(rig.data).deforming) for rig, motion in motions.items()),
        )
        self._findings.extend(review(looked_at))
        self._findings.extend(self._turning(projector))
        pose = pose.without(unseen_of(self.subjects, self._counts, projector, joints))
        backdrop = None
        if maps.first_labels is not None:
            work = self._backdrop(projector, motion, maps.first_labels)
            backdrop = yield from self._show(work, 0.95, say("Looking behind the subject"))
        if self._witness is not None:
            yield from self._show(self._witness.finish(self))
        first_frame = yield from self._show(await_result(self._packed), 0.98, say("Packing the first frame"))
        return ExportedClip(
            pose=pose,
            first_frame=first_frame,
            first_frame_in_pose=options.first_frame_in_pose or self._given is None,
            **vars(maps),
            backdrop=backdrop,
            camera_motion=motion,
            pose_frames=options.pose_frames,
            findings=tuple(self._findings),
            motions=motions,
            subjects=tuple(self.subjects),
            projector=projector,
        )

    # One pass over the range

    def _record(self) -> Iterator[ExportStep]:
        """Go through the frames once and keep what is needed of each. What can't be kept, because there is
        so much of it, is drawn on the way: which limb it belongs to is told later."""
        options = self._options
        self._fit = fit(*options.view.frame_size(self._scene), options.width, options.height)
        self._lenses, self._cameras, self._posed = [], [], []
        self._first: Future | None = None
        self._batches: list[Future] = []
        batch, shades, reader = Batch(), [], None
        for index in range(options.num_frames):
            depsgraph = self._go_to(index)
            self._keep(depsgraph)
            projector = Projector(self._lenses[-1:], self._fit)
            if index == 0:
                reader = yield from self._begin(projector)
            if reader is not None:
                depsgraph = self._evaluated()
                look = reader.look(index, depsgraph, projector, options.part_map_stride)
                shade = self._shadow.look(depsgraph, projector, look, SHADOW_STRIDE)
                if not batch.takes(look):
                    yield from self._draw(batch, shades)
                    batch, shades = Batch(), []
                batch.add(look)
                shades.append(shade)
            if self._witness is not None:
                yield from self._show(self._witness.frame(index, self._evaluated(), projector, reader))
            self._step = ExportStep(
                0.2 + 0.65 * index / options.num_frames,
                say("Frame {index} of {total}", index=index + 1, total=options.num_frames),
            )
            yield self._step
        if reader is not None:
            yield from self._draw(batch, shades)
            if reader.too_many:
                sentence = say(
                    "There are more than {most} instances; those beyond are no parts and hide nothing.",
                    most=MAX_INSTANCES,
                )
                self._findings.append(Finding(sentence))

    def _keep(self, depsgraph: bpy.types.Depsgraph) -> None:
        options = self._options
        self._lenses.append(options.view.lens(self._scene, depsgraph))
        self._cameras.append(options.view.name(self._scene))
        posed = [reader.read(depsgraph) for reader in self._readers]
        for rig, one in zip(self._rigs, posed, strict=True):
            if not (np.isfinite(one.world).all() and np.isfinite(one.matrices).all()):
                raise ExportError(
                    say(
                        "{rig} is at a place that is no number in frame {frame}; look for a key or a driver "
                        "that gives none.",
                        rig=rig.armature.name,
                        frame=self._frame,
                    )
                )
        self._posed.append(posed)

    def _begin(self, projector: Projector) -> Iterator[ExportStep]:
        """The first frame: its picture, and where it shows the subjects. Returns what copies the others, None
        when the subjects have no surface."""
        packing = yield from self._show(self._first_picture(), 0.05, say("Making the first frame"))
        self._packed = yield from self._show(self._background.add(packing))
        self._evaluated()
        self._skins = {
            rig.armature: Skin.read(rig.armature, Skeleton.read(rig.armature.data), bpy.data.objects)
            for rig in self._rigs
            if may_change(rig.armature, bpy.data.objects)
        }
        reader = yield from self._show(self._reader(), 0.1, say("Reading the skin"))
        if reader is not None:
            self._labeller = Labeller()
            self._shadow = ShadowDrawer(self._scene, self._passed, self._options.num_frames)
            work = self._labeller.draw_first(reader.look(0, self._evaluated(), projector))
            self._first = yield from self._show(self._background.add(work))
        return reader

    def _draw(self, batch: Batch, shades: list[ShadowLook]) -> Iterator[ExportStep]:
        work = _draw(self._labeller, batch.looks, shades)
        self._batches.append((yield from self._show(self._background.add(work))))

    def close(self) -> None:
        self._background.close()

    def _motions(self, indices: Sequence[int]) -> dict[bpy.types.Object, Motion]:
        """How the armatures move through the picture, from some of the frames that were kept."""
        options, pixels, found = self._options, self._projector.pixels, {}
        for number, rig in enumerate(self._rigs):
            posed = [self._posed[index][number] for index in indices]
            seen = np.stack([pixels[index] @ one.world for index, one in zip(indices, posed)])
            found[rig.armature] = Motion(bone_poses(rig.armature, posed), seen, options.width, options.height)
        return found

    # What was recorded, for what else is drawn

    def joints(self, subjects: Sequence[Subject]) -> np.ndarray:
        posed = [[frame[number] for frame in self._posed] for number in range(len(self._readers))]
        return Sampler(subjects).place(self._readers, posed)

    def label(self, sightings: Sequence[Sighting]) -> Iterator[None]:
        return self._resolver.label(sightings)

    # A few frames

    def watch(self) -> Generator[ExportStep, None, dict[bpy.types.Object, Motion]]:
        """How the armatures move through the picture, from a few frames over the range."""
        options = self._options
        self._rigs = find_rigs(options.armatures)
        self._readers = [PoseReader(rig, ()) for rig in self._rigs]
        self._fit = fit(*options.view.frame_size(self._scene), options.width, options.height)
        self._lenses, self._cameras, self._posed = [], [], []
        for index in spread_frames(options.num_frames):
            self._keep(self._go_to(index))
            yield self._step
        self._projector = Projector(self._lenses, self._fit)
        return self._motions(range(len(self._lenses)))

    def follow(self) -> Generator[ExportStep, None, np.ndarray | None]:
        """How the background moves, from every frame of the range."""
        options, lenses = self._options, []
        self._check()
        self._fit = fit(*options.view.frame_size(self._scene), options.width, options.height)
        depsgraph = self._go_to(0)
        self._passed.hide(find_surfaces(find_rigs(options.armatures), depsgraph))
        for index in range(options.num_frames):
            lenses.append(options.view.lens(self._scene, self._go_to(index)))
            yield ExportStep(0.8 * index / options.num_frames, say("Following the camera"))
        return (
            yield from self._show(
                self._camera_motion(Projector(lenses, self._fit)), 0.8, say("Looking around")
            )
        )

    def _check(self) -> None:
        options = self._options
        if options.num_frames < 1 or not options.times.step > 0:
            raise ExportError("The frame range is empty; set its end after its start.")
        if options.num_frames > MAX_FRAMES:
            raise ExportError(
                say(
                    "The range has {total} frames but at most {most} can be sent; shorten the range or raise "
                    "the step.",
                    total=options.num_frames,
                    most=MAX_FRAMES,
                )
            )
        if isinstance(options.view, SceneCamera):
            options.view.find(self._scene)

    def _go_to(self, index: int) -> bpy.types.Depsgraph:
        frame = self._options.times.at(index)
        if frame != self._frame:
            self._frame = frame
            go_to(self._scene, frame)
            self._moment, self.untouched = self._now(), True
            if show_as_rendered(self.keyed_modifiers):
                self.untouched = False
        return self._evaluated()

    def _evaluated(self) -> bpy.types.Depsgraph:
        """The scene evaluated at the frame that is being exported. What it gives must not be kept over a
        pause, in which others may evaluate it anew, even at another frame."""
        if not self.untouched:
            if self._now() != self._moment:
                go_to(self._scene, self._frame)
            self._view_layer.update()
            self.untouched = True
        return self._view_layer.depsgraph

    def _now(self) -> tuple[int, float]:
        return self._scene.frame_current, self._scene.frame_subframe

    def _show(
        self, work: Iterator[None], fraction: float | None = None, text: str = ""
    ) -> Iterator[ExportStep]:
        """Run work that pauses now and then under a step's name, and hand on what it returns."""
        if fraction is not None:
            self._step = ExportStep(fraction, text)
            yield self._step
        return (yield from under_step(self._step, work))

    def _first_picture(self) -> Iterator[None]:
        """The generator's return value packs the picture's file."""
        options = self._options
        yield
        picture = self._given
        if picture is None:
            picture = render_frame(self._scene, options.view, self._fit, self._frame)
            self.untouched = False
        if picture.max() < BLACK:
            self._findings.append(
                Finding("The first frame is black; light the scene, or choose another source of it.")
            )
        if self._given is None:
            return encode_png(picture)
        height, width = picture.shape[:2]
        aspects = sorted((width / height, options.width / options.height))
        if aspects[0] < CROPPED * aspects[1] and options.alignment == Alignment():
            sentence = say(
                "Only {share:.0%} of the first frame's picture shows, since it is {width} x {height}; "
                "scale or move it, or choose one that is shaped like the clip.",
                share=aspects[0] / aspects[1],
                width=width,
                height=height,
            )
            self._findings.append(Finding(sentence))
        return _pack(fit_picture(picture, options.width, options.height, options.alignment))

    def _reader(self) -> Iterator[None]:
        surfaces = find_surfaces(self._rigs, self._evaluated())
        for volume in find_volumes(self._rigs):
            sentence = say(
                "The volume {volume} has no surface, so its pixels belong to no limb.", volume=volume.name
            )
            self._findings.append(Finding(sentence))
        yield
        if not surfaces:
            self._findings.append(
                Finding("No mesh that renders is bound to the armature, so the server must guess its parts.")
            )
            return None
        self._passed.hide(surfaces)
        reader = FrameReader(surfaces, self._evaluated())
        yield from reader.read(0, self._evaluated)
        return reader

    def _backdrop(
        self, projector: Projector, motion: np.ndarray | None, labels: np.ndarray
    ) -> Iterator[None]:
        fit = projector.fit
        extent = find_extent(motion, fit.width, fit.height, labels)
        if extent is None:
            return None
        self._go_to(0)
        yield
        found = yield from label_backdrop(self._evaluated, self._scene, projector, self._passed, extent)
        return Backdrop(found, CELL, *extent[:2])

    def _camera_motion(self, projector: Projector) -> Iterator[None]:
        if not moves(projector):
            return None
        self._go_to(0)
        yield
        path = yield from camera_motion(self._scene, self._evaluated, projector, self._passed)
        followed = faces_start(projector)
        return path[np.maximum.accumulate(np.where(followed, np.arange(len(path)), 0))]

    def _turning(self, projector: Projector) -> Iterator[Finding]:
        """Says where the camera turns away from what the first frame shows, unless it cuts."""
        cut = any(finding.operator == "poseanything.use_range" for finding in self._findings)
        followed = faces_start(projector)
        if moves(projector) and not followed.all() and not cut:
            yield Finding(
                say(
                    "The camera turns away from what the first frame shows: from frame {frame:g} on "
                    "the background stands still until it is in view again.",
                    frame=self._options.times.at(int(np.argmin(followed))),
                )
            )


class _Passed:
    """Tells whether rays that look for the background pass through an evaluated object. It is no method of
    `_Export`: what that holds must not hold it, or its memory is freed in the middle of anything."""

    def __init__(self, view_layer: bpy.types.ViewLayer):
        self._view_layer = view_layer
        self._own: set[bpy.types.Object] = set()

    def hide(self, surfaces: Sequence[Surface]) -> None:
        """Have rays pass through the subjects' surfaces."""
        self._own = {surface.obj for surface in surfaces}

    def __call__(self, obj: bpy.types.Object) -> bool:
        depsgraph = self._view_layer.depsgraph
        if obj.hide_render or obj.original in self._own or not meets_camera(obj, depsgraph):
            return True
        slots = obj.material_slots
        return bool(slots) and all(is_clear(slot.material, depsgraph) for slot in slots)


# In the background, where nothing of Blender's may be touched


@dataclass(frozen=True, eq=False)
class _Maps:
    """What is drawn of the subjects' surfaces, as `ExportedClip` has it."""

    subject_mask: np.ndarray | None = None
    first_labels: np.ndarray | None = None
    part_maps: np.ndarray | None = None
    shadow_maps: np.ndarray | None = None
    surface_flow: np.ndarray | None = None
    light_maps: np.ndarray | None = None


def _pack(fitting: Iterator[None]) -> Iterator[None]:
    """The file of a picture that is fitted first."""
    return (yield from encode_png((yield from fitting)))


def _draw(labeller: Labeller, looks: Sequence[Look], shades: Sequence[ShadowLook]) -> Iterator[None]:
    """Frames, as `Labeller.draw` has them, and their shadow maps."""
    frames = yield from labeller.draw(looks)
    return frames, (yield from ShadowDrawer.draw(looks, shades))


def _finish(resolver: Resolver, first: Future, batches: Sequence[Future]) -> Iterator[None]:
    """The maps of what was drawn, once the limbs are chosen."""
    [labels] = yield from resolver.label([first.result()])
    batches = [batch.result() for batch in batches]
    frames = [frame for drawn, _ in batches for frame in drawn]
    parts = yield from resolver.label([frame.sighting for frame in frames])
    shadows = np.concatenate([drawn for _, drawn in batches])
    return _Maps(
        subject_mask=(labels > 0).astype(np.uint8),
        first_labels=labels,
        part_maps=most_frequent(parts),
        shadow_maps=shadows if shadows.any() else None,
        surface_flow=np.stack([frame.flow for frame in frames]),
        light_maps=np.stack([frame.light for frame in frames]),
    )
