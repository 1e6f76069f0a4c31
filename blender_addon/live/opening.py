"""From the scene to an open live session: first frame, labels and limbs, made once."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import bpy

from .. import engine_settings, session
from ..errors import ExportError
from ..request.build import alignment_of, export_options
from ..request.export import Alignment, ExportStep, export_clip
from ..request.first_frame import RENDER, make_first_frame
from ..request.look import look_of
from ..request.range import ClipRange, frame_range
from ..request.subjects import find_subjects
from ..request.view import find_view
from ..shared.address import Address
from ..shared.engines import EngineDescription, check_live
from ..shared.messages import GenerationRequest, LiveOpen
from ..texts import say
from ..times import ClipTimes, frame_rate
from ..view import SceneCamera, clip_size
from .follower import Follower

REHEARSED = 7
"""Frames of the range that show the engine how the subject moves."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A session's opening and what follows the scene from it. `picture` is the first frame's file, `of` what
    it was made from, and `engine_and_look` what the settings said beside that."""

    message: LiveOpen
    follower: Follower
    picture: bytes
    of: tuple
    engine_and_look: tuple


def live_engine(name: str) -> EngineDescription:
    """The chosen engine where it offers live pictures, else the first that does. Raises `ExportError`."""
    engines = [engine for engine in session.get().engines if engine.live and engine.ready]
    chosen = session.get().engine(name)
    if chosen is not None and chosen in engines:
        return chosen
    if not engines:
        raise ExportError("The server has no engine that makes live pictures; start a newer server.")
    return engines[0]


def _camera_of(scene: bpy.types.Scene, name: str) -> bpy.types.Object | None:
    """A camera by its name, None for the scene's. Raises `ExportError`."""
    if not name:
        return None
    if (camera := scene.objects.get(name)) is None:
        raise ExportError(say("The camera {name} is gone; switch Live off here.", name=name))
    return camera


def picture_of(context, settings, camera: str = "") -> tuple:
    """What the first frame's picture depends on, as far as the settings say; `camera` is the name of one that
    is not the scene's. Raises `ExportError`."""
    scene, render = context.scene, context.scene.render
    own = _camera_of(scene, camera)
    seen = own or (scene.camera if settings.view == "CAMERA" else None)
    return (
        frame_range(scene, settings)[0],
        clip_size(scene, settings.long_side, 2),
        render.pixel_aspect_x / render.pixel_aspect_y,
        settings.view if own is None else "CAMERA",
        seen.session_uid if seen is not None else 0,
        settings.first_frame_source,
        settings.first_frame_path if settings.first_frame_source == "PICTURE" else "",
        alignment_of(settings),
    )


def open_session(
    context, settings, known: Opened | None, interactive: bool, camera: str = ""
) -> Generator[ExportStep, None, Opened]:
    """Step by step: what opens a live session. One that is `known` is followed on: its armatures stay, and
    its picture where that still shows what it should. `camera` is the name of one that is not the scene's.
    Raises `ExportError`."""
    scene = context.scene
    engine = live_engine(settings.engine_name)
    rehearsal, own = _rehearsal(scene, settings, engine), _camera_of(scene, camera)
    view = SceneCamera(own) if own is not None else find_view(context, settings)
    of = picture_of(context, settings, camera)
    armatures = known.follower.carriers if known is not None else find_subjects(context, settings)
    with tempfile.TemporaryDirectory(prefix="poseanything-") as scratch:
        path = Path(scratch, "live.png")
        if known is not None and known.of == of:
            path.write_bytes(known.picture)
            options = export_options(context, settings, rehearsal, armatures, view, str(path), engine)
            options = replace(options, alignment=Alignment(), first_frame_in_pose=False)
        else:
            made = yield from make_first_frame(context, settings, rehearsal, view, Path(scratch), interactive)
            options = export_options(context, settings, rehearsal, armatures, view, made, engine)
        clip = yield from export_clip(context, options)
    session.get().keep_motions(clip.motions)
    identifier = uuid.uuid4().hex
    request = GenerationRequest(
        job=identifier,
        engine=engine.name,
        width=rehearsal.width,
        height=rehearsal.height,
        num_frames=rehearsal.num_frames,
        fps=rehearsal.fps,
        first_frame=clip.first_frame,
        first_frame_in_pose=clip.first_frame_in_pose,
        pose=clip.pose,
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        subject_mask=clip.subject_mask,
        first_labels=clip.first_labels,
        part_maps=clip.part_maps,
        shadow_maps=clip.shadow_maps,
        backdrop=clip.backdrop,
        frame_format=_travelling_as(session.get().bridge.client.address),
        engine_options=engine_settings.options(scene, engine),
    )
    check_live(request, engine)
    follower = Follower(scene, view, clip)
    picture = bytes(clip.first_frame)
    return Opened(LiveOpen(identifier, request), follower, picture, of, _engine_and_look(settings, engine))


def _travelling_as(address: str) -> str:
    """How pictures come from a server: as they are from this computer, where they cost no more than their
    memory. A line of 100 megabits a second carries ten of these in a second, and more than a hundred as JPEG,
    whose packing and unpacking takes 5 ms."""
    return "raw" if Address.parse(address).is_loopback else "jpeg"


def _engine_and_look(settings, engine: EngineDescription) -> tuple:
    """What the settings say of the engine and of how poses look."""
    return settings.engine_name, look_of(settings, engine)


def outdated(context, settings, opened: Opened, camera: str = "") -> str:
    """Why a session has to be opened anew, "" where it has not: "scene", or "picture" where that is to be
    rendered again, which is the user's to ask for. Raises `ExportError`."""
    if picture_of(context, settings, camera) != opened.of:
        return "picture" if settings.first_frame_source == RENDER else "scene"
    now = _engine_and_look(settings, live_engine(settings.engine_name))
    same = now == opened.engine_and_look and not opened.follower.limbs_changed()
    return "" if same else "scene"


def _rehearsal(scene: bpy.types.Scene, settings, engine: EngineDescription) -> ClipRange:
    first, last = frame_range(scene, settings)
    count = min(REHEARSED, last - first + 1)
    step = (last - first) // (count - 1) if count > 1 else 1
    width, height = clip_size(scene, settings.long_side, max(engine.size_multiple, 2))
    return ClipRange(ClipTimes(first, step, count, last - first + 1), width, height, frame_rate(scene) / step)
