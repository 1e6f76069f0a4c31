"""Start and stop the server process."""

from __future__ import annotations

import bpy

from .. import preferences, session
from ..buttons import OF_SERVER
from ..connection.events import CONNECTED
from ..connection.server import ServerError, find_checkout, next_free, parse_server
from ..texts.translation import tell
from .folders import FolderOperator
from .refusal import refuse
from .serving import is_here


class POSEANYTHING_OT_start_server(bpy.types.Operator):
    bl_idname = "poseanything.start_server"
    bl_label = "Start Server"
    bl_description = (
        "Start the generation server from the Server Folder in the preferences; it ends with Blender"
    )

    @classmethod
    def poll(cls, context):
        if session.get().bridge.server.is_up:
            cls.poll_message_set("The server is running")
            return False
        if not is_here(context):
            cls.poll_message_set("Another computer is named; start the server there")
            return False
        if not preferences.server_folder(context):
            cls.poll_message_set("Set the Server Folder in the extension's preferences")
            return False
        return True

    def execute(self, context):
        try:
            start_server(context)
        except ServerError as error:
            return refuse(self, error)
        return {"FINISHED"}


def start_server(context) -> None:
    """Start it as the preferences say. Raises `ServerError`."""
    current, prefs = session.get(), preferences.get(context)
    current.follow_address(context)
    current.bridge.server.start(
        preferences.server_folder(context),
        bpy.path.abspath(prefs.server_python),
        prefs.address,
        finish=prefs.keep_going,
    )
    current.cured(*(button.operator for button in OF_SERVER))


class POSEANYTHING_OT_use_other_port(bpy.types.Operator):
    bl_idname = "poseanything.use_other_port"
    bl_label = "Use Another Port"
    bl_description = (
        "Leave the port to the program that listens there: set the server's address to this computer's next "
        "free one, and start the server"
    )
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context):
        if session.get().bridge.link.state == CONNECTED:
            cls.poll_message_set("The server is running")  # leaving it would leave its clips
            return False
        return True

    def execute(self, context):
        prefs = preferences.get(context)
        try:
            taken, _ = parse_server(prefs.address)
            prefs.address = str(next_free(taken))
            start_server(context)
        except ServerError as error:
            return refuse(self, error)
        return {"FINISHED"}


class POSEANYTHING_OT_choose_server_folder(FolderOperator, bpy.types.Operator):
    bl_idname = "poseanything.choose_server_folder"
    bl_label = "Choose Server Folder"
    bl_description = (
        "Choose the checkout of PoseAnything Bridge that holds the server (the folder with build.py in it)"
    )

    def execute(self, context):
        try:
            find_checkout(bpy.path.abspath(self.directory))
        except ServerError as error:
            return refuse(self, error)
        preferences.get(context).server_folder = self.directory
        session.get().cured(type(self).bl_idname)
        return {"FINISHED"}


class POSEANYTHING_OT_use_this_computer(bpy.types.Operator):
    bl_idname = "poseanything.use_this_computer"
    bl_label = "Use This Computer"
    bl_description = "Set the server's address to the usual one on this computer, without a token"

    def execute(self, context):
        preferences.get(context).property_unset("address")
        preferences.get(context).property_unset("token")
        return {"FINISHED"}


class POSEANYTHING_OT_stop_server(bpy.types.Operator):
    bl_idname = "poseanything.stop_server"
    bl_label = "Stop Server"
    bl_description = (
        "Stop the server that this Blender started. Clips that are being generated end; their frames are kept"
    )

    @classmethod
    def poll(cls, context):
        if not session.get().bridge.server.is_up:
            cls.poll_message_set("No server was started from this Blender")
            return False
        return True

    def execute(self, context):
        session.get().bridge.server.stop()
        return {"FINISHED"}


class POSEANYTHING_OT_restart_server(bpy.types.Operator):
    bl_idname = "poseanything.restart_server"
    bl_label = "Restart Server"
    bl_description = (
        "Stop the server that this Blender started, and start it again. A clip that is being made is made "
        "once more; the frames that came are kept"
    )

    @classmethod
    def poll(cls, context):
        return POSEANYTHING_OT_stop_server.poll.__func__(cls, context)

    def execute(self, context):
        session.get().bridge.server.restart()
        return {"FINISHED"}


class POSEANYTHING_OT_show_server_log(bpy.types.Operator):
    bl_idname = "poseanything.show_server_log"
    bl_label = "Show Log"
    bl_description = "Copy the server's output into a text data-block, for reading or for a bug report"

    @classmethod
    def poll(cls, context):
        if not session.get().bridge.server.log_tail(1):
            cls.poll_message_set("The server has printed nothing yet")
            return False
        return True

    def execute(self, context):
        text = bpy.data.texts.get("PoseAnything Server Log") or bpy.data.texts.new("PoseAnything Server Log")
        text.from_string("\n".join(session.get().bridge.server.log_tail(200)) + "\n")
        self.report(
            {"INFO"}, tell("The log is in the text '{text}'; open it in a Text Editor", text=text.name)
        )
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        POSEANYTHING_OT_start_server,
        POSEANYTHING_OT_use_other_port,
        POSEANYTHING_OT_choose_server_folder,
        POSEANYTHING_OT_use_this_computer,
        POSEANYTHING_OT_stop_server,
        POSEANYTHING_OT_restart_server,
        POSEANYTHING_OT_show_server_log,
    )
)
