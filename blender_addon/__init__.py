# SPDX-License-Identifier: GPL-3.0-or-later
"""PoseAnything Bridge: an animated rig becomes a generated strip in the sequencer."""

try:
    from . import control, engine_settings, kept_paths, operators, rig, sequencer, session, settings, ui
    from .live import view as live_view
    from .texts import translation
except ModuleNotFoundError as error:
    if error.name not in ("msgpack", "zmq"):
        raise
    raise ImportError(
        "A package that comes with PoseAnything Bridge's zip is missing: install the zip for this system and "
        "this Blender once more, and start Blender anew."
    ) from error

_MODULES = (
    translation,
    sequencer,
    session,
    rig,
    settings,
    engine_settings,
    control,
    live_view,
    kept_paths,
    operators,
    ui,
)


def register() -> None:
    done = []
    try:
        for module in _MODULES:
            module.register()
            done.append(module)
    except Exception:
        for module in reversed(done):
            module.unregister()
        raise


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
