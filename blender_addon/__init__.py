# SPDX-License-Identifier: GPL-3.0-or-later
"""PoseAnything Bridge: an animated rig becomes a generated strip in the sequencer."""

from . import control, engine_settings, operators, rig, sequencer, session, settings, ui
from .live import view as live_view
from .texts import translation

_MODULES = (
    translation,
    sequencer,
    session,
    rig,
    settings,
    engine_settings,
    control,
    live_view,
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
