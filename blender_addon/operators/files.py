"""Export the skeleton to files: pictures and request, for use without any server."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import bpy
import numpy as np
from bpy.props import StringProperty

from .. import session
from ..errors import ExportError
from ..ground_truth.png import encode_png
from ..request.build import build_request
from ..request.export import ExportedClip, ExportStep, under_step
from ..request.first_frame import PICTURE, make_first_frame
from ..request.output import output_folder
from ..request.range import clip_range, clip_shots
from ..request.review import sentences
from ..request.view import find_view
from ..sequencer.strips import relative_folder
from ..shared.engines import EngineDescription
from ..shared.messages import GenerationRequest
from ..shared.raster import draw_pose
from ..shared.release import RELEASE
from ..shared.request_file import SUFFIX, write_request
from ..takes.take import FIRST_FRAME, claim_folder
from ..texts import say
from ..texts.translation import shown, tell
from .exporting import export_shots
from .folders import FolderOperator
from .stepped import RangeOperator, SteppedOperator


def export_files(context, output: Path, interactive: bool = False) -> Generator[ExportStep, None, list[Path]]:
    """Write each shot's clip into a new folder within `output`: `skeleton/000.png` and so on, the first
    frame, and the request file.

    The value is the folders. Raises one of `stepped.BAD_INPUT`."""
    settings, folders = context.scene.poseanything, []
    engine = engine_to_export_for(settings)
    shots, view = clip_shots(context, settings, engine), find_view(context, settings)
    # Files for no engine in particular show the rig's own bones.
    chosen = engine if settings.engine_name else None
    for shot, exporting in export_shots(context, settings, shots, view, interactive, chosen):
        clip, _ = yield from exporting
        request = build_request(uuid.uuid4().hex, clip, shot.planned, context.scene, engine)
        folders.append((yield from _write(context, clip, request, output)))
    return folders


def _write(context, clip: ExportedClip, request: GenerationRequest, output: Path) -> Iterator[ExportStep]:
    settings = context.scene.poseanything
    folder, _ = claim_folder(output, f"{settings.take_name or context.scene.name} skeleton")
    try:
        (folder / "skeleton").mkdir()
        (folder / FIRST_FRAME).write_bytes(clip.first_frame)
        carrying = set(request.conditioned_frames())
        for index in range(request.num_frames):
            step = ExportStep(
                0.95 + 0.05 * index / request.num_frames,
                say("Writing pose {index} of {total}", index=index + 1, total=request.num_frames),
            )
            yield step
            picture = draw_pose(clip.pose, index)
            if index not in carrying:
                picture[:] = 0
            encoding = encode_png(np.repeat(picture[..., None], 3, axis=2))
            (folder / "skeleton" / f"{index:03d}.png").write_bytes((yield from under_step(step, encoding)))
        write_request(folder / f"request{SUFFIX}", request)
    except OSError as error:
        raise ExportError(
            say(
                "{folder} can't be written to: {reason}; choose another folder.",
                folder=folder,
                reason=error.strerror,
            )
        ) from error
    return folder


def engine_to_export_for(settings) -> EngineDescription:
    """The chosen engine; the released model where none is chosen and no neural one is ready."""
    current = session.get()
    engine = current.engine(settings.engine_name)
    if engine is None or not (settings.engine_name or engine.neural):
        return current.engine(RELEASE.name) or RELEASE
    return engine


class POSEANYTHING_OT_export_skeleton(RangeOperator, bpy.types.Operator):
    bl_idname = "poseanything.export_skeleton"
    bl_label = "Export Skeleton"
    bl_description = (
        "Write the pose pictures, the first frame and the request to a new folder in the output folder, "
        "for use outside "
        "Blender; needs no server"
    )
    bl_options = {"UNDO"}

    directory: StringProperty(
        name="Folder",
        description="A new folder is made in this one; empty is the scene's output folder",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )

    def steps(self, context):
        settings = context.scene.poseanything
        output = (
            Path(bpy.path.abspath(self.directory)) if self.directory else output_folder(context, settings)
        )
        return export_files(context, output, self.interactive)

    def finish(self, context, folders):
        for sentence in sentences(session.get().findings):
            self.report({"WARNING"}, shown(sentence))
        self.report({"INFO"}, tell("Exported to {folder}", folder=", ".join(map(str, folders))))
        return {"FINISHED"}


class POSEANYTHING_OT_save_first_frame(SteppedOperator, bpy.types.Operator):
    bl_idname = "poseanything.save_first_frame"
    bl_label = "Save First Frame to Paint Over"
    bl_description = (
        "Save the clip's first frame as a picture in the output folder, and use that picture from now on. "
        "Whatever you paint over it is what the clip begins with"
    )
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context):
        if context.scene.poseanything.first_frame_source == PICTURE:
            cls.poll_message_set("The first frame is a picture already; choose another source to save it")
            return False
        return POSEANYTHING_OT_export_skeleton.poll(context)

    def steps(self, context):
        settings = context.scene.poseanything
        planned = clip_range(context, settings, engine_to_export_for(settings))
        view, output = find_view(context, settings), output_folder(context, settings)
        with tempfile.TemporaryDirectory(prefix="poseanything-") as scratch:
            made = yield from make_first_frame(
                context, settings, planned, view, Path(scratch), self.interactive
            )
            folder, name = claim_folder(output, f"{settings.take_name or context.scene.name} first frame")
            try:
                return shutil.copy(made, folder / f"{name}.png")
            except OSError as error:
                raise ExportError(
                    say(
                        "{folder} can't be written to: {reason}; choose another folder.",
                        folder=folder,
                        reason=error.strerror,
                    )
                ) from error

    def finish(self, context, path):
        settings = context.scene.poseanything
        settings.first_frame_source, settings.first_frame_path = (
            PICTURE,
            f"{relative_folder(Path(path).parent)}{Path(path).name}",
        )
        self.report({"INFO"}, tell("Paint over {path}", path=path))
        return {"FINISHED"}


class POSEANYTHING_OT_choose_output_folder(FolderOperator, bpy.types.Operator):
    bl_idname = "poseanything.choose_output_folder"
    bl_label = "Choose Output Folder"
    bl_description = "Choose where this scene's takes go"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    def execute(self, context):
        context.scene.poseanything.output_folder = self.directory
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_export_skeleton,
        POSEANYTHING_OT_save_first_frame,
        POSEANYTHING_OT_choose_output_folder,
    )
)
