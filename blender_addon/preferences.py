"""What holds for the user rather than for a scene: where the server is, where takes go by default."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, StringProperty

from . import session
from .connection.server import ServerError, chooses_port
from .shared.messages import DEFAULT_ADDRESS

_RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"} if bpy.app.version >= (4, 5, 0) else set()


def _changed_address(self, context):
    current = session.get()
    current.disconnect("The server's address was changed.")
    current.server.stop()
    current.wanted = True


class BridgePreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    address: StringProperty(
        name="Address",
        description="Where the generation server listens, as tcp://HOST:PORT. A computer other than this "
        "one is used only "
        "when Blender is allowed online access",
        default=DEFAULT_ADDRESS,
        update=_changed_address,
    )
    autostart: BoolProperty(
        name="Start the Server When Needed",
        description="Start the server from its folder when Generate is pressed and none answers",
        default=True,
    )
    server_folder: StringProperty(
        name="Server Folder",
        description="The checkout of PoseAnything Bridge that holds the server (the folder with build.py "
        "in it)",
        subtype="DIR_PATH",
    )
    server_python: StringProperty(
        name="Python",
        description="The Python that runs the server. Leave it empty to use the environment that 'python "
        "build.py setup' "
        "made in the server's folder",
        subtype="FILE_PATH",
    )
    output_folder: StringProperty(
        name="Output Folder",
        description="Where takes are written unless a scene says otherwise; // is the folder of the .blend "
        "file",
        subtype="DIR_PATH",
        default="//takes/",
        options=_RELATIVE,
    )

    def draw(self, context):
        from .ui.server import draw_server

        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column(heading="Server")
        column.prop(self, "server_folder")
        column.prop(self, "server_python")
        column.prop(self, "address")
        column.prop(self, "autostart")
        draw_server(layout, context)
        layout.separator()
        layout.prop(self, "output_folder")


def get(context) -> BridgePreferences:
    """The user's preferences for this extension."""
    return context.preferences.addons[__package__].preferences


def reach_server(context) -> None:
    """Connect to the server, starting it where the user wants that. Raises `ServerError` when none can
    answer."""
    preferences = get(context)
    session.get().reach_server(
        folder=bpy.path.abspath(preferences.server_folder),
        python=bpy.path.abspath(preferences.server_python),
        address=preferences.address,
        autostart=preferences.autostart,
        online=bpy.app.online_access,
    )


def connect() -> None:
    """Connect, if a connection may be had without starting anything."""
    current = session.get()
    address = get(bpy.context).address
    if current.server.is_up or chooses_port(address):
        return
    try:
        current.connect(address, bpy.app.online_access)
    except ServerError as error:
        current.sentence = str(error)


def register() -> None:
    bpy.utils.register_class(BridgePreferences)
    session.get().connect_as_preferred = connect


def unregister() -> None:
    bpy.utils.unregister_class(BridgePreferences)
