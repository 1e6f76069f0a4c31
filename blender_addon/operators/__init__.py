"""Everything the buttons do."""

from . import colour, engine, example, files, findings, generate, limbs, server, takes

_MODULES = (generate, server, takes, engine, colour, files, limbs, findings, example)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
