"""Poses from a video: choose a strip, point at its subject, have the server look for its poses. And the
subject of a picture that a clip begins with, found in the same way."""

from __future__ import annotations

import math
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import bpy
import numpy as np
from bpy.app.handlers import persistent
from bpy.props import BoolProperty, EnumProperty, StringProperty

from .. import session
from ..buttons import OPEN_VIDEO, PICK_IN_PICTURE
from ..connection.goodbyes import Goodbyes
from ..connection.jobs import DONE, LEFT, PoseSearch
from ..errors import ExportError
from ..ground_truth.filmed import film
from ..ground_truth.first_frame import read_picture
from ..ground_truth.png import encode_png
from ..request import kept_poses
from ..request.export import ExportStep, under_step
from ..request.first_frame import film_frame
from ..request.kept_poses import Asked, KeptPoses, Source
from ..request.range import clip_range
from ..request.video import laid_over, picture_mask
from ..request.video_time import poses_of, shown_index
from ..sequencer import footage, strips
from ..sequencer.edit_scene import target_scene
from ..sequencer.footage import Clock
from ..shared.messages import MAX_FILMED_BYTES, MAX_FILMED_FRAMES, MAX_FILMED_PIXELS, PoseRequest
from ..texts import say
from ..texts.translation import shown, tell
from ..times import frame_rate
from .refusal import refuse
from .serving import await_server
from .stepped import SteppedOperator

LONGEST = 640
"""Pixels of a frame's longer side, in which poses are looked for."""


# --- which video


def use_strip(context, strip: bpy.types.Strip) -> None:
    """Take the poses of a strip from now on."""
    settings, video = context.scene.poseanything, context.scene.poseanything_video
    identity = footage.mark(strip)
    if video.strip != identity:
        video.property_unset("pick")
    video.strip = identity
    settings.pose_source = "VIDEO"
    if settings.first_frame_source == "RENDER":
        settings.first_frame_source = "VIDEO"


class POSEANYTHING_OT_open_video(bpy.types.Operator):
    bl_idname = "poseanything.open_video"
    bl_label = "Open Video"
    bl_description = "Lay a video onto the sequencer, and take poses from it"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_movie: BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        scene = context.scene
        edit = target_scene(context, scene.poseanything.strips_go_to)
        frame = round(scene.frame_start * frame_rate(edit) / frame_rate(scene))
        try:
            strip = footage.add_movie(edit, self.filepath, frame)
        except RuntimeError as error:
            self.report(
                {"ERROR"}, tell("The video can't be opened: {reason}.", reason=str(error).strip().rstrip("."))
            )
            return {"CANCELLED"}
        if not all(footage.size_of(strip)):
            strips.strips_of(edit).remove(strip)
            self.report(
                {"ERROR"},
                tell(
                    "{path} has no picture, or can't be read as a video; choose another.", path=self.filepath
                ),
            )
            return {"CANCELLED"}
        use_strip(context, strip)
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


class POSEANYTHING_OT_use_active_strip(bpy.types.Operator):
    bl_idname = "poseanything.use_active_strip"
    bl_label = "Use Active Strip"
    bl_description = "Take poses from the active strip of the sequencer: a movie, or pictures that move"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        editor = strips.sequencer_scene(context).sequence_editor
        strip = editor.active_strip if editor is not None else None
        if strip is None:
            cls.poll_message_set("Select a movie strip in the sequencer, or open a video")
        elif not footage.usable(strip):
            cls.poll_message_set(
                tell("{strip} shows no pictures that move; select a movie strip", strip=strip.name)
            )
        return footage.usable(strip)

    def execute(self, context):
        use_strip(context, footage.active_strip(context))
        return {"FINISHED"}


# --- pointing at the subject


def first_picture(context, of_picture: bool) -> np.ndarray:
    """[H, W, 3] uint8: what the user points at: the first frame that is used of the video, or the picture
    that the clip begins with. Raises `ExportError`."""
    scene = context.scene
    if of_picture:
        path = scene.poseanything.first_frame_path
        if scene.poseanything.first_frame_source != "PICTURE" or not path:
            raise ExportError("Choose the picture that the clip begins with, then point at its subject.")
        return read_picture(bpy.path.abspath(path))
    edit, strip = _video(scene)
    at = strips.span(strip)[0] * frame_rate(scene) / frame_rate(edit)
    path = first_file(scene)
    path.write_bytes(film_frame(scene, at))
    return read_picture(str(path))


def first_file(scene: bpy.types.Scene) -> Path:
    """Where the video's first frame lies once it was shown in this session."""
    return Path(bpy.app.tempdir, f"poseanything_{scene.poseanything_video.strip}.png")


def _video(scene: bpy.types.Scene) -> tuple[bpy.types.Scene, bpy.types.Strip]:
    """Raises `ExportError`."""
    found = footage.find(scene.poseanything_video.strip)
    if found is None:
        raise ExportError("Choose a video first: open one, or use the sequencer's active strip.", *OPEN_VIDEO)
    return found


def set_pick(scene: bpy.types.Scene, of_picture: bool, kind: str, at: tuple[float, ...]) -> None:
    """Keep where the subject is: `kind` and `at` are as the settings have them."""
    video, prefix = scene.poseanything_video, "picture_" if of_picture else ""
    setattr(video, f"{prefix}pick", kind)
    setattr(video, f"{prefix}place", (*at, 0.0, 0.0)[:4])


# --- looking for it


def find_poses(context, of_picture: bool = False) -> Generator[ExportStep, None, PoseSearch]:
    """Step by step: reach the server, read the frames, ask. Raises one of `stepped.BAD_INPUT`."""
    scene, current = context.scene, session.get()
    video = scene.poseanything_video
    frames = None if of_picture else _frames_of(scene)
    if of_picture:
        first_picture(context, True)
    yield from await_server(context)
    finder = current.bridge.pose_finder
    if finder is None or not finder.ready:
        reason = finder.reason if finder is not None else ""
        raise ExportError(reason or "This server can't find poses in videos; start one of this release.")
    files, size = [], (0, 0)
    if of_picture:
        files, size = yield from _picture_file(first_picture(context, True))
    else:
        first_picture(context, False)  # for what is drawn over the camera view
        edit, strip = _video(scene)
        longest = _longest(strip, len(frames))
        for data, width, height in film(edit, strip, frames, longest):
            files.append(data)
            size = width, height
            yield ExportStep(
                len(files) / len(frames),
                say("Reading frame {index} of {total}", index=len(files), total=len(frames)),
            )
    if sum(map(len, files)) > MAX_FILMED_BYTES:
        raise ExportError("The video's frames are too many bytes to be sent; trim the strip.")
    request = PoseRequest(
        job=uuid.uuid4().hex,
        width=size[0],
        height=size[1],
        fps=frame_rate(scene if of_picture else edit),
        lengths=np.array([len(file) for file in files], np.int32),
        frames=b"".join(files),
        skeleton=video.skeleton,
        **_places(video, of_picture),
    )
    search = current.bridge.find_poses(request)
    asked = str(Asked(search.id, current.bridge.account, _source(scene, of_picture)))
    setattr(video, "mask_search" if of_picture else "search", asked)
    return search


def _frames_of(scene: bpy.types.Scene) -> range:
    """The frames of the sequencer in which poses are looked for. Raises `ExportError`."""
    _, strip = _video(scene)
    first, end = strips.span(strip)
    if end - first < 2:
        raise ExportError(
            say("{strip} shows a single frame; lengthen it, or choose another.", strip=strip.name)
        )
    if end - first > MAX_FILMED_FRAMES:
        raise ExportError(
            say(
                "{strip} shows {count} frames, and at most {most} can be looked through; trim the strip.",
                strip=strip.name,
                count=end - first,
                most=MAX_FILMED_FRAMES,
            )
        )
    return range(first, end)


def _longest(strip: bpy.types.Strip, count: int) -> int:
    """Pixels of a frame's longer side, so that all frames can be looked through."""
    width, height = (max(side, 1) for side in footage.size_of(strip))
    pixels = MAX_FILMED_PIXELS / count / (min(width, height) / max(width, height))
    return min(LONGEST, math.isqrt(int(pixels)) - 1)


def _picture_file(pixels: np.ndarray) -> Iterator[ExportStep]:
    """A PNG file of a picture, made smaller where it is very large, and its size."""
    step = -(-max(pixels.shape[:2]) // 2048)
    pixels = np.ascontiguousarray(pixels[::step, ::step])
    packed = yield from under_step(ExportStep(0.5, say("Packing the picture")), encode_png(pixels))
    return [packed], (pixels.shape[1], pixels.shape[0])


def _places(video, of_picture: bool) -> dict[str, np.ndarray]:
    prefix = "picture_" if of_picture else ""
    kind, at = getattr(video, f"{prefix}pick"), np.array(getattr(video, f"{prefix}place"), np.float32)
    if kind == "BOX":
        return {"box": at}
    return {"points": at[None, :2]} if kind == "CLICK" else {}


# --- what was found


def collect(context) -> bool:
    """Put what searches have found where it belongs; returns whether there was anything."""
    done = [search for search in session.get().bridge.searches.values() if search.ended and not search.told]
    for search in done:
        search.told = True
        scene = _scene_of(search)
        if scene is not None:
            _keep(scene, search)
    if any(search.state == DONE for search in done):
        session.get().arrival.add_undo_step("Poses from Video")
    return bool(done)


def asked_for(scene: bpy.types.Scene, of_picture: bool = False) -> Asked | None:
    """What a scene waits for."""
    video = scene.poseanything_video
    return Asked.parse(video.mask_search if of_picture else video.search)


def _scene_of(search: PoseSearch) -> bpy.types.Scene | None:
    for scene in bpy.data.scenes:
        asked = asked_for(scene, search.of_picture)
        if asked is not None and asked.job == search.id:
            return scene
    return None  # the user has undone it, or asked for something else


def _keep(scene: bpy.types.Scene, search: PoseSearch) -> None:
    if search.state == LEFT:
        return
    video, asked = scene.poseanything_video, asked_for(scene, search.of_picture)
    waiting, holder = ("mask_search", "mask") if search.of_picture else ("search", "poses")
    setattr(video, waiting, "")
    if search.state != DONE:
        return
    name = "PoseAnything Subject" if search.of_picture else "PoseAnything Poses"
    old = getattr(video, holder)
    setattr(video, holder, kept_poses.write(name, KeptPoses(search.found, asked.source)))
    if old is not None and old.users == 0 and old.library is None:
        bpy.data.texts.remove(old)


def _source(scene: bpy.types.Scene, of_picture: bool) -> Source:
    if of_picture:
        return Source(picture=scene.poseanything.first_frame_path)
    _, strip = _video(scene)
    begin = strips.span(strip)[0] - strips.content_start(strip)
    return Source(float(begin), Clock.of(strip).keys)


def pick_up_searches(context) -> list[PoseSearch]:
    """Go on with searches of this file that another Blender, or this one, has left at the server."""
    bridge, picked = session.get().bridge, []
    for scene in bpy.data.scenes:
        for of_picture in (False, True):
            asked = asked_for(scene, of_picture)
            known = bridge.searches.get(asked.job) if asked is not None else None
            if asked is None or (known is not None and known.state != LEFT):
                continue
            if asked.job in Goodbyes(asked.account):  # cancelled since the file was saved
                continue
            if bridge.client is not None and asked.account == bridge.account:
                picked.append(bridge.adopt_search(asked.job, of_picture))
    return picked


class SearchOperator(SteppedOperator):
    """Base of those that look for a subject."""

    wait: BoolProperty(
        name="Wait",
        description="Return when it is found; for scripts",
        options={"HIDDEN", "SKIP_SAVE"},
    )
    of_picture = False

    @classmethod
    def poll(cls, context):
        if session.get().exporting is not None:
            cls.poll_message_set("Wait for the export to end")
            return False
        return True

    def steps(self, context):
        return find_poses(context, self.of_picture)

    def finish(self, context, search):
        current = session.get()
        current.cured(type(self).bl_idname)
        search.awaited = self.wait
        if not self.wait:
            return {"FINISHED"}
        current.wait_while(lambda: not search.ended)
        collect(context)
        if search.state != DONE:
            self.report({"ERROR"}, shown(search.sentence))
            return {"CANCELLED"}
        return {"FINISHED"}


class POSEANYTHING_OT_find_poses(SearchOperator, bpy.types.Operator):
    bl_idname = "poseanything.find_poses"
    bl_label = "Find Poses"
    bl_description = (
        "Have the server follow the subject through what the strip shows, and draw its skeleton in every "
        "frame. Blender stays usable; the result is kept in this file"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context):
        if footage.find(context.scene.poseanything_video.strip) is None:
            cls.poll_message_set("Choose a video first: open one, or use the sequencer's active strip")
            return False
        asked = asked_for(context.scene)
        if asked is not None and asked.job in {search.id for search in session.get().bridge.searching()}:
            cls.poll_message_set("Its poses are being looked for")
            return False
        return super().poll(context)


class POSEANYTHING_OT_find_subject(SearchOperator, bpy.types.Operator):
    bl_idname = "poseanything.find_subject"
    bl_label = "Find Subject"
    bl_description = (
        "Have the server cut out the subject that you pointed at in the picture that the clip begins with"
    )
    bl_options = {"REGISTER"}
    of_picture = True


class POSEANYTHING_OT_cancel_search(bpy.types.Operator):
    bl_idname = "poseanything.cancel_search"
    bl_label = "Cancel"
    bl_description = "Look no further for this; what was found before is kept"
    bl_options = {"INTERNAL"}

    job: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context):
        current = session.get()
        for search in current.bridge.searching():
            if self.job in ("", search.id):
                current.bridge.cancel(search)
        return {"FINISHED"}


class POSEANYTHING_OT_forget_poses(bpy.types.Operator):
    bl_idname = "poseanything.forget_poses"
    bl_label = "Forget"
    bl_description = "Give up what was found"
    bl_options = {"REGISTER", "UNDO"}

    what: EnumProperty(
        name="What",
        items=(("poses", "Poses", "The video's poses"), ("mask", "Subject", "The picture's subject")),
        options={"HIDDEN"},
    )

    def execute(self, context):
        setattr(context.scene.poseanything_video, self.what, None)
        return {"FINISHED"}


class POSEANYTHING_OT_place_poses(bpy.types.Operator):
    bl_idname = "poseanything.place_poses"
    bl_label = "Lay over Subject"
    bl_description = (
        "Move and scale the poses so that the filmed subject comes to lie on that of the picture that the "
        "clip begins with"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        video = context.scene.poseanything_video
        if video.poses is None or video.mask is None:
            cls.poll_message_set("Find the poses, and the picture's subject, first")
            return False
        return True

    def execute(self, context):
        scene, settings, video = context.scene, context.scene.poseanything, context.scene.poseanything_video
        try:
            kept = poses_of(scene)
            planned = clip_range(context, settings, session.get().engine(settings.engine_name))
            target = picture_mask(scene, settings, planned.width, planned.height)
            if target is None:
                raise ExportError(
                    "Point at the subject of the picture that the clip begins with first.", *PICK_IN_PICTURE
                )
            index = shown_index(scene, kept, planned.times.start) or 0
            found = laid_over(kept, max(index, 0), target)
        except ExportError as error:
            return refuse(self, error)
        video.scale, video.x, video.y = found.scale, found.x, found.y
        return {"FINISHED"}


@persistent
def _after_load(*_) -> None:
    if not bpy.app.background:
        pick_up_searches(bpy.context)


_register, _unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_open_video,
        POSEANYTHING_OT_use_active_strip,
        POSEANYTHING_OT_find_poses,
        POSEANYTHING_OT_find_subject,
        POSEANYTHING_OT_cancel_search,
        POSEANYTHING_OT_forget_poses,
        POSEANYTHING_OT_place_poses,
    )
)


def register() -> None:
    _register()
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    bpy.app.handlers.load_post.remove(_after_load)
    _unregister()
