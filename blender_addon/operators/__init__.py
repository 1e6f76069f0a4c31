"""Everything the buttons do."""

from . import camera, colour, engine, example, files, findings, generate, limbs, server, takes

_MODULES = (generate, server, takes, engine, colour, files, limbs, findings, camera, example)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
