"""Operators that begin with the choice of a folder."""

from __future__ import annotations

from bpy.props import BoolProperty, StringProperty


class FolderOperator:
    """Base of those that have the user choose a folder, `directory`, in Blender's file browser."""

    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}
