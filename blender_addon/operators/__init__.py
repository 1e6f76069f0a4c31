"""Everything the buttons do."""

from . import colour, example, files, findings, generate, limbs, server, takes

_MODULES = (generate, server, takes, colour, files, limbs, findings, example)


def register() -> None:
    for module in _MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(_MODULES):
        module.unregister()
