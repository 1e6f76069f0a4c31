"""The extension's page in Blender's preferences."""

from __future__ import annotations

import bpy

from ..preferences import Preferences
from ..shared.checkout import remembered_checkout
from .server import draw_server


class BridgePreferences(Preferences, bpy.types.AddonPreferences):
    bl_idname = __package__.rpartition(".")[0]

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column(heading="Server")
        column.prop(self, "server_folder", placeholder=remembered_checkout())
        column.prop(self, "server_python")
        column.prop(self, "token")
        row = column.row()
        row.enabled = not self.token
        row.prop(self, "address")
        column.prop(self, "autostart")
        column.prop(self, "keep_going")
        draw_server(layout, context)
        layout.separator()
        layout.prop(self, "output_folder")


register, unregister = bpy.utils.register_classes_factory((BridgePreferences,))
