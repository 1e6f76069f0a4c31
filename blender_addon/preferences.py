"""What holds for the user rather than for a scene: where the server is, where takes go by default.

The class is registered where it can be drawn, in `ui.preferences`.
"""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, StringProperty

from .path_options import RELATIVE
from .shared.address import DEFAULT_ADDRESS
from .shared.checkout import remembered_checkout


class Preferences:
    """The properties of the extension's preferences."""

    address: StringProperty(
        name="Address",
        description="Where the generation server listens, as tcp://HOST:PORT, unless a token says it. A "
        "computer other than this one is used only when Blender is allowed online access",
        default=DEFAULT_ADDRESS,
    )
    token: StringProperty(
        name="Token",
        description="The line that 'poseanything-server invite' has printed on the server's computer. It "
        "says where the server is, and lets you in; keep it to yourself. Leave it empty for a server of your "
        "own on this computer",
        subtype="PASSWORD",
    )
    autostart: BoolProperty(
        name="Start the Server When Needed",
        description="Start the server from its folder when Generate is pressed and none answers",
        default=True,
    )
    keep_going: BoolProperty(
        name="Clips Go On Without Blender",
        description="What is being generated when Blender quits or crashes is finished by the server, and "
        "comes when the file is opened again. Otherwise quitting cancels it",
        default=True,
    )
    server_folder: StringProperty(
        name="Server Folder",
        description="The checkout of PoseAnything Bridge that holds the server (the folder with build.py in "
        "it). Empty: the one in which build.py was last used on this computer",
        subtype="DIR_PATH",
    )
    server_python: StringProperty(
        name="Python",
        description="The Python that runs the server. Leave it empty to use the environment that 'python "
        "build.py setup' made in the server's folder",
        subtype="FILE_PATH",
    )
    output_folder: StringProperty(
        name="Output Folder",
        description="Where takes are written unless a scene says otherwise; // is the folder of the .blend "
        "file",
        subtype="DIR_PATH",
        default="//takes/",
        options=RELATIVE,
    )


def get(context) -> Preferences:
    """The user's preferences for this extension."""
    return context.preferences.addons[__package__].preferences


def server_folder(context) -> str:
    """The folder of the server: the one that the user has set, else the checkout that `build.py` was used in,
    "" without either."""
    return bpy.path.abspath(get(context).server_folder) or remembered_checkout()


def server(context) -> str:
    """The token or the address of the server that the user wants."""
    return get(context).token.strip() or get(context).address
