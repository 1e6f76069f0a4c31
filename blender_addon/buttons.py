"""Buttons that help against what keeps a clip from being made."""

from __future__ import annotations

from typing import NamedTuple


class Button(NamedTuple):
    """The operator that it presses, its label and the operator's properties."""

    operator: str
    label: str
    properties: tuple[tuple[str, object], ...] = ()


def sets(label: str, path: str, value: object) -> Button:
    """A button that sets one property of the context, by Blender's own operators.

    Args:
        path: from the context on, like "scene.poseanything.view".
    """
    kind = {bool: "boolean", str: "enum", int: "int", float: "float"}[type(value)]
    return Button(f"wm.context_set_{kind}", label, (("data_path", path), ("value", value)))


def sets_of(label: str, datas: str, name: str, path: str, value: object) -> Button:
    """`sets` for one property of a data-block.

    Args:
        datas: where `bpy.data` has it, like "cameras".
        path: from the data-block on.
    """
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return sets(label, f'blend_data.{datas}["{escaped}"].{path}', value)


def override_armature(armature: str) -> Button:
    """For an armature that is linked from another file."""
    return Button("poseanything.override_armature", "Make Library Override", (("armature", armature),))


SHOW_PREFERENCES = Button("preferences.addon_show", "Show Preferences", (("module", __package__),))
"""The server's address, token and Python are there."""
START_SERVER = Button("poseanything.start_server", "Start Server")
OTHER_PORT = Button("poseanything.use_other_port", "Use Another Port")
SHOW_LOG = Button("poseanything.show_server_log", "Show Log")
CHOOSE_HOME = Button("poseanything.choose_server_folder", "Choose Server Folder")
OF_SERVER = START_SERVER, OTHER_PORT, SHOW_LOG, CHOOSE_HOME, SHOW_PREFERENCES
"""Those that help to a server."""
CHOOSE_FOLDER = Button("poseanything.choose_output_folder", "Choose Output Folder")
OPEN_VIDEO = Button("poseanything.open_video", "Open Video")
FIND_POSES = Button("poseanything.find_poses", "Find Poses")
PICK_IN_PICTURE = Button("poseanything.pick_subject", "Pick Subject", (("of_picture", True),))
FRAME_SUBJECT = Button("poseanything.frame_subject", "Frame Subject")
LEAVE_EDIT_MODE = Button("object.mode_set", "Leave Edit Mode", (("mode", "OBJECT"),))
USE_BEST = sets("Use the Best Available", "scene.poseanything.engine", "AUTO")
USE_CAMERA = sets("Use the Camera", "scene.poseanything.view", "CAMERA")
GENERATE_INSTEAD = Button("poseanything.generate", "Generate Instead")
USE_SCENE_RANGE = sets("Use the Scene's Range", "scene.poseanything.use_custom_range", False)
USE_PERSPECTIVE = Button("poseanything.use_perspective", "Use Perspective")
USE_THIS_COMPUTER = Button("poseanything.use_this_computer", "Use This Computer")
ALLOW_ONLINE_ACCESS = sets("Allow Online Access", "preferences.system.use_online_access", True)
RENDER_INSTEAD = sets("Render It Instead", "scene.poseanything.first_frame_source", "RENDER")
