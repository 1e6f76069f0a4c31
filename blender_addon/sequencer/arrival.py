"""From arrived frames to a strip: which frames a strip has been given, undo, loading, movies."""

from __future__ import annotations

import time
from dataclasses import dataclass

import bpy

from .. import threads
from ..connection.jobs import DONE, ENCODING, Job
from ..takes.take import TakeError
from ..texts import say
from . import edit_scene, strips, take_list
from .movie import MovieEncoding, movie_of


@dataclass
class Placement:
    """Where a job's frames are shown.

    listed_in, listed: the name of the scene whose list has the take, and the job's state that is listed.
    scene_uid, scene_name, file: where the strip belongs: the scene's `session_uid` holds through undo and
        renaming, its name through loading; `file` is the .blend's path, "" before it is saved.
    in_edit_scene: whether that is the file's edit scene.
    start: where the strip begins, None for where the take was filmed.
    make_movie: whether a movie is wanted that has not been begun.
    present: whether that .blend is the open one.
    shown: how many frames the strip has been given.
    stale: undo or loading may have taken from the strip what it had been given.
    had_strip: whether there was a strip when undo began; in_undo: whether the strip has an undo step of
        its own.
    """

    job: Job
    listed_in: str
    scene_uid: int
    scene_name: str
    file: str
    in_edit_scene: bool
    make_movie: bool
    start: int | None = None
    listed: str = ""
    present: bool = True
    shown: int = 0
    stale: bool = False
    had_strip: bool = False
    in_undo: bool = False

    @property
    def pending(self) -> bool:
        """Whether frames that arrived have yet to be shown."""
        return self.present and self.job.frames > 0 and (self.stale or self.shown < self.job.frames)


class Arrival:
    """Brings the frames of jobs into the sequencer, a little at each `poll`."""

    def __init__(self):
        self.placements: dict[str, Placement] = {}
        self._encodings: dict[str, MovieEncoding] = {}
        self._undo_steps: list[tuple[str, Placement | None]] = []
        self.untidy = False
        """Whether strips have frames whose sizes `strips.heal` has to set right."""

    def expect(
        self,
        job: Job,
        scene: bpy.types.Scene,
        make_movie: bool = False,
        filmed: bpy.types.Scene | None = None,
        start: int | None = None,
    ) -> None:
        """Show a job's frames in a scene from now on, with a movie of them at its end; `filmed` is the scene
        that lists the take, `start` where its strip begins if not where the take was filmed."""
        self.placements[job.id] = Placement(
            job,
            (filmed or scene).name,
            scene.session_uid,
            scene.name,
            bpy.data.filepath,
            in_edit_scene=edit_scene.MARK in scene,
            make_movie=make_movie,
            start=start,
        )

    def forget(self, known: dict[str, Job]) -> None:
        """Drop what belongs to jobs that are not known any more."""
        for name in [name for name in self.placements if name not in known]:
            del self.placements[name]

    def pending(self, job: Job) -> bool:
        """Whether some of a job's frames have yet to be shown."""
        return job.id in self.placements and self.placements[job.id].pending

    def cancel_movie(self, job: Job) -> bool:
        """End the encoding of a job's movie; returns whether there was one."""
        encoding = self._encodings.pop(job.id, None)
        if encoding is None:
            return False
        encoding.close()
        job.state, job.sentence = DONE, say("The frames are complete; there is no movie.")
        return True

    def poll(self, budget: float) -> bool:
        """Show what arrived, for about `budget` seconds; returns whether there was anything."""
        end = time.perf_counter() + budget
        changed = self._begin_movies()
        if not bpy.app.is_job_running("RENDER"):
            for placement in list(self.placements.values()):
                if time.perf_counter() < end and placement.pending:
                    self._show(placement)
                    changed = True
        changed |= self._end_movies()
        self._list()
        self._push_undo()
        return changed

    def add_undo_step(self, message: str) -> None:
        """Give what a timer did to the file an undo step, as soon as one may be made."""
        self._undo_steps.append((message, None))
        self._push_undo()

    def close(self) -> None:
        """End every encoding."""
        for encoding in self._encodings.values():
            encoding.close()
        self._encodings.clear()
        self.placements.clear()

    # Blender's own doings

    def before_undo(self) -> None:
        for name, placement in self.placements.items():
            placement.had_strip = strips.find_strip(name) is not None

    def after_undo(self) -> None:
        """Undo gives back strips as they were: what arrived since is added again, and so is the strip
        where undoing something else took it away. One that has an undo step of its own, and no more frames
        to come, stays undone."""
        for placement in self.placements.values():
            placement.stale, placement.listed = True, ""

    def tidy(self) -> None:
        """Set the sizes of the frames right that have come; no thread may be busy."""
        strips.heal()
        self.untidy = False

    def after_load(self) -> None:
        take_list.enter_strips()
        for name, placement in self.placements.items():
            same_file = bool(placement.file) and placement.file == bpy.data.filepath
            placement.present = same_file or strips.find_strip(name) is not None
            placement.stale, placement.had_strip, placement.listed = True, False, ""
            if not placement.job.ended or placement.shown < placement.job.frames:
                placement.shown = 0

    def after_save(self) -> None:
        for placement in self.placements.values():
            if placement.present:
                placement.file = bpy.data.filepath

    # Within

    def _show(self, placement: Placement) -> None:
        job = placement.job
        found = strips.find_strip(job.id)
        first = placement.shown == 0
        undone = placement.stale and placement.had_strip and not (job.ended and placement.in_undo)
        placement.shown, placement.stale = job.frames, False
        if found is None and not first and not undone:
            return  # the user deleted it
        scene = found[0] if found is not None else _scene_of(placement)
        try:
            made = strips.show_frames(scene, job.id, job.take, job.frames, placement.start)
        except (TakeError, RuntimeError) as error:
            job.sentence = say(
                "The strip can't be made ({error}); the frames are in {folder}.",
                error=error,
                folder=job.take.folder,
            )
            return
        self.untidy = True
        found = strips.find_strip(job.id)
        if found is not None:
            edit_scene.make_room(found[0], *strips.span(found[1]))
        if made:
            placement.in_undo = False
            if first:
                self._undo_steps.append((say("Generate {take}", take=job.take.name), placement))

    def _list(self) -> None:
        for name, placement in self.placements.items():
            job = placement.job
            if placement.present and placement.listed != job.state:
                placement.listed = job.state
                scene = bpy.data.scenes.get(placement.listed_in) or _scene_of(placement)
                left = str(job.unfinished or "")
                take_list.enter(scene, name, job.take, job.frames, job.state, job.sentence, left)

    def _begin_movies(self) -> bool:
        begun = False
        for placement in self.placements.values():
            job = placement.job
            if not placement.make_movie or job.state != DONE:
                continue
            placement.make_movie, begun = False, True
            scene = _scene_of(placement)
            rate, render = strips.rate_in(scene, job.take), scene.render
            try:
                self._encodings[job.id] = MovieEncoding(movie_of(job.take, rate), render.fps, render.fps_base)
            except TakeError as error:
                job.sentence = str(error)
            else:
                job.state = ENCODING
        return begun

    def _end_movies(self) -> bool:
        ended = [name for name, encoding in self._encodings.items() if encoding.poll()]
        if not ended or bpy.app.is_job_running("RENDER"):
            return False
        for name in ended:
            placement, encoding = self.placements[name], self._encodings.pop(name)
            job = placement.job
            job.state = DONE
            try:
                [path] = encoding.result()
                if placement.present:
                    strips.add_movie(_scene_of(placement), job.id, job.take, path)
                    self._undo_steps.append((say("Movie of {take}", take=job.take.name), placement))
            except (TakeError, RuntimeError) as error:
                job.sentence = str(error)
        return True

    def _push_undo(self) -> None:
        """Give what the timer did an undo step, but not in the middle of somebody else's operator."""
        if not self._undo_steps or bpy.app.background:
            return
        windows = bpy.context.window_manager.windows
        if not windows or any(len(window.modal_operators) for window in windows):
            return
        with threads.still() as still, bpy.context.temp_override(window=windows[0]):
            if not still:
                return
            if bpy.ops.ed.undo_push.poll():
                for message, placement in self._undo_steps:
                    bpy.ops.ed.undo_push(message=message)
                    if placement is not None:
                        placement.in_undo = True
        self._undo_steps.clear()


def _scene_of(placement: Placement) -> bpy.types.Scene:
    for scene in bpy.data.scenes:
        if scene.session_uid == placement.scene_uid:
            return scene
    found = bpy.data.scenes.get(placement.scene_name)
    if found is None and placement.in_edit_scene:  # undone together with what came after it
        found = edit_scene.find_edit_scene() or edit_scene.make_edit_scene(bpy.context.scene)
        edit_scene.show(bpy.context, found)
    return found or strips.sequencer_scene(bpy.context)
