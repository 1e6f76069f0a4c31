"""Moves of the camera as keys on it, and flights recorded in a 3D view."""

from __future__ import annotations

import time
from contextlib import ExitStack

import bpy
import numpy as np
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty
from mathutils import Matrix, Vector

from .. import session
from ..buttons import USE_PERSPECTIVE
from ..camera.flight import Flight, blended, lens_of, seen_zoom, show_keys, write_keys
from ..camera.moves import MOVES, UNREST, add_unrest, eased, key_count, moved
from ..errors import ExportError
from ..request.range import frame_range
from ..request.subjects import find_subjects
from ..request.view import find_viewport
from ..rig.animation import keyed_frames
from ..rig.unkeyed import unkeyed_kept
from ..texts import say
from ..texts.translation import tell
from ..times import frame_rate, to_animation, to_scene
from ..view import SceneCamera, Viewport
from ..view.camera import render_size
from .camera import add_camera, motion_points
from .refusal import refuse

TICK = 1 / 60
"""Seconds between two looks at the view while a flight is recorded."""

_MOVE_ITEMS = tuple((name, label, text) for name, (label, text) in MOVES.items())


def is_keyable(camera: bpy.types.Object | None) -> bool:
    """Whether keys alone say where a camera is."""
    return (
        camera is not None
        and camera.type == "CAMERA"
        and camera.library is None
        and camera.override_library is None
        and camera.parent is None
        and not camera.constraints
    )


def _subject(context, frame: int) -> Vector | None:
    """The middle of the subject at a frame."""
    armatures = find_subjects(context, context.scene.poseanything)
    if not armatures:
        return None
    points = motion_points(context, armatures, frame, frame)
    return Vector((points.min(axis=0) + points.max(axis=0)) / 2)


class POSEANYTHING_OT_add_camera_move(bpy.types.Operator):
    bl_idname = "poseanything.add_camera_move"
    bl_label = "Add Camera Move"
    bl_description = (
        "Move the scene's camera over the range, by keys and noise that can be edited like any animation. "
        "The subject is then seen through the moving camera too. A camera that others move is left alone, "
        "and another is added"
    )
    bl_options = {"REGISTER", "UNDO"}

    move: EnumProperty(name="Move", description="What the camera does", items=_MOVE_ITEMS)
    amount: FloatProperty(
        name="Amount",
        description="How far: pans, tilts, tracks and pedestals in picture widths and heights, zooms as "
        "growth, dollies as a part of the way to the subject, rolls and orbits in turns, unrest as a "
        "multiple of what is usual",
        default=0.25,
        min=0.0,
        soft_max=2.0,
        max=10.0,
    )

    @classmethod
    def poll(cls, context):
        if context.scene.camera is None:
            cls.poll_message_set("Add a camera to the scene")
            return False
        return True

    def execute(self, context):
        scene, settings = context.scene, context.scene.poseanything
        if self.move in UNREST and not self.properties.is_property_set("amount"):
            self.amount = 1.0
        try:
            self._add(context, *frame_range(scene, settings))
        except ExportError as error:
            return refuse(self, error)
        settings.view, settings.camera_source = "CAMERA", "SCENE"
        return {"FINISHED"}

    def _add(self, context, first: int, last: int) -> None:
        scene, source = context.scene, context.scene.camera
        keyable = is_keyable(source)
        count = key_count(self.move, self.amount)
        frames = {round(value) for value in np.linspace(first, last, count)}
        if keyable:  # what it does already stays below the move
            keyed = (round(to_scene(scene, frame)) for frame in keyed_frames(source))
            frames |= {frame for frame in keyed if first < frame < last}
        else:
            frames = set(range(first, last + 1))
        frames = sorted(frames)
        subject, view, bases, lenses = _subject(context, first), SceneCamera(source), [], []
        with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
            for frame in frames:
                scene.frame_set(frame)
                depsgraph = context.evaluated_depsgraph_get()
                evaluated = source.evaluated_get(depsgraph)
                bases.append(evaluated.matrix_world.normalized())
                lenses.append((view.lens(scene, depsgraph), evaluated.data.lens, evaluated.data.ortho_scale))
        subject = bases[0] @ Vector((0, 0, -5)) if subject is None else subject
        camera = source if keyable else add_camera(context, source)
        keys = [to_animation(scene, frame) for frame in frames]
        if not keyable:
            write_keys(camera, keys, bases)
        if self.move in UNREST:
            away = (subject - bases[0].translation).length
            add_unrest(camera, self.move, self.amount, keys[0], keys[-1], away)
        else:
            fine = 4 * count
            shares = np.interp(frames, np.linspace(first, last, fine), eased(fine))
            moves = [
                moved(self.move, self.amount * float(share), base, lens, subject)
                for share, base, (lens, _, _) in zip(shares, bases, lenses, strict=True)
            ]
            if self.move.startswith("ZOOM"):
                for frame, (_, longer), (_, lens, scale) in zip(keys, moves, lenses, strict=True):
                    camera.data.lens, camera.data.ortho_scale = lens * longer, scale / longer
                    path = "lens" if camera.data.type == "PERSP" else "ortho_scale"
                    camera.data.keyframe_insert(path, frame=frame)
            else:
                write_keys(camera, keys, [place for place, _ in moves], interpolation="BEZIER")
        show_keys(camera, to_animation(scene, scene.frame_current_final))


def _has_viewport(cls: type[bpy.types.Operator], context) -> bool:
    """Whether there is a 3D view; an operator that needs one says so where there is none."""
    if find_viewport(context) is None:
        cls.poll_message_set("Open a 3D view")
        return False
    return True


class _Recording:
    """A flight that is being recorded, once at most. A timer looks at the view, since flying and walking keep
    events to themselves."""

    current: _Recording | None = None
    last: _Recording | None = None
    """The one that was kept last, to be smoothed otherwise afterwards."""

    def __init__(self, context, space, region, first: int, last: int, delay: float):
        self.flight = Flight()
        self.frames = first, last
        self._window, self._screen, self._scene = context.window, context.screen, context.scene
        self._space, self._region = space, region
        self._fps = frame_rate(context.scene)
        self._begin = time.monotonic() + delay
        self._locked: bool | None = None
        self._resting: tuple | None = None
        self._moved: tuple | None = None
        self.ended = False

    @property
    def frame(self) -> float:
        return self.frames[0] + (time.monotonic() - self._begin) * self._fps

    def tick(self) -> float | None:
        if _Recording.current is not self:
            return None
        try:
            frame = self.frame
            if frame >= self.frames[0]:
                self._scene.frame_set(min(int(frame), self.frames[1]))
                self.look(min(frame, float(self.frames[1])))
            if frame >= self.frames[1]:
                self.ended = True
                return None
        except ReferenceError:  # the view was closed
            self.ended = True
            return None
        return TICK

    def look(self, frame: float) -> None:
        """Note what the view shows at a frame."""
        view = Viewport.from_context(self._space, self._region)
        if isinstance(view, SceneCamera):
            camera = view.camera or self._scene.camera
            lens = SceneCamera(camera).lens(self._scene, bpy.context.evaluated_depsgraph_get())
            self.flight.add(frame, camera.matrix_world.normalized(), float(lens.projection[0, 0]))
            return
        zoom = seen_zoom(view, *render_size(self._scene))
        self.flight.add(frame, Matrix(np.linalg.inv(view.frozen.view).tolist()), zoom)

    def free_camera(self) -> None:
        """Let a camera that is looked through be moved by hand: its animation rests meanwhile."""
        if self._region.data.view_perspective != "CAMERA":
            return
        self._locked, self._space.lock_camera = self._space.lock_camera, True
        camera = self._scene.camera
        if camera is None:
            return
        self._moved = camera, camera.matrix_basis.copy()
        animation = camera.animation_data
        if animation is not None and animation.action is not None:
            self._resting = camera, animation.action, getattr(animation, "action_slot", None)
            animation.action = None

    def put_back(self) -> None:
        """Undo `free_camera`."""
        if self._locked is not None:
            self._space.lock_camera = self._locked
        if self._moved is not None:
            camera, basis = self._moved
            camera.matrix_basis = basis
        if self._resting is not None:
            camera, action, slot = self._resting
            camera.animation_data.action = action
            if slot is not None:
                camera.animation_data.action_slot = slot


class POSEANYTHING_OT_record_camera(bpy.types.Operator):
    bl_idname = "poseanything.record_camera"
    bl_label = "Record Camera"
    bl_description = (
        "Play the range and record how you go through this 3D view, by walking, flying, orbiting, trackpad "
        "or 3D mouse, as the camera's animation. Enter ends it early, Esc discards it"
    )
    bl_options = {"REGISTER", "UNDO"}

    smoothing: FloatProperty(
        name="Smoothing",
        description="Frames over which the flight is averaged; 0 keeps it as it was flown",
        default=3.0,
        min=0.0,
        soft_max=20.0,
        max=100.0,
    )
    new_camera: BoolProperty(
        name="New Camera", description="Record on a new camera and leave the scene's as it is"
    )
    blend: IntProperty(
        name="Join",
        description="Frames at either end over which the flight joins what the camera did before; for "
        "recording a part of a range anew",
        default=0,
        min=0,
        max=100,
    )
    delay: FloatProperty(
        name="Delay", description="Seconds before the recording begins", default=1.0, min=0.0, max=10.0
    )

    @classmethod
    def poll(cls, context):
        if not _has_viewport(cls, context):
            return False
        if _Recording.current is not None:
            cls.poll_message_set("Wait for the recording to end")
            return False
        return True

    def invoke(self, context, event):
        scene, found = context.scene, find_viewport(context)
        try:
            first, last = frame_range(scene, scene.poseanything)
            if not found[1].data.is_perspective:
                raise ExportError(
                    "The 3D view has no perspective; switch to perspective (Numpad 5) and record.",
                    *USE_PERSPECTIVE,
                )
        except ExportError as error:
            return refuse(self, error)
        self._restored = ExitStack()
        self._restored.enter_context(unkeyed_kept(scene, scene.frame_current, scene.frame_subframe))
        scene.frame_set(first)
        self._recording = _Recording.current = _Recording(context, *found, first, last, self.delay)
        self._recording.free_camera()
        bpy.app.timers.register(self._recording.tick, first_interval=TICK)
        self._timer = context.window_manager.event_timer_add(0.1, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        recording = self._recording
        if event.type == "ESC" and event.value == "PRESS":
            self._leave(context)
            self.report({"INFO"}, tell("The recording was discarded"))
            return {"CANCELLED"}
        if recording.ended or (event.type in {"RET", "NUMPAD_ENTER"} and event.value == "PRESS"):
            self._leave(context)
            return self._keep(context, recording)
        if event.type == "TIMER":
            frame, (first, last) = recording.frame, recording.frames
            begun = (
                say("Frame {frame} of {first} to {last}", frame=int(frame), first=first, last=last)
                if frame >= first
                else say("Recording begins")
            )
            context.workspace.status_text_set(tell("{begun}   Enter: End   Esc: Discard", begun=begun))
        return {"PASS_THROUGH"}

    def _leave(self, context):
        _Recording.current = None
        self._recording.put_back()
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)
        self._restored.close()

    def cancel(self, context):
        self._leave(context)

    def _keep(self, context, recording: _Recording):
        if len(recording.flight) < 2:
            self.report({"ERROR"}, tell("Nothing was recorded; fly for longer."))
            return {"CANCELLED"}
        _Recording.last = recording
        return self.execute(context)

    def execute(self, context):
        """Key the last flight; again, with other values, where the user adjusts the last operation."""
        recording = _Recording.last
        if recording is None:
            self.report({"ERROR"}, tell("Nothing was recorded yet."))
            return {"CANCELLED"}
        camera = keep_flight(
            context, recording.flight, *recording.frames, self.smoothing, self.new_camera, self.blend
        )
        self.report({"INFO"}, tell("Recorded on {camera}", camera=camera.name))
        return {"FINISHED"}


class POSEANYTHING_OT_use_perspective(bpy.types.Operator):
    bl_idname = "poseanything.use_perspective"
    bl_label = "Use Perspective"
    bl_description = "Show the 3D view in perspective"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context):
        return _has_viewport(cls, context)

    def execute(self, context):
        find_viewport(context)[0].region_3d.view_perspective = "PERSP"
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


def keep_flight(
    context,
    flight: Flight,
    first: int,
    last: int,
    smoothing: float = 0.0,
    new_camera: bool = False,
    blend: int = 0,
) -> bpy.types.Object:
    """Key a flight on the scene's camera, or on a new one where that is wanted or others move the scene's;
    the scene looks through it. Frames outside of the flight keep what they have."""
    scene, settings = context.scene, context.scene.poseanything
    frames = list(range(first, min(last, int(flight.last)) + 1))
    matrices, zooms = flight.resampled(frames, smoothing)
    camera = scene.camera
    if new_camera or not is_keyable(camera):
        camera = add_camera(context, camera)
        blend = 0
    if blend:
        before = []
        with unkeyed_kept(scene, scene.frame_current, scene.frame_subframe):
            for number in frames:
                scene.frame_set(number)
                before.append(camera.matrix_world.normalized())
        matrices = blended(matrices, before, blend)
    data = camera.data
    data.shift_x = data.shift_y = 0.0
    width, height = render_size(scene)
    lenses = [lens_of(data, zoom, width, height) for zoom in zooms] if data.type == "PERSP" else None
    write_keys(camera, [to_animation(scene, frame) for frame in frames], matrices, lenses)
    scene.camera = camera
    settings.view, settings.camera_source = "CAMERA", "SCENE"
    show_keys(camera, to_animation(scene, scene.frame_current_final))
    return camera


register, unregister = bpy.utils.register_classes_factory(
    (POSEANYTHING_OT_add_camera_move, POSEANYTHING_OT_record_camera, POSEANYTHING_OT_use_perspective)
)
