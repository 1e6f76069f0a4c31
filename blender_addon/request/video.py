"""From the poses of a video to a clip: on the scene's time, laid on the clip's pixels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import bpy
import numpy as np

from ..buttons import FIND_POSES, PICK_IN_PICTURE
from ..errors import ExportError
from ..ground_truth.first_frame import Alignment, fit_picture, read_picture
from ..ground_truth.png import encode_png
from ..shared.messages import FoundPoses
from ..shared.pose import PoseSequence
from ..texts import say
from ..times import ClipTimes
from ..view import fit
from . import kept_poses
from .export import ExportedClip, ExportOptions, ExportStep, under_step
from .finding import Finding
from .kept_poses import KeptPoses
from .range import ClipRange
from .video_time import poses_of, shown_index


@dataclass(frozen=True)
class Placed:
    """Where a picture of `size` lies on a clip: (left, top, width, height) in the clip's pixels."""

    size: tuple[int, int]
    box: tuple[float, float, float, float]

    def points(self, points: np.ndarray) -> np.ndarray:
        """[N, 3] points of the picture on the clip."""
        left, top, width, height = self.box
        scale = np.float32([width / self.size[0], height / self.size[1], 1])
        return (points * scale + np.float32([left, top, 0])).astype(np.float32)

    def mask(self, mask: np.ndarray, width: int, height: int) -> np.ndarray:
        """[height, width] uint8: a mask [h, w] of the picture, of any size, on the clip."""
        left, top, across, down = self.box
        rows = ((np.arange(height) + 0.5 - top) / down) * mask.shape[0]
        columns = ((np.arange(width) + 0.5 - left) / across) * mask.shape[1]
        inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & (columns >= 0) & (columns < mask.shape[1])
        blend = _between((mask > 0).astype(np.float32), rows)
        return ((_between(blend.T, columns).T > 0.5) & inside).astype(np.uint8)


def _between(lines: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The lines [N, M] at places along the first axis, whose middles are at .5, blended linearly."""
    at = np.clip(places - 0.5, 0, len(lines) - 1)
    low = at.astype(int)
    share = (at - low).astype(np.float32)[:, None]
    return lines[low] * (1 - share) + lines[np.minimum(low + 1, len(lines) - 1)] * share


def alignment_of(video) -> Alignment:
    """How the user laid the poses on the clip."""
    return Alignment(video.scale, video.x, video.y)


def place(size: tuple[int, int], width: int, height: int, alignment: Alignment) -> Placed:
    return Placed(size, alignment.box(fit(*size, width, height)))


def clip_pose(
    scene: bpy.types.Scene, kept: KeptPoses, times: ClipTimes, placed: Placed, width: int, height: int
) -> tuple[PoseSequence, int]:
    """The poses of a clip's frames, those after the video's end as its last is, and which of the found frames
    is the clip's first. Raises `ExportError`."""
    count = kept.found.pose.num_frames
    indices = [shown_index(scene, kept, times.at(index)) for index in range(times.num_frames)]
    if None in indices:
        raise ExportError(
            "The video's speed was changed since its poses were found; look for them again.", *FIND_POSES
        )
    if indices[0] < 0 or indices[0] >= count:
        raise ExportError(
            say(
                "The video's poses don't reach to frame {frame:g}; look for them again, or choose frames "
                "that they cover.",
                frame=times.start,
            ),
            *FIND_POSES,
        )
    source = kept.found.pose
    frames = [source.frame(min(max(index, 0), count - 1)) for index in indices]
    moved = [[type(line)(line.limb, placed.points(line.points)) for line in lines] for lines in frames]
    return PoseSequence.from_frames(width, height, source.parts, source.limbs, moved), indices[0]


def subject_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a mask that isn't empty, as fractions of its width and height."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def scaled_about(old: Alignment, scale: float, x: float, up: float) -> Alignment:
    """An alignment of another scale that leaves a place of the clip where it is: `x` to the right and `up`,
    as fractions of the clip from its lower left corner."""
    scale = min(max(scale, 0.05), 20.0)
    grown = scale / old.scale
    return Alignment(scale, x - 0.5 - grown * (x - 0.5 - old.x), up - 0.5 - grown * (up - 0.5 - old.y))


def laid_over(kept: KeptPoses, index: int, target: np.ndarray) -> Alignment:
    """The alignment that lays the filmed subject over the one of a mask [height, width] of the clip."""
    mask = first_mask(kept.found, index)
    if not mask.any() or not target.any():
        raise ExportError("The subject is not in the first frame; point at it again.", *PICK_IN_PICTURE)
    height, width = target.shape
    placed = place((kept.found.pose.width, kept.found.pose.height), width, height, Alignment())
    left, top, across, down = placed.box
    sides = np.array([width, height])
    low, high = (
        (np.array(corner) * (across, down) + (left, top)) / sides
        for corner in (subject_box(mask)[:2], subject_box(mask)[2:])
    )
    there = np.array(subject_box(target)).reshape(2, 2)
    scale = float(np.linalg.norm((there[1] - there[0]) * sides) / np.linalg.norm((high - low) * sides))
    x, y = (there.sum(0) / 2 - 0.5) - scale * ((low + high) / 2 - 0.5)
    return Alignment(scale, float(x), -float(y))


def first_mask(found: FoundPoses, index: int) -> np.ndarray:
    """The subject's mask in one of the found frames: exact in the first, else as the small ones have it."""
    return found.mask if index == 0 else found.masks[min(index, len(found.masks) - 1)]


def picture_mask(scene: bpy.types.Scene, settings, width: int, height: int) -> np.ndarray | None:
    """[height, width] uint8: the subject that the user pointed at in the first frame's picture, None where
    they didn't. Raises `ExportError`."""
    kept = kept_poses.read(scene.poseanything_video.mask)
    if settings.first_frame_source != "PICTURE" or kept is None:
        return None
    if bpy.path.abspath(kept.source.picture) != bpy.path.abspath(settings.first_frame_path):
        return None
    pose, alignment = (
        kept.found.pose,
        Alignment(settings.picture_scale, settings.picture_x, settings.picture_y),
    )
    mask = place((pose.width, pose.height), width, height, alignment).mask(kept.found.mask, width, height)
    return mask if mask.any() else None


def with_picture_mask(clip: ExportedClip, mask: np.ndarray) -> dict[str, np.ndarray | None]:
    """The fields of an exported clip whose first frame's subject is a mask: its limbs' labels end where it
    does, and reach to its outline."""
    labels = clip.first_labels
    return {"subject_mask": mask, "first_labels": None if labels is None else spread(labels, mask > 0)}


def spread(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels [H, W] within a mask, each place of it with that of a labelled place near it."""
    labels = labels * mask
    if not labels.any():
        return labels
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    found, wanted = labels[window].copy(), mask[window]
    while True:
        free = wanted & (found == 0)
        grown = found.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = np.zeros_like(found)
            there, here = [slice(None)] * 2, [slice(None)] * 2
            here[axis], there[axis] = (slice(1, None), slice(-1)) if step > 0 else (slice(-1), slice(1, None))
            beside[tuple(here)] = found[tuple(there)]
            grown = np.where(free & (grown == 0), beside, grown)
        if np.array_equal(grown, found):
            break
        found = grown
    out = np.zeros_like(labels)
    out[window] = found
    return out


def export_video(
    context, settings, planned: ClipRange, options: ExportOptions
) -> Generator[ExportStep, None, ExportedClip]:
    """A clip of the poses of the scene's video, step by step, as `export_clip` makes one of its rigs.
    Raises `ExportError`."""
    scene, video = context.scene, context.scene.poseanything_video
    kept = poses_of(scene)
    width, height = planned.width, planned.height
    size = kept.found.pose.width, kept.found.pose.height
    placed = place(size, width, height, alignment_of(video))
    pose, index = clip_pose(scene, kept, planned.times, placed, width, height)
    yield ExportStep(0.3, say("Fitting the first frame"))
    picture = yield from under_step(
        ExportStep(0.4, say("Fitting the first frame")),
        fit_picture(read_picture(options.first_frame), width, height, options.alignment),
    )
    first = yield from under_step(ExportStep(0.8, say("Packing the first frame")), encode_png(picture))
    mask = picture_mask(scene, settings, width, height)
    if settings.first_frame_source == "VIDEO":
        mask = placed.mask(first_mask(kept.found, index), width, height)
    carried = np.diff(pose.offsets) > 0
    if not carried.any():
        raise ExportError("No frame of this part of the video has a pose; choose another part.")
    chosen = range(pose.num_frames) if options.pose_frames is None else options.pose_frames
    frames = tuple(frame for frame in chosen if carried[frame]) or (int(np.flatnonzero(carried)[0]),)
    return ExportedClip(
        pose=pose,
        first_frame=first,
        first_frame_in_pose=options.first_frame_in_pose,
        subject_mask=mask if mask is not None and mask.any() else None,
        first_labels=None,
        part_maps=None,
        shadow_maps=None,
        surface_flow=None,
        light_maps=None,
        backdrop=None,
        camera_motion=None,
        pose_frames=None if len(frames) == pose.num_frames else frames,
        findings=tuple(_findings(carried, kept, settings, mask)),
        motions={},
        subjects=(),
        projector=None,
    )


def _findings(carried: np.ndarray, kept: KeptPoses, settings, mask: np.ndarray | None):
    if not carried.all():
        yield Finding(
            say(
                "The video's subject has no pose in {missing} of {count} frames.",
                missing=(~carried).sum(),
                count=len(carried),
            )
        )
    if settings.first_frame_source == "PICTURE" and mask is None:
        yield Finding(
            "Which part of the picture is the subject must be guessed; point at it.",
            "poseanything.pick_subject",
            "Pick Subject",
            (("of_picture", True),),
        )
