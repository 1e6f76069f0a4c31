"""What is wrong with a clip, told before it is sent: what the server would make of it is known only much
later."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import bpy
import numpy as np

from ..buttons import FRAME_SUBJECT, Button, override_armature, sets_of
from ..errors import ExportError
from ..rig.subjects import Subject
from ..shared.pose import MAX_LIMBS, PoseSequence
from ..texts import say
from ..times import ClipTimes
from ..view.projection import Projector
from .finding import Finding
from .range import ClipRange

SMALL = 0.12
"""A subject smaller than this fraction of the picture's shorter side is hardly drawn by any engine."""
OFTEN = 0.1
"""It is worth a word when it is as small as that in more than this fraction of the frames."""
HIDDEN = 0.25
"""Labels lie under at least this fraction of the limbs of a subject that is seen."""
CUT = 0.2
"""A camera that moves the subject by this fraction of the picture from one frame to the next, and by `JERK`
times as much as in the frames around, cuts."""
JERK = 6.0
BAKED = 0.9
"""A subject that is keyed on this fraction of the frames is baked."""
ROOM = 1.2
"""A Clip End that is raised is this much farther than the subject gets."""
FINGERS = 0.002
"""Fingers that move this fraction of the picture by themselves are worth a word."""
FACE = 0.01
"""So are a face, hair and cloth that move this much."""


@dataclass(frozen=True, eq=False)
class Reviewed:
    """What is looked at, filmed at `times`; `joints` [F, K, 3] are the limbs' joints in world space;
    `part_maps` [F, h, w] are as in a request, or None. `cameras` are the names of what each frame is seen
    through: objects, or with `in_viewport` a 3D view. `bones_move` says whether any bone that deforms does,
    drawn or not."""

    subjects: Sequence[Subject]
    pose: PoseSequence
    projector: Projector
    joints: np.ndarray
    cameras: Sequence[str]
    part_maps: np.ndarray | None
    times: ClipTimes
    in_viewport: bool
    bones_move: bool

    def scene_frame(self, index: int) -> int:
        """The whole scene frame that lies nearest, for a person to go to."""
        return round(self.times.at(int(index)))

    @cached_property
    def depths(self) -> np.ndarray:
        """[F, K] how far the joints are in front of the camera."""
        planes = self.projector.depths
        return np.einsum("fkc,fc->fk", self.joints, planes[:, :3]) + planes[:, None, 3]

    @property
    def middles(self) -> np.ndarray:
        """[F] how far the middle one of them is."""
        return np.median(self.depths, axis=1)

    @cached_property
    def boxes(self) -> np.ndarray:
        """[F, 2, 2] least and greatest x and y of the strokes within the picture; not a number where there
        are none."""
        pose = self.pose
        boxes = np.full((pose.num_frames, 2, 2), np.nan)
        for index in range(pose.num_frames):
            points, _ = pose.frame_points(index)
            inside = ((points[:, :2] >= 0) & (points[:, :2] <= (pose.width, pose.height))).all(axis=1)
            if inside.any():
                clipped = np.clip(points[:, :2], 0, (pose.width, pose.height))
                boxes[index] = clipped.min(axis=0), clipped.max(axis=0)
        return boxes

    @property
    def sizes(self) -> np.ndarray:
        """[F] the diagonal of the strokes within the picture, in pixels; not a number where there are
        none."""
        return np.linalg.norm(self.boxes[:, 1] - self.boxes[:, 0], axis=1)

    @property
    def small(self) -> np.ndarray:
        """[F] whether the subject is in view and too small to be drawn."""
        return self.sizes < SMALL * min(self.pose.width, self.pose.height)


def review(clip: Reviewed) -> Iterator[Finding]:
    """What is wrong with an exported clip. Raises `ExportError` when no frame has a limb in view."""
    yield from _out_of_view(clip)
    yield from _beyond(clip)
    yield from _size(clip)
    yield from _cuts(clip)
    yield from _stillness(clip)
    yield from _coverage(clip)
    yield from _fingers(clip)
    yield from _faces(clip)
    yield from _labels(clip)


def _out_of_view(clip: Reviewed) -> Iterator[Finding]:
    names = ", ".join(subject.armature.name for subject in clip.subjects)
    seen = np.isfinite(clip.boxes[:, 0, 0])
    if not seen.any() and ((clip.middles > 0) & (clip.middles < clip.projector.nears)).all():
        raise ExportError(
            say(
                "{names} lies before the Clip Start of {camera}, so it does not render; lower the Clip "
                "Start.",
                names=names,
                camera=clip.cameras[0],
            ),
            *_setting_of_camera(
                clip, 0, "Lower It", "data.clip_start", _half(clip.depths[clip.depths > 0].min())
            ),
        )
    if not seen.any():
        raise ExportError(
            say(
                "No limb of {names} is in view in any frame from {first} to {last}; move the camera or "
                "choose other frames.",
                names=names,
                first=clip.scene_frame(0),
                last=clip.scene_frame(len(seen) - 1),
            ),
            *FRAME_SUBJECT,
        )
    limbs = clip.pose.limbs
    shown = {limbs[line.limb].subject for line in clip.pose.frame(0)}
    for number, subject in enumerate(clip.subjects):
        if number not in shown:
            yield Finding(
                say(
                    "The armature {armature} is out of view in the first frame.",
                    armature=subject.armature.name,
                ),
                *FRAME_SUBJECT,
            )
    if seen[0] and not seen.all():
        away = np.flatnonzero(~seen)
        yield Finding(
            say(
                "{names} is out of view in {away} of {count} frames, from frame {frame} on.",
                names=names,
                away=len(away),
                count=len(seen),
                frame=clip.scene_frame(away[0]),
            ),
            *FRAME_SUBJECT,
        )
    drawn = {line.limb for line in clip.pose.frame(0) if _touches(clip.pose, line.points)}
    own = {limb for limb, made in enumerate(limbs) if made.subject in shown}
    if drawn and len(drawn & own) <= len(own) / 2:
        yield Finding(
            say(
                "Only {seen} of {count} limbs are in view in the first frame; the engine does not know what "
                "the others look like.",
                seen=len(drawn & own),
                count=len(own),
            ),
            *FRAME_SUBJECT,
        )


def _touches(pose: PoseSequence, points: np.ndarray) -> bool:
    return bool(((points[:, :2] >= 0) & (points[:, :2] <= (pose.width, pose.height))).all(axis=1).any())


def _beyond(clip: Reviewed) -> Iterator[Finding]:
    """A camera that renders only what is near leaves the picture empty where the limbs are drawn."""
    far = np.array([lens.far for lens in clip.projector.lenses])
    away = np.flatnonzero(clip.middles > far)
    if len(away):
        enough = float(math.ceil(ROOM * clip.depths.max()))
        yield Finding(
            say(
                "The subject lies beyond the Clip End of {camera} in {away} of {count} frames, from frame "
                "{frame} on, so it does not render; raise the Clip End.",
                camera=clip.cameras[away[0]],
                away=len(away),
                count=len(far),
                frame=clip.scene_frame(away[0]),
            ),
            *_setting_of_camera(clip, away[0], "Raise It", "data.clip_end", enough),
        )


def _setting_of_camera(clip: Reviewed, index: int, label: str, path: str, value: float) -> tuple:
    """A button that sets a property of the camera that a clip frame is seen through; none of a 3D view."""
    return () if clip.in_viewport else sets_of(label, "objects", clip.cameras[index], path, value)


def _half(distance: float) -> float:
    """At most half of it: a number that a property of Blender's holds to the last digit."""
    return 2.0 ** math.floor(math.log2(distance / 2))


def _size(clip: Reviewed) -> Iterator[Finding]:
    sizes, small = clip.sizes, clip.small
    typical = float(np.nanmedian(sizes))
    if small.sum() > np.isfinite(sizes).sum() / 2:
        yield Finding(
            say(
                "The subject is only {size:.0f} pixels large in a picture of {width} x {height}; move the "
                "camera nearer.",
                size=typical,
                width=clip.pose.width,
                height=clip.pose.height,
            ),
            *FRAME_SUBJECT,
        )
    elif small.mean() > OFTEN:
        yield Finding(
            say(
                "The subject is too small in {count} of {total} frames, from frame {frame} on (as "
                "little as {size:.0f} pixels); move the camera nearer or choose other frames.",
                count=int(small.sum()),
                total=len(small),
                frame=clip.scene_frame(np.argmax(small)),
                size=sizes[small].min(),
            ),
            *FRAME_SUBJECT,
        )


def _cuts(clip: Reviewed) -> Iterator[Finding]:
    count = clip.pose.num_frames
    if count < 2:
        return
    switched = [i for i in range(1, count) if clip.cameras[i] != clip.cameras[i - 1]]
    jumps = [] if switched else _jumps(clip)
    cuts = switched or jumps
    if not cuts:
        return
    frames = [clip.scene_frame(index) for index in cuts]
    at = ", ".join(map(str, frames[:4]))
    yield Finding(
        say(
            "The camera changes to {camera} at frame {frames}: a clip can't follow a cut, so the picture "
            "smears; generate the frames before and after it one by one.",
            camera=clip.cameras[cuts[0]],
            frames=at,
        )
        if switched
        else say(
            "The camera jumps at frame {frames}: a clip can't follow a cut, so the picture smears; "
            "generate the frames before and after it one by one.",
            frames=at,
        ),
        "poseanything.use_range",
        say("Use {first} to {last}", first=clip.scene_frame(0), last=clip.scene_frame(cuts[0] - 1)),
        (("start", clip.scene_frame(0)), ("end", clip.scene_frame(cuts[0] - 1))),
    )


def _jumps(clip: Reviewed) -> list[int]:
    """Clip frames at which the camera alone takes the subject far across the picture, all at once."""
    projector, joints = clip.projector, clip.joints
    if len(joints) < 3:
        return []
    # The joints of one frame through the lenses of this and of the next.
    homogeneous = np.concatenate([joints[:-1], np.ones((*joints.shape[:2], 1))[:-1]], axis=2)
    now = np.einsum("frc,fkc->fkr", projector.pixels[:-1], homogeneous)
    then = np.einsum("frc,fkc->fkr", projector.pixels[1:], homogeneous)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.linalg.norm(then[..., :2] / then[..., 2:] - now[..., :2] / now[..., 2:], axis=2)
    moved = np.where(np.isfinite(moved), moved, 1e6)
    turned = (then[..., 2] <= 0).mean(axis=1) > 0.5
    step = np.median(np.minimum(moved, 1e6), axis=1)
    step[turned] = 1e6
    longer = max(clip.pose.width, clip.pose.height)
    found = []
    for index in np.flatnonzero(step > CUT * longer).tolist():
        around = np.concatenate([step[max(index - 2, 0) : index], step[index + 1 : index + 3]])
        if step[index] > JERK * max(float(np.median(around)), 1.0):
            found.append(index + 1)
    return found


def _stillness(clip: Reviewed) -> Iterator[Finding]:
    resting = [one.armature for one in clip.subjects if one.armature.data.pose_position == "REST"]
    for armature in resting:
        sentence = say("{armature} is in Rest Position, so its poses do not show.", armature=armature.name)
        yield Finding(sentence, *_setting_of(armature, "Use Pose Position", "pose_position", "POSE"))
    joints, pixels = clip.joints, clip.projector.pixels
    size = np.linalg.norm(np.ptp(joints.reshape(-1, 3), axis=0))
    still = np.abs(joints - joints[0]).max() <= 1e-5 * max(size, 1e-9)
    fixed = np.abs(pixels - pixels[0]).max() <= 1e-5 * np.abs(pixels[0]).max()
    if len(joints) < 2 or not (still and fixed) or resting:
        return
    first, last = clip.scene_frame(0), clip.scene_frame(len(joints) - 1)
    if clip.bones_move:
        yield Finding(
            say(
                "Bones move from frame {first} to {last}, but no joint of the limbs that are drawn does, "
                "and what turns in place does not show in a pose; set other bones to Draw.",
                first=first,
                last=last,
            )
        )
    else:
        yield Finding(
            say(
                "Nothing moves from frame {first} to {last}; is the animation elsewhere, muted or on another "
                "armature?",
                first=first,
                last=last,
            )
        )


def _coverage(clip: Reviewed) -> Iterator[Finding]:
    maps, pose = clip.part_maps, clip.pose
    if maps is None:
        return
    cells = maps > 0
    # A stroke may run along the edge of its flesh: the cells beside count too.
    grown = cells.copy()
    for axis in (1, 2):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    height, width = maps.shape[1:]
    points, frames = _along(pose)
    inside = ((points >= 0) & (points < (pose.width, pose.height))).all(axis=1)
    column, row = (points[inside] * (width / pose.width, height / pose.height)).astype(int).T
    frames = frames[inside]
    told, seen = np.bincount(frames, minlength=pose.num_frames), grown[frames, row, column]
    with np.errstate(invalid="ignore"):
        shares = np.bincount(frames, seen, pose.num_frames) / np.where(told > 0, told, np.nan)
    bad = np.flatnonzero((shares < HIDDEN) & ~clip.small)
    if not len(bad):
        return
    if bad[0] == 0:
        yield Finding(
            say(
                "The subject's mesh covers only {share:.0%} of its limbs in the first frame: something "
                "stands in front of it, or it is not bound to this armature.",
                share=shares[0],
            )
        )
    else:
        yield Finding(
            say(
                "The subject is hardly seen in {count} of {total} frames, from frame {frame} on: something "
                "stands in front of it, or its mesh is hidden.",
                count=len(bad),
                total=pose.num_frames,
                frame=clip.scene_frame(bad[0]),
            )
        )


def _along(pose: PoseSequence) -> tuple[np.ndarray, np.ndarray]:
    """[n, 2] points along all polylines, eight a segment, and [n] the frames they are in."""
    polyline = np.repeat(np.arange(len(pose.lengths)), pose.lengths)
    frame = np.repeat(np.arange(pose.num_frames), np.diff(pose.offsets))
    begins = np.flatnonzero(polyline[1:] == polyline[:-1])
    start, end = pose.points[begins, :2], pose.points[begins + 1, :2]
    shares = np.linspace(0, 1, 8)[:, None, None]
    return (start + (end - start) * shares).reshape(-1, 2), np.tile(frame[polyline[begins]], 8)


def _fingers(clip: Reviewed) -> Iterator[Finding]:
    for subject in clip.subjects:
        if subject.choice.unsent > FINGERS:
            yield Finding(
                say(
                    "Fingers and toes of {armature} move {share:.1%} of the picture but are not drawn.",
                    armature=subject.armature.name,
                    share=subject.choice.unsent,
                ),
                "poseanything.draw_digits",
                "Draw Them",
                (("armature", subject.armature.name),),
            )


def _faces(clip: Reviewed) -> Iterator[Finding]:
    for subject in clip.subjects:
        if subject.choice.unsent_face > FACE:
            sentence = say(
                "Face, hair and cloth of {armature} move {share:.1%} of the picture but are not drawn.",
                armature=subject.armature.name,
                share=subject.choice.unsent_face,
            )
            yield Finding(sentence, *_setting_of(subject.armature, "Draw Them", "poseanything.face", True))


def _setting_of(armature: bpy.types.Object, label: str, path: str, value: object) -> Button:
    """A button that sets a property of an armature, or makes that possible."""
    if armature.data.library:
        return override_armature(armature.name)
    return sets_of(label, "armatures", armature.data.name, path, value)


def _labels(clip: Reviewed) -> Iterator[Finding]:
    fewer = [subject for subject in clip.subjects if subject.choice.left_out]
    count = sum(subject.choice.left_out for subject in fewer)
    if len(clip.subjects) == 1 and fewer:
        yield Finding(
            say(
                "{armature} has more limbs than the {most} that can be drawn: {count} that move little of "
                "the picture are left out; set the bones that matter to Draw.",
                armature=fewer[0].armature.name,
                most=MAX_LIMBS,
                count=count,
            )
        )
    elif fewer:
        most = max(fewer, key=lambda subject: subject.choice.left_out)
        yield Finding(
            say(
                "The armatures have more limbs together than the {most} that can be drawn: {count} that "
                "move little of the picture are left out, {share} of them of {armature}; set the bones that "
                "matter to Draw, or choose fewer armatures.",
                most=MAX_LIMBS,
                count=count,
                share=most.choice.left_out,
                armature=most.armature.name,
            )
        )


# What the scene and the settings tell without an export


def review_keys(settings, planned: ClipRange, pose_frames: tuple[int, ...] | None) -> Iterator[Finding]:
    """Whether poses at some frames alone are what the user may expect of them."""
    times, count = planned.times, planned.num_frames
    if settings.pose_source == "VIDEO" or pose_frames is None or count < 3:
        return
    keyed = settings.pose_density == "KEYS"
    every = ("wm.context_set_enum", "Every n-th Frame", _density("NTH"))
    if keyed and len(pose_frames) >= BAKED * count:
        yield Finding(
            say(
                "The subject is keyed on {keyed} of {count} frames (baked), so Keyframes sends as many "
                "poses as Every Frame.",
                keyed=len(pose_frames),
                count=count,
            ),
            *every,
        )
    elif len(pose_frames) <= 2:
        span = {"first": times.start, "last": times.at(count - 1)}
        yield Finding(
            say(
                "No keyframe lies between frame {first:g} and {last:g}, so only the first and the last "
                "pose are sent and what happens between them is lost.",
                **span,
            )
            if keyed
            else say(
                "No pose is sent between frame {first:g} and {last:g}, so what happens there is lost.",
                **span,
            ),
            "wm.context_set_enum",
            "Every Frame",
            _density("ALL"),
        )


def sentences(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What the findings say."""
    return tuple(finding.sentence for finding in findings)


def _density(value: str) -> tuple[tuple[str, object], ...]:
    return (("data_path", "scene.poseanything.pose_density"), ("value", value))
