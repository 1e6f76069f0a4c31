"""Everything the buttons do."""

from . import (
    camera,
    camera_moves,
    colour,
    compare,
    control,
    engine,
    example,
    files,
    findings,
    generate,
    help,
    key_poses,
    limbs,
    live,
    server,
    take_files,
    takes,
    timeline,
    unfinished,
    video,
    weights,
)

_MODULES = (
    generate,
    server,
    weights,
    takes,
    take_files,
    unfinished,
    compare,
    engine,
    colour,
    files,
    limbs,
    live,
    findings,
    camera,
    camera_moves,
    control,
    example,
    help,
    key_poses,
    timeline,
    video,
)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
