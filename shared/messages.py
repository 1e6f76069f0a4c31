"""Every message of the bridge: `CLIENT_MESSAGES` to the server, `SERVER_MESSAGES` from it.

Sizes are in pixels, times in seconds, colours sRGB, images top row first. A frame index counts from 0 at the
clip's start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import check_path
from .engines import EngineDescription, Guidance
from .pose import MAX_FRAMES, MAX_SIDE, PoseSequence
from .schema import (
    Array,
    Blob,
    Checked,
    Choice,
    Flag,
    Integer,
    Line,
    Many,
    MessageError,
    Number,
    Optional,
    Options,
    Prose,
    Struct,
    Text,
    declare,
)

PROTOCOL_VERSION = 2

MAX_PIXELS = 2048 * 2048
MAX_CLIP_PIXELS = MAX_FRAMES * 1280 * 720
MAX_PICTURE_BYTES = 64 << 20
MAX_FILMED_FRAMES = 512
MAX_FILMED_PIXELS = MAX_FILMED_FRAMES * 640 * 384
MAX_FILMED_BYTES = 48 << 20
SKELETONS = ("carried", "medial")

PIECE_BYTES = 64 << 10
"""A message to the server that is larger goes in pieces."""
FORMATS = ("png", "jpeg", "raw")
CODES = ("invalid", "version", "engine", "memory", "worker", "full", "unknown", "elsewhere", "internal")
"""Why something failed; "elsewhere": it has not, another program of the user's goes on with it."""
MAX_LISTED = 1000
FLOW_STEPS = 4
"""Steps of a pixel that surface flow is told in."""
LIGHT_STEPS = 8
"""Steps of light maps from some light to twice as much."""
NO_FLOW = -32768
"""The surface flow of places where no subject is seen."""

JobId = Text(64, 1)
"""A job's id, chosen by the client; unique among its own jobs."""


@dataclass(frozen=True, eq=False)
class Backdrop(Checked):
    """Which places of the scene without its subjects are of one material.

    labels: [h, w] uint8, the same number, 1 or more, where the same material is; 0 where that is not known.
    cell: the side of the square that each label is for, in pixels of the first frame.
    left, top: where the first one begins, in such squares; negative beyond the first frame.
    """

    labels: np.ndarray = declare(Array("uint8", (None, None), MAX_PIXELS // 16, compress=True))
    cell: int = declare(Integer(4, 256))
    left: int = declare(Integer(-MAX_SIDE, MAX_SIDE), 0)
    top: int = declare(Integer(-MAX_SIDE, MAX_SIDE), 0)

    def validate(self):
        if not self.labels.size:
            raise MessageError("The backdrop has no places; export it again or leave it out.")
        if self.labels.size * self.cell**2 > 16 * MAX_PIXELS:
            raise MessageError("The backdrop is too large; export the request again.")


@dataclass(frozen=True, eq=False)
class GenerationRequest(Checked):
    """Everything an engine needs to make one clip.

    first_frame: PNG file, exactly `width` x `height`.
    first_frame_in_pose: whether it was made of what the first pose is of, so that it shows the subject just
        where that and the maps say. Where that is not known, as of a painted picture, it has to be looked at.
    pose: polylines of all `num_frames` frames; its canvas may have another size and is scaled to the clip's.
    pose_frames: the frames whose pose conditions the clip (paper section F); None means all. The others have
        no pose image.
    subject_mask: [height, width] uint8, 1 on the subject in the first frame, 0 elsewhere.
    first_labels: [height, width] uint8, limb index + 1 of the limb that owns each pixel of the first frame, 0
        elsewhere.
    part_maps: [num_frames, h, w] uint8, the same labels for every frame at any smaller size (1/8 or 1/32 of
        the clip's).
    shadow_maps: [num_frames, h, w] uint8, how much the subject's shadows hold back from each place in every
        frame of the light that all lights which cast shadows would throw there together, from 0 to 255 for
        all of it, at any smaller size.
    surface_flow: [num_frames, 2, h, w] int16, for the middle of each place where the subject is seen the way
        (x, y) to where the first frame shows the same surface, or, where it hides that, the surface most like
        it: in `FLOW_STEPS` to a pixel, at any smaller size (1/4 of the clip's). `NO_FLOW` elsewhere.
    light_maps: [num_frames, h, w] uint8, how much light falls on the surface that is seen at each place of
        the flow: `LIGHT_STEPS` more for twice as much, 0 where no subject is seen.
    backdrop: what lies behind the subject and beyond the first frame.
    camera_motion: [num_frames, 3, 3] float32 homographies, from pixels of the first frame to pixels of frame
        i, that the static background follows; the first is the identity.
    frame_format: how result frames travel: "png" (lossless file, ready to write), "jpeg" or "raw" (RGB,
        height x width x 3).
    preview_interval: seconds between preview images at most, 0 for none.
    engine_options: what only this engine understands, see `EngineDescription.options`.
    """

    job: str = declare(JobId)
    engine: str = declare(Text(64, 1), label="The engine's name")
    width: int = declare(Integer(32, MAX_SIDE, step=2), label="The clip's width")
    height: int = declare(Integer(32, MAX_SIDE, step=2), label="The clip's height")
    num_frames: int = declare(Integer(1, MAX_FRAMES), label="The number of frames")
    fps: float = declare(Number(0.01, 1000), label="The frame rate")
    first_frame: bytes = declare(Blob(MAX_PICTURE_BYTES), label="The first frame")
    pose: PoseSequence = declare(Struct(PoseSequence))
    prompt: str = declare(Text(8192), "", label="The prompt")
    negative_prompt: str = declare(Text(8192), "", label="The negative prompt")
    seed: int = declare(Integer(0, 2**63 - 1), 0, label="The seed")
    num_inference_steps: int = declare(Integer(1, 1000), 50, label="The number of steps")
    guidance: Guidance = declare(Struct(Guidance), default_factory=Guidance)
    pose_frames: tuple[int, ...] | None = declare(
        Optional(Many(Integer(0, MAX_FRAMES - 1), MAX_FRAMES)), None
    )
    subject_mask: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None), MAX_PIXELS, compress=True)), None
    )
    first_labels: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None), MAX_PIXELS, compress=True)), None
    )
    first_frame_in_pose: bool = declare(Flag(), False)
    part_maps: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None, None), MAX_CLIP_PIXELS // 16, compress=True)), None
    )
    shadow_maps: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None, None), MAX_CLIP_PIXELS // 12, compress=True)), None
    )
    surface_flow: np.ndarray | None = declare(
        Optional(Array("int16", (None, 2, None, None), MAX_CLIP_PIXELS // 6, compress=True)), None
    )
    light_maps: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None, None), MAX_CLIP_PIXELS // 12, compress=True)), None
    )
    backdrop: Backdrop | None = declare(Optional(Struct(Backdrop)), None)
    camera_motion: np.ndarray | None = declare(
        Optional(Array("float32", (None, 3, 3), MAX_FRAMES * 9, finite_within=1e9)), None
    )
    frame_format: str = declare(Choice(FORMATS), "png")
    preview_interval: float = declare(Number(0, 3600), 2.0)
    engine_options: dict = declare(Options(), default_factory=dict)

    def validate(self):
        self._check_size()
        self._check_poses()
        self._check_maps()
        if self.camera_motion is not None:
            check_path(self.camera_motion)

    def _check_size(self) -> None:
        if (
            self.height * self.width > MAX_PIXELS
            or self.num_frames * self.height * self.width > MAX_CLIP_PIXELS
        ):
            raise MessageError(
                "A clip of {num_frames} frames at {width} x {height} is too large; "
                "choose a smaller size or fewer frames.",
                num_frames=self.num_frames,
                width=self.width,
                height=self.height,
            )
        found = png_size(self.first_frame)
        if found is None:
            raise MessageError("The first frame is not a PNG picture; choose another picture.")
        if found != (self.width, self.height):
            raise MessageError(
                "The first frame is {found_width} x {found_height} pixels but the clip is {width} x "
                "{height}; fit the picture to the clip's size.",
                found_width=found[0],
                found_height=found[1],
                width=self.width,
                height=self.height,
            )

    def _check_poses(self) -> None:
        if self.pose.num_frames != self.num_frames:
            raise MessageError(
                "The pose has {found} frames but the clip has {num_frames}; export the pose again.",
                found=self.pose.num_frames,
                num_frames=self.num_frames,
            )
        if self.pose_frames is not None:
            if not self.pose_frames or max(self.pose_frames) >= self.num_frames:
                raise MessageError(
                    "Name at least one frame that carries a pose, and none beyond the clip's end."
                )
            if list(self.pose_frames) != sorted(set(self.pose_frames)):
                raise MessageError(
                    "The frames that carry a pose must be in ascending order, each named once."
                )

    def _check_maps(self) -> None:
        size = (self.height, self.width)
        for name in ("subject_mask", "first_labels"):
            plane = getattr(self, name)
            if plane is not None and plane.shape != size:
                raise MessageError(
                    "{name} is {found_width} x {found_height} but the clip is {width} x "
                    "{height}; export the request again.",
                    name=name,
                    found_width=plane.shape[1],
                    found_height=plane.shape[0],
                    width=self.width,
                    height=self.height,
                )
        for labels in (self.first_labels, self.part_maps):
            if labels is not None and labels.size and int(labels.max()) > len(self.pose.limbs):
                raise MessageError(
                    "A part map names a limb that the pose does not have; export the pose again."
                )
        for name in ("part_maps", "shadow_maps", "surface_flow", "light_maps", "camera_motion"):
            stack = getattr(self, name)
            if stack is not None and len(stack) != self.num_frames:
                raise MessageError(
                    "{name} has {count} frames but the clip has {num_frames}; export the request again.",
                    name=name,
                    count=len(stack),
                    num_frames=self.num_frames,
                )
            if stack is not None and not stack.size:
                raise MessageError("{name} has no pixels; export it again or leave it out.", name=name)

    def conditioned_frames(self) -> tuple[int, ...]:
        """The indices of the frames that carry a pose."""
        return tuple(range(self.num_frames)) if self.pose_frames is None else self.pose_frames


@dataclass(frozen=True, eq=False)
class PoseRequest(Checked):
    """Asks for the poses of a filmed subject, or, of a single picture, for the subject's mask alone.

    It is a job as a `GenerationRequest` is: queued, told of by `Progress`, ended by `Cancel`, taken up again
    by `Resume`. Its result is its last message, `FoundPoses`.

    frames: PNG or JPEG files one after the other, all of `width` x `height`; `lengths` [F] are their bytes.
    box: (left, top, right, bottom) around the subject in the first frame, as fractions of width and height.
    points, background: [N, 2] fractions: places on the subject, and beside it.
    mask: [height, width] uint8, 1 on the subject in the first frame. Without any of these the subject is what
        moves.
    text: what the subject is, such as "horse", for finders that know words.
    skeleton: "carried" is the first frame's, carried along: the same limbs in every frame. "medial" is each
        frame's own, whose limbs are matched, and come and go.
    """

    job: str = declare(JobId)
    width: int = declare(Integer(16, MAX_SIDE), label="The video's width")
    height: int = declare(Integer(16, MAX_SIDE), label="The video's height")
    fps: float = declare(Number(0.01, 1000), label="The frame rate")
    lengths: np.ndarray = declare(Array("int32", (None,), MAX_FILMED_FRAMES), label="The number of frames")
    frames: bytes | memoryview = declare(Blob(MAX_FILMED_BYTES), label="The video")
    skeleton: str = declare(Choice(SKELETONS), "carried")
    box: np.ndarray | None = declare(Optional(Array("float32", (4,), 4, finite_within=1)), None)
    points: np.ndarray = declare(
        Array("float32", (None, 2), 128, finite_within=1),
        default_factory=lambda: np.zeros((0, 2), np.float32),
    )
    background: np.ndarray = declare(
        Array("float32", (None, 2), 128, finite_within=1),
        default_factory=lambda: np.zeros((0, 2), np.float32),
    )
    mask: np.ndarray | None = declare(
        Optional(Array("uint8", (None, None), MAX_PIXELS, compress=True)), None, label="The subject's mask"
    )
    text: str = declare(Line(256), "")

    def validate(self):
        if not self.lengths.size or (self.lengths < 1).any():
            raise MessageError("The video has no frames; choose another part of it.")
        if int(self.lengths.sum(dtype=np.int64)) != memoryview(self.frames).nbytes:
            raise MessageError("The video's frames do not cover its bytes; send it again.")
        pixels = self.width * self.height
        if pixels > MAX_PIXELS or len(self.lengths) * pixels > MAX_FILMED_PIXELS:
            raise MessageError(
                "{count} frames at {width} x {height} are too many to look for poses "
                "in; choose a shorter part of the video.",
                count=len(self.lengths),
                width=self.width,
                height=self.height,
            )
        places = [values for values in (self.box, self.points, self.background) if values is not None]
        if any((values < 0).any() for values in places):
            raise MessageError("The subject's place lies outside of the picture; point at it again.")
        if self.mask is not None and self.mask.shape != (self.height, self.width):
            raise MessageError("The subject's mask has another size than the video; send it again.")
        if self.box is not None and (self.box[:2] >= self.box[2:]).any():
            raise MessageError("The box around the subject is empty; draw it again.")
        if len(self.lengths) == 1 and self.box is None and not len(self.points):
            raise MessageError("Nothing moves in a single picture; point at the subject.")


@dataclass(frozen=True)
class Hello(Checked):
    """Opens a connection and, repeated, keeps it: the server answers each with `Welcome`."""

    client: str = declare(Line(128), "")
    client_version: str = declare(Line(64), "")


@dataclass(frozen=True)
class Cancel(Checked):
    """End a job, waiting or running, and drop one that has ended. Answered with `Cancelled`, or with
    `Forgotten` where it ended before, or is not there."""

    job: str = declare(JobId)


@dataclass(frozen=True)
class Resume(Checked):
    """Go on with a job after the connection broke, or a program was started again: the first `have` frames
    are there. Answered with `Accepted`, the frames after them and how it ended, or with `Failed` of the code
    "unknown" where the server has no such job: the request may be sent again under its name.
    """

    job: str = declare(JobId)
    have: int = declare(Integer(0, MAX_FRAMES))


@dataclass(frozen=True)
class Received(Checked):
    """All of a job has arrived, its ending too: the server may forget it. Answered as `Cancel` is."""

    job: str = declare(JobId)


@dataclass(frozen=True, eq=False)
class LiveOpen(Checked):
    """Open a live session: from then on each `LivePose` is answered by a picture, the latest first.

    The request says what a clip's would: its first frame, labels, engine and how pictures travel. The pose of
    its first frame lies over that picture; what other frames it has only show how the subject moves. Its job
    and everything about the clip's length mean nothing. Answered with `LiveReady` or `LiveEnded`.
    """

    session: str = declare(JobId)
    request: GenerationRequest = declare(Struct(GenerationRequest))


@dataclass(frozen=True, eq=False)
class LivePose(Checked):
    """Draw a pose; one that has not been begun when the next comes is never drawn.

    number: higher than those before it.
    pose: a single frame of the limbs that the session was opened with.
    camera_motion: [3, 3] float32 as in `GenerationRequest`; None is where the camera stood at the opening.
    """

    session: str = declare(JobId)
    number: int = declare(Integer(0, 2**53))
    pose: PoseSequence = declare(Struct(PoseSequence))
    camera_motion: np.ndarray | None = declare(Optional(Array("float32", (3, 3), 9, finite_within=1e9)), None)

    def validate(self):
        if self.pose.num_frames != 1:
            raise MessageError("A live pose is a single frame, not {found}.", found=self.pose.num_frames)
        if self.camera_motion is not None:
            check_path(np.stack([np.eye(3, dtype=np.float32), self.camera_motion]))


@dataclass(frozen=True)
class LiveClose(Checked):
    """No more of a live session is wanted. It is not answered."""

    session: str = declare(JobId)


@dataclass(frozen=True)
class StatusRequest(Checked):
    """Asks how the server is. Answered with `Status`, which lists `most` jobs at most."""

    most: int = declare(Integer(0, MAX_LISTED), MAX_LISTED)


@dataclass(frozen=True)
class FrameRequest(Checked):
    """Asks for one frame of a job, without changing what is sent of it by itself. Answered with that `Frame`,
    or with `Failed` of the code "unknown" where the server does not have it (yet)."""

    job: str = declare(JobId)
    index: int = declare(Integer(0, MAX_FRAMES - 1))


@dataclass(frozen=True)
class PoseFinderDescription(Checked):
    """What finds poses in videos: whether it can be used, if not, why, and else what by and what that is
    worth."""

    ready: bool = declare(Flag(), True)
    reason: str = declare(Prose(1024), "")
    note: str = declare(Prose(1024), "")


JOB_STATES = ("waiting", "running", "done", "failed")


@dataclass(frozen=True)
class JobStatus(Checked):
    """A job that the server has. `job` and `prompt` are empty where it is another user's.

    user: the name of whose it is.
    frames: how many are kept, of `num_frames` (0 where that is not known).
    position: how many jobs come before it, where it waits.
    submitted: seconds since 1970.
    note: what its last message says.
    """

    job: str = declare(Text(64))
    user: str = declare(Line(128))
    engine: str = declare(Line(64))
    state: str = declare(Choice(JOB_STATES))
    frames: int = declare(Integer(0, MAX_FRAMES))
    num_frames: int = declare(Integer(0, MAX_FRAMES), 0)
    width: int = declare(Integer(0, MAX_SIDE), 0)
    height: int = declare(Integer(0, MAX_SIDE), 0)
    fps: float = declare(Number(0, 1000), 0.0)
    prompt: str = declare(Line(128), "")
    position: int = declare(Integer(0, 1_000_000), 0)
    submitted: float = declare(Number(0, 1e12), 0.0)
    note: str = declare(Prose(256), "")


@dataclass(frozen=True)
class WorkerStatus(Checked):
    """A place where clips are made, such as a card.

    state: "starting" also while its process can't be started.
    job, stage, step, total: what it does; `job` is empty where that is another user's.
    memory: bytes of the host's that its process holds; card_used, card_total: bytes of its card's, 0 while it
        uses none.
    """

    name: str = declare(Line(64))
    device: str = declare(Line(256))
    state: str = declare(Choice(("starting", "idle", "running")))
    user: str = declare(Line(128), "")
    job: str = declare(Text(64), "")
    stage: str = declare(Line(64), "")
    step: int = declare(Integer(0, 10_000_000), 0)
    total: int = declare(Integer(0, 10_000_000), 0)
    memory: int = declare(Integer(0, 2**53), 0)
    card_used: int = declare(Integer(0, 2**53), 0)
    card_total: int = declare(Integer(0, 2**53), 0)


@dataclass(frozen=True)
class Welcome(Checked):
    """Who answers, which engines it has, what they run on and how busy it is; `workers` as in `Status`.
    `pose_finder` is None where it takes no `PoseRequest`."""

    server_version: str = declare(Line(64))
    engines: tuple[EngineDescription, ...] = declare(Many(Struct(EngineDescription), 32))
    device: str = declare(Line(256), "")
    jobs: int = declare(Integer(0, 1_000_000), 0)
    pose_finder: PoseFinderDescription | None = declare(Optional(Struct(PoseFinderDescription)), None)
    workers: tuple[WorkerStatus, ...] = declare(Many(Struct(WorkerStatus), 256), ())


@dataclass(frozen=True)
class UserStatus(Checked):
    """Who is connected, or has jobs. `silent`: seconds since anything was heard, None where not connected."""

    user: str = declare(Line(128))
    jobs: int = declare(Integer(0, 1_000_000))
    silent: float | None = declare(Optional(Number(0, 1e9)), None)


@dataclass(frozen=True)
class Status(Checked):
    """How the server is.

    jobs: the oldest first, those that wait in the order of their turns; at most as many as were asked for.
    more: how many jobs are left out.
    kept, quota: bytes of jobs on its disk, and the most that it may keep.
    """

    server_version: str = declare(Text(64))
    jobs: tuple[JobStatus, ...] = declare(Many(Struct(JobStatus), MAX_LISTED))
    workers: tuple[WorkerStatus, ...] = declare(Many(Struct(WorkerStatus), 256))
    users: tuple[UserStatus, ...] = declare(Many(Struct(UserStatus), MAX_LISTED))
    more: int = declare(Integer(0, 1_000_000), 0)
    kept: int = declare(Integer(0, 2**53), 0)
    quota: int = declare(Integer(0, 2**53), 0)


@dataclass(frozen=True)
class Accepted(Checked):
    """The request is valid and in the queue, on the server's disk: from now on only `Cancel` ends it
    early."""

    job: str = declare(JobId)


@dataclass(frozen=True)
class Queued(Checked):
    """`position` jobs come before this one; sent again whenever it changes."""

    job: str = declare(JobId)
    position: int = declare(Integer(0, 1_000_000))


@dataclass(frozen=True)
class Progress(Checked):
    """Step `step` of `total` in `stage` ("loading", "encoding", "denoising", "decoding", "drawing", ...) is
    done."""

    job: str = declare(JobId)
    stage: str = declare(Line(64))
    step: int = declare(Integer(0, 10_000_000))
    total: int = declare(Integer(0, 10_000_000))
    seconds_left: float | None = declare(Optional(Number(0, 1e9)), None)
    note: str = declare(Prose(1024), "")


@dataclass(frozen=True, eq=False)
class Preview(Checked):
    """A rough picture of frame `index` while the clip is generated: RGB uint8 [h, w, 3], small."""

    job: str = declare(JobId)
    index: int = declare(Integer(0, MAX_FRAMES - 1))
    image: np.ndarray = declare(Array("uint8", (None, None, 3), 3 * 1024 * 1024))

    def validate(self):
        if not self.image.size:
            raise MessageError("The preview has no pixels.")


@dataclass(frozen=True, eq=False)
class Frame(Checked):
    """A finished frame in the format that was asked for; frames arrive in order, each once."""

    job: str = declare(JobId)
    index: int = declare(Integer(0, MAX_FRAMES - 1))
    width: int = declare(Integer(1, MAX_SIDE))
    height: int = declare(Integer(1, MAX_SIDE))
    format: str = declare(Choice(FORMATS))
    data: bytes | memoryview = declare(Blob(3 * MAX_PIXELS + 65536))

    def validate(self):
        _check_raw(self)


@dataclass(frozen=True)
class Done(Checked):
    """All frames have been sent. `note` says what the engine wants known (precision chosen, guidance left
    out, ...)."""

    job: str = declare(JobId)
    num_frames: int = declare(Integer(0, MAX_FRAMES))
    seconds: float = declare(Number(0, 1e9))
    note: str = declare(Prose(1024), "")


@dataclass(frozen=True, eq=False)
class FoundPoses(Checked):
    """What a `PoseRequest` asked for; nothing more of it follows.

    pose: on a canvas of the video's size, its limbs followed over time. A single picture's has no limbs.
    mask: [height, width] uint8, 1 on the subject in the first frame, 0 elsewhere.
    masks: [F, h, w] uint8, the same for every frame at a smaller size (1/8); a frame without the subject is
        all 0.
    note: what the user should know of how it was found.
    """

    job: str = declare(JobId)
    pose: PoseSequence = declare(Struct(PoseSequence))
    mask: np.ndarray = declare(Array("uint8", (None, None), MAX_PIXELS, compress=True))
    masks: np.ndarray = declare(Array("uint8", (None, None, None), MAX_FILMED_PIXELS // 16, compress=True))
    seconds: float = declare(Number(0, 1e9), 0.0)
    note: str = declare(Prose(1024), "")

    def validate(self):
        if self.mask.shape != (self.pose.height, self.pose.width):
            raise MessageError("The subject's mask has another size than its poses; look for them again.")
        if len(self.masks) != self.pose.num_frames or not self.masks.size:
            raise MessageError("The poses have other frames than their masks; look for them again.")


@dataclass(frozen=True)
class Failed(Checked):
    """The job, or with an empty `job` the message itself, could not be served: what is wrong, and what to
    do."""

    job: str = declare(Text(64), "")
    code: str = declare(Choice(CODES), "internal")
    message: str = declare(Prose(2048), "")


@dataclass(frozen=True)
class Cancelled(Checked):
    """The job ended because the client asked; no more of it follows, and nothing of it is kept."""

    job: str = declare(JobId)


@dataclass(frozen=True)
class Forgotten(Checked):
    """The server keeps nothing of a job (any more)."""

    job: str = declare(JobId)


@dataclass(frozen=True)
class LiveReady(Checked):
    """All that a live session's pictures are drawn from is prepared. `note` is the engine's."""

    session: str = declare(JobId)
    note: str = declare(Prose(1024), "")


@dataclass(frozen=True, eq=False)
class LivePicture(Checked):
    """The picture of the pose `number`; those before it that have none get none. It took `seconds` to
    draw."""

    session: str = declare(JobId)
    number: int = declare(Integer(0, 2**53))
    width: int = declare(Integer(1, MAX_SIDE))
    height: int = declare(Integer(1, MAX_SIDE))
    format: str = declare(Choice(FORMATS))
    data: bytes | memoryview = declare(Blob(3 * MAX_PIXELS + 65536))
    seconds: float = declare(Number(0, 1e9), 0.0)

    def validate(self):
        _check_raw(self)


@dataclass(frozen=True)
class LiveEnded(Checked):
    """A live session can't be opened, or has ended: why, and what to do."""

    session: str = declare(JobId)
    code: str = declare(Choice(CODES), "internal")
    message: str = declare(Prose(2048), "")


@dataclass(frozen=True, eq=False)
class Piece(Checked):
    """`data` is what stands from `offset` on in a stream of `total` bytes: a message that is too large to be
    sent at once (see `shared.pieces`)."""

    stream: int = declare(Integer(0, 2**53))
    offset: int = declare(Integer(0, 2**40))
    total: int = declare(Integer(1, 2**40))
    data: bytes | memoryview = declare(Blob(PIECE_BYTES))


@dataclass(frozen=True)
class More(Checked):
    """The server wants a stream's bytes up to `upto`."""

    stream: int = declare(Integer(0, 2**53))
    upto: int = declare(Integer(0, 2**40))


CLIENT_MESSAGES = (
    Hello,
    GenerationRequest,
    PoseRequest,
    Cancel,
    Resume,
    Received,
    StatusRequest,
    FrameRequest,
    LiveOpen,
    LivePose,
    LiveClose,
    Piece,
)
LIVE_ANSWERS = (LiveReady, LivePicture, LiveEnded)
SERVER_MESSAGES = (
    Welcome,
    Accepted,
    Queued,
    Progress,
    Preview,
    Frame,
    Done,
    FoundPoses,
    Failed,
    Cancelled,
    Forgotten,
    Status,
    *LIVE_ANSWERS,
    More,
)
JOBS = (GenerationRequest, PoseRequest)
"""What is queued and worked at."""
ENDINGS = (Done, FoundPoses, Failed, Cancelled)
"""After one of these nothing more of a job follows."""


def _check_raw(frame: Frame | LivePicture) -> None:
    if frame.format == "raw" and memoryview(frame.data).nbytes != 3 * frame.width * frame.height:
        raise MessageError("A raw frame does not hold as many bytes as its size needs.")


def png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) from a PNG's header, None when it is not one."""
    head = bytes(memoryview(data)[:24])
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
